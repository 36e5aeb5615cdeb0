//! What an actor is, and what it can do from inside.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{self, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Sleep;

use crate::address::Address;
use crate::cell::{Cell, STOP, SUSPEND, TraceRecord};
use crate::clock::{Clock, Moment, Rng};
use crate::exit::{ActorError, Exit};
use crate::launch::Lifeline;
use crate::message::Message;
use crate::system::System;

/// What an actor answers when it is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ends now.
    Now,
    /// It goes on handling messages until it calls [`Context::finish`]; its shutdown limit runs meanwhile.
    Later,
}

/// An actor: state that one task owns, changed by one message at a time.
///
/// A kill drops the running future at its next await, so no method may leave the outside world half changed across one.
/// A handler that returns an error or panics ends this incarnation; its supervisor starts the next from the same
/// arguments.
pub trait Actor: Sized + Send + 'static {
    /// What it is started, and restarted, with.
    type Args: Clone + Send + Sync + 'static;
    /// What it understands.
    type Msg: Message;

    /// Whether a stop drops the handler in hand at its next await, as a kill does. For handlers that wait for somebody who
    /// may be away, and who comes back only when this actor has stopped.
    const STOPS_AT_AWAIT: bool = false;

    /// Builds the state. Its supervisor isn't blocked meanwhile, but siblings that start after it wait. A stop drops it
    /// at its next await.
    ///
    /// # Errors
    /// An error counts as a death.
    fn init(ctx: &mut Context<Self::Msg>, args: Self::Args) -> impl Future<Output = Result<Self, ActorError>> + Send;

    /// Handles one message.
    ///
    /// # Errors
    /// An error says that the state can no longer be trusted; expected refusals are answers, not errors.
    fn handle(
        &mut self,
        ctx: &mut Context<Self::Msg>,
        message: Self::Msg,
    ) -> impl Future<Output = Result<(), ActorError>> + Send;

    /// It was asked to stop. What still waits in the mailbox is dropped, unless the answer is [`Stop::Later`].
    fn stopping(&mut self, ctx: &mut Context<Self::Msg>) -> impl Future<Output = Stop> + Send {
        let _ = ctx;
        async { Stop::Now }
    }

    /// The last thing it does after a clean end; skipped by a kill, an error and a panic.
    fn terminate(&mut self, ctx: &mut Context<Self::Msg>) -> impl Future<Output = ()> + Send {
        let _ = ctx;
        async {}
    }
}

/// A timer that was set; see [`Context::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId(Moment, u64);

type Pipe<M> = Pin<Box<dyn Future<Output = M> + Send>>;

/// An actor's view of itself: its address, its timers, its clock. Lives as long as one incarnation.
pub struct Context<M: Message> {
    cell: Arc<Cell<M>>,
    pub(crate) lifeline: Arc<Lifeline>,
    timers: BTreeMap<TimerId, M>,
    timers_set: u64,
    alarm: Option<Pin<Box<Sleep>>>,
    pipes: Option<Box<FuturesUnordered<Pipe<M>>>>,
    handled_in_a_row: u32,
    ready: Readiness,
    /// It ends after this handler, like this.
    ending: Option<Exit>,
    /// The stop was passed on to the actor, which answered [`Stop::Later`].
    stop_seen: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    AfterInit,
    Deferred,
    Told,
}

impl<M: Message> fmt::Debug for Context<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// What an incarnation does next.
pub(crate) enum Next<M> {
    Handle(M),
    Stop,
}

/// After so many messages without a wait others get their turn; the figure is tokio's own budget per task.
const MESSAGES_IN_A_ROW: u32 = 128;

impl<M: Message> Context<M> {
    pub(crate) fn new(cell: Arc<Cell<M>>, lifeline: Arc<Lifeline>) -> Self {
        Self {
            cell,
            lifeline,
            timers: BTreeMap::new(),
            timers_set: 0,
            alarm: None,
            pipes: None,
            handled_in_a_row: 0,
            ready: Readiness::AfterInit,
            ending: None,
            stop_seen: false,
        }
    }

    /// Its own address, to hand out.
    pub fn address(&self) -> Address<M> {
        Address::new(self.cell.clone())
    }

    /// Its path, as `server/kine/writer`.
    pub fn path(&self) -> &Arc<str> {
        &self.cell.node.path
    }

    /// Which life this is, counted from 1 since the process began.
    pub fn incarnation(&self) -> u64 {
        self.cell.node.incarnation.load(Relaxed)
    }

