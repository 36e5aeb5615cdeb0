//! What namespaces may take.

use k3sd_apiserver_store::Resource;
use serde_json::{Value, json};

use super::{World, create, update};
use crate::lookup::QUOTAS;
use crate::{Attributes, Charge};

fn quota(world: &World, name: &str, hard: Value, used: Value, spec: Value) {
    let mut quota = json!({"metadata": {"namespace": "a", "name": name, "uid": "q"}, "spec": spec});
    quota["spec"]["hard"] = hard.clone();
    quota["status"] = json!({"hard": hard, "used": used});
    world.cluster.put("", "resourcequotas", quota);
}

fn used(world: &World, name: &str) -> Value {
    world.cluster.read(QUOTAS, "a", name)["status"]["used"].clone()
}

fn pod(requests: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}})
}

async fn charge(world: &World, a: &Attributes<'_>, object: Value) -> Result<Charge, String> {
    let admitted = world.admission.validate(a, Some(&object)).await;
    admitted.map(|admitted| admitted.charge).map_err(|status| status.message)
}

fn pods() -> Attributes<'static> {
    create("", "pods")
}

/// A pod that its account's check lets pass.
fn ready(mut pod: Value) -> Value {
    pod["spec"]["serviceAccountName"] = "default".into();
    pod
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_is_charged_and_no_more_than_there_is() {
    let world = World::new();
    quota(
        &world,
        "q",
        json!({"pods": "2", "requests.cpu": "1", "count/pods": "9"}),
        json!({"pods": "0", "requests.cpu": "0", "count/pods": "0"}),
        json!({}),
    );
    let first = charge(&world, &pods(), ready(pod(json!({"cpu": "600m"})))).await.unwrap();
    assert!(!first.is_empty());
    assert_eq!(used(&world, "q"), json!({"pods": "1", "requests.cpu": "600m", "count/pods": "1"}));
    let why = charge(&world, &pods(), ready(pod(json!({"cpu": "500m"})))).await.unwrap_err();
    assert_eq!(
        why,
        "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: \
         requests.cpu=1"
    );
    let why = charge(&world, &pods(), ready(pod(json!({})))).await.unwrap_err();
    assert_eq!(why, "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    let whole = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "100m"}}}});
    charge(&world, &pods(), ready(whole)).await.unwrap().refund().await;
    let why = charge(&world, &pods(), ready(pod(json!({"cpu": "-1"})))).await.unwrap_err();
    assert_eq!(why, "pods \"p\" is forbidden: quota usage is negative for resource(s): cpu,requests.cpu");
    let trial = Attributes { dry_run: true, ..pods() };
    assert!(charge(&world, &trial, ready(pod(json!({"cpu": "400m"})))).await.unwrap().is_empty());
    assert_eq!(used(&world, "q")["pods"], "1");
    first.refund().await;
    assert_eq!(used(&world, "q"), json!({"pods": "0", "requests.cpu": "0", "count/pods": "0"}));
}

#[tokio::test(start_paused = true)]
async fn a_charge_is_not_given_back_twice_nor_after_somebody_counted() {
    let world = World::new();
    quota(&world, "q", json!({"pods": "5"}), json!({"pods": "0"}), json!({}));
    let (one, two) = (
        charge(&world, &pods(), ready(pod(json!({})))).await.unwrap(),
        charge(&world, &pods(), ready(pod(json!({})))).await.unwrap(),
    );
    one.refund().await;
    assert_eq!(used(&world, "q"), json!({"pods": "1"}));
    // Whoever keeps quotas up to date saw one pod, which is not ours.
    quota(&world, "q", json!({"pods": "5"}), json!({"pods": "1"}), json!({}));
    two.refund().await;
    assert_eq!(used(&world, "q"), json!({"pods": "1"}));
}

#[tokio::test(start_paused = true)]
async fn of_many_writers_only_as_many_pass_as_there_is_room_for() {
    for lags in [false, true] {
        let world = World::new();
        quota(&world, "count", json!({"pods": "7"}), json!({"pods": "0"}), json!({}));
        quota(&world, "wide", json!({"count/pods": "100"}), json!({"count/pods": "0"}), json!({}));
        // A second server, with a cache of its own mind about the same store.
        let other = crate::Admission::with(
            world.cluster.clone(),
            std::sync::Arc::new(|_| false),
            Default::default(),
            k3sd_runtime::Clock::simulated(2),
        );
        if lags {
            world.cluster.lag();
        }
        let object = ready(pod(json!({})));
        let attributes = pods();
        let mut writers = Vec::new();
        for index in 0..40 {
            let admission = if index % 2 == 0 { world.admission.clone() } else { other.clone() };
            let (attributes, object) = (&attributes, &object);
            writers.push(async move { admission.validate(attributes, Some(object)).await });
        }
        let outcomes = join_all(writers).await;
        let passed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!((passed, used(&world, "count")), (7, json!({"pods": "7"})), "lags: {lags}");
        for status in outcomes.into_iter().filter_map(Result::err) {
            let room =
                status.message.contains("exceeded quota: count, requested: pods=1, used: pods=7, limited: pods=7");
            // Two servers run into each other at most ten times; then the client tries again.
            assert!(room || status.code == 409, "{}", status.message);
        }
        assert_eq!(used(&world, "wide"), json!({"count/pods": "7"}), "lags: {lags}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_the_turn_writes_for_all_who_wait() {
    let world = World::new();
    quota(&world, "q", json!({"pods": "30"}), json!({"pods": "0"}), json!({}));
    let before = world.cluster.revision();
    let (attributes, object) = (pods(), ready(pod(json!({}))));
    let outcomes = join_all((0..40).map(|_| world.admission.validate(&attributes, Some(&object))).collect()).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 30);
    assert_eq!(used(&world, "q"), json!({"pods": "30"}));
    let writes = world.cluster.revision() - before;
    assert!(writes <= 2, "{writes} writes");
    // Given back one by one, they are all given back.
    for admitted in outcomes.into_iter().flatten() {
        admitted.charge.refund().await;
    }
    assert_eq!(used(&world, "q"), json!({"pods": "0"}));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_one_who_left() {
    let world = World::new();
    quota(&world, "q", json!({"pods": "9"}), json!({"pods": "0"}), json!({}));
    let (attributes, object) = (pods(), ready(pod(json!({}))));
    let mut first = Box::pin(world.admission.validate(&attributes, Some(&object)));
    let mut second = Box::pin(world.admission.validate(&attributes, Some(&object)));
    // The first one has the turn and is about to write; the second one waits.
    assert!(poll_once(&mut first).await.is_none());
    assert!(poll_once(&mut second).await.is_none());
    drop(first);
    assert!(!second.await.unwrap().charge.is_empty());
    assert_eq!(used(&world, "q"), json!({"pods": "1"}));
}

async fn poll_once<F: std::future::Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// Polls all of them in turn until each has ended.
async fn join_all<F: std::future::Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(outputs.drain(..).flatten().collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn scopes_narrow_what_counts() {
    let long = json!({"activeDeadlineSeconds": 5, "containers": []});
    let firm = json!({"containers": [{"resources": {"limits": {"memory": "1"}}}]});
    let high = json!({"containers": [], "priorityClassName": "high"});
    let far = json!({"containers": [], "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"namespaceSelector": {}}]}}});
    let plain = json!({"containers": []});
    let selector = |operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
    for (scope, spec, counts) in [
        (json!({}), &plain, true),
        (json!({"scopes": ["Terminating"]}), &long, true),
        (json!({"scopes": ["Terminating"]}), &plain, false),
        (json!({"scopes": ["NotTerminating"]}), &long, false),
        (json!({"scopes": ["BestEffort"]}), &plain, true),
        (json!({"scopes": ["BestEffort"]}), &firm, false),
        (json!({"scopes": ["NotBestEffort", "NotTerminating"]}), &firm, true),
        (json!({"scopes": ["CrossNamespacePodAffinity"]}), &far, true),
        (json!({"scopes": ["CrossNamespacePodAffinity"]}), &plain, false),
        (selector("In", json!(["high"])), &high, true),
        (selector("In", json!(["high"])), &plain, false),
        (selector("NotIn", json!(["high"])), &high, false),
        (selector("NotIn", json!(["low"])), &high, true),
        (selector("Exists", json!([])), &high, true),
        (selector("DoesNotExist", json!([])), &plain, true),
        (json!({"scopes": ["VolumeAttributesClass"]}), &plain, false),
    ] {
        let world = World::new();
        quota(&world, "q", json!({"pods": "9"}), json!({"pods": "0"}), scope.clone());
        let charged = charge(&world, &pods(), ready(json!({"metadata": {"name": "p"}, "spec": spec}))).await.unwrap();
        assert_eq!(!charged.is_empty(), counts, "{scope} {spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_has_its_measure() {
    let service = |kind: &str, fields: Value| {
        let mut spec = json!({"type": kind, "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}]});
        spec.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        json!({"spec": spec})
    };
    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "5Gi"}}}});
    let devices = json!({"spec": {"devices": {"requests": [
        {"exactly": {"deviceClassName": "gpu", "count": 2}}, {"firstAvailable": [{"deviceClassName": "gpu"}]}]}}});
    let gpu = json!({"spec": {"serviceAccountName": "default", "containers": [{"name": "c", "resources": {
        "requests": {"x.io/gpu": "2", "hugepages-2Mi": "4Mi", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "2"}}}]}});
    for (group, plural, object, resource, amount) in [
        ("", "services", service("ClusterIP", json!({})), "services", "1"),
        ("", "services", service("ClusterIP", json!({})), "services.nodeports", ""),
        ("", "services", service("NodePort", json!({})), "services.nodeports", "2"),
        ("", "services", service("LoadBalancer", json!({})), "services.loadbalancers", "1"),
        ("", "services", service("LoadBalancer", json!({})), "services.nodeports", "2"),
        (
            "",
            "services",
            service("LoadBalancer", json!({"allocateLoadBalancerNodePorts": false})),
            "services.nodeports",
            "1",
        ),
        ("", "persistentvolumeclaims", claim.clone(), "requests.storage", "5Gi"),
        ("", "persistentvolumeclaims", claim.clone(), "gold.storageclass.storage.k8s.io/requests.storage", "5Gi"),
        ("", "persistentvolumeclaims", claim.clone(), "gold.storageclass.storage.k8s.io/persistentvolumeclaims", "1"),
        ("", "persistentvolumeclaims", claim, "tin.storageclass.storage.k8s.io/requests.storage", ""),
        ("resource.k8s.io", "resourceclaims", devices, "gpu.deviceclass.resource.k8s.io/devices", "3"),
        ("", "pods", gpu.clone(), "requests.x.io/gpu", "2"),
        ("", "pods", gpu.clone(), "requests.hugepages-2Mi", "4Mi"),
        ("", "pods", gpu.clone(), "requests.ephemeral-storage", "1Gi"),
        ("", "pods", gpu.clone(), "limits.cpu", "2"),
        ("", "pods", gpu, "services", ""),
        ("", "configmaps", json!({}), "configmaps", "1"),
        ("", "configmaps", json!({}), "count/configmaps", "1"),
        ("", "secrets", json!({}), "configmaps", ""),
        ("events.k8s.io", "events", json!({}), "count/events.events.k8s.io", ""),
        ("apps", "deployments", json!({}), "count/deployments.apps", "1"),
        ("apps", "deployments", json!({}), "count/deployments", ""),
        ("", "events", json!({}), "count/events", ""),
    ] {
        let world = World::new();
        quota(&world, "q", json!({resource: "100Gi"}), json!({resource: "0"}), json!({}));
        let charged = charge(&world, &create(group, plural), object.clone()).await.unwrap();
        assert_eq!(charged.is_empty(), amount.is_empty());
        let expected = if amount.is_empty() { "0" } else { amount };
        assert_eq!(used(&world, "q")[resource], expected, "{plural} {object} {resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_of_another_group_is_not_the_one_of_core() {
    let world = World::new();
    let hard = json!({"secrets": "5", "count/secrets.x.io": "5"});
    quota(&world, "q", hard, json!({"secrets": "0", "count/secrets.x.io": "0"}), json!({}));
    let core = create("", "secrets").resource;
    let other = Resource {
        group: "x.io".into(),
        version: "v1".into(),
        api_version: "x.io/v1".into(),
        plural: core.plural.clone(),
        singular: core.singular.clone(),
        kind: core.kind.clone(),
        list_kind: core.list_kind.clone(),
        namespaced: true,
        verbs: core.verbs.clone(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        schema: core.schema.clone(),
        generation: true,
        stored: core.stored.clone(),
        custom: None,
    };
    let attributes = Attributes { resource: &other, ..create("", "secrets") };
    assert!(!charge(&world, &attributes, json!({})).await.unwrap().is_empty());
    assert_eq!(used(&world, "q"), json!({"secrets": "0", "count/secrets.x.io": "1"}));
    assert!(!charge(&world, &create("", "secrets"), json!({})).await.unwrap().is_empty());
    assert_eq!(used(&world, "q"), json!({"secrets": "1", "count/secrets.x.io": "1"}));
}

#[tokio::test(start_paused = true)]
async fn a_change_takes_what_it_adds() {
    let world = World::new();
    let claim = |size: &str| {
        json!({"metadata": {"name": "x", "resourceVersion": "1"}, "spec": {"storageClassName": "s",
        "resources": {"requests": {"storage": size}}}, "status": {"phase": "Bound"}})
    };
    let class = json!({"metadata": {"name": "s"}, "allowVolumeExpansion": true});
    world.cluster.put("storage.k8s.io", "storageclasses", class);
    let both = |storage: &str| json!({"requests.storage": storage, "persistentvolumeclaims": "1"});
    quota(&world, "q", both("8Gi"), both("5Gi"), json!({}));
    let old = claim("5Gi");
    let change = update("", "persistentvolumeclaims", &old);
    assert!(charge(&world, &change, claim("4Gi")).await.unwrap().is_empty());
    assert!(!charge(&world, &change, claim("7Gi")).await.unwrap().is_empty());
    assert_eq!(used(&world, "q"), both("7Gi"));
    let why = charge(&world, &change, claim("9Gi")).await.unwrap_err();
    assert!(why.ends_with("exceeded quota: q, requested: requests.storage=4Gi, used: requests.storage=7Gi, limited: requests.storage=8Gi"), "{why}");
    quota(&world, "q", both("8Gi"), json!({}), json!({}));
    let why = charge(&world, &change, claim("6Gi")).await.unwrap_err();
    assert!(why.ends_with("status unknown for quota: q, resources: persistentvolumeclaims,requests.storage"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn two_quotas_are_charged_together_or_not_at_all() {
    let world = World::new();
    quota(&world, "a", json!({"pods": "9"}), json!({"pods": "0"}), json!({}));
    quota(&world, "b", json!({"pods": "0"}), json!({"pods": "0"}), json!({}));
    assert!(charge(&world, &pods(), ready(pod(json!({})))).await.is_err());
    assert_eq!(used(&world, "a"), json!({"pods": "0"}));
    // Seen with room and charged; then the second one turns out to be full.
    quota(&world, "b", json!({"pods": "1"}), json!({"pods": "0"}), json!({}));
    world.cluster.lag();
    quota(&world, "b", json!({"pods": "0"}), json!({"pods": "0"}), json!({}));
    assert!(charge(&world, &pods(), ready(pod(json!({})))).await.is_err());
    assert_eq!((used(&world, "a"), used(&world, "b")), (json!({"pods": "0"}), json!({"pods": "0"})));
}
