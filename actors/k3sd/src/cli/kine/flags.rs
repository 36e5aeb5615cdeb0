//! The flags of `kine` as a table: kine's names, variables and defaults.

use clap::{Arg, ArgAction};

use crate::cli::flags::{DEFAULT_INSPECT_SOCKET, INSPECT_SOCKET_VAR};

/// A flag, the variable that stands in for it, and what it is otherwise.
pub(super) struct Row {
    pub name: &'static str,
    /// What its value is called; empty for a switch.
    pub value: &'static str,
    pub env: &'static str,
    /// Empty when it is not set.
    pub default: &'static str,
    pub help: &'static str,
    pub effect: Effect,
}

/// What becomes of a value that isn't the default.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It does what it says.
    Works,
    /// Nothing, and a warning says why.
    Nothing(&'static str),
    /// It is refused, with the reason.
    Refused(&'static str),
}

use Effect::{Nothing, Refused, Works};

const STEPS: &str = "compaction goes in steps of a few milliseconds, however many revisions that are";
const NO_POLLING: &str = "events are pushed, and what is polled comes in pages of a fixed size";
const NO_T4: &str = "the t4 store does not exist here";

const fn row(
    name: &'static str,
    value: &'static str,
    env: &'static str,
    default: &'static str,
    help: &'static str,
    effect: Effect,
) -> Row {
    Row { name, value, env, default, help, effect }
}

/// All of them, in kine's order; ours come last.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row("listen-address", "URL", "KINE_LISTEN_ADDRESS", "0.0.0.0:2379",
        "Where to listen for clients: unix://PATH or tcp://ADDRESS:PORT, with TLS also unixs:// and https://", Works),
    row("endpoint", "DSN", "KINE_ENDPOINT", "sqlite://./db/state.db",
        "The database: sqlite://, litestream://, postgres://, mysql://, http(s):// for etcd, or memory://", Works),
    row("identity-provider", "NAME", "KINE_IDENTITY_PROVIDER", "",
        "Where passwords for the database come from", Refused("no identity provider is built in; put a password into --endpoint")),
    row("ca-file", "FILE", "KINE_CA_FILE", "", "Who may sign the database server's certificate", Works),
    row("cert-file", "FILE", "KINE_CERT_FILE", "", "Our certificate for the database server", Works),
    row("key-file", "FILE", "KINE_KEY_FILE", "", "Our key for the database server", Works),
    row("skip-verify", "", "KINE_SKIP_VERIFY", "false", "Do not verify the database server's certificate", Works),
    row("log-format", "FORMAT", "KINE_LOG_FORMAT", "plain", "How to log: plain or json", Works),
    row("metrics-bind-address", "ADDRESS", "KINE_METRICS_BIND_ADDRESS", ":8080",
        "Where to serve /metrics; 0 is nowhere", Works),
    row("server-cert-file", "FILE", "KINE_SERVER_CERT_FILE", "", "Our certificate for clients; with it, they need TLS", Works),
    row("server-key-file", "FILE", "KINE_SERVER_KEY_FILE", "", "Its key", Works),
    row("trusted-ca-file", "FILE", "KINE_TRUSTED_CA_FILE", "",
        "Who may sign the certificates that clients then need", Works),
    row("datastore-max-idle-connections", "NUMBER", "KINE_DATASTORE_MAX_IDLE_CONNECTIONS", "20",
        "How many unused connections to the database are kept", Works),
    row("datastore-max-open-connections", "NUMBER", "KINE_DATASTORE_MAX_OPEN_CONNECTIONS", "0",
        "How many connections to the database there may be; 0 leaves it to us", Works),
    row("datastore-connection-max-lifetime", "DURATION", "KINE_DATASTORE_CONNECTION_MAX_LIFETIME", "0s",
        "How long a connection to the database is used; 0 is for ever", Nothing("connections are few, and kept while they work")),
    row("datastore-connection-max-idle-time", "DURATION", "KINE_DATASTORE_CONNECTION_MAX_IDLE_TIME", "2m",
        "How long a connection to the database may be idle; 0 is for ever", Nothing("connections are few, and kept while they work")),
    row("slow-sql-threshold", "DURATION", "KINE_SLOW_SQL_THRESHOLD", "1s",
        "From when on an operation of the database is told about in the log; 0 is never", Works),
    row("slow-sql-warning-threshold", "DURATION", "KINE_SLOW_SQL_WARNING_THRESHOLD", "5s",
        "From when on that is a warning", Works),
    row("metrics-enable-profiling", "", "KINE_METRICS_ENABLE_PROFILING", "false", "Serve Go's profiler beside /metrics",
        Refused("there is no Go runtime to profile; see `actors top` and `actors trace`")),
    row("metrics-ignore-tls-config", "", "KINE_METRICS_IGNORE_TLS_CONFIG", "false",
        "Serve /metrics without TLS though clients have it", Works),
    row("watch-progress-notify-interval", "DURATION", "KINE_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s",
        "How often watchers that ask for it are told how far they are", Works),
    row("emulated-etcd-version", "VERSION", "KINE_EMULATED_ETCD_VERSION", "3.6.14",
        "The etcd version that clients are told", Works),
    row("compact-interval", "DURATION", "KINE_COMPACT_INTERVAL", "5m",
        "Time between two compactions; 0 leaves it to the clients, as kine does, and as is usual over etcd", Works),
    row("compact-interval-jitter", "PERCENT", "KINE_COMPACT_INTERVAL_JITTER", "0",
        "By how much that time may be longer", Works),
    row("compact-timeout", "DURATION", "KINE_COMPACT_TIMEOUT", "5s",
        "How long a step of a compaction may take", Nothing(STEPS)),
    row("compact-min-retain", "NUMBER", "KINE_COMPACT_MIN_RETAIN", "1000",
        "How many of the newest revisions no compaction touches", Works),
    row("compact-batch-size", "NUMBER", "KINE_COMPACT_BATCH_SIZE", "1000",
        "How many revisions a step of a compaction takes", Nothing(STEPS)),
    row("poll-batch-size", "NUMBER", "KINE_POLL_BATCH_SIZE", "500",
        "How many revisions are polled at once", Nothing(NO_POLLING)),
    row("peer-bind-address", "ADDRESS", "KINE_PEER_BIND_ADDRESS", "", "For the t4 store", Refused(NO_T4)),
    row("peer-advertise-address", "ADDRESS", "KINE_PEER_ADVERTISE_ADDRESS", "", "For the t4 store", Refused(NO_T4)),
    row("s3-bucket", "NAME", "KINE_S3_BUCKET", "", "For the t4 store", Refused(NO_T4)),
    row("s3-folder", "PATH", "KINE_S3_FOLDER", "", "For the t4 store", Refused(NO_T4)),
    row("s3-endpoint", "URL", "KINE_S3_ENDPOINT", "", "For the t4 store", Refused(NO_T4)),
    // Amazon's variables are not read: they may be set for other programs, and mean nothing without the flags above.
    row("s3-region", "NAME", "", "", "For the t4 store", Refused(NO_T4)),
    row("s3-access-key", "KEY", "", "", "For the t4 store", Refused(NO_T4)),
    row("s3-secret-key", "KEY", "", "", "For the t4 store", Refused(NO_T4)),
    row("s3-session-token", "TOKEN", "", "", "For the t4 store", Refused(NO_T4)),
    row("s3-profile", "NAME", "", "", "For the t4 store", Refused(NO_T4)),
    row("s3-ca-bundle", "FILE", "", "", "For the t4 store", Refused(NO_T4)),
    row("debug", "", "KINE_DEBUG", "false", "Log details", Works),
    row("inspect-socket", "SOCKET", INSPECT_SOCKET_VAR, DEFAULT_INSPECT_SOCKET, "The socket that `actors` asks", Works),
    row("debug-actor-control", "", "", "false", "Let `actors` kill, suspend and resume", Works),
];

impl Row {
    pub(super) fn find(name: &str) -> &'static Self {
        ROWS.iter().find(|row| row.name == name).expect("the flag is in the table")
    }

    fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// The flag for clap. Those that are refused whatever their value are not shown.
    pub(super) fn arg(&self) -> Arg {
        let mut help = self.help.to_owned();
        let default = if self.is_switch() { "" } else { self.default };
        for (what, text) in [("env", self.env), ("default", default)] {
            if !text.is_empty() {
                help = format!("{help} [{what}: {text}]");
            }
        }
        if let Nothing(_) = self.effect {
            help += " [accepted, without effect]";
        }
        let arg = Arg::new(self.name).long(self.name).help(help).hide(matches!(self.effect, Refused(_)));
        if self.is_switch() {
            return arg
                .value_name("true|false")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .action(ArgAction::Set);
        }
        arg.value_name(self.value).allow_hyphen_values(true)
    }
}
