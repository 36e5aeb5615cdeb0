//! Which store, and how it is opened.

use std::path::PathBuf;
use std::time::Duration;

use k3sd_datastore::{
    Dsn, DsnError, EtcdOptions, EtcdTls, MySqlDsn, MySqlOptions, PostgresDsn, PostgresOptions, SqliteDsn,
    SqliteOptions, TlsFiles,
};

/// What is said about a store beside its endpoint. The defaults are kine's, so far as they mean something here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Files for TLS to a database server. Those that the endpoint names itself come first.
    pub tls: StoreTls,
    /// How connections to a database server are kept.
    pub pool: PoolConfig,
    /// How many of the newest revisions no compaction touches.
    pub retained_revisions_min: i64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { tls: StoreTls::default(), pool: PoolConfig::default(), retained_revisions_min: 1000 }
    }
}

/// TLS to a database server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreTls {
    /// Certificates of those who may sign the server's; without them, the authorities of the machine.
    pub ca: Option<PathBuf>,
    /// Our certificate. It goes together with the key.
    pub cert: Option<PathBuf>,
    /// Our key.
    pub key: Option<PathBuf>,
    /// Talk to any server, whoever has signed its certificate.
    pub skip_verify: bool,
}

impl StoreTls {
    /// Whether any of it was given, which changes what endpoints leave out.
    fn is_given(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }
}

/// Connections to a database server: one writes, the others read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// How many may be open at once; zero or less leaves it to the store, which needs few.
    pub open_max: i64,
    /// How many are kept while nobody needs them; zero leaves it to the store, less than zero keeps the least.
    pub idle_max: i64,
    /// How long one is used before it is replaced; zero is for ever.
    pub lifetime_max: Duration,
    /// How long one may be idle before it is closed; zero is for ever.
    pub idle_time_max: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { open_max: 0, idle_max: 20, lifetime_max: Duration::ZERO, idle_time_max: Duration::from_secs(120) }
    }
}

impl PoolConfig {
    /// How many connections read, of the number that a store would choose. The writer has one of its own, and without a
    /// reader nothing can be read: two are the least there can be.
    pub(crate) fn readers(self, default: usize) -> usize {
        let limit =
            |max: i64, own: i64| if max > 0 { usize::try_from(max - own).unwrap_or(usize::MAX) } else { default };
        let idle = if self.idle_max < 0 { 1 } else { limit(self.idle_max, 1) };
        default.min(limit(self.open_max, 1)).min(idle).max(1)
    }
}

/// A store that can be opened, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// A file.
    Sqlite(SqliteOptions),
    /// A PostgreSQL server.
    Postgres(PostgresOptions),
    /// A MySQL or MariaDB server.
    MySql(MySqlOptions),
    /// An etcd cluster.
    Etcd(EtcdOptions),
    /// Nothing outlives the process.
    Memory,
}

impl StoreConfig {
    /// Understands a datastore endpoint, in kine's grammar. Options of kine's SQLite driver are left out: ours are fixed.
    ///
    /// # Errors
    /// See [`DsnError`]. It never holds the text, which may have a password in it.
    pub fn new(endpoint: &str, settings: &StoreSettings) -> Result<Self, DsnError> {
        Ok(match Dsn::parse(endpoint, settings.tls.is_given())? {
            Dsn::Sqlite(dsn) => Self::Sqlite(sqlite(dsn, settings)),
            Dsn::Postgres(dsn) => Self::Postgres(postgres(dsn, settings)),
            Dsn::Memory => Self::Memory,
            Dsn::MySql(dsn) => Self::MySql(mysql(dsn, settings)),
            Dsn::Etcd { endpoints } => Self::Etcd(etcd(endpoints, settings)),
        })
    }

    /// One word for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::MySql(_) => "mysql",
            Self::Etcd(_) => "etcd",
            Self::Memory => "memory",
        }
    }

    /// Whether keys end by themselves when their time to live is over.
    pub(crate) fn ends_keys(&self) -> bool {
        matches!(self, Self::Etcd(_))
    }
}

fn sqlite(dsn: SqliteDsn, settings: &StoreSettings) -> SqliteOptions {
    SqliteOptions {
        convert: !dsn.keep_layout,
        keep_log: dsn.keep_log,
        retained_revisions_min: settings.retained_revisions_min,
        ..SqliteOptions::new(dsn.path)
    }
}

