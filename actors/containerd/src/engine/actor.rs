//! Keeps the engine running.
//!
//! Owns:    the engine's process, its configuration files and its log.
//! Needs:   nothing.
//! Restart: permanent. It finds the running engine in `/proc` and watches it; containers notice nothing.
//! Fails:   when its thread ends. An engine that can't be configured or started is tried again, with what is wrong in the
//!          log and in the status; one that runs is kept meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_cri::{Cri, v1};
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Backoff, Context, Moment};
use tokio::sync::watch;

use super::core::{Verdict, verdict};
use super::msg::{EngineMsg, EngineStatus};
use super::process::{self, Process};
use super::{log, prepare};
use crate::config::ContainerdConfig;
use crate::error::ContainerdError;
use crate::readable::readable;

/// How long an engine may take to end before it is killed. It leaves its containers alone, so there is little to do.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How soon an engine is asked again that doesn't answer yet, and how often one that does.
const LOOK_SOON: Duration = Duration::from_millis(50);
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// How long an answer may take.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How often the log's size is looked at.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// A start and the look at a log may meet.
const JOBS_WAITING_MAX: usize = 4;

/// What the actor is started, and restarted, with.
#[derive(Clone)]
pub(crate) struct EngineArgs {
    /// What is wanted.
    pub config: Arc<ContainerdConfig>,
    /// The way to it.
    pub cri: Cri,
    /// Where it is told whether the engine answers.
    pub answers: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for EngineArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineArgs").field("cri", &self.cri).finish_non_exhaustive()
    }
}

/// The actor.
pub(crate) struct Engine {
    args: EngineArgs,
    thread: Blocking<()>,
    process: Option<Arc<Process>>,
    /// Counts processes that were watched, so that the end of an older one is known as such.
    watched: u64,
    attempts: u32,
    started_at: Moment,
    status: EngineStatus,
}

/// What a start brought.
struct Up {
    process: Process,
    adopted: bool,
    version: String,
    /// Why it could not be configured anew, when an older one was kept for that.
    kept_for: Option<ContainerdError>,
}

/// Configures, and adopts, replaces or starts.
fn bring_up(config: &ContainerdConfig) -> Result<Up, ContainerdError> {
    let found = process::find(&config.config_file())?;
    let open = |pid| Process::open(pid).map_err(|error| ContainerdError::file("watch", format!("/proc/{pid}"), error));
    let prepared = match prepare::prepare(config) {
        Ok(prepared) => prepared,
        Err(error) => match found.as_slice() {
            [one] => {
                let process = open(one.pid)?;
                return Ok(Up { process, adopted: true, version: String::new(), kept_for: Some(error) });
            }
            _ => return Err(error),
        },
    };
    let version = prepared.version;
    match verdict(&found, &prepared.launch) {
        Verdict::Adopt(pid) => return Ok(Up { process: open(pid)?, adopted: true, version, kept_for: None }),
        Verdict::Replace(pids) => {
            for pid in pids {
                tracing::info!(pid, "containerd is restarted with another configuration; containers go on");
                if let Ok(old) = Process::open(pid) {
                    process::end(&old, END_PATIENCE);
                }
            }
        }
        Verdict::Start => {}
    }
    let process = process::start(&prepared.launch, &config.log_file())?;
    Ok(Up { process, adopted: false, version, kept_for: None })
}

impl Engine {
    async fn start(&mut self, ctx: &mut Context<EngineMsg>) -> Result<(), ActorError> {
        if self.process.is_some() {
            return Ok(());
        }
        let now = ctx.clock().now();
        if now.since(self.started_at) > Backoff::RESTART.reset_after {
            self.attempts = 0;
        }
        self.started_at = now;
        let config = self.args.config.clone();
        match self.thread.run(move |()| bring_up(&config)).await? {
            Ok(up) => self.watch(ctx, up)?,
            Err(error) => {
                let shown = ActorError::from(error).to_string();
                tracing::error!(error = shown, "containerd could not be started; trying again");
                self.status.error = shown;
                self.again(ctx);
            }
        }
        Ok(())
    }