    /// The tree it lives in.
    pub fn system(&self) -> &System {
        &self.cell.node.system
    }

    /// The only source of time.
    pub fn clock(&self) -> &Clock {
        self.system().clock()
    }

    /// Random numbers of its own.
    pub fn rng(&self) -> Rng {
        self.clock().rng(self.path())
    }

    /// Shows these lines to whoever looks at this actor, instead of those before. Names and reasons only: they are read
    /// by people who may not read what is stored.
    pub fn note(&self, lines: Vec<String>) {
        self.cell.node.set_notes(lines);
    }

    /// Ends once the supervisor has asked for the end.
    fn asked_to_stop(&self) -> impl Future<Output = ()> + Send + use<M> {
        let cell = self.cell.clone();
        // A signal wakes the task that this is a part of, so nobody has to be told of a waker.
        std::future::poll_fn(move |_| if cell.node.flags() & STOP != 0 { Poll::Ready(()) } else { Poll::Pending })
    }

    /// Has `message` delivered to itself after `delay`. Timers end with the incarnation, and never fire inside a handler.
    pub fn send_after(&mut self, delay: Duration, message: M) -> TimerId {
        let due = self.clock().now() + delay;
        self.send_at(due, message)
    }

    /// As [`Context::send_after`], at a moment.
    pub fn send_at(&mut self, due: Moment, message: M) -> TimerId {
        let id = TimerId(due, self.timers_set);
        self.timers_set += 1;
        if self.timers.first_key_value().is_none_or(|(first, _)| id < *first) {
            self.alarm = None;
        }
        self.timers.insert(id, message);
        id
    }

    /// Takes a timer back, with its message; `None` when it has fired.
    pub fn cancel(&mut self, timer: TimerId) -> Option<M> {
        let message = self.timers.remove(&timer);
        if self.timers.is_empty() {
            self.alarm = None; // No wake-up for nothing.
        }
        message
    }

    /// Waits for `future` beside the mailbox and delivers what it yields as a message. It only makes progress while no
    /// handler runs, and is dropped with the incarnation.
    pub fn pipe(&mut self, future: impl Future<Output = M> + Send + 'static) {
        self.pipes.get_or_insert_default().push(Box::pin(future));
    }

    /// Puts a message at the end of its own queue, past the bound.
    pub fn send_self(&self, message: M) {
        self.cell.push_unbounded(message);
    }

    /// Says in `init` that being ready comes later, with [`Context::ready`]. The start limit goes on running.
    pub fn defer_ready(&mut self) {
        if self.ready == Readiness::AfterInit {
            self.ready = Readiness::Deferred;
        }
    }

    /// Ready: the siblings that wait for it may start. Only needed after [`Context::defer_ready`].
    pub fn ready(&mut self) {
        if self.ready != Readiness::Told {
            self.ready = Readiness::Told;
            self.lifeline.tell_started();
        }
    }

    pub(crate) fn cell(&self) -> Arc<Cell<M>> {
        self.cell.clone()
    }

    pub(crate) fn ready_after_init(&mut self) {
        if self.ready == Readiness::AfterInit {
            self.ready();
        }
    }

    /// Ends this incarnation after the current handler, as [`Exit::Normal`] or [`Exit::Shutdown`].
    pub fn finish(&mut self) {
        let exit = if self.cell.node.flags() & STOP != 0 { Exit::Shutdown } else { Exit::Normal };
        self.finish_as(exit);
    }

    pub(crate) fn finish_as(&mut self, exit: Exit) {
        self.ending.get_or_insert(exit);
    }

    /// A named place where tests make things go wrong. Compiles to nothing without the `testkit` feature.
    ///
    /// # Errors
    /// What the test planned.
    #[cfg(feature = "testkit")]
    pub fn fault(&self, place: &'static str) -> impl Future<Output = Result<(), ActorError>> + Send + use<M> {
        let system = self.system().clone();
        async move { system.faults().reach(place).await }
    }

    /// A named place where tests make things go wrong. Compiles to nothing without the `testkit` feature.
    ///
    /// # Errors
    /// Never.
    #[cfg(not(feature = "testkit"))]
    pub fn fault(&self, _place: &'static str) -> std::future::Ready<Result<(), ActorError>> {
        std::future::ready(Ok(()))
    }

