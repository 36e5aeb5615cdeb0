use k3sd_apiserver_store::Catalog;
use serde_json::json;

use super::*;

const NOW: &str = "2025-01-01T00:00:00Z";

fn resource(group: &str, plural: &str) -> std::sync::Arc<Resource> {
    let catalog = Catalog::builtin(|_| true);
    catalog.preferred(group, plural).unwrap_or_else(|| panic!("no {plural} in {group:?}")).clone()
}

fn user() -> User {
    User { uid: "7".to_owned(), ..User::new("jane", &["devs"]) }
}

fn created(group: &str, plural: &str, mut object: Value) -> Value {
    let (resource, user) = (resource(group, plural), user());
    let context = Context { user: &user, now: NOW };
    of(&resource).prepare_create(&mut object, &resource, &context);
    object
}

fn updated(group: &str, plural: &str, part: Part, old: &Value, mut new: Value) -> Value {
    let (resource, user) = (resource(group, plural), user());
    let context = Context { user: &user, now: NOW };
    of(&resource).prepare_update(part, &mut new, old, &resource, &context);
    new
}

#[test]
fn rows_are_of_resources_that_there_are() {
    for (group, plural) in table::rows() {
        resource(group, plural);
    }
}

#[test]
fn a_new_object_has_no_status_but_its_first_one() {
    for (group, plural, object, wanted) in [
        (
            "apps",
            "deployments",
            json!({ "metadata": { "generation": 9 }, "status": { "replicas": 3 } }),
            json!({ "metadata": { "generation": 1 } }),
        ),
        ("", "configmaps", json!({ "metadata": { "generation": 9 } }), json!({ "metadata": {} })),
        (
            "",
            "pods",
            json!({ "metadata": {}, "spec": { "schedulingGates": [] }, "status": { "phase": "Running" } }),
            json!({
                "metadata": { "generation": 1 },
                "spec": { "schedulingGates": [] },
                "status": { "phase": "Pending", "qosClass": "BestEffort" },
            }),
        ),
        (
            "",
            "nodes",
            json!({ "metadata": {}, "status": { "capacity": { "cpu": "1" } } }),
            json!({ "metadata": {}, "status": { "capacity": { "cpu": "1" } } }),
        ),
        (
            "",
            "namespaces",
            json!({ "metadata": { "name": "a" }, "spec": { "finalizers": ["x/y"] } }),
            json!({
                "metadata": { "name": "a", "labels": { "kubernetes.io/metadata.name": "a" } },
                "spec": { "finalizers": ["x/y", "kubernetes"] },
                "status": { "phase": "Active" },
            }),
        ),
        (
            "",
            "persistentvolumes",
            json!({ "metadata": {} }),
            json!({ "metadata": {}, "status": { "phase": "Pending", "lastPhaseTransitionTime": NOW } }),
        ),
        (
            "",
            "persistentvolumeclaims",
            json!({ "metadata": {}, "spec": { "dataSource": { "kind": "PersistentVolumeClaim", "name": "x" } } }),
            json!({
                "metadata": {},
                "spec": {
                    "dataSource": { "kind": "PersistentVolumeClaim", "name": "x" },
                    "dataSourceRef": { "kind": "PersistentVolumeClaim", "name": "x" },
                },
                "status": { "phase": "Pending" },
            }),
        ),
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            json!({ "metadata": {}, "spec": { "username": "root", "extra": { "a": ["b"] }, "request": "x" } }),
            json!({ "metadata": {}, "spec": { "username": "jane", "uid": "7", "groups": ["devs"], "request": "x" } }),
        ),
        (
            "apps",
            "daemonsets",
            json!({ "metadata": {} }),
            json!({
                "metadata": { "generation": 1, "annotations": { "deprecated.daemonset.template.generation": "1" } },
            }),
        ),
    ] {
        assert_eq!(created(group, plural, object), wanted, "{plural}");
    }
}

