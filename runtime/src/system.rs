//! A tree and all that belongs to it. Several may live in one process and know nothing of each other.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{broadcast, watch};

use crate::actor::Context;
use crate::address::Address;
use crate::anchor::Anchor;
use crate::cell::{AnyCell, Cell, Kind, Node, STOP, Signal, lock};
use crate::clock::Clock;
use crate::error::TypeMismatch;
use crate::events::{Event, Happened};
use crate::exit::Exit;
use crate::launch::{Lifeline, Parent, RootState, launch_root};
use crate::machine::Seen;
use crate::message::Message;
use crate::queues::Queues;
use crate::spec::{MAILBOX_MESSAGES, Spec};
use crate::supervisor::{SupervisorMsg, SupervisorRef};

/// Events kept for a slow listener; it is told how many it missed.
const EVENTS_MAX: usize = 512;

/// The path of the root.
pub const ROOT: &str = "/";

struct Inner {
    clock: Clock,
    directory: Mutex<HashMap<Arc<str>, Weak<dyn AnyCell>>>,
    events: broadcast::Sender<Event>,
    /// Events so far. Locked over the send, so that they arrive in the order of their numbers.
    sequence: Mutex<u64>,
    alive: AtomicUsize,
    anchor: Anchor,
    born: AtomicU64,
    queues: Queues,
    #[cfg(feature = "testkit")]
    faults: crate::testkit::Faults,
}

/// The universe of one tree: its clock, its names, its events. Cloning shares it.
#[derive(Clone)]
pub struct System(Arc<Inner>);

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").field("alive", &self.alive()).finish_non_exhaustive()
    }
}

