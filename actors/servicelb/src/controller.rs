//! `service-lb`: gives Services the addresses of nodes.
//!
//! Owns:    `status.loadBalancer` and a finalizer of Services that want a load balancer.
//! Needs:   Services, nodes, pods and slices to look at.
//! Restart: permanent. It looks at every Service again, and writes only what is another.
//! Fails:   never as a whole; a Service that can't be written is tried again.

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, key_of};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Index, Informer, Kind, ObjectKey, Snapshot};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::ServiceLbConfig;
use crate::plan::{World, host_ports, is_going, is_local, nodes_of, wants};
use crate::status::{addresses, entries, present, told};
use crate::tolerations;

/// The user that stands for a cloud, as K3s names it.
pub(crate) const USER: &str = "k3s-cloud-controller-manager";
/// Who says what happened.
pub(crate) const COMPONENT: &str = "service-controller";
/// Keeps a Service until its addresses are given back.
const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Slices say whose they are.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Finds pods that have ports of nodes, under an empty text.
const WITH_PORTS: &str = "host-ports";
/// Finds slices by namespace and Service.
const OF_SERVICE: &str = "lb-service";

struct ServiceLb {
    client: kube::Client,
    services: Informer<Service>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
    rootless: bool,
}

fn slice_texts(slice: &EndpointSlice) -> Vec<String> {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL));
    name.map(|name| format!("{namespace}/{name}")).into_iter().collect()
}

fn port_texts(pod: &Pod) -> Vec<String> {
    if host_ports(pod).next().is_some() { vec![String::new()] } else { Vec::new() }
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>, config: &ServiceLbConfig) -> ChildSpec {
    let controller = ServiceLb {
        client: setup.identities.user(USER, &[]).client(),
        services: setup.informers.informer(),
        nodes: setup.informers.informer(),
        pods: setup.informers.indexed(vec![Index { name: WITH_PORTS, texts: port_texts }]),
        slices: setup.informers.indexed(vec![Index { name: OF_SERVICE, texts: slice_texts }]),
        recorder: setup.recorder.component(COMPONENT),
        rootless: config.rootless,
    };
    let (services, nodes) = (controller.services.clone(), controller.nodes.clone());
    let (pods, slices) = (controller.pods.clone(), controller.slices.clone());
    let balanced = services.clone();
    let all = move |keys: &mut Vec<ObjectKey>| {
        let shown = balanced.snapshot();
        keys.extend(shown.iter().flat_map(|all| all.iter()).filter(|one| wants(one)).map(|one| key_of(&**one)));
    };
    let (for_nodes, for_pods) = (all.clone(), all.clone());
    Loop::new(controller, setup.leading.clone())
        .watch(&services, move |old, new, keys| {
            keys.extend(new.or(old).map(key_of));
            // Others may have its ports now, or lose them.
            if [old, new].into_iter().flatten().any(wants) && !same_wishes(old, new) {
                all(keys);
            }
        })
        .watch(&nodes, move |old, new, keys| {
            if !same_node(old, new) {
                for_nodes(keys);
            }
        })
        .watch(&pods, move |old, new, keys| {
            let ports = |pod: Option<&Pod>| -> BTreeSet<_> {
                let node = pod.map(k3sd_client::controller::pods::node).unwrap_or_default();
                pod.into_iter().flat_map(host_ports).map(|port| (node.to_owned(), port)).collect()
            };
            if ports(old) != ports(new) {
                for_pods(keys);
            }
        })
        .watch(&slices, |old, new, keys| {
            let Some(slice) = new.or(old) else { return };
            let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL)).cloned();
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            keys.extend(name.map(|name| ObjectKey { namespace, name }));
        })
        .child("service-lb")
}

/// Whether a Service takes the same ports of the same nodes as before.
fn same_wishes(old: Option<&Service>, new: Option<&Service>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
        && is_going(old) == is_going(new)
}

/// Whether nothing changed of a node that counts here.
fn same_node(old: Option<&Node>, new: Option<&Node>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    let of = |node: &Node| {
        let status = node.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status);
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        (ready, status.addresses, node.metadata.labels.clone(), taints)
    };
    of(old) == of(new)
}

fn all<K: Kind>(snapshot: &Snapshot<K>) -> Vec<&K> {
    snapshot.iter().map(|object| &**object).collect()
}

