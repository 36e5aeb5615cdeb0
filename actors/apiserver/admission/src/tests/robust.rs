//! Nothing that is sent makes a plugin panic.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::{World, create, update};
use crate::{AdmissionConfig, Attributes, Plugins};

/// Names that plugins look for, so that odd values come where they look.
const NAMES: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "annotations",
    "labels",
    "ownerReferences",
    "finalizers",
    "kubernetes.io/config.mirror",
    "containers",
    "initContainers",
    "ephemeralContainers",
    "resources",
    "requests",
    "limits",
    "cpu",
    "memory",
    "storage",
    "env",
    "envFrom",
    "valueFrom",
    "secretKeyRef",
    "volumes",
    "volumeMounts",
    "mountPath",
    "projected",
    "sources",
    "serviceAccountToken",
    "serviceAccountName",
    "imagePullSecrets",
    "tolerations",
    "key",
    "effect",
    "operator",
    "tolerationSeconds",
    "priority",
    "priorityClassName",
    "runtimeClassName",
    "overhead",
    "nodeSelector",
    "affinity",
    "podAffinity",
    "activeDeadlineSeconds",
    "ports",
    "type",
    "nodePort",
    "taints",
    "nodeName",
    "boundObjectRef",
    "audiences",
    "request",
    "signerName",
    "devices",
    "exactly",
    "count",
    "firstAvailable",
    "storageClassName",
    "ingressClassName",
    "externalIPs",
    "image",
];

const TEXTS: &[&str] = &[
    "",
    "x",
    "default",
    "1",
    "-1",
    "1e400",
    "500m",
    "9Ei",
    "Always",
    "Exists",
    "n",
    "LoadBalancer",
    "\u{0}é",
    "kubernetes.io/kubelet-serving",
];

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(TEXTS).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES), inner), 0..6).prop_map(|fields| {
                let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
                Value::Object(fields.collect::<Map<String, Value>>())
            }),
        ]
    })
}

/// Something with the fields that every object has, odd as they may be.
fn object() -> impl Strategy<Value = Value> {
    (anything(), anything(), anything()).prop_map(|(metadata, spec, status)| {
        let fields = [("metadata", metadata), ("spec", spec), ("status", status)];
        Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    })
}

const RESOURCES: &[(&str, &str, &str)] = &[
    ("", "pods", ""),
    ("", "pods", "status"),
    ("", "pods", "eviction"),
    ("", "pods", "resize"),
    ("", "pods", "ephemeralcontainers"),
    ("", "nodes", ""),
    ("", "services", ""),
    ("", "serviceaccounts", "token"),
    ("", "persistentvolumeclaims", ""),
    ("", "persistentvolumeclaims", "status"),
    ("", "configmaps", ""),
    ("networking.k8s.io", "ingresses", ""),
    ("resource.k8s.io", "resourceclaims", ""),
    ("resource.k8s.io", "resourceslices", ""),
    ("scheduling.k8s.io", "priorityclasses", ""),
    ("coordination.k8s.io", "leases", ""),
    ("certificates.k8s.io", "certificatesigningrequests", ""),
    ("certificates.k8s.io", "certificatesigningrequests", "approval"),
    ("certificates.k8s.io", "certificatesigningrequests", "status"),
];

/// A cluster whose own objects are as odd, as a store that somebody else wrote may hold them.
fn odd_world(found: &[Value]) -> World {
    let plugins = Plugins::resolve(["AlwaysPullImages", "DenyServiceExternalIPs", "ExtendedResourceToleration"], []);
    let world =
        World::with(AdmissionConfig { plugins: plugins.unwrap(), ..AdmissionConfig::default() }, Default::default());
    let places = [
        ("", "limitranges", "a"),
        ("", "resourcequotas", "a"),
        ("", "pods", "a"),
        ("", "nodes", ""),
        ("", "serviceaccounts", "a"),
        ("scheduling.k8s.io", "priorityclasses", ""),
        ("node.k8s.io", "runtimeclasses", ""),
        ("storage.k8s.io", "storageclasses", ""),
    ];
    for ((group, plural, namespace), value) in places.into_iter().zip(found) {
        for name in ["x", "n", "default"] {
            let mut value = value.clone();
            if !value["metadata"].is_object() {
                value["metadata"] = Value::Object(Map::new());
            }
            value["metadata"]["name"] = name.into();
            value["metadata"]["namespace"] = namespace.into();
            world.cluster.put(group, plural, value);
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_that_is_sent_makes_a_plugin_panic(
        new in object(),
        old in object(),
        found in prop::collection::vec(object(), 8),
        kubelet in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = odd_world(&found);
            let user = k3sd_apiserver_access::User::new("system:node:n", if kubelet { &["system:nodes"] } else { &[] });
            for (group, plural, subresource) in RESOURCES {
                let made = Attributes { user: &user, subresource, name: "x", ..create(group, plural) };
                let changed = Attributes { user: &user, subresource, ..update(group, plural, &old) };
                for attributes in [made, changed] {
                    // Refused or not: what counts is that there is an answer.
                    if let Ok(admitted) = world.admit(&attributes, &mut new.clone()).await {
                        admitted.charge.refund().await;
                    }
                    drop(world.admit(&attributes, &mut Value::Null).await.map(drop));
                }
            }
        });
    }
}
