//! Registers the nodes, and keeps saying that they are there.
//!
//! Owns:    the leases of the nodes; of each node what its kubelet writes.
//! Needs:   the API and the informer of the nodes.
//! Restart: permanent. It registers all again: those that are there are only told to be ready.
//! Fails:   never; what the API refuses is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_client::api::Connect;
use k3sd_client::informer::Informer;
use k3sd_runtime::{Actor, ActorError, Clock, Context, Moment, Rng, TimerId, message_kinds};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use super::template::{self, NOT_READY};
use super::{NodesArgs, Silent};

/// Requests at once.
const REQUESTS_MAX: usize = 32;
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often a node reports itself whole although nothing has changed; the kubelet's.
const REPORT_EVERY: Duration = Duration::from_secs(300);
const LEASES: &str = "kube-node-lease";

/// What the actor is started with.
#[derive(Clone)]
pub(super) struct HeartArgs {
    pub(super) connect: Connect,
    pub(super) nodes: Informer<Node>,
    pub(super) args: Arc<NodesArgs>,
    pub(super) silent: watch::Receiver<Silent>,
}

/// See the variants.
pub(super) enum HeartMsg {
    /// A node was told of, or couldn't be.
    Told {
        /// Which.
        index: usize,
        /// How far it is now.
        standing: Option<Standing>,
    },
    /// Other nodes are silent than before.
    SilenceChanged {
        /// Whom to ask.
        silent: watch::Receiver<Silent>,
    },
    /// Some node is due.
    BeatTick,
}

message_kinds!(HeartMsg { Told, SilenceChanged, BeatTick });

/// How far a node is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// When it last reported all of itself.
    reported: Option<Moment>,
}

/// The actor itself.
pub(super) struct Heart {
    args: HeartArgs,
    client: Client,
    standings: Vec<Standing>,
    due: BTreeMap<(Moment, usize), ()>,
    under_way: usize,
    timer: Option<TimerId>,
    rng: Rng,
}

impl Actor for Heart {
    type Args = HeartArgs;
    type Msg = HeartMsg;

    async fn init(ctx: &mut Context<HeartMsg>, args: HeartArgs) -> Result<Self, ActorError> {
        let (client, count, now) = (args.connect.client(), args.args.count, ctx.clock().now());
        let due = (0..count).map(|index| ((now, index), ())).collect();
        listen(ctx, args.silent.clone());
        let standings = vec![Standing::default(); count];
        let mut heart = Self { args, client, standings, due, under_way: 0, timer: None, rng: ctx.rng() };
        heart.beat(ctx);
        Ok(heart)
    }

    async fn handle(&mut self, ctx: &mut Context<HeartMsg>, message: HeartMsg) -> Result<(), ActorError> {
        let now = ctx.clock().now();
        match message {
            HeartMsg::Told { index, standing } => {
                self.under_way -= 1;
                let wait = match (standing, self.args.args.lease_period) {
                    (None, _) => Some(RETRY),
                    // They don't all beat at once.
                    (Some(_), Some(period)) => Some(period.mul_f64(1.0 - 0.04 * self.rng.fraction())),
                    (Some(_), None) => None,
                };
                self.standings[index] = standing.unwrap_or(self.standings[index]);
                self.due.extend(wait.map(|wait| ((now + wait, index), ())));
            }
            HeartMsg::SilenceChanged { silent } => {
                // Those that are back say so at once.
                self.due = std::mem::take(&mut self.due).into_keys().map(|(_, index)| ((now, index), ())).collect();
                listen(ctx, silent);
            }
            HeartMsg::BeatTick => self.timer = None,
        }
        self.beat(ctx);
        Ok(())
    }
}

impl Heart {
    /// Tells of all that are due, as many at once as may be.
    fn beat(&mut self, ctx: &mut Context<HeartMsg>) {
        let now = ctx.clock().now();
        let shown = self.args.nodes.snapshot();
        while self.under_way < REQUESTS_MAX
            && let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            let ((_, index), ()) = entry.remove_entry();
            let name = self.args.args.name(index);
            if self.args.silent.borrow().contains(&name) {
                self.due.insert((now + RETRY, index), ());
                continue;
            }
            let standing = self.standings[index];
            let node = shown.as_ref().and_then(|all| all.get("", &name).cloned());
            let is_late = standing.reported.is_none_or(|reported| now.since(reported) >= REPORT_EVERY);
            let told = Telling {
                client: self.client.clone(),
                args: self.args.args.clone(),
                index,
                registers: standing.reported.is_none(),
                reports: is_late || node.is_some_and(|node| !template::is_ready(&node)),
                clock: ctx.clock().clone(),
            };
            self.under_way += 1;
            ctx.pipe(async move {
                let reported = if told.reports { Some(now) } else { standing.reported };
                let outcome = told.tell().await;
                if let Err(error) = &outcome {
                    tracing::debug!(node = name, %error, "a fake node couldn't be told of");
                }
                HeartMsg::Told { index, standing: outcome.ok().map(|()| Standing { reported }) }
            });
        }
        let next = self.due.first_key_value().map(|((due, _), ())| *due);
        if self.under_way < REQUESTS_MAX
            && self.timer.is_none()
            && let Some(next) = next
        {
            self.timer = Some(ctx.send_at(next.min(now + RETRY), HeartMsg::BeatTick));
        }
    }
}

fn listen(ctx: &mut Context<HeartMsg>, mut silent: watch::Receiver<Silent>) {
    ctx.pipe(async move {
        if silent.changed().await.is_err() {
            std::future::pending::<()>().await; // Nobody can change it any more.
        }
        HeartMsg::SilenceChanged { silent }
    });
}

/// What is told of one node at one time.
struct Telling {
    client: Client,
    args: Arc<NodesArgs>,
    index: usize,
    registers: bool,
    reports: bool,
    clock: Clock,
}

impl Telling {
    async fn tell(&self) -> kube::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (name, wall) = (self.args.name(self.index), wall(&self.clock));
        if self.registers {
            match nodes.create(&PostParams::default(), &template::node(&self.args, self.index, wall)).await {
                Ok(made) => {
                    self.take_up(&nodes, &made).await?;
                    return self.renew(&name, wall).await;
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        if self.reports {
            let patch = json!({"status": template::status(&self.args, self.index, wall)});
            match nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
                // Somebody deleted it. Its kubelet registers it only when it starts.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => _ = other?,
            }
        }
        self.renew(&name, wall).await
    }

    /// It is ready from the start: where no controller watches nodes, nobody else says so.
    async fn take_up(&self, nodes: &Api<Node>, made: &Node) -> kube::Result<()> {
        let taints = made.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let kept: Vec<_> = taints.iter().filter(|taint| taint.key != NOT_READY).collect();
        if kept.len() == taints.len() {
            return Ok(());
        }
        let (name, version) = (self.args.name(self.index), &made.metadata.resource_version);
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": kept}});
        match nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            // Somebody else was quicker, who then looks after taints.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }

    async fn renew(&self, name: &str, wall: Timestamp) -> kube::Result<()> {
        if self.args.lease_period.is_none() {
            return Ok(());
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let renewed = json!({"spec": {"renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(wall)}});
        match leases.patch(name, &PatchParams::default(), &Patch::Merge(&renewed)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(drop),
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Some(node) = nodes.get_opt(name).await? else { return Ok(()) };
        leases.create(&PostParams::default(), &template::lease(&node, wall)).await.map(drop)
    }
}

pub(super) fn wall(clock: &Clock) -> Timestamp {
    let micros = i64::try_from(clock.wall().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}
