//! What the tests of supervision share: probe actors and the stage they play on.

use std::sync::Once;
use std::time::Duration;

use k3sd_runtime::{Backoff, ChildSpec, Clock, Signal, System, current_path, worker};

pub(crate) use k3sd_runtime::testkit::{Journal, Plan, Probe, ProbeMsg};

/// How a test ends a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It finishes by itself.
    Finish,
    /// Its handler returns an error.
    Fail,
    /// Its handler panics.
    Panic,
    /// It is killed while it waits for messages.
    Kill,
    /// It is killed inside a handler that hangs.
    HangAndKill,
    /// It is signalled to stop behind its supervisor's back.
    Stop,
}

impl End {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Finish, Self::Fail, Self::Panic, Self::Kill, Self::HangAndKill, Self::Stop];

    /// Whether a transient child that ends like this stays down.
    pub(crate) fn is_clean(self) -> bool {
        matches!(self, Self::Finish | Self::Stop)
    }
}

/// A universe and the journal of its probes.
pub(crate) struct Stage {
    pub(crate) system: System,
    pub(crate) journal: Journal,
}

impl Stage {
    /// An empty stage. Panics of actors are part of the play, so they print nothing.
    pub(crate) fn new(seed: u64) -> Self {
        static QUIET: Once = Once::new();
        QUIET.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if current_path().is_none() {
                    usual(panic);
                }
            }));
        });
        Self { system: System::new(Clock::simulated(seed)), journal: Journal::default() }
    }

    /// A permanent probe that restarts without a wait.
    pub(crate) fn probe(&self, name: &str) -> ChildSpec {
        worker::<Probe>(name, self.journal.clone()).backoff(Backoff::OFF)
    }

    /// Ends the probe at `path`, if there is one.
    pub(crate) fn end(&self, path: &str, how: End) {
        let tell = |message| {
            let address = self.system.address::<ProbeMsg>(path).expect("a probe");
            address.cast(message).ok(); // Nobody there: nothing to end.
        };
        match how {
            End::Finish => tell(ProbeMsg::Finish),
            End::Fail => tell(ProbeMsg::Fail),
            End::Panic => tell(ProbeMsg::Panic),
            End::Kill => drop(self.system.signal(path, Signal::Kill)),
            End::Stop => drop(self.system.signal(path, Signal::Stop)),
            End::HangAndKill => {
                tell(ProbeMsg::Hang);
                self.system.signal(path, Signal::Kill);
            }
        }
    }
}

/// Returns when nobody has anything left to do: a paused clock moves only while all tasks are idle.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
