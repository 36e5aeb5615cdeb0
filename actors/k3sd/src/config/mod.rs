//! From the command line, variables and config files to one typed configuration.
//!
//! ```text
//!   config file + drop-ins ── merge ──┐
//!   command line ─────────────────────┼─ resolve ── Settings ── build ── RunConfig
//!   variables, defaults ──────────────┘                │
//!                                                      └─ print (--print-config)
//! ```
//!
//! Everything but [`load`] and the reading of files is pure. Each value keeps its origin up to the last error message.
//! Nothing here writes to the disk.

mod available;
mod build;
mod cidr;
mod datastore;
mod early;
mod error;
mod fetch;
mod files;
mod merge;
mod model;
mod origin;
mod print;
mod read;
mod redact;
pub mod scalar;
mod server;
mod settings;
mod token_file;
pub(crate) mod yaml;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use crate::cli::environment::Environment;
use crate::cli::flags::Role;

pub use self::build::{Facts, build};
pub use self::cidr::{Cidr, Family, NotACidr};
pub(crate) use self::early::early_data_dir;
pub use self::error::{ConfigError, one_line};
pub use self::fetch::FetchError;
pub use self::model::{
    AgentConfig, BucketLookup, ClusterConfig, ComponentsConfig, DatastoreConfig, DnsProvider, EgressSelector,
    EncryptionProvider, FlannelBackend, InspectConfig, KubeconfigConfig, ListenConfig, LogConfig, LogFormat,
    NetworkConfig, NodeConfig, PortRange, ProbeConfig, RoleConfig, RunConfig, RuntimeConfig, S3Config, Secret,
    ServerArguments, ServerConfig, ServerJoinConfig, SnapshotConfig,
};
pub use self::origin::{Origin, dashed};
pub use self::settings::{Given, Occurrence, Setting, Settings};

/// The first moment a clock may show, 1980-01-01. Earlier, it was never set, and certificates made now would be
/// worthless once it is.
const CLOCK_MIN: Duration = Duration::from_secs(315_532_800);

/// What came of loading the configuration.
#[derive(Debug)]
pub enum Loaded {
    /// Start with this.
    Run(Box<RunConfig>),
    /// Print this and exit. `problem` is why starting would fail, if it would.
    Print {
        /// The settings and their origins.
        text: String,
        /// Why this configuration can't start anything, apart from flags whose parts are not built yet.
        problem: Option<ConfigError>,
    },
}

/// Loads the configuration of `server` or `agent`.
///
/// # Errors
/// When the configuration can't be read, makes no sense, or asks for what this build does not have; also when the clock
/// is not set. Nothing has been written then.
pub fn load(environment: &Environment, role: Role, command_line: &[Occurrence]) -> Result<Loaded, ConfigError> {
    let last = |name: &str| command_line.iter().rev().find(|occurrence| occurrence.flag.name == name);
    let location = files::locate(environment, last("config").map(|occurrence| occurrence.text.as_str()))?;
    let files = files::read(&location, &environment.vars)?;
    let mut settings = settings::resolve(role, &merge::merge(&files), command_line, &environment.vars)?;
    if location.origin != Origin::Default {
        // Here the variable beats the flag, unlike for any other flag, so what counts is told anew.
        let given = Given { text: location.shown().display().to_string(), origin: location.origin };
        let config = settings.all.iter_mut().find(|setting| setting.flag.name == "config");
        config.expect("both commands have the flag").given = vec![given];
    }
    let format = build::print_format(&settings)?;
    let result = facts(environment, &settings).and_then(|facts| {
        let mut config = build(&settings, &facts)?;
        token_file::read_all(&mut config, &settings)?;
        check_node(&config, environment)?;
        Ok(config)
    });
    if let Some(format) = format {
        let files: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
        return Ok(Loaded::Print { text: print::print(&settings, &files, format), problem: result.err() });
    }
    check_clock(environment.now)?;
    let config = result?;
    available::check(&settings)?;
    Ok(Loaded::Run(Box::new(config)))
}

/// What is wrong about the node is said before a server opens its datastore.
fn check_node(config: &RunConfig, environment: &Environment) -> Result<(), ConfigError> {
    let node = match &config.role {
        RoleConfig::Server(server) => server.node.as_ref(),
        RoleConfig::Agent(agent) => Some(&agent.node),
    };
    let Some(node) = node else { return Ok(()) };
    let flags = k3sd_kubelet::NodeFlags {
        ips: &node.ips,
        labels: &node.labels,
        taints: &node.taints,
        kubelet_arguments: &node.kubelet_arguments,
        host_root: &environment.root,
    };
    k3sd_kubelet::check(flags).map_err(|error| ConfigError::Refused(one_line(&error)))
}

fn check_clock(now: SystemTime) -> Result<(), ConfigError> {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if since_epoch < CLOCK_MIN {
        let problem = "the system clock shows a date before 1980; set it, for example through NTP, and start again";
        return Err(ConfigError::Refused(problem.to_owned()));
    }
    Ok(())
}

/// Looks at the machine.
fn facts(environment: &Environment, settings: &Settings) -> Result<Facts, ConfigError> {
    let facts = Facts {
        cwd: environment.cwd.clone(),
        home: environment.home.clone(),
        is_root: environment.is_root,
        has_server_token: false,
        has_kubelet_certificate: false,
        variables: environment.vars.clone(),
    };
    let data_dir = build::data_dir(settings, &facts)?;
    Ok(Facts {
        has_server_token: data_dir.join("server/token").exists(),
        has_kubelet_certificate: data_dir.join("agent/client-kubelet.crt").exists(),
        ..facts
    })
}
