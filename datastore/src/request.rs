//! What a store is asked, and what it answers.

use bytes::Bytes;

use crate::types::{Key, KeyRange, KeyValue, Revision, Ttl};

/// How many events a watcher may be behind before it is cut off, unless it asks for another number. Two commits of the
/// greatest size, and 1.5 KiB of bookkeeping per watcher at most.
pub const WATCH_EVENTS_WAITING_DEFAULT: usize = 1024;

/// One change to one key, and on what condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest {
    /// Whom it concerns.
    pub key: Key,
    /// What to do.
    pub change: Change,
    /// What has to hold; otherwise nothing is done.
    pub precondition: Precondition,
}

/// What to do with a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Give it this value.
    Put {
        /// Opaque bytes.
        value: Bytes,
        /// How long the value is meant to live.
        ttl: Ttl,
    },
    /// Remove it. Removing a key that is not there changes nothing and uses no revision.
    Delete,
}

/// Like that of [`KeyValue`], it never prints a value.
impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Put { value, ttl } => write!(f, "Put({} bytes, ttl {})", value.len(), ttl.as_seconds()),
            Self::Delete => f.write_str("Delete"),
        }
    }
}

/// What has to hold for a write to happen. Repeating a write with the same precondition is always safe, except for
/// [`Precondition::None`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key is not there.
    Absent,
    /// The key was last written at exactly this revision.
    At(Revision),
    /// Nothing.
    None,
}

impl Precondition {
    /// Whether a key in this state may be written.
    pub fn holds(self, current: Option<&KeyValue>) -> bool {
        match self {
            Self::None => true,
            Self::Absent => current.is_none(),
            Self::At(revision) => current.is_some_and(|kv| kv.mod_revision == revision),
        }
    }
}

/// What a write did. It is durable, and every watcher that is up to date has been sent the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteResponse {
    /// The revision of the change, or of the store when there was nothing to change.
    pub revision: Revision,
    /// What the key held before.
    pub prev: Option<KeyValue>,
}

/// Asks for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetRequest {
    /// Which one.
    pub key: Key,
    /// As it was then; `None` is now, including every write that was acknowledged before the question.
    pub at: Option<Revision>,
}

/// One key, or that it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetResponse {
    /// The store's revision when it answered.
    pub revision: Revision,
    /// What the key held.
    pub kv: Option<KeyValue>,
}

/// Asks for the live keys of a range, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRequest {
    /// Which keys.
    pub range: KeyRange,
    /// As they were then; `None` is now. A list in pages repeats the first page's revision here.
    pub at: Option<Revision>,
    /// Only keys behind this one: the last key of the page before.
    pub after: Option<Key>,
    /// At most this many; `None` is all of them.
    pub limit: Option<usize>,
    /// Leave the values away.
    pub keys_only: bool,
    /// Only keys with a time to live: what an expiry queue starts from.
    pub expiring_only: bool,
}

impl ListRequest {
    /// All of a range, now, with values.
    pub fn new(range: KeyRange) -> Self {
        Self { range, at: None, after: None, limit: None, keys_only: false, expiring_only: false }
    }
}

/// Keys in order, without duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListResponse {
    /// The store's revision when it answered: what a watch goes on from, however old the newest key is.
    pub revision: Revision,
    /// The keys, in the order of their bytes.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left any out.
    pub more: bool,
}

/// Asks how many live keys a range has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountRequest {
    /// Which keys.
    pub range: KeyRange,
    /// As they were then; `None` is now.
    pub at: Option<Revision>,
}

/// A number of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountResponse {
    /// The store's revision when it answered.
    pub revision: Revision,
    /// How many live keys there are.
    pub count: u64,
}

/// Asks to be told of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// To which keys.
    pub range: KeyRange,
    /// The first revision of interest, which has to be newer than the compacted one; it may lie in the future. `None`
    /// is whatever happens after this call has returned.
    pub from: Option<Revision>,
    /// How many events may wait for the watcher before it is cut off with [`WatchEnd::Lagged`](crate::WatchEnd).
    /// A single commit is never cut, so a watcher that keeps up is safe whatever the number.
    pub events_waiting_max: usize,
}

impl WatchRequest {
    /// With the default bound.
    pub fn new(range: KeyRange, from: Option<Revision>) -> Self {
        Self { range, from, events_waiting_max: WATCH_EVENTS_WAITING_DEFAULT }
    }
}

/// How far history was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactResponse {
    /// The store's revision when it answered.
    pub revision: Revision,
    /// Reads before this revision are refused now. It is less than what was asked for when the store is told to keep
    /// a number of recent revisions in any case.
    pub compacted: Revision,
}

/// The state of a store in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The revision of the last change.
    pub revision: Revision,
    /// Reads before it are refused.
    pub compacted: Revision,
    /// What the store takes of the disk, log included; 0 for a store that has no disk.
    pub size_bytes: u64,
    /// How much of that is free for new data.
    pub free_bytes: u64,
    /// How much of that is the write-ahead log.
    pub log_bytes: u64,
}

/// Connections of a store to its database, for whoever counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// How many there are.
    pub open: u64,
    /// How many there may be.
    pub max: u64,
}
