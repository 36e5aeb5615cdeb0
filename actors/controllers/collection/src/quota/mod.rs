//! Says in the status of ResourceQuotas how much of them is used.
//!
//! Admission charges what is made; this controller counts anew: at first, when something is gone, and now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Informer, Kind, ObjectKey, Snapshot};
use k3sd_objects::quantity::Quantity;
use k3sd_objects::quota::Meter;
use k3sd_objects::read::{Amounts, amounts_of};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::pods::core::is_terminated;
use crate::resources::{Resource, Resources};

/// How often everything is counted; upstream's number.
const RESYNC: Duration = Duration::from_secs(300);
/// Objects in a page of a list.
const PAGE_OBJECTS: u32 = 500;

struct QuotaCounter {
    api: kube::Client,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
}

/// The loop. `gone` tells of namespaces that something is gone from, of whatever resource.
pub fn counter(setup: &mut Setup<'_>, gone: &broadcast::Sender<Arc<str>>) -> ChildSpec {
    let quotas = setup.informers.informer::<ResourceQuota>();
    let (pods, services) = (setup.informers.informer::<Pod>(), setup.informers.informer::<Service>());
    let claims = setup.informers.informer::<PersistentVolumeClaim>();
    let controller = QuotaCounter {
        api: setup.connect("resourcequota-controller").client(),
        quotas: quotas.clone(),
        pods: pods.clone(),
        services: services.clone(),
        claims: claims.clone(),
    };
    let (of_pods, of_services, of_claims) = (quotas.clone(), quotas.clone(), quotas.clone());
    let (every, any, gone) = (quotas.clone(), quotas.clone(), gone.clone());
    Loop::new(controller, setup.leading.clone())
        .watch(&quotas, |_, new, keys| keys.extend(new.filter(|quota| !is_counted(quota)).map(ObjectKey::of)))
        .watch(&pods, move |old, new, keys| {
            let ended = new.is_none_or(is_terminated);
            if let Some(old) = old
                && ended
                && !is_terminated(old)
            {
                of_namespace(&of_pods, old.metadata.namespace.as_deref(), keys);
            }
        })
        .watch(&services, move |old, new, keys| {
            let kind = |service: &Service| service.spec.as_ref().and_then(|spec| spec.type_.clone());
            if let Some(old) = old
                && new.is_none_or(|new| kind(new) != kind(old))
            {
                of_namespace(&of_services, old.metadata.namespace.as_deref(), keys);
            }
        })
        .watch(&claims, move |old, new, keys| {
            if let (Some(old), None) = (old, new) {
                of_namespace(&of_claims, old.metadata.namespace.as_deref(), keys);
            }
        })
        .told(move || {
            let quotas = any.clone();
            let told = stream::unfold(gone.subscribe(), |mut gone| async move {
                let told = match gone.recv().await {
                    Ok(namespace) => Some(namespace),
                    Err(broadcast::error::RecvError::Lagged(_)) => None,
                    Err(broadcast::error::RecvError::Closed) => return None,
                };
                Some((told, gone))
            });
            told.map(move |namespace| {
                let mut keys = Vec::new();
                match namespace {
                    Some(namespace) => of_namespace(&quotas, Some(&namespace), &mut keys),
                    // Too many to tell: of every namespace.
                    None => keys.extend(quotas.snapshot().iter().flat_map(|all| all.keys().cloned())),
                }
                keys
            })
            .boxed()
        })
        .every(RESYNC, move || every.snapshot().iter().flat_map(|all| all.keys().cloned()).collect())
        .child("resourcequota")
}

fn of_namespace(quotas: &Informer<ResourceQuota>, namespace: Option<&str>, keys: &mut Vec<ObjectKey>) {
    if let (Some(all), Some(namespace)) = (quotas.snapshot(), namespace) {
        keys.extend(all.of_namespace(namespace).map(|quota| ObjectKey::of(&**quota)));
    }
}

/// Whether the status is about the limits of now.
fn is_counted(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let status = quota.status.as_ref();
    status.is_some_and(|status| status.used.is_some() && status.hard.as_ref() == hard)
}

impl Controller for QuotaCounter {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let found = self.quotas.snapshot().and_then(|all| all.get(&key.namespace, &key.name).cloned());
        let Some(quota) = found.filter(|quota| quota.metadata.deletion_timestamp.is_none()) else { return Ok(()) };
        let (counted, failure) = self.count(&quota, &key.namespace).await;
        let status = status(&quota, &counted);
        if quota.status.as_ref() != Some(&status) {
            let api: Api<ResourceQuota> = Api::namespaced(self.api.clone(), &key.namespace);
            let mut next = (*quota).clone();
            next.status = Some(status);
            let written = api.replace_status(&key.name, &PostParams::default(), &next).await?;
            turn.wrote(&self.quotas, &written);
        }
        failure.map_or(Ok(()), Err)
    }
}

