//! Controllers: loops that look at one key after the other and make what is into what is wanted.
//!
//! ```text
//! informers ─ changes ─▶ keys ─▶ work queue ─▶ reconcile(key) ─▶ API
//!                                  ▲   │           │
//!                                  │   └ held back until the informers show what was written for it
//!                                  └──── failed, panicked: later; asked for a later look
//! ```
//!
//! A loop is level-triggered: `reconcile` reads what there is now, and what it was told of is forgotten. So it may be
//! killed at any moment: its successor looks at everything again.
//!
//! Copies lag behind what was written. A turn therefore notes what it wrote, and its key isn't looked at again before the
//! copies show that: a controller never makes a pod twice because it hasn't yet seen the first one.
//!
//! A key whose look panics, or fails [`QUARANTINE_FAILURES`] times in a row though the API didn't refuse anything, is in
//! quarantine: it is tried again after waits that grow, the others go on. `k3sd actors show` names it, and an Event about its object says why.

mod error;
pub mod fan_out;
pub mod indexes;
pub mod owners;
pub mod pods;
mod run;
pub mod setup;
mod source;
#[cfg(test)]
mod tests;
mod turn;

use std::fmt;
use std::hash::Hash;

use k3sd_runtime::Backoff;

pub use self::error::Failure;
pub use self::run::Loop;
pub use self::turn::Turn;
use crate::informer::ObjectKey;

/// Failures in a row from which on a key is in quarantine.
pub const QUARANTINE_FAILURES: u32 = 8;

/// What a loop looks at one by one.
pub trait Key: Clone + Eq + Hash + Ord + fmt::Display + fmt::Debug + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Ord + fmt::Display + fmt::Debug + Send + Sync + 'static> Key for T {}

/// One kind of loop. What it needs, such as informers and clients, are its fields; it keeps nothing that it couldn't
/// read again.
pub trait Controller: Send + Sync + 'static {
    /// What it looks at.
    type Key: Key;

    /// The waits after failures of a key.
    const BACKOFF: Backoff = Backoff::REQUEUE;

    /// Makes what a key stands for into what is wanted.
    ///
    /// # Errors
    /// It isn't right yet and nothing will tell: the key is looked at again later.
    fn reconcile(&self, key: &Self::Key, turn: &mut Turn) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The key of an object.
pub fn key_of<K: crate::informer::Kind>(object: &K) -> ObjectKey {
    ObjectKey::of(object)
}

/// The key of the object's controller, if that is of such a kind in such a group.
pub fn controller_key<K: crate::informer::Kind>(object: &K, group: &str, kind: &str) -> Option<ObjectKey> {
    let owners = object.meta().owner_references.iter().flatten();
    let owner = owners.filter(|owner| owner.controller == Some(true)).find(|owner| {
        let of_group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        owner.kind == kind && of_group == group
    })?;
    Some(ObjectKey { namespace: object.meta().namespace.clone().unwrap_or_default(), name: owner.name.clone() })
}