    fn watch(&mut self, ctx: &mut Context<EngineMsg>, up: Up) -> Result<(), ActorError> {
        let Up { process, adopted, version, kept_for } = up;
        tracing::info!(pid = process.pid, adopted, version, "containerd runs");
        self.status.error = String::new();
        if let Some(error) = kept_for {
            let shown = ActorError::from(error).to_string();
            tracing::error!(error = shown, "containerd could not be configured; the running one is kept as it is");
            self.status.error = shown;
        }
        self.watched += 1;
        let (watched, fd) = (self.watched, process.watch()?);
        ctx.pipe(async move {
            readable(fd).await;
            EngineMsg::Ended { watched }
        });
        self.status.pid = Some(process.pid);
        self.status.adopted = adopted;
        self.status.version = version;
        self.status.starts += u64::from(!adopted);
        self.process = Some(Arc::new(process));
        ctx.send_self(EngineMsg::LookTick { watched });
        Ok(())
    }

    fn again(&mut self, ctx: &mut Context<EngineMsg>) {
        self.attempts += 1;
        let delay = Backoff::RESTART.delay(self.attempts, &mut ctx.rng());
        ctx.send_after(delay, EngineMsg::StartTick);
    }

    fn gone(&mut self, ctx: &mut Context<EngineMsg>) {
        if let Some(process) = self.process.take() {
            process.reap();
            tracing::warn!(pid = process.pid, "containerd has ended; it is started again, containers go on");
        }
        self.told(false);
        self.status.pid = None;
        self.again(ctx);
    }

    fn told(&mut self, answers: bool) {
        self.status.answers = answers;
        self.args.answers.send_if_modified(|told| std::mem::replace(told, answers) != answers);
    }

    /// Asks for the version, beside the mailbox.
    fn look(&self, ctx: &mut Context<EngineMsg>, watched: u64) {
        let cri = self.args.cri.clone().with_limit(LOOK_LIMIT);
        ctx.pipe(async move {
            let answers = cri.version(v1::VersionRequest::default()).await.is_ok();
            EngineMsg::Looked { watched, answers }
        });
    }
}

impl Actor for Engine {
    type Args = EngineArgs;
    type Msg = EngineMsg;
    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<EngineMsg>, args: EngineArgs) -> Result<Self, ActorError> {
        let thread = Blocking::start(ctx, JOBS_WAITING_MAX, || Ok::<_, std::convert::Infallible>(())).await?;
        ctx.send_self(EngineMsg::StartTick);
        ctx.send_after(LOG_PAUSE, EngineMsg::LogTick);
        let (status, started_at) = (EngineStatus::default(), ctx.clock().now());
        Ok(Self { args, thread, process: None, watched: 0, attempts: 0, started_at, status })
    }

    async fn handle(&mut self, ctx: &mut Context<EngineMsg>, message: EngineMsg) -> Result<(), ActorError> {
        match message {
            EngineMsg::StartTick => self.start(ctx).await?,
            EngineMsg::LookTick { watched } if watched == self.watched && self.process.is_some() => {
                self.look(ctx, watched);
            }
            EngineMsg::Looked { watched, answers } if watched == self.watched && self.process.is_some() => {
                self.told(answers);
                let pause = if answers { LOOK_PAUSE } else { LOOK_SOON };
                ctx.send_after(pause, EngineMsg::LookTick { watched });
            }
            EngineMsg::Ended { watched } if watched == self.watched => self.gone(ctx),
            EngineMsg::LookTick { .. } | EngineMsg::Looked { .. } | EngineMsg::Ended { .. } => {}
            EngineMsg::LogTick => {
                let (file, wall) = (self.args.config.log_file(), ctx.clock().wall());
                if let Err(error) = self.thread.run(move |()| log::rotate(&file, wall)).await? {
                    tracing::warn!(%error, "the log of containerd could not be cut");
                }
                ctx.send_after(LOG_PAUSE, EngineMsg::LogTick);
            }
            EngineMsg::Status { reply } => reply.send(self.status.clone()),
        }
        Ok(())
    }
}
