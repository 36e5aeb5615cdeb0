//! What outlives an actor: a child process and a listening socket stay while their keeper is killed.

use std::io;
use std::time::Duration;

use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const LIMIT: Duration = Duration::from_secs(10);

/// Keeps a program running: starts it once, adopts it afterwards.
struct Keeper {
    program: Loan<Child>,
}

enum KeeperMsg {
    Pid { reply: ReplyPort<Option<u32>> },
}
message_kinds!(KeeperMsg { Pid });

impl Actor for Keeper {
    type Args = Lend<Child>;
    type Msg = KeeperMsg;

    async fn init(_: &mut Context<KeeperMsg>, place: Lend<Child>) -> Result<Self, ActorError> {
        let start = || Command::new("sleep").arg("1000").kill_on_drop(true).spawn();
        let program = place.borrow_or_make(start).map_err(|refusal: Option<io::Error>| match refusal {
            Some(error) => ActorError::from(error),
            None => ActorError::new("another incarnation keeps the program"),
        })?;
        Ok(Self { program })
    }

    async fn handle(&mut self, _: &mut Context<KeeperMsg>, message: KeeperMsg) -> Result<(), ActorError> {
        let KeeperMsg::Pid { reply } = message;
        reply.send(self.program.id());
        Ok(())
    }
}

async fn pid(keeper: &Address<KeeperMsg>) -> u32 {
    let asked = async {
        loop {
            if let Ok(Some(pid)) = keeper.call(LIMIT, |reply| KeeperMsg::Pid { reply }).await {
                return pid;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, asked).await.expect("the keeper answers")
}

#[tokio::test]
async fn a_program_outlives_its_keepers_and_not_the_tree() {
    let system = System::new(Clock::system());
    let place = Lend::default();
    let child = worker::<Keeper>("keeper", place.clone()).backoff(Backoff::OFF);
    let tree = system.start(Spec::new(Strategy::OneForOne).budget(100, Duration::from_secs(1)).child(child));
    drop(place);
    tree.ready().await.expect("the tree starts");
    let keeper = system.address("keeper").expect("the type fits");
    let first = pid(&keeper).await;
    for signal in [Signal::Kill, Signal::Panic, Signal::Stop] {
        let born = system.born();
        assert!(system.signal("keeper", signal));
        while system.born() == born {
            tokio::task::yield_now().await;
        }
        assert_eq!(pid(&keeper).await, first, "the same program after a {signal:?}");
    }
    tree.stop();
    tree.ended().await;
    drop((tree, keeper, system));
    let gone = async {
        // The spec is gone, and its resource with it; tokio reaps what it killed.
        while std::fs::read_to_string(format!("/proc/{first}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, gone).await.is_ok(), "no program is orphaned");
}

/// Accepts and says its incarnation's number.
async fn serve(handle: TaskHandle, socket: Lend<TcpListener>) -> Result<(), ActorError> {
    let socket = socket.borrow()?;
    loop {
        let (stream, _) = socket.accept().await?;
        stream.writable().await?;
        stream.try_write(handle.path().as_bytes())?;
    }
}

#[tokio::test]
async fn no_connection_is_refused_while_the_listener_is_killed_again_and_again() {
    let system = System::new(Clock::system());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    let socket = Lend::new(listener);
    let child = task("listener", move |handle| serve(handle, socket.clone())).backoff(Backoff::OFF);
    let tree = system.start(Spec::new(Strategy::OneForOne).budget(10_000, Duration::from_secs(1)).child(child));
    tree.ready().await.expect("the tree starts");
    let mut kills = 0;
    for _ in 0..200 {
        kills += u32::from(system.signal("listener", Signal::Kill));
        let stream = TcpStream::connect(address).await.expect("nothing is refused");
        let mut text = [0; 8];
        let read = async {
            loop {
                stream.readable().await?;
                match stream.try_read(&mut text) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                }
            }
        };
        let read = tokio::time::timeout(LIMIT, read).await.expect("it is served");
        assert_eq!(read.expect("it is not cut off"), 8);
        assert_eq!(&text, b"listener");
    }
    assert!(kills > 150, "only {kills} kills");
    tree.stop();
    tree.ended().await;
}

/// Reaches a place where tests can interfere.
struct Stepper;

enum StepperMsg {
    Step { reply: ReplyPort<()> },
}
message_kinds!(StepperMsg { Step });

impl Actor for Stepper {
    type Args = ();
    type Msg = StepperMsg;

    async fn init(_: &mut Context<StepperMsg>, (): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }

    async fn handle(&mut self, ctx: &mut Context<StepperMsg>, message: StepperMsg) -> Result<(), ActorError> {
        let StepperMsg::Step { reply } = message;
        ctx.fault("stepper/half-way").await?;
        reply.send(());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_test_reaches_the_precise_moment_and_makes_it_go_wrong() {
    use k3sd_runtime::testkit::Fault;
    let system = System::new(Clock::simulated(1));
    let child = worker::<Stepper>("stepper", ()).backoff(Backoff::OFF);
    let tree = system.start(Spec::new(Strategy::OneForOne).budget(100, Duration::from_secs(1)).child(child));
    tree.ready().await.expect("the tree starts");
    let stepper = system.address::<StepperMsg>("stepper").expect("the type fits");
    let step = || stepper.call(LIMIT, |reply| StepperMsg::Step { reply });

    let barrier = system.faults().barrier("stepper/half-way");
    let (answer, ()) = tokio::join!(step(), async {
        barrier.arrival().await;
        assert!(system.signal("stepper", Signal::Kill));
    });
    assert_eq!(answer, Err(AskError::Gone), "killed half-way");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (answer, ()) = tokio::join!(step(), async {
        barrier.arrival().await;
        barrier.release();
    });
    assert_eq!(answer, Ok(()));
    system.faults().clear("stepper/half-way");

    let cases = [
        (Fault::Pass, Ok(())),
        (Fault::Delay(Duration::from_secs(1)), Ok(())),
        (Fault::Delay(LIMIT * 2), Err(AskError::Deadline { limit: LIMIT })),
        (Fault::Fail("drill".to_owned()), Err(AskError::Gone)),
        (Fault::Panic, Err(AskError::Gone)),
    ];
    for (fault, expected) in cases {
        system.faults().plan("stepper/half-way", fault.clone());
        assert_eq!(step().await, expected, "{fault:?}");
        tokio::time::sleep(LIMIT * 2).await;
    }
    tree.stop();
    tree.ended().await;
}
