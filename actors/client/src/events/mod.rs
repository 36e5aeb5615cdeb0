//! Events: what happened to an object, written down for people, as client-go does it.
//!
//! ```text
//! Recorder ─ bounded queue ─▶ correlate ─▶ create, or count one more ─▶ API
//!                              │
//!                              ├ the same again: its count grows
//!                              ├ many alike: one Event stands for them
//!                              └ too many about one object: dropped
//! ```
//!
//! There are two kinds. [`Recorder::normal`] and its like write what controllers write; [`Recorder::action`] writes what
//! the scheduler writes, which says what it was about to do and counts in series.
//!
//! An Event may be lost: when the queue is full, when the API is away for long, when the process ends. Nobody may depend
//! on one.

mod actor;
mod correlate;
mod lru;
mod series;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ChildSpec, worker};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use tokio::sync::mpsc;

use self::actor::{Writer, WriterArgs};
use crate::api::Connect;

/// Events that may wait on their way to the writer, and there: client-go's number. What comes then is lost, and counted.
const WAITING_MAX: usize = 1000;
/// The longest message, in bytes: what the API takes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Ends a message that was longer.
const CLIPPED: &str = " ...";
/// Who reports, unless somebody says otherwise.
const COMPONENT: &str = "k3sd";

/// What happened, on its way.
#[derive(Clone, Debug)]
struct Happened {
    component: &'static str,
    host: Arc<str>,
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    action: Option<Action>,
}

/// What only Events of the newer kind say.
#[derive(Clone, Debug)]
struct Action {
    name: String,
    related: Option<ObjectReference>,
}

/// The way to whoever writes Events. Cheap to clone; never waits and never fails: an Event may be lost.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Happened>,
    lost: Arc<AtomicU64>,
    component: &'static str,
    host: Arc<str>,
}

impl Recorder {
    /// The same, speaking for this component, such as `deployment-controller`.
    #[must_use]
    pub fn component(&self, component: &'static str) -> Self {
        Self { component, ..self.clone() }
    }

    /// The same, speaking from this host. Controllers of a cluster name none; whoever acts for a node does, and the
    /// scheduler.
    #[must_use]
    pub fn host(&self, host: &str) -> Self {
        Self { host: host.into(), ..self.clone() }
    }

    /// What was to be expected.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.about(reference(about), "Normal", reason, message);
    }

    /// What somebody should look at.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.about(reference(about), "Warning", reason, message);
    }

    /// About whatever the reference names; `kind` is `Normal` or `Warning`.
    pub fn about(&self, about: ObjectReference, kind: &'static str, reason: &str, message: impl Into<String>) {
        self.send(about, kind, reason, message.into(), None);
    }

    /// An Event of the newer kind (`events.k8s.io`): what was done, or tried, and to what else. `kind` is `Normal` or
    /// `Warning`.
    pub fn action(
        &self,
        about: ObjectReference,
        related: Option<ObjectReference>,
        (kind, reason): (&'static str, &str),
        action: &str,
        message: impl Into<String>,
    ) {
        let action = Action { name: action.to_owned(), related };
        self.send(about, kind, reason, message.into(), Some(action));
    }

    /// How many Events were lost because too many waited.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    fn send(&self, about: ObjectReference, kind: &'static str, reason: &str, message: String, action: Option<Action>) {
        let (component, host, reason) = (self.component, self.host.clone(), reason.to_owned());
        let message = clip(message);
        let happened = Happened { component, host, about, kind, reason, message, action };
        if self.queue.try_send(happened).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Names an object in the state that somebody looked at.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let resource_version = object.meta().resource_version.clone();
    ObjectReference { resource_version, ..object.object_ref(&()) }
}

/// A writer of Events: the actor, and the way to it.
pub fn recorder(name: &str, connect: Connect) -> (ChildSpec, Recorder) {
    let (queue, waiting) = mpsc::channel(WAITING_MAX);
    let lost = Arc::<AtomicU64>::default();
    let args = WriterArgs { connect, waiting: Lend::new(waiting), lost: lost.clone() };
    (worker::<Writer>(name, args), Recorder { queue, lost, component: COMPONENT, host: "".into() })
}

/// Shortens a message to what the API takes, between two characters.
fn clip(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX - CLIPPED.len()));
        message.push_str(CLIPPED);
    }
    message
}

/// Where Events about an object are: those of the cluster are in `default`.
fn namespace_of(about: &ObjectReference) -> &str {
    about.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}
