//! A whole control plane in this process, without a socket: the API server over a store in memory, and whatever loops a
//! test puts beside it.
//!
//! ```text
//! /                rest_for_one
//! ├─ apiserver     the API server's own tree
//! └─ loops         one_for_one: what the test gave, such as controllers, a scheduler, fake nodes
//! ```
//!
//! The loops speak to the API through [`Identities`], as they do in the binary, so each has its own rights. Everything
//! lives on the clock that the test gives: on [`Clock::simulated`] with tokio's paused one, an hour costs nothing.
//!
//! ```no_run
//! # async fn sketch(of: impl Fn(k3sd_client::api::Identities) -> Vec<k3sd_runtime::ChildSpec>) {
//! # use chaos_tests::cluster::Plane;
//! # use k3sd_runtime::Clock;
//! let plane = Plane::new(Clock::simulated(7));
//! let loops = of(plane.identities());
//! let cluster = plane.start(loops).await;
//! let admin = cluster.admin();
//! # }
//! ```

mod controllers;
mod deploy;
pub mod kubeconfig;
pub mod nodes;
pub mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver::{
    ApiServerArgs, ApiServerConfig, ApiServerTree, Bundles, ClientAuthorities, Components, Health, LocalService, Nodes,
    Pipeline, Probe, ServiceAccountKeys, TokenKeys, User, tree,
};
use k3sd_client::api::{Connect, Identities};
use k3sd_client::controller::setup::TokenSigner;
use k3sd_client::storage::Storage;
use k3sd_client::storage::memory::Memory;
use k3sd_runtime::{ChildSpec, Clock, Signal, Spec, Strategy, System, Tree, subtree};
use serde_json::Value;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use crate::fakes::disk::Disk;
use crate::fakes::wire::Wire;

/// Longest wait for a condition, on the clock of the cluster.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a condition is looked at: often, because it costs little, and a test waits for most of them.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The kill schedules of tests are denser than what operators see: the root must not give up over them.
const RESTARTS: u32 = 10_000;
const PERIOD: Duration = Duration::from_secs(60);

/// A control plane that doesn't run yet: what loops are made from.
pub struct Plane {
    api: ApiServerTree,
    storage: Memory,
    clock: Clock,
    keys: Arc<ServiceAccountKeys>,
    wire: Option<Wire>,
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plane")
    }
}

impl Plane {
    /// With the settings that K3s has.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self::with(clock, |_| {})
    }

    /// With other settings.
    ///
    /// # Panics
    /// When they make no sense.
    #[must_use]
    pub fn with(clock: Clock, change: impl FnOnce(&mut ApiServerConfig)) -> Self {
        let storage = Memory::new(clock.clone());
        Self::made(clock, change, storage.clone(), Arc::new(storage), None)
    }

    /// On a disk that takes up to so many microseconds for each half of what it does, with a wire between the API server
    /// and everybody else, and a way to nodes.
    ///
    /// # Panics
    /// When the settings of K3s make no sense.
    #[must_use]
    pub fn far(clock: Clock, disk_us_max: u64, wire: Wire, nodes: Nodes) -> Self {
        let storage = Memory::new(clock.clone());
        let disk = Disk::new(storage.clone(), clock.clone(), disk_us_max);
        Self::made(clock, |config| config.nodes = nodes, storage, Arc::new(disk), Some(wire))
    }

    fn made(
        clock: Clock,
        change: impl FnOnce(&mut ApiServerConfig),
        storage: Memory,
        disk: Arc<dyn Storage>,
        wire: Option<Wire>,
    ) -> Self {
        // No endpoint may be on loopback.
        let mut config = ApiServerConfig { advertise_address: [192, 0, 2, 1].into(), ..ApiServerConfig::default() };
        change(&mut config);
        let key = k3sd_pki::PrivateKey::generate_ec().expect("the system has randomness");
        let keys = vec![key.to_pem()];
        let api = tree(ApiServerArgs {
            config,
            storage: disk,
            clock: clock.clone(),
            token_keys: TokenKeys::fixed(keys.clone()),
            // Nobody comes over TLS.
            authorities: ClientAuthorities { users: WebPkiClientVerifier::no_client_auth(), front_proxies: None },
            bundles: Bundles::new(|| (AUTHORITY.to_owned(), String::new())),
            endpoints: Vec::new(),
            components: Components::default(),
            checks: Vec::new(),
        });
        let keys = Arc::new(ServiceAccountKeys::of_pems(&keys).expect("it was just made"));
        Self { api: api.expect("the settings make sense"), storage, clock, keys, wire }
    }

    /// Ways to the API for loops; good before it runs.
    #[must_use]
    pub fn identities(&self) -> Identities {
        identities(&self.api.pipeline, self.wire.clone())
    }

    /// The API as a service, for a user in exactly these groups; good before it runs.
    #[must_use]
    pub fn local(&self, user: &str, groups: &[&str]) -> LocalService {
        self.api.pipeline.local(User::new(user, groups))
    }

    /// Signs tokens of service accounts as the API server does.
    #[must_use]
    pub fn tokens(&self) -> Arc<dyn TokenSigner> {
        Arc::new(Tokens(self.keys.clone()))
    }

    /// The clock that everything lives on.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Starts the API server, waits until it is ready, and has the loops started beside it.
    ///
    /// # Panics
    /// When it isn't ready in time.
    pub async fn start(self, loops: Vec<ChildSpec>) -> Cluster {
        let Self { api: ApiServerTree { spec, pipeline, health }, storage, clock, wire, .. } = self;
        let system = System::new(clock);
        let beside = loops.into_iter().fold(Spec::new(Strategy::OneForOne).budget(RESTARTS, PERIOD), Spec::child);
        let root = Spec::new(Strategy::RestForOne).budget(RESTARTS, PERIOD);
        let root = root.child(subtree("apiserver", spec)).child(subtree("loops", beside));
        let tree = system.start(root);
        let cluster = Cluster { tree, storage, pipeline, health, wire };
        tokio::time::timeout(LIMIT, cluster.tree.ready()).await.expect("the tree starts in time").expect("it starts");
        cluster.wait_until("the API server is ready", async || cluster.is_ready()).await;
        cluster
    }
}

