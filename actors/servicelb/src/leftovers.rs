//! `service-lb-leftovers`: removes what K3s made for load balancers: DaemonSets, and a finalizer of old versions.
//!
//! Owns:    DaemonSets with the label below, which nobody else makes.
//! Needs:   DaemonSets and Services to look at.
//! Restart: permanent. It looks at all of them again.
//! Fails:   never as a whole.

use std::fmt;

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, key_of};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use crate::ServiceLbConfig;
use crate::controller::{COMPONENT, USER};

/// K3s's DaemonSets have it, whatever its value is.
const LABEL: &str = "svccontroller.k3s.cattle.io/nodeselector";
/// For which Service one of them is.
const SERVICE_NAME: &str = "svccontroller.k3s.cattle.io/svcname";
const SERVICE_NAMESPACE: &str = "svccontroller.k3s.cattle.io/svcnamespace";
/// What K3s put on Services before it had a cloud's controllers.
const OLD_FINALIZER: &str = "svccontroller.k3s.cattle.io/daemonset";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    DaemonSet(ObjectKey),
    Service(ObjectKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DaemonSet(key) => write!(f, "DaemonSet {key}"),
            Self::Service(key) => write!(f, "Service {key}"),
        }
    }
}

struct Leftovers {
    client: kube::Client,
    sets: Informer<DaemonSet>,
    services: Informer<Service>,
    recorder: Recorder,
    namespace: String,
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>, config: &ServiceLbConfig) -> ChildSpec {
    let controller = Leftovers {
        client: setup.identities.user(USER, &[]).client(),
        sets: setup.informers.informer(),
        services: setup.informers.informer(),
        recorder: setup.recorder.component(COMPONENT),
        namespace: config.namespace.clone(),
    };
    let (sets, services) = (controller.sets.clone(), controller.services.clone());
    let namespace = config.namespace.clone();
    Loop::new(controller, setup.leading.clone())
        .watch(&sets, move |_, new, keys| {
            let left = new.filter(|set| is_left(set, &namespace));
            keys.extend(left.map(|set| Key::DaemonSet(key_of(set))));
        })
        .watch(&services, |_, new, keys| {
            let left = new.filter(|service| has_old_finalizer(service));
            keys.extend(left.map(|service| Key::Service(key_of(service))));
        })
        .child("service-lb-leftovers")
}

fn is_left(set: &DaemonSet, namespace: &str) -> bool {
    let meta = &set.metadata;
    meta.namespace.as_deref() == Some(namespace)
        && meta.deletion_timestamp.is_none()
        && meta.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL))
}

fn has_old_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == OLD_FINALIZER)
}

impl Controller for Leftovers {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        match key {
            Key::DaemonSet(key) => self.set(key, turn).await,
            Key::Service(key) => self.service(key, turn).await,
        }
    }
}

impl Leftovers {
    async fn set(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let sets = self.sets.snapshot();
        let found = sets.as_ref().and_then(|sets| sets.get(&key.namespace, &key.name));
        let Some(set) = found.filter(|set| is_left(set, &self.namespace)) else { return Ok(()) };
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let uid = set.metadata.uid.clone();
        let params = DeleteParams::background().preconditions(Preconditions { uid, ..Preconditions::default() });
        match api.delete(&key.name, &params).await.map_err(Failure::from) {
            Err(failure) if !failure.is_stale() => return Err(failure),
            _ => turn.deleted(&self.sets, set),
        }
        let label = |name: &str| set.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
        let (namespace, name) = (label(SERVICE_NAMESPACE).unwrap_or_default(), label(SERVICE_NAME).unwrap_or_default());
        let services = self.services.snapshot();
        if let Some(service) = services.as_ref().and_then(|services| services.get(&namespace, &name)) {
            let message = format!("Deleted LoadBalancer DaemonSet {key}");
            self.recorder.normal(&**service, "DeletedDaemonSet", message);
        }
        Ok(())
    }

    async fn service(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let services = self.services.snapshot();
        let found = services.as_ref().and_then(|services| services.get(&key.namespace, &key.name));
        let Some(service) = found.filter(|service| has_old_finalizer(service)) else { return Ok(()) };
        let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != OLD_FINALIZER);
        let version = &service.metadata.resource_version;
        let change = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(change)).await.map_err(Failure::from) {
            Ok(written) => turn.wrote(&self.services, &written),
            Err(failure) if failure.code() == Some(404) => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}
