//! The kubelets of all fake nodes.
//!
//! Owns:    the status of pods on those nodes, and their removal.
//! Needs:   the API and the informers of nodes and pods.
//! Restart: permanent. All it knows is in the pods, but since when it has known them.
//! Fails:   when its informers are gone; what the API refuses is tried again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use k3sd_client::api::Connect;
use k3sd_client::informer::{Change, Informer, Subscription};
use k3sd_runtime::{Actor, ActorError, Context, Moment, TimerId, message_kinds};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tokio::sync::watch;

use super::Silent;
use super::addresses::Addresses;
use super::heart::wall;
use super::pods::{Place, Plan, plan};

/// Requests at once.
const REQUESTS_MAX: usize = 64;
/// Changes that may wait, and that are taken at once.
const CHANGES_MAX: usize = 4096;
const BATCH: usize = 256;
/// How soon something is looked at again that couldn't be done.
const RETRY: Duration = Duration::from_millis(500);

/// What the actor is started with.
#[derive(Clone)]
pub(super) struct KubeletArgs {
    pub(super) connect: Connect,
    pub(super) nodes: Informer<Node>,
    pub(super) pods: Informer<Pod>,
    pub(super) silent: watch::Receiver<Silent>,
}

/// See the variants.
pub(super) enum KubeletMsg {
    /// Pods are others.
    Changed {
        /// In order.
        changes: Vec<Change<Pod>>,
        /// Where more come from; `None` when there are none.
        subscription: Option<Subscription<Pod>>,
    },
    /// Something was written, or why not.
    Done {
        /// The pod.
        uid: String,
        /// It as it is now, if that is known.
        outcome: kube::Result<Option<Arc<Pod>>>,
    },
    /// Other nodes are silent than before.
    SilenceChanged {
        /// Whom to ask.
        silent: watch::Receiver<Silent>,
    },
    /// Some pod is due.
    DueTick,
}

message_kinds!(KubeletMsg { Changed, Done, SilenceChanged, DueTick });

/// A pod as it was last seen.
struct Known {
    pod: Arc<Pod>,
    since: Moment,
    due: Option<Moment>,
    is_busy: bool,
}

/// The actor itself.
pub(super) struct Kubelet {
    args: KubeletArgs,
    client: Client,
    pods: HashMap<String, Known>,
    addresses: Addresses,
    due: BTreeSet<(Moment, String)>,
    /// To be looked at as soon as there is room.
    waiting: VecDeque<String>,
    under_way: usize,
    timer: Option<(Moment, TimerId)>,
}

impl Actor for Kubelet {
    type Args = KubeletArgs;
    type Msg = KubeletMsg;

    async fn init(ctx: &mut Context<KubeletMsg>, args: KubeletArgs) -> Result<Self, ActorError> {
        let (mut pods, mut nodes) = (args.pods.clone(), args.nodes.clone());
        listen(ctx, args.silent.clone());
        ctx.pipe(async move {
            // Without its node nothing can be done about a pod.
            nodes.synced().await;
            KubeletMsg::Changed { changes: Vec::new(), subscription: pods.subscribe(CHANGES_MAX).await.ok() }
        });
        Ok(Self {
            client: args.connect.client(),
            args,
            pods: HashMap::new(),
            addresses: Addresses::default(),
            due: BTreeSet::new(),
            waiting: VecDeque::new(),
            under_way: 0,
            timer: None,
        })
    }

    async fn handle(&mut self, ctx: &mut Context<KubeletMsg>, message: KubeletMsg) -> Result<(), ActorError> {
        let now = ctx.clock().now();
        match message {
            KubeletMsg::Changed { subscription: None, .. } => return Err(ActorError::new("pods can't be followed")),
            KubeletMsg::Changed { changes, subscription: Some(subscription) } => {
                for change in changes {
                    self.take(change, now);
                }
                follow(ctx, subscription);
            }
            KubeletMsg::Done { uid, outcome } => self.done(uid, outcome, now),
            KubeletMsg::SilenceChanged { silent } => {
                self.waiting.extend(self.pods.keys().cloned());
                listen(ctx, silent);
            }
            KubeletMsg::DueTick => {
                self.timer = None;
                while self.due.first().is_some_and(|(due, _)| *due <= now)
                    && let Some((_, uid)) = self.due.pop_first()
                {
                    self.waiting.push_back(uid);
                }
            }
        }
        self.go_on(ctx);
        Ok(())
    }
}

