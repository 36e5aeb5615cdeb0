//! Freeing what containers held that are gone.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Component, Path};

use k3sd_netlink::nft::Netfilter;
use k3sd_netlink::route::Route;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::{core, kernel};
use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::plugin::{self, Store};

/// Frees the addresses of a network that belong to no live container, and says which. `data_dir` is where the
/// `host-local` plugin remembers them, `/var/lib/cni/networks` unless it was told otherwise.
///
/// A sandbox that is being made counts as dead unless its id is in `live_containers`; who can't know it waits, as the
/// node's network does.
///
/// # Errors
/// The directory can't be read or written.
pub fn collect(
    data_dir: &Path,
    network: &str,
    live_containers: &BTreeSet<String>,
) -> Result<Vec<IpAddr>, NetworkError> {
    let Some(store) = store(data_dir, network)? else { return Ok(Vec::new()) };
    store.release(|owner| !live_containers.contains(&owner.container)).map_err(addresses)
}

fn addresses(error: plugin::CniError) -> NetworkError {
    NetworkError::Addresses(if error.details.is_empty() {
        error.msg
    } else {
        format!("{}: {}", error.msg, error.details)
    })
}

fn store(data_dir: &Path, network: &str) -> Result<Option<Store>, NetworkError> {
    Store::open_existing(&data_dir.join(network)).map_err(addresses)
}

fn network_of(config: &NetworkConfig) -> String {
    let list = kernel::read_conflist(config).ok();
    list.and_then(|list| core::network_name(&list)).unwrap_or_else(|| core::NETWORK.to_owned())
}

/// Names in the directory where the flannel plugin remembers what it called.
fn kept(config: &NetworkConfig) -> Result<Vec<String>, NetworkError> {
    let failed = |source| NetworkError::File { what: "read", path: config.flannel_dir.clone(), source };
    let entries = match fs::read_dir(&config.flannel_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let names = entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Everybody who holds an address, a host port or a file.
pub(super) fn holders(config: &NetworkConfig) -> Result<BTreeSet<String>, NetworkError> {
    let mut holders = BTreeSet::new();
    if let Some(store) = store(&config.networks_dir, &network_of(config))? {
        holders.extend(store.all().map_err(addresses)?.into_iter().filter_map(|(_, owner)| Some(owner?.container)));
    }
    holders.extend(kept(config)?.into_iter().map(|name| name.trim_start_matches('.').to_owned()));
    let failed = |source| NetworkError::Kernel { what: "list the plugins' nftables table", source };
    let owners = Netfilter::open().and_then(|mut netfilter| plugin::table::owners(&mut netfilter)).map_err(failed)?;
    holders.extend(owners.iter().filter_map(|owner| owner.split_once('/')).map(|(container, _)| container.to_owned()));
    Ok(holders)
}

/// Whether a file is that of a network namespace that a container runtime made for one sandbox alone, by its place and
/// name. Nobody else's is ever touched.
fn is_sandboxes(path: &Path) -> bool {
    let is_plain = path.is_absolute() && path.components().all(|part| part != Component::ParentDir);
    let named = |path: Option<&OsStr>| path.and_then(OsStr::to_str).unwrap_or_default().to_owned();
    is_plain && named(path.parent().and_then(Path::file_name)) == "netns" && named(path.file_name()).starts_with("cni-")
}

/// Ends the mount that keeps a network namespace alive, and removes its file. One that is gone is no error.
fn free(path: &Path) -> Result<(), NetworkError> {
    match unmount(path, UnmountFlags::DETACH) {
        // There is no file, or nothing is mounted on it.
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => remove(path),
        Err(error) => Err(NetworkError::File { what: "unmount", path: path.to_owned(), source: error.into() }),
    }
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::File { what: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Frees all that these containers hold. Returns the addresses among it.
pub(super) fn release(config: &NetworkConfig, gone: &BTreeSet<String>) -> Result<Vec<IpAddr>, NetworkError> {
    let is_gone = |owner: &str| owner.split_once('/').is_some_and(|(container, _)| gone.contains(container));
    let failed = |source| NetworkError::Kernel { what: "remove what containers left", source };
    let mut netfilter = Netfilter::open().map_err(failed)?;
    plugin::table::remove(&mut netfilter, plugin::table::Part::All, is_gone).map_err(failed)?;
    let mut route = Route::open().map_err(failed)?;
    let store = store(&config.networks_dir, &network_of(config))?;
    let held = store.as_ref().map(Store::all).transpose().map_err(addresses)?.unwrap_or_default();
    for owner in held.into_iter().filter_map(|(_, owner)| owner).filter(|owner| gone.contains(&owner.container)) {
        for link in plugin::links_of(&owner.container, &owner.interface) {
            route.delete_link(&link).map_err(failed)?;
        }
    }
    for name in kept(config)?.into_iter().filter(|name| gone.contains(name.trim_start_matches('.'))) {
        let path = config.flannel_dir.join(name);
        // The namespace before the file that names it, or a crash in between would leave it for ever.
        let namespace = fs::read(&path).ok().and_then(|kept| plugin::namespace_of(&kept));
        namespace.filter(|namespace| is_sandboxes(namespace)).map_or(Ok(()), |namespace| free(&namespace))?;
        remove(&path)?;
    }
    // Addresses last: as long as they are held, whoever dies in between comes back to all of it.
    match store {
        Some(store) => store.release(|owner| gone.contains(&owner.container)).map_err(addresses),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_runtime_made_for_a_sandbox_is_freed() {
        for (path, expected) in [
            ("/run/netns/cni-0a1b", true),
            ("/var/run/netns/cni-0a1b", true),
            ("/run/k3s/containerd/netns/cni-0a1b", true),
            ("/run/netns/mine", false),
            ("/proc/1/ns/net", false),
            ("/etc/cni-passwd", false),
            ("/run/netns/../cni-x", false),
            ("/a/../run/netns/cni-x", false),
            ("run/netns/cni-x", false),
        ] {
            assert_eq!(is_sandboxes(Path::new(path)), expected, "{path}");
        }
    }
}
