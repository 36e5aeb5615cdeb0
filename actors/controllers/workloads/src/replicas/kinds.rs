//! ReplicaSets and ReplicationControllers as one: what is wanted, and what they say of themselves.

use k3sd_client::informer::Kind;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

use super::core::{Failing, Status};
use crate::support::{Labels, Matcher};

/// The condition that says that pods can't be made or deleted.
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What keeps a number of pods up.
pub(super) trait Replicated:
    Kind + Serialize + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
{
    /// The group of its API, empty for the core's.
    const GROUP: &'static str;
    /// Its kind.
    const KIND: &'static str;
    /// Who acts for it, which is also the name of the service account.
    const COMPONENT: &'static str;
    /// The name of the actor.
    const ACTOR: &'static str;

    /// How many are wanted.
    fn wanted(&self) -> i32;
    /// Seconds that a pod has to be ready for.
    fn min_ready_seconds(&self) -> i32;
    /// Selects its pods.
    fn selector(&self) -> Matcher;
    /// What its pods are made from.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// What it says of itself, and up to which generation.
    fn status(&self) -> (Status, i64);
    /// The same with another status.
    fn with_status(&self, status: &Status) -> Self;
}

/// Labels of the template.
pub(super) fn template_labels(template: Option<&PodTemplateSpec>) -> Labels {
    let meta = template.and_then(|template| template.metadata.as_ref());
    meta.and_then(|meta| meta.labels.clone()).unwrap_or_default()
}

/// None of something isn't mentioned.
fn some(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

macro_rules! replicated {
    ($kind:ident, $status:ident, $condition:ident, $group:literal, $component:literal, $actor:literal $(, $unset:ident)?) => {
        impl Replicated for $kind {
            const GROUP: &'static str = $group;
            const KIND: &'static str = stringify!($kind);
            const COMPONENT: &'static str = $component;
            const ACTOR: &'static str = $actor;

            fn wanted(&self) -> i32 {
                self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0)
            }

            fn min_ready_seconds(&self) -> i32 {
                self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
            }

            fn selector(&self) -> Matcher {
                selector(self)
            }

            fn template(&self) -> Option<&PodTemplateSpec> {
                self.spec.as_ref()?.template.as_ref()
            }

            fn status(&self) -> (Status, i64) {
                let Some(status) = &self.status else { return Default::default() };
                let mut conditions = status.conditions.iter().flatten();
                let failing = conditions.find(|condition| condition.type_ == REPLICA_FAILURE).map(|found| Failing {
                    reason: found.reason.clone().unwrap_or_default(),
                    message: found.message.clone().unwrap_or_default(),
                    since: found.last_transition_time.as_ref().map(|time| time.0).unwrap_or_default(),
                });
                let counted = Status {
                    replicas: status.replicas,
                    fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                    ready: status.ready_replicas.unwrap_or(0),
                    available: status.available_replicas.unwrap_or(0),
                    failing,
                };
                (counted, status.observed_generation.unwrap_or(0))
            }

            fn with_status(&self, status: &Status) -> Self {
                let shown = self.status.as_ref().and_then(|status| status.conditions.clone());
                let mut conditions: Vec<$condition> = shown.unwrap_or_default();
                conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
                conditions.extend(status.failing.as_ref().map(|failing| $condition {
                    type_: REPLICA_FAILURE.to_owned(),
                    status: "True".to_owned(),
                    reason: Some(failing.reason.clone()),
                    message: Some(failing.message.clone()),
                    last_transition_time: Some(Time(failing.since)),
                }));
                let status = $status {
                    replicas: status.replicas,
                    fully_labeled_replicas: some(status.fully_labeled),
                    ready_replicas: some(status.ready),
                    available_replicas: some(status.available),
                    observed_generation: self.metadata.generation,
                    conditions: (!conditions.is_empty()).then_some(conditions),
                    $($unset: None,)?
                };
                Self { status: Some(status), ..self.clone() }
            }
        }
    };
}

replicated!(
    ReplicaSet,
    ReplicaSetStatus,
    ReplicaSetCondition,
    "apps",
    "replicaset-controller",
    "replicaset",
    terminating_replicas
);
replicated!(
    ReplicationController,
    ReplicationControllerStatus,
    ReplicationControllerCondition,
    "",
    "replication-controller",
    "replicationcontroller"
);

/// The one thing in which the two differ.
trait Selects {
    fn selects(&self) -> Matcher;
}

impl Selects for ReplicaSet {
    fn selects(&self) -> Matcher {
        self.spec.as_ref().map_or_else(Matcher::nothing, |spec| Matcher::new(&spec.selector))
    }
}

impl Selects for ReplicationController {
    fn selects(&self) -> Matcher {
        let selector = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = selector.filter(|labels| !labels.is_empty());
        selector.map_or_else(Matcher::nothing, Matcher::of_labels)
    }
}

fn selector(object: &impl Selects) -> Matcher {
    object.selects()
}
