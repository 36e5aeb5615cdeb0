//! SIGTERM and SIGINT. A file, and so a process, of its own: the signals are sent to itself.

use std::time::Duration;

use k3sd_runtime::signals::{Ended, run_until_signalled};
use k3sd_runtime::testkit::Fault;
use k3sd_runtime::*;
use rustix::process::{Signal as Unix, getpid, kill_process};

/// Takes as long to stop as the fault at `stopping` says.
struct Slow;

impl Actor for Slow {
    type Args = ();
    type Msg = Silent;

    async fn init(_: &mut Context<Silent>, (): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }

    async fn handle(&mut self, _: &mut Context<Silent>, message: Silent) -> Result<(), ActorError> {
        match message {}
    }

    async fn terminate(&mut self, ctx: &mut Context<Silent>) {
        ctx.fault("stopping").await.ok();
    }
}

fn start(system: &System) -> Tree {
    system.start(Spec::new(Strategy::OneForOne).child(worker::<Slow>("slow", ()).shutdown(Shutdown::Unlimited)))
}

fn send(signal: Unix) {
    kill_process(getpid(), signal).expect("a process may signal itself");
}

#[tokio::test]
async fn the_first_signal_stops_in_order_and_the_second_forces() {
    for signal in [Unix::TERM, Unix::INT] {
        let system = System::new(Clock::system());
        let tree = start(&system);
        tree.ready().await.expect("the tree starts");
        let mut told = false;
        let (ended, ()) = tokio::join!(run_until_signalled(&tree, || told = true), async {
            tokio::task::yield_now().await; // The handlers are installed at the first poll of the other branch.
            send(signal);
        });
        assert_eq!(ended.expect("signals can be listened to"), Ended::Stopped);
        assert!(told, "whoever has to know is told at the first signal");
    }

    let system = System::new(Clock::system());
    let tree = start(&system);
    tree.ready().await.expect("the tree starts");
    system.faults().plan("stopping", Fault::Hang);
    let (ended, ()) = tokio::join!(run_until_signalled(&tree, || ()), async {
        tokio::task::yield_now().await;
        send(Unix::TERM);
        while system.faults().reached("stopping") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        send(Unix::TERM);
    });
    assert_eq!(ended.expect("signals can be listened to"), Ended::Forced);
    assert_eq!(system.alive(), 0, "what hung was killed");
}
