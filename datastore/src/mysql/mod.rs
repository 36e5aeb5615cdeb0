//! A store on a MySQL or MariaDB server, in kine's table, which several servers may share, kine's own among them.
//!
//! ```text
//!   writes, compaction, joining ──queue──▶ writer ──its connection──▶ table ◀──once a second, while watched── writer
//!   reads, pages of the past ──▶ a few connections                                        events ──▶ watchers
//! ```
//!
//! Our own writes are told to watchers as they are committed. MySQL tells nobody what others write, so that has to be
//! looked for: with one question for the greatest number each second, as long as there are watchers; at once, when a
//! read shows something that watchers were not told of; and with each write, watch and request for progress.
//!
//! A connection that breaks is made anew, with growing pauses; reads and writes wait for that, and only a write whose
//! commit was under way then is [`StoreError::Unknown`]. What an acknowledged write survives is for the server to say:
//! with its default of `innodb_flush_log_at_trx_commit` any crash, otherwise there is a warning.
//!
//! Names are what kine's column holds: at most 630 characters of printable ASCII, the last one no space. Other keys are
//! refused. kine's own column takes upper for lower case; it is changed once to compare byte by byte, and kine goes on
//! to work with it. While a kine writes to the same table, a read may see its revisions a moment before those below
//! them; watchers get all of them in order.

mod connect;
mod fault;
mod names;
mod query;
mod session;
mod settings;

use std::fmt;
use std::time::Duration;

use self::connect::Connector;
use crate::background::Background;
use crate::dsn::MySqlDsn;
use crate::error::StoreError;
use crate::table::{self, PATIENCE_DEFAULT, READERS_DEFAULT, RETAINED_REVISIONS_DEFAULT, Table};
use crate::tls::TlsFiles;

/// How to open a store on a MySQL or MariaDB server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MySqlOptions {
    /// Where it is.
    pub dsn: MySqlDsn,
    /// Certificates that were given beside it. With an authority among them the server is verified whatever the
    /// endpoint says, as in kine; with the others, unless it says something else. A socket has no TLS.
    pub tls: TlsFiles,
    /// How many connections are for reading, at least one. They are made as they are needed.
    pub readers: usize,
    /// How many of the newest revisions a compaction leaves whatever it is asked for.
    pub retained_revisions_min: i64,
    /// How long an operation waits for a server that can't be reached, before it fails.
    pub patience: Duration,
}

impl MySqlOptions {
    /// With the defaults.
    pub fn new(dsn: MySqlDsn) -> Self {
        let (readers, patience) = (READERS_DEFAULT, PATIENCE_DEFAULT);
        Self { dsn, tls: TlsFiles::default(), readers, retained_revisions_min: RETAINED_REVISIONS_DEFAULT, patience }
    }
}

/// A store on a MySQL or MariaDB server. Cloning it shares the store; with its last clone it is closed, after what was
/// asked of it is finished.
#[derive(Clone)]
pub struct MySql {
    table: Table<Connector>,
}

impl fmt::Debug for MySql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MySql")
    }
}

impl MySql {
    /// Connects, creates the database and the table if they are missing, and starts the writer, in a task of the event
    /// loop that this is called in, which has to outlive the store. Tries again within the patience.
    ///
    /// # Errors
    /// As [`MySql::assemble`].
    pub async fn open(options: MySqlOptions) -> Result<Self, StoreError> {
        table::open(options.patience, || Self::assemble(options.clone())).await
    }

    /// The same without a task, and without patience for a server that is away. The store works while somebody polls
    /// [`Background::run`].
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when there is nobody to talk to, [`StoreError::Database`] when the server refuses,
    /// [`StoreError::Invalid`] for an option that means nothing. A database or a table may have been created.
    pub async fn assemble(options: MySqlOptions) -> Result<(Self, Background), StoreError> {
        let MySqlOptions { readers, retained_revisions_min, .. } = options;
        let connector = |spawner| Connector::new(&options, spawner);
        let (table, background) = Table::assemble(connector, readers, retained_revisions_min).await?;
        Ok((Self { table }, background))
    }
}

table::keep_contract!(MySql);
