//! Connections: how they are made, what is set up on them, and the table they need.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mysql_async::{ClientIdentity, Compression, Conn, Opts, OptsBuilder, SslOpts};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::MySqlOptions;
use super::fault::MySqlFault;
use super::names::check_name;
use super::session::{Columns, Session};
use super::settings::{Settings, TlsMode};
use crate::background::Spawner;
use crate::dsn::ServerAddress;
use crate::error::{Op, StoreError};
use crate::table::{BACKOFF_MAX, BACKOFF_MIN, Database, Fault};
use crate::types::Key;

/// How soon a dead peer is looked after.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often the table is looked at for what others have written; kine's pace.
const LOOKS_EVERY: Duration = Duration::from_secs(1);
/// How long an insert under way takes at most, ordinarily.
const GAP_PATIENCE: Duration = Duration::from_millis(20);
/// What the columns for values hold.
const VALUE_BYTES_MAX: usize = (1 << 24) - 1;
/// What a packet has beside two values.
const PACKET_REST: usize = 1 << 16;

/// kine's table and indexes, but that names are compared byte by byte.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS kine (id BIGINT UNSIGNED AUTO_INCREMENT,
        name VARCHAR(630) CHARACTER SET ascii COLLATE ascii_bin, created INTEGER, deleted INTEGER,
        create_revision BIGINT UNSIGNED, prev_revision BIGINT UNSIGNED, lease INTEGER,
        value MEDIUMBLOB, old_value MEDIUMBLOB, PRIMARY KEY (id),
        INDEX kine_name_index (name), INDEX kine_name_id_index (name, id), INDEX kine_id_deleted_index (id, deleted),
        INDEX kine_prev_revision_index (prev_revision),
        UNIQUE INDEX kine_name_prev_revision_uindex (name, prev_revision)) ENGINE = InnoDB";
/// Those that an older table may lack.
const INDEXES: [(&str, &str); 5] = [
    ("kine_name_index", "CREATE INDEX kine_name_index ON kine (name)"),
    ("kine_name_id_index", "CREATE INDEX kine_name_id_index ON kine (name, id)"),
    ("kine_id_deleted_index", "CREATE INDEX kine_id_deleted_index ON kine (id, deleted)"),
    ("kine_prev_revision_index", "CREATE INDEX kine_prev_revision_index ON kine (prev_revision)"),
    (
        "kine_name_prev_revision_uindex",
        "CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision)",
    ),
];
const MARKER: &str = "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
    SELECT 'compact_rev_key', 1, 0, 0, 0, 0, '' FROM (SELECT 1) AS one
    WHERE NOT EXISTS (SELECT 1 FROM kine WHERE name = 'compact_rev_key')";
/// What there is: the names of indexes, and how names are compared.
const INDEX_NAMES: &str = "SELECT DISTINCT index_name FROM information_schema.statistics
    WHERE table_schema = database() AND table_name = 'kine'";
const COLLATION: &str = "SELECT collation_name FROM information_schema.columns
    WHERE table_schema = database() AND table_name = 'kine' AND column_name = 'name'";
/// kine's own table takes upper for lower case, and sorts so.
const COLLATE: &str = "ALTER TABLE kine MODIFY name VARCHAR(630) CHARACTER SET ascii COLLATE ascii_bin";
/// Not every server has all of them.
const SERVER_SETTINGS: &str = "SHOW VARIABLES WHERE variable_name IN
    ('max_allowed_packet', 'innodb_flush_log_at_trx_commit', 'log_bin', 'binlog_format')";

/// For reads: one state in all statements.
const SNAPSHOTS: &str = "REPEATABLE READ";
/// For writes: what is committed at each statement, and no locks on gaps between rows, in which others would wait.
const NO_GAP_LOCKS: &str = "READ COMMITTED";

/// How often the table is looked after before giving up against others who do the same.
const LAY_OUT_ATTEMPTS: u32 = 10;
/// The server's numbers for: no such database; there is such an index already, or such a row.
const NO_DATABASE: u16 = 1049;
const THERE_ALREADY: [u16; 2] = [1061, 1062];

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    opts: Opts,
    /// What is tried if the server has no TLS.
    plain_opts: Option<Opts>,
    database: Arc<str>,
    /// What is set on each connection.
    variables: Arc<str>,
    connect_timeout: Duration,
    answer_limit: Duration,
    patience: Duration,
    /// The longest value, which the server's packets decide.
    value_bytes_max: Arc<AtomicUsize>,
    /// The server writes statements into its log, which it can do only if they lock gaps.
    logs_statements: Arc<AtomicBool>,
    spawner: Spawner,
}

fn open_error(error: io::Error) -> StoreError {
    StoreError::Database { op: Op::Open, source: Arc::new(error) }
}

fn failed(what: &str, path: &Path, error: impl std::fmt::Display) -> StoreError {
    open_error(io::Error::other(format!("{what} {} can't be used: {error}", path.display())))
}

