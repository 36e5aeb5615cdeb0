//! The place of an actor: its mailbox, its control flags and its counters.
//!
//! A cell outlives the incarnations that run in it, one at a time: whoever holds an address holds the cell, so a name is
//! resolved at each send by looking whether anybody is in. The mailbox is emptied between two incarnations.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Moment;
use crate::error::CastError;
use crate::exit::Exit;
use crate::machine::ChildId;
use crate::message::Message;
use crate::spec::{Intensity, Restart, Strategy};
use crate::system::System;

/// What can be asked of any actor from outside its mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Finish the current handler and end.
    Stop,
    /// End at the next await.
    Kill,
    /// Panic at the next await; for drills.
    Panic,
    /// Take no more messages.
    Suspend,
    /// Take messages again.
    Resume,
}

pub(crate) const STOP: u8 = 1;
pub(crate) const KILL: u8 = 2;
pub(crate) const PANIC: u8 = 4;
pub(crate) const SUSPEND: u8 = 8;

/// Deaths remembered per actor; the ninth pushes out the first.
const DEATHS_MAX: usize = 8;

/// A mailbox that once held a burst gives its memory back when it is empty and larger than this.
const SPARE_MESSAGES: usize = 64;

/// How an incarnation ended, for the inspector.
#[derive(Clone, Debug)]
pub struct Death {
    /// When.
    pub at: Moment,
    /// Which life it was, counted from 1.
    pub incarnation: u64,
    /// Why.
    pub exit: Exit,
    /// Whether its supervisor had asked for it.
    pub asked: bool,
}

/// One handled message, for a trace.
#[derive(Clone, Debug)]
pub struct TraceRecord {
    /// When its handler began.
    pub at: Moment,
    /// The name of the message's variant.
    pub message: &'static str,
    /// How long the handler took.
    pub took: Duration,
    /// Messages that were waiting when it ended.
    pub waiting: usize,
    /// Whether the handler returned an error.
    pub failed: bool,
}

/// What an actor is to its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Handles messages.
    Worker,
    /// Runs one future.
    Task,
    /// Has children.
    Supervisor,
}

/// The supervisor's part of a cell.
#[derive(Debug, Default)]
pub(crate) struct Supervising {
    pub(crate) strategy: Option<Strategy>,
    pub(crate) intensity: Intensity,
    pub(crate) children: BTreeMap<ChildId, Arc<dyn AnyCell>>,
}

/// What is rarely touched: by the supervisor at starts and deaths, and by whoever looks.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) restart: Option<Restart>,
    pub(crate) supervising: Option<Box<Supervising>>,
    deaths: VecDeque<Death>,
    notes: Vec<String>,
    traces: Vec<mpsc::Sender<TraceRecord>>,
}

/// The part of a cell that doesn't depend on the message type.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) path: Arc<str>,
    pub(crate) system: System,
    flags: AtomicU8,
    /// A [`Seen`](crate::machine::Seen) as its supervisor last wrote it.
    pub(crate) state: AtomicU8,
    pub(crate) incarnation: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) started_at: AtomicU64,
    handled: AtomicU64,
    busy_nanos: AtomicU64,
    /// When the current handler began, in nanoseconds; 0 between two messages.
    busy_since: AtomicU64,
    handling: AtomicUsize,
    traced: AtomicBool,
    /// A stop drops the future at its next await, as there is no mailbox to learn it from.
    pub(crate) stops_at_await: AtomicBool,
    meta: Mutex<Meta>,
}

