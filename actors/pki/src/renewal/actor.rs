//! Keeps certificates, keys, kubeconfigs and tokens of the server in order, and publishes them.
//!
//! Owns:    all files below `tls/` and `cred/` that the tables name, the token files, and the published snapshot.
//! Needs:   nothing.
//! Restart: permanent. It reads the files again; half-done work is finished. What was published stays so meanwhile.
//! Fails:   when the files can't be brought in order at its start; later it goes on with what is published, and retries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Context, TimerId};

use super::core::{must_look, pause, pause_after_failure};
use super::msg::{RenewalMsg, RenewalStatus};
use crate::config::PkiConfig;
use crate::error::PkiError;
use crate::files::Files;
use crate::keeper;
use crate::publish::{Place, Snapshot};

/// One job at a time is asked of the thread, and its end awaited.
const JOBS_WAITING_MAX: usize = 1;

/// What the actor is started, and restarted, with.
#[derive(Clone)]
pub(crate) struct RenewalArgs {
    /// What is wanted.
    pub config: Arc<PkiConfig>,
    /// Where it is published.
    pub place: Place,
}

impl fmt::Debug for RenewalArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalArgs").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The actor.
pub(crate) struct Renewal {
    args: RenewalArgs,
    thread: Blocking<Files>,
    status: RenewalStatus,
    timer: Option<TimerId>,
}

impl Renewal {
    /// Looks at all files, brings them in order, publishes. A kill between the two leaves files that are in order and a
    /// snapshot that is older, in which everything fits together all the same.
    async fn keep(&mut self, ctx: &mut Context<RenewalMsg>) -> Result<Result<(), PkiError>, ActorError> {
        let now = ctx.clock().wall();
        let config = self.args.config.clone();
        let job = move |files: &mut Files| (keeper::keep(&config, files, now), files.changes());
        let (outcome, changes) = self.thread.run(job).await?;
        ctx.fault("pki/written").await?;
        self.status.looked_at = now;
        self.status.files_changed = u64::from(changes);
        self.status.failed = outcome.is_err();
        Ok(outcome.map(|snapshot| self.publish(snapshot)))
    }

    fn publish(&mut self, snapshot: Snapshot) {
        self.status.first_end = snapshot.ends().min().unwrap_or(Duration::MAX);
        self.args.place.send_replace(Some(Arc::new(snapshot)));
    }

    fn sleep(&mut self, ctx: &mut Context<RenewalMsg>) {
        let now = ctx.clock().wall();
        let delay = if self.status.failed { pause_after_failure() } else { pause(self.status.first_end, now) };
        if let Some(old) = self.timer.replace(ctx.send_after(delay, RenewalMsg::LookTick)) {
            ctx.cancel(old);
        }
    }

    async fn keep_on(&mut self, ctx: &mut Context<RenewalMsg>) -> Result<(), ActorError> {
        if let Err(error) = self.keep(ctx).await? {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "certificates could not be brought in order; trying again later");
        }
        Ok(())
    }
}

impl Actor for Renewal {
    type Args = RenewalArgs;
    type Msg = RenewalMsg;

    async fn init(ctx: &mut Context<RenewalMsg>, args: RenewalArgs) -> Result<Self, ActorError> {
        let made = Blocking::start(ctx, JOBS_WAITING_MAX, || Ok::<_, std::convert::Infallible>(Files::default()));
        let thread = made.await?;
        let status =
            RenewalStatus { first_end: Duration::MAX, looked_at: Duration::ZERO, files_changed: 0, failed: false };
        let mut renewal = Self { args, thread, status, timer: None };
        renewal.keep(ctx).await??;
        renewal.sleep(ctx);
        Ok(renewal)
    }

    async fn handle(&mut self, ctx: &mut Context<RenewalMsg>, message: RenewalMsg) -> Result<(), ActorError> {
        match message {
            RenewalMsg::LookTick => {
                let now = ctx.clock().wall();
                if self.status.failed || must_look(self.status.first_end, self.status.looked_at, now) {
                    self.keep_on(ctx).await?;
                }
                self.sleep(ctx);
            }
            RenewalMsg::RenewNow { reply } => {
                self.keep_on(ctx).await?;
                self.sleep(ctx);
                reply.send(self.status);
            }
            RenewalMsg::Status { reply } => reply.send(self.status),
        }
        Ok(())
    }
}
