//! What the actor understands, and the handle for those who ask.

use std::time::Duration;

use k3sd_runtime::{Address, AskError, ReplyPort, message_kinds};

/// What is known of the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalStatus {
    /// The end of the leaf that ends first, since 1970.
    pub first_end: Duration,
    /// When files were last looked at, since 1970.
    pub looked_at: Duration,
    /// How many files were changed since this incarnation began.
    pub files_changed: u64,
    /// Whether the last look failed; it is repeated.
    pub failed: bool,
}

/// See the variants.
#[derive(Debug)]
pub(crate) enum RenewalMsg {
    /// Time has passed; look whether a leaf is due. Looking too early costs nothing.
    LookTick,
    /// Look at all files now and bring them in order: somebody changed them. Answers when the result is published.
    RenewNow {
        /// How it is afterwards.
        reply: ReplyPort<RenewalStatus>,
    },
    /// Report. Answers from memory.
    Status {
        /// How it is.
        reply: ReplyPort<RenewalStatus>,
    },
}
message_kinds!(RenewalMsg { LookTick, RenewNow, Status });

/// An answer from memory takes no time, but the actor may be writing files.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);
/// Making every key and writing every file anew takes seconds on a small machine with a slow disk.
const RENEW_DEADLINE: Duration = Duration::from_secs(60);

/// The way to the actor that renews.
#[derive(Clone, Debug)]
pub struct RenewalHandle(Address<RenewalMsg>);

impl RenewalHandle {
    pub(crate) fn new(address: Address<RenewalMsg>) -> Self {
        Self(address)
    }

    /// How the certificates are.
    ///
    /// # Errors
    /// The actor is away; asking again is safe.
    pub async fn status(&self) -> Result<RenewalStatus, AskError> {
        self.0.call(STATUS_DEADLINE, |reply| RenewalMsg::Status { reply }).await
    }

    /// Brings the files in order now, and publishes them.
    ///
    /// # Errors
    /// The actor is away; asking again is safe.
    pub async fn renew_now(&self) -> Result<RenewalStatus, AskError> {
        self.0.call(RENEW_DEADLINE, |reply| RenewalMsg::RenewNow { reply }).await
    }
}
