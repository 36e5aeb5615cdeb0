//! Connections: how they are made, what is set up on them, and the table they need.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row, Statement, config};

use super::PostgresOptions;
use super::query::LOCK;
use super::settings::{Settings, SslMode};
use super::text::writable_name;
use super::tls::Tls;
use crate::background::Spawner;
use crate::dsn::ServerAddress;
use crate::error::{Op, StoreError};
use crate::table::{BACKOFF_MAX, BACKOFF_MIN, Database, Fault};
use crate::types::Key;

/// How long to wait for a host that says nothing, unless the endpoint says.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a dead peer is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// What a server has in any case: from there another database is created.
const DATABASE_ALWAYS: &str = "postgres";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS kine (id BIGSERIAL PRIMARY KEY, name text COLLATE \"C\",
        created INTEGER, deleted INTEGER, create_revision BIGINT, prev_revision BIGINT, lease INTEGER,
        value bytea, old_value bytea);
    CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name);
    CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name, id);
    CREATE INDEX IF NOT EXISTS kine_id_deleted_index ON kine (id, deleted);
    CREATE INDEX IF NOT EXISTS kine_prev_revision_index ON kine (prev_revision);
    CREATE UNIQUE INDEX IF NOT EXISTS kine_name_prev_revision_uindex ON kine (name, prev_revision);
    CREATE INDEX IF NOT EXISTS kine_list_query_index ON kine (name, id DESC, deleted);
    INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
        SELECT 'compact_rev_key', 1, 0, 0, 0, 0, '' WHERE NOT EXISTS
        (SELECT 1 FROM kine WHERE name = 'compact_rev_key')";
/// Tables of kine's first releases are sorted as the database sorts text.
const COLLATION: &str = "SELECT 1 FROM pg_attribute AS a JOIN pg_collation AS c ON c.oid = a.attcollation
    WHERE a.attrelid = 'kine'::regclass AND a.attname = 'name' AND c.collname = 'C'";
const COLLATE: &str = "ALTER TABLE kine ALTER COLUMN name TYPE text COLLATE \"C\"";
/// Says that there is something new: whoever wrote it, kine included, which says nothing itself.
const TRIGGER_EXISTS: &str =
    "SELECT 1 FROM pg_trigger WHERE tgrelid = 'kine'::regclass AND tgname = 'k3sd_kine_notify'";
const TRIGGER: &str = "CREATE OR REPLACE FUNCTION k3sd_kine_notify() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_notify('k3sd_kine', ''); RETURN NULL; END $$;
    CREATE TRIGGER k3sd_kine_notify AFTER INSERT ON kine FOR EACH STATEMENT EXECUTE PROCEDURE k3sd_kine_notify()";

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: Tls,
    patience: Duration,
    /// Who runs the connections.
    spawner: Spawner,
}

/// A connection, and the statements that were prepared on it.
pub(super) struct Session {
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
}

impl Connector {
    pub(super) fn new(options: &PostgresOptions, spawner: Spawner) -> Result<Self, StoreError> {
        let PostgresOptions { dsn, tls, patience, .. } = options;
        let settings = Settings::new(dsn, tls)?;
        let tls =
            Tls::new(&settings).map_err(|error| StoreError::Database { op: Op::Open, source: Arc::new(error) })?;
        let mut config = Config::new();
        match &dsn.address {
            ServerAddress::Tcp { host, port } => config.host(host).port(*port),
            ServerAddress::Unix(directory) => config.host_path(directory),
        };
        let encode =
            |(name, value): &(String, String)| format!("-c {name}={}", value.replace('\\', "\\\\").replace(' ', "\\ "));
        let session: Vec<_> = settings.session.iter().map(encode).collect();
        if !session.is_empty() {
            config.options(session.join(" "));
        }
        config
            .user(&dsn.user)
            .dbname(&dsn.database)
            .application_name("k3sd")
            .connect_timeout(settings.connect_timeout.unwrap_or(CONNECT_TIMEOUT))
            .keepalives_idle(KEEPALIVE)
            .tcp_user_timeout(KEEPALIVE)
            .ssl_mode(match settings.sslmode {
                SslMode::Disable => config::SslMode::Disable,
                SslMode::Prefer => config::SslMode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => config::SslMode::Require,
            });
        if !dsn.password.expose().is_empty() {
            config.password(dsn.password.expose());
        }
        Ok(Self { config, tls, patience: *patience, spawner })
    }

