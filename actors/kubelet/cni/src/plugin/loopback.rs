//! `loopback`: switches the container's `lo` on.

use std::path::Path;

use k3sd_netlink::Namespace;
use k3sd_netlink::route::{Desired, LinkSpec, Route};

use super::call::{Call, Command, Config};
use super::error::{self, CniError};
use super::result::{CniResult, Interface, Ip};

/// The one interface that it is about.
const LOOPBACK: &str = "lo";

/// Serves a call of any command; only `ADD` has a result.
///
/// # Errors
/// As CNI has them.
pub(crate) fn handle(call: &Call, config: &Config) -> Result<Option<CniResult>, CniError> {
    let path = call.namespace.as_deref().unwrap_or(Path::new(""));
    match call.command {
        Command::Add => {
            let mut inside = Route::open_in(&Namespace::open(path)?)?;
            let spec = LinkSpec { name: LOOPBACK.to_owned(), up: Some(true), ..LinkSpec::default() };
            inside.converge(&Desired { links: vec![spec], ..Desired::default() })?;
            match config.previous()? {
                Some(previous) => Ok(Some(previous)),
                None => describe(&mut inside, path).map(Some),
            }
        }
        Command::Check => {
            let mut inside = Route::open_in(&Namespace::open(path)?)?;
            if inside.link(LOOPBACK)?.is_some_and(|link| link.up) {
                return Ok(None);
            }
            Err(CniError::new(error::INTERNAL, "loopback interface is down"))
        }
        // It goes with its namespace; until then whoever is still inside may need it.
        Command::Delete | Command::Collect | Command::Status | Command::Version => Ok(None),
    }
}

fn describe(inside: &mut Route, path: &Path) -> Result<CniResult, CniError> {
    let link = inside.link(LOOPBACK)?;
    let index = link.as_ref().map(|link| link.index);
    let mac = link.and_then(|link| link.mac).map(|mac| mac.to_string()).unwrap_or_default();
    let sandbox = path.to_string_lossy().into_owned();
    let addresses = inside.addresses()?.into_iter().filter(|address| Some(address.index) == index);
    let ip = |address: k3sd_netlink::route::Address| Ip {
        interface: Some(0),
        address: address.cidr.to_string(),
        ..Ip::default()
    };
    Ok(CniResult {
        interfaces: vec![Interface { name: LOOPBACK.to_owned(), mac, sandbox, ..Interface::default() }],
        ips: addresses.map(ip).collect(),
        ..CniResult::default()
    })
}
