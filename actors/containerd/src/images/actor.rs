//! Imports what is on disk, in the background.
//!
//! Owns:    the images that it marks as pinned, and its leases in the engine.
//! Needs:   the engine, started before it under the same supervisor; while that is away it waits.
//! Restart: permanent. It reads the directory again; blobs that the engine has already are not written twice.
//! Fails:   when a thread can't be had. A file that is no image is told once, and again when it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_cri::Cri;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Context};
use tokio::sync::watch::{Receiver, Sender};

use super::core::{Queue, SETTLE, Stamp, kind};
use super::jobs::{self, Job, is_away};
use super::msg::{ImagesMsg, ImagesStatus};
use super::watch;
use crate::config::ContainerdConfig;
use crate::error::ImportError;
use crate::image::engine::Store;
use crate::image::import::Terms;
use crate::readable::readable;

/// How long a lease holds what nobody has named yet: longer than any import.
const LEASE_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// How soon what the engine refused is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// One look at the directory at a time.
const JOBS_WAITING_MAX: usize = 2;

/// What the actor is started, and restarted, with.
#[derive(Clone)]
pub(crate) struct ImagesArgs {
    /// What is wanted.
    pub config: Arc<ContainerdConfig>,
    /// The way to the engine.
    pub cri: Cri,
    /// Whether the engine answers.
    pub answers: Receiver<bool>,
    /// Where it is told whether pods can be run.
    pub ready: Arc<Sender<bool>>,
}

impl fmt::Debug for ImagesArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImagesArgs").field("cri", &self.cri).finish_non_exhaustive()
    }
}

/// The actor.
pub(crate) struct Images {
    args: ImagesArgs,
    store: Store,
    thread: Blocking<()>,
    queue: Queue,
    /// The directory was looked at.
    scanned: bool,
    /// The sandbox's image is being seen to.
    pausing: bool,
    /// Marks of images whose files are gone are taken off once, when everything is imported.
    unpinned: bool,
    /// The names that files stand for.
    names: BTreeMap<PathBuf, Vec<String>>,
    status: ImagesStatus,
}

impl Images {
    fn answers(&self) -> bool {
        *self.args.answers.borrow()
    }

    /// Waits for the next word about the engine.
    fn listen(&self, ctx: &mut Context<ImagesMsg>) {
        let mut answers = self.args.answers.clone();
        let told = self.answers();
        ctx.pipe(async move {
            if answers.wait_for(|answers| *answers != told).await.is_err() {
                std::future::pending::<()>().await;
            }
            ImagesMsg::EngineTold
        });
    }

    fn terms(&self, ctx: &Context<ImagesMsg>) -> (Terms, String) {
        let config = &self.args.config;
        let mut registries = config.airgap_extra_registries.clone();
        registries.extend(config.system_default_registry.clone());
        let nonce = format!("{:016x}", ctx.rng().next_u64());
        let terms = Terms { snapshotter: config.snapshotter.clone(), registries, rename: None, nonce };
        let end = i64::try_from((ctx.clock().wall() + LEASE_LIMIT).as_secs()).unwrap_or(i64::MAX);
        (terms, Timestamp::from_second(end).unwrap_or_default().to_string())
    }

    /// Sees to the sandbox's image, beside the mailbox.
    fn pause(&mut self, ctx: &mut Context<ImagesMsg>) {
        if self.pausing || !self.answers() {
            return;
        }
        self.pausing = true;
        let (terms, expires) = self.terms(ctx);
        let (store, config) = (self.store.clone(), self.args.config.clone());
        let starting = Blocking::start(ctx, 1, || Ok::<_, std::convert::Infallible>(()));
        ctx.pipe(async move {
            let outcome = match starting.await {
                Ok(thread) => jobs::pause(&store, &thread, &config, terms, expires).await,
                Err(error) => Err(ImportError::Content(error.to_string())),
            };
            ImagesMsg::PauseDone { outcome }
        });
    }

