//! `endpointslice`: keeps the EndpointSlices of the Services that select pods.
//!
//! Owns:    the slices that are labelled as its own.
//! Needs:   Services, pods, nodes and slices to look at.
//! Restart: permanent. It looks at every Service again.
//! Fails:   never as a whole; a Service whose slices can't be written is tried again.

pub(crate) mod desired;
mod hints;
mod pack;
mod plan;
mod spread;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k3sd_client::controller::fan_out::each;
use k3sd_client::controller::indexes::{BY_NODE, by_node};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Index, Informer, Kind, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use self::desired::{MANAGED_BY, MANAGER, SERVICE, ZONE};
use self::hints::{aspect, is_auto, shares};
use self::plan::{Observed, Plan};
use crate::members::{get, is_going, memberships, same_name, selected, selector, selects};

/// Who says what happened.
const COMPONENT: &str = "endpoint-slice-controller";
const FAILED: &str = "FailedToUpdateEndpointSlices";

/// Finds slices by the key of their Service.
pub(crate) const BY_SERVICE: &str = "service";

/// See [`BY_SERVICE`].
pub(crate) fn by_service() -> Index<EndpointSlice> {
    let texts = |slice: &EndpointSlice| {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        name.map(|name| format!("{namespace}/{name}")).into_iter().collect()
    };
    Index { name: BY_SERVICE, texts }
}

struct EndpointSlices {
    api: kube::Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let controller = EndpointSlices {
        api: setup.connect("endpointslice-controller").client(),
        services: setup.informers.informer(),
        pods: setup.informers.indexed(vec![by_node()]),
        nodes: setup.informers.informer(),
        slices: setup.informers.indexed(vec![by_service()]),
        recorder: setup.recorder.component(COMPONENT),
    };
    let (services, pods) = (controller.services.clone(), controller.pods.clone());
    let (nodes, slices) = (controller.nodes.clone(), controller.slices.clone());
    let quarantine = controller.services.clone();
    let members = services.clone();
    let on_node = (services.clone(), pods.clone());
    Loop::new(controller, setup.leading.clone())
        .watch(&services, same_name)
        .watch(&pods, move |old, new, keys| memberships(&members, old, new, keys))
        .watch(&slices, slice_changed)
        .watch(&nodes, move |old, new, keys| node_changed(&on_node.0, &on_node.1, old, new, keys))
        .quarantine(setup.recorder.component(COMPONENT), move |key| reference(&quarantine, key))
        .child("endpointslice")
}

/// What an Event about the object of a key refers to.
pub(crate) fn reference<K: Kind>(
    informer: &Informer<K>,
    key: &ObjectKey,
) -> Option<k8s_openapi::api::core::v1::ObjectReference> {
    Some(get(&informer.snapshot(), key)?.object_ref(&()))
}

fn slice_changed(old: Option<&EndpointSlice>, new: Option<&EndpointSlice>, keys: &mut Vec<ObjectKey>) {
    keys.extend([old, new].into_iter().flatten().filter_map(|slice| service_of(slice, MANAGER)));
    keys.dedup();
}

/// The key of the Service whose slice it is, if such a controller keeps it.
pub(crate) fn service_of(slice: &EndpointSlice, manager: &str) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let name = labels.get(SERVICE).filter(|name| !name.is_empty())?.clone();
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    (labels.get(MANAGED_BY).map(String::as_str) == Some(manager)).then_some(ObjectKey { namespace, name })
}

/// The Services of the pods of a node that came, went or moved; and those that spread by zones, when shares change.
fn node_changed(
    services: &Informer<Service>,
    pods: &Informer<Pod>,
    old: Option<&Node>,
    new: Option<&Node>,
    keys: &mut Vec<ObjectKey>,
) {
    let (Some(services), Some(pods), Some(node)) = (services.snapshot(), pods.snapshot(), new.or(old)) else { return };
    let zone = |node: &Node| node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE).cloned());
    if old.is_none() != new.is_none() || old.map(zone) != new.map(zone) {
        for pod in pods.by(BY_NODE, node.metadata.name.as_deref().unwrap_or_default()) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let of_pod = services.of_namespace(namespace);
            let of_pod = of_pod.filter(|service| selects(service, pod.metadata.labels.as_ref()));
            keys.extend(of_pod.map(|service| ObjectKey::of(&**service)));
        }
    }
    if old.and_then(aspect) != new.and_then(aspect) {
        keys.extend(services.iter().filter(|service| is_auto(service)).map(|service| ObjectKey::of(&**service)));
    }
}

