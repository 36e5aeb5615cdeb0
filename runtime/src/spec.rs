//! What to supervise, as data.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::launch::Factory;

/// Which siblings share a dead child's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Only the dead child restarts.
    OneForOne,
    /// The dead child and those started after it restart; take it where later children hold what earlier ones handed out.
    RestForOne,
    /// All children restart; take it where they share one fate.
    OneForAll,
    /// As [`Strategy::OneForOne`], for many alike children that come and go: no order at start, all stopped at once.
    Dynamic,
}

impl Strategy {
    /// The name used on the wire and in `supervisor-tree.md`.
    pub fn word(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::RestForOne => "rest_for_one",
            Self::OneForAll => "one_for_all",
            Self::Dynamic => "dynamic",
        }
    }

    /// Whether a death makes siblings restart too, in start order.
    pub(crate) fn is_grouped(self) -> bool {
        matches!(self, Self::RestForOne | Self::OneForAll)
    }
}

/// Whether a dead child comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Permanent,
    /// Only after an abnormal exit.
    Transient,
    /// Never; its place goes with it.
    Temporary,
}

impl Restart {
    /// The name used on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Temporary => "temporary",
        }
    }
}

/// How a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Killed at once.
    Brutal,
    /// Asked; killed when it is still there after this long.
    Within(Duration),
    /// Asked, and waited for however long it takes. For supervisors: they have children to stop.
    Unlimited,
}

/// How many restarts are normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// So many restarts within `period` are borne; one more and the supervisor gives up.
    pub restarts: u32,
    /// The length of the sliding window. A restart exactly this old still counts.
    pub period: Duration,
}

impl Default for Intensity {
    /// Five in thirty seconds. Budgets multiply along a path: five at three levels is 125 restarts.
    fn default() -> Self {
        Self { restarts: 5, period: Duration::from_secs(30) }
    }
}

/// A worker's time to stop, unless its spec says otherwise; OTP's default.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// A worker's time to start. A hanging `init` must end as a death, or it would block those after it for ever.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Messages a mailbox holds unless its spec says otherwise: more than a healthy actor ever has waiting, and little
/// enough that a stuck one is noticed by its senders within a moment.
pub const MAILBOX_MESSAGES: usize = 1024;

/// One child of a supervisor.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) name: Arc<str>,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) start_within: Option<Duration>,
    pub(crate) backoff: Backoff,
    pub(crate) mailbox: usize,
    pub(crate) factory: Arc<dyn Factory>,
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec").field("name", &self.name).field("restart", &self.restart).finish_non_exhaustive()
    }
}

impl ChildSpec {
    pub(crate) fn new(name: &str, factory: Arc<dyn Factory>) -> Self {
        assert!(
            !name.is_empty() && !name.contains(['/', '\0']) && name.len() <= 253,
            "a child's name is one path segment, got {name:?}"
        );
        Self {
            name: name.into(),
            restart: Restart::Permanent,
            shutdown: Shutdown::Within(SHUTDOWN_LIMIT),
            start_within: Some(START_LIMIT),
            backoff: Backoff::RESTART,
            mailbox: MAILBOX_MESSAGES,
            factory,
        }
    }

    /// The last segment of the child's path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it comes back; permanent unless said otherwise.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How it is stopped; within 5 s unless said otherwise, subtrees without a limit.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// How long its `init` may take; 30 s unless said otherwise, subtrees without a limit. Longer counts as a death.
    #[must_use]
    pub fn start_within(mut self, limit: Option<Duration>) -> Self {
        self.start_within = limit;
        self
    }

    /// The waits before its restarts; [`Backoff::RESTART`] unless said otherwise.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How many messages may wait for it; [`MAILBOX_MESSAGES`] unless said otherwise, at least 1.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.mailbox = messages.max(1);
        self
    }
}

/// A supervisor: its strategy, its budget and its children, in start order.
#[derive(Clone, Debug)]
pub struct Spec {
    pub(crate) strategy: Strategy,
    pub(crate) intensity: Intensity,
    pub(crate) children: Vec<ChildSpec>,
}

impl Spec {
    /// A supervisor without children yet.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, intensity: Intensity::default(), children: Vec::new() }
    }

    /// How many restarts within which time are borne.
    #[must_use]
    pub fn budget(mut self, restarts: u32, period: Duration) -> Self {
        self.intensity = Intensity { restarts, period };
        self
    }

    /// Adds a child after those already there.
    ///
    /// # Panics
    /// When a sibling has the same name: paths are unique.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        assert!(self.children.iter().all(|other| other.name != child.name), "two children named {:?}", child.name);
        self.children.push(child);
        self
    }

    /// Changes every child that is there so far, and leaves their names and order.
    ///
    /// # Panics
    /// When a child comes back under another name.
    #[must_use]
    pub fn each_child(mut self, mut change: impl FnMut(ChildSpec) -> ChildSpec) -> Self {
        for child in &mut self.children {
            let changed = change(child.clone());
            assert_eq!(changed.name, child.name, "a child keeps its name");
            *child = changed;
        }
        self
    }
}
