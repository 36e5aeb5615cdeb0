//! `kine ...`: the datastore and its etcd endpoint, standing alone, with kine's flags and variables.

use clap::{Arg, ArgAction, ArgMatches, Command};
use k3sd_kine::{KineConfig, ListenAddress, SqliteOptions, sqlite_options};

use super::UsageError;
use crate::cli::environment::Environment;
use crate::cli::flags::{DEFAULT_INSPECT_SOCKET, INSPECT_SOCKET_VAR};
use crate::config::{InspectConfig, LogConfig, scalar};

/// What `kine` is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KineOptions {
    /// The datastore and what is done for it.
    pub kine: KineConfig,
    /// Where clients find it.
    pub listen: ListenAddress,
    /// How to log.
    pub log: LogConfig,
    /// How to look into the process.
    pub inspect: InspectConfig,
}

/// A flag with a value, the variable that stands in for it, and what it is otherwise.
struct Row {
    name: &'static str,
    value: &'static str,
    env: &'static str,
    default: &'static str,
    help: &'static str,
}

const ROWS: [Row; 8] = [
    Row {
        name: "listen-address",
        value: "URL",
        env: "KINE_LISTEN_ADDRESS",
        default: "0.0.0.0:2379",
        help: "Where to listen: unix://PATH or tcp://ADDRESS:PORT",
    },
    Row {
        name: "endpoint",
        value: "DSN",
        env: "KINE_ENDPOINT",
        default: "sqlite://./db/state.db",
        help: "The database: sqlite://PATH",
    },
    Row {
        name: "watch-progress-notify-interval",
        value: "DURATION",
        env: "KINE_WATCH_PROGRESS_NOTIFY_INTERVAL",
        default: "5s",
        help: "How often watchers that ask for it are told how far they are",
    },
    Row {
        name: "emulated-etcd-version",
        value: "VERSION",
        env: "KINE_EMULATED_ETCD_VERSION",
        default: "3.6.14",
        help: "The etcd version that clients are told",
    },
    Row {
        name: "compact-interval",
        value: "DURATION",
        env: "KINE_COMPACT_INTERVAL",
        default: "5m",
        help: "Time between two compactions; 0 leaves it to the clients",
    },
    Row {
        name: "compact-interval-jitter",
        value: "PERCENT",
        env: "KINE_COMPACT_INTERVAL_JITTER",
        default: "0",
        help: "By how much that time may be longer",
    },
    Row {
        name: "compact-min-retain",
        value: "NUMBER",
        env: "KINE_COMPACT_MIN_RETAIN",
        default: "1000",
        help: "How many of the newest revisions no compaction touches",
    },
    Row {
        name: "inspect-socket",
        value: "SOCKET",
        env: INSPECT_SOCKET_VAR,
        default: DEFAULT_INSPECT_SOCKET,
        help: "The socket that `actors` asks",
    },
];

/// The clap command `kine`.
pub(crate) fn command() -> Command {
    let args = ROWS.iter().map(|row| {
        let help = format!("{} [env: {}] [default: {}]", row.help, row.env, row.default);
        Arg::new(row.name).long(row.name).value_name(row.value).allow_hyphen_values(true).help(help)
    });
    let control = Arg::new("debug-actor-control").long("debug-actor-control").action(ArgAction::SetTrue);
    Command::new("kine")
        .about("Run the datastore alone, for etcd clients")
        .args(args)
        .arg(control.help("Let `actors` kill, suspend and resume"))
}

