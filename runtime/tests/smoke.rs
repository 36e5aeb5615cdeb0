//! The runtime's basic promises, through its public surface.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use k3sd_runtime::*;

const LIMIT: Duration = Duration::from_secs(1);

struct Adder(u64);

enum AdderMsg {
    Add { amount: u64, reply: ReplyPort<u64> },
    Crash,
    Fail,
    Hang,
}
message_kinds!(AdderMsg { Add, Crash, Fail, Hang });

impl Actor for Adder {
    type Args = u64;
    type Msg = AdderMsg;

    async fn init(_: &mut Context<AdderMsg>, start: u64) -> Result<Self, ActorError> {
        Ok(Self(start))
    }

    async fn handle(&mut self, _: &mut Context<AdderMsg>, message: AdderMsg) -> Result<(), ActorError> {
        match message {
            AdderMsg::Add { amount, reply } => {
                self.0 += amount;
                reply.send(self.0);
            }
            AdderMsg::Crash => panic!("drill"),
            AdderMsg::Fail => return Err(ActorError::new("drill")),
            AdderMsg::Hang => std::future::pending().await,
        }
        Ok(())
    }
}

async fn add(address: &Address<AdderMsg>, amount: u64) -> Result<u64, AskError> {
    address.call(LIMIT, |reply| AdderMsg::Add { amount, reply }).await
}

#[tokio::test(start_paused = true)]
async fn an_address_survives_a_panic_an_error_and_a_hang() {
    let system = System::new(Clock::simulated(1));
    let inner = Spec::new(Strategy::OneForOne).child(worker::<Adder>("adder", 10));
    let tree = system.start(Spec::new(Strategy::OneForOne).child(subtree("sums", inner)));
    tree.ready().await.expect("the tree starts");
    let adder = system.address::<AdderMsg>("sums/adder").expect("the type fits");
    assert_eq!(add(&adder, 1).await, Ok(11));
    assert_eq!(add(&adder, 1).await, Ok(12));

    adder.cast(AdderMsg::Crash).expect("it is there");
    assert_eq!(add(&adder, 1).await, Err(AskError::Gone), "what waits when it dies is lost, and said so");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(add(&adder, 1).await, Ok(11), "state starts from the arguments again");

    adder.cast(AdderMsg::Fail).expect("it is there");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(add(&adder, 1).await, Ok(11));

    adder.cast(AdderMsg::Hang).expect("it is there");
    assert_eq!(add(&adder, 1).await, Err(AskError::Deadline { limit: LIMIT }));
    tree.stop();
    assert_eq!(tree.ended().await, Exit::Shutdown, "a hanging child is killed at its limit");
    assert_eq!(system.alive(), 0);
    assert_eq!(add(&adder, 1).await, Err(AskError::Down));
}

/// Waits in its `init` for somebody who never comes.
struct Patient;

impl Actor for Patient {
    type Args = ();
    type Msg = Silent;

    async fn init(ctx: &mut Context<Silent>, (): ()) -> Result<Self, ActorError> {
        ctx.defer_ready();
        std::future::pending().await
    }

    async fn handle(&mut self, _: &mut Context<Silent>, message: Silent) -> Result<(), ActorError> {
        match message {}
    }
}

/// Waits in its handler for somebody who never comes, and takes its leave.
struct Waiter(Arc<AtomicUsize>);

enum WaiterMsg {
    WaitTick,
}
message_kinds!(WaiterMsg { WaitTick });

impl Actor for Waiter {
    type Args = Arc<AtomicUsize>;
    type Msg = WaiterMsg;

    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<WaiterMsg>, left: Arc<AtomicUsize>) -> Result<Self, ActorError> {
        ctx.send_self(WaiterMsg::WaitTick);
        Ok(Self(left))
    }

    async fn handle(&mut self, _: &mut Context<WaiterMsg>, message: WaiterMsg) -> Result<(), ActorError> {
        let WaiterMsg::WaitTick = message;
        std::future::pending().await
    }

    async fn stopping(&mut self, _: &mut Context<WaiterMsg>) -> Stop {
        self.0.fetch_add(1, Relaxed);
        Stop::Now
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_is_dropped_by_the_stop_where_the_actor_says_so() {
    let (system, left) = (System::new(Clock::simulated(1)), Arc::new(AtomicUsize::new(0)));
    assert!(!system.is_ending());
    let waiter = worker::<Waiter>("waiter", left.clone()).shutdown(Shutdown::Unlimited);
    let tree = system.start(Spec::new(Strategy::OneForOne).child(waiter));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    tree.stop();
    assert!(system.is_ending());
    assert_eq!(tree.ended().await, Exit::Shutdown);
    assert_eq!((system.alive(), left.load(Relaxed)), (0, 1), "it was told all the same");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_waits_hears_of_the_stop() {
    let system = System::new(Clock::simulated(1));
    let patient = worker::<Patient>("patient", ()).start_within(None).shutdown(Shutdown::Unlimited);
    let tree = system.start(Spec::new(Strategy::OneForOne).child(patient));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(system.alive(), 2, "it waits as long as it has to");
    tree.stop();
    assert_eq!(tree.ended().await, Exit::Shutdown);
    assert_eq!(system.alive(), 0);
}
