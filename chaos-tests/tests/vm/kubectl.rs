//! `kubectl` outside of the machine, where it is quick, and what a test waits for with it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::guest::{Guest, NODE, PATIENCE, PAUSE, Said};

/// What is to stay the same of a pod that nothing happens to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Life {
    container: String,
    restarts: u64,
}

impl Guest {
    /// What `kubectl` says.
    pub(crate) fn kubectl(&self, words: &[&str]) -> Said {
        self.given(words, "")
    }

    /// What it prints, when all is well.
    pub(crate) fn asked(&self, words: &[&str]) -> String {
        let said = self.kubectl(words);
        assert_eq!(said.code, 0, "kubectl {words:?}: {said:?}");
        said.out
    }

    /// Gives it something to read.
    fn given(&self, words: &[&str], input: &str) -> Said {
        let mut command = Command::new("timeout");
        command
            .arg(PATIENCE.as_secs().to_string())
            .args(["kubectl", "--kubeconfig"])
            .arg(self.kubeconfig())
            .args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // Most don't read, and may have ended by now.
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).ok();
        child.wait_with_output().expect("it is our child").into()
    }

    /// Applies manifests.
    pub(crate) fn apply(&self, manifests: &str) {
        let said = self.given(&["apply", "-f", "-"], &manifests.replace("IMAGE", crate::guest::IMAGE));
        assert_eq!(said.code, 0, "{said:?}");
    }

    /// An object, or a list of them; nothing where there is none, or no API.
    pub(crate) fn get(&self, words: &[&str]) -> Value {
        let said = self.kubectl(&[&["get", "-o", "json"], words].concat());
        if said.code == 0 { serde_json::from_str(&said.out).expect("JSON") } else { Value::Null }
    }

    /// Waits until it is as wanted.
    pub(crate) fn wait(&self, what: &str, words: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let found = self.get(words);
            if is_so(&found) {
                return found;
            }
            if began.elapsed() > PATIENCE {
                let events = self.kubectl(&["get", "events", "-A"]).out;
                panic!("{what}: {words:?} is {:#}\n{events}", found.get("status").unwrap_or(&found));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until the node takes pods.
    pub(crate) fn node_ready(&self) {
        self.wait("the node is ready", &["node", NODE], |node| holds(node, "Ready"));
        self.wait("pods have somebody to be", &["serviceaccount", "default"], Value::is_object);
    }

    /// Waits until a pod is ready.
    pub(crate) fn ready(&self, pod: &str) -> Value {
        self.wait("it is ready", &["pod", pod], |pod| holds(pod, "Ready"))
    }

    /// Deletes pods, and waits until they are gone.
    pub(crate) fn delete_pods(&self, pods: &[&str]) {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        self.asked(&[&["delete", "pod", &limit], pods].concat());
    }

    /// What a pod that must not be touched is known by.
    pub(crate) fn life(&self, pod: &str) -> Life {
        let pod = self.get(&["pod", pod]);
        let status = &pod["status"]["containerStatuses"][0];
        assert!(holds(&pod, "Ready"), "{pod:#}");
        Life {
            container: status["containerID"].as_str().expect("it runs").to_owned(),
            restarts: status["restartCount"].as_u64().expect("a number"),
        }
    }
}

/// Whether a condition of an object is true.
pub(crate) fn holds(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == condition && one["status"] == "True"))
}
