//! `endpoint`: keeps the Endpoints of the Services that select pods, for clients that know nothing newer.
//!
//! Owns:    the Endpoints of each Service with a selector.
//! Needs:   Services, pods and Endpoints to look at.
//! Restart: permanent. It looks at every Service again, and at Endpoints that it made for Services that are gone.
//! Fails:   never as a whole; a Service whose Endpoints can't be written is tried again.

mod core;
#[cfg(test)]
mod tests;

use std::fmt;

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use self::core::{Write, is_ours, plan};
use crate::members::{LEADER, get, is_going, memberships, selected, selector};
use crate::slices::reference;

/// Who says what happened.
const COMPONENT: &str = "endpoint-controller";

struct EndpointsController {
    api: kube::Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    recorder: Recorder,
}

/// A Service to look at, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    service: ObjectKey,
    /// It was seen to go: its Endpoints go as well, whoever made them.
    is_gone: bool,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)
    }
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let controller = EndpointsController {
        api: setup.connect("endpoint-controller").client(),
        services: setup.informers.informer(),
        pods: setup.informers.informer(),
        endpoints: setup.informers.informer(),
        recorder: setup.recorder.component(COMPONENT),
    };
    let (services, pods, endpoints) =
        (controller.services.clone(), controller.pods.clone(), controller.endpoints.clone());
    let (members, quarantine) = (services.clone(), services.clone());
    Loop::new(controller, setup.leading.clone())
        .watch(&services, |old, new, keys| {
            let service = new.or(old).map(ObjectKey::of);
            keys.extend(service.map(|service| Key { service, is_gone: new.is_none() }));
        })
        .watch(&pods, move |old, new, keys| {
            let mut services = Vec::new();
            memberships(&members, old, new, &mut services);
            keys.extend(services.into_iter().map(|service| Key { service, is_gone: false }));
        })
        .watch(&endpoints, |old, new, keys| {
            let service = new.or(old).map(ObjectKey::of);
            keys.extend(service.map(|service| Key { service, is_gone: false }));
        })
        .quarantine(setup.recorder.component(COMPONENT), move |key| reference(&quarantine, &key.service))
        .child("endpoint")
}

impl Controller for EndpointsController {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        let (services, endpoints) = (self.services.snapshot(), self.endpoints.snapshot());
        let Some(pods) = self.pods.snapshot() else { return Ok(()) };
        let known = get(&endpoints, &key.service);
        let api: Api<Endpoints> = Api::namespaced(self.api.clone(), &key.service.namespace);
        let Some(service) = get(&services, &key.service) else {
            let is_lock = |known: &Endpoints| {
                known.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER))
            };
            return match known.filter(|known| !is_lock(known) && (key.is_gone || is_ours(known))) {
                Some(known) => self.remove(&api, known, turn).await,
                None => Ok(()),
            };
        };
        if selector(service).is_none() {
            return Ok(());
        }
        let write = plan(service, selected(&pods, service), known.map(|known| &**known));
        let (written, reason, message) = match write {
            None => return Ok(()),
            Some(Write::Create(wanted)) if service.metadata.deletion_timestamp.is_none() => (
                api.create(&PostParams::default(), &wanted).await.map_err(|error| (wanted, error)),
                "FailedToCreateEndpoint",
                format!("Failed to create endpoint for service {}", key.service),
            ),
            Some(Write::Create(_)) => return Ok(()),
            Some(Write::Update(wanted)) => (
                api.replace(&key.service.name, &PostParams::default(), &wanted).await.map_err(|error| (wanted, error)),
                "FailedToUpdateEndpoint",
                format!("Failed to update endpoint {}", key.service),
            ),
        };
        match written {
            Ok(written) => turn.wrote(&self.endpoints, &written),
            Err((wanted, error)) => {
                let failure = Failure::from(error);
                if is_going(&failure) {
                    return Ok(());
                }
                if !failure.is_stale() {
                    self.recorder.warning(&wanted, reason, format!("{message}: {}", failure.chain()));
                }
                return Err(failure);
            }
        }
        Ok(())
    }
}

impl EndpointsController {
    async fn remove(&self, api: &Api<Endpoints>, known: &Endpoints, turn: &mut Turn) -> Result<(), Failure> {
        let uid = known.metadata.uid.clone();
        let params = DeleteParams::default().preconditions(Preconditions { uid, ..Preconditions::default() });
        match api.delete(known.metadata.name.as_deref().unwrap_or_default(), &params).await.map_err(Failure::from) {
            Err(failure) if !failure.is_stale() => return Err(failure),
            _ => turn.deleted(&self.endpoints, known),
        }
        Ok(())
    }
}
