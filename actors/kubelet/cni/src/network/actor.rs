//! Keeps the network of the node's pods.
//!
//! Owns:    `subnet.env`, the runtime's network configuration, the links to the plugins, the nftables table of pods, and
//!          the kernel's switches for forwarding.
//! Needs:   the node's pod networks, which somebody publishes.
//! Restart: permanent. It looks again; on a healthy node it finds nothing to do, and no packet notices.
//! Fails:   when its thread is gone. What the kernel refuses is told and tried again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_netlink::Cidr;
use k3sd_netlink::nft::News;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Backoff, Context, Rng, TimerId};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::collect;
use super::core::{self, Suspects};
use super::kernel::{self, Applied};
use super::msg::NetworkMsg;
use crate::config::{Backend, NetworkConfig};
use crate::error::NetworkError;
use crate::tree::LiveSandboxes;

/// One job at a time is asked of the thread, and its end awaited.
const JOBS_WAITING_MAX: usize = 1;
/// How often at most leaks are looked for while pods come and go. Nobody waits for it.
const COLLECT_PAUSE: Duration = Duration::from_secs(60);
/// The waits after a failure.
const RETRY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(500),
    delay_max: Duration::from_secs(30),
    factor: 2.0,
    jitter: 0.2,
    reset_after: Duration::MAX,
};

/// What the actor is started, and restarted, with.
#[derive(Clone)]
pub(crate) struct NetworkArgs {
    pub(crate) config: Arc<NetworkConfig>,
    pub(crate) pod_cidrs: watch::Receiver<Vec<Cidr>>,
    pub(crate) live_sandboxes: LiveSandboxes,
}

impl fmt::Debug for NetworkArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkArgs").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The actor.
pub(crate) struct Network {
    args: NetworkArgs,
    thread: Blocking<()>,
    rng: Rng,
    suspects: Suspects,
    /// Failures in a row.
    failures: u32,
    retry: Option<TimerId>,
    collection: Option<TimerId>,
    news: Option<Arc<AsyncFd<News>>>,
    /// What was last warned of; it is told once.
    warned: Vec<String>,
}

/// Waits for a change of what somebody publishes; for ever, when nobody publishes any more.
async fn changed<T>(mut receiver: watch::Receiver<T>, message: NetworkMsg) -> NetworkMsg {
    match receiver.changed().await {
        Ok(()) => message,
        Err(_) => std::future::pending().await,
    }
}

#[expect(deprecated, reason = "its successor is unsafe, as a descriptor may be closed early; this one is owned")]
fn wakeable(news: News) -> std::io::Result<AsyncFd<News>> {
    AsyncFd::new(news)
}

/// Waits until somebody touches our table.
async fn touched(news: Arc<AsyncFd<News>>) -> NetworkMsg {
    while let Ok(mut guard) = news.readable().await {
        let heard = guard.get_inner().drain(core::FAMILY, core::TABLE);
        guard.clear_ready();
        match heard {
            Ok(true) => return NetworkMsg::TableTouched,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "changes to nftables are not heard of any more"
                );
                break;
            }
        }
    }
    std::future::pending().await
}