    fn pause_done(&mut self, ctx: &mut Context<ImagesMsg>, outcome: Result<(), ImportError>) {
        self.pausing = false;
        self.status.pause = outcome.is_ok();
        match outcome {
            Ok(()) => {
                let answers = self.answers();
                self.args.ready.send_if_modified(|ready| std::mem::replace(ready, answers) != answers);
                self.begin(ctx);
            }
            Err(error) => {
                if !is_away(&error) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the image of the sandbox could not be imported; trying again");
                }
                ctx.send_after(RETRY_PAUSE, ImagesMsg::PauseTick);
            }
        }
    }

    async fn scan(&mut self, ctx: &mut Context<ImagesMsg>) -> Result<(), ActorError> {
        let dir = self.args.config.images_dir();
        let looked = self.thread.run(move |()| watch::look(&dir)).await?;
        let look = match looked {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!(%error, "the images directory can't be read; trying again");
                ctx.send_after(SETTLE * 5, ImagesMsg::ScanTick);
                return Ok(());
            }
        };
        if let Some(fd) = look.watch {
            ctx.pipe(async move { ImagesMsg::Changed { watch: readable(fd).await } });
        }
        let now = ctx.clock().wall();
        if self.queue.found(&look.files, now, !self.scanned) {
            ctx.send_after(SETTLE, ImagesMsg::ScanTick);
        }
        self.scanned = true;
        self.names.retain(|path, _| look.files.contains_key(path));
        self.status.failed.retain(|(path, _)| look.files.contains_key(path));
        self.begin(ctx);
        Ok(())
    }

    /// Begins as many imports as may run.
    fn begin(&mut self, ctx: &mut Context<ImagesMsg>) {
        while self.answers()
            && self.status.pause
            && let Some((path, stamp)) = self.queue.begin()
        {
            let Some(kind) = kind(&path) else { continue };
            let (terms, expires) = self.terms(ctx);
            let (store, cri, dir) = (self.store.clone(), self.args.cri.clone(), self.args.config.images_dir());
            let job = Job { store, cri, dir, path: path.clone(), stamp, kind, terms, expires };
            let starting = Blocking::start(ctx, 1, || Ok::<_, std::convert::Infallible>(()));
            ctx.pipe(async move {
                let outcome = match starting.await {
                    Ok(thread) => job.run(&thread).await,
                    Err(error) => Err(ImportError::Content(error.to_string())),
                };
                ImagesMsg::Imported { path, stamp, outcome }
            });
        }
        if self.scanned && self.status.pause && self.queue.waiting() == 0 && !self.unpinned && self.answers() {
            self.unpinned = true;
            let store = self.store.clone();
            let pause = crate::image::pause_names(&self.args.config.sandbox_image());
            let mut keep: BTreeSet<String> = self.names.values().flatten().cloned().collect();
            keep.extend(pause);
            ctx.pipe(async move { ImagesMsg::Unpinned { outcome: jobs::unpin(&store, &keep).await } });
        }
        self.status.waiting = self.queue.waiting();
    }

    fn imported(&mut self, path: PathBuf, stamp: Stamp, outcome: Result<Vec<String>, ImportError>) {
        let again = outcome.as_ref().is_err_and(is_away);
        self.queue.end(&path, stamp, again);
        self.status.failed.retain(|(failed, _)| *failed != path);
        match outcome {
            Ok(names) => {
                tracing::info!(file = %path.display(), images = ?names, "images were imported");
                self.status.imported += 1;
                self.names.insert(path, names);
            }
            Err(_) if again => {}
            Err(error) => {
                let shown = ActorError::from(error).to_string();
                tracing::error!(file = %path.display(), error = shown, "images could not be imported");
                self.status.failed.push((path, shown));
            }
        }
    }
}

impl Actor for Images {
    type Args = ImagesArgs;
    type Msg = ImagesMsg;
    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<ImagesMsg>, args: ImagesArgs) -> Result<Self, ActorError> {
        let thread = Blocking::start(ctx, JOBS_WAITING_MAX, || Ok::<_, std::convert::Infallible>(())).await?;
        let store = Store::new(k3sd_cri::channel(args.config.socket()));
        let images = Self {
            args,
            store,
            thread,
            queue: Queue::default(),
            scanned: false,
            pausing: false,
            unpinned: false,
            names: BTreeMap::new(),
            status: ImagesStatus::default(),
        };
        images.listen(ctx);
        ctx.send_self(ImagesMsg::PauseTick);
        ctx.send_self(ImagesMsg::ScanTick);
        Ok(images)
    }

    async fn handle(&mut self, ctx: &mut Context<ImagesMsg>, message: ImagesMsg) -> Result<(), ActorError> {
        match message {
            ImagesMsg::EngineTold => {
                if self.answers() {
                    self.pause(ctx);
                } else {
                    self.args.ready.send_if_modified(std::mem::take);
                }
                self.listen(ctx);
            }
            ImagesMsg::PauseTick => self.pause(ctx),
            ImagesMsg::PauseDone { outcome } => self.pause_done(ctx, outcome),
            ImagesMsg::ScanTick => self.scan(ctx).await?,
            ImagesMsg::Changed { watch } => {
                drop(watch);
                ctx.send_after(SETTLE, ImagesMsg::ScanTick);
            }
            ImagesMsg::Imported { path, stamp, outcome } => {
                self.imported(path, stamp, outcome);
                self.begin(ctx);
            }
            ImagesMsg::Unpinned { outcome } => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "images whose files are gone stay pinned");
                }
            }
            ImagesMsg::Status { reply } => reply.send(self.status.clone()),
        }
        Ok(())
    }
}
