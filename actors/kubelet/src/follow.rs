//! What one part of the node knows and another one needs: followed, and handed on. Each is a task that rebuilds all it
//! hands on from its source; its death costs nobody anything but a little time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer::{Change, Informer};
use k3sd_cri::{Cri, v1};
use k3sd_kubelet_base::Pods;
use k3sd_kubelet_cgroups::{Cgroups, NodeLimits, burstable_milli};
use k3sd_kubelet_cni::Cidr;
use k3sd_objects::quantity::Quantity;
use k3sd_runtime::{ActorError, ChildSpec, Clock, task};
use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;

/// Changes of the Node that may wait; it changes a few times a minute.
const CHANGES_MAX: usize = 16;
/// How long pods are let come and go before somebody looks at all of them.
const SETTLE: Duration = Duration::from_secs(2);
/// How long after a failure the runtime or the kernel is asked again, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long the runtime may take.
const RUNTIME_LIMIT: Duration = Duration::from_secs(10);

/// What the Node says, for those who run pods.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    /// Its addresses.
    pub(crate) addresses: Arc<watch::Sender<Vec<String>>>,
    /// What pods may use.
    pub(crate) allocatable: Arc<watch::Sender<BTreeMap<String, Quantity>>>,
    /// The networks of its pods.
    pub(crate) pod_cidrs: Arc<watch::Sender<Vec<Cidr>>>,
}

/// Sets a value, and wakes nobody if it is what it was.
fn set<T: PartialEq>(place: &watch::Sender<T>, value: T) {
    place.send_if_modified(|old| {
        let is_new = *old != value;
        if is_new {
            *old = value;
        }
        is_new
    });
}

impl NodeFacts {
    /// Takes over what this Node says. What it doesn't say stays as it was found on the machine.
    fn take(&self, node: &Node) {
        let status = node.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_ref()).into_iter().flatten();
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        let addresses: Vec<String> = internal.map(|address| address.address.clone()).collect();
        if !addresses.is_empty() {
            set(&self.addresses, addresses);
        }
        if let Some(allocatable) = status.and_then(|status| status.allocatable.as_ref()) {
            let read = |(name, text): (&String, &k8s_openapi::apimachinery::pkg::api::resource::Quantity)| {
                Some((name.clone(), text.0.parse().ok()?))
            };
            set(&self.allocatable, allocatable.iter().filter_map(read).collect());
        }
        let cidrs = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
        set(&self.pod_cidrs, cidrs.filter_map(|text| text.parse().ok()).collect());
    }
}

/// Follows the Node.
pub(crate) fn node(facts: NodeFacts, node: Informer<Node>, name: String) -> ChildSpec {
    task("node-facts", move |_| {
        let (facts, mut node, name) = (facts.clone(), node.clone(), name.clone());
        async move {
            let mut changes = node.subscribe(CHANGES_MAX).await?;
            while let Some(change) = changes.next().await {
                match change {
                    Change::Applied { new, .. } => facts.take(&new),
                    Change::Replaced(all) => all.iter().for_each(|node| {
                        if node.metadata.name.as_deref() == Some(&name) {
                            facts.take(node);
                        }
                    }),
                    // A Node that somebody deleted comes back as it was, or with the next start.
                    Change::Deleted(_) => {}
                }
            }
            Ok(())
        }
    })
}

/// Keeps the cgroups above those of pods: what pods together may take, and the share of those that request something.
pub(crate) fn classes(
    cgroups: Arc<Cgroups>,
    pods: Pods,
    allocatable: watch::Receiver<BTreeMap<String, Quantity>>,
    pids: Option<u64>,
) -> ChildSpec {
    task("classes", move |handle| {
        let (cgroups, mut pods, mut allocatable) = (cgroups.clone(), pods.clone(), allocatable.clone());
        let clock = handle.system().clock().clone();
        async move {
            let (mut done, mut delay) = (None, RETRY_MIN);
            loop {
                let limits = limits(&allocatable.borrow_and_update(), pids);
                let milli = {
                    let pods = pods.borrow_and_update();
                    burstable_milli(pods.pods.values().map(|view| &*view.pod))
                };
                if done.as_ref() != Some(&(limits.clone(), milli)) {
                    match cgroups.ensure_qos(&limits, milli).await {
                        Ok(()) => (done, delay) = (Some((limits, milli)), RETRY_MIN),
                        Err(error) => {
                            tracing::warn!(%error, "the cgroups of all pods can't be made as they should be");
                            pause(&clock, &mut delay).await;
                            continue;
                        }
                    }
                }
                tokio::select! {
                    changed = pods.changed() => changed?,
                    changed = allocatable.changed() => changed?,
                }
                clock.sleep_until(clock.now() + SETTLE).await;
            }
        }
    })
}

