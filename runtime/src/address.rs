//! Names that lead to whoever lives there now.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::anchor;
use crate::cell::{AnyCell as _, Cell, MailboxLook};
use crate::error::{AskError, CastError};
use crate::message::Message;

/// The way to an actor, by its path: it stays good across restarts, because each send looks who is in now.
///
/// Messages that wait when an incarnation dies are lost, and those sent while nobody is in are refused. So every message
/// must be safe to repeat.
pub struct Address<M: Message>(Arc<Cell<M>>);

impl<M: Message> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Message> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.path()).finish()
    }
}

impl<M: Message> Address<M> {
    pub(crate) fn new(cell: Arc<Cell<M>>) -> Self {
        Self(cell)
    }

    /// The actor's path, as `server/kine/writer`.
    pub fn path(&self) -> &str {
        &self.0.node.path
    }

    /// Sends and forgets.
    ///
    /// # Errors
    /// Never waits: a full mailbox and an absent actor are told at once, and the message is dropped.
    pub fn cast(&self, message: M) -> Result<(), CastError> {
        self.0.push(message).map_err(|(error, _)| error)
    }

    /// As [`Address::cast`], and gives a refused message back.
    ///
    /// # Errors
    /// The reason, with the message.
    pub fn try_cast(&self, message: M) -> Result<(), (CastError, M)> {
        self.0.push(message)
    }

    /// Asks and waits for the answer, at most until `limit` is over.
    ///
    /// # Errors
    /// See [`AskError`]. After `Gone` and `Deadline` the message may have had its effect.
    pub async fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        message: impl FnOnce(ReplyPort<T>) -> M,
    ) -> Result<T, AskError> {
        let (sender, receiver) = oneshot::channel();
        self.0.push(message(ReplyPort(sender))).map_err(|(error, _)| error)?;
        if limit > anchor::PERIOD {
            self.0.node.system.anchor();
        }
        match timeout(limit, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::Gone),
            Err(_) => Err(AskError::Deadline { limit }),
        }
    }

    /// The state of its mailbox.
    pub fn mailbox(&self) -> MailboxLook {
        self.0.mailbox()
    }
}

/// Where the answer to a call goes. Dropping it tells the caller that none will come.
pub struct ReplyPort<T>(oneshot::Sender<T>);

impl<T> fmt::Debug for ReplyPort<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyPort")
    }
}

impl<T> ReplyPort<T> {
    /// Answers. The caller may have given up; that is its business.
    pub fn send(self, answer: T) {
        self.0.send(answer).ok();
    }

    /// Whether nobody waits for the answer any more, so that long work for it can be left out.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}
