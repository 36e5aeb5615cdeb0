//! Finds a node for each pod that has none, and binds it there.
//!
//! Owns:    what is decided but not yet seen done; all else is a copy of what the API has.
//! Needs:   the informers of everything that decisions look at, and that this process leads.
//! Restart: permanent. It builds everything anew from the informers; a pod that was about to be bound is bound, which the
//!          informer tells, or is decided about again. The API binds no pod twice.
//! Fails:   when an informer is gone; what the API refuses is tried again.

mod core;
mod feed;
mod msg;
#[cfg(test)]
mod tests;
mod world;
mod write;

use std::collections::HashSet;
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::election::Leading;
use k3sd_client::events::{Recorder, reference};
use k3sd_runtime::{Actor, ActorError, Context, Moment, TimerId};
use serde_json::Value;

use self::core::{Core, Eviction, Work};
pub(crate) use self::feed::Feeds;
use self::feed::{Batch, KINDS};
pub(crate) use self::msg::SchedulerMsg;
use self::write::Verdict;
use crate::config::SchedulerConfig;
use crate::pod::PodInfo;

/// Requests under way: enough to keep the API busy, and few enough that what is decided doesn't run far ahead of it.
const REQUESTS_MAX: usize = 512;
/// For so long decisions are made before whoever else waits gets the thread.
const DECIDE_FOR: Duration = Duration::from_millis(4);

/// What the actor is started, and restarted, with.
#[derive(Clone, Debug)]
pub(crate) struct DeciderArgs {
    /// Binds pods, and writes why they are not.
    pub(crate) connect: Connect,
    /// What decisions look at.
    pub(crate) feeds: Feeds,
    /// How decisions are made.
    pub(crate) config: Arc<SchedulerConfig>,
    /// Nothing is decided before.
    pub(crate) leading: Leading,
    /// One for each profile, in their order.
    pub(crate) recorders: Vec<Recorder>,
}

/// The actor itself.
pub(crate) struct Decider {
    args: DeciderArgs,
    client: kube::Client,
    core: Core,
    /// Kinds of which everything was told once.
    known: HashSet<Discriminant<Batch>>,
    requests: usize,
    is_deciding: bool,
    wake: Option<(Moment, TimerId)>,
    volumes: Option<(Moment, TimerId)>,
}

impl Actor for Decider {
    type Args = DeciderArgs;
    type Msg = SchedulerMsg;

    async fn init(ctx: &mut Context<SchedulerMsg>, args: DeciderArgs) -> Result<Self, ActorError> {
        let core = Core::new(args.config.clone(), ctx.rng());
        let client = args.connect.client();
        let mut leading = args.leading.clone();
        ctx.pipe(async move {
            leading.lead().await;
            SchedulerMsg::Led
        });
        Ok(Self {
            args,
            client,
            core,
            known: HashSet::new(),
            requests: 0,
            is_deciding: false,
            wake: None,
            volumes: None,
        })
    }

    async fn handle(&mut self, ctx: &mut Context<SchedulerMsg>, message: SchedulerMsg) -> Result<(), ActorError> {
        let now = ctx.clock().now();
        match message {
            SchedulerMsg::Led => self.args.feeds.follow(ctx),
            SchedulerMsg::Fed { batch } => self.take(ctx, batch, now)?,
            SchedulerMsg::DecideTick => {
                self.is_deciding = false;
                ctx.fault("scheduler/decide").await?;
                self.decide(ctx);
                // Decisions are work for a processor, and others want theirs.
                tokio::task::yield_now().await;
            }
            SchedulerMsg::WakeTick => {
                self.wake = None;
                self.core.queue.wake(now);
            }
            SchedulerMsg::VolumesAsked { uid, outcome } => {
                self.requests -= 1;
                let outcome = outcome.map_err(|error| text(&error));
                let work = self.core.volumes_asked(&uid, outcome, now);
                self.carry_out(ctx, work);
            }
            SchedulerMsg::Bound { uid, outcome } => {
                self.requests -= 1;
                ctx.fault("scheduler/bound").await?;
                self.bound(ctx, &uid, outcome, now);
            }
            SchedulerMsg::VolumesTick => {
                self.volumes = None;
                self.check_volumes(ctx, now);
            }
            SchedulerMsg::Written => self.requests -= 1,
        }
        self.plan(ctx);
        Ok(())
    }
}

impl Decider {
    /// Sees to it that it is woken when there is something to do.
    fn plan(&mut self, ctx: &mut Context<SchedulerMsg>) {
        if self.known.len() < KINDS {
            return;
        }
        if !self.is_deciding && self.requests < REQUESTS_MAX && self.core.queue.is_ready() {
            self.is_deciding = true;
            ctx.send_self(SchedulerMsg::DecideTick);
        }
        let wake = self.core.queue.next_wake();
        reset(ctx, &mut self.wake, wake, || SchedulerMsg::WakeTick);
        let deadline = self.core.volumes_deadline();
        reset(ctx, &mut self.volumes, deadline, || SchedulerMsg::VolumesTick);
    }

