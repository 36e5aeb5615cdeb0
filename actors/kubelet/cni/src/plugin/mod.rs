//! The binary as a CNI plugin: short-lived, started by the container runtime for each pod and each plugin.
//!
//! The name that it is started by says which plugin it is; what it does comes in by the environment and by standard
//! input, and the answer goes out by standard output. Everything is synchronous, and nothing is started that it doesn't
//! need: it runs several times for each pod.

mod bandwidth;
mod bridge;
mod call;
mod error;
mod flannel;
mod host_local;
mod loopback;
mod portmap;
mod result;
pub(crate) mod table;

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use self::call::{Call, Command, Config, Environment, Versions};
pub(crate) use self::error::CniError;
pub(crate) use self::flannel::{STATE_DIR, SUBNET_FILE, namespace_of};
pub(crate) use self::host_local::{DATA_DIR, Store};

/// The plugins that the binary is.
pub const PLUGINS: [&str; 6] = ["bandwidth", "bridge", "flannel", "host-local", "loopback", "portmap"];
/// The name under which it asks the configuration which plugin it is.
const ANY: &str = "cni";
/// A configuration is a page; whoever sends more sends something else.
const INPUT_BYTES_MAX: u64 = 1024 * 1024;

/// Whether [`run`] is what a binary of this name has to call.
#[must_use]
pub fn is_plugin(name: &str) -> bool {
    name == ANY || PLUGINS.contains(&name)
}

/// The main function of the plugin `name`, one of [`PLUGINS`], or `cni` for the one that the configuration names.
///
/// Reads the environment and standard input, writes the result or the error to standard output.
#[must_use]
pub fn run(name: &str) -> ExitCode {
    let (output, code) = match serve(name) {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err((error, version)) => {
            let mut output = json!(error);
            output["cniVersion"] = version.into();
            (Some(output), ExitCode::FAILURE)
        }
    };
    let Some(output) = output else { return code };
    match writeln!(io::stdout(), "{output}") {
        Ok(()) => code,
        // The runtime is gone; there is nobody to tell.
        Err(_) => ExitCode::FAILURE,
    }
}

#[expect(clippy::disallowed_methods, reason = "a plugin is called by its environment; this is its main function")]
fn environment() -> Environment {
    let variable = |name| std::env::var(name).ok();
    Environment {
        command: variable("CNI_COMMAND"),
        container: variable("CNI_CONTAINERID"),
        namespace: variable("CNI_NETNS"),
        interface: variable("CNI_IFNAME"),
        arguments: variable("CNI_ARGS"),
    }
}

/// The answer; or the error with the version in which it is told.
fn serve(name: &str) -> Result<Option<Value>, (CniError, String)> {
    let newest = || call::VERSIONS[call::VERSIONS.len() - 1].to_owned();
    let environment = environment();
    let mut input = Vec::new();
    // All of it, even where it isn't needed, or who writes it meets a closed pipe. A person who tries the program writes
    // nothing, and is told what is missing.
    if environment.command.is_some() {
        let read = io::stdin().take(INPUT_BYTES_MAX).read_to_end(&mut input);
        read.map_err(|error| (CniError::new(error::IO_FAILURE, format!("standard input: {error}")), newest()))?;
    }
    let call = Call::new(environment).map_err(|error| (error, newest()))?;
    if call.command == Command::Version {
        return Ok(Some(json!(Versions::OURS)));
    }
    let config = Config::parse(&input).map_err(|error| (error, newest()))?;
    let version = config.common.cni_version.clone();
    let served = config.check(call.command).and_then(|()| dispatch(name, &call, &config));
    let result = served.map_err(|error| (error, version.clone()))?;
    let place = config.version().map_err(|error| (error, version))?;
    Ok(result.map(|result| result.print(place)))
}

fn dispatch(name: &str, call: &Call, config: &Config) -> Result<Option<result::CniResult>, CniError> {
    match if name == ANY { config.common.plugin.as_str() } else { name } {
        "bandwidth" => bandwidth::handle(call, config),
        "bridge" => bridge::handle(call, config),
        "flannel" => flannel::handle(call, config),
        "host-local" => host_local::handle(call, config),
        "loopback" => loopback::handle(call, config),
        "portmap" => portmap::handle(call, config),
        other => Err(CniError::config(format!("there is no plugin {other:?} in this binary"))),
    }
}

/// The links on the host that an attachment may have left.
pub(crate) fn links_of(container: &str, interface: &str) -> [String; 2] {
    let owner = format!("{container}/{interface}");
    [bridge::host_end(&owner), bandwidth::device(&owner)]
}

/// A number that is the same for the same text, for names that must be found again. FNV-1a.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
