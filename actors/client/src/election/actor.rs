//! Competes for a lease, and holds it.
//!
//! Owns:    what [`super::Leading`] shows, which turns false however it ends; the lease, while it is in its name.
//! Needs:   the API.
//! Restart: permanent. The lease may still be in its name, and then it goes on leading at once.
//! Fails:   when it has led and can't any more: the lease wasn't renewed in time, or is somebody else's. Whoever stands
//!          behind it is stopped by that, before anybody else can lead.

use std::sync::Arc;

use jiff::Timestamp;
use k3sd_runtime::{Actor, ActorError, Clock, Context, Moment, Rng, TimerId, message_kinds};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

use super::ElectionArgs;
use super::core::{Candidate, Decision};

/// What the actor is started with.
#[derive(Clone)]
pub(super) struct ElectorArgs {
    pub(super) election: ElectionArgs,
    pub(super) place: Arc<watch::Sender<bool>>,
}

/// How a request ended.
type Outcome<T> = Result<T, RequestError>;

/// Why a request brought nothing.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    /// The API said no, or couldn't be reached.
    #[error("the API refused")]
    Api(#[source] Box<kube::Error>),
    /// It said nothing for too long.
    #[error("the API did not answer")]
    Silent,
}

/// Why it leads no longer.
#[derive(Debug, Error)]
enum Lost {
    #[error("lease {lease} was not renewed in time")]
    Late { lease: String },
    #[error("lease {lease} is held by {holder:?} now")]
    Taken { lease: String, holder: String },
}

/// See the variants.
pub(super) enum ElectorMsg {
    /// Try to get or to renew the lease.
    AttemptTick,
    /// The lease is there, or isn't, or can't be read.
    Found {
        /// It.
        found: Outcome<Option<Lease>>,
    },
    /// The lease was written, or why not.
    Written {
        /// It, as it is now.
        written: Outcome<Lease>,
        /// When the attempt began.
        began: Moment,
        /// Nobody looked what was there before: a refusal says that somebody has to.
        blind: bool,
    },
    /// The lease had to be renewed by now.
    DeadlineTick,
}

message_kinds!(ElectorMsg { AttemptTick, Found, Written, DeadlineTick });

/// The actor itself.
pub(super) struct Elector {
    args: ElectorArgs,
    api: Api<Lease>,
    candidate: Candidate,
    /// Whether it leads, and when it has to stop.
    deadline: Option<TimerId>,
    rng: Rng,
}

impl Drop for Elector {
    /// A kill runs nothing else.
    fn drop(&mut self) {
        self.args.place.send_replace(false);
    }
}

impl Actor for Elector {
    type Args = ElectorArgs;
    type Msg = ElectorMsg;

    async fn init(ctx: &mut Context<ElectorMsg>, args: ElectorArgs) -> Result<Self, ActorError> {
        let election = &args.election;
        let api = Api::namespaced(election.connect.client(), &election.namespace);
        let candidate = Candidate::new(&election.name, &election.identity, election.terms);
        let rng = ctx.rng();
        attempt(ctx, std::time::Duration::ZERO);
        Ok(Self { args, api, candidate, deadline: None, rng })
    }

    async fn handle(&mut self, ctx: &mut Context<ElectorMsg>, message: ElectorMsg) -> Result<(), ActorError> {
        match message {
            ElectorMsg::AttemptTick => {
                let now = ctx.clock().now();
                match self.candidate.renewal(now, wall(ctx.clock())) {
                    Some(lease) => self.write(ctx, lease, true),
                    None => self.look(ctx),
                }
            }
            ElectorMsg::Found { found: Ok(found) } => self.found(ctx, found)?,
            ElectorMsg::Written { written: Ok(lease), began, .. } => self.renewed(ctx, lease, began)?,
            // Somebody else wrote it, perhaps a label only, perhaps our own attempt before a restart.
            ElectorMsg::Written { written: Err(_), blind: true, .. } => self.look(ctx),
            ElectorMsg::Found { found: Err(error) } | ElectorMsg::Written { written: Err(error), .. } => {
                tracing::debug!(lease = self.lease(), error = chain(&error), "the lease can't be had now");
                self.wait(ctx);
            }
            ElectorMsg::DeadlineTick => {
                self.deadline = None;
                self.args.place.send_replace(false);
                return Err(ActorError::from(Lost::Late { lease: self.lease() }));
            }
        }
        Ok(())
    }

