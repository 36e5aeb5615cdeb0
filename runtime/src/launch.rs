//! Turning a spec into a running incarnation, and noticing its end.
//!
//! An incarnation is one tokio task around a boxed future. The task looks at the control flags before each poll, catches
//! panics, and drops the future when it is killed. Its [`Lifeline`] is held by everything that belongs to it: its task,
//! its children's lifelines, its threads. The supervisor hears of the exit when the last holder lets go, so a successor
//! never meets anything of its predecessor.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use tokio::sync::watch;

use crate::actor::{Actor, Context, live};
use crate::cell::{AnyCell, Cell, KILL, Kind, PANIC, STOP, lock};
use crate::error::TypeMismatch;
use crate::exit::{ActorError, Exit, panic_text};
use crate::machine::{ChildId, Incarnation};
use crate::message::Silent;
use crate::spec::{ChildSpec, Shutdown, Spec};
use crate::supervisor::{Supervisor, SupervisorMsg};
use crate::system::System;

thread_local! {
    static CURRENT: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// The path of the actor whose code runs on this thread right now; for log lines.
pub fn current_path() -> Option<Arc<str>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Names the thread's current actor, and returns the one before.
pub(crate) fn set_current_path(path: Option<Arc<str>>) -> Option<Arc<str>> {
    CURRENT.try_with(|current| current.replace(path)).ok().flatten()
}

/// Whom an incarnation reports to.
pub(crate) enum Parent {
    Supervisor { cell: Arc<Cell<SupervisorMsg>>, child: ChildId, incarnation: Incarnation, held: Arc<Lifeline> },
    Root(watch::Sender<RootState>),
}

/// Where the root of a tree stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootState {
    /// Its children are starting.
    Starting,
    /// All children were up, or had their first try.
    Ready,
    /// It is gone, with everything below it.
    Ended(Exit),
}

/// See the module's page.
pub(crate) struct Lifeline {
    parent: Parent,
    exit: Mutex<Option<Exit>>,
    initialised: AtomicBool,
}

impl fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lifeline")
    }
}

impl Lifeline {
    pub(crate) fn new(parent: Parent) -> Arc<Self> {
        Arc::new(Self { parent, exit: Mutex::new(None), initialised: AtomicBool::new(false) })
    }

    pub(crate) fn tell_started(&self) {
        match &self.parent {
            Parent::Supervisor { cell, child, incarnation, .. } => {
                cell.push_unbounded(SupervisorMsg::ChildStarted { child: *child, incarnation: *incarnation });
            }
            Parent::Root(state) => {
                state.send_replace(RootState::Ready);
            }
        }
    }

    pub(crate) fn initialised(&self) {
        self.initialised.store(true, Relaxed);
    }

    fn set_exit(&self, exit: Exit) {
        let exit = match exit {
            Exit::Panic(text) if !self.initialised.load(Relaxed) => Exit::StartFailed(format!("panicked: {text}")),
            Exit::Killed if !self.initialised.load(Relaxed) => Exit::StartFailed("killed before it was up".to_owned()),
            other => other,
        };
        lock(&self.exit).get_or_insert(exit);
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let exit = lock(&self.exit).take().unwrap_or(Exit::Killed);
        match &self.parent {
            Parent::Supervisor { cell, child, incarnation, held } => {
                cell.push_unbounded(SupervisorMsg::ChildExited { child: *child, incarnation: *incarnation, exit });
                let _ = held; // Lets go of the parent's lifeline only after the report.
            }
            Parent::Root(state) => {
                state.send_replace(RootState::Ended(exit));
            }
        }
    }
}

/// How to make incarnations of one child.
pub(crate) trait Factory: Send + Sync {
    fn kind(&self) -> Kind;
    fn cell(&self, system: &System, path: Arc<str>) -> Result<Arc<dyn AnyCell>, TypeMismatch>;
    fn launch(&self, cell: Arc<dyn AnyCell>, lifeline: Arc<Lifeline>);
}

struct Worker<A: Actor>(A::Args);

impl<A: Actor> Factory for Worker<A> {
    fn kind(&self) -> Kind {
        Kind::Worker
    }

    fn cell(&self, system: &System, path: Arc<str>) -> Result<Arc<dyn AnyCell>, TypeMismatch> {
        Ok(system.cell::<A::Msg>(path)?)
    }

    fn launch(&self, cell: Arc<dyn AnyCell>, lifeline: Arc<Lifeline>) {
        launch::<A>(self.0.clone(), cell, lifeline);
    }
}

fn launch<A: Actor>(args: A::Args, cell: Arc<dyn AnyCell>, lifeline: Arc<Lifeline>) {
    let Ok(typed) = cell.clone().into_any().downcast::<Cell<A::Msg>>() else {
        unreachable!("the factory made the cell");
    };
    typed.occupy();
    let ctx = Context::new(typed, lifeline.clone());
    spawn(Box::pin(live::<A>(ctx, args)), cell, lifeline);
}

struct Subtree(Spec);

impl Factory for Subtree {
    fn kind(&self) -> Kind {
        Kind::Supervisor
    }

    fn cell(&self, system: &System, path: Arc<str>) -> Result<Arc<dyn AnyCell>, TypeMismatch> {
        Ok(system.cell::<SupervisorMsg>(path)?)
    }

    fn launch(&self, cell: Arc<dyn AnyCell>, lifeline: Arc<Lifeline>) {
        launch::<Supervisor>(self.0.clone(), cell, lifeline);
    }
}