/// Locks, also after a panic in another thread: every change under these locks is complete by itself.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn flags(&self) -> u8 {
        self.flags.load(SeqCst)
    }

    pub(crate) fn clear_flags(&self, bits: u8) {
        self.flags.fetch_and(!bits, SeqCst);
    }

    pub(crate) fn meta(&self) -> MutexGuard<'_, Meta> {
        lock(&self.meta)
    }

    pub(crate) fn record_death(&self, death: Death) {
        let meta = &mut *self.meta();
        meta.notes.clear();
        let deaths = &mut meta.deaths;
        if deaths.len() == DEATHS_MAX {
            deaths.pop_front();
        }
        deaths.push_back(death);
    }

    /// What the actor has to say about itself; it is forgotten when it dies.
    pub(crate) fn set_notes(&self, notes: Vec<String>) {
        self.meta().notes = notes;
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.meta().notes.clone()
    }

    pub(crate) fn deaths(&self) -> Vec<Death> {
        self.meta().deaths.iter().cloned().collect()
    }

    pub(crate) fn add_trace(&self, sink: mpsc::Sender<TraceRecord>) {
        let traces = &mut self.meta().traces;
        traces.retain(|other| !other.is_closed()); // An idle actor would collect those of readers long gone.
        traces.push(sink);
        self.traced.store(true, Relaxed);
    }

    /// The handler of a message begins. Only the incarnation itself writes these, so plain stores do.
    pub(crate) fn begin(&self, kind: usize) -> Moment {
        let now = self.system.clock().now();
        self.handling.store(kind, Relaxed);
        self.busy_since.store(now.as_nanos().max(1), Relaxed);
        now
    }

    pub(crate) fn end(&self, began: Moment) -> Duration {
        let took = self.system.clock().now().since(began);
        self.busy_since.store(0, Relaxed);
        self.handled.store(self.handled.load(Relaxed) + 1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_nanos.store(self.busy_nanos.load(Relaxed).saturating_add(nanos), Relaxed);
        took
    }

    /// The incarnation ended, perhaps inside a handler.
    pub(crate) fn rest(&self) {
        self.busy_since.store(0, Relaxed);
    }

    pub(crate) fn is_traced(&self) -> bool {
        self.traced.load(Relaxed)
    }

    pub(crate) fn trace(&self, record: &TraceRecord) {
        let meta = &mut self.meta();
        // A slow reader misses records rather than slowing the actor down; it sees the gap in the counters.
        meta.traces.retain(|sink| !matches!(sink.try_send(record.clone()), Err(mpsc::error::TrySendError::Closed(_))));
        self.traced.store(!meta.traces.is_empty(), Relaxed);
    }

    pub(crate) fn counters(&self) -> Counters {
        let busy_since = self.busy_since.load(Relaxed);
        Counters {
            handled: self.handled.load(Relaxed),
            busy: Duration::from_nanos(self.busy_nanos.load(Relaxed)),
            handling: (busy_since != 0).then(|| (self.handling.load(Relaxed), Moment::from_nanos(busy_since))),
        }
    }
}

/// A look at an actor's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) handled: u64,
    pub(crate) busy: Duration,
    /// The kind of the message in hand, and since when.
    pub(crate) handling: Option<(usize, Moment)>,
}

/// A look at a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxLook {
    /// Messages waiting.
    pub depth: usize,
    /// The most that ever waited at once.
    pub high_water: usize,
    /// The bound.
    pub capacity: usize,
    /// Messages taken in since the start of the process.
    pub received: u64,
    /// Messages refused because the mailbox was full.
    pub refused: u64,
}

struct Queue<M> {
    messages: VecDeque<M>,
    capacity: usize,
    /// Somebody lives here and takes messages.
    open: bool,
    /// The waker of the incarnation's task; the same for all its life.
    waker: Option<Waker>,
    /// The incarnation waits for a message, so a push has to wake it.
    parked: bool,
    high_water: usize,
    received: u64,
    refused: u64,
}

pub(crate) struct Cell<M> {
    pub(crate) node: Node,
    queue: Mutex<Queue<M>>,
}

impl<M> std::fmt::Debug for Cell<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cell").field(&self.node.path).finish()
    }
}

