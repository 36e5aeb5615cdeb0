//! `kine ...`: the datastore and its etcd endpoint, standing alone, with kine's flags and variables.

mod flags;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command};
use k3sd_kine::{KineConfig, ListenAddress, PoolConfig, ServerTls, SlowConfig, StoreConfig, StoreSettings, StoreTls};

use self::flags::{Effect, ROWS, Row};
use super::UsageError;
use crate::cli::environment::Environment;
use crate::config::{InspectConfig, LogConfig, LogFormat, scalar};

/// What `kine` is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KineOptions {
    /// The datastore and what is done for it.
    pub kine: KineConfig,
    /// Where clients find it.
    pub listen: ListenAddress,
    /// Whom they find there; nothing is a server without TLS.
    pub tls: Option<ServerTls>,
    /// Where the numbers are, if anywhere.
    pub metrics: Option<MetricsOptions>,
    /// How to log.
    pub log: LogConfig,
    /// How to look into the process.
    pub inspect: InspectConfig,
    /// What was asked for and has no effect.
    pub warnings: Vec<String>,
}

/// Where to serve numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsOptions {
    /// A TCP address.
    pub address: ListenAddress,
    /// Whether somebody asked for it. Otherwise it is no reason to fail that another program is there already.
    pub demanded: bool,
    /// Whom they find there; nothing is a server without TLS.
    pub tls: Option<ServerTls>,
}

/// The clap command `kine`.
pub(crate) fn command() -> Command {
    // The switch for details is the whole program's, so it is not declared again.
    let args = ROWS.iter().filter(|row| row.name != "debug").map(Row::arg);
    Command::new("kine").about("Run the datastore alone, for etcd clients").args(args)
}

/// Where values come from: flags if there are any, and variables.
#[derive(Clone, Copy)]
struct Values<'a> {
    matches: Option<&'a ArgMatches>,
    environment: &'a Environment,
}

impl<'a> Values<'a> {
    /// How the user names what a row is about.
    fn name(self, row: &Row) -> String {
        if self.matches.is_some() { format!("--{}", row.name) } else { format!("environment variable {}", row.env) }
    }

    fn wrong(self, row: &Row, error: &dyn std::fmt::Display) -> UsageError {
        UsageError(format!("{}: {error}", self.name(row)))
    }

    /// The value, if it is not left at its default.
    fn given(self, row: &Row) -> Option<&'a str> {
        let flag = self.matches.and_then(|matches| matches.try_get_one::<String>(row.name).ok().flatten());
        let variable = || if row.env.is_empty() { None } else { self.environment.var(row.env) };
        flag.map(String::as_str).or_else(variable)
    }

    fn text(self, name: &str) -> &'a str {
        let row = Row::find(name);
        self.given(row).unwrap_or(row.default)
    }

    fn read<T, E: std::fmt::Display>(
        self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, UsageError> {
        parse(self.text(name)).map_err(|error| self.wrong(Row::find(name), &error))
    }

    fn duration(self, name: &str) -> Result<Duration, UsageError> {
        self.read(name, scalar::parse_duration)
    }

    fn number(self, name: &str) -> Result<i64, UsageError> {
        self.read(name, scalar::parse_int)
    }

    fn switch(self, name: &str) -> Result<bool, UsageError> {
        self.read(name, scalar::parse_bool)
    }

    fn file(self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|path| !path.is_empty()).map(|path| self.environment.absolute(path))
    }

    /// What was asked for and has no effect.
    ///
    /// # Errors
    /// The first thing that can't be had at all.
    fn warnings(self) -> Result<Vec<String>, UsageError> {
        let mut warnings = Vec::new();
        for row in ROWS {
            let asked = self.given(row).filter(|value| *value != row.default && *value != "false");
            match (asked, row.effect) {
                (None, _) | (_, Effect::Works) => {}
                (Some(_), Effect::Refused(why)) => return Err(self.wrong(row, &why)),
                (Some(_), Effect::Nothing(why)) => warnings.push(format!("{} has no effect: {why}", self.name(row))),
            }
        }
        Ok(warnings)
    }

    /// What is said about a store beside its endpoint and its TLS.
    fn settings(self, tls: StoreTls) -> Result<StoreSettings, UsageError> {
        Ok(StoreSettings {
            tls,
            pool: PoolConfig {
                open_max: self.number("datastore-max-open-connections")?,
                idle_max: self.number("datastore-max-idle-connections")?,
                lifetime_max: self.duration("datastore-connection-max-lifetime")?,
                idle_time_max: self.duration("datastore-connection-max-idle-time")?,
            },
            retained_revisions_min: self.number("compact-min-retain")?,
        })
    }

    /// Certificate and key for clients go together; kine would serve without TLS if one is missing.
    fn server_tls(self) -> Result<Option<ServerTls>, UsageError> {
        let (cert, key) = (self.file("server-cert-file"), self.file("server-key-file"));
        let client_ca = self.file("trusted-ca-file");
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some(ServerTls { cert, key, client_ca })),
            (None, Some(_)) => Err(self.wrong(Row::find("server-key-file"), &"it needs --server-cert-file, too")),
            (Some(_), None) => Err(self.wrong(Row::find("server-cert-file"), &"it needs --server-key-file, too")),
            (None, None) if client_ca.is_some() => {
                Err(self.wrong(Row::find("trusted-ca-file"), &"it needs --server-cert-file and --server-key-file, too"))
            }
            (None, None) => Ok(None),
        }
    }

    /// Where the numbers are. They are as secret as the rest, unless that is said otherwise.
    fn metrics(self, tls: Option<&ServerTls>) -> Result<Option<MetricsOptions>, UsageError> {
        let row = Row::find("metrics-bind-address");
        let text = self.text(row.name);
        if text == "0" {
            return Ok(None);
        }
        let address = match text.parse::<ListenAddress>() {
            Ok(address @ ListenAddress::Tcp(_)) if !text.contains("://") => address,
            Ok(_) => return Err(self.wrong(row, &"an address and a port are wanted, such as 127.0.0.1:8080")),
            Err(error) => return Err(self.wrong(row, &error)),
        };
        let tls = if self.switch("metrics-ignore-tls-config")? { None } else { tls.cloned() };
        Ok(Some(MetricsOptions { address, demanded: self.given(row).is_some(), tls }))
    }

    /// Everything but where it listens.
    fn config(self, endpoint: &str, tls: StoreTls) -> Result<KineConfig, UsageError> {
        let store = StoreConfig::new(endpoint, &self.settings(tls)?);
        let mut store = store.map_err(|error| self.wrong(Row::find("endpoint"), &error))?;
        if let StoreConfig::Sqlite(options) = &mut store {
            options.path = self.environment.absolute(&options.path);
        }
        let mut kine = KineConfig::new(store);
        kine.progress_interval = self.duration("watch-progress-notify-interval")?;
        kine.compact.interval = self.duration("compact-interval")?;
        if matches!(kine.store, StoreConfig::Etcd(_)) && self.given(Row::find("compact-interval")).is_none() {
            // Its history is others' history, too.
            kine.compact.interval = Duration::ZERO;
        }
        kine.compact.jitter_percent = self.read("compact-interval-jitter", |text| {
            let percent = scalar::parse_int(text).map_err(|error| error.to_string())?;
            let fits = u32::try_from(percent).ok().filter(|percent| *percent <= 100);
            fits.ok_or_else(|| format!("{percent} is not between 0 and 100"))
        })?;
        kine.slow = SlowConfig {
            info: self.duration("slow-sql-threshold")?,
            warn: self.duration("slow-sql-warning-threshold")?,
        };
        self.text("emulated-etcd-version").clone_into(&mut kine.advertised.version);
        Ok(kine)
    }
}

