//! A container runtime in this process: CRI over HTTP/2, as containerd speaks it, on pipes instead of a socket.
//!
//! ```text
//! k3sd_cri::Cri ─ tonic ─ pipe ─ [serve] ─ [calls] ─▶ [state]: sandboxes, containers, images, and what became of them
//! ```
//!
//! It stands outside every tree, so that containers go on when the node's actors die. A container runs for ever, or, when
//! its command is `exit SECONDS CODE`, so long. Nothing is executed; each writes one line to its log ([`Greeting`]).
//!
//! It can be slow, refuse calls, carry them out without an answer, drop its connections, and be away. All that ever ran is
//! remembered ([`Life`]), so that a checker sees a restart that nobody asked for.

mod calls;
mod serve;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k3sd_cri::Cri;
use k3sd_runtime::{Clock, Rng};
use tokio::sync::watch;
use tonic::transport::Endpoint;

use self::state::State;
pub use self::state::{End, Greeting, Life, Step};

/// What goes wrong now.
#[derive(Debug)]
struct Trouble {
    rng: Rng,
    /// Each call takes up to so many milliseconds before it does anything, and as many after.
    delay_ms_max: u64,
    /// So many calls are refused yet.
    refusals: u32,
    /// So many calls are carried out yet, and not answered.
    silences: u32,
    is_away: bool,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    trouble: Mutex<Trouble>,
    /// Connections of an older number are dropped.
    cuts: watch::Sender<u64>,
    /// Changes when something happened to a container by itself.
    news: watch::Sender<()>,
    /// Changes when a container may end at another time than was known.
    plans: watch::Sender<()>,
}

/// The runtime. Clones share it.
#[derive(Clone)]
pub struct FakeCri(Arc<Shared>);

impl fmt::Debug for FakeCri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeCri")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one call meets.
struct Toll {
    before: Duration,
    after: Duration,
    is_refused: bool,
    is_silent: bool,
}

impl FakeCri {
    /// A runtime without anything in it but the image of sandboxes. Call it within a tokio runtime, on which it lives.
    #[must_use]
    pub fn new(clock: Clock, mount: String) -> Self {
        let rng = clock.rng("fake-cri");
        let trouble = Trouble { rng, delay_ms_max: 0, refusals: 0, silences: 0, is_away: false };
        let shared = Shared {
            state: Mutex::new(State::new(mount)),
            trouble: Mutex::new(trouble),
            cuts: watch::channel(0).0,
            news: watch::channel(()).0,
            plans: watch::channel(()).0,
            clock,
        };
        let made = Self(Arc::new(shared));
        tokio::spawn(made.clone().age());
        made
    }

    /// A way to it, as the node has one.
    #[must_use]
    pub fn cri(&self) -> Cri {
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(Duration::from_secs(5));
        Cri::over(endpoint.connect_with_connector_lazy(serve::Dial(self.clone())))
    }

    /// Changes when a container ended by itself.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    /// Has each call take up to twice so many milliseconds.
    pub fn set_delay(&self, ms_max: u64) {
        lock(&self.0.trouble).delay_ms_max = ms_max;
    }

    /// Refuses the next so many calls.
    pub fn refuse(&self, calls: u32) {
        lock(&self.0.trouble).refusals += calls;
    }

    /// Carries out the next so many calls and leaves them without an answer: their connection is dropped.
    pub fn lose_answers(&self, calls: u32) {
        lock(&self.0.trouble).silences += calls;
    }

    /// Drops all connections.
    pub fn cut(&self) {
        self.0.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Takes the runtime away, as when its process is stopped, or brings it back. What runs in it runs on.
    pub fn set_away(&self, is_away: bool) {
        lock(&self.0.trouble).is_away = is_away;
        if is_away {
            self.cut();
        }
    }

    /// All is well from now on.
    pub fn heal(&self) {
        let trouble = &mut *lock(&self.0.trouble);
        (trouble.refusals, trouble.silences, trouble.is_away) = (0, 0, false);
    }

    /// All that ever happened to containers, in order.
    #[must_use]
    pub fn lives(&self) -> Vec<Life> {
        self.with(|state, _| state.lives.clone())
    }

    /// The uids of pods that have a sandbox, ready or not; one for each sandbox.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<String> {
        self.with(|state, _| state.sandbox_uids())
    }

    /// Uid and name of each container that runs.
    #[must_use]
    pub fn running(&self) -> Vec<(String, String)> {
        self.with(|state, _| state.running())
    }

    /// What each container that runs has written to its log.
    #[must_use]
    pub fn greetings(&self) -> Vec<Greeting> {
        self.with(|state, _| state.greetings())
    }

    /// Ends a container that runs, as when its process dies, and says which. `draw` chooses.
    pub fn crash(&self, draw: u64, code: i32) -> Option<(String, String)> {
        let crashed = self.with(|state, now| state.crash(draw, code, now));
        if crashed.is_some() {
            self.0.news.send_replace(());
        }
        crashed
    }

    /// Does something with the state as it is now.
    fn with<T>(&self, work: impl FnOnce(&mut State, state::Now) -> T) -> T {
        let now = state::Now::of(&self.0.clock);
        let state = &mut *lock(&self.0.state);
        if state.age(now) {
            self.0.news.send_replace(());
        }
        work(state, now)
    }

    /// Ends containers in time.
    async fn age(self) {
        let mut plans = self.0.plans.subscribe();
        loop {
            plans.mark_unchanged();
            let next = self.with(|state, _| state.next_end());
            let clock = self.0.clock.clone();
            tokio::select! {
                biased;
                _ = plans.changed() => {}
                () = async { clock.sleep_until(next.unwrap_or_default()).await }, if next.is_some() => {}
            }
        }
    }

    fn is_away(&self) -> bool {
        lock(&self.0.trouble).is_away
    }

    fn toll(&self) -> Toll {
        let trouble = &mut *lock(&self.0.trouble);
        let mut wait = || Duration::from_millis(trouble.rng.below(trouble.delay_ms_max + 1));
        let (before, after) = (wait(), wait());
        let is_refused = trouble.refusals > 0;
        trouble.refusals -= u32::from(is_refused);
        let is_silent = !is_refused && trouble.silences > 0;
        trouble.silences -= u32::from(is_silent);
        Toll { before, after, is_refused, is_silent }
    }
}