#[test]
fn a_job_finds_its_pods_by_its_uid() {
    let job = created("batch", "jobs", json!({ "metadata": { "name": "j", "uid": "u" }, "spec": { "template": {} } }));
    assert_eq!(job["spec"]["selector"], json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": "u" } }));
    assert_eq!(
        job["spec"]["template"]["metadata"]["labels"],
        json!({
            "batch.kubernetes.io/controller-uid": "u", "controller-uid": "u",
            "batch.kubernetes.io/job-name": "j", "job-name": "j",
        })
    );
    let manual = json!({ "metadata": {}, "spec": { "manualSelector": true, "template": {} } });
    assert_eq!(created("batch", "jobs", manual.clone())["spec"], manual["spec"]);
}

#[test]
fn each_endpoint_writes_its_half() {
    let old = json!({
        "metadata": { "uid": "u", "generation": 4, "labels": { "a": "b" } },
        "spec": { "replicas": 1 }, "status": { "replicas": 1 },
    });
    let new = json!({
        "metadata": { "labels": { "c": "d" }, "generation": 99 },
        "spec": { "replicas": 2 }, "status": { "replicas": 2 },
    });
    assert_eq!(
        updated("apps", "deployments", Part::Main, &old, new.clone()),
        json!({
            "metadata": { "uid": "u", "generation": 5, "labels": { "c": "d" } },
            "spec": { "replicas": 2 }, "status": { "replicas": 1 },
        })
    );
    assert_eq!(
        updated("apps", "deployments", Part::Status, &old, new.clone()),
        json!({
            "metadata": { "uid": "u", "generation": 4, "labels": { "a": "b" } },
            "spec": { "replicas": 1 }, "status": { "replicas": 2 },
        })
    );
    assert_eq!(
        updated("apps", "replicasets", Part::Status, &old, new)["metadata"],
        json!({ "uid": "u", "generation": 4, "labels": { "c": "d" } })
    );
}

#[test]
fn generations_count_what_is_wanted() {
    let old = json!({ "metadata": { "generation": 1, "annotations": {} }, "spec": { "template": {} }, "webhooks": [] });
    let with = |path: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(path).unwrap() = value;
        new
    };
    for (group, plural, new, generation) in [
        ("apps", "deployments", old.clone(), json!(1)),
        ("apps", "deployments", with("/metadata/annotations", json!({ "a": "b" })), json!(2)),
        ("apps", "replicasets", with("/metadata/annotations", json!({ "a": "b" })), json!(1)),
        ("apps", "replicasets", with("/spec/template", json!({ "a": "b" })), json!(2)),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", with("/webhooks", json!([1])), json!(2)),
        ("", "pods", with("/spec/template", json!(1)), json!(2)),
    ] {
        let new = updated(group, plural, Part::Main, &old, new);
        assert_eq!(new["metadata"]["generation"], generation, "{plural}");
    }
    let changed = updated("apps", "daemonsets", Part::Main, &old, with("/spec/template", json!({ "a": "b" })));
    assert_eq!(changed["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "1");
}

#[test]
fn deletion_is_no_writers_to_take_back() {
    let old =
        json!({ "metadata": { "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 30, "finalizers": ["a/b"] } });
    let new = updated("", "configmaps", Part::Main, &old, json!({ "metadata": {} }));
    assert_eq!(new, json!({ "metadata": { "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 30 } }));
}

#[test]
fn a_namespace_is_released_through_finalize_only() {
    let old = json!({ "metadata": { "name": "a" }, "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Terminating" } });
    let new = json!({ "metadata": { "name": "a" }, "spec": { "finalizers": [] }, "status": {} });
    let plain = updated("", "namespaces", Part::Main, &old, new.clone());
    assert_eq!(plain["spec"], old["spec"]);
    let released = updated("", "namespaces", Part::Finalize, &old, new);
    assert_eq!((&released["spec"]["finalizers"], &released["status"]), (&json!([]), &old["status"]));
}

#[test]
fn approvals_are_written_through_approval_only() {
    let condition = |kind: &str| json!({ "type": kind, "status": "True" });
    let old = json!({ "metadata": {}, "spec": {}, "status": { "certificate": "x" } });
    let new = json!({
        "metadata": {}, "spec": { "request": "y" },
        "status": { "certificate": "z", "conditions": [condition("Approved"), condition("Failed")] },
    });
    let kinds = |request: &Value| {
        let list = meta::at(request, &["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().map(|condition| meta::field(condition, "type").to_owned()).collect::<Vec<_>>()
    };
    let certificates = "certificates.k8s.io";
    let approved = updated(certificates, "certificatesigningrequests", Part::Approval, &old, new.clone());
    assert_eq!(kinds(&approved), ["Approved"]);
    assert_eq!((&approved["status"]["certificate"], &approved["spec"]), (&json!("x"), &json!({})));
    assert_eq!(approved["status"]["conditions"][0]["lastUpdateTime"], NOW);
    let signed = updated(certificates, "certificatesigningrequests", Part::Status, &approved, new);
    assert_eq!(kinds(&signed), ["Approved", "Failed"]);
    assert_eq!((&signed["status"]["certificate"], &signed["spec"]), (&json!("z"), &json!({})));
}

#[test]
fn pods_are_changed_through_subresources_in_one_respect() {
    let old = json!({
        "metadata": { "name": "p", "generation": 1, "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }], "nodeName": "n" },
    });
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({});
    new["spec"] = json!({
        "containers": [{ "name": "c", "image": "j", "resources": { "limits": { "cpu": "2" } } }],
        "ephemeralContainers": [{ "name": "e" }],
    });
    let debugged = updated("", "pods", Part::EphemeralContainers, &old, new.clone());
    assert_eq!(debugged["spec"]["containers"], old["spec"]["containers"]);
    assert_eq!(debugged["spec"]["ephemeralContainers"], json!([{ "name": "e" }]));
    assert_eq!(debugged["metadata"], json!({ "name": "p", "generation": 2, "labels": { "a": "b" } }));
    let resized = updated("", "pods", Part::Resize, &old, new);
    assert_eq!(
        resized["spec"],
        json!({
            "containers": [{ "name": "c", "image": "i", "resources": { "limits": { "cpu": "2" } } }], "nodeName": "n",
        })
    );
}

#[test]
fn what_should_not_be_said_any_more_is_told() {
    let deployment = resource("apps", "deployments");
    let object = json!({
        "metadata": { "finalizers": ["old", "a/b"] },
        "spec": { "template": {
            "metadata": { "annotations": { "container.seccomp.security.alpha.kubernetes.io/c": "x" } },
            "spec": {
                "nodeSelector": { "beta.kubernetes.io/os": "linux" },
                "containers": [{ "env": [
                    { "name": "A", "value": "1" }, { "name": "A", "value": "2" }, { "name": "A", "value": "$(A)3" },
                ] }],
                "volumes": [{ "gitRepo": {} }],
            },
        } },
    });
    let mut warnings = Vec::new();
    warn(&deployment, &object, None, &mut warnings);
    assert_eq!(
        warnings,
        [
            "metadata.finalizers: \"old\": prefer a domain-qualified finalizer name including a path (/) to avoid \
             accidental conflicts with other finalizer writers",
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" \
             instead",
            "spec.template.metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: non-functional in \
             v1.27+; use the \"seccompProfile\" field instead",
            "spec.template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.template.spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when \
             using apply",
        ]
    );
    let mut again = Vec::new();
    warn(&deployment, &object, Some(&object), &mut again);
    assert_eq!(again, Vec::<String>::new());
}

#[test]
fn volumes_from_images_are_not_there_yet() {
    let spec = || {
        json!({
            "volumes": [{ "name": "i", "image": { "reference": "r" } }, { "name": "e", "emptyDir": {} }],
            "initContainers": [{ "name": "a", "volumeMounts": [{ "name": "i", "mountPath": "/i" }] }],
            "containers": [{ "name": "c", "volumeMounts": [
                { "name": "i", "mountPath": "/i" }, { "name": "e", "mountPath": "/e" }] }],
        })
    };
    let wanted = json!({
        "volumes": [{ "name": "e", "emptyDir": {} }],
        "initContainers": [{ "name": "a" }],
        "containers": [{ "name": "c", "volumeMounts": [{ "name": "e", "mountPath": "/e" }] }],
    });
    let pod = created("", "pods", json!({ "metadata": {}, "spec": spec() }));
    assert_eq!(pod["spec"], wanted);
    let template = json!({ "template": { "spec": spec() } });
    let deployment = created("apps", "deployments", json!({ "metadata": {}, "spec": template }));
    assert_eq!(deployment["spec"]["template"]["spec"], wanted);
    let nested = json!({ "jobTemplate": { "spec": template } });
    let cron = created("batch", "cronjobs", json!({ "metadata": {}, "spec": nested }));
    assert_eq!(cron["spec"]["jobTemplate"]["spec"]["template"]["spec"], wanted);
    // Who has one from elsewhere keeps it; nobody gets one anew.
    let old = json!({ "metadata": {}, "spec": template });
    assert_eq!(updated("apps", "deployments", Part::Main, &old, old.clone())["spec"], template);
    let plain = json!({ "metadata": {}, "spec": { "template": { "spec": { "containers": [] } } } });
    let changed = updated("apps", "deployments", Part::Main, &plain, old);
    assert_eq!(changed["spec"]["template"]["spec"], wanted);
}
