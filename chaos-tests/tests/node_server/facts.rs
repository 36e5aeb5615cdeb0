//! What may not change about pods while they run, whoever dies around them.

use std::collections::{BTreeMap, BTreeSet};

use k3sd_cri::v1;
use serde_json::Value;

use crate::machine::Machine;

/// The pods of the default namespace, as the API and the runtime have them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pods: BTreeMap<String, Pod>,
    /// Names of pods by sandbox that the runtime has, whatever its state.
    sandboxes: BTreeMap<String, String>,
    /// The containers that the runtime has, whatever their state.
    containers: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Pod {
    uid: String,
    address: String,
    is_ready: bool,
    /// Identity and restarts of each container.
    containers: Vec<(String, u64)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Facts {
    /// What is so now.
    pub(crate) async fn of(machine: &Machine) -> Self {
        Self::in_namespace(machine, "default").await
    }

    /// The same of another namespace.
    pub(crate) async fn in_namespace(machine: &Machine, namespace: &str) -> Self {
        let list = machine.get(&["-n", namespace, "pods"]).await;
        let mut pods = BTreeMap::new();
        for pod in list["items"].as_array().into_iter().flatten() {
            let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            let container = |one: &Value| {
                let id = text(&one["containerID"]);
                (id.trim_start_matches("containerd://").to_owned(), one["restartCount"].as_u64().unwrap_or(u64::MAX))
            };
            let found = Pod {
                uid: text(&pod["metadata"]["uid"]),
                address: text(&pod["status"]["podIP"]),
                is_ready: crate::kubectl::holds(pod, "Ready"),
                containers: statuses.iter().map(container).collect(),
            };
            pods.insert(text(&pod["metadata"]["name"]), found);
        }
        let cri = machine.cri();
        let sandboxes = cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.map(|found| found.items);
        let name = |one: v1::PodSandbox| (one.id, one.metadata.map(|metadata| metadata.name).unwrap_or_default());
        let containers = cri.list_containers(v1::ListContainersRequest::default()).await.map(|found| found.containers);
        Self {
            pods,
            sandboxes: sandboxes.unwrap_or_default().into_iter().map(name).collect(),
            containers: containers.unwrap_or_default().into_iter().map(|one| one.id).collect(),
        }
    }

    /// What is wrong about pods that are to be ready, on their own and never restarted; nothing if all is well.
    pub(crate) fn findings(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut known = BTreeSet::new();
        for (name, pod) in &self.pods {
            if !pod.is_ready {
                found.push(format!("{name} is not ready"));
            }
            if let Some((id, count)) = pod.containers.iter().find(|(_, count)| *count > 0) {
                found.push(format!("{name}: container {id} was restarted {count} times"));
            }
            let sandboxes = self.sandboxes.values().filter(|of| *of == name).count();
            if sandboxes != 1 {
                found.push(format!("{name} has {sandboxes} sandboxes"));
            }
            known.extend(pod.containers.iter().map(|(id, _)| id.clone()));
        }
        if known != self.containers {
            found.push(format!("the API knows {known:?}, the runtime {:?}", self.containers));
        }
        let mut addresses: Vec<&String> = self.pods.values().map(|pod| &pod.address).collect();
        addresses.sort();
        addresses.dedup();
        if addresses.len() != self.pods.len() {
            found.push(format!("{} pods have {} addresses", self.pods.len(), addresses.len()));
        }
        found
    }

    /// The address of a pod.
    pub(crate) fn address(&self, pod: &str) -> &str {
        &self.pods[pod].address
    }

    /// How many pods there are.
    pub(crate) fn count(&self) -> usize {
        self.pods.len()
    }
}