    fn decide(&mut self, ctx: &mut Context<SchedulerMsg>) {
        let began = ctx.clock().now();
        loop {
            let now = ctx.clock().now();
            if self.requests >= REQUESTS_MAX || now.since(began) >= DECIDE_FOR {
                return;
            }
            let Some(work) = self.core.decide(now) else { return };
            self.carry_out(ctx, work);
        }
    }

    fn check_volumes(&mut self, ctx: &mut Context<SchedulerMsg>, now: Moment) {
        for work in self.core.check_volumes(now) {
            self.carry_out(ctx, Some(work));
        }
    }

    fn carry_out(&mut self, ctx: &mut Context<SchedulerMsg>, work: Option<Work>) {
        let client = self.client.clone();
        match work {
            None => {}
            Some(Work::Bind { pod, node }) => {
                self.requests += 1;
                ctx.pipe(async move {
                    let uid = pod.uid.clone();
                    SchedulerMsg::Bound { uid, outcome: write::bind(client, pod, node).await }
                });
            }
            Some(Work::AskVolumes { pod, node, writes }) => {
                self.requests += 1;
                ctx.pipe(async move {
                    let uid = pod.uid.clone();
                    SchedulerMsg::VolumesAsked { uid, outcome: write::ask_for_volumes(client, writes, node).await }
                });
            }
            Some(Work::Refused { pod, message, verdict, eviction }) => {
                let about = reference(&*pod.pod);
                let recorder = self.recorder(&pod);
                recorder.action(about, None, ("Warning", "FailedScheduling"), "Scheduling", message);
                self.write_status(ctx, pod.clone(), &verdict);
                if let Some(eviction) = eviction {
                    self.evict(ctx, pod, eviction);
                }
            }
        }
    }

    fn bound(&mut self, ctx: &mut Context<SchedulerMsg>, uid: &str, outcome: kube::Result<()>, now: Moment) {
        if let Err(error) = &outcome
            && write::is_gone(error)
        {
            // The pod, or the name is another's by now; what the informer tells decides.
            tracing::debug!(uid, "a pod is gone that was to be bound");
            return self.core.forget(uid, now);
        }
        match self.core.bound(uid, outcome.map_err(|error| text(&error)), now) {
            Ok(Some((pod, node))) => {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                let recorder = self.recorder(&pod);
                recorder.action(reference(&*pod.pod), None, ("Normal", "Scheduled"), "Binding", message);
            }
            Ok(None) => {}
            Err(work) => self.carry_out(ctx, work),
        }
    }

    fn write_status(&mut self, ctx: &mut Context<SchedulerMsg>, pod: Arc<PodInfo>, verdict: &Verdict) {
        let Some(patch) = verdict.patch(&pod, &stamp(ctx)) else { return };
        self.requests += 1;
        let client = self.client.clone();
        ctx.pipe(async move {
            settle(&pod, write::status(client, pod.clone(), patch).await);
            SchedulerMsg::Written
        });
    }

    fn evict(&mut self, ctx: &mut Context<SchedulerMsg>, pod: Arc<PodInfo>, eviction: Eviction) {
        let Eviction { node, victims, passed_over } = eviction;
        for other in passed_over {
            self.write_status(ctx, other, &Verdict { condition: None, nominated: Some(None) });
        }
        self.requests += 1;
        let (client, recorder, now) = (self.client.clone(), self.recorder(&pod), stamp(ctx));
        let scheduler = pod.scheduler().to_owned();
        ctx.pipe(async move {
            for (victim, outcome) in write::evict_all(client, victims, scheduler, now).await {
                if outcome.is_ok() {
                    let message = format!("Preempted by pod {} on node {node}", pod.uid);
                    let (about, related) = (reference(&*victim.pod), Some(reference(&*pod.pod)));
                    recorder.action(about, related, ("Normal", "Preempted"), "Preempting", message);
                }
                settle(&victim, outcome);
            }
            SchedulerMsg::Written
        });
    }

    fn recorder(&self, pod: &PodInfo) -> Recorder {
        let mut profiles = self.args.config.profiles.iter();
        let place = profiles.position(|profile| profile.name == pod.scheduler()).unwrap_or(0);
        self.args.recorders[place].clone()
    }
}

/// Sets a timer anew if it has to fire at another moment.
fn reset(
    ctx: &mut Context<SchedulerMsg>,
    timer: &mut Option<(Moment, TimerId)>,
    due: Option<Moment>,
    message: impl Fn() -> SchedulerMsg,
) {
    if timer.as_ref().map(|(due, _)| *due) == due {
        return;
    }
    if let Some((_, old)) = timer.take() {
        ctx.cancel(old);
    }
    if let Some(due) = due {
        *timer = Some((due, ctx.send_at(due, message())));
    }
}

/// A write about a pod that nobody waits for; what failed is written again with the next decision about it.
fn settle(pod: &PodInfo, outcome: kube::Result<()>) {
    if let Err(error) = outcome
        && !write::is_gone(&error)
    {
        tracing::warn!(pod = %pod.key, error = %text(&error), "the API refused what the scheduler wrote");
    }
}

/// What the API said, in its own words.
fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Now, as objects write it.
fn stamp(ctx: &Context<SchedulerMsg>) -> String {
    let seconds = i64::try_from(ctx.clock().wall().as_secs()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    match serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time)) {
        Ok(Value::String(text)) => text,
        _ => time.to_string(),
    }
}
