//! Deletes what is in a namespace that goes: pods first, then everything else, and then the namespace.

pub mod core;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus, ObjectReference, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};

use self::core::{Remains, conditions, discovery_failure, others_wait, pod_grace};
use crate::resources::{Resource, Resources};

/// Namespaces that are looked at side by side; upstream's number.
const WORKERS: usize = 10;
/// Resources of one namespace that are asked to go side by side.
const RESOURCES_AT_ONCE: usize = 4;
/// Objects in a page of a list.
const PAGE_OBJECTS: u32 = 500;
/// What keeps a namespace until its content is gone.
const FINALIZER: &str = "kubernetes";

/// See the module's page.
struct Namespaces {
    api: kube::Client,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
    has_others: bool,
}

/// The loop.
pub fn deleter(setup: &mut Setup<'_>) -> ChildSpec {
    let api = setup.connect("namespace-controller").client();
    let (namespaces, pods) = (setup.informers.informer::<Namespace>(), setup.informers.informer::<Pod>());
    let (all, left) = (namespaces.clone(), pods.clone());
    let has_others = setup.config.has_other_servers;
    let controller = Namespaces { api, namespaces: namespaces.clone(), pods: pods.clone(), has_others };
    let recorder = setup.recorder.component("namespace-controller");
    Loop::new(controller, setup.leading.clone())
        .watch(&namespaces, |_, new, keys| {
            keys.extend(new.filter(|new| new.metadata.deletion_timestamp.is_some()).map(ObjectKey::of));
        })
        // When the last pod is gone, the rest can go.
        .watch(&pods, move |old, new, keys| {
            let (Some(old), None) = (old, new) else { return };
            let name = old.metadata.namespace.as_deref().unwrap_or_default();
            let goes = |all: Arc<k3sd_client::informer::Snapshot<Namespace>>| {
                all.get("", name).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
            };
            if all.snapshot().is_some_and(goes)
                && left.snapshot().is_some_and(|left| left.of_namespace(name).next().is_none())
            {
                keys.push(ObjectKey { namespace: String::new(), name: name.to_owned() });
            }
        })
        .workers(WORKERS)
        .quarantine(recorder, |key| {
            Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Namespace".to_owned()),
                name: Some(key.name.clone()),
                ..ObjectReference::default()
            })
        })
        .child("namespace")
}

impl Controller for Namespaces {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.namespaces.snapshot().and_then(|all| all.get("", &key.name).cloned());
        if shown.is_none_or(|shown| shown.metadata.deletion_timestamp.is_none()) {
            return Ok(());
        }
        let api: Api<Namespace> = Api::all(self.api.clone());
        let Some(mut namespace) = api.get_opt(&key.name).await? else { return Ok(()) };
        let Some(deleted_at) = namespace.metadata.deletion_timestamp.clone() else { return Ok(()) };
        if let Some(wait) = others_wait(deleted_at.0, turn.now()).filter(|_| self.has_others) {
            turn.again(wait);
            return Ok(());
        }
        if namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating") {
            namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
            namespace = api.replace_status(&key.name, &PostParams::default(), &namespace).await?;
        }
        if namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref()).is_none_or(Vec::is_empty) {
            return Ok(());
        }
        let pods = self.pods.snapshot();
        let pods = pods.iter().flat_map(|pods| pods.of_namespace(&key.name)).map(|pod| &**pod);
        let grace = pod_grace(pods, deleted_at.0, turn.now());
        let remains = self.empty(&key.name, grace).await;
        let status = namespace.status.get_or_insert_default();
        if let Some(conditions) = conditions(status.conditions.as_deref().unwrap_or_default(), &remains, turn.now()) {
            namespace.status = Some(NamespaceStatus { conditions: Some(conditions), ..status.clone() });
            namespace = api.replace_status(&key.name, &PostParams::default(), &namespace).await?;
        }
        if let Some(failure) = remains.failure() {
            return Err(Failure::other(failure));
        }
        if remains.estimate > 0 {
            turn.again(Duration::from_secs(remains.estimate.unsigned_abs() / 2 + 1));
            return Ok(());
        }
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        match api.replace_subresource::<Namespace>("finalize", &key.name, &PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

impl Namespaces {
    /// Asks everything in a namespace to go. While there are pods, only these.
    async fn empty(&self, namespace: &str, pod_grace: i64) -> Remains {
        let mut remains = Remains::default();
        let resources = match Resources::discover(&self.api).await {
            Ok(found) => {
                remains.discovery = discovery_failure(&found.missing);
                found
            }
            Err(error) => {
                remains.discovery = Some(error.to_string());
                Resources::default()
            }
        };
        let is_pods = |resource: &&Arc<Resource>| resource.api.group.is_empty() && resource.api.plural == "pods";
        let deletable = || resources.all.iter().filter(|resource| resource.namespaced && resource.can(&["delete"]));
        for pods in deletable().filter(is_pods) {
            match self.clear(pods, namespace).await {
                Ok(left) => remains.count(("pods", ""), pod_grace, namespace, &left, &pods.api.version),
                Err(error) => {
                    remains.failures.push(format!("failed to delete pods for namespace: {namespace}, err: {error}"));
                }
            }
        }
        if !remains.content.is_empty() {
            return remains;
        }
        let others: Vec<Arc<Resource>> = deletable().filter(|resource| !is_pods(resource)).cloned().collect();
        let mut cleared = Vec::new();
        for resource in others {
            cleared.push(async move {
                let outcome = self.clear(&resource, namespace).await;
                (resource, outcome)
            });
        }
        let cleared: Vec<_> = futures_util::stream::iter(cleared).buffer_unordered(RESOURCES_AT_ONCE).collect().await;
        for (resource, outcome) in cleared {
            match outcome {
                Ok(left) => {
                    let name = (resource.api.plural.as_str(), resource.api.group.as_str());
                    remains.count(name, 0, namespace, &left, &resource.api.version);
                }
                Err(error) => remains.failures.push(error.to_string()),
            }
        }
        remains
    }

    /// Asks all objects of a resource to go. Those that are left, by their finalizers.
    async fn clear(&self, resource: &Resource, namespace: &str) -> kube::Result<Vec<Vec<String>>> {
        let api = resource.at(&self.api, namespace);
        let background = DeleteParams::background();
        if resource.can(&["deletecollection"]) {
            if let Err(error) = api.delete_collection(&background, &ListParams::default()).await
                && !is_unsupported(&error)
            {
                return Err(error);
            }
        } else if resource.can(&["list"]) {
            for (name, _) in list(&api).await? {
                match api.delete(&name, &background).await {
                    Err(error) if !is_unsupported(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        if !resource.can(&["list"]) {
            return Ok(Vec::new());
        }
        Ok(list(&api).await?.into_iter().map(|(_, finalizers)| finalizers).collect())
    }
}

/// Names and finalizers of all objects.
async fn list(api: &Api<kube::api::DynamicObject>) -> kube::Result<Vec<(String, Vec<String>)>> {
    let mut params = ListParams { limit: Some(PAGE_OBJECTS), ..ListParams::default() };
    let mut found = Vec::new();
    loop {
        let page = match api.list_metadata(&params).await {
            Err(error) if is_unsupported(&error) => return Ok(found),
            page => page?,
        };
        found.extend(page.items.into_iter().map(|object| {
            let meta = object.metadata;
            (meta.name.unwrap_or_default(), meta.finalizers.unwrap_or_default())
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

/// Whether the resource, or this way to it, isn't served (any more).
fn is_unsupported(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 405))
}
