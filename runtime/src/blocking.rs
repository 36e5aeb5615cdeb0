//! Blocking work on a dedicated thread behind one actor: SQLite, big files.
//!
//! A job runs to its end or is never begun; when the actor dies, the job in hand is finished, those that wait are
//! dropped (their callers learn it), and the thread's state is dropped on the thread. Only then does the actor's
//! supervisor hear of its death, so a successor never meets its predecessor's thread.
//!
//! A paused clock of tokio's jumps ahead whenever all tasks wait, and doesn't know of threads. On a simulated clock it is
//! therefore held where it is while anybody waits for a thread: what a thread does takes no time there.

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
    jobs: thread_channel::SyncSender<Job<S>>,
    /// What the thread died of, once it has.
    panic: Arc<std::sync::OnceLock<String>>,
    /// On a simulated clock: ends when the thread has.
    ended: Option<Mutex<thread_channel::Receiver<()>>>,
}

impl<S> Drop for Blocking<S> {
    fn drop(&mut self) {
        let Some(ended) = self.ended.take() else { return };
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::spawn_blocking(move || lock(&ended).recv().ok());
        }
    }
}

/// Holds a paused clock as long as the answer lives; see the module's page.
fn hold_clock() -> thread_channel::Sender<()> {
    let (held, over) = thread_channel::channel();
    // tokio's clock stands still while a job of its own pool runs.
    tokio::task::spawn_blocking(move || over.recv().is_err());
    held
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
        let (path, panic_slot) = (ctx.path().clone(), panic.clone());
        let name: String = path.rsplit('/').next().unwrap_or("blocking").chars().take(15).collect();
        let body = move || {
            set_current_path(Some(path));
            run(make, told, &inbox, &panic_slot);
            drop(inbox);
            drop(held);
            drop(ends);
        };
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        async move {
            spawned.map_err(StartError::Thread)?;
            let _held = is_simulated.then(hold_clock);
            match made.await {
                Ok(Ok(())) => Ok(Self { jobs, panic, ended: is_simulated.then(|| Mutex::new(ended)) }),
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
        let panic = self.panic.clone();
        let job: Job<S> = Box::new(move |state| match catch_unwind(AssertUnwindSafe(|| job(state))) {
            Ok(result) => {
                sender.send(result).ok();
            }
            Err(payload) => {
                // The reason is there before the caller learns, from the dropped sender, that there is one.
                panic.set(panic_text(&*payload)).ok();
                drop(sender);
                resume_unwind(payload);
            }
        });
        self.jobs.try_send(job).map_err(|error| match error {
            thread_channel::TrySendError::Full(_) => JobError::Full,
            thread_channel::TrySendError::Disconnected(_) => self.ended(),
        })?;
        let _held = self.ended.as_ref().map(|_| hold_clock());
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
    told: oneshot::Sender<Result<(), E>>,
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
        while let Ok(job) = inbox.recv() {
            job(&mut state);
        }
    };
    // A job that panicked has left its reason already; its state, half changed perhaps, is dropped here.
    catch_unwind(AssertUnwindSafe(work)).ok();
}
