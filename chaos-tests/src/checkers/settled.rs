//! A cluster at rest: what was asked for is there, in the API and on its node, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::rules::{self, Rules};
use super::storage::{self, Store};

/// All that is looked at: objects as the API shows them, and what the node's runtime has.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Deployments and StatefulSets.
    pub workloads: Vec<Value>,
    /// Jobs.
    pub jobs: Vec<Value>,
    /// Pods.
    pub pods: Vec<Value>,
    /// Nodes.
    pub nodes: Vec<Value>,
    /// Services.
    pub services: Vec<Value>,
    /// EndpointSlices.
    pub slices: Vec<Value>,
    /// The uid of the pod of each sandbox.
    pub sandboxes: Vec<String>,
    /// Uid and name of each container that runs.
    pub running: Vec<(String, String)>,
    /// Claims and volumes.
    pub store: Store,
    /// What the kernel does with packets for Services, where there is one for that.
    pub rules: Option<Rules>,
}

pub(super) fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(value: &Value, path: &str) -> i64 {
    value.pointer(path).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn is_final(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn is_ready(pod: &Value) -> bool {
    crate::simulation::world::has_condition(pod, "Ready")
}

/// What is not at rest yet, or not as it should be.
#[must_use]
pub fn check(scene: &Scene) -> Vec<String> {
    let mut findings = Vec::new();
    scene.workloads.iter().for_each(|one| check_workload(one, &mut findings));
    check_jobs(&scene.jobs, &mut findings);
    check_pods(scene, &mut findings);
    check_node(scene, &mut findings);
    check_endpoints(scene, &mut findings);
    check_balancers(scene, &mut findings);
    findings.extend(storage::check(&scene.pods, &scene.store));
    let rules = scene.rules.as_ref();
    findings.extend(rules.into_iter().flat_map(|rules| rules::check(&scene.services, &scene.slices, rules)));
    findings
}

fn check_workload(one: &Value, findings: &mut Vec<String>) {
    let (name, wanted) = (text(one, "/metadata/name"), number(one, "/spec/replicas"));
    if number(one, "/metadata/generation") != number(one, "/status/observedGeneration") {
        findings.push(format!("{name}: its controller has not seen its newest generation"));
    }
    for field in ["replicas", "readyReplicas", "updatedReplicas", "availableReplicas"] {
        let found = number(one, &format!("/status/{field}"));
        if found != wanted {
            findings.push(format!("{name}: {field} is {found} instead of {wanted}"));
        }
    }
}

fn check_jobs(jobs: &[Value], findings: &mut Vec<String>) {
    for job in jobs {
        if !crate::simulation::world::has_condition(job, "Complete") {
            findings.push(format!("job {} is not complete: {}", text(job, "/metadata/name"), job["status"]));
        }
    }
}

fn check_pods(scene: &Scene, findings: &mut Vec<String>) {
    let wanted: i64 = scene.workloads.iter().map(|one| number(one, "/spec/replicas")).sum();
    let mut live = 0;
    for pod in &scene.pods {
        let name = text(pod, "/metadata/name");
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            findings.push(format!("pod {name} is still going away"));
        } else if is_final(pod) {
            let owner = text(pod, "/metadata/ownerReferences/0/kind");
            if owner != "Job" {
                findings.push(format!("pod {name} of a {owner} has ended: {}", pod["status"]));
            }
        } else {
            live += 1;
            if !is_ready(pod) {
                findings.push(format!("pod {name} is not ready: {}", pod["status"]));
            }
        }
    }
    if live != wanted {
        findings.push(format!("{live} pods live instead of {wanted}"));
    }
}

fn check_node(scene: &Scene, findings: &mut Vec<String>) {
    let known: BTreeSet<&str> = scene.pods.iter().map(|pod| text(pod, "/metadata/uid")).collect();
    for uid in &scene.sandboxes {
        if !known.contains(uid.as_str()) {
            findings.push(format!("the node has a sandbox of pod {uid}, which is gone"));
        }
    }
    let mut running: BTreeMap<&str, usize> = BTreeMap::new();
    scene.running.iter().for_each(|(uid, _)| *running.entry(uid).or_default() += 1);
    for pod in &scene.pods {
        let wanted = if is_final(pod) { 0 } else { pod["spec"]["containers"].as_array().map_or(0, Vec::len) };
        let found = running.remove(text(pod, "/metadata/uid")).unwrap_or_default();
        if found != wanted {
            findings.push(format!("pod {}: {found} containers run instead of {wanted}", text(pod, "/metadata/name")));
        }
    }
    findings.extend(running.keys().map(|uid| format!("containers of pod {uid} run, which is gone")));
}

fn check_endpoints(scene: &Scene, findings: &mut Vec<String>) {
    for service in scene.services.iter().filter(|service| service["spec"]["selector"].is_object()) {
        let name = text(service, "/metadata/name");
        let app = text(service, "/spec/selector/app");
        let own = scene.pods.iter().filter(|pod| text(pod, "/metadata/labels/app") == app);
        let wanted: BTreeSet<&str> = own.filter(|pod| is_ready(pod)).map(|pod| text(pod, "/status/podIP")).collect();
        let slices = scene.slices.iter().filter(|one| one["metadata"]["labels"]["kubernetes.io/service-name"] == name);
        let endpoints = slices.flat_map(|one| one["endpoints"].as_array().into_iter().flatten());
        let ready = endpoints.filter(|one| one["conditions"]["ready"] == true);
        let found: BTreeSet<&str> = ready.map(|one| text(one, "/addresses/0")).collect();
        if found != wanted {
            findings.push(format!("service {name} leads to {found:?} instead of {wanted:?}"));
        }
    }
}

/// Nodes are the load balancers: each that wants one is at all their addresses, and no other is anywhere.
fn check_balancers(scene: &Scene, findings: &mut Vec<String>) {
    let addresses = scene.nodes.iter().flat_map(|node| node["status"]["addresses"].as_array().into_iter().flatten());
    let internal = addresses.filter(|one| one["type"] == "InternalIP");
    let of_nodes: BTreeSet<&str> = internal.map(|one| text(one, "/address")).collect();
    for service in &scene.services {
        let is_balanced = service["spec"]["type"] == "LoadBalancer";
        let wanted = if is_balanced { of_nodes.clone() } else { BTreeSet::new() };
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        let found: BTreeSet<&str> = ingress.map(|one| text(one, "/ip")).collect();
        if found != wanted || is_balanced && wanted.is_empty() {
            let name = text(service, "/metadata/name");
            findings.push(format!("service {name} is balanced at {found:?} instead of {wanted:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scene() -> Scene {
        let status = json!({"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
            "observedGeneration": 2});
        let conditions = json!([{"type": "Ready", "status": "True"}]);
        let pod = json!({"metadata": {"name": "p", "uid": "u", "labels": {"app": "web"}}, "spec": {"containers": [{}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions}});
        let done = json!({"metadata": {"name": "j", "uid": "v", "ownerReferences": [{"kind": "Job"}]},
            "status": {"phase": "Succeeded"}});
        Scene {
            workloads: vec![
                json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 1}, "status": status}),
            ],
            jobs: vec![
                json!({"metadata": {"name": "j"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}),
            ],
            pods: vec![pod, done],
            nodes: vec![json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "one"}]}})],
            services: vec![json!({"metadata": {"name": "web"},
                "spec": {"selector": {"app": "web"}, "type": "LoadBalancer"},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})],
            slices: vec![json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}},
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]})],
            sandboxes: vec!["u".to_owned()],
            running: vec![("u".to_owned(), "c".to_owned())],
            store: Store::default(),
            rules: None,
        }
    }

    type Spoil = fn(&mut Scene);

    #[test]
    fn whatever_is_not_as_it_should_be_is_found() {
        assert_eq!(check(&scene()), Vec::<String>::new());
        let spoilt: [(&str, Spoil); 14] = [
            ("readyReplicas is 0", |scene| scene.workloads[0]["status"]["readyReplicas"] = 0.into()),
            ("newest generation", |scene| scene.workloads[0]["status"]["observedGeneration"] = 1.into()),
            ("is not complete", |scene| scene.jobs[0]["status"] = Value::Null),
            ("0 pods live", |scene| drop(scene.pods.remove(0))),
            ("still going away", |scene| scene.pods[0]["metadata"]["deletionTimestamp"] = "now".into()),
            ("is not ready", |scene| scene.pods[0]["status"]["conditions"] = Value::Null),
            ("which is gone", |scene| scene.sandboxes.push("x".to_owned())),
            ("0 containers run instead of 1", |scene| scene.running.clear()),
            ("instead of {\"10.0.0.1\"}", |scene| scene.slices.clear()),
            ("at {} instead of {\"192.0.2.1\"}", |scene| scene.services[0]["status"] = Value::Null),
            ("at {\"192.0.2.1\"} instead of {}", |scene| scene.services[0]["spec"]["type"] = "ClusterIP".into()),
            ("is balanced at", |scene| scene.nodes.clear()),
            ("is no service's", |scene| {
                let services = [((6, [10, 43, 0, 1].into(), 80), [0, 0])].into();
                scene.rules = Some(Rules { services, ..Rules::default() });
            }),
            ("directory x is there", |scene| {
                scene.store.directories.insert("x".to_owned());
            }),
        ];
        for (what, spoil) in spoilt {
            let mut scene = scene();
            spoil(&mut scene);
            let findings = check(&scene);
            assert!(findings.iter().any(|finding| finding.contains(what)), "{what}: {findings:?}");
        }
    }
}