impl Kubelet {
    fn take(&mut self, change: Change<Pod>, now: Moment) {
        match change {
            Change::Replaced(all) => {
                let there: BTreeSet<&str> = all.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
                let gone: Vec<String> = self.pods.keys().filter(|uid| !there.contains(uid.as_str())).cloned().collect();
                gone.iter().for_each(|uid| self.forget(uid));
                all.iter().for_each(|pod| self.see(pod.clone(), now));
            }
            Change::Applied { new, .. } => self.see(new, now),
            Change::Deleted(pod) => self.forget(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    fn see(&mut self, pod: Arc<Pod>, now: Moment) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        let is_host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        if let Some(address) = address
            && !is_host
        {
            self.addresses.take(&uid, address);
        }
        match self.pods.get_mut(&uid) {
            // What we wrote came back before its echo did.
            Some(known) if version(&known.pod) >= version(&pod) => return,
            Some(known) => known.pod = pod,
            None => _ = self.pods.insert(uid.clone(), Known { pod, since: now, due: None, is_busy: false }),
        }
        self.waiting.push_back(uid);
    }

    fn forget(&mut self, uid: &str) {
        self.addresses.free(uid);
        if let Some(Known { due: Some(due), .. }) = self.pods.remove(uid) {
            self.due.remove(&(due, uid.to_owned()));
        }
    }

    fn done(&mut self, uid: String, outcome: kube::Result<Option<Arc<Pod>>>, now: Moment) {
        self.under_way -= 1;
        let Some(known) = self.pods.get_mut(&uid) else { return };
        known.is_busy = false;
        match outcome {
            Ok(Some(pod)) => self.see(pod, now),
            Ok(None) => {}
            // It is gone, or is another by now: whatever it is, its informer will tell.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                tracing::debug!(%error, "a fake kubelet was refused");
                self.look_at(uid, now + RETRY);
                return;
            }
        }
        self.waiting.push_back(uid);
    }

    /// Looks at what waits, as long as there is room.
    fn go_on(&mut self, ctx: &mut Context<KubeletMsg>) {
        while self.under_way < REQUESTS_MAX
            && let Some(uid) = self.waiting.pop_front()
        {
            self.look(ctx, uid);
        }
        let next = self.due.first().map(|(due, _)| *due);
        if let Some(next) = next
            && self.timer.as_ref().is_none_or(|(due, _)| next < *due)
        {
            if let Some((_, timer)) = self.timer.take() {
                ctx.cancel(timer);
            }
            self.timer = Some((next, ctx.send_at(next, KubeletMsg::DueTick)));
        }
    }

    fn look(&mut self, ctx: &mut Context<KubeletMsg>, uid: String) {
        let now = ctx.clock().now();
        let Some(known) = self.pods.get(&uid).filter(|known| !known.is_busy) else { return };
        let pod = known.pod.clone();
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let Some(node) = self.args.nodes.snapshot().and_then(|nodes| nodes.get("", name).cloned()) else {
            // The nodes of others, or one that isn't there yet.
            return self.look_at(uid, now + RETRY);
        };
        if self.args.silent.borrow().contains(name) {
            return;
        }
        let Some(own) = self.addresses.of(&uid, &node) else { return self.look_at(uid, now + RETRY) };
        let host = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let host = host.filter(|address| address.type_ == "InternalIP").map(|ip| ip.address.clone()).next();
        let place = Place { host: host.unwrap_or_default(), own, age: now.since(known.since), wall: wall(ctx.clock()) };
        match plan(&pod, &place) {
            Plan::Nothing => {}
            // Times in the API are cut to seconds, so a look may come a little early; then it comes again.
            Plan::After(wait) => self.look_at(uid, now + wait.max(Duration::from_millis(1))),
            Plan::Status(patch) => self.carry_out(ctx, uid, &pod, Some(patch)),
            Plan::Remove => self.carry_out(ctx, uid, &pod, None),
        }
    }

    fn look_at(&mut self, uid: String, due: Moment) {
        let Some(known) = self.pods.get_mut(&uid) else { return };
        if let Some(before) = known.due.replace(due) {
            self.due.remove(&(before, uid.clone()));
        }
        self.due.insert((due, uid));
    }

    /// Writes a status, or removes the pod where there is none to write.
    fn carry_out(&mut self, ctx: &mut Context<KubeletMsg>, uid: String, pod: &Pod, status: Option<serde_json::Value>) {
        let Some(known) = self.pods.get_mut(&uid) else { return };
        known.is_busy = true;
        self.under_way += 1;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let name = pod.metadata.name.clone().unwrap_or_default();
        ctx.pipe(async move {
            let outcome = match status {
                Some(patch) => {
                    let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
                    patched.map(|pod| Some(Arc::new(pod)))
                }
                None => {
                    let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
                    let params = DeleteParams {
                        grace_period_seconds: Some(0),
                        preconditions: Some(preconditions),
                        ..DeleteParams::default()
                    };
                    // What finalizers keep comes back, with nothing left to do about it.
                    api.delete(&name, &params).await.map(|answer| answer.left().map(Arc::new))
                }
            };
            KubeletMsg::Done { uid, outcome }
        });
    }
}

fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_deref().and_then(k3sd_client::informer::version_number)
}

fn listen(ctx: &mut Context<KubeletMsg>, mut silent: watch::Receiver<Silent>) {
    ctx.pipe(async move {
        if silent.changed().await.is_err() {
            std::future::pending::<()>().await; // Nobody can change it any more.
        }
        KubeletMsg::SilenceChanged { silent }
    });
}

/// Waits for what changes next, and takes all that has changed by then.
fn follow(ctx: &mut Context<KubeletMsg>, mut subscription: Subscription<Pod>) {
    ctx.pipe(async move {
        let mut changes = Vec::new();
        let mut next = subscription.next().await;
        while let Some(change) = next {
            changes.push(change);
            if changes.len() == BATCH {
                return KubeletMsg::Changed { changes, subscription: Some(subscription) };
            }
            next = match subscription.next().now_or_never() {
                Some(next) => next,
                None => return KubeletMsg::Changed { changes, subscription: Some(subscription) },
            };
        }
        KubeletMsg::Changed { changes, subscription: None }
    });
}