impl Controller for EndpointSlices {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (services, pods) = (self.services.snapshot(), self.pods.snapshot());
        let (nodes, slices) = (self.nodes.snapshot(), self.slices.snapshot());
        let (Some(pods), Some(nodes), Some(slices)) = (pods, nodes, slices) else { return Ok(()) };
        // The slices of a Service that is gone are the garbage collector's.
        let Some(service) = get(&services, key).filter(|service| selector(service).is_some()) else { return Ok(()) };
        let text = key.to_string();
        let of_service = slices
            .by(BY_SERVICE, &text)
            .filter(|slice| service_of(slice, MANAGER).is_some() && slice.metadata.deletion_timestamp.is_none());
        let plan = Observed {
            service,
            pods: selected(&pods, service).collect(),
            node: |name: &str| nodes.get("", name).map(|node| &**node),
            shares: if is_auto(service) { shares(nodes.iter().map(|node| &**node)) } else { None },
            slices: of_service.cloned().collect(),
        }
        .plan();
        for said in &plan.events {
            if said.is_warning {
                self.recorder.warning(&**service, said.reason, &said.message);
            } else {
                self.recorder.normal(&**service, said.reason, &said.message);
            }
        }
        match write(&Api::namespaced(self.api.clone(), &key.namespace), plan, &self.slices, turn).await {
            Err(failure) if is_going(&failure) => Ok(()),
            Err(failure) if failure.is_stale() => Err(failure),
            Err(failure) => {
                let message = format!("Error updating Endpoint Slices for Service {key}: {}", failure.chain());
                self.recorder.warning(&**service, FAILED, message);
                Err(failure)
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Carries a plan out: creates, then updates, then deletes, each kind side by side.
async fn write(
    api: &Api<EndpointSlice>,
    plan: Plan,
    slices: &Informer<EndpointSlice>,
    turn: &mut Turn,
) -> Result<(), Failure> {
    write_all(api, plan.create, plan.update, plan.delete, slices, turn).await
}

/// See [`write`].
pub(crate) async fn write_all(
    api: &Api<EndpointSlice>,
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
    slices: &Informer<EndpointSlice>,
    turn: &mut Turn,
) -> Result<(), Failure> {
    let params = PostParams::default();
    let params = &params;
    let (created, failed) = each(create, async |slice| Ok(api.create(params, &slice).await?)).await;
    created.iter().for_each(|slice| turn.wrote(slices, slice));
    failed.map_or(Ok(()), Err)?;
    let replace = async |slice: EndpointSlice| {
        let name = slice.metadata.name.clone().unwrap_or_default();
        Ok(api.replace(&name, params, &slice).await?)
    };
    let (updated, failed) = each(update, replace).await;
    updated.iter().for_each(|slice| turn.wrote(slices, slice));
    failed.map_or(Ok(()), Err)?;
    let remove = async |slice: Arc<EndpointSlice>| {
        let uid = slice.metadata.uid.clone();
        let params = DeleteParams::default().preconditions(Preconditions { uid, ..Preconditions::default() });
        match api.delete(slice.metadata.name.as_deref().unwrap_or_default(), &params).await.map_err(Failure::from) {
            Err(failure) if !failure.is_stale() => Err(failure),
            _ => Ok(slice),
        }
    };
    let (deleted, failed) = each(delete, remove).await;
    deleted.iter().for_each(|slice| turn.deleted(slices, &**slice));
    failed.map_or(Ok(()), Err)
}
