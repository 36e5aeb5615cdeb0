//! Keeps the cluster equal to the directory of manifests.
//!
//! Owns:    AddOns, and what their files hold.
//! Needs:   the directory, and the API; it waits for either.
//! Restart: permanent. It applies every file once more, which writes nothing where nothing is amiss.
//! Fails:   when its thread ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::events::Recorder;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Backoff, Clock, Context, Message, Moment, Rng, TimerId};

use super::addon::{self, Addons};
use super::core::Memory;
use super::pass::{Loaded, Outcome, Pass, load};
use crate::api::{Cluster, message};
use crate::apply::Existing;
use crate::config::ManifestsConfig;
use crate::definitions;
use crate::files::{Look, Watch, look, names, relative, write_packaged};

/// How K3s's part of this is called.
const CONTROLLER: &str = "deploy";
/// After a change, so long for the writer to finish.
const SETTLE: Duration = Duration::from_millis(100);
/// Where changes can't be noticed, the directory is read again this often: K3s's period.
const SCAN_PERIOD: Duration = Duration::from_secs(15);
/// The waits while the API is away.
const AWAY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(50),
    delay_max: Duration::from_secs(15),
    factor: 2.0,
    jitter: 0.1,
    reset_after: Duration::from_secs(120),
};
/// Lines that the inspector is shown, and characters of each.
const NOTES_MAX: usize = 20;
const NOTE_CHARS: usize = 200;

/// What the actor is started with.
#[derive(Clone)]
pub(crate) struct DeployArgs {
    pub(crate) config: Arc<ManifestsConfig>,
    pub(crate) connect: Connect,
    pub(crate) recorder: Recorder,
}

/// What it tells itself.
pub(crate) enum DeployMsg {
    /// Something in the directory changed a moment ago.
    Changed,
    /// Look again: a file failed, the API was away, or nothing tells of changes.
    LookTick,
}

impl Message for DeployMsg {
    const KINDS: &'static [&'static str] = &["Changed", "LookTick"];

    fn kind(&self) -> usize {
        match self {
            Self::Changed => 0,
            Self::LookTick => 1,
        }
    }
}

/// The actor.
pub(crate) struct Deploy {
    args: DeployArgs,
    cluster: Cluster,
    clock: Clock,
    files: Blocking<()>,
    watch: Option<Watch>,
    memory: Memory,
    /// The packaged files are there, and so is the definition of AddOns.
    prepared: bool,
    away: u32,
    timer: Option<TimerId>,
    told: Vec<String>,
    rng: Rng,
}

impl Actor for Deploy {
    type Args = DeployArgs;
    type Msg = DeployMsg;

    /// Whatever is under way is begun again by the next life.
    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<DeployMsg>, args: DeployArgs) -> Result<Self, ActorError> {
        let files = Blocking::start(ctx, 1, || Ok::<(), std::convert::Infallible>(())).await?;
        let watch = Watch::new().inspect_err(|error| tracing::warn!(%error, "changes of manifests can't be noticed"));
        let cluster = Cluster::new(args.connect.clone(), CONTROLLER, &args.config.node_name);
        let recorder = args.recorder.component(CONTROLLER).host(&args.config.node_name);
        let deploy = Self {
            args: DeployArgs { recorder, ..args },
            cluster,
            clock: ctx.clock().clone(),
            files,
            watch: watch.ok(),
            memory: Memory::default(),
            prepared: false,
            away: 0,
            timer: None,
            told: Vec::new(),
            rng: ctx.rng(),
        };
        deploy.wait(ctx);
        ctx.send_self(DeployMsg::LookTick);
        Ok(deploy)
    }

    async fn handle(&mut self, ctx: &mut Context<DeployMsg>, message: DeployMsg) -> Result<(), ActorError> {
        if matches!(message, DeployMsg::Changed) {
            self.wait(ctx);
        }
        let again = match self.turn().await? {
            Ok(again) => {
                self.away = 0;
                again
            }
            Err(problem) => {
                self.away = self.away.saturating_add(1);
                tracing::debug!(problem, "manifests wait");
                Some(self.clock.now() + AWAY.delay(self.away, &mut self.rng))
            }
        };
        if let Some(timer) = self.timer.take() {
            ctx.cancel(timer);
        }
        self.timer = again.map(|due| ctx.send_at(due, DeployMsg::LookTick));
        let line = |(path, reason): (&str, &str)| format!("{path}: {reason}").chars().take(NOTE_CHARS).collect();
        ctx.note(self.memory.notes().take(NOTES_MAX).map(line).collect());
        Ok(())
    }
}

