//! Fake nodes: what the kubelets of many nodes would tell the API, without a container anywhere.
//!
//! ```text
//! NAME             one_for_one
//! ├─ nodes         an informer of the fake nodes
//! ├─ pods          an informer of all pods that have a node
//! ├─ heart         registers the nodes, renews their leases, reports them ready
//! └─ kubelet       marks pods running, finished, gone
//! ```
//!
//! They speak to the API and to nobody else, so it may be in this process or far away. All nodes share one actor and one
//! watch, so that thousands of them are cheap. What a pod does can be said in its annotations:
//!
//! | annotation | meaning |
//! |---|---|
//! | `fake.k3sd.io/start-after: 2s` | it stays Pending for so long |
//! | `fake.k3sd.io/ready-after: 2s` | it is Running, and Ready only after so long |
//! | `fake.k3sd.io/ready: "false"` | it never becomes Ready |
//! | `fake.k3sd.io/exit-code: "0"` | its containers end with this code; without it they run for ever |
//! | `fake.k3sd.io/run-for: 2s` | so long after their start; at once unless said |
//! | `fake.k3sd.io/stop-after: 2s` | so long it takes to stop when it is deleted, if its grace period is that long |
//!
//! Times are whole seconds in the API, so short ones are only roughly kept.

mod addresses;
mod heart;
mod kubelet;
mod pods;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::informer::{InformerArgs, informer};
use k3sd_runtime::{ChildSpec, Spec, Strategy, subtree, worker};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use tokio::sync::watch;

use self::heart::{Heart, HeartArgs};
use self::kubelet::{Kubelet, KubeletArgs};

/// The label of all fake nodes.
pub const LABEL: &str = "fake.k3sd.io/node";
/// Kill schedules of tests are denser than what operators see.
const RESTARTS: u32 = 10_000;
const PERIOD: Duration = Duration::from_secs(60);

/// What the nodes are like.
#[derive(Clone, Debug)]
pub struct NodesArgs {
    /// How many.
    pub count: usize,
    /// Their names are this and a number, from 0 on.
    pub prefix: String,
    /// Over how many zones they are spread in turn; 0 for none.
    pub zones: usize,
    /// What each has of `cpu`, `memory`, `pods` and the like.
    pub capacity: BTreeMap<String, String>,
    /// Labels beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints from the start.
    pub taints: Vec<Taint>,
    /// How often each renews its lease; as the kubelet, 10 s. `None`: never, for measurements without a node controller.
    pub lease_period: Option<Duration>,
}

impl Default for NodesArgs {
    fn default() -> Self {
        let capacity = [("cpu", "8"), ("memory", "32Gi"), ("ephemeral-storage", "100Gi"), ("pods", "110")];
        Self {
            count: 3,
            prefix: "node-".to_owned(),
            zones: 3,
            capacity: capacity.map(|(name, amount)| (name.to_owned(), amount.to_owned())).into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            lease_period: Some(Duration::from_secs(10)),
        }
    }
}

impl NodesArgs {
    /// So many of the usual ones.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self { count, ..Self::default() }
    }

    /// The name of a node.
    #[must_use]
    pub fn name(&self, index: usize) -> String {
        format!("{}{index}", self.prefix)
    }
}

/// The nodes that don't answer.
type Silent = BTreeSet<String>;

/// Takes nodes away, and brings them back.
#[derive(Clone, Debug)]
pub struct FakeNodes(Arc<watch::Sender<Silent>>);

impl FakeNodes {
    /// From now on nothing is heard of this node, and nothing happens to its pods.
    pub fn silence(&self, node: &str) {
        self.0.send_modify(|silent| _ = silent.insert(node.to_owned()));
    }

    /// It is back, with all its pods as they were.
    pub fn answer(&self, node: &str) {
        self.0.send_modify(|silent| _ = silent.remove(node));
    }
}

/// The nodes, to be a child of whoever needs them. The identity has to be allowed to do what all their kubelets are.
#[must_use]
pub fn fake_nodes(name: &str, connect: &Connect, args: NodesArgs) -> (ChildSpec, FakeNodes) {
    let (place, silent) = watch::channel(Silent::new());
    let of_ours = format!("{LABEL}=true");
    let (nodes_child, nodes) = informer::<Node>("nodes", InformerArgs::all(connect.clone()).labels(&of_ours));
    let bound = InformerArgs::<Pod>::all(connect.clone()).fields("spec.nodeName!=");
    let (pods_child, pods) = informer("pods", bound);
    let heart =
        HeartArgs { connect: connect.clone(), nodes: nodes.clone(), args: Arc::new(args), silent: silent.clone() };
    let kubelet = KubeletArgs { connect: connect.clone(), nodes, pods, silent };
    let spec = Spec::new(Strategy::OneForOne)
        .budget(RESTARTS, PERIOD)
        .child(nodes_child)
        .child(pods_child)
        .child(worker::<Heart>("heart", heart))
        .child(worker::<Kubelet>("kubelet", kubelet));
    (subtree(name, spec), FakeNodes(Arc::new(place)))
}
