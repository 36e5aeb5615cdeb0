//! What the benches share.

use std::time::Duration;

use k3sd_runtime::{
    Actor, ActorError, Address, Backoff, Context, ReplyPort, Signal, Spec, Strategy, System, Tree, message_kinds,
    worker,
};

/// Deadline of the calls; never reached.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// The smallest actor there is.
pub(crate) struct Echo;

/// What it understands.
pub(crate) enum EchoMsg {
    /// Answer with `value`.
    Echo {
        /// The question.
        value: u64,
        /// The answer.
        reply: ReplyPort<u64>,
    },
}
message_kinds!(EchoMsg { Echo });

impl Actor for Echo {
    type Args = ();
    type Msg = EchoMsg;

    async fn init(_: &mut Context<EchoMsg>, (): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }

    async fn handle(&mut self, _: &mut Context<EchoMsg>, message: EchoMsg) -> Result<(), ActorError> {
        let EchoMsg::Echo { value, reply } = message;
        reply.send(value);
        Ok(())
    }
}

/// Two workers, as on the machines this is for.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio starts")
}

/// A tree whose one child restarts without a backoff and without an end to its budget.
pub(crate) async fn restartable(system: &System) -> (Tree, Address<EchoMsg>) {
    let child = worker::<Echo>("echo", ()).backoff(Backoff::OFF);
    let tree = system.start(Spec::new(Strategy::OneForOne).budget(u32::MAX, Duration::from_millis(1)).child(child));
    tree.ready().await.expect("the tree starts");
    let echo = system.address("echo").expect("the type fits");
    (tree, echo)
}

/// Kills the child and waits until its successor has answered a call.
pub(crate) async fn one_restart(system: &System, echo: &Address<EchoMsg>) {
    let before = system.born();
    assert!(system.signal("echo", Signal::Kill));
    loop {
        let answer = echo.call(LIMIT, |reply| EchoMsg::Echo { value: 1, reply }).await;
        if answer.is_ok() && system.born() > before {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The same actor on ractor, the peer.
pub(crate) struct PeerEcho(pub(crate) ractor::ActorRef<PeerMsg>);

/// What the peer understands.
pub(crate) enum PeerMsg {
    /// Answer with the number.
    Echo(u64, ractor::RpcReplyPort<u64>),
}

pub(crate) struct PeerActor;

impl ractor::Actor for PeerActor {
    type Msg = PeerMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ractor::ActorRef<PeerMsg>, (): ()) -> Result<(), ractor::ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ractor::ActorRef<PeerMsg>,
        message: PeerMsg,
        (): &mut (),
    ) -> Result<(), ractor::ActorProcessingErr> {
        let PeerMsg::Echo(value, reply) = message;
        reply.send(value)?;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ractor::ActorRef<PeerMsg>,
        _: ractor::SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ractor::ActorProcessingErr> {
        Ok(())
    }
}

impl PeerEcho {
    /// Starts the peer.
    pub(crate) async fn start() -> Self {
        let (actor, _) = ractor::Actor::spawn(None, PeerActor, ()).await.expect("the peer starts");
        Self(actor)
    }

    /// One bare call, without a deadline.
    pub(crate) async fn echo(&self, value: u64) -> u64 {
        let answer = self.0.call(|reply| PeerMsg::Echo(value, reply), None).await.expect("the peer is there");
        answer.expect("the peer answers")
    }
}
