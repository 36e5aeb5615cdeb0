//! A server's datastore: its own flags, and kine's environment variables for everything they do not say.

use std::path::Path;
use std::time::SystemTime;

use k3sd_kine::{StoreConfig, StoreSettings, StoreTls};

use crate::cli::{Environment, kine_for_server};
use crate::config::build::Facts;
use crate::config::error::ConfigError;
use crate::config::model::DatastoreConfig;
use crate::config::settings::Settings;

/// The prefix of the variables that kine reads.
const KINE_PREFIX: &str = "KINE_";

/// Types the datastore's settings. Relative paths in the endpoint are below the server's directory, where K3s's process
/// works; that is where a `state.db` of K3s is.
pub(crate) fn datastore(settings: &Settings, facts: &Facts, data_dir: &Path) -> Result<DatastoreConfig, ConfigError> {
    let file = |name| settings.path(name, &facts.cwd);
    let tls = StoreTls {
        ca: file("datastore-cafile"),
        cert: file("datastore-certfile"),
        key: file("datastore-keyfile"),
        skip_verify: false,
    };
    if tls.cert.is_some() != tls.key.is_some() {
        let (given, missing) = if tls.cert.is_some() { ("cert", "key") } else { ("key", "cert") };
        let problem = format!("goes together with --datastore-{missing}file; set both or neither");
        return Err(settings.refuse(&format!("datastore-{given}file"), problem));
    }
    let endpoint = settings.word("datastore-endpoint");
    // Looked at before anything else is, so that what is wrong with it is said of the flag.
    StoreConfig::new(&endpoint, &StoreSettings { tls: tls.clone(), ..StoreSettings::default() })
        .map_err(|error| settings.refuse("datastore-endpoint", error.to_string()))?;
    let kine_variables = facts.variables.iter().filter(|(name, _)| name.starts_with(KINE_PREFIX));
    let environment = Environment {
        vars: kine_variables.map(|(name, value)| (name.clone(), value.clone())).collect(),
        cwd: data_dir.join("server"),
        ..Environment::empty(SystemTime::UNIX_EPOCH)
    };
    let (mut kine, warnings) = kine_for_server(&endpoint, tls, &environment)
        .map_err(|error| ConfigError::Refused(format!("{error} (the server's datastore reads it, too)")))?;
    if let StoreConfig::Sqlite(file) = &mut kine.store {
        // The usual endpoint begins with `./`, which reads badly in the middle of a path.
        file.path = file.path.components().collect();
    }
    Ok(DatastoreConfig {
        kine,
        kine_tls: settings.switch("kine-tls"),
        etcd_expose_metrics: settings.switch("etcd-expose-metrics"),
        warnings,
    })
}
