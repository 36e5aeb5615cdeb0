//! What happens in a tree, as a stream for whoever listens. Costs nothing while nobody does.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::exit::Exit;

/// One thing that happened to one actor.
#[derive(Clone, Debug)]
pub struct Event {
    /// Grows by one with each event of the tree, listened to or not, so a gap shows.
    pub sequence: u64,
    /// When.
    pub at: Moment,
    /// To whom.
    pub path: Arc<str>,
    /// In which of its lives, counted from 1.
    pub incarnation: u64,
    /// What.
    pub happened: Happened,
}

/// See [`Event`].
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// It is up.
    Started,
    /// Its incarnation ended, because its supervisor asked for it or not.
    Ended {
        /// How.
        exit: Exit,
        /// Whether its supervisor had asked.
        asked: bool,
    },
    /// It, and those its strategy takes along, start again after a wait.
    Restarting {
        /// The wait.
        delay: Duration,
        /// Deaths in a row, this one included.
        attempt: u32,
    },
    /// A supervisor's budget is spent: it stops its children and fails.
    Escalated {
        /// The budget, and the last death.
        reason: String,
    },
    /// It was killed and is still there: its handler reaches no await.
    Stuck,
    /// Its place is gone.
    Removed,
    /// It takes no more messages, by an operator's wish.
    Suspended,
    /// It takes messages again.
    Resumed,
}

impl Happened {
    /// One word for streams.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ended { asked: true, .. } => "stopped",
            Self::Ended { asked: false, .. } => "died",
            Self::Restarting { .. } => "restarting",
            Self::Escalated { .. } => "escalated",
            Self::Stuck => "stuck",
            Self::Removed => "removed",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
        }
    }
}
