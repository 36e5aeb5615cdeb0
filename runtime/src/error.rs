//! What a caller can be told by the runtime.

use std::time::Duration;

use thiserror::Error;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CastError {
    /// The mailbox is at its bound. The sender decides: drop, merge, or pass the pressure on.
    #[error("the mailbox of the actor is full")]
    Full,
    /// Nobody is there now: never started, between two incarnations, or stopping.
    #[error("the actor is not running")]
    Down,
}

/// Why a call brought no answer. Every message is safe to repeat, so asking again is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// See [`CastError::Full`].
    #[error("the mailbox of the actor is full")]
    Full,
    /// See [`CastError::Down`].
    #[error("the actor is not running")]
    Down,
    /// It took the question and ended, or dropped it, before answering. What was asked for may have been done.
    #[error("the actor ended before it answered")]
    Gone,
    /// No answer in time. What was asked for may still be done.
    #[error("no answer within {limit:?}")]
    Deadline {
        /// How long the caller waited.
        limit: Duration,
    },
}

impl From<CastError> for AskError {
    fn from(error: CastError) -> Self {
        match error {
            CastError::Full => Self::Full,
            CastError::Down => Self::Down,
        }
    }
}

/// Why a command to a supervisor did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TreeError {
    /// A sibling has that name.
    #[error("a child named {name:?} is already present")]
    AlreadyPresent {
        /// The name that is taken.
        name: String,
    },
    /// No child has that name, or it is being removed.
    #[error("there is no such child")]
    NoSuchChild,
    /// The first start of an added child failed (it was not added), or the start that was asked for did.
    #[error("child {name:?} did not start: {reason}")]
    StartFailed {
        /// The child's name.
        name: String,
        /// How its incarnation ended.
        reason: String,
    },
    /// The child was stopped or removed before it was up.
    #[error("the child was stopped before it was up")]
    Stopped,
    /// The supervisor is stopping its children.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The child's path belongs to an actor of another kind.
    #[error(transparent)]
    Address(#[from] TypeMismatch),
    /// The supervisor could not be asked.
    #[error("the supervisor did not answer")]
    Ask(#[from] AskError),
}

/// Why an address could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path} takes {found}, not {wanted}")]
pub struct TypeMismatch {
    /// The actor's path.
    pub path: String,
    /// The message type asked for.
    pub wanted: &'static str,
    /// The message type the actor at that path has.
    pub found: &'static str,
}
