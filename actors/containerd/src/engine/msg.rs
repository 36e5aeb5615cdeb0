//! What the actor understands, and the handle for those who ask.

use std::time::Duration;

use k3sd_runtime::{Address, AskError, ReplyPort, message_kinds};

/// What is known of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Its process; none while it is down.
    pub pid: Option<u32>,
    /// Whether it was found running.
    pub adopted: bool,
    /// Whether it answers.
    pub answers: bool,
    /// Its version, as it prints it.
    pub version: String,
    /// How often it was started since this actor began.
    pub starts: u64,
    /// Why the last attempt failed; empty when it didn't.
    pub error: String,
}

/// See the variants.
#[derive(Debug)]
pub(crate) enum EngineMsg {
    /// Configure it, and start or adopt it. Without effect on one that runs as it should.
    StartTick,
    /// Look whether it answers.
    LookTick {
        /// Counts what was watched.
        watched: u64,
    },
    /// It was asked for its version.
    Looked {
        /// Counts what was watched.
        watched: u64,
        /// Whether it said something.
        answers: bool,
    },
    /// The process that was watched under this number has ended.
    Ended {
        /// Counts what was watched.
        watched: u64,
    },
    /// Look at the size of its log.
    LogTick,
    /// Report. Answers from memory.
    Status {
        /// How it is.
        reply: ReplyPort<EngineStatus>,
    },
}
message_kinds!(EngineMsg { StartTick, LookTick, Looked, Ended, LogTick, Status });

/// The actor may be waiting for an old engine to end.
const STATUS_DEADLINE: Duration = Duration::from_secs(30);

/// The way to the actor that keeps the engine running.
#[derive(Clone, Debug)]
pub struct EngineHandle(Address<EngineMsg>);

impl EngineHandle {
    pub(crate) fn new(address: Address<EngineMsg>) -> Self {
        Self(address)
    }

    /// How the engine is.
    ///
    /// # Errors
    /// The actor is away; asking again is safe.
    pub async fn status(&self) -> Result<EngineStatus, AskError> {
        self.0.call(STATUS_DEADLINE, |reply| EngineMsg::Status { reply }).await
    }
}