/// What the driver is told of TLS. The files are read here, so that what is wrong with them is said at once.
fn ssl_opts(settings: &Settings) -> Result<Option<SslOpts>, StoreError> {
    let opts = match settings.tls_mode {
        TlsMode::Off => return Ok(None),
        TlsMode::Preferred | TlsMode::Unverified => SslOpts::default().with_danger_accept_invalid_certs(true),
        TlsMode::Verified => {
            let roots = authorities(settings)?.iter().map(|root| root.to_vec().into()).collect();
            SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots)
        }
    };
    let (Some(cert), Some(key)) = (&settings.tls.cert, &settings.tls.key) else { return Ok(Some(opts)) };
    let chain = std::fs::read(cert).map_err(|error| failed("certificate", cert, error))?;
    CertificateDer::from_pem_slice(&chain).map_err(|error| failed("certificate", cert, error))?;
    let secret = std::fs::read(key).map_err(|error| failed("key", key, error))?;
    PrivateKeyDer::from_pem_slice(&secret).map_err(|error| failed("key", key, error))?;
    Ok(Some(opts.with_client_identity(Some(ClientIdentity::new(chain.into(), secret.into())))))
}

/// Those that were given, or those of the machine, of which the ones that can't be used are left out.
fn authorities(settings: &Settings) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let usable = |root: &CertificateDer<'static>| RootCertStore::empty().add(root.clone());
    let Some(path) = &settings.tls.ca else {
        let machine = rustls_native_certs::load_native_certs().certs;
        return Ok(machine.into_iter().filter(|root| usable(root).is_ok()).collect());
    };
    let roots = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let roots = roots.map_err(|error| failed("authority", path, error))?;
    for root in &roots {
        usable(root).map_err(|error| failed("authority", path, error))?;
    }
    if roots.is_empty() {
        return Err(failed("authority", path, "it holds no certificate"));
    }
    Ok(roots)
}

/// Statements for each connection: what the operator wants, and then what the store relies on.
fn variables(settings: &Settings) -> String {
    let mut text = String::new();
    for (name, value) in &settings.variables {
        text.push_str(&format!("SET {name} = {value}; "));
    }
    // A value that does not fit is an error and not cut off; a lock is waited for in small portions.
    text.push_str(
        "SET autocommit = 1, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',
            innodb_lock_wait_timeout = 5, lock_wait_timeout = 30; ",
    );
    text
}

impl Connector {
    pub(super) fn new(options: &MySqlOptions, spawner: Spawner) -> Result<Self, StoreError> {
        let MySqlOptions { dsn, tls, patience, .. } = options;
        let settings = Settings::new(dsn, tls)?;
        let mut builder = OptsBuilder::default()
            .user(Some(&dsn.user))
            .db_name(Some(&dsn.database))
            // Where the operator says TCP, it is that.
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .tcp_nodelay(true)
            .secure_auth(!settings.old_password)
            .enable_cleartext_plugin(settings.cleartext_password)
            .max_allowed_packet(settings.packet_bytes_max)
            .compression(settings.compress.then(Compression::default));
        if !dsn.password.expose().is_empty() {
            builder = builder.pass(Some(dsn.password.expose()));
        }
        let (mut plain_opts, opts) = match &dsn.address {
            // What does not leave the machine is not encrypted.
            ServerAddress::Unix(path) => (None, builder.socket(Some(path.to_string_lossy()))),
            ServerAddress::Tcp { host, port } => {
                let builder = builder.ip_or_hostname(host).tcp_port(*port);
                (Some(builder.clone()), builder.ssl_opts(ssl_opts(&settings)?))
            }
        };
        if settings.tls_mode != TlsMode::Preferred && !settings.plain_will_do {
            plain_opts = None;
        }
        Ok(Self {
            opts: opts.into(),
            plain_opts: plain_opts.map(Opts::from),
            database: dsn.database.as_str().into(),
            variables: variables(&settings).into(),
            connect_timeout: settings.connect_timeout,
            answer_limit: settings.answer_limit,
            patience: *patience,
            value_bytes_max: Arc::new(AtomicUsize::new(VALUE_BYTES_MAX)),
            logs_statements: Arc::default(),
            spawner,
        })
    }

    /// Logs in within the limit of time.
    async fn log_in(&self, opts: &Opts) -> Result<Conn, MySqlFault> {
        let connecting = tokio::time::timeout(self.connect_timeout, Conn::new(opts.clone()));
        Ok(connecting.await.map_err(|_| MySqlFault::Silent(self.connect_timeout))??)
    }

    async fn once(&self, database: Option<&str>, isolation: &str) -> Result<Session, MySqlFault> {
        let of = |opts: &Opts| Opts::from(OptsBuilder::from_opts(opts.clone()).db_name(database));
        let connection = match (self.log_in(&of(&self.opts)).await, &self.plain_opts) {
            (Err(error), Some(plain)) if error.is_without_tls() => self.log_in(&of(plain)).await?,
            (connection, _) => connection?,
        };
        let session = Session::new(connection, self.answer_limit);
        session.query(&format!("{}SET SESSION TRANSACTION ISOLATION LEVEL {isolation}", self.variables)).await?;
        Ok(session)
    }

