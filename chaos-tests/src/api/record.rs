//! What clients of the API server noted while its parts died: material for the checkers.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::client::{Answer, NoAnswer};
use crate::history::Nanos;

/// The `ConfigMap`s that are there: by `namespace/name`, what is in them.
pub type State = BTreeMap<String, Version>;

/// The number that a writer gave to what it wrote; 0 is everybody else's.
pub type Mark = u64;

/// One version of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its `resourceVersion`.
    pub revision: u64,
    /// Which write made it.
    pub mark: Mark,
}

/// Takes an object of the API apart; `None` when it is none.
#[must_use]
pub fn object(value: &Value) -> Option<(String, Version)> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str);
    let name = format!("{}/{}", text("/metadata/namespace")?, text("/metadata/name")?);
    let mark = text("/data/mark").and_then(|mark| mark.parse().ok()).unwrap_or_default();
    Some((name, Version { revision: revision(value)?, mark }))
}

/// The `resourceVersion` of an object or a list.
#[must_use]
pub fn revision(value: &Value) -> Option<u64> {
    value.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
}

/// Takes a list of the API apart; `None` when it is none.
#[must_use]
pub fn list(value: &Value) -> Option<(u64, State)> {
    let items = value.get("items")?.as_array()?;
    let state = items.iter().map(object).collect::<Option<State>>()?;
    (state.len() == items.len()).then_some((revision(value)?, state))
}

/// Whose request it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Writes, and reads what became of it.
    Writer,
    /// Lists and watches.
    Watcher,
    /// Reads at `resourceVersion=0`, which needs no datastore.
    Reader,
    /// Opens a connection for every request.
    Newcomer,
}

/// What a request was answered with that should have succeeded.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Nothing.
    None(NoAnswer),
    /// An error.
    Error(Answer),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(why) => write!(f, "{why}"),
            Self::Error(answer) => write!(f, "{}: {}", answer.status, answer.body),
        }
    }
}

/// A request that did not succeed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Whose.
    pub who: Who,
    /// The method and the path.
    pub what: String,
    /// When it began.
    pub called: Nanos,
    /// When it was over.
    pub returned: Nanos,
    /// What came instead.
    pub trouble: Trouble,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Of which object, as in [`State`].
    pub name: String,
    /// What was written; `None` for a deletion.
    pub mark: Option<Mark>,
    /// Whether it was acknowledged. Otherwise nobody knows.
    pub is_acknowledged: bool,
    /// The `resourceVersion` that was acknowledged; deletions have none.
    pub revision: Option<u64>,
}

/// What a watcher looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All namespaces.
    All,
    /// One namespace.
    Namespace(String),
    /// One object, as in [`State`].
    One(String),
}

impl Scope {
    /// Whether an object belongs to it.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let namespace = name.split('/').next().unwrap_or_default();
        match self {
            Self::All => true,
            Self::Namespace(own) => own == namespace,
            Self::One(own) => own == name,
        }
    }
}

/// An event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bookmark: everything up to there was sent.
    Bookmark(u64),
    /// `ADDED`.
    Added(String, Version),
    /// `MODIFIED`.
    Modified(String, Version),
    /// `DELETED`, with the revision of the deletion.
    Deleted(String, Version),
}

impl Event {
    /// Where in the history it is.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match self {
            Self::Bookmark(revision) => *revision,
            Self::Added(_, version) | Self::Modified(_, version) | Self::Deleted(_, version) => version.revision,
        }
    }
}

/// What a watcher saw from one list to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The revision of the list.
    pub revision: u64,
    /// The newest revision that was acknowledged to anybody before the list was asked for.
    pub acknowledged: u64,
    /// Whether the list might be as old as the server's memory.
    pub is_any_age: bool,
    /// The list.
    pub list: State,
    /// The events after it, over all watches that went on from there.
    pub events: Vec<Event>,
}

/// What one watcher saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// What it looked at.
    pub scope: Scope,
    /// All it saw.
    pub spans: Vec<Span>,
}

/// What a victim's death may be noticed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Who died.
    pub victim: String,
    /// Whether requests may fail meanwhile.
    pub may_fail: bool,
    /// Whether reads from memory may fail meanwhile.
    pub may_fail_reads: bool,
    /// When it was asked for. It lasts until the next one.
    pub began: Nanos,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Who died, in order.
    pub strikes: Vec<Strike>,
    /// All writes; those of one object in order.
    pub writes: Vec<Write>,
    /// Requests that failed.
    pub failures: Vec<Failure>,
    /// What each watcher saw.
    pub watches: Vec<Watch>,
    /// What is there in the end.
    pub end: State,
    /// What the writers believe is there in the end.
    pub believed: State,
    /// What was wrong by itself.
    pub findings: Vec<String>,
}