/// Starts the root of a tree in its cell.
pub(crate) fn launch_root(
    ctx: Context<SupervisorMsg>,
    spec: Spec,
    cell: Arc<Cell<SupervisorMsg>>,
    lifeline: Arc<Lifeline>,
) {
    spawn(Box::pin(live::<Supervisor>(ctx, spec)), cell, lifeline);
}

/// What the body of a task can do; see [`task`].
#[derive(Debug)]
pub struct TaskHandle(Context<Silent>);

impl TaskHandle {
    /// The tree it lives in, with its clock.
    pub fn system(&self) -> &System {
        self.0.system()
    }

    /// Its path.
    pub fn path(&self) -> &Arc<str> {
        self.0.path()
    }

    /// Shows these lines to whoever looks at this actor, instead of those before. Names and reasons only: they are read
    /// by people who may not read what is stored.
    pub fn note(&self, lines: Vec<String>) {
        self.0.note(lines);
    }

    /// Random numbers of its own.
    pub fn rng(&self) -> crate::clock::Rng {
        self.0.rng()
    }
}

type TaskFuture = Pin<Box<dyn Future<Output = Result<(), ActorError>> + Send>>;

struct Task<F>(F);

impl<F: Fn(TaskHandle) -> TaskFuture + Send + Sync> Factory for Task<F> {
    fn kind(&self) -> Kind {
        Kind::Task
    }

    fn cell(&self, system: &System, path: Arc<str>) -> Result<Arc<dyn AnyCell>, TypeMismatch> {
        Ok(system.cell::<Silent>(path)?)
    }

    fn launch(&self, cell: Arc<dyn AnyCell>, lifeline: Arc<Lifeline>) {
        let Ok(typed) = cell.clone().into_any().downcast::<Cell<Silent>>() else {
            unreachable!("the factory made the cell");
        };
        typed.occupy();
        typed.node.stops_at_await.store(true, Relaxed);
        lifeline.initialised();
        lifeline.tell_started();
        let body = (self.0)(TaskHandle(Context::new(typed, lifeline.clone())));
        let run = async {
            match body.await {
                Ok(()) => Exit::Normal,
                Err(error) => Exit::Error(crate::exit::clip(error.to_string())),
            }
        };
        spawn(Box::pin(run), cell, lifeline);
    }
}

/// A child that is an actor.
pub fn worker<A: Actor>(name: &str, args: A::Args) -> ChildSpec {
    ChildSpec::new(name, Arc::new(Worker::<A>(args)))
}

/// A child that is a supervisor. It stops without a limit, because it has children to stop, and starts without one,
/// because each of them has its own.
pub fn subtree(name: &str, spec: Spec) -> ChildSpec {
    ChildSpec::new(name, Arc::new(Subtree(spec))).shutdown(Shutdown::Unlimited).start_within(None)
}

/// A child that runs one future and understands no messages: a connection, a copy loop. It is ready at once. When it is
/// asked to stop, its future is dropped at the next await, as by a kill.
pub fn task<F, R>(name: &str, body: F) -> ChildSpec
where
    F: Fn(TaskHandle) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), ActorError>> + Send + 'static,
{
    let body = move |handle| -> TaskFuture { Box::pin(body(handle)) };
    ChildSpec::new(name, Arc::new(Task(body)))
}

/// One incarnation's task.
struct Incarnate {
    future: Option<Pin<Box<dyn Future<Output = Exit> + Send>>>,
    cell: Arc<dyn AnyCell>,
    lifeline: Option<Arc<Lifeline>>,
    attached: bool,
    path: Option<Arc<str>>,
}

fn spawn(future: Pin<Box<dyn Future<Output = Exit> + Send>>, cell: Arc<dyn AnyCell>, lifeline: Arc<Lifeline>) {
    let path = Some(cell.node().path.clone());
    cell.node().system.count_birth();
    tokio::spawn(Incarnate { future: Some(future), cell, lifeline: Some(lifeline), attached: false, path });
}

impl Incarnate {
    /// Ends the incarnation: drops its state, its mailbox, and at last its lifeline.
    fn end(&mut self, exit: Exit) {
        let future = self.future.take();
        let exit = match catch_unwind(AssertUnwindSafe(|| drop(future))) {
            Ok(()) => exit,
            Err(panic) => Exit::Panic(panic_text(&*panic)),
        };
        if let Some(lifeline) = self.lifeline.take() {
            lifeline.set_exit(exit);
            self.cell.vacate();
            self.cell.node().system.count_end();
        }
    }

    fn poll_future(&mut self, cx: &mut TaskContext<'_>) -> Poll<Exit> {
        let flags = self.cell.node().flags();
        if flags & KILL != 0 {
            return Poll::Ready(Exit::Killed);
        }
        if flags & STOP != 0 && self.cell.node().stops_at_await.load(Relaxed) {
            return Poll::Ready(Exit::Shutdown);
        }
        let Some(future) = &mut self.future else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            assert!(flags & PANIC == 0, "asked to panic");
            future.as_mut().poll(cx)
        }));
        match polled {
            Ok(polled) => polled,
            Err(panic) => Poll::Ready(Exit::Panic(panic_text(&*panic))),
        }
    }
}

impl Future for Incarnate {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.attached {
            this.attached = true;
            this.cell.attach(cx.waker());
        }
        let outer = set_current_path(this.path.take());
        let polled = this.poll_future(cx);
        let ended = match polled {
            Poll::Ready(exit) => {
                this.end(exit);
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        };
        this.path = set_current_path(outer);
        ended
    }
}

impl Drop for Incarnate {
    /// The tokio runtime itself is going down.
    fn drop(&mut self) {
        self.end(Exit::Killed);
    }
}
