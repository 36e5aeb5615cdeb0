//! Drops history that is older than an interval.
//!
//! Owns:    the moment of the next compaction, and where the store was at the last.
//! Needs:   the store, started before it.
//! Restart: permanent. It begins anew with a whole interval, so history lives a little longer.
//! Fails:   never; a compaction that fails is tried again an interval later.

use k3sd_datastore::{Backend as _, Revision, StoreError};
use k3sd_runtime::{Actor, ActorError, Context};

use super::core::{Plan, pause};
use super::msg::CompactorMsg;
use crate::config::CompactConfig;
use crate::store::StoreHandle;

/// What the compactor is started, and restarted, with.
#[derive(Clone, Debug)]
pub(crate) struct CompactorArgs {
    /// The way to the store.
    pub store: StoreHandle,
    /// When.
    pub config: CompactConfig,
}

/// The compactor.
pub(crate) struct Compactor {
    args: CompactorArgs,
    plan: Plan,
}

impl Compactor {
    fn sleep(&self, ctx: &mut Context<CompactorMsg>) {
        if !self.args.config.interval.is_zero() {
            let fraction = ctx.rng().fraction();
            ctx.send_after(pause(self.args.config, fraction), CompactorMsg::CompactTick);
        }
    }
}

impl Actor for Compactor {
    type Args = CompactorArgs;
    type Msg = CompactorMsg;

    async fn init(ctx: &mut Context<CompactorMsg>, args: CompactorArgs) -> Result<Self, ActorError> {
        if !args.config.interval.is_zero() {
            ctx.send_self(CompactorMsg::CompactTick); // Only looks, as it is the first.
        }
        Ok(Self { args, plan: Plan::default() })
    }

    async fn handle(&mut self, ctx: &mut Context<CompactorMsg>, message: CompactorMsg) -> Result<(), ActorError> {
        match message {
            CompactorMsg::CompactTick => {
                let store = self.args.store.clone();
                ctx.pipe(async move {
                    let status = match store.get().await {
                        Ok(backend) => backend.status().await.ok(),
                        Err(_) => None,
                    };
                    CompactorMsg::Looked { status }
                });
            }
            CompactorMsg::Looked { status } => match status.and_then(|status| self.plan.tick(status)) {
                Some(target) => {
                    let store = self.args.store.clone();
                    ctx.pipe(async move { CompactorMsg::Compacted { outcome: compact(store, target).await } });
                }
                None => self.sleep(ctx),
            },
            CompactorMsg::Compacted { outcome } => {
                match outcome {
                    Ok(compacted) => tracing::debug!(%compacted, "history compacted"),
                    Err(error) => tracing::warn!(%error, "history could not be compacted; trying again later"),
                }
                self.sleep(ctx);
            }
        }
        Ok(())
    }
}

async fn compact(store: StoreHandle, target: Revision) -> Result<Revision, String> {
    let backend = store.get().await.map_err(|error| error.to_string())?;
    match backend.compact(target).await {
        Ok(done) => Ok(done.compacted),
        Err(StoreError::Compacted { compacted, .. }) => Ok(compacted),
        Err(error) => Err(error.to_string()),
    }
}