    pub(crate) async fn next(&mut self) -> Next<M> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Next<M>> {
        let flags = self.cell.node.flags();
        if flags & STOP != 0 && !self.stop_seen {
            self.stop_seen = true;
            return Poll::Ready(Next::Stop);
        }
        if flags & SUSPEND != 0 && flags & STOP == 0 {
            return Poll::Pending; // Resume wakes the task.
        }
        if self.handled_in_a_row >= MESSAGES_IN_A_ROW {
            self.handled_in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let found = self.poll_sources(cx);
        self.handled_in_a_row = if found.is_ready() { self.handled_in_a_row + 1 } else { 0 };
        found.map(Next::Handle)
    }

    /// Timers, then piped futures, then the mailbox; every other time the mailbox first, so that none starves another.
    fn poll_sources(&mut self, cx: &mut task::Context<'_>) -> Poll<M> {
        if self.timers.is_empty() && self.pipes.is_none() {
            return self.cell.poll_pop(cx);
        }
        if self.handled_in_a_row % 2 == 1
            && let Poll::Ready(message) = self.cell.poll_pop(cx)
        {
            return Poll::Ready(message);
        }
        if let Poll::Ready(message) = self.poll_timers(cx) {
            return Poll::Ready(message);
        }
        if let Some(pipes) = &mut self.pipes {
            match pipes.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => return Poll::Ready(message),
                Poll::Ready(None) => self.pipes = None,
                Poll::Pending => {}
            }
        }
        self.cell.poll_pop(cx)
    }

    fn poll_timers(&mut self, cx: &mut task::Context<'_>) -> Poll<M> {
        while let Some((&TimerId(due, _), _)) = self.timers.first_key_value() {
            if self.clock().now() >= due
                && let Some((_, message)) = self.timers.pop_first()
            {
                self.alarm = None;
                return Poll::Ready(message);
            }
            let alarm = match &mut self.alarm {
                Some(alarm) => alarm,
                None => {
                    let due = self.clock().instant(due);
                    self.alarm.insert(Box::pin(tokio::time::sleep_until(due)))
                }
            };
            match alarm.as_mut().poll(cx) {
                // tokio rounds up to milliseconds, so the moment has come; look again.
                Poll::Ready(()) => self.alarm = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}

/// One incarnation from `init` to its end.
pub(crate) async fn live<A: Actor>(mut ctx: Context<A::Msg>, args: A::Args) -> Exit {
    #[cfg(feature = "testkit")]
    if let Some(text) = ctx.system().faults().start(ctx.path()) {
        return Exit::StartFailed(text);
    }
    let asked_to_stop = ctx.asked_to_stop();
    let made = tokio::select! {
        biased;
        made = A::init(&mut ctx, args) => made,
        () = asked_to_stop => return Exit::Shutdown,
    };
    let mut actor = match made {
        Ok(actor) => actor,
        Err(error) => return Exit::StartFailed(crate::exit::clip(error.to_string())),
    };
    ctx.lifeline.initialised();
    ctx.ready_after_init();
    while ctx.ending.is_none() {
        match ctx.next().await {
            Next::Handle(message) => {
                if let Err(error) = handle(&mut actor, &mut ctx, message).await {
                    return Exit::Error(crate::exit::clip(error.to_string()));
                }
            }
            Next::Stop => {
                if actor.stopping(&mut ctx).await == Stop::Now {
                    ctx.finish();
                }
            }
        }
    }
    actor.terminate(&mut ctx).await;
    ctx.ending.take().unwrap_or(Exit::Normal)
}

async fn handle<A: Actor>(actor: &mut A, ctx: &mut Context<A::Msg>, message: A::Msg) -> Result<(), ActorError> {
    #[cfg(feature = "testkit")]
    if let Some(text) = ctx.system().faults().message(ctx.path()) {
        return Err(ActorError::new(text));
    }
    let kind = message.kind();
    let began = ctx.cell.node.begin(kind);
    let outcome = if A::STOPS_AT_AWAIT {
        let asked_to_stop = ctx.asked_to_stop();
        tokio::select! {
            biased;
            outcome = actor.handle(ctx, message) => outcome,
            () = asked_to_stop => Ok(()),
        }
    } else {
        actor.handle(ctx, message).await
    };
    let took = ctx.cell.node.end(began);
    if ctx.cell.node.is_traced() {
        let message = A::Msg::KINDS.get(kind).copied().unwrap_or("?");
        let waiting = ctx.cell.waiting();
        ctx.cell.node.trace(&TraceRecord { at: began, message, took, waiting, failed: outcome.is_err() });
    }
    outcome
}
