//! What the inspection socket says: types of its own, which no actor depends on.
//!
//! Everything is JSON. Answers carry [`VERSION`]; fields are only ever added within one version. Of messages the names of
//! their variants are told, never their contents: they hold Secrets.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The version of all that is said here.
pub const VERSION: u32 = 1;

/// A word of a fixed vocabulary.
pub type Word = Cow<'static, str>;

/// The whole tree, as `GET /v1/tree` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// [`VERSION`].
    pub version: u32,
    /// When somebody looked.
    pub at_unix_ms: u64,
    /// The daemon's process.
    pub pid: u32,
    /// Incarnations that exist, in the tree or still on their way out of it.
    #[serde(default)]
    pub alive: usize,
    /// The root and all below it. Each actor shows its last death only.
    pub root: Actor,
}

/// One actor, as `GET /v1/actors/<path>` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// [`VERSION`].
    pub version: u32,
    /// When somebody looked.
    pub at_unix_ms: u64,
    /// The actor, and its children without theirs.
    pub actor: Actor,
}

/// An actor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actor {
    /// Its path, as `server/kine/writer`; `/` is the root.
    pub path: String,
    /// The last segment of its path.
    pub name: String,
    /// `worker`, `task` or `supervisor`.
    pub kind: Word,
    /// `permanent`, `transient` or `temporary`; the root has none.
    pub restart: Option<Word>,
    /// A supervisor's: `one_for_one`, `rest_for_one`, `one_for_all` or `dynamic`.
    pub strategy: Option<Word>,
    /// A supervisor's budget.
    pub intensity: Option<Intensity>,
    /// `down`, `backoff`, `starting`, `running`, `suspended` or `stopping`.
    pub state: Word,
    /// Which of its lives this is, counted from 1; 0 when there was none.
    pub incarnation: u64,
    /// Lives after the first.
    pub restarts: u64,
    /// The age of this life; 0 between two.
    pub uptime_ms: u64,
    /// Messages handled in all its lives.
    pub handled: u64,
    /// Time spent in handlers in all its lives, the running one included.
    pub busy_us: u64,
    /// Its mailbox.
    pub mailbox: Mailbox,
    /// The message in hand.
    pub handling: Option<Handling>,
    /// What it says about itself, such as which objects it has trouble with. Names and reasons, no contents.
    pub notes: Vec<String>,
    /// Its last deaths, oldest first; at most eight are kept.
    pub deaths: Vec<Death>,
    /// How many children it has. More than `children` holds when the answer was cut.
    pub children_total: usize,
    /// Its children in start order.
    pub children: Vec<Actor>,
}

/// How many restarts are borne within which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intensity {
    /// So many restarts.
    pub restarts: u32,
    /// The length of the window.
    pub period_ms: u64,
}

/// A mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Messages waiting.
    pub depth: usize,
    /// The most that ever waited.
    pub high_water: usize,
    /// The bound.
    pub capacity: usize,
    /// Messages taken in so far.
    pub received: u64,
    /// Messages refused because it was full.
    pub refused: u64,
}

/// The message in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// The name of its variant.
    pub message: Word,
    /// For how long already.
    pub age_us: u64,
}

/// The end of one life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// When.
    pub at_unix_ms: u64,
    /// Which life.
    pub incarnation: u64,
    /// `normal`, `shutdown`, `error`, `panic`, `killed`, `start-failed` or `escalated`.
    pub exit: Word,
    /// What there is to say beyond that word.
    pub detail: Option<String>,
    /// Whether its supervisor had asked for it.
    pub asked: bool,
}

/// A line of `GET /v1/events`.
///
/// The first line is `listening`, at once. `missed` with a `count` stands where the listener was too slow. All others
/// name an actor: `started`, `died`, `stopped`, `restarting`, `escalated`, `stuck`, `removed`, `suspended`, `resumed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// [`VERSION`].
    pub version: u32,
    /// The number of the event; grows by one with each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When.
    pub at_unix_ms: u64,
    /// What happened.
    pub event: Word,
    /// To whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In which of its lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// How a life ended; see [`Death::exit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Word>,
    /// What there is to say about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The wait before a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Deaths in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Events that were missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A line of `GET /v1/trace/<path>`: one handled message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// When its handler began.
    pub at_unix_ms: u64,
    /// The name of its variant.
    pub message: Word,
    /// How long the handler took.
    pub took_us: u64,
    /// Messages waiting when it ended.
    pub waiting: usize,
    /// Whether the handler failed.
    pub failed: bool,
}

/// The answer to `POST /v1/kill`, `suspend` and `resume`: the wish was passed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// [`VERSION`].
    pub version: u32,
    /// What was done: `kill`, `panic`, `stop`, `suspend` or `resume`.
    pub done: Word,
    /// To whom.
    pub path: String,
    /// To which of its lives.
    pub incarnation: u64,
}

/// Every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// [`VERSION`].
    pub version: u32,
    /// Why.
    pub error: String,
}
