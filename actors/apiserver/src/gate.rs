//! Ends the server's service in good order.
//!
//! Owns:    the signs that the server is about to stop, and that it takes no more requests.
//! Needs:   everything else, for it is started last and so stopped first.
//! Restart: permanent; a new one opens the gate again.
//! Fails:   never.

use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::{Actor, ActorError, Context, Stop, message_kinds};
use tokio::sync::watch;

use crate::pipeline::Pipeline;

/// How often it looks whether the last request is answered. Only while the server stops.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long requests may take that are under way when the server stops.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// What connections need to say good-bye, once the last answer is out.
const FAREWELL: Duration = Duration::from_millis(50);

/// The signs.
#[derive(Clone, Debug)]
pub(crate) struct Signs {
    /// `/readyz` fails.
    pub(crate) stopping: Arc<watch::Sender<bool>>,
    /// Watches end, and connections finish.
    pub(crate) draining: Arc<watch::Sender<bool>>,
}

impl Default for Signs {
    fn default() -> Self {
        Self { stopping: Arc::new(watch::Sender::new(false)), draining: Arc::new(watch::Sender::new(false)) }
    }
}

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct GateArgs {
    pub(crate) signs: Signs,
    pub(crate) pipeline: Pipeline,
    /// How long requests are still taken.
    pub(crate) delay: Duration,
}

/// See the variants.
#[expect(clippy::enum_variant_names, reason = "all of them are timers, whose names end so everywhere")]
pub(crate) enum GateMsg {
    /// Take no more requests.
    DrainTick,
    /// Look whether all is answered.
    LookTick,
    /// End.
    EndTick,
}
message_kinds!(GateMsg { DrainTick, LookTick, EndTick });

/// The actor itself.
pub(crate) struct Gate(GateArgs);

impl Actor for Gate {
    type Args = GateArgs;
    type Msg = GateMsg;

    async fn init(_: &mut Context<GateMsg>, args: GateArgs) -> Result<Self, ActorError> {
        args.signs.stopping.send_replace(false);
        args.signs.draining.send_replace(false);
        Ok(Self(args))
    }

    async fn handle(&mut self, ctx: &mut Context<GateMsg>, message: GateMsg) -> Result<(), ActorError> {
        match message {
            GateMsg::DrainTick => {
                self.0.signs.draining.send_replace(true);
                ctx.send_self(GateMsg::LookTick);
            }
            GateMsg::LookTick if self.0.pipeline.under_way() == 0 => {
                ctx.send_after(FAREWELL, GateMsg::EndTick);
            }
            GateMsg::LookTick => {
                ctx.send_after(LOOK_INTERVAL, GateMsg::LookTick);
            }
            GateMsg::EndTick => ctx.finish(),
        }
        Ok(())
    }

    async fn stopping(&mut self, ctx: &mut Context<GateMsg>) -> Stop {
        self.0.signs.stopping.send_replace(true);
        // Something below us died. Requests under way may wait for it, and it comes back when we have ended.
        if !ctx.system().is_ending() {
            return Stop::Now;
        }
        ctx.send_after(self.0.delay, GateMsg::DrainTick);
        Stop::Later
    }
}
