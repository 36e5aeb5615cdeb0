//! What can go wrong, by what the caller does about it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::request::Precondition;
use crate::types::{Key, KeyValue, Revision};

/// The database's own error. Shared, because one failed commit fails everybody in it.
pub type Source = Arc<dyn std::error::Error + Send + Sync>;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opening the store.
    Open,
    /// Creating, updating or deleting a key.
    Write,
    /// Reading one key.
    Get,
    /// Reading a range.
    List,
    /// Counting a range.
    Count,
    /// Reading or following events.
    Watch,
    /// Dropping history.
    Compact,
    /// Asking for the store's state.
    Status,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Write => "write",
            Self::Get => "get",
            Self::List => "list",
            Self::Count => "count",
            Self::Watch => "watch",
            Self::Compact => "compact",
            Self::Status => "status",
        })
    }
}

/// A precondition that did not hold, with what did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Whom it concerned.
    pub key: Key,
    /// What was demanded.
    pub expected: Precondition,
    /// What the key holds, or that it is not there.
    pub current: Option<KeyValue>,
    /// The store's revision when it looked.
    pub revision: Revision,
}

/// Why an operation did not take effect, or may not have. Only [`StoreError::Unknown`] leaves that open: after every
/// other error nothing has changed.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Somebody wrote, created or deleted the key since it was read.
    #[error("precondition of key {:?} failed: expected {:?}, found {:?}", .0.key, .0.expected, .0.current)]
    Conflict(Box<Conflict>),
    /// History before `compacted` is gone.
    #[error("revision {requested} is older than compact revision {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        compacted: Revision,
    },
    /// Nothing has happened at that revision yet.
    #[error("revision {requested} is newer than current revision {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest revision there is.
        current: Revision,
    },
    /// The request can't be carried out by any store in any state.
    #[error("invalid request: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The change may be durable or not, now or after a restart. Read the key, or repeat with the same precondition.
    #[error("{op} ended without an answer ({reason}); it may or may not have happened")]
    Unknown {
        /// What was being done.
        op: Op,
        /// What prevented the answer.
        reason: String,
    },
    /// No space is left for writes; reads go on, and writes do when there is space again. The one write with
    /// which an etcd becomes full may have happened: etcd applies it before it compares sizes.
    #[error("no space left on the disk for {op}")]
    Full {
        /// What was being done.
        op: Op,
        /// The database's error.
        #[source]
        source: Source,
    },
    /// Another process holds the database.
    #[error("the database is locked by another process during {op}")]
    Locked {
        /// What was being done.
        op: Op,
        /// The database's error.
        #[source]
        source: Source,
    },
    /// The database could not be reached, for as long as the store was patient.
    #[error("the database can't be reached for {op}")]
    Unreachable {
        /// What was being done.
        op: Op,
        /// What prevented it.
        #[source]
        source: Source,
    },
    /// What is stored is not what was written. Nothing repairs it but a backup.
    #[error("{} is damaged: {detail}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the check found.
        detail: String,
    },
    /// The database refused for a reason of its own.
    #[error("database failed during {op}")]
    Database {
        /// What was being done.
        op: Op,
        /// The database's error.
        #[source]
        source: Source,
    },
    /// The store was closed, or its threads are gone.
    #[error("the store is closed")]
    Closed,
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Read the key again and decide anew.
    Reread,
    /// List again, and watch from there.
    Relist,
    /// Try the same thing later.
    Retry,
    /// Read the key to learn what happened.
    Find,
    /// Send another request: this one never succeeds.
    Correct,
    /// Crash, and let whoever opens the store decide.
    Reopen,
    /// Stop, and tell a person.
    Restore,
}

impl StoreError {
    /// What to do next.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Conflict(_) => Remedy::Reread,
            Self::Compacted { .. } => Remedy::Relist,
            Self::Invalid { .. } | Self::FutureRevision { .. } => Remedy::Correct,
            Self::Unknown { .. } => Remedy::Find,
            Self::Full { .. } | Self::Locked { .. } | Self::Unreachable { .. } => Remedy::Retry,
            Self::Damaged { .. } => Remedy::Restore,
            Self::Database { .. } | Self::Closed => Remedy::Reopen,
        }
    }

    /// What was found instead of what was expected, if that is what went wrong.
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            Self::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }

    /// An [`StoreError::Invalid`].
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }
}

/// Refuses a revision that can't be read: before `compacted`, or after `current`.
pub(crate) fn check_readable(at: Option<Revision>, compacted: Revision, current: Revision) -> Result<(), StoreError> {
    match at {
        Some(requested) if requested > current => Err(StoreError::FutureRevision { requested, current }),
        Some(requested) if requested < compacted => Err(StoreError::Compacted { requested, compacted }),
        _ => Ok(()),
    }
}

/// Refuses a watch whose first event may be gone. The change at `compacted` itself may have been dropped.
pub(crate) fn check_watchable(from: Revision, compacted: Revision) -> Result<(), StoreError> {
    if from <= compacted { Err(StoreError::Compacted { requested: from, compacted }) } else { Ok(()) }
}

/// Refuses a compaction that was done already, or that would drop what has not happened.
pub(crate) fn check_compactable(target: Revision, compacted: Revision, current: Revision) -> Result<(), StoreError> {
    if target > current {
        return Err(StoreError::FutureRevision { requested: target, current });
    }
    if target <= compacted { Err(StoreError::Compacted { requested: target, compacted }) } else { Ok(()) }
}

/// Names that belong to the layout of the table, kine's: its compaction marker, and its fillers of revisions that never
/// came to be.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name == COMPACT_REV_KEY.as_bytes() || name.starts_with(GAP_PREFIX.as_bytes())
}

/// The row whose `prev_revision` is the compacted revision.
pub(crate) const COMPACT_REV_KEY: &str = "compact_rev_key";
/// What the names of rows that only fill a revision begin with.
pub(crate) const GAP_PREFIX: &str = "gap-";

/// Refuses names that nobody may write.
pub(crate) fn check_writable(key: &Key) -> Result<(), StoreError> {
    if key.as_bytes().is_empty() {
        return Err(StoreError::invalid("key is empty"));
    }
    if is_reserved(key.as_bytes()) {
        return Err(StoreError::invalid(format!("key {key:?} belongs to the store itself")));
    }
    Ok(())
}
