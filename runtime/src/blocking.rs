//! Blocking work on a dedicated thread behind one actor: SQLite, big files.
//!
//! A job runs to its end or is never begun; when the actor dies, the job in hand is finished, those that wait are
//! dropped (their callers learn it), and the thread's state is dropped on the thread. Only then does the actor's
//! supervisor hear of its death, so a successor never meets its predecessor's thread.
//!
//! A paused clock of tokio's jumps ahead whenever all tasks wait, and doesn't know of threads. On a simulated clock
//! everybody therefore waits while a thread works: what it does takes no time there, and a seed replays the run, since
//! nothing depends on which of two threads is the quicker one.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc as thread_channel;
use std::sync::{Arc, Mutex};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::actor::Context;
use crate::cell::lock;
use crate::exit::panic_text;
use crate::launch::{Lifeline, set_current_path};
use crate::message::Message;

/// Why a job brought no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JobError {
    /// As many jobs wait as the bound allows.
    #[error("too many jobs wait for the thread")]
    Full,
    /// The thread ended before or during the job: an earlier job, or this one, panicked with this text.
    #[error("the thread ended: {0}")]
    Ended(String),
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A thread with a state of its own, which runs one job after another. Dropping it ends the thread after the job in hand.
pub struct Blocking<S> {
    /// Dropped first of all, which ends the thread.
    jobs: Option<thread_channel::SyncSender<Job<S>>>,
    /// What the thread died of, once it has.
    panic: Arc<std::sync::OnceLock<String>>,
    /// On a simulated clock: ends when the thread has.
    ended: Option<Mutex<End>>,
}

/// Tells by its end that something else is over: nothing is ever sent.
type End = thread_channel::Receiver<()>;

impl<S> Drop for Blocking<S> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(ended) = self.ended.take() {
            wait_for(&lock(&ended));
        }
    }
}

/// Keeps this thread, and with it all tasks of a simulation, until something is over.
fn wait_for(end: &End) {
    end.recv().ok();
}

impl<S> fmt::Debug for Blocking<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blocking")
    }
}

/// Kept on the thread as long as it runs; the actor's exit waits for it.
struct Held(#[expect(dead_code, reason = "held for its drop")] Arc<Lifeline>);

impl<S: 'static> Blocking<S> {
    /// Starts a thread that belongs to this incarnation. `make` builds the state on the thread; at most `waiting_max` jobs
    /// may wait.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start<M: Message, E: Send + 'static, F: FnOnce() -> Result<S, E> + Send + 'static>(
        ctx: &Context<M>,
        waiting_max: usize,
        make: F,
    ) -> impl Future<Output = Result<Self, StartError<E>>> + Send + use<S, M, E, F> {
        let (jobs, inbox) = thread_channel::sync_channel::<Job<S>>(waiting_max.max(1));
        let panic = Arc::new(std::sync::OnceLock::new());
        let (told, made) = oneshot::channel();
        let held = Held(ctx.lifeline.clone());
        let is_simulated = ctx.clock().is_simulated();
        let (ends, ended) = thread_channel::channel::<()>();
        let (making, is_made) = thread_channel::channel::<()>();
        let (path, panic_slot) = (ctx.path().clone(), panic.clone());
        let name: String = path.rsplit('/').next().unwrap_or("blocking").chars().take(15).collect();
        let body = move || {
            set_current_path(Some(path));
            run(make, (told, making), &inbox, &panic_slot);
            drop(inbox);
            drop(held);
            drop(ends);
        };
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        async move {
            spawned.map_err(StartError::Thread)?;
            if is_simulated {
                wait_for(&is_made);
            }
            match made.await {
                Ok(Ok(())) => Ok(Self { jobs: Some(jobs), panic, ended: is_simulated.then(|| Mutex::new(ended)) }),
                Ok(Err(error)) => Err(StartError::Make(error)),
                Err(_) => Err(StartError::Panicked(panic.get().cloned().unwrap_or_default())),
            }
        }
    }
}

impl<S: 'static> Blocking<S> {
    /// Runs `job` on the thread and waits for its result. When the waiting is given up, the job still runs.
    ///
    /// # Errors
    /// See [`JobError`]. After [`JobError::Ended`] the thread is gone: let the actor fail and be restarted.
    pub async fn run<R: Send + 'static>(&self, job: impl FnOnce(&mut S) -> R + Send + 'static) -> Result<R, JobError> {
        let (sender, receiver) = oneshot::channel();
        let (works, over) = thread_channel::channel::<()>();
        if self.ended.is_some() {
            // Here a kill may still find the caller waiting; behind it there is no await that takes time.
            tokio::task::yield_now().await;
        }
        let panic = self.panic.clone();
        let job: Job<S> = Box::new(move |state| match catch_unwind(AssertUnwindSafe(|| job(state))) {
            Ok(result) => {
                sender.send(result).ok();
                drop(works);
            }
            Err(payload) => {
                // The reason is there before the caller learns, from the dropped sender, that there is one.
                panic.set(panic_text(&*payload)).ok();
                drop((sender, works));
                resume_unwind(payload);
            }
        });
        let Some(jobs) = &self.jobs else { return Err(self.ended()) };
        jobs.try_send(job).map_err(|error| match error {
            thread_channel::TrySendError::Full(_) => JobError::Full,
            thread_channel::TrySendError::Disconnected(_) => self.ended(),
        })?;
        if self.ended.is_some() {
            wait_for(&over);
        }
        receiver.await.map_err(|_| self.ended())
    }

    fn ended(&self) -> JobError {
        JobError::Ended(self.panic.get().cloned().unwrap_or_else(|| "it was told to".to_owned()))
    }
}

/// Why a thread did not start.
#[derive(Debug, Error)]
pub enum StartError<E> {
    /// The operating system gave no thread.
    #[error("starting a thread failed")]
    Thread(#[source] std::io::Error),
    /// Building the state failed.
    #[error("{0}")]
    Make(E),
    /// Building the state panicked.
    #[error("building the thread's state panicked: {0}")]
    Panicked(String),
}

fn run<S, E>(
    make: impl FnOnce() -> Result<S, E>,
    (told, making): (oneshot::Sender<Result<(), E>>, thread_channel::Sender<()>),
    inbox: &thread_channel::Receiver<Job<S>>,
    panic: &std::sync::OnceLock<String>,
) {
    let work = || {
        let mut state = match catch_unwind(AssertUnwindSafe(make)) {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => {
                told.send(Err(error)).ok();
                return;
            }
            Err(payload) => {
                panic.set(panic_text(&*payload)).ok();
                return;
            }
        };
        if told.send(Ok(())).is_err() {
            return; // The actor is gone already.
        }
        drop(making);
        while let Ok(job) = inbox.recv() {
            job(&mut state);
        }
    };
    // A job that panicked has left its reason already; its state, half changed perhaps, is dropped here.
    catch_unwind(AssertUnwindSafe(work)).ok();
}
