//! What clients and watchers of a store noted while it was under load: material for the checkers, nothing is judged here.
//!
//! Every value that is written is written once in a history, so a value that is read names the write it comes from.
//! A write without an answer is noted as such: it may have happened, may still happen, or never will.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// One of the few keys of a history.
pub type Key = u16;

/// A revision of the store.
pub type Revision = i64;

/// Time since the start of the history, in nanoseconds of a clock that never goes back.
pub type Nanos = u64;

/// The number of a value, unique in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

/// What a key holds, as the store tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The revision at which the key came to be.
    pub created: Revision,
    /// The revision of its last change.
    pub revision: Revision,
    /// What was written there.
    pub value: Value,
}

/// What a write demands of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Anything,
    /// That it is not there.
    Absent,
    /// That its last change was at this revision.
    At(Revision),
}

impl Expected {
    /// Whether a key with these contents may be written.
    #[must_use]
    pub fn allows(self, found: Option<&Version>) -> bool {
        match self {
            Self::Anything => true,
            Self::Absent => found.is_none(),
            Self::At(revision) => found.is_some_and(|version| version.revision == revision),
        }
    }
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give a key a value.
    Put {
        /// Which key.
        key: Key,
        /// On what condition.
        expected: Expected,
        /// The value.
        value: Value,
    },
    /// Remove a key.
    Delete {
        /// Which key.
        key: Key,
        /// On what condition.
        expected: Expected,
    },
    /// Read a key, as of a revision or now.
    Read {
        /// Which key.
        key: Key,
        /// As of when; `None` is now.
        at: Option<Revision>,
    },
    /// Read all keys, as of a revision or now.
    List {
        /// As of when; `None` is now.
        at: Option<Revision>,
    },
}

impl Action {
    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }
}

/// What a client was answered. `at` is the store's revision when it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write happened.
    Written {
        /// Its revision.
        revision: Revision,
        /// What the key held before.
        prev: Option<Version>,
    },
    /// The condition did not hold, or there was nothing to delete. Nothing was changed.
    Unchanged {
        /// The revision of the answer.
        at: Revision,
        /// What the key holds.
        found: Option<Version>,
    },
    /// What one key holds.
    Read {
        /// The revision of the answer.
        at: Revision,
        /// What the key held at the moment that was asked for.
        found: Option<Version>,
    },
    /// What all keys hold.
    Listed {
        /// The revision of the answer.
        at: Revision,
        /// What they held at the moment that was asked for.
        found: BTreeMap<Key, Version>,
    },
    /// An error that says that nothing was changed.
    Refused {
        /// The store's words.
        reason: String,
    },
    /// No answer, or an error that leaves open what happened.
    Unknown {
        /// The words of whoever noticed.
        reason: String,
    },
}

/// One question of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// What for.
    pub action: Action,
    /// Before it was sent.
    pub called: Nanos,
    /// After the answer, or the end of waiting for one.
    pub returned: Nanos,
    /// The answer.
    pub outcome: Outcome,
}

impl Operation {
    /// The revision that the store had reached when it answered, at least.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        match &self.outcome {
            Outcome::Written { revision, .. } => Some(*revision),
            Outcome::Unchanged { at, .. } | Outcome::Read { at, .. } | Outcome::Listed { at, .. } => Some(*at),
            Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
        }
    }
}

/// In one line: who, when, what, and the answer.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, action, called, returned, outcome } = self;
        let (called, returned) = (called / 1_000, returned / 1_000);
        write!(f, "client {client} {called}..{returned} us: {action:?} -> {outcome:?}")
    }
}

/// A change, as a watcher is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub revision: Revision,
    /// Whom it concerns.
    pub key: Key,
    /// What the key holds from then on; nothing when it was deleted.
    pub now: Option<Version>,
    /// What it held before.
    pub prev: Option<Version>,
}

/// What happens to a watcher, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It asked for all changes from a revision on.
    Asked {
        /// The first one of interest.
        from: Revision,
    },
    /// A change, and when the watcher learnt of it.
    Event(Event, Nanos),
    /// It was told that it has everything up to a revision.
    Progress(Revision),
    /// It was told that what it asked for is gone; it listed all keys at this revision and asks from there.
    Skipped {
        /// Everything before it is gone.
        compacted: Revision,
        /// Where it goes on behind.
        to: Revision,
    },
}

/// Everything that one watcher noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// What to call it.
    pub name: String,
    /// The key it follows; `None` is all of them.
    pub key: Option<Key>,
    /// What happened to it.
    pub seen: Vec<Seen>,
    /// Whether it followed until the end of the history. If not, it has everything up to its last event.
    pub to_the_end: bool,
}

impl Watch {
    /// Whether it is told of a key.
    #[must_use]
    pub fn follows(&self, key: Key) -> bool {
        self.key.is_none_or(|own| own == key)
    }
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What the keys held before it.
    pub start: BTreeMap<Key, Version>,
    /// The store's revision then.
    pub start_revision: Revision,
    /// What the keys hold after it.
    pub end: BTreeMap<Key, Version>,
    /// The store's revision then.
    pub end_revision: Revision,
    /// What clients did, in no particular order.
    pub operations: Vec<Operation>,
    /// What watchers saw.
    pub watches: Vec<Watch>,
    /// Whether every revision has to be a change of one of the keys: nobody else writes, and the store leaves none out.
    pub is_dense: bool,
}

/// For people, and as much as they need: long runs have too many lines to print.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "start at revision {}: {:?}", self.start_revision, self.start)?;
        let mut operations: Vec<_> = self.operations.iter().collect();
        operations.sort_by_key(|operation| operation.called);
        for operation in operations {
            writeln!(f, "{operation}")?;
        }
        for watch in &self.watches {
            writeln!(f, "watch {} of {:?}, to the end: {}", watch.name, watch.key, watch.to_the_end)?;
            for seen in &watch.seen {
                writeln!(f, "  {seen:?}")?;
            }
        }
        writeln!(f, "end at revision {}: {:?}", self.end_revision, self.end)
    }
}

/// The clock of a history.
#[derive(Clone, Copy, Debug)]
pub struct Origin(Instant);

impl Default for Origin {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Origin {
    /// Time since it began.
    #[must_use]
    pub fn now(&self) -> Nanos {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