/// The status that says what was counted; what couldn't be counted stays.
fn status(quota: &ResourceQuota, counted: &Amounts) -> ResourceQuotaStatus {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let known = quota.status.as_ref().and_then(|status| status.used.clone()).unwrap_or_default();
    let used = hard.keys().filter_map(|resource| {
        let old = known.get(resource);
        let amount = counted.get(resource).map_or(old.cloned(), |new| {
            // The same amount stays as it is written.
            let same = old.filter(|old| Quantity::from_json(&json!(old.0)).is_ok_and(|old| old == *new));
            Some(same.cloned().unwrap_or_else(|| Text(new.to_string())))
        });
        amount.map(|amount| (resource.clone(), amount))
    });
    let used = used.collect();
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

/// Adds up what objects take of a quota. All that the meter tells of begins at nothing.
fn add_up(meter: &Meter, quota: &Value, objects: impl Iterator<Item = Value>, total: &mut Amounts) {
    let hard = amounts_of(&quota["status"]["hard"]);
    let measured: Vec<&String> = hard.keys().filter(|resource| meter.measures(resource)).collect();
    for resource in &measured {
        total.entry((*resource).clone()).or_insert(Quantity::ZERO);
    }
    for object in objects.filter(|object| meter.matches(quota, object)) {
        let usage = meter.usage(&object);
        for resource in &measured {
            if let (Some(more), Some(sum)) = (usage.get(*resource), total.get_mut(*resource)) {
                *sum += *more;
            }
        }
    }
}

fn values<K: Kind + serde::Serialize>(shown: Option<&Arc<Snapshot<K>>>, namespace: &str) -> Vec<Value> {
    let objects = shown.into_iter().flat_map(|shown| shown.of_namespace(namespace));
    objects.filter_map(|object| serde_json::to_value(&**object).ok()).collect()
}

impl QuotaCounter {
    /// What is used of a quota, as far as it could be counted.
    async fn count(&self, quota: &ResourceQuota, namespace: &str) -> (Amounts, Option<Failure>) {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        // The meters ask the status which resources are limited.
        let quota = json!({"spec": quota.spec, "status": {"hard": hard}});
        let (mut total, mut rest) = (Amounts::new(), hard.keys().map(String::as_str).collect::<BTreeSet<&str>>());
        let mut take = |group: &str, plural: &str, objects: &mut dyn FnMut() -> Vec<Value>| {
            let Some(meter) = Meter::of(group, plural) else { return };
            if rest.iter().any(|resource| meter.measures(resource)) {
                rest.retain(|resource| !meter.measures(resource));
                add_up(&meter, &quota, objects().into_iter(), &mut total);
            }
        };
        take("", "pods", &mut || values(self.pods.snapshot().as_ref(), namespace));
        take("", "services", &mut || values(self.services.snapshot().as_ref(), namespace));
        take("", "persistentvolumeclaims", &mut || values(self.claims.snapshot().as_ref(), namespace));
        if rest.is_empty() {
            return (total, None);
        }
        let resources = match Resources::discover(&self.api).await {
            Ok(resources) => resources,
            Err(error) => return (total, Some(error.into())),
        };
        let mut failure = None;
        for resource in resources.all.iter().filter(|resource| resource.namespaced && resource.can(&["list"])) {
            let Some(meter) = Meter::of(&resource.api.group, &resource.api.plural) else { continue };
            if !rest.iter().any(|name| meter.measures(name)) {
                continue;
            }
            match self.list(resource, &meter, namespace).await {
                Ok(objects) => {
                    rest.retain(|name| !meter.measures(name));
                    add_up(&meter, &quota, objects.into_iter(), &mut total);
                }
                Err(error) => failure = Some(error.into()),
            }
        }
        (total, failure)
    }

    /// The objects of a resource, as far as the meter reads them.
    async fn list(&self, resource: &Resource, meter: &Meter, namespace: &str) -> kube::Result<Vec<Value>> {
        let api = resource.at(&self.api, namespace);
        let mut params = ListParams { limit: Some(PAGE_OBJECTS), ..ListParams::default() };
        let mut found = Vec::new();
        loop {
            let next = if meter.reads_objects() {
                let page = api.list(&params).await?;
                let value = |object: DynamicObject| serde_json::to_value(object).ok();
                found.extend(page.items.into_iter().filter_map(value));
                page.metadata.continue_
            } else {
                let page = api.list_metadata(&params).await?;
                found.extend(page.items.iter().map(|_| Value::Null));
                page.metadata.continue_
            };
            match next.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k3sd_objects::quantity::Format;

    use super::*;

    fn quota(hard: Value, used: Value) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"used": used}}))
            .expect("a quota")
    }

    #[test]
    fn what_is_counted_replaces_what_was_and_the_rest_stays() {
        let quota = quota(
            json!({"cpu": "2", "pods": "10", "count/things.example.com": "5"}),
            json!({"cpu": "500m", "pods": "3", "count/things.example.com": "1", "memory": "1Gi"}),
        );
        let half = Quantity::from_json(&json!("0.5")).expect("an amount");
        let counted =
            Amounts::from([("cpu".to_owned(), half), ("pods".to_owned(), Quantity::from_i64(2, Format::DecimalSi))]);
        let status = status(&quota, &counted);
        let used = serde_json::to_value(status.used).expect("it is JSON");
        assert_eq!(used, json!({"cpu": "500m", "pods": "2", "count/things.example.com": "1"}));
        assert!(!is_counted(&quota));
    }

    #[test]
    fn objects_count_if_they_are_in_the_scopes() {
        let quota = json!({"spec": {"scopes": ["BestEffort"]}, "status": {"hard": {"pods": "1", "count/pods": "5"}}});
        let pod = |requests: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
        let meter = Meter::of("", "pods").expect("pods count");
        let mut total = Amounts::new();
        add_up(&meter, &quota, [pod(json!({})), pod(json!({"cpu": "1"}))].into_iter(), &mut total);
        let total: BTreeMap<&str, String> = total.iter().map(|(name, sum)| (name.as_str(), sum.to_string())).collect();
        assert_eq!(total, BTreeMap::from([("count/pods", "1".to_owned()), ("pods", "1".to_owned())]));
    }
}