/// Turns what clap found into types. `matches` are those of the command `kine`.
pub(crate) fn read(matches: &ArgMatches, environment: &Environment, debug: bool) -> Result<KineOptions, UsageError> {
    let text = |name: &str| {
        let row = ROWS.iter().find(|row| row.name == name).expect("the flag is in the table");
        let given = matches.get_one::<String>(name).map(String::as_str);
        given.or_else(|| environment.var(row.env)).unwrap_or(row.default)
    };
    let wrong = |name: &str, error: &dyn std::fmt::Display| UsageError(format!("--{name}: {error}"));
    let duration = |name| scalar::parse_duration(text(name)).map_err(|error| wrong(name, &error));
    let number = |name| scalar::parse_int(text(name)).map_err(|error| wrong(name, &error));

    let sqlite = sqlite_options(text("endpoint")).map_err(|error| wrong("endpoint", &error))?;
    let retained_revisions_min = number("compact-min-retain")?;
    let sqlite = SqliteOptions { path: environment.absolute(&sqlite.path), retained_revisions_min, ..sqlite };
    let mut kine = KineConfig::new(sqlite);
    kine.progress_interval = duration("watch-progress-notify-interval")?;
    kine.compact.interval = duration("compact-interval")?;
    let jitter = number("compact-interval-jitter")?;
    kine.compact.jitter_percent = u32::try_from(jitter)
        .ok()
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| wrong("compact-interval-jitter", &format!("{jitter} is not between 0 and 100")))?;
    text("emulated-etcd-version").clone_into(&mut kine.advertised.version);

    let listen = text("listen-address").parse().map_err(|error| wrong("listen-address", &error))?;
    let listen = match listen {
        ListenAddress::Unix(path) => ListenAddress::Unix(environment.absolute(path)),
        tcp @ ListenAddress::Tcp(_) => tcp,
    };
    let inspect = InspectConfig {
        socket: environment.absolute(text("inspect-socket")),
        actor_control: matches.get_flag("debug-actor-control"),
    };
    Ok(KineOptions { kine, listen, log: LogConfig { debug, ..LogConfig::default() }, inspect })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn parse(words: &[&str], vars: &[(&str, &str)]) -> Result<KineOptions, String> {
        let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
        environment.cwd = "/srv".into();
        environment.vars.extend(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let words = ["kine"].iter().chain(words);
        let matches = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        read(&matches, &environment, false).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_kine() {
        let options = parse(&[], &[]).expect("nothing is needed");
        assert_eq!(options.kine.sqlite.path, PathBuf::from("/srv/./db/state.db"));
        assert_eq!(options.kine.sqlite.retained_revisions_min, 1000);
        assert_eq!(options.kine.compact.interval, Duration::from_secs(300));
        assert_eq!(options.kine.progress_interval, Duration::from_secs(5));
        assert_eq!(options.listen, "0.0.0.0:2379".parse().expect("an address"));
        assert_eq!(options.inspect.socket, PathBuf::from(DEFAULT_INSPECT_SOCKET));
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let vars = [("KINE_COMPACT_INTERVAL", "1h"), ("KINE_COMPACT_MIN_RETAIN", "7")];
        let words =
            ["--endpoint", "sqlite:///x.db?_journal_mode=WAL", "--listen-address", "unix://k", "--compact-interval=0"];
        let options = parse(&words, &vars).expect("all of it is fine");
        assert_eq!(options.kine.compact.interval, Duration::ZERO);
        assert_eq!(options.kine.sqlite.retained_revisions_min, 7);
        assert_eq!(options.kine.sqlite.path, PathBuf::from("/x.db"));
        assert_eq!(options.listen, ListenAddress::Unix("/srv/k".into()));
    }

    #[test]
    fn what_this_build_lacks_is_refused_without_its_secrets() {
        for dsn in ["mysql://root:hunter2@tcp(db)/", "postgres://a:hunter2@db/", "root:hunter2"] {
            let error = parse(&["--endpoint", dsn], &[]).expect_err(dsn);
            assert!(error.starts_with("--endpoint: ") && !error.contains("hunter2"), "{error}");
        }
        assert!(parse(&["--compact-interval-jitter", "101"], &[]).is_err());
        assert!(parse(&["--listen-address", "ftp://x"], &[]).is_err());
    }
}