impl Network {
    /// Hears of changes to the table; a node that can't still has its network.
    async fn listen(&mut self) -> Result<(), ActorError> {
        if self.args.config.backend == Backend::None {
            return Ok(());
        }
        let config = self.args.config.clone();
        let news = self.thread.run(move |()| kernel::listen(&config)).await?;
        match news.map(wakeable) {
            Ok(news) => self.news = Some(Arc::new(news?)),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a removed nftables table will not be noticed");
            }
        }
        Ok(())
    }

    fn hear_on(&self, ctx: &mut Context<NetworkMsg>) {
        if let Some(news) = &self.news {
            ctx.pipe(touched(news.clone()));
        }
    }

    fn watch_cidrs(&mut self, ctx: &mut Context<NetworkMsg>) {
        self.args.pod_cidrs.borrow_and_update();
        ctx.pipe(changed(self.args.pod_cidrs.clone(), NetworkMsg::CidrsChanged));
    }

    async fn apply(&mut self, ctx: &mut Context<NetworkMsg>) -> Result<(), ActorError> {
        let cidrs = self.args.pod_cidrs.borrow().clone();
        let config = self.args.config.clone();
        let given = cidrs.clone();
        let outcome = self.thread.run(move |()| kernel::apply(&config, &given)).await?;
        if let Some(timer) = self.retry.take() {
            ctx.cancel(timer);
        }
        match outcome {
            Ok(applied) => {
                self.failures = 0;
                self.tell(ctx, &cidrs, applied);
            }
            Err(error) => self.fail(ctx, &error),
        }
        Ok(())
    }

    fn tell(&mut self, ctx: &Context<NetworkMsg>, cidrs: &[Cidr], applied: Applied) {
        let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        let pods = if texts.is_empty() { "none yet".to_owned() } else { texts.join(", ") };
        let mut notes = vec![format!("pod networks: {pods}"), format!("mtu: {}", applied.mtu)];
        notes.extend(applied.warnings.iter().cloned());
        ctx.note(notes);
        if applied.table_changes + applied.files_written > 0 {
            let (changes, files) = (applied.table_changes, applied.files_written);
            tracing::info!(pods, mtu = applied.mtu, changes, files, "the network of pods is set up");
        }
        if applied.warnings != self.warned {
            for warning in &applied.warnings {
                tracing::warn!(warning, "the network of pods may not work everywhere");
            }
            self.warned = applied.warnings;
        }
    }

    fn fail(&mut self, ctx: &mut Context<NetworkMsg>, error: &NetworkError) {
        self.failures += 1;
        let delay = RETRY.delay(self.failures, &mut self.rng);
        let error = error as &dyn std::error::Error;
        if self.failures == 1 {
            tracing::error!(error, "the network of pods can't be set up; trying again");
        } else {
            tracing::debug!(error, failures = self.failures, "the network of pods still can't be set up");
        }
        ctx.note(vec![format!("failed {} times: {error}", self.failures)]);
        self.retry = Some(ctx.send_after(delay, NetworkMsg::ApplyTick));
    }

    /// Has leaks looked for some time after this; not yet if that is planned already.
    fn collect_later(&mut self, ctx: &mut Context<NetworkMsg>, delay: Duration) {
        if self.collection.is_none() {
            self.collection = Some(ctx.send_after(delay, NetworkMsg::CollectTick));
        }
    }

    fn watch_sandboxes(&mut self, ctx: &mut Context<NetworkMsg>) {
        self.args.live_sandboxes.borrow_and_update();
        ctx.pipe(changed(self.args.live_sandboxes.clone(), NetworkMsg::SandboxesChanged));
    }

    async fn collect(&mut self, ctx: &mut Context<NetworkMsg>) -> Result<(), ActorError> {
        self.collection = None;
        let config = self.args.config.clone();
        // The runtime's list first: who is made in between is a suspect, and no longer by the next look.
        let Some(live) = self.args.live_sandboxes.borrow().clone() else { return Ok(()) };
        if config.backend == Backend::None {
            return Ok(());
        }
        let look = move |(): &mut ()| kernel::inside(&config, || collect::holders(&config));
        let outcome = match self.thread.run(look).await? {
            Ok(holders) => {
                let gone = self.suspects.look(&holders, &live, ctx.clock().now());
                self.release(gone).await?
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "what containers left could not be freed; trying again later");
        }
        // Without suspects nobody looks until a pod comes or goes.
        if let Some(next) = self.suspects.next() {
            let delay = next.since(ctx.clock().now()).max(COLLECT_PAUSE);
            self.collect_later(ctx, delay);
        }
        Ok(())
    }

    async fn release(&self, gone: std::collections::BTreeSet<String>) -> Result<Result<(), NetworkError>, ActorError> {
        if gone.is_empty() {
            return Ok(Ok(()));
        }
        let (config, count) = (self.args.config.clone(), gone.len());
        let job = move |(): &mut ()| kernel::inside(&config, || collect::release(&config, &gone));
        let freed = self.thread.run(job).await?;
        Ok(freed.map(|addresses| {
            tracing::info!(containers = count, addresses = addresses.len(), "freed what containers left that are gone");
        }))
    }
}

impl Actor for Network {
    type Args = NetworkArgs;
    type Msg = NetworkMsg;

    async fn init(ctx: &mut Context<NetworkMsg>, args: NetworkArgs) -> Result<Self, ActorError> {
        let thread = Blocking::start(ctx, JOBS_WAITING_MAX, || Ok::<_, std::convert::Infallible>(())).await?;
        let mut network = Self {
            args,
            thread,
            rng: ctx.rng(),
            suspects: Suspects::default(),
            failures: 0,
            retry: None,
            collection: None,
            news: None,
            warned: Vec::new(),
        };
        // First the ear, then the look: what happens in between is heard.
        network.listen().await?;
        network.hear_on(ctx);
        network.watch_cidrs(ctx);
        network.apply(ctx).await?;
        network.watch_sandboxes(ctx);
        ctx.send_self(NetworkMsg::CollectTick);
        Ok(network)
    }

    async fn handle(&mut self, ctx: &mut Context<NetworkMsg>, message: NetworkMsg) -> Result<(), ActorError> {
        match message {
            NetworkMsg::CidrsChanged => {
                self.watch_cidrs(ctx);
                self.apply(ctx).await
            }
            NetworkMsg::TableTouched => {
                self.hear_on(ctx);
                self.apply(ctx).await
            }
            NetworkMsg::ApplyTick => self.apply(ctx).await,
            NetworkMsg::SandboxesChanged => {
                self.watch_sandboxes(ctx);
                self.collect_later(ctx, COLLECT_PAUSE);
                Ok(())
            }
            NetworkMsg::CollectTick => self.collect(ctx).await,
        }
    }
}
