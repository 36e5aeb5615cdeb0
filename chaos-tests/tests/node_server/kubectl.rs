//! `kubectl` on the machine, and what a test waits for with it.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::machine::{Machine, NODE, PATIENCE};

/// How often is asked.
const PAUSE: Duration = Duration::from_millis(100);

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Runs a command that ends by itself.
pub(crate) async fn ran(mut command: Command) -> Said {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    output.unwrap_or_else(|_| panic!("{command:?} does not end")).expect("it starts").into()
}

impl Machine {
    /// A `kubectl` that is yet to be started.
    pub(crate) fn kubectl(&self, words: &[&str]) -> Command {
        let kubeconfig = self.disk("etc/rancher/k3s/k3s.yaml").display().to_string();
        self.command(&[&["kubectl", "--kubeconfig", &kubeconfig], words].concat())
    }

    /// What `kubectl` says.
    pub(crate) async fn said(&self, words: &[&str]) -> Said {
        ran(self.kubectl(words)).await
    }

    /// What it prints, when all is well.
    pub(crate) async fn told(&self, words: &[&str]) -> String {
        let said = self.said(words).await;
        assert_eq!(said.code, 0, "kubectl {words:?}: {said:?}");
        said.out
    }

    /// Gives it something to read.
    pub(crate) async fn given(&self, words: &[&str], input: &str) -> Said {
        let mut command = self.kubectl(words);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("kubectl was found before");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        output.unwrap_or_else(|_| panic!("kubectl {words:?} does not end")).expect("it is our child").into()
    }

    /// Applies manifests.
    pub(crate) async fn apply(&self, manifests: &str) {
        let said = self.given(&["apply", "-f", "-"], manifests).await;
        assert_eq!(said.code, 0, "{said:?}");
    }

    /// An object, or a list of them; nothing where there is none, or no API.
    pub(crate) async fn get(&self, words: &[&str]) -> Value {
        let said = self.said(&[&["get", "-o", "json"], words].concat()).await;
        if said.code == 0 { serde_json::from_str(&said.out).expect("JSON") } else { Value::Null }
    }

    /// Waits until it is as wanted.
    pub(crate) async fn until(&self, what: &str, words: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let found = self.get(words).await;
            if is_so(&found) {
                return found;
            }
            if began.elapsed() > PATIENCE {
                let events = self.said(&["get", "events", "-A"]).await.out;
                panic!("{what}: {words:?} is {:#}\n{events}", found.get("status").unwrap_or(&found));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a pod is ready.
    pub(crate) async fn ready(&self, pod: &str) -> Value {
        self.until("it is ready", &["pod", pod], |pod| holds(pod, "Ready")).await
    }

    /// Waits until nothing is left of what was deleted.
    pub(crate) async fn gone(&self, words: &[&str]) {
        self.until("it goes", words, Value::is_null).await;
    }

    /// Waits until the daemon's node is ready and pods can be made. Returns how long that took.
    pub(crate) async fn node_ready(&mut self) -> Duration {
        let began = Instant::now();
        loop {
            assert!(self.has_ended().is_none(), "the daemon has ended: {}", self.log());
            if holds(&self.get(&["node", NODE]).await, "Ready") {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "the node is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = began.elapsed();
        self.until("pods have somebody to be", &["serviceaccount", "default"], Value::is_object).await;
        took
    }

    /// What a container prints when it is asked to run this.
    pub(crate) async fn within(&self, pod: &str, command: &str) -> String {
        self.told(&["exec", pod, "--", "sh", "-c", command]).await
    }

    /// Waits until a container prints what is wanted.
    pub(crate) async fn within_until(&self, pod: &str, command: &str, is_so: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let said = self.said(&["exec", pod, "--", "sh", "-c", command]).await;
            if said.code == 0 && is_so(&said.out) {
                return said.out;
            }
            assert!(began.elapsed() < PATIENCE, "{pod}: {command}: {said:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a pod has an event that says this.
    pub(crate) async fn event(&self, pod: &str, reason: &str, message: &str) {
        let selector = format!("--field-selector=involvedObject.name={pod},reason={reason}");
        let says = |event: &Value| event["message"].as_str().is_some_and(|text| text.contains(message));
        let has = |list: &Value| list["items"].as_array().is_some_and(|events| events.iter().any(says));
        self.until(&format!("an event with {message:?}"), &["events", &selector], has).await;
    }
}

/// Whether a condition of an object is true.
pub(crate) fn holds(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == condition && one["status"] == "True"))
}