impl Controller for ServiceLb {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let Some(services) = self.services.snapshot() else { return Ok(()) };
        let Some(service) = services.get(&key.namespace, &key.name) else { return Ok(()) };
        let service = service.clone();
        if !wants(&service) || is_going(&service) {
            return self.clean_up(&service, turn).await;
        }
        let wanted = match self.wanted(&services, &service) {
            Some(wanted) => wanted,
            None => return Ok(()),
        };
        let is_new = !has_finalizer(&service);
        let service = if is_new { self.claim(&service, turn).await? } else { service };
        if let Err(why) = tolerations::wanted(&service)
            && is_new
        {
            self.recorder.warning(&*service, "SyncLoadBalancerFailed", why);
        }
        let before = present(&service);
        let after = entries(&wanted);
        if told(before) == told(&after) {
            if is_new && after.is_empty() {
                self.unavailable(&service);
            }
            return Ok(());
        }
        let status =
            json!({ "metadata": { "uid": service.metadata.uid }, "status": { "loadBalancer": { "ingress": after } } });
        let written = self.patch(&service, Some("status"), &status).await?;
        turn.wrote(&self.services, &written);
        if after.is_empty() {
            self.unavailable(&service);
        } else {
            let message = format!("Updated LoadBalancer with new IPs: {} -> {}", told(before), told(&after));
            self.recorder.normal(&*service, "UpdatedLoadBalancer", message);
        }
        Ok(())
    }
}

fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

impl ServiceLb {
    /// The addresses that a Service is to have; `None` while not everything is known.
    fn wanted(&self, services: &Snapshot<Service>, service: &Service) -> Option<Vec<String>> {
        let (nodes, pods, slices) = (self.nodes.snapshot()?, self.pods.snapshot()?, self.slices.snapshot()?);
        let with_ports: Vec<&Pod> = pods.by(WITH_PORTS, "").map(|pod| &**pod).collect();
        let (services, nodes) = (all(services), all(&nodes));
        let world = World { services: &services, nodes: &nodes, pods: &with_ports };
        let mut chosen = nodes_of(service, &world);
        if is_local(service) {
            let text = key_of(service).to_string();
            let ready = ready_nodes(slices.by(OF_SERVICE, &text));
            chosen.retain(|node| node.metadata.name.as_ref().is_some_and(|name| ready.contains(name)));
        }
        Some(addresses(service, &chosen, self.rootless))
    }

    fn unavailable(&self, service: &Service) {
        self.recorder.warning(service, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer");
    }

    async fn patch(
        &self,
        service: &Service,
        subresource: Option<&str>,
        change: &serde_json::Value,
    ) -> Result<Service, Failure> {
        let key = key_of(service);
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(change));
        let written = match subresource {
            Some(_) => api.patch_status(&key.name, &params, &patch).await,
            None => api.patch(&key.name, &params, &patch).await,
        };
        written.map_err(Failure::from)
    }

    /// Keeps a Service until its addresses are given back.
    async fn claim(&self, service: &Service, turn: &mut Turn) -> Result<Arc<Service>, Failure> {
        self.recorder.normal(service, "EnsuringLoadBalancer", "Ensuring load balancer");
        let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
        finalizers.push(FINALIZER.to_owned());
        let version = &service.metadata.resource_version;
        let change = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
        let written = self.patch(service, None, &change).await?;
        turn.wrote(&self.services, &written);
        Ok(Arc::new(written))
    }

    /// Gives back the addresses of a Service that doesn't want them any more.
    async fn clean_up(&self, service: &Service, turn: &mut Turn) -> Result<(), Failure> {
        let is_others = service.spec.as_ref().is_some_and(|spec| {
            spec.type_.as_deref() == Some("LoadBalancer")
                && !spec.load_balancer_class.as_deref().unwrap_or_default().is_empty()
        });
        if !has_finalizer(service) || is_others {
            return Ok(());
        }
        let mut version = service.metadata.resource_version.clone();
        if !present(service).is_empty() {
            self.recorder.normal(service, "DeletingLoadBalancer", "Deleting load balancer");
            let none = json!({ "metadata": { "uid": service.metadata.uid }, "status": { "loadBalancer": null } });
            match self.patch(service, Some("status"), &none).await {
                Ok(written) => version = written.metadata.resource_version,
                Err(failure) if failure.code() == Some(404) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
        let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        let change = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
        match self.patch(service, None, &change).await {
            Ok(written) => turn.wrote(&self.services, &written),
            Err(failure) if failure.code() == Some(404) => return Ok(()),
            Err(failure) => return Err(failure),
        }
        self.recorder.normal(service, "DeletedLoadBalancer", "Deleted load balancer");
        Ok(())
    }
}

/// The nodes that have a ready pod of a Service.
fn ready_nodes<'a>(slices: impl Iterator<Item = &'a Arc<EndpointSlice>>) -> BTreeSet<String> {
    let mut ready = BTreeSet::new();
    for endpoint in slices.flat_map(|slice| &slice.endpoints) {
        let is_pod = endpoint.target_ref.as_ref().is_some_and(|target| target.kind.as_deref() == Some("Pod"));
        let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true);
        if is_pod && is_ready {
            ready.extend(endpoint.node_name.clone());
        }
    }
    ready
}
