//! What the API server asks of a store: bytes under keys, and a revision for each change.
//!
//! The semantics are etcd's. There is one revision counter; each change takes the next number. A read sees the store as it
//! was at one revision. A [`Feed`] has every change of its range once, in order, with what was there before, or says that
//! it ended and why. Whoever keeps the bytes implements [`Storage`]; the API server knows nothing else of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

#[cfg(feature = "testkit")]
pub mod memory;

/// A future that can be kept in a structure.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A moment in the life of the whole store. What clients see as `resourceVersion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before anything happened. No key was ever written at this revision.
    pub const ZERO: Self = Self(0);

    /// Any number is accepted; one that can't be read is refused by the operation it is given to.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The moment after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key and what it held from `modified` on.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name.
    pub key: Bytes,
    /// Opaque bytes; empty if only keys were asked for.
    pub value: Bytes,
    /// When this value was written.
    pub modified: Revision,
}

/// Says how long the value is, never what it is: values hold secrets.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"@{} ({} bytes)", self.key.escape_ascii(), self.modified, self.value.len())
    }
}

/// What to do with a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Give it this value.
    Put {
        /// Opaque bytes.
        value: Bytes,
        /// How long the value lives, in whole seconds; `None` is for ever.
        ttl: Option<Duration>,
    },
    /// Remove it.
    Delete,
}

/// Says how long the value is, never what it is.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { value, ttl } => write!(f, "Put({} bytes, ttl {ttl:?})", value.len()),
            Self::Delete => f.write_str("Delete"),
        }
    }
}

/// What has to hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key is not there.
    Absent,
    /// The key was last written at exactly this revision.
    At(Revision),
    /// Nothing.
    None,
}

/// One change to one key, and on what condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whom it concerns.
    pub key: Bytes,
    /// What to do.
    pub change: Change,
    /// What has to hold; otherwise nothing is done.
    pub precondition: Precondition,
}

/// What a write did. It is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The revision of the change, or of the store when there was nothing to change.
    pub revision: Revision,
    /// What the key held before.
    pub previous: Option<KeyValue>,
}

/// One key, or that it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The store's revision when it answered.
    pub revision: Revision,
    /// What the key held.
    pub found: Option<KeyValue>,
}

/// Asks for the keys that begin with some bytes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What the keys begin with; empty for all keys.
    pub prefix: Bytes,
    /// As they were then; `None` is now, including every write that was acknowledged before the question.
    pub at: Option<Revision>,
    /// Only keys behind this one, which need not be there.
    pub after: Option<Bytes>,
    /// At most this many; `None` is all of them.
    pub limit: Option<usize>,
    /// Leave the values away.
    pub keys_only: bool,
}

/// Keys in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The store's revision when it answered: what a feed goes on from.
    pub revision: Revision,
    /// The keys.
    pub found: Vec<KeyValue>,
    /// Whether the limit left any out.
    pub more: bool,
}

/// One change that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whom it concerns.
    pub key: Bytes,
    /// When.
    pub revision: Revision,
    /// What the key holds now; `None` after a delete.
    pub value: Option<Bytes>,
    /// What it held before; `None` if it was not there.
    pub previous: Option<KeyValue>,
}

/// What a feed says.
#[derive(Clone, Debug)]
pub enum FeedMessage {
    /// Changes in order, at least one. Changes of one commit may come in several messages.
    Events(Vec<Event>),
    /// Everything up to this revision has been sent.
    Progress(Revision),
    /// Nothing more comes. What was sent before is whole.
    Ended(FeedEnd),
}

/// Why a feed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEnd {
    /// The reader was too slow, or the store is being opened again: begin another feed behind the last revision seen.
    Resume,
    /// History before this revision is gone, and with it some events: list again, and begin from there.
    Compacted(Revision),
}

/// Changes as they happen.
pub trait Feed: Send {
    /// Waits for what is next. Dropping the future loses nothing. After [`FeedMessage::Ended`] it says the same again.
    fn next(&mut self) -> BoxFuture<'_, FeedMessage>;
}

/// How far history was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Reads before this revision are refused now.
    pub compacted: Revision,
}

/// Why an operation did not take effect, or may not have. Only [`StorageError::Unknown`] leaves that open: after every
/// other error nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StorageError {
    /// The precondition did not hold.
    #[error("the key was changed by somebody else")]
    Conflict {
        /// What the key holds.
        current: Option<KeyValue>,
        /// The store's revision when it looked.
        revision: Revision,
    },
    /// That revision can't be read any more.
    #[error("revision {requested} is older than the oldest that is kept, {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        compacted: Revision,
    },
    /// Nothing has happened at that revision yet.
    #[error("revision {requested} is newer than the newest there is, {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest revision there is.
        current: Revision,
    },
    /// No store takes this request, in whatever state.
    #[error("the store refuses the request: {0}")]
    Invalid(String),
    /// No space is left for writes; reads go on.
    #[error("the store has no space left")]
    Full,
    /// The change may have happened, or may happen yet. Read the key to learn it.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Nothing has happened, and the same may succeed later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// Whoever keeps the API server's bytes. Every method may be called from any task at any time; dropping the future of a
/// write leaves open whether it happens.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Changes one key if the precondition holds, and answers when the change is durable.
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>>;

    /// Reads one key, now or as it was at a revision.
    fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>>;

    /// Reads the keys of a range in order, whole or in pages. Pages at one revision fit together.
    fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>>;

    /// Counts the keys that begin with these bytes, now or as it was at a revision.
    fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>>;

    /// Follows the keys that begin with these bytes, from `from` on (the first revision of interest), or from now.
    fn watch(&self, prefix: Bytes, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Feed>, StorageError>>;

    /// The newest revision, including every write that was acknowledged before the question. Feeds that have all
    /// events are sent [`FeedMessage::Progress`] up to it, should they not know.
    fn progress(&self) -> BoxFuture<'_, Result<Revision, StorageError>>;

    /// The same without asking anybody, where nobody else writes to the database; `None` where others may, or while the
    /// store is being opened.
    fn latest(&self) -> Option<Revision>;

    /// Drops what can only be seen before `target`.
    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<Compacted, StorageError>>;

    /// Whether the store is open and answers.
    fn is_open(&self) -> bool;
}
