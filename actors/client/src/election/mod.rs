//! Which of several processes acts: the one whose name stands in a `Lease`, by the rules that client-go plays.
//!
//! ```text
//!              nobody's, or unchanged for its time         not renewed in time, or somebody else's
//! waiting ───────────────────────────────▶ leading ──────────────────────────────▶ the actor fails
//!    ▲ a look every period, jittered         │  ▲ renewed every period                   │
//!    └───────── its supervisor starts it and those behind it again ────────────────────┘
//! ```
//!
//! Put the [`elector`] first under a `rest_for_one` supervisor, and have each of the others wait in [`Leading::lead`]
//! before it acts. When the lease is lost the elector fails, so the others are stopped and wait again. The process goes
//! on.

mod actor;
mod core;

use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::{ChildSpec, worker};
use tokio::sync::watch;

use self::actor::{Elector, ElectorArgs};
pub use self::core::Terms;
use crate::api::Connect;

/// How one of several processes comes to lead.
#[derive(Clone, Debug)]
pub struct Election {
    /// What the lease says of this process; no other has the same.
    pub identity: String,
    /// The times of the lease.
    pub terms: Terms,
}

/// What an elector is made of.
#[derive(Clone, Debug)]
pub struct ElectionArgs {
    /// Writes the lease.
    pub connect: Connect,
    /// Where the lease is.
    pub namespace: String,
    /// Its name: who has the same one, competes.
    pub name: String,
    /// Who this process is. Nobody else has it; the next life of the elector does, so that it goes on leading.
    pub identity: String,
    /// Times.
    pub terms: Terms,
}

impl ElectionArgs {
    /// With the times that upstream's controllers have.
    pub fn new(connect: Connect, namespace: &str, name: &str, identity: &str) -> Self {
        let (namespace, name, identity) = (namespace.to_owned(), name.to_owned(), identity.to_owned());
        Self { connect, namespace, name, identity, terms: Terms::default() }
    }
}

/// Whether this process leads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leading(watch::Receiver<bool>);

impl Leading {
    /// Leads when the sender says so.
    #[cfg(test)]
    pub(crate) fn when(leads: bool) -> (watch::Sender<bool>, Self) {
        let (place, leading) = watch::channel(leads);
        (place, Self(leading))
    }

    /// It is alone, and always leads.
    pub fn always() -> Self {
        Self(watch::channel(true).1)
    }

    /// Waits until this process leads.
    pub async fn lead(&mut self) {
        if self.0.wait_for(|leads| *leads).await.is_err() {
            // Nobody will ever say that it leads.
            std::future::pending::<()>().await;
        }
    }

    /// Whether this process leads now.
    pub fn leads(&self) -> bool {
        *self.0.borrow()
    }
}

/// Time to give the lease back when it is stopped: a few requests, each of which may meet a busy API.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// An elector: the actor, to stand before those who act, and what they wait for.
///
/// # Panics
/// When the times make no sense: a lease has to outlast the time that its renewal may take, and that time several
/// attempts.
pub fn elector(name: &str, args: ElectionArgs) -> (ChildSpec, Leading) {
    args.terms.check();
    let (place, leading) = watch::channel(false);
    let args = ElectorArgs { election: args, place: Arc::new(place) };
    let child = worker::<Elector>(name, args).shutdown(k3sd_runtime::Shutdown::Within(SHUTDOWN_LIMIT));
    (child, Leading(leading))
}