fn postgres(mut dsn: PostgresDsn, settings: &StoreSettings) -> PostgresOptions {
    let StoreTls { ca, cert, key, skip_verify } = settings.tls.clone();
    let mut tls = TlsFiles { ca, cert, key };
    if skip_verify {
        // Required, and without an authority: libpq verifies nothing then.
        tls.ca = None;
        dsn.options.retain(|(name, _)| name != "sslmode" && name != "sslrootcert");
        dsn.options.push(("sslmode".to_owned(), "require".to_owned()));
    }
    let options = PostgresOptions::new(dsn);
    let readers = settings.pool.readers(options.readers);
    PostgresOptions { tls, readers, retained_revisions_min: settings.retained_revisions_min, ..options }
}

fn mysql(mut dsn: MySqlDsn, settings: &StoreSettings) -> MySqlOptions {
    let StoreTls { ca, cert, key, skip_verify } = settings.tls.clone();
    let mut tls = TlsFiles { ca, cert, key };
    if skip_verify {
        // An authority would be asked whatever the endpoint says.
        tls.ca = None;
        dsn.options.retain(|(name, _)| name != "tls");
        dsn.options.push(("tls".to_owned(), "skip-verify".to_owned()));
    }
    let options = MySqlOptions::new(dsn);
    let readers = settings.pool.readers(options.readers);
    MySqlOptions { tls, readers, retained_revisions_min: settings.retained_revisions_min, ..options }
}

fn etcd(endpoints: Vec<String>, settings: &StoreSettings) -> EtcdOptions {
    let StoreTls { ca, cert, key, skip_verify } = settings.tls.clone();
    EtcdOptions { tls: EtcdTls { ca, cert, key, skip_verify }, ..EtcdOptions::new(endpoints) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str, settings: &StoreSettings) -> StoreConfig {
        StoreConfig::new(endpoint, settings).expect("it can be opened")
    }

    fn path(endpoint: &str) -> SqliteOptions {
        match config(endpoint, &StoreSettings::default()) {
            StoreConfig::Sqlite(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_endpoint_names_its_store() {
        for (endpoint, store) in [
            ("", "sqlite"),
            ("sqlite:///x.db?_journal_mode=WAL", "sqlite"),
            ("postgres://", "postgres"),
            ("mysql://", "mysql"),
            ("https://a:2379,https://b:2379", "etcd"),
            ("memory://", "memory"),
        ] {
            assert_eq!(config(endpoint, &StoreSettings::default()).word(), store, "{endpoint:?}");
        }
        let wrong = StoreConfig::new("root:hunter2", &StoreSettings::default()).expect_err("it is no endpoint");
        assert!(matches!(wrong, DsnError::Scheme { .. }), "{wrong:?}");
    }

    #[test]
    fn switches_of_a_file() {
        assert_eq!(path("").path, PathBuf::from("./db/state.db"));
        assert!(!path("sqlite://x?_kine_disable_startup_vacuum").convert);
        let kept = path("litestream://x");
        assert!(kept.keep_log && !kept.convert);
        assert!(path("sqlite://x?_kine_disable_wal_autocheckpoint=true").keep_log);
        assert!(!path("sqlite://x").keep_log);
    }

    #[test]
    fn files_for_tls_verify_the_server_unless_that_is_skipped() {
        let tls = StoreTls { ca: Some("/ca".into()), ..StoreTls::default() };
        let mut settings = StoreSettings { tls, retained_revisions_min: 7, ..StoreSettings::default() };
        let options = |settings: &StoreSettings| match config("postgres://a:b@db/x?sslrootcert=/other", settings) {
            StoreConfig::Postgres(options) => options,
            other => panic!("{other:?}"),
        };
        let strict = options(&settings);
        assert_eq!(strict.dsn.options[0], ("sslmode".to_owned(), "verify-full".to_owned()));
        assert_eq!((strict.tls.ca, strict.retained_revisions_min), (Some("/ca".into()), 7));
        settings.tls.skip_verify = true;
        let lax = options(&settings);
        assert_eq!(lax.dsn.options, [("sslmode".to_owned(), "require".to_owned())]);
        assert_eq!(lax.tls.ca, None);
        let StoreConfig::MySql(lax) = config("mysql://a:b@tcp(db)/x?tls=true", &settings) else { panic!("not mysql") };
        assert_eq!(lax.dsn.options, [("tls".to_owned(), "skip-verify".to_owned())]);
        assert_eq!(lax.tls.ca, None);
    }

    #[test]
    fn the_pool_is_never_larger_than_needed_nor_too_small_to_work() {
        let readers = |open_max, idle_max| PoolConfig { open_max, idle_max, ..PoolConfig::default() }.readers(4);
        assert_eq!(readers(0, 20), 4);
        assert_eq!((readers(3, 20), readers(2, 20), readers(1, 20), readers(100, 20)), (2, 1, 1, 4));
        assert_eq!((readers(0, 0), readers(0, 3), readers(0, -1), readers(-1, 20)), (4, 2, 1, 4));
    }
}
