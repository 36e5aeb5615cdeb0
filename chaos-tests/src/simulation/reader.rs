//! A user who reads logs through the API, and pages of the node.
//!
//! While faults go on that may fail, but what comes has to be of the container that was asked for. At rest nothing
//! fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use k3sd_runtime::{Clock, Rng};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::apps::get;
use super::trace::Trace;
use super::world::{NODE, World};
use crate::checkers::logs::{self, Given, Told};

/// The longest pause between two logs.
const PAUSE_MS_MAX: u64 = 500;
/// One of so many logs is followed, for no longer than this.
const FOLLOWED: u64 = 4;
const FOLLOW_MS_MAX: u64 = 8000;
/// Who gets no answer within this asks for another log.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Why there is no text.
#[derive(Debug)]
enum Failure {
    Refused(kube::Error),
    Code(u16),
    Silence,
}

impl Failure {
    /// What is the same each time: messages may name places of this run's own.
    fn word(&self) -> String {
        match self {
            Self::Refused(kube::Error::Api(status)) => format!("{} {}", status.code, status.reason),
            Self::Refused(_) => "the connection failed".to_owned(),
            Self::Code(code) => code.to_string(),
            Self::Silence => "no answer".to_owned(),
        }
    }
}

async fn text(client: &Client, path: &str) -> Result<String, Failure> {
    let request = Request::get(path).body(Vec::new()).expect("a path");
    let answer = tokio::time::timeout(ANSWER_WITHIN, client.request_text(request)).await;
    answer.map_err(|_| Failure::Silence)?.map_err(Failure::Refused)
}

/// Reads what comes within this time, until there is no more of it or it breaks off.
async fn pieces(client: &Client, path: &str, within: Duration) -> Result<String, Failure> {
    let request = Request::get(path).body(Body::empty()).expect("a path");
    let mut bytes = Vec::new();
    let all = async {
        let mut response = client.send(request).await.map_err(Failure::Refused)?;
        if !response.status().is_success() {
            return Err(Failure::Code(response.status().as_u16()));
        }
        while let Some(Ok(frame)) = response.body_mut().frame().await {
            bytes.extend(frame.into_data().unwrap_or_default());
        }
        Ok(())
    };
    tokio::time::timeout(within, all).await.unwrap_or(Ok(()))?;
    // Where it broke off there may be a line without its end.
    let lines = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Ok(String::from_utf8_lossy(&bytes[..lines]).into_owned())
}

fn log_path(namespace: &str, pod: &str, container: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}")
}

/// The user.
pub struct Reader {
    client: Client,
    clock: Clock,
    rng: Rng,
    trace: Trace,
    /// The uids of all pods that were ever seen, by name.
    seen: BTreeMap<String, BTreeSet<String>>,
    /// Those that were seen last.
    pods: Vec<Value>,
    findings: Vec<String>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Who reaches the API like this.
    #[must_use]
    pub fn new(client: Client, clock: Clock, rng: Rng, trace: Trace) -> Self {
        Self { client, clock, rng, trace, seen: BTreeMap::new(), pods: Vec::new(), findings: Vec::new() }
    }

    /// Reads for so long, and says what was wrong.
    pub async fn read_for(mut self, span: Duration) -> Vec<String> {
        let end = self.clock.now() + span;
        while self.clock.now() < end {
            self.read_one().await;
            let pause = Duration::from_millis(self.rng.below(PAUSE_MS_MAX));
            self.clock.sleep_until(self.clock.now() + pause).await;
        }
        self.findings
    }

    async fn read_one(&mut self) {
        let draw = self.rng.next_u64();
        let found = get(&self.client, PODS).await;
        // Who can't see the pods asks for one that he saw before.
        let pods = found["items"].as_array().cloned().unwrap_or_else(|| std::mem::take(&mut self.pods));
        let word = |pod: &Value, path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        for pod in &pods {
            self.seen.entry(word(pod, "/metadata/name")).or_default().insert(word(pod, "/metadata/uid"));
        }
        let Some(pod) = pods.get(usize::try_from(draw % (pods.len().max(1) as u64)).unwrap_or_default()) else {
            return;
        };
        let (name, container) = (word(pod, "/metadata/name"), word(pod, "/spec/containers/0/name"));
        let mut gone = self.seen.get(&name).cloned().unwrap_or_default();
        gone.remove(&word(pod, "/metadata/uid"));
        self.pods = pods;
        let path = log_path("default", &name, &container);
        let answer = if self.rng.below(FOLLOWED) == 0 {
            let within = Duration::from_millis(self.rng.below(FOLLOW_MS_MAX));
            pieces(&self.client, &format!("{path}&follow=true"), within).await
        } else {
            text(&self.client, &path).await
        };
        let told = match answer {
            Ok(text) => {
                let told = format!("{text:?}");
                self.findings.extend(logs::check_given(&Given { pod: name.clone(), container, gone, text }));
                told
            }
            Err(failure) => failure.word(),
        };
        self.trace.line(&format!("the log of {name}: {told}"));
    }
}

/// What the node tells when all is at rest.
pub(super) async fn ask(world: &World) -> Told {
    let client = world.cluster.admin();
    let read = async |path: &str| text(&client, path).await.map_err(|failure| format!("{failure:?}"));
    let mut logs = Vec::new();
    for said in world.cri.greetings() {
        let answer = read(&log_path(&said.namespace, &said.pod, &said.name)).await;
        logs.push((said, answer));
    }
    Told {
        logs,
        health: read(&format!("/api/v1/nodes/{NODE}/proxy/healthz")).await,
        summary: read(&format!("/api/v1/nodes/{NODE}/proxy/stats/summary")).await,
    }
}