    async fn terminate(&mut self, ctx: &mut Context<ElectorMsg>) {
        self.args.place.send_replace(false);
        let clock = ctx.clock().clone();
        let Some(lease) = self.candidate.release(wall(&clock)) else { return };
        let limit = self.args.election.terms.retry_period;
        let written = timeout(limit, replace(&self.api, &lease)).await;
        if matches!(written, Ok(Err(kube::Error::Api(status))) if status.code == 409) {
            // An attempt was under way. What it wrote is ours too, if it still is.
            let Ok(Ok(found)) = timeout(limit, self.api.get_opt(&self.args.election.name)).await else { return };
            self.candidate.observe(found, clock.now());
            if let Some(lease) = self.candidate.release(wall(&clock)) {
                // Whatever it says, others wait for the lease to run out then.
                timeout(limit, replace(&self.api, &lease)).await.ok();
            }
        }
    }
}

impl Elector {
    fn lease(&self) -> String {
        format!("{}/{}", self.args.election.namespace, self.args.election.name)
    }

    fn found(&mut self, ctx: &mut Context<ElectorMsg>, found: Option<Lease>) -> Result<(), ActorError> {
        let now = ctx.clock().now();
        self.candidate.observe(found, now);
        if self.deadline.is_some() && !self.candidate.holds() {
            self.args.place.send_replace(false);
            let holder = self.candidate.holder().to_owned();
            return Err(ActorError::from(Lost::Taken { lease: self.lease(), holder }));
        }
        match self.candidate.decide(now, wall(ctx.clock())) {
            Decision::Create(lease) => {
                let (api, limit) = (self.api.clone(), self.args.election.terms.renew_deadline);
                ctx.pipe(async move {
                    let written = timeout(limit, api.create(&PostParams::default(), &lease)).await;
                    ElectorMsg::Written { written: outcome(written), began: now, blind: false }
                });
            }
            Decision::Update(lease) => self.write(ctx, *lease, false),
            Decision::Wait => self.wait(ctx),
        }
        Ok(())
    }

    /// The lease is in our name, for longer.
    fn renewed(&mut self, ctx: &mut Context<ElectorMsg>, lease: Lease, began: Moment) -> Result<(), ActorError> {
        let terms = self.args.election.terms;
        self.candidate.wrote(lease, began);
        if let Some(timer) = self.deadline.take() {
            ctx.cancel(timer);
        } else {
            tracing::info!(lease = self.lease(), identity = self.args.election.identity, "leads now");
        }
        let deadline = began + terms.patience();
        if ctx.clock().now() >= deadline {
            // So late that others may think it theirs by now.
            self.args.place.send_replace(false);
            return Err(ActorError::from(Lost::Late { lease: self.lease() }));
        }
        self.deadline = Some(ctx.send_at(deadline, ElectorMsg::DeadlineTick));
        self.args.place.send_replace(true);
        attempt(ctx, terms.retry_period);
        Ok(())
    }

    fn wait(&mut self, ctx: &mut Context<ElectorMsg>) {
        let terms = self.args.election.terms;
        let leads = self.deadline.is_some();
        attempt(ctx, if leads { terms.retry_period } else { terms.jittered(&mut self.rng) });
    }

    fn look(&self, ctx: &mut Context<ElectorMsg>) {
        let (api, election) = (self.api.clone(), &self.args.election);
        let (name, limit) = (election.name.clone(), election.terms.renew_deadline);
        ctx.pipe(async move { ElectorMsg::Found { found: outcome(timeout(limit, api.get_opt(&name)).await) } });
    }

    fn write(&self, ctx: &mut Context<ElectorMsg>, lease: Lease, blind: bool) {
        let (api, limit) = (self.api.clone(), self.args.election.terms.renew_deadline);
        let began = ctx.clock().now();
        ctx.pipe(async move {
            let written = timeout(limit, replace(&api, &lease)).await;
            ElectorMsg::Written { written: outcome(written), began, blind }
        });
    }
}

async fn replace(api: &Api<Lease>, lease: &Lease) -> kube::Result<Lease> {
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    api.replace(name, &PostParams::default(), lease).await
}

fn attempt(ctx: &mut Context<ElectorMsg>, after: std::time::Duration) {
    ctx.send_after(after, ElectorMsg::AttemptTick);
}

fn outcome<T>(ended: Result<kube::Result<T>, tokio::time::error::Elapsed>) -> Outcome<T> {
    match ended {
        Ok(answer) => answer.map_err(|error| RequestError::Api(Box::new(error))),
        Err(_) => Err(RequestError::Silent),
    }
}

fn chain(error: &RequestError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn wall(clock: &Clock) -> Timestamp {
    let micros = i64::try_from(clock.wall().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}
