//! A thread behind an actor: no half jobs, no two threads at once.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use k3sd_runtime::blocking::{Blocking, JobError};
use k3sd_runtime::*;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Ledger {
    open: Arc<AtomicU32>,
    open_max: Arc<AtomicU32>,
    begun: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
}

/// Stands for an open database: counts how many are open at once.
struct Handle(Ledger);

impl Handle {
    fn open(ledger: Ledger) -> Self {
        let open = ledger.open.fetch_add(1, SeqCst) + 1;
        ledger.open_max.fetch_max(open, SeqCst);
        Self(ledger)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

struct Writer(Blocking<Handle>);

enum WriterMsg {
    Write { gate: mpsc::Receiver<()>, reply: ReplyPort<Result<(), JobError>> },
    Break { reply: ReplyPort<Result<(), JobError>> },
}
message_kinds!(WriterMsg { Write, Break });

impl Actor for Writer {
    type Args = Ledger;
    type Msg = WriterMsg;

    async fn init(ctx: &mut Context<WriterMsg>, ledger: Ledger) -> Result<Self, ActorError> {
        Ok(Self(Blocking::start(ctx, 8, move || Ok::<_, std::io::Error>(Handle::open(ledger))).await?))
    }

    async fn handle(&mut self, _: &mut Context<WriterMsg>, message: WriterMsg) -> Result<(), ActorError> {
        match message {
            WriterMsg::Write { gate, reply } => {
                let job = move |handle: &mut Handle| {
                    handle.0.begun.fetch_add(1, SeqCst);
                    gate.recv().ok();
                    handle.0.ended.fetch_add(1, SeqCst);
                };
                reply.send(self.0.run(job).await);
            }
            WriterMsg::Break { reply } => {
                let outcome = self.0.run(|_| panic!("drill")).await;
                reply.send(outcome.clone());
                outcome?;
            }
        }
        Ok(())
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waited).await.is_ok(), "{what} did not come about");
}

#[tokio::test]
async fn a_killed_actor_leaves_no_half_job_and_its_successor_waits_for_the_thread() {
    let (ledger, system) = (Ledger::default(), System::new(Clock::system()));
    let spec = Spec::new(Strategy::OneForOne).child(worker::<Writer>("writer", ledger.clone()));
    let tree = system.start(spec);
    tree.ready().await.expect("the tree starts");
    let writer = system.address::<WriterMsg>("writer").expect("the type fits");

    let (open_gate, gate) = mpsc::channel();
    let call = writer.call(LIMIT, |reply| WriterMsg::Write { gate, reply });
    let killed_mid_job = async {
        until("the job", || ledger.begun.load(SeqCst) == 1).await;
        assert!(system.signal("writer", Signal::Kill));
        until("the actor's end", || system.alive() == 1).await;
        assert_eq!(system.born(), 2, "no successor while the thread works");
        open_gate.send(()).expect("the job waits");
        until("the successor", || system.born() == 3 && ledger.open.load(SeqCst) == 1).await;
    };
    let (answer, ()) = tokio::join!(call, killed_mid_job);
    assert!(matches!(answer, Err(AskError::Gone)), "the caller learns that it doesn't know");
    assert_eq!(ledger.ended.load(SeqCst), 1, "the job in hand ran to its end");
    assert_eq!(ledger.open_max.load(SeqCst), 1, "never two at once");
    tree.stop();
    assert_eq!(tree.ended().await, Exit::Shutdown);
    assert_eq!(ledger.open.load(SeqCst), 0, "the end of the tree is the end of its threads");
}

#[tokio::test]
async fn a_panicking_job_ends_the_thread_and_the_actor_but_not_for_long() {
    let (ledger, system) = (Ledger::default(), System::new(Clock::system()));
    let tree = system.start(Spec::new(Strategy::OneForOne).child(worker::<Writer>("writer", ledger.clone())));
    tree.ready().await.expect("the tree starts");
    let writer = system.address::<WriterMsg>("writer").expect("the type fits");
    let broken = writer.call(LIMIT, |reply| WriterMsg::Break { reply }).await;
    assert_eq!(broken.expect("it answers before it fails"), Err(JobError::Ended("drill".to_owned())));
    until("the successor", || system.born() == 3 && ledger.open.load(SeqCst) == 1).await;
    tree.stop();
    tree.ended().await;
}

/// Takes real time for each thing it does.
struct Slow(Blocking<()>);

enum SlowMsg {
    Work { reply: ReplyPort<()> },
}
message_kinds!(SlowMsg { Work });

fn work() {
    std::thread::sleep(Duration::from_millis(30));
}

impl Actor for Slow {
    type Args = ();
    type Msg = SlowMsg;

    async fn init(ctx: &mut Context<SlowMsg>, (): ()) -> Result<Self, ActorError> {
        let start = || -> Result<(), std::io::Error> {
            work();
            Ok(())
        };
        Ok(Self(Blocking::start(ctx, 8, start).await?))
    }

    async fn handle(&mut self, _: &mut Context<SlowMsg>, message: SlowMsg) -> Result<(), ActorError> {
        let SlowMsg::Work { reply } = message;
        self.0.run(|()| work()).await?;
        reply.send(());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_stands_still_while_a_thread_works() {
    let system = System::new(Clock::simulated(1));
    let tree = system.start(Spec::new(Strategy::OneForOne).child(worker::<Slow>("slow", ())));
    let moment = Duration::from_millis(5);
    tokio::time::timeout(moment, tree.ready()).await.expect("starting takes no time").expect("it starts");
    let slow = system.address::<SlowMsg>("slow").expect("its messages");
    slow.call(moment, |reply| SlowMsg::Work { reply }).await.expect("a job takes no time");
    tree.stop();
    tokio::time::timeout(moment, tree.ended()).await.expect("ending takes no time");
}