/// The datastore of `server`, which has flags of its own for the endpoint and its TLS, and takes the rest from kine's
/// variables, except for the compaction, which its API server asks for. Beside it, what was asked for and has no effect.
///
/// # Errors
/// A variable or the endpoint can't be understood.
pub fn for_server(
    endpoint: &str,
    tls: StoreTls,
    environment: &Environment,
) -> Result<(KineConfig, Vec<String>), UsageError> {
    let values = Values { matches: None, environment };
    let warnings = values.warnings()?;
    let tls = StoreTls { skip_verify: values.switch("skip-verify")?, ..tls };
    let mut kine = values.config(endpoint, tls)?;
    kine.compact.interval = Duration::ZERO;
    kine.advertised = k3sd_kine::Advertised::default();
    Ok((kine, warnings))
}

/// Turns what clap found into types. `matches` are those of the command `kine`.
pub(crate) fn read(matches: &ArgMatches, environment: &Environment, debug: bool) -> Result<KineOptions, UsageError> {
    let values = Values { matches: Some(matches), environment };
    let warnings = values.warnings()?;
    let tls = StoreTls {
        ca: values.file("ca-file"),
        cert: values.file("cert-file"),
        key: values.file("key-file"),
        skip_verify: values.switch("skip-verify")?,
    };
    let kine = values.config(values.text("endpoint"), tls)?;
    let listen = match values.read("listen-address", str::parse)? {
        ListenAddress::Unix(path) => ListenAddress::Unix(environment.absolute(path)),
        tcp @ ListenAddress::Tcp(_) => tcp,
    };
    let tls = values.server_tls()?;
    if tls.is_none() && ListenAddress::demands_tls(values.text("listen-address")) {
        return Err(values.wrong(Row::find("listen-address"), &"TLS needs --server-cert-file and --server-key-file"));
    }
    let metrics = values.metrics(tls.as_ref())?;
    let format = values.read("log-format", |text| match text {
        "plain" => Ok(LogFormat::Auto),
        "json" => Ok(LogFormat::Json),
        _ => Err("is neither plain nor json"),
    })?;
    let log = LogConfig { format, debug: debug || values.switch("debug")?, ..LogConfig::default() };
    let inspect = InspectConfig {
        socket: environment.absolute(values.text("inspect-socket")),
        actor_control: values.switch("debug-actor-control")?,
    };
    Ok(KineOptions { kine, listen, tls, metrics, log, inspect, warnings })
}

#[cfg(test)]
#[path = "kine/tests.rs"]
mod tests;
