//! Events: what happened to an object, written down for people.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use tokio::sync::mpsc;

/// What happened, on its way.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub(crate) component: &'static str,
    pub(crate) about: ObjectReference,
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The way to whoever writes Events. Cheap to clone; never waits and never fails: an Event may be lost.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Happened>,
    component: &'static str,
}

impl Recorder {
    /// The same, speaking for this component.
    #[must_use]
    pub fn component(&self, component: &'static str) -> Self {
        Self { component, ..self.clone() }
    }

    /// What was to be expected.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.about(about.object_ref(&()), "Normal", reason, message);
    }

    /// What somebody should look at.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.about(about.object_ref(&()), "Warning", reason, message);
    }

    /// About whatever the reference names; `kind` is `Normal` or `Warning`.
    pub fn about(&self, about: ObjectReference, kind: &'static str, reason: &str, message: impl Into<String>) {
        let (reason, message) = (reason.to_owned(), message.into());
        let happened = Happened { component: self.component, about, kind, reason, message };
        // A full queue means that nobody could read so many anyway.
        _ = self.queue.try_send(happened);
    }
}
