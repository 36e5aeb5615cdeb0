//! Writes a pod's files again when what they are made of has changed, and before a token in them ends.
//!
//! Owns:    which pods are followed.
//! Needs:   objects and tokens, and the threads that write.
//! Restart: permanent. The pods are in a place that outlives it; it has their objects watched, and looks at all of them.
//! Fails:   never; what can't be written is tried again, and the old files stay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::lend::Loan;
use k3sd_runtime::{Actor, ActorError, Address, Context, Moment, TimerId};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::{Followed, KeeperMsg, Registry};
use crate::plan::{Maker, Upkeep, of_volume, used};
use crate::types::{PodIdentity, VolumeCounts};

/// Waits between two failed attempts: doubled up to the last.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(120);
/// Whoever makes a pod's volumes for longer than this has given up.
const BUSY_MAX: Duration = Duration::from_secs(180);

/// How often storage drivers are asked that want it: nobody tells a node that a volume has grown, and it may not watch.
const CARE_PAUSE: Duration = Duration::from_secs(90);

/// How many volumes pods want, and have.
fn counts<'a>(pods: impl Iterator<Item = &'a Followed>) -> VolumeCounts {
    let mut counts = VolumeCounts::new();
    for followed in pods {
        for (volume, _) in used(&followed.pod) {
            let plugin = of_volume(volume).or_else(|| followed.plugins.get(&volume.name).cloned());
            let Some(plugin) = plugin.filter(|plugin| !plugin.is_empty()) else { continue };
            let (wanted, there) = counts.entry(plugin).or_default();
            *wanted += 1;
            *there += u64::from(followed.is_whole);
        }
    }
    counts
}

/// When a pod's volumes are looked at next, if nothing happens before.
fn due(now: Moment, upkeep: &Upkeep) -> Option<Moment> {
    let care = upkeep.wants_care.then(|| now + CARE_PAUSE);
    upkeep.refresh.into_iter().chain(care).min()
}

/// What it is started with.
#[derive(Clone)]
pub(crate) struct KeeperArgs {
    pub(crate) maker: Maker,
    pub(crate) registry: Registry,
    pub(crate) place: Arc<watch::Sender<Option<Address<KeeperMsg>>>>,
}

/// The actor.
pub(crate) struct KeeperActor {
    maker: Maker,
    pods: Loan<BTreeMap<String, Followed>>,
    work: BTreeMap<String, Work>,
}

/// What happens about one pod.
#[derive(Default)]
struct Work {
    is_running: bool,
    failures: u32,
    timer: Option<TimerId>,
}

impl Actor for KeeperActor {
    type Args = KeeperArgs;
    type Msg = KeeperMsg;

    async fn init(ctx: &mut Context<KeeperMsg>, args: KeeperArgs) -> Result<Self, ActorError> {
        let mut pods = args.registry.borrow()?;
        for (uid, followed) in pods.iter_mut() {
            // Whether somebody is still at it isn't known; `Ended` has it looked at once more if so.
            followed.busy_since = None;
            args.maker.objects.keep(uid, Some(&followed.pod)).await?;
            ctx.send_self(KeeperMsg::Touched { uids: vec![uid.clone()] });
        }
        args.place.send_replace(Some(ctx.address()));
        Ok(Self { maker: args.maker, pods, work: BTreeMap::new() })
    }

    async fn handle(&mut self, ctx: &mut Context<KeeperMsg>, message: KeeperMsg) -> Result<(), ActorError> {
        match message {
            KeeperMsg::Began { pod, who, reply } => {
                self.began(ctx.clock().now(), pod, who);
                reply.send(());
            }
            KeeperMsg::Ended { uid, upkeep, is_whole, reply } => {
                self.ended(ctx, &uid, upkeep, is_whole);
                reply.send(());
            }
            KeeperMsg::Ask { uid, reply } => {
                let about = |followed: &Followed| (followed.pod.clone(), followed.persistent.clone());
                reply.send(self.pods.get(&uid).map(about));
            }
            KeeperMsg::Count { reply } => reply.send(counts(self.pods.values())),
            KeeperMsg::Seen { uid, pod, reply } => {
                self.seen(ctx, &uid, pod);
                reply.send(());
            }
            KeeperMsg::Touched { uids } => uids.iter().for_each(|uid| self.touched(ctx, uid)),
            KeeperMsg::Forget { uid, reply } => {
                self.forget(ctx, &uid);
                reply.send(());
            }
            KeeperMsg::RefreshTick { uid } => {
                self.work.entry(uid.clone()).or_default().timer = None;
                self.touched(ctx, &uid);
            }
            KeeperMsg::Refreshed { uid, outcome } => self.refreshed(ctx, &uid, outcome),
        }
        Ok(())
    }
}

