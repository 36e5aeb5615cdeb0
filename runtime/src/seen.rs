//! What an observer is told about a child's state: less than its supervisor knows.

/// What a child looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Seen {
    /// Not running and not about to.
    Down,
    /// Waiting out a backoff, its own or its group's.
    Backoff,
    /// In `init`.
    Starting,
    /// Up.
    Running,
    /// Asked to stop, or killed, and not gone yet.
    Stopping,
}

impl Seen {
    /// The word used on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Backoff => "backoff",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }

    pub(crate) fn from_u8(number: u8) -> Self {
        [Self::Down, Self::Backoff, Self::Starting, Self::Running]
            .get(usize::from(number))
            .copied()
            .unwrap_or(Self::Stopping)
    }
}