fn limits(allocatable: &BTreeMap<String, Quantity>, pids: Option<u64>) -> NodeLimits {
    let amount = |name: &str| allocatable.get(name).and_then(|amount| u64::try_from(amount.value()).ok());
    let milli = allocatable.get("cpu").and_then(|cpu| u64::try_from(cpu.milli_value()).ok());
    let pages =
        allocatable.keys().filter_map(|name| Some((name.strip_prefix("hugepages-")?.to_owned(), amount(name)?)));
    NodeLimits { cpu_milli: milli.unwrap_or(0), memory: amount("memory"), pids, hugepages: pages.collect() }
}

async fn pause(clock: &Clock, delay: &mut Duration) {
    clock.sleep_until(clock.now() + *delay).await;
    *delay = (*delay * 2).min(RETRY_MAX);
}

/// Says which sandboxes there are, each time that pods came or went, so that addresses of others can be freed.
pub(crate) fn sandboxes(cri: Cri, pods: Pods, place: Arc<watch::Sender<Option<Arc<BTreeSet<String>>>>>) -> ChildSpec {
    task("sandboxes", move |handle| {
        let (cri, mut pods, place) = (cri.clone(), pods.clone(), place.clone());
        let clock = handle.system().clock().clone();
        async move {
            let (mut delay, mut known) = (RETRY_MIN, None);
            loop {
                let uids: BTreeSet<String> = pods.borrow_and_update().pods.keys().cloned().collect();
                if known.as_ref() != Some(&uids) {
                    match list(&cri).await {
                        Ok(ids) => {
                            set(&place, Some(Arc::new(ids)));
                            (known, delay) = (Some(uids), RETRY_MIN);
                        }
                        Err(why) => {
                            tracing::debug!(why, "the runtime doesn't say which sandboxes there are");
                            pause(&clock, &mut delay).await;
                            continue;
                        }
                    }
                }
                pods.changed().await?;
                clock.sleep_until(clock.now() + SETTLE).await;
            }
        }
    })
}

async fn list(cri: &Cri) -> Result<BTreeSet<String>, String> {
    let answer = tokio::time::timeout(RUNTIME_LIMIT, cri.list_pod_sandbox(v1::ListPodSandboxRequest { filter: None }));
    let answer = answer.await.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    Ok(answer.items.into_iter().map(|sandbox| sandbox.id).collect())
}

/// Keeps asking somebody, each time that pods changed, and puts the answer where it is read without waiting.
pub(crate) fn asked<F>(
    name: &str,
    pods: Pods,
    place: Arc<watch::Sender<Vec<String>>>,
    ask: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> ChildSpec
where
    F: Future<Output = Option<Vec<String>>> + Send + 'static,
{
    task(name, move |handle| {
        let (mut pods, place, ask) = (pods.clone(), place.clone(), ask.clone());
        let clock = handle.system().clock().clone();
        async move {
            loop {
                pods.borrow_and_update();
                if let Some(found) = ask().await {
                    set(&place, found);
                }
                pods.changed().await.map_err(ActorError::from)?;
                clock.sleep_until(clock.now() + SETTLE).await;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_node_says_is_handed_on_once() {
        let facts = NodeFacts {
            addresses: Arc::new(watch::channel(vec!["192.0.2.1".to_owned()]).0),
            allocatable: Arc::new(watch::channel(BTreeMap::new()).0),
            pod_cidrs: Arc::new(watch::channel(Vec::new()).0),
        };
        let mut cidrs = facts.pod_cidrs.subscribe();
        let node = |spec: serde_json::Value, status: serde_json::Value| -> Node {
            serde_json::from_value(json!({ "metadata": { "name": "n" }, "spec": spec, "status": status }))
                .expect("a node")
        };
        facts.take(&node(json!({}), json!({})));
        assert_eq!(*facts.addresses.borrow(), ["192.0.2.1"], "what was found on the machine stays");
        let whole = node(
            json!({ "podCIDRs": ["10.42.0.0/24", "fd00::/64", "nonsense"] }),
            json!({
                "addresses": [{ "type": "Hostname", "address": "n" }, { "type": "InternalIP", "address": "192.0.2.2" }],
                "allocatable": { "cpu": "1500m", "memory": "1Gi", "hugepages-2Mi": "4Mi" },
            }),
        );
        facts.take(&whole);
        assert!(cidrs.has_changed().expect("the place is there"));
        assert_eq!(cidrs.borrow_and_update().len(), 2);
        assert_eq!(*facts.addresses.borrow(), ["192.0.2.2"]);
        let limits = limits(&facts.allocatable.borrow(), Some(7));
        assert_eq!((limits.cpu_milli, limits.memory, limits.pids), (1500, Some(1 << 30), Some(7)));
        assert_eq!(limits.hugepages, BTreeMap::from([("2Mi".to_owned(), 4 << 20)]));
        facts.take(&whole);
        assert!(!cidrs.has_changed().expect("the place is there"), "nothing is new");
    }
}