impl KeeperActor {
    fn began(&mut self, now: Moment, pod: Arc<Pod>, who: PodIdentity) {
        let before = self.pods.get(&who.uid);
        let is_dirty = before.is_some_and(|followed| followed.is_dirty);
        let is_whole = before.is_some_and(|followed| followed.is_whole);
        let known = before.map(|followed| (followed.persistent.clone(), followed.plugins.clone()));
        let (persistent, plugins) = known.unwrap_or_default();
        let busy_since = Some(now);
        let uid = who.uid.clone();
        self.pods.insert(uid, Followed { pod, who, busy_since, is_dirty, persistent, plugins, is_whole });
    }

    fn ended(&mut self, ctx: &mut Context<KeeperMsg>, uid: &str, upkeep: Upkeep, is_whole: bool) {
        let due = due(ctx.clock().now(), &upkeep);
        let Some(followed) = self.pods.get_mut(uid) else { return };
        followed.is_whole = is_whole;
        followed.persistent.extend(upkeep.persistent);
        followed.plugins.extend(upkeep.plugins);
        // Not noted as busy: the keeper died meanwhile, and may have written newer files before older ones were.
        followed.is_dirty |= followed.busy_since.take().is_none();
        self.set_timer(ctx, uid, due);
        if self.pods.get(uid).is_some_and(|followed| followed.is_dirty) {
            self.touched(ctx, uid);
        }
    }

    fn seen(&mut self, ctx: &mut Context<KeeperMsg>, uid: &str, pod: Arc<Pod>) {
        let Some(followed) = self.pods.get_mut(uid) else { return };
        let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
        let is_other = shown(&followed.pod) != shown(&pod);
        followed.pod = pod;
        if is_other {
            self.touched(ctx, uid);
        }
    }

    fn touched(&mut self, ctx: &mut Context<KeeperMsg>, uid: &str) {
        let now = ctx.clock().now();
        let Some(followed) = self.pods.get_mut(uid) else { return };
        let work = self.work.entry(uid.to_owned()).or_default();
        if work.is_running || followed.busy_since.is_some_and(|since| now.since(since) < BUSY_MAX) {
            followed.is_dirty = true;
            return;
        }
        followed.is_dirty = false;
        work.is_running = true;
        let (maker, pod, who) = (self.maker.clone(), followed.pod.clone(), followed.who.clone());
        ctx.pipe(async move {
            let outcome = maker.refresh(&pod, &who).await.map_err(|error| error.event());
            KeeperMsg::Refreshed { uid: who.uid, outcome }
        });
    }

    fn refreshed(&mut self, ctx: &mut Context<KeeperMsg>, uid: &str, outcome: Result<Upkeep, String>) {
        let work = self.work.entry(uid.to_owned()).or_default();
        work.is_running = false;
        let Some(followed) = self.pods.get_mut(uid) else {
            self.work.remove(uid);
            return;
        };
        let next = match outcome {
            Ok(upkeep) => {
                work.failures = 0;
                let next = due(ctx.clock().now(), &upkeep);
                followed.persistent.extend(upkeep.persistent);
                next
            }
            Err(reason) => {
                work.failures += 1;
                if work.failures == 1 {
                    tracing::warn!(pod = uid, reason, "a pod's files stay as they are for now");
                }
                let wait = RETRY_MIN.saturating_mul(1 << work.failures.min(10)).min(RETRY_MAX);
                Some(ctx.clock().now() + wait)
            }
        };
        self.set_timer(ctx, uid, next);
        if self.pods.get(uid).is_some_and(|followed| followed.is_dirty) {
            self.touched(ctx, uid);
        }
    }

    fn forget(&mut self, ctx: &mut Context<KeeperMsg>, uid: &str) {
        self.pods.remove(uid);
        if let Some(timer) = self.work.remove(uid).and_then(|work| work.timer) {
            ctx.cancel(timer);
        }
    }

    fn set_timer(&mut self, ctx: &mut Context<KeeperMsg>, uid: &str, due: Option<Moment>) {
        let work = self.work.entry(uid.to_owned()).or_default();
        if let Some(timer) = work.timer.take() {
            ctx.cancel(timer);
        }
        work.timer = due.map(|due| ctx.send_at(due, KeeperMsg::RefreshTick { uid: uid.to_owned() }));
    }
}