impl System {
    /// A universe without actors.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            clock,
            directory: Mutex::new(HashMap::new()),
            events: broadcast::Sender::new(EVENTS_MAX),
            sequence: Mutex::new(0),
            alive: AtomicUsize::new(0),
            anchor: Anchor::default(),
            born: AtomicU64::new(0),
            queues: Queues::default(),
            #[cfg(feature = "testkit")]
            faults: crate::testkit::Faults::default(),
        }))
    }

    /// The only source of time and randomness in this tree.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The numbers of this tree's work queues.
    pub fn queues(&self) -> &Queues {
        &self.0.queues
    }

    /// Incarnations that exist now, supervisors included.
    pub fn alive(&self) -> usize {
        self.0.alive.load(Relaxed)
    }

    /// Incarnations there ever were.
    pub fn born(&self) -> u64 {
        self.0.born.load(Relaxed)
    }

    /// What happens from now on. A listener that falls behind is told how many events it missed.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// The faults that tests planned.
    #[cfg(feature = "testkit")]
    pub fn faults(&self) -> &crate::testkit::Faults {
        &self.0.faults
    }

    /// The address of the actor at `path`, which need not exist yet.
    ///
    /// # Errors
    /// When somebody already knows this path with another message type.
    pub fn address<M: Message>(&self, path: &str) -> Result<Address<M>, TypeMismatch> {
        Ok(Address::new(self.cell(path.into())?))
    }

    /// The supervisor at `path`, which need not exist yet.
    ///
    /// # Errors
    /// When the actor at this path is no supervisor.
    pub fn supervisor(&self, path: &str) -> Result<SupervisorRef, TypeMismatch> {
        Ok(SupervisorRef::new(self.address(path)?))
    }

    /// Signals whoever lives at `path` now, past its mailbox. Its supervisor isn't asked, so to it a stop or a kill is an
    /// exit like any other. `false` when nobody lives there.
    pub fn signal(&self, path: &str, signal: Signal) -> bool {
        let found = self.find(path).filter(|cell| cell.is_occupied());
        found.map(|cell| cell.signal(signal)).is_some()
    }

    /// Whether somebody lives at `path` just now; a moment later it may be otherwise.
    pub fn is_occupied(&self, path: &str) -> bool {
        self.find(path).is_some_and(|cell| cell.is_occupied())
    }

    /// Starts the tree. Call it once, within a tokio runtime.
    ///
    /// # Panics
    /// When this universe already has a root.
    pub fn start(&self, spec: Spec) -> Tree {
        let root: Arc<Cell<SupervisorMsg>> = self.cell(ROOT.into()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(root.node.incarnation.fetch_add(1, Relaxed), 0, "a universe has one root");
        root.node.meta().kind = Kind::Supervisor;
        root.node.started_at.store(self.clock().now().as_nanos().max(1), Relaxed);
        root.node.state.store(Seen::Running as u8, Relaxed);
        let (sender, state) = watch::channel(RootState::Starting);
        root.occupy();
        let lifeline = Lifeline::new(Parent::Root(sender));
        launch_root(Context::new(root.clone(), lifeline.clone()), spec, root.clone(), lifeline);
        Tree { system: self.clone(), root, state }
    }

    pub(crate) fn cell<M: Message>(&self, path: Arc<str>) -> Result<Arc<Cell<M>>, TypeMismatch> {
        let directory = &mut *lock(&self.0.directory);
        if let Some(found) = directory.get(&path).and_then(Weak::upgrade) {
            let message_type = found.message_type();
            return found.into_any().downcast().map_err(|_| TypeMismatch {
                path: path.to_string(),
                wanted: std::any::type_name::<M>(),
                found: message_type,
            });
        }
        let cell = Arc::new(Cell::<M>::new(path.clone(), self.clone(), MAILBOX_MESSAGES));
        let weak: Weak<Cell<M>> = Arc::downgrade(&cell);
        directory.insert(path, weak);
        Ok(cell)
    }

    /// The actor at this path, whatever it understands.
    /// Whether the whole tree was asked to stop: what stops now doesn't come back in this process.
    pub fn is_ending(&self) -> bool {
        self.find(ROOT).is_some_and(|root| root.node().flags() & STOP != 0)
    }

    pub(crate) fn find(&self, path: &str) -> Option<Arc<dyn AnyCell>> {
        lock(&self.0.directory).get(path).and_then(Weak::upgrade)
    }

    pub(crate) fn forget_path(&self, path: &Arc<str>) {
        let directory = &mut *lock(&self.0.directory);
        if directory.get(path).is_some_and(|cell| cell.strong_count() == 0) {
            directory.remove(path);
        }
        if directory.capacity() > 1024 && directory.len() * 4 < directory.capacity() {
            directory.shrink_to(directory.len() * 2);
        }
    }

    /// Makes the timers of calls cheap; see [`crate::anchor`].
    pub(crate) fn anchor(&self) {
        self.0.anchor.hold(&self.0.clock);
    }

    pub(crate) fn count_birth(&self) {
        self.0.alive.fetch_add(1, Relaxed);
        self.0.born.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_end(&self) {
        self.0.alive.fetch_sub(1, Relaxed);
    }

    pub(crate) fn happened(&self, node: &Node, what: impl FnOnce() -> Happened) {
        let next = &mut *lock(&self.0.sequence);
        let sequence = *next;
        *next += 1;
        if self.0.events.receiver_count() == 0 {
            return;
        }
        let event = Event {
            sequence,
            at: self.clock().now(),
            path: node.path.clone(),
            incarnation: node.incarnation.load(Relaxed),
            happened: what(),
        };
        self.0.events.send(event).ok();
    }
}

/// A running tree, held by whoever started it.
#[derive(Debug)]
pub struct Tree {
    system: System,
    root: Arc<Cell<SupervisorMsg>>,
    state: watch::Receiver<RootState>,
}

impl Tree {
    /// Its universe.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Its root supervisor.
    pub fn root(&self) -> SupervisorRef {
        SupervisorRef::new(Address::new(self.root.clone()))
    }

    /// Completes when all children were up, or had their first try.
    ///
    /// # Errors
    /// How the root ended, when it did.
    pub async fn ready(&self) -> Result<(), Exit> {
        let mut state = self.state.clone();
        // The lifeline sends the end before it lets go of the sender, so a closed channel still holds it.
        let settled = state.wait_for(|state| *state != RootState::Starting).await.map(|state| state.clone());
        match settled {
            Ok(RootState::Ended(exit)) => Err(exit),
            Ok(_) => Ok(()),
            Err(_) => Err(Exit::Killed),
        }
    }

    /// Completes when nothing of the tree is left.
    pub async fn ended(&self) -> Exit {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, RootState::Ended(_))).await.as_deref() {
            Ok(RootState::Ended(exit)) => exit.clone(),
            _ => Exit::Killed,
        }
    }

    /// Asks the whole tree to stop, last children first. [`Tree::ended`] tells when it has.
    pub fn stop(&self) {
        self.root.signal(Signal::Stop);
    }

    /// Drops the whole tree at its next awaits.
    pub fn kill(&self) {
        self.root.signal(Signal::Kill);
    }
}