    async fn once(&self, config: &Config, wake: Option<Arc<Notify>>) -> Result<Session, Error> {
        let (client, mut connection) = config.connect(self.tls.clone()).await?;
        let own = Arc::new(Mutex::new(None));
        let own_pid = own.clone();
        let traffic = async move {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(note))) => {
                        let own = *own_pid.lock().unwrap_or_else(PoisonError::into_inner);
                        if own != Some(note.process_id())
                            && let Some(wake) = &wake
                        {
                            wake.notify_one();
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                }
            }
            // The end is news, too: somebody has to connect again.
            if let Some(wake) = wake {
                wake.notify_one();
            }
        };
        // Where nobody runs it, the connection is gone again, which the question finds.
        self.spawner.spawn(traffic).await.ok();
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
        *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(row.try_get(0)?);
        Ok(Session { client, statements: Mutex::default() })
    }

    /// Connects, and tries again as long as a server that is away may come back. With `wake` the connection listens.
    async fn try_to_connect(&self, wake: Option<Arc<Notify>>) -> Result<Session, Error> {
        let (deadline, mut pause) = (Instant::now() + self.patience, BACKOFF_MIN);
        loop {
            let error = match self.once(&self.config, wake.clone()).await {
                Ok(session) if wake.is_none() => return Ok(session),
                Ok(session) => match session.batch("LISTEN k3sd_kine").await {
                    Ok(()) => return Ok(session),
                    Err(error) => error,
                },
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

    async fn create_database(&self) -> Result<(), Error> {
        let mut config = self.config.clone();
        config.dbname(DATABASE_ALWAYS);
        let session = self.once(&config, None).await?;
        let name = self.config.get_dbname().unwrap_or_default().replace('"', "\"\"");
        match session.batch(&format!("CREATE DATABASE \"{name}\"")).await {
            // Another server was quicker.
            Err(error)
                if [Some(&SqlState::DUPLICATE_DATABASE), Some(&SqlState::UNIQUE_VIOLATION)].contains(&error.code()) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

impl Database for Connector {
    type Session = Session;

    const LOOKS_EVERY: Option<Duration> = None;
    /// A lock on the table tells what is under way.
    const GAP_PATIENCE: Duration = Duration::ZERO;

    fn patience(&self) -> Duration {
        self.patience
    }

    fn with_patience(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    async fn connect(&self) -> Result<Session, Error> {
        self.try_to_connect(None).await
    }

    async fn listen(&self, wake: Arc<Notify>) -> Result<Session, Error> {
        self.try_to_connect(Some(wake)).await
    }

    /// The trigger that tells of news as well.
    async fn lay_out(&self) -> Result<(), StoreError> {
        let fault = |error: Error| error.into_store_error(Op::Open);
        let session = match self.connect().await {
            Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {
                self.create_database().await.map_err(fault)?;
                self.connect().await
            }
            other => other,
        };
        let session = session.map_err(fault)?;
        let work = async {
            session.batch("BEGIN").await?;
            session.batch(LOCK).await?;
            session.batch(TABLE).await?;
            if session.query(COLLATION, &[]).await?.is_empty() {
                session.batch(COLLATE).await?;
            }
            if session.query(TRIGGER_EXISTS, &[]).await?.is_empty() {
                session.batch(TRIGGER).await?;
            }
            session.batch("COMMIT").await
        };
        work.await.map_err(fault)
    }

    fn check_storable(&self, key: &Key, _value: Option<&Bytes>) -> Result<(), StoreError> {
        writable_name(key).map(drop)
    }
}

impl Session {
    /// Whether the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.client.is_closed()
    }

    /// Statements without an answer.
    pub(super) async fn batch(&self, statements: &str) -> Result<(), Error> {
        self.client.batch_execute(statements).await
    }

    /// The statement, prepared at its first use.
    pub(super) async fn prepare(&self, text: &'static str) -> Result<Statement, Error> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(text).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(text).await?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(text, statement.clone());
        Ok(statement)
    }

    pub(super) async fn query(&self, text: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let statement = self.prepare(text).await?;
        self.client.query(&statement, values).await
    }
}