impl Deploy {
    /// Has itself told of the next change.
    fn wait(&self, ctx: &mut Context<DeployMsg>) {
        let Some(watch) = self.watch.clone() else { return };
        let clock = self.clock.clone();
        ctx.pipe(async move {
            watch.changed().await;
            clock.sleep_until(clock.now() + SETTLE).await;
            DeployMsg::Changed
        });
    }

    /// Looks at everything, and says when to look again without being told.
    async fn turn(&mut self) -> Result<Result<Option<Moment>, String>, ActorError> {
        if !self.prepared {
            let config = self.args.config.clone();
            match self.files.run(move |()| write_packaged(&config)).await? {
                Ok(written) if written.is_empty() => {}
                Ok(written) => tracing::info!(files = written.join(" "), "wrote packaged manifests"),
                Err(error) => tracing::error!(%error, "packaged manifests can't be written"),
            }
            if let Err(error) = definitions::ensure(&self.cluster, &self.clock, &[definitions::addons()]).await {
                return Ok(Err(error));
            }
            self.prepared = true;
        }
        let (dir, watch) = (self.args.config.dir.clone(), self.watch.clone());
        let seen = match self.files.run(move |()| look(&dir, watch.as_ref())).await? {
            Ok(seen) => seen,
            Err(error) => {
                let text = format!("{}: {error}", self.args.config.dir.display());
                self.tell(vec![text]);
                return Ok(Ok(Some(self.clock.now() + SCAN_PERIOD)));
            }
        };
        self.tell(seen.problems.clone());
        if let Err(error) = self.pass(&seen).await? {
            return Ok(Err(error));
        }
        let scan = (!seen.watched).then(|| self.clock.now() + SCAN_PERIOD);
        Ok(Ok(self.memory.next_due().into_iter().chain(scan).min()))
    }

    /// Logs what is wrong with the directory, once.
    fn tell(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            tracing::warn!(problem, "a file of the directory of manifests can't be used");
        }
        self.told = problems;
    }

    async fn pass(&mut self, seen: &Look) -> Result<Result<(), String>, ActorError> {
        let (clock, config) = (self.clock.clone(), self.args.config.clone());
        let due = self.memory.due(seen, clock.now());
        if due.is_empty() {
            return Ok(Ok(()));
        }
        let served = match self.cluster.served(&addon::gvk()).await {
            Ok(Some(served)) => served,
            Ok(None) => {
                self.prepared = false;
                return Ok(Err("AddOns are not served".to_owned()));
            }
            Err(error) => return Ok(Err(message(&error))),
        };
        let is_disabled = |path: &str| names::is_listed(relative(&config.dir, path), &config.disabled);
        let due: Vec<_> = due
            .into_iter()
            .map(|due| {
                let disabled = is_disabled(&due.path);
                (due, disabled)
            })
            .collect();
        let files = self.files.run(move |()| load(due)).await?;
        let addons = Addons { cluster: &self.cluster, served };
        let known = match addons.list().await {
            Ok(known) => known,
            Err(error) => return Ok(Err(message(&error))),
        };
        let pass = Pass {
            cluster: &self.cluster,
            clock: &clock,
            recorder: &self.args.recorder,
            addons,
            known,
            existing: Existing::new(files.len()),
            memory: &self.memory,
        };
        if files.len() > 1 {
            pass.found(&files).await;
        }
        let mut outcomes = Vec::with_capacity(files.len());
        for file in &files {
            outcomes.push(pass.file(file).await);
        }
        for (Loaded { due, .. }, outcome) in files.iter().zip(outcomes) {
            self.ended(&clock, seen, &due.path, outcome).await?;
        }
        Ok(Ok(()))
    }

    async fn ended(&mut self, clock: &Clock, seen: &Look, path: &str, outcome: Outcome) -> Result<(), ActorError> {
        let Some(found) = seen.files.get(path).copied() else { return Ok(()) };
        let outcome = match outcome {
            Outcome::Remove(file) if found.removable => self.remove(file).await?,
            Outcome::Remove(_) => Ok(()),
            Outcome::Done => Ok(()),
            Outcome::Failed(reason) => Err(reason),
        };
        match outcome {
            Ok(()) => self.memory.done(path, found),
            Err(reason) => {
                if self.memory.failed(path, found, &reason, clock.now(), &mut self.rng) {
                    tracing::warn!(path, reason, "a manifest isn't as it should be; trying again");
                }
            }
        }
        Ok(())
    }

    async fn remove(&self, file: PathBuf) -> Result<Result<(), String>, ActorError> {
        let removed = self.files.run(move |()| std::fs::remove_file(file)).await?;
        Ok(match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("failed to delete the file: {error}"))
            }
            _ => Ok(()),
        })
    }
}
