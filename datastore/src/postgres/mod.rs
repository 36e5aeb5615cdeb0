//! A store on a PostgreSQL server, in kine's table, which several servers may share, kine's own among them.
//!
//! ```text
//!   writes, compaction, joining ──queue──▶ writer ──its connection──▶ table ──trigger, NOTIFY──▶ every writer
//!   reads, pages of the past ──▶ a few connections                                        events ──▶ watchers
//! ```
//!
//! Nothing polls: the table has a trigger that notifies, so that the writers of all servers learn of each commit, even
//! of kine's. A connection that breaks is made anew, with growing pauses; reads and writes wait for that, and only a
//! write whose commit was under way then is [`StoreError::Unknown`].
//!
//! Names are PostgreSQL's text: a key that isn't UTF-8, or holds a zero byte, is refused. While an older kine writes to
//! the same table, a read may see its revisions a moment before those below them; watchers get all of them in order.

mod connect;
mod fault;
mod query;
mod settings;
mod text;
mod tls;

use std::fmt;
use std::time::Duration;

use self::connect::Connector;
use crate::background::Background;
use crate::dsn::PostgresDsn;
use crate::error::StoreError;
use crate::table::{self, PATIENCE_DEFAULT, READERS_DEFAULT, RETAINED_REVISIONS_DEFAULT, Table};
use crate::tls::TlsFiles;

/// How to open a store on a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Where it is.
    pub dsn: PostgresDsn,
    /// Certificates that were given beside it; the endpoint's own options come first.
    pub tls: TlsFiles,
    /// How many connections are for reading, at least one.
    pub readers: usize,
    /// How many of the newest revisions a compaction leaves whatever it is asked for.
    pub retained_revisions_min: i64,
    /// How long an operation waits for a server that can't be reached, before it fails.
    pub patience: Duration,
}

impl PostgresOptions {
    /// With the defaults.
    pub fn new(dsn: PostgresDsn) -> Self {
        let (readers, patience) = (READERS_DEFAULT, PATIENCE_DEFAULT);
        Self { dsn, tls: TlsFiles::default(), readers, retained_revisions_min: RETAINED_REVISIONS_DEFAULT, patience }
    }
}

/// A store on a PostgreSQL server. Cloning it shares the store; with its last clone it is closed, after what was asked
/// of it is finished.
#[derive(Clone)]
pub struct Postgres {
    table: Table<Connector>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres")
    }
}

impl Postgres {
    /// Connects, creates the database and the table if they are missing, and starts the writer, in a task of the event
    /// loop that this is called in, which has to outlive the store. Tries again within the patience.
    ///
    /// # Errors
    /// As [`Postgres::assemble`].
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        table::open(options.patience, || Self::assemble(options.clone())).await
    }

    /// The same without a task, and without patience for a server that is away. The store works while somebody polls
    /// [`Background::run`].
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when there is nobody to talk to, [`StoreError::Database`] when the server refuses. A
    /// database or a table may have been created.
    pub async fn assemble(options: PostgresOptions) -> Result<(Self, Background), StoreError> {
        let PostgresOptions { readers, retained_revisions_min, .. } = options;
        let connector = |spawner| Connector::new(&options, spawner);
        let (table, background) = Table::assemble(connector, readers, retained_revisions_min).await?;
        Ok((Self { table }, background))
    }
}

table::keep_contract!(Postgres);
