//! What a database server has to be able to do, and in which words it is asked. Everything above is the same for all.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::row::{EventRow, StoredRow};
use crate::background::Spawner;
use crate::error::{Op, StoreError};
use crate::types::{Key, KeyRange, Revision};

/// The first and the longest pause between attempts to connect.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(50);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A database on a server, as somebody logs in to it.
pub(crate) trait Database: Clone + Send + Sync + 'static {
    /// A connection to it.
    type Session: Session;

    /// How often to look for what others have written, while somebody watches. None where the server tells of it.
    const LOOKS_EVERY: Option<Duration>;
    /// How long a revision may be missing that somebody may be about to write, before it is filled.
    const GAP_PATIENCE: Duration;

    /// How long to go on trying to connect.
    fn patience(&self) -> Duration;
    /// The same, more or less patient.
    fn with_patience(&self, patience: Duration) -> Self;
    /// Who runs what goes on beside.
    fn spawner(&self) -> &Spawner;
    /// Connects, for reading.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, ErrorOf<Self>>> + Send;
    /// Connects, for writing. `wake` is told when others have written, if the server says so, and when the connection
    /// is found broken.
    fn listen(&self, wake: Arc<Notify>) -> impl Future<Output = Result<Self::Session, ErrorOf<Self>>> + Send;
    /// Creates what is missing: the database, the table and its indexes.
    fn lay_out(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Refuses what the table can't hold.
    fn check_storable(&self, key: &Key, value: Option<&Bytes>) -> Result<(), StoreError>;
}

/// How connections to a database fail.
pub(crate) type ErrorOf<D> = <<D as Database>::Session as Session>::Error;

/// A connection. Keys that the table can't hold are asked for like any other, and not found.
pub(crate) trait Session: Send + Sync + 'static {
    /// How it fails.
    type Error: Fault;

    /// Whether it is of no use any more.
    fn is_closed(&self) -> bool;

    // Reads. Each sees one state of the table, and tells the bounds of that state.

    /// Only the bounds.
    fn bounds(&self) -> impl Future<Output = Result<Bounds, Self::Error>> + Send;
    /// The newest row of a key, up to a revision.
    fn get(
        &self,
        key: &Key,
        at: Option<Revision>,
    ) -> impl Future<Output = Result<(Bounds, Option<StoredRow>), Self::Error>> + Send;
    /// The newest row of each live key of a range, in any order, but the first ones if there is a limit.
    fn list(&self, scan: &Scan) -> impl Future<Output = Result<(Bounds, Vec<StoredRow>), Self::Error>> + Send;
    /// How many live keys there are in a range.
    fn count(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
    ) -> impl Future<Output = Result<(Bounds, u64), Self::Error>> + Send;
    /// What the table takes of the disk, in bytes.
    fn size(&self) -> impl Future<Output = Result<(Bounds, Size), Self::Error>> + Send;
    /// All rows between two revisions, both included, in any order.
    fn events(
        &self,
        from: Revision,
        to: Revision,
    ) -> impl Future<Output = Result<(Bounds, Vec<EventRow>), Self::Error>> + Send;

    // A transaction of the writer.

    /// Begins one, and waits until it is the turn of this server. If it is to be `alone`, nobody else has a row under
    /// way from here on, as far as the database can see to that.
    fn begin(&self, alone: bool) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// The newest rows of keys.
    fn newest(&self, keys: &[&Key]) -> impl Future<Output = Result<(Bounds, Vec<StoredRow>), Self::Error>> + Send;
    /// Alone: the last revision after `newest` that was given out, and that nobody is going to use any more.
    fn given_out(&self, newest: Revision) -> impl Future<Output = Result<Revision, Self::Error>> + Send;
    /// Takes the next `count` revisions after `last`. False when somebody has one of them already.
    fn claim(
        &self,
        last: Revision,
        count: usize,
        alone: bool,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;
    /// Adds rows.
    fn insert(&self, rows: &[NewRow<'_>]) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Drops rows that were replaced by a row in the given range, and deletes in it, but never the `newest` row; then
    /// notes down how far that went.
    fn drop_history(
        &self,
        after: Revision,
        to: Revision,
        newest: Revision,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Ends the transaction.
    fn commit(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Forgets the transaction, if there is one and the connection is whole.
    fn rollback(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What an error of a database means.
pub(crate) trait Fault: std::error::Error + Send + Sync + 'static {
    /// The connection is gone, and another one may help.
    fn is_disconnect(&self) -> bool;
    /// The transaction lost against another one, and would do better now.
    fn is_lost_race(&self) -> bool;
    /// There is no space left.
    fn is_full(&self) -> bool;
    /// As the answer to a commit: whether it may have happened all the same.
    fn leaves_commit_open(&self) -> bool;

    /// For an operation that has changed nothing.
    fn into_store_error(self, op: Op) -> StoreError
    where
        Self: Sized,
    {
        let (full, away) = (self.is_full(), self.is_disconnect());
        let source = Arc::new(self);
        match (full, away) {
            (true, _) => StoreError::Full { op, source },
            (_, true) => StoreError::Unreachable { op, source },
            _ => StoreError::Database { op, source },
        }
    }
}

/// What a table showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The greatest there is.
    pub revision: Revision,
    /// What the compaction marker says.
    pub compacted: Revision,
}

/// What a list is to hold.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// Which keys.
    pub range: KeyRange,
    /// As they were then.
    pub at: Option<Revision>,
    /// At most so many rows.
    pub limit: Option<i64>,
    /// Without values.
    pub keys_only: bool,
    /// Only those with a time to live.
    pub expiring_only: bool,
}

impl Scan {
    /// The revision up to which rows count.
    pub(crate) fn up_to(&self) -> i64 {
        self.at.map_or(i64::MAX, Revision::get)
    }
}

/// Of the table and its indexes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub total: u64,
    pub free: u64,
}

/// A row that is to be added.
#[derive(Clone, Copy)]
pub(crate) struct NewRow<'a> {
    pub id: i64,
    pub name: &'a str,
    pub created: bool,
    pub deleted: bool,
    pub create_revision: i64,
    pub prev_revision: i64,
    pub lease: i32,
    pub value: Option<&'a [u8]>,
    pub old_value: Option<&'a [u8]>,
}

/// Says nothing of values, which hold secrets.
impl fmt::Debug for NewRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.id)
    }
}
