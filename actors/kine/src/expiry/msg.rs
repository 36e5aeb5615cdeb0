//! What the expiry actor understands: questions about leases, and what it sends to itself.

use std::time::Duration;

use k3sd_datastore::{Key, KeyValue, Revision, Ttl, WatchMessage, Watcher};
use k3sd_runtime::{ReplyPort, message_kinds};

use super::core::{Lease, Refusal};

/// See the variants.
#[derive(Debug)]
pub(crate) enum ExpiryMsg {
    /// List what has an end, and watch from there.
    StartTick,
    /// The keys with an end, and a watcher from behind them; or nothing, when the store did not answer.
    Listed {
        /// Both.
        found: Option<(Vec<KeyValue>, Box<Watcher>)>,
    },
    /// The watcher said something; it is gone when it has ended.
    Watched {
        /// The watcher, to go on with, and what it said.
        next: Option<(Box<Watcher>, WatchMessage)>,
    },
    /// Something is due.
    DueTick,
    /// Keys were deleted, except for these, which have to be tried again.
    Deleted {
        /// Those left over.
        left: Vec<(Key, Revision)>,
    },
    /// Grant a lease. Answers with its number, or nothing when there is none left.
    Grant { ttl: Ttl, reply: ReplyPort<Option<i64>> },
    /// Grant a lease with a number that was chosen.
    GrantAs { id: i64, ttl: Ttl, reply: ReplyPort<Result<(), Refusal>> },
    /// A key is about to be written with a lease. Answers with its time to live, or nothing when there is no such lease.
    Attach { lease: i64, key: Key, reply: ReplyPort<Option<Ttl>> },
    /// Renew a lease. Answers with its time to live and the keys that the store has to be told of, or nothing when it has
    /// ended.
    KeepAlive { lease: i64, reply: ReplyPort<Option<(Ttl, Vec<Key>)>> },
    /// Forget a lease. Answers with what it was; whoever asks deletes its keys.
    Revoke { lease: i64, reply: ReplyPort<Option<Lease>> },
    /// Tell about a lease, and how long it lasts.
    Look { lease: i64, reply: ReplyPort<Option<(Lease, Duration)>> },
    /// Tell the numbers of all leases.
    Leases { reply: ReplyPort<Vec<i64>> },
}
message_kinds!(ExpiryMsg {
    StartTick,
    Listed,
    Watched,
    DueTick,
    Deleted,
    Grant,
    GrantAs,
    Attach,
    KeepAlive,
    Revoke,
    Look,
    Leases,
});
