//! Holds back whoever is started behind the API server until it is ready for everybody.
//!
//! Owns:    nothing.
//! Needs:   those who write what every cluster starts with, and who reads the roles of it.
//! Restart: permanent; a new one finds that all is done.
//! Fails:   never. It waits for as long as they need.

use k3sd_apiserver_registry::bootstrap::Hooks;
use k3sd_runtime::{Actor, ActorError, Context, message_kinds};

use crate::rights::Progress;

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct OpeningArgs {
    pub(crate) hooks: Hooks,
    pub(crate) progress: Progress,
}

/// See the variants.
pub(crate) enum OpeningMsg {
    /// What every cluster starts with is there, and counts.
    Done,
}
message_kinds!(OpeningMsg { Done });

/// The actor itself.
pub(crate) struct Opening;

impl Actor for Opening {
    type Args = OpeningArgs;
    type Msg = OpeningMsg;

    async fn init(ctx: &mut Context<OpeningMsg>, args: OpeningArgs) -> Result<Self, ActorError> {
        ctx.defer_ready();
        ctx.pipe(async move {
            args.hooks.done().await;
            args.progress.current().await;
            OpeningMsg::Done
        });
        Ok(Self)
    }

    async fn handle(&mut self, ctx: &mut Context<OpeningMsg>, message: OpeningMsg) -> Result<(), ActorError> {
        let OpeningMsg::Done = message;
        ctx.ready();
        Ok(())
    }
}