    /// Connects, and tries again as long as a server that is away may come back.
    async fn try_to_connect(&self, isolation: &str) -> Result<Session, MySqlFault> {
        let (deadline, mut pause) = (Instant::now() + self.patience, BACKOFF_MIN);
        loop {
            let error = match self.once(Some(&self.database), isolation).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            let in_vain = self.spawner.is_closed() || Instant::now() + pause > deadline;
            if in_vain || !error.is_disconnect() {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    async fn create_database(&self) -> Result<(), MySqlFault> {
        let session = self.once(None, SNAPSHOTS).await?;
        let name = self.database.replace('`', "``");
        session.query(&format!("CREATE DATABASE IF NOT EXISTS `{name}`")).await.map(drop)
    }

    async fn create_table(&self, session: &Session) -> Result<(), MySqlFault> {
        session.query(TABLE).await?;
        let collation = texts(session.query(COLLATION).await?)?;
        if collation.iter().any(|name| !name.is_empty() && !name.ends_with("_bin")) {
            session.query(COLLATE).await?;
        }
        let indexes = texts(session.query(INDEX_NAMES).await?)?;
        for (name, statement) in INDEXES {
            if !indexes.iter().any(|index| index == name) {
                unless_there(session.query(statement).await)?;
            }
        }
        unless_there(session.query(MARKER).await)
    }

    /// Learns how long values may be, how durable a commit is, and what the log of the server needs.
    async fn learn_settings(&self, session: &Session) -> Result<(), MySqlFault> {
        let (mut has_log, mut format) = (false, String::new());
        for row in session.query(SERVER_SETTINGS).await?.into_iter().flatten() {
            let mut columns = Columns::new(row);
            let (name, value) = (columns.text()?, columns.text()?);
            match name.to_ascii_lowercase().as_str() {
                "max_allowed_packet" => {
                    // A row has the value and what it replaced.
                    let packet: usize = value.parse().unwrap_or_default();
                    let longest = packet.saturating_sub(PACKET_REST) / 2;
                    self.value_bytes_max.store(longest.min(VALUE_BYTES_MAX), Ordering::Relaxed);
                }
                "innodb_flush_log_at_trx_commit" if value != "1" => tracing::warn!(
                    "innodb_flush_log_at_trx_commit of the MySQL server is {value} and not 1: a commit may be lost if its \
                     machine fails"
                ),
                "log_bin" => has_log = value != "OFF",
                "binlog_format" => format = value,
                _ => {}
            }
        }
        self.logs_statements.store(has_log && format == "STATEMENT", Ordering::Relaxed);
        Ok(())
    }
}

/// The first column of an answer.
fn texts(sets: Vec<Vec<mysql_async::Row>>) -> Result<Vec<String>, MySqlFault> {
    sets.into_iter().flatten().map(|row| Columns::new(row).text()).collect()
}

/// Another server may have been quicker.
fn unless_there<T>(answer: Result<T, MySqlFault>) -> Result<(), MySqlFault> {
    match answer {
        Err(error) if error.code().is_some_and(|code| THERE_ALREADY.contains(&code)) => Ok(()),
        other => other.map(drop),
    }
}

impl Database for Connector {
    type Session = Session;

    const LOOKS_EVERY: Option<Duration> = Some(LOOKS_EVERY);
    const GAP_PATIENCE: Duration = GAP_PATIENCE;

    fn patience(&self) -> Duration {
        self.patience
    }

    fn with_patience(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    async fn connect(&self) -> Result<Session, MySqlFault> {
        self.try_to_connect(SNAPSHOTS).await
    }

    /// Nobody tells of news, so there is nothing to wake for.
    async fn listen(&self, _wake: Arc<Notify>) -> Result<Session, MySqlFault> {
        let logs_statements = self.logs_statements.load(Ordering::Relaxed);
        self.try_to_connect(if logs_statements { SNAPSHOTS } else { NO_GAP_LOCKS }).await
    }

    async fn lay_out(&self) -> Result<(), StoreError> {
        let fault = |error: MySqlFault| error.into_store_error(Op::Open);
        let session = match self.connect().await {
            Err(error) if error.code() == Some(NO_DATABASE) => {
                self.create_database().await.map_err(fault)?;
                self.connect().await
            }
            other => other,
        };
        let session = session.map_err(fault)?;
        let mut attempts = 1;
        while let Err(error) = self.create_table(&session).await {
            // Servers that start together get into each other's way here.
            if !error.is_lost_race() || attempts == LAY_OUT_ATTEMPTS {
                return Err(fault(error));
            }
            attempts += 1;
        }
        self.learn_settings(&session).await.map_err(fault)
    }

    fn check_storable(&self, key: &Key, value: Option<&Bytes>) -> Result<(), StoreError> {
        check_name(key)?;
        let (length, longest) = (value.map_or(0, Bytes::len), self.value_bytes_max.load(Ordering::Relaxed));
        if length > longest {
            let reason = format!("the value of {key:?} is {length} bytes long; the MySQL server takes {longest}");
            return Err(StoreError::invalid(reason));
        }
        Ok(())
    }
}
