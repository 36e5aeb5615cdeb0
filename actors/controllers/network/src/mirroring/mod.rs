//! `endpointslicemirroring`: writes Endpoints that somebody made by hand into EndpointSlices.
//!
//! Owns:    the slices that are labelled as its own.
//! Needs:   Endpoints, Services and slices to look at.
//! Restart: permanent. It looks at all Endpoints again, and at slices whose Endpoints are gone.
//! Fails:   never as a whole; Endpoints that can't be mirrored are tried again.

mod core;
#[cfg(test)]
mod tests;

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;

use self::core::{ADDRESSES_MAX, MANAGER, is_mirrored, plan};
use crate::members::{get, is_going, same_name};
use crate::slices::{BY_SERVICE, by_service, reference, service_of, write_all};

/// Who says what happened.
const COMPONENT: &str = "endpoint-slice-mirroring-controller";

struct Mirroring {
    api: kube::Client,
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let controller = Mirroring {
        api: setup.connect("endpointslicemirroring-controller").client(),
        endpoints: setup.informers.informer(),
        services: setup.informers.informer(),
        slices: setup.informers.indexed(vec![by_service()]),
        recorder: setup.recorder.component(COMPONENT),
    };
    let (endpoints, services, slices) =
        (controller.endpoints.clone(), controller.services.clone(), controller.slices.clone());
    let quarantine = endpoints.clone();
    Loop::new(controller, setup.leading.clone())
        .watch(&endpoints, same_name)
        .watch(&services, |old, new, keys| {
            let selects = |service: &Service| service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
            if old.map(selects) != new.map(selects) {
                same_name(old, new, keys);
            }
        })
        .watch(&slices, |old, new, keys| {
            keys.extend([old, new].into_iter().flatten().filter_map(|slice| service_of(slice, MANAGER)));
        })
        .quarantine(setup.recorder.component(COMPONENT), move |key| reference(&quarantine, key))
        .child("endpointslicemirroring")
}

impl Controller for Mirroring {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (endpoints, services) = (self.endpoints.snapshot(), self.services.snapshot());
        let Some(slices) = self.slices.snapshot() else { return Ok(()) };
        let text = key.to_string();
        let mirrors = slices
            .by(BY_SERVICE, &text)
            .filter(|slice| service_of(slice, MANAGER).is_some() && slice.metadata.deletion_timestamp.is_none());
        let mirrors = mirrors.cloned().collect();
        let service = get(&services, key).map(|service| &**service);
        let endpoints = get(&endpoints, key).filter(|endpoints| is_mirrored(endpoints, service));
        let plan = plan(endpoints.map(|endpoints| &**endpoints), mirrors);
        if let Some(endpoints) = endpoints {
            if plan.invalid > 0 {
                let message = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", plan.invalid);
                self.recorder.warning(&**endpoints, "InvalidIPAddress", message);
            }
            if plan.skipped > plan.invalid {
                let message = format!(
                    "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. \
                     {} addresses were skipped",
                    plan.skipped
                );
                self.recorder.warning(&**endpoints, "TooManyAddressesToMirror", message);
            }
        }
        let api = Api::namespaced(self.api.clone(), &key.namespace);
        match write_all(&api, plan.create, plan.update, plan.delete, &self.slices, turn).await {
            Err(failure) if is_going(&failure) => Ok(()),
            outcome => outcome,
        }
    }
}
