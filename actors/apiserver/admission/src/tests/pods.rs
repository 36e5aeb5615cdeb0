//! What happens to pods, and in namespaces.

use k3sd_objects::status::Reason;
use serde_json::{Value, json};

use super::{World, create, update};
use crate::{AdmissionConfig, Attributes, Operation, Plugins};

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn simple() -> Value {
    pod(json!({"containers": [{"name": "c"}]}))
}

fn without(names: &[&'static str]) -> AdmissionConfig {
    let plugins = Plugins::resolve([], names.iter().copied()).unwrap();
    AdmissionConfig { plugins, ..AdmissionConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn namespaces_have_to_be_there_and_to_stay() {
    let world = World::new();
    let maps = create("", "configmaps");
    let gone = world.admit(&Attributes { namespace: "b", ..maps }, &mut json!({})).await.unwrap_err();
    assert_eq!((gone.code, gone.message.as_str()), (404, r#"namespaces "b" not found"#));
    let mut named = json!({"metadata": {"generateName": "m-"}});
    let going = world.admit(&Attributes { namespace: "going", ..maps }, &mut named).await.unwrap_err();
    assert_eq!(
        going.message,
        r#"configmaps "m-" is forbidden: unable to create new content in namespace going because it is being terminated"#
    );
    let cause = &going.details.as_ref().unwrap().causes[0];
    assert_eq!(
        (cause.message.as_str(), cause.field.as_str()),
        ("namespace going is being terminated", "metadata.namespace")
    );
    // What is there may be changed and deleted, and reviews tell nothing.
    let old = json!({});
    let changed = Attributes { namespace: "going", ..update("", "configmaps", &old) };
    assert_eq!(world.refusal(&changed, json!({})).await, None);
    let deleted = Attributes { operation: Operation::Delete, ..changed };
    assert_eq!(world.refusal(&deleted, Value::Null).await, None);
    let review = Attributes { namespace: "b", ..create("authorization.k8s.io", "localsubjectaccessreviews") };
    assert_eq!(world.refusal(&review, json!({})).await, None);

    for (name, allowed) in [("default", false), ("kube-system", false), ("kube-public", false), ("a", true)] {
        let delete = Attributes { operation: Operation::Delete, name, namespace: name, ..create("", "namespaces") };
        let refusal = world.refusal(&delete, Value::Null).await;
        let message = format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
        assert_eq!(refusal, (!allowed).then_some(message));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_lags_hides_no_namespace_and_no_end_of_one() {
    let world = World::new();
    world.cluster.lag();
    let delete = Attributes { operation: Operation::Delete, name: "a", namespace: "a", ..create("", "namespaces") };
    assert_eq!(world.refusal(&delete, Value::Null).await, None);
    world.cluster.put("", "namespaces", json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}));
    world.cluster.put("", "namespaces", json!({"metadata": {"name": "new"}, "status": {"phase": "Active"}}));
    let refusal = world.refusal(&create("", "configmaps"), json!({"metadata": {"name": "m"}})).await;
    assert!(refusal.is_some_and(|why| why.contains("because it is being terminated")));
    let fresh = Attributes { namespace: "new", ..create("", "configmaps") };
    assert_eq!(world.refusal(&fresh, json!({})).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_plain_pod_gets_account_token_priority_and_tolerations() {
    let world = World::new();
    let sent = pod(json!({
        "containers": [{"name": "c"}, {"name": "own", "volumeMounts": [
            {"name": "v", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
        "initContainers": [{"name": "i"}],
    }));
    let found = world.admitted(&create("", "pods"), sent).await;
    let spec = &found["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.strip_prefix("kube-api-access-").is_some_and(|suffix| suffix.len() == 5), "{volume}");
    let mounts =
        json!([{"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    assert_eq!(spec["containers"][0]["volumeMounts"], mounts);
    assert_eq!(spec["initContainers"][0]["volumeMounts"], mounts);
    assert_eq!(spec["containers"][1]["volumeMounts"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        spec["volumes"][0]["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]})
    );
    assert_eq!(
        spec["tolerations"],
        json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ])
    );
    // Everything that was added is there already the second time.
    assert_eq!(world.admitted(&create("", "pods"), found.clone()).await, found);
}

#[tokio::test(start_paused = true)]
async fn accounts_decide_about_tokens_and_secrets() {
    let world = World::new();
    let account = |name: &str, fields: Value| {
        let mut account = json!({"metadata": {"namespace": "a", "name": name}});
        account.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        world.cluster.put("", "serviceaccounts", account);
    };
    account("quiet", json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "pull"}]}));
    let quiet = |automount: Value| {
        pod(json!({"serviceAccountName": "quiet", "automountServiceAccountToken": automount,
        "containers": [{"name": "c"}]}))
    };
    let found = world.admitted(&create("", "pods"), quiet(Value::Null)).await;
    assert!(found["spec"]["volumes"].is_null());
    assert_eq!(found["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    assert!(world.admitted(&create("", "pods"), quiet(json!(true))).await["spec"]["volumes"].is_array());

    let refused = |name: &'static str| pod(json!({"serviceAccountName": name, "containers": []}));
    let why = world.refusal(&create("", "pods"), refused("x")).await;
    let expected = r#"pods "p" is forbidden: error looking up service account a/x: serviceaccount "x" not found"#;
    assert_eq!(why.as_deref(), Some(expected));

    world.cluster.put(
        "",
        "serviceaccounts",
        json!({"metadata": {"namespace": "a", "name": "strict",
        "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}, "secrets": [{"name": "ok"}]}),
    );
    for (spec, fault) in [
        (json!({"volumes": [{"name": "v", "secret": {"secretName": "ok"}}]}), None),
        (
            json!({"volumes": [{"name": "v", "secret": {"secretName": "no"}}]}),
            Some(
                r#"volume with secret.secretName="no" is not allowed because service account strict does not reference that secret"#,
            ),
        ),
        (
            json!({"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "no"}}}]}]}),
            Some(
                r#"container c with envVar E referencing secret.secretName="no" is not allowed because service account strict does not reference that secret"#,
            ),
        ),
        (
            json!({"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "ok"}}, {"secretRef": {"name": "no"}}]}]}),
            Some(
                r#"init container i with envFrom referencing secret.secretName="no" is not allowed because service account strict does not reference that secret"#,
            ),
        ),
        (
            json!({"imagePullSecrets": [{"name": "no"}]}),
            Some(
                r#"imagePullSecrets[0].name="no" is not allowed because service account strict does not reference that imagePullSecret"#,
            ),
        ),
    ] {
        let mut pod = pod(spec);
        pod["spec"]["serviceAccountName"] = "strict".into();
        let fault = fault.map(|fault| format!("pods \"p\" is forbidden: {fault}"));
        assert_eq!(world.refusal(&create("", "pods"), pod).await, fault);
    }
    let old = simple();
    let ephemeral = Attributes { subresource: "ephemeralcontainers", ..update("", "pods", &old) };
    let added = |secret: &str| {
        pod(json!({"serviceAccountName": "strict", "ephemeralContainers": [
        {"name": "e", "envFrom": [{"secretRef": {"name": secret}}]}]}))
    };
    assert_eq!(world.refusal(&ephemeral, added("ok")).await, None);
    assert!(world.refusal(&ephemeral, added("no")).await.is_some_and(|why| why.contains("ephemeral container e with")));
    let mut mirror = simple();
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x".into();
    assert!(world.admitted(&create("", "pods"), mirror.clone()).await["spec"]["serviceAccountName"].is_null());
    mirror["spec"]["serviceAccountName"] = "default".into();
    let why = world.refusal(&create("", "pods"), mirror).await.unwrap();
    assert!(why.ends_with("a mirror pod may not reference service accounts"));
}

#[tokio::test(start_paused = true)]
async fn the_default_account_of_a_new_namespace_is_waited_for() {
    let world = World::new();
    let pods = Attributes { namespace: "kube-node-lease", ..create("", "pods") };
    let comes = async {
        tokio::time::advance(std::time::Duration::from_millis(450)).await;
        world.cluster.put(
            "",
            "serviceaccounts",
            json!({"metadata": {"namespace": "kube-node-lease", "name": "default"}}),
        );
    };
    let (admitted, ()) = tokio::join!(world.refusal(&pods, simple()), comes);
    assert_eq!(admitted, None);
    let never = Attributes { namespace: "going", ..pods };
    let without_namespaces = World::with(without(&["NamespaceLifecycle"]), Default::default());
    let why = without_namespaces.refusal(&never, simple()).await.unwrap();
    assert!(why.ends_with(r#"error looking up service account going/default: serviceaccount "default" not found"#));
}

#[tokio::test(start_paused = true)]
async fn priorities_are_resolved() {
    let world = World::new();
    let pods = create("", "pods");
    let class = |name: &str, value: i64, fields: Value| {
        let mut class = json!({"metadata": {"name": name}, "value": value});
        class.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        world.cluster.put("scheduling.k8s.io", "priorityclasses", class);
    };
    class("high", 1000, json!({"preemptionPolicy": "Never"}));
    let named = |fields: Value| {
        let mut spec = json!({"containers": [], "priorityClassName": "high"});
        spec.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        pod(spec)
    };
    let found = world.admitted(&pods, named(json!({}))).await;
    assert_eq!((&found["spec"]["priority"], &found["spec"]["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    for (fields, fault) in [
        (json!({"priorityClassName": "none"}), "no PriorityClass with name none was found"),
        (
            json!({"priority": 5}),
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed \
             1000 from the given PriorityClass name",
        ),
        (
            json!({"preemptionPolicy": "PreemptLowerPriority"}),
            "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority \
             admission controller computed Never from the given PriorityClass name",
        ),
    ] {
        let why = world.refusal(&pods, named(fields)).await;
        assert_eq!(why, Some(format!("pods \"p\" is forbidden: {fault}")));
    }
    class("usual", 7, json!({"globalDefault": true}));
    let found = world.admitted(&pods, simple()).await;
    assert_eq!((&found["spec"]["priority"], &found["spec"]["priorityClassName"]), (&json!(7), &json!("usual")));
    assert!(found["spec"]["preemptionPolicy"].is_null());
    let second = json!({"metadata": {"name": "other"}, "value": 1, "globalDefault": true});
    let why = world.refusal(&create("scheduling.k8s.io", "priorityclasses"), second).await.unwrap();
    assert_eq!(
        why,
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. \
         Only one default can exist"
    );
    let old = found.clone();
    let mut changed = found.clone();
    changed["spec"].as_object_mut().unwrap().remove("priority");
    assert_eq!(world.admitted(&update("", "pods", &old), changed).await["spec"]["priority"], 7);
}

#[tokio::test(start_paused = true)]
async fn runtimes_say_what_they_take_and_where_they_are() {
    let world = World::new();
    let pods = create("", "pods");
    world.cluster.put(
        "node.k8s.io",
        "runtimeclasses",
        json!({"metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"kvm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}}),
    );
    let vm = |fields: Value| {
        let mut spec = json!({"containers": [], "runtimeClassName": "vm"});
        spec.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        pod(spec)
    };
    let found = world.admitted(&pods, vm(json!({"nodeSelector": {"a": "b"}}))).await;
    assert_eq!(found["spec"]["overhead"], json!({"cpu": "250m"}));
    assert_eq!(found["spec"]["nodeSelector"], json!({"a": "b", "kvm": "yes"}));
    assert_eq!(found["spec"]["tolerations"].as_array().unwrap().last().unwrap()["key"], "vm");
    assert_eq!(world.refusal(&pods, vm(json!({"overhead": {"cpu": "0.25"}}))).await, None);
    for (pod, fault) in [
        (vm(json!({"runtimeClassName": "x"})), r#"pod rejected: RuntimeClass "x" not found"#),
        (
            vm(json!({"overhead": {"cpu": "1"}})),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            vm(json!({"nodeSelector": {"kvm": "no"}})),
            "conflict: runtimeClass.scheduling.nodeSelector[kvm] = yes; pod.spec.nodeSelector[kvm] = no",
        ),
        (
            pod(json!({"containers": [], "overhead": {"cpu": "1"}})),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
    ] {
        let why = world.refusal(&pods, pod).await;
        assert_eq!(why, Some(format!("pods \"p\" is forbidden: {fault}")));
    }
}

#[tokio::test(start_paused = true)]
async fn limits_bound_pods_and_claims() {
    let world = World::new();
    world.cluster.put(
        "",
        "limitranges",
        json!({"metadata": {"namespace": "a", "name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}, "max": {"cpu": "2"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}}]}}),
    );
    let found = world.admitted(&create("", "pods"), simple()).await;
    assert_eq!(found["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
    let big = json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "3"}}}]});
    let why = world.refusal(&create("", "pods"), pod(big.clone())).await.unwrap();
    assert_eq!(why, r#"pods "p" is forbidden: maximum cpu usage per Container is 2, but limit is 3"#);
    let (old, big) = (simple(), pod(big));
    assert_eq!(world.refusal(&update("", "pods", &old), big.clone()).await, None);
    let resize = Attributes { subresource: "resize", ..update("", "pods", &old) };
    assert!(world.refusal(&resize, big.clone()).await.is_some());
    let leaving = json!({"metadata": {"deletionTimestamp": "2030-01-01T00:00:00Z"}});
    assert_eq!(world.refusal(&Attributes { old: Some(&leaving), ..resize }, big).await, None);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": "1Mi"}}}});
    let status = world.admit(&create("", "persistentvolumeclaims"), &mut claim.clone()).await.unwrap_err();
    assert_eq!((status.code, status.reason), (403, Reason::Forbidden));
}