/// A cell of any message type.
pub(crate) trait AnyCell: std::fmt::Debug + Send + Sync {
    fn node(&self) -> &Node;
    fn signal(&self, signal: Signal);
    fn mailbox(&self) -> MailboxLook;
    fn kinds(&self) -> &'static [&'static str];
    fn message_type(&self) -> &'static str;
    fn is_occupied(&self) -> bool;
    fn set_capacity(&self, messages: usize);
    /// The task runs for the first time: from now on signals reach it.
    fn attach(&self, waker: &Waker);
    /// The incarnation is gone: drops what waits, so that callers learn it.
    fn vacate(&self);
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<M: Message> Cell<M> {
    pub(crate) fn new(path: Arc<str>, system: System, capacity: usize) -> Self {
        let meta = Meta {
            kind: Kind::Worker,
            restart: None,
            supervising: None,
            deaths: VecDeque::new(),
            notes: Vec::new(),
            traces: Vec::new(),
        };
        let node = Node {
            path,
            system,
            flags: AtomicU8::new(0),
            state: AtomicU8::new(0),
            incarnation: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            started_at: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            busy_nanos: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            handling: AtomicUsize::new(0),
            traced: AtomicBool::new(false),
            stops_at_await: AtomicBool::new(false),
            meta: Mutex::new(meta),
        };
        let queue = Queue {
            messages: VecDeque::new(),
            capacity,
            open: false,
            waker: None,
            parked: false,
            high_water: 0,
            received: 0,
            refused: 0,
        };
        Self { node, queue: Mutex::new(queue) }
    }

    /// A new incarnation moves in. Messages are taken from here on, also while it is in `init`.
    pub(crate) fn occupy(&self) {
        self.node.clear_flags(STOP | KILL | PANIC | SUSPEND);
        let queue = &mut lock(&self.queue);
        queue.open = true;
        queue.parked = false;
    }

    /// Puts a message in, unless the mailbox is full or nobody is in.
    pub(crate) fn push(&self, message: M) -> Result<(), (CastError, M)> {
        let queue = &mut *lock(&self.queue);
        if !queue.open {
            return Err((CastError::Down, message));
        }
        if queue.messages.len() >= queue.capacity {
            queue.refused += 1;
            return Err((CastError::Full, message));
        }
        queue.take_in(message);
        Ok(())
    }

    /// Puts a message in without regard to the bound. For the runtime's own, of which each child owes at most two.
    pub(crate) fn push_unbounded(&self, message: M) {
        let queue = &mut *lock(&self.queue);
        if queue.open {
            queue.take_in(message);
        }
    }

    /// The next message; parks when there is none.
    pub(crate) fn poll_pop(&self, cx: &Context<'_>) -> Poll<M> {
        let queue = &mut *lock(&self.queue);
        debug_assert!(queue.waker.as_ref().is_none_or(|waker| waker.will_wake(cx.waker())), "one task per incarnation");
        match queue.messages.pop_front() {
            Some(message) => Poll::Ready(message),
            None => {
                queue.parked = true;
                if queue.messages.capacity() > SPARE_MESSAGES {
                    queue.messages.shrink_to(0);
                }
                Poll::Pending
            }
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        lock(&self.queue).messages.len()
    }
}

impl<M> Queue<M> {
    fn take_in(&mut self, message: M) {
        self.messages.push_back(message);
        self.received += 1;
        self.high_water = self.high_water.max(self.messages.len());
        if self.parked {
            self.parked = false;
            if let Some(waker) = &self.waker {
                waker.wake_by_ref();
            }
        }
    }
}

impl<M: Message> AnyCell for Cell<M> {
    fn node(&self) -> &Node {
        &self.node
    }

    fn signal(&self, signal: Signal) {
        match signal {
            Signal::Stop => self.node.flags.fetch_or(STOP, SeqCst),
            Signal::Kill => self.node.flags.fetch_or(KILL, SeqCst),
            Signal::Panic => self.node.flags.fetch_or(PANIC, SeqCst),
            Signal::Suspend => self.node.flags.fetch_or(SUSPEND, SeqCst),
            Signal::Resume => self.node.flags.fetch_and(!SUSPEND, SeqCst),
        };
        let queue = &mut lock(&self.queue);
        queue.parked = false;
        // Always: the task may be inside a handler's await, or between looking at the flags and parking.
        if let Some(waker) = &queue.waker {
            waker.wake_by_ref();
        }
    }

    fn mailbox(&self) -> MailboxLook {
        let queue = lock(&self.queue);
        MailboxLook {
            depth: queue.messages.len(),
            high_water: queue.high_water,
            capacity: queue.capacity,
            received: queue.received,
            refused: queue.refused,
        }
    }

    fn kinds(&self) -> &'static [&'static str] {
        M::KINDS
    }

    fn message_type(&self) -> &'static str {
        std::any::type_name::<M>()
    }

    fn is_occupied(&self) -> bool {
        lock(&self.queue).open
    }

    fn set_capacity(&self, messages: usize) {
        lock(&self.queue).capacity = messages;
    }

    fn attach(&self, waker: &Waker) {
        lock(&self.queue).waker = Some(waker.clone());
    }

    fn vacate(&self) {
        let (messages, waker) = {
            let queue = &mut lock(&self.queue);
            queue.open = false;
            queue.parked = false;
            (std::mem::take(&mut queue.messages), queue.waker.take())
        };
        self.node.rest();
        drop((messages, waker)); // Outside the lock: a reply port that is dropped wakes its caller.
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl<M> Drop for Cell<M> {
    fn drop(&mut self) {
        self.node.system.forget_path(&self.node.path);
    }
}
