//! Messages to actors that are busy, suspended, about to go or gone.

use std::time::Duration;

use k3sd_runtime::{
    Actor, ActorError, Address, AskError, Backoff, CastError, Clock, Context, Happened, ReplyPort, Signal, Spec,
    Strategy, System, Tree, message_kinds, worker,
};

use super::{look, seconds};
use crate::support::settle;

/// Counts what it hears.
struct Clerk(u64);

enum ClerkMsg {
    /// One more.
    Count,
    /// The count is asked for.
    Report { reply: ReplyPort<u64> },
    /// Count after a while.
    CountLater { delay: Duration },
    /// Keep the question and never answer.
    Ignore { reply: ReplyPort<u64> },
    /// Drop the question.
    Refuse { reply: ReplyPort<u64> },
}
message_kinds!(ClerkMsg { Count, Report, CountLater, Ignore, Refuse });

impl Actor for Clerk {
    type Args = ();
    type Msg = ClerkMsg;

    async fn init(_: &mut Context<ClerkMsg>, (): ()) -> Result<Self, ActorError> {
        Ok(Self(0))
    }

    async fn handle(&mut self, ctx: &mut Context<ClerkMsg>, message: ClerkMsg) -> Result<(), ActorError> {
        match message {
            ClerkMsg::Count => self.0 += 1,
            ClerkMsg::Report { reply } => reply.send(self.0),
            ClerkMsg::CountLater { delay } => {
                ctx.send_after(delay, ClerkMsg::Count);
            }
            ClerkMsg::Ignore { reply } => {
                let (_reply, ()) = (reply, std::future::pending().await);
            }
            ClerkMsg::Refuse { reply } => drop(reply),
        }
        Ok(())
    }
}

async fn office(mailbox: usize) -> (System, Tree, Address<ClerkMsg>) {
    let system = System::new(Clock::simulated(1));
    let child = worker::<Clerk>("clerk", ()).mailbox(mailbox).backoff(Backoff::OFF);
    let tree = system.start(Spec::new(Strategy::OneForOne).child(child));
    tree.ready().await.expect("it starts");
    let clerk = system.address("clerk").expect("a clerk");
    (system, tree, clerk)
}

async fn report(clerk: &Address<ClerkMsg>) -> Result<u64, AskError> {
    clerk.call(seconds(1), |reply| ClerkMsg::Report { reply }).await
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_refuses_and_gives_the_message_back() {
    let (system, _tree, clerk) = office(2).await;
    let mut events = system.events();
    assert!(system.signal("clerk", Signal::Suspend));
    settle().await;
    assert_eq!([clerk.cast(ClerkMsg::Count), clerk.cast(ClerkMsg::Count)], [Ok(()), Ok(())]);
    assert_eq!(clerk.cast(ClerkMsg::Count), Err(CastError::Full));
    let (error, message) = clerk.try_cast(ClerkMsg::CountLater { delay: seconds(1) }).expect_err("it is full");
    assert_eq!(error, CastError::Full);
    assert!(matches!(message, ClerkMsg::CountLater { .. }));
    assert_eq!(report(&clerk).await, Err(AskError::Full));
    let mailbox = clerk.mailbox();
    assert_eq!((mailbox.depth, mailbox.capacity, mailbox.refused), (2, 2, 3));
    assert!(system.signal("clerk", Signal::Resume));
    settle().await;
    assert_eq!(report(&clerk).await, Ok(2));
    assert!(events.try_recv().is_err_and(|error| error == tokio::sync::broadcast::error::TryRecvError::Empty));
}

#[tokio::test(start_paused = true)]
async fn a_call_tells_apart_no_answer_in_time_a_dropped_question_and_nobody_there() {
    let (system, tree, clerk) = office(8).await;
    let limit = seconds(1);
    assert_eq!(clerk.call(limit, |reply| ClerkMsg::Ignore { reply }).await, Err(AskError::Deadline { limit }));
    system.signal("clerk", Signal::Kill);
    settle().await;
    assert_eq!(clerk.call(limit, |reply| ClerkMsg::Refuse { reply }).await, Err(AskError::Gone));
    let asked = clerk.clone();
    let caller = tokio::spawn(async move { asked.call(limit, |reply| ClerkMsg::Ignore { reply }).await });
    settle().await;
    system.signal("clerk", Signal::Kill);
    assert_eq!(caller.await.expect("no panic"), Err(AskError::Gone), "it took the question and was killed");
    assert_eq!(report(&clerk).await, Ok(0), "the successor knows nothing of it");
    tree.stop();
    tree.ended().await;
    assert_eq!(report(&clerk).await, Err(AskError::Down));
    assert_eq!(clerk.cast(ClerkMsg::Count), Err(CastError::Down));
    let nobody = system.address::<ClerkMsg>("nobody").expect("a free name");
    assert_eq!(nobody.cast(ClerkMsg::Count), Err(CastError::Down), "never there");
    assert!(!system.signal("nobody", Signal::Kill) && !system.signal("clerk", Signal::Kill));
}

#[tokio::test(start_paused = true)]
async fn timers_end_with_their_incarnation() {
    for (signal, count) in [(Signal::Kill, 0), (Signal::Panic, 0), (Signal::Stop, 0), (Signal::Resume, 1)] {
        let (system, _tree, clerk) = office(8).await;
        clerk.cast(ClerkMsg::CountLater { delay: seconds(5) }).expect("it is there");
        settle().await;
        system.signal("clerk", signal);
        tokio::time::sleep(seconds(10)).await;
        assert_eq!(look(&system, "/").await, "clerk:running");
        assert_eq!(report(&clerk).await, Ok(count), "{signal:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_incarnation_is_lost_with_it() {
    let (system, _tree, clerk) = office(8).await;
    let mut events = system.events();
    system.signal("clerk", Signal::Suspend);
    for _ in 0..5 {
        clerk.cast(ClerkMsg::Count).expect("there is room");
    }
    system.signal("clerk", Signal::Kill);
    settle().await;
    assert_eq!(report(&clerk).await, Ok(0), "and the successor is not suspended");
    assert_eq!(clerk.mailbox().depth, 0);
    let ended = events.try_recv().expect("an event").happened;
    assert!(matches!(ended, Happened::Ended { asked: false, .. }), "{ended:?}");
}