/// See [`Plane::tokens`].
#[derive(Debug)]
struct Tokens(Arc<ServiceAccountKeys>);

impl TokenSigner for Tokens {
    fn sign(&self, claims: &Value) -> Result<String, String> {
        self.0.sign(claims).map_err(|error| error.to_string())
    }
}

/// What stands in for the authority that nobody shows a certificate of; published in ConfigMaps.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\nbm9ib2R5\n-----END CERTIFICATE-----\n";

fn identities(pipeline: &Pipeline, wire: Option<Wire>) -> Identities {
    let pipeline = pipeline.clone();
    Identities::new(move |name, groups| connect(pipeline.local(User::new(name, groups)), wire.as_ref()))
}

fn connect(service: LocalService, wire: Option<&Wire>) -> Connect {
    match wire {
        Some(wire) => wire.connect(service),
        None => Connect::over(service),
    }
}

/// A running control plane. It is gone with the runtime that it runs in, or with [`Cluster::stop`].
pub struct Cluster {
    /// The whole tree.
    pub tree: Tree,
    /// What the API server keeps its bytes in: close it, and the API is away.
    pub storage: Memory,
    pipeline: Pipeline,
    health: Health,
    wire: Option<Wire>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The universe of the tree: its clock, its events, and the way to signal its actors.
    #[must_use]
    pub fn system(&self) -> &System {
        self.tree.system()
    }

    /// Time and randomness.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.system().clock()
    }

    /// Ways to the API.
    #[must_use]
    pub fn identities(&self) -> Identities {
        identities(&self.pipeline, self.wire.clone())
    }

    /// A way to the API for a user in exactly these groups; past any wire.
    #[must_use]
    pub fn connect(&self, user: &str, groups: &[&str]) -> Connect {
        Connect::over(self.pipeline.local(User::new(user, groups)))
    }

    /// The API as a service, for a user in exactly these groups; past any wire.
    #[must_use]
    pub fn local(&self, user: &str, groups: &[&str]) -> LocalService {
        self.pipeline.local(User::new(user, groups))
    }

    /// A client that may do everything; past any wire.
    #[must_use]
    pub fn admin(&self) -> kube::Client {
        self.connect("admin", &["system:masters", "system:authenticated"]).client()
    }

    /// Whether the API server says that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.health.failing(Probe::Ready).is_empty()
    }

    /// Kills whoever lives at `path`, such as `loops/scheduler`; it comes back as its supervisor sees fit.
    ///
    /// # Panics
    /// When nobody lives there.
    pub fn kill(&self, path: &str) {
        assert!(self.system().signal(path, Signal::Kill), "somebody lives at {path}");
    }

    /// Waits until something holds, looking again and again.
    ///
    /// # Panics
    /// When it doesn't within 60 s of the cluster's clock.
    pub async fn wait_until(&self, what: &str, holds: impl AsyncFnMut() -> bool) {
        self.wait_within(LIMIT, what, holds).await;
    }

    /// As [`Cluster::wait_until`], with another limit.
    ///
    /// # Panics
    /// When it doesn't hold in time.
    pub async fn wait_within(&self, limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let (clock, pause) = (self.clock().clone(), LOOK_EVERY.max(limit / 20_000));
        let found = tokio::time::timeout(limit, async {
            while !holds().await {
                clock.sleep_until(clock.now() + pause).await;
            }
        });
        if found.await.is_err() {
            let failing = self.health.failing(Probe::Ready);
            panic!("in {limit:?} it did not come about that {what}; checks that fail: {failing:?}");
        }
    }

    /// Lets time go by: on a paused clock at once, and everything that is due happens meanwhile.
    pub async fn pass(&self, span: Duration) {
        self.clock().sleep_until(self.clock().now() + span).await;
    }

    /// Stops everything, and waits for it.
    ///
    /// # Panics
    /// When it doesn't end in time.
    pub async fn stop(&self) {
        self.tree.stop();
        let ended = tokio::time::timeout(LIMIT, self.tree.ended()).await;
        ended.expect("the tree stops in time");
    }
}
