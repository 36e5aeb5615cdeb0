//! The subtree, as data, and everything that its actors share.
//!
//! ```text
//! apiserver                rest_for_one
//! ├─ caches                one watch cache per resource, and the log that feeds them
//! └─ service               one_for_one
//!    ├─ keys               the keys of service accounts
//!    ├─ rights             roles and bindings, and what nodes need
//!    ├─ token-uses         notes on Secrets when their tokens are used
//!    ├─ openapi            makes documents on a thread of its own
//!    ├─ compactor          has old history dropped
//!    ├─ custom             definitions of custom resources
//!    ├─ bootstrap          what every cluster starts with, and repair
//!    ├─ aggregation        one_for_one: follows APIServices, and registers ours
//!    ├─ front              rest_for_one
//!    │  ├─ connections     dynamic: a task for each
//!    │  ├─ listener…       accept, one for each socket
//!    │  └─ gate            stops first: requests are finished before anything else stops
//!    └─ opening            is ready when all is there that a cluster starts with, and so is the subtree then
//! ```
//!
//! What the first three of `service` publish lies in places that outlive them, so that nobody notices their death.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use k3sd_apiserver_access::authn::service_account::Issuer;
use k3sd_apiserver_access::{Attributes, Authorizer, Decision, Rbac};
use k3sd_apiserver_admission::{Admission, AdmissionNumbers};
use k3sd_apiserver_registry::bootstrap::{self, BootstrapArgs, Hooks, RequestAuthentication, ServerPlace};
use k3sd_apiserver_registry::special::{Authenticate, Component, PortRange, Range, Special, TokenSource};
use k3sd_apiserver_registry::{Api, ApiArgs, ApiConfig, Authorize};
use k3sd_apiserver_store::{Catalog, CatalogHandle, Stores};
use k3sd_client::storage::Storage;
use k3sd_runtime::{Clock, Shutdown, Spec, Strategy, subtree, task, worker};
use tokio::sync::{Semaphore, watch};

use crate::aggregation::{FollowArgs, Inside, RegisterArgs, Table, follow, register};
use crate::authn::{Authenticator, Keys, KeysArgs, TokenKeys, Uses, noting};
use crate::compactor::{Compactor, CompactorArgs};
use crate::config::ApiServerConfig;
use crate::error::SetupError;
use crate::front::{ClientAuthorities, Endpoint, Listening, listen};
use crate::gate::{DRAIN_LIMIT, Gate, GateArgs, Signs};
use crate::observe::{Check, Health, StorageNumbers, Timed};
use crate::openapi::{Documents, OpenApiArgs};
use crate::opening::{Opening, OpeningArgs};
use crate::pipeline::{Fittings, Pipeline};
use crate::rights::{Progress, Rights, RightsArgs};

/// The hook that writes the roles that every cluster has.
const ROLES_HOOK: &str = "rbac/bootstrap-roles";
/// The port of the Service `kubernetes`, as upstream has it.
const SERVICE_PORT: u16 = 443;

/// What the server is made of.
#[derive(Clone, Debug)]
pub struct ApiServerArgs {
    /// Settings.
    pub config: ApiServerConfig,
    /// Who keeps the bytes.
    pub storage: Arc<dyn Storage>,
    /// Time and randomness.
    pub clock: Clock,
    /// Where the keys of service accounts come from.
    pub token_keys: TokenKeys,
    /// Who vouches for clients.
    pub authorities: ClientAuthorities,
    /// Where it listens. Without any it serves this process alone.
    pub endpoints: Vec<Endpoint>,
    /// The same authorities in PEM, for those who have to believe whom we believe.
    pub bundles: Bundles,
    /// How the parts of the control plane are that nobody else here knows; for `componentstatuses`.
    pub components: Components,
    /// Checks of others, behind our own.
    pub checks: Vec<Check>,
}

/// Says who vouches for clients, in PEM: for users, and for front proxies (empty if there are none).
#[derive(Clone)]
pub struct Bundles(Arc<dyn Fn() -> (String, String) + Send + Sync>);

impl fmt::Debug for Bundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundles")
    }
}

impl Bundles {
    /// Asks a function, which answers from memory; now and then, because authorities are exchanged.
    pub fn new(ask: impl Fn() -> (String, String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

/// Says how parts of the control plane are.
#[derive(Clone)]
pub struct Components(Arc<dyn Fn() -> Vec<Component> + Send + Sync>);

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Components")
    }
}

impl Default for Components {
    /// There are none.
    fn default() -> Self {
        Self::new(Vec::new)
    }
}

impl Components {
    /// Asks a function, which answers from memory.
    pub fn new(ask: impl Fn() -> Vec<Component> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

/// The subtree, and the way to it for the rest of the process.
#[derive(Clone, Debug)]
pub struct ApiServerTree {
    /// What to start.
    pub spec: Spec,
    /// Answers requests of this process; see [`Pipeline::local`]. Good before the subtree runs: then requests wait, or
    /// are told to come later.
    pub pipeline: Pipeline,
    /// Whether the server is ready, and its other checks.
    pub health: Health,
}

/// Puts the server together. Nothing runs yet.
///
/// # Errors
/// See [`SetupError`]: the settings make no sense.
pub fn tree(args: ApiServerArgs) -> Result<ApiServerTree, SetupError> {
    let ApiServerArgs { config, storage, clock, token_keys, authorities, bundles, endpoints, components, checks } =
        args;
    let config = Arc::new(config);
    let catalog = CatalogHandle::new(Catalog::builtin(|resource| config.serves(resource)));
    let numbers = StorageNumbers::default();
    let storage = Arc::new(Timed::new(storage, clock.clone(), catalog.clone(), numbers.clone()));
    let stores = Stores::new(catalog, storage, clock.clone());
    let (keys_place, keys) = watch::channel(None);
    let (openapi_place, openapi) = watch::channel(None);
    let (table_place, table) = watch::channel(Arc::<Table>::default());
    let (rights_place, rights) = watch::channel(Arc::<Authorizer>::default());
    let (uses, heard) = Uses::channel();
    let authenticator = Arc::new(authenticator(&config, &stores, &keys, uses));
    let special = special(&config, &authenticator, &rights, &keys, &clock, components)?;
    let (api, admission) = verbs(&config, &stores, special, &rights, &clock)?;
    let api = Arc::new(api);
    let bootstrap = bootstrap::tree(&BootstrapArgs {
        api: api.clone(),
        place: ServerPlace {
            host: config.host_name.clone(),
            address: config.advertise_address,
            port: config.advertise_port,
            service_port: SERVICE_PORT,
        },
        authentication: request_authentication(&config, bundles),
    });
    let signs = Signs::default();
    let progress = Progress::default();
    let health = health(&stores, &signs, &keys, (&rights, &progress), &bootstrap.hooks, checks);
    let noting = noting(api.clone(), heard);
    let pipeline = Pipeline::new(Fittings {
        api,
        config: config.clone(),
        clock,
        authenticator,
        authorities,
        rights,
        keys,
        health: health.clone(),
        draining: signs.draining.subscribe(),
        openapi,
        storage: numbers,
        admission,
        table,
    });

    let keys = KeysArgs { source: token_keys, place: Arc::new(keys_place) };
    let opening = OpeningArgs { hooks: bootstrap.hooks.clone(), progress: progress.clone() };
    let rights =
        RightsArgs { stores: stores.clone(), place: Arc::new(rights_place), progress, hooks: bootstrap.hooks.clone() };
    let documents =
        OpenApiArgs { stores: stores.clone(), git_version: config.version.clone(), place: Arc::new(openapi_place) };
    let compactor = CompactorArgs { storage: stores.storage().clone(), interval: config.compaction_interval };
    let service = Spec::new(Strategy::OneForOne)
        .budget(20, Duration::from_secs(60))
        // These wait for whoever makes the keys, and for the datastore.
        .child(worker::<Keys>("keys", keys).start_within(None))
        .child(worker::<Rights>("rights", rights).start_within(None))
        .child(noting)
        .child(worker::<Documents>("openapi", documents))
        .child(worker::<Compactor>("compactor", compactor))
        .child(subtree("custom", k3sd_apiserver_custom::tree(&stores)))
        .child(subtree("bootstrap", bootstrap.spec))
        .child(subtree("aggregation", aggregation(&config, &stores, &pipeline, table_place)))
        .child(subtree("front", front(&config, endpoints, &pipeline, signs)?))
        .child(worker::<Opening>("opening", opening).start_within(None));
    let spec = Spec::new(Strategy::RestForOne)
        .child(subtree("caches", k3sd_apiserver_store::tree(&stores)))
        .child(subtree("service", service));
    Ok(ApiServerTree { spec, pipeline, health })
}

/// Two tasks that read the same APIServices and hold nothing of each other's.
fn aggregation(
    config: &ApiServerConfig,
    stores: &Stores,
    pipeline: &Pipeline,
    place: watch::Sender<Arc<Table>>,
) -> Spec {
    let inside = Inside::new(pipeline);
    let registering = RegisterArgs { stores: stores.clone(), inside: inside.clone() };
    let following =
        FollowArgs { stores: stores.clone(), inside, config: config.aggregation.clone(), place: Arc::new(place) };
    Spec::new(Strategy::OneForOne)
        .child(task("follow", move |task| follow(task, following.clone())))
        .child(task("register", move |task| register(task, registering.clone())))
}

/// What says who somebody is.
fn authenticator(config: &ApiServerConfig, stores: &Stores, keys: &KeysReceiver, uses: Uses) -> Authenticator {
    Authenticator {
        stores: stores.clone(),
        keys: keys.clone(),
        issuers: config.issuers.clone(),
        audiences: config.audiences().to_vec(),
        static_tokens: config.static_tokens.clone(),
        front_proxy: config.front_proxy.clone(),
        bootstrap_tokens: config.bootstrap_tokens,
        anonymous: config.anonymous,
        uses,
    }
}

/// The verbs, with admission before each write, and how long that takes.
fn verbs(
    config: &ApiServerConfig,
    stores: &Stores,
    special: Special,
    rights: &watch::Receiver<Arc<Authorizer>>,
    clock: &Clock,
) -> Result<(Api, AdmissionNumbers), SetupError> {
    let (asked, allowed) = (rights.clone(), rights.clone());
    let authorize: Authorize = Arc::new(move |attributes: &Attributes<'_>| -> Decision {
        let rights = asked.borrow().clone();
        rights.authorize(*attributes)
    });
    let allows = move |attributes: Attributes<'_>| allowed.borrow().allows(attributes);
    let admission = Admission::new(stores.clone(), Arc::new(allows), config.admission()?, clock.clone());
    let numbers = admission.numbers().clone();
    let api = Api::new(ApiArgs {
        stores: stores.clone(),
        admission: Arc::new(admission),
        authorize,
        special,
        clock: clock.clone(),
        config: ApiConfig {
            allow_privileged: config.allow_privileged,
            event_ttl: config.event_ttl,
            watch_timeout_min: config.watch_timeout_min,
        },
    });
    Ok((api, numbers))
}

/// What faces clients. Connections outlive the listener that accepted them: they stand before it.
fn front(
    config: &ApiServerConfig,
    endpoints: Vec<Endpoint>,
    pipeline: &Pipeline,
    signs: Signs,
) -> Result<Spec, SetupError> {
    let mut spec = Spec::new(Strategy::RestForOne)
        .budget(20, Duration::from_secs(60))
        .child(subtree("connections", Spec::new(Strategy::Dynamic)));
    let places = Arc::new(Semaphore::new(config.connections_max.max(1)));
    let mut listeners = Spec::new(Strategy::OneForOne).budget(20, Duration::from_secs(60));
    for endpoint in endpoints {
        let tls = config.tls.server(endpoint.certificate.clone())?;
        let (name, places, pipeline) = (endpoint.name.clone(), places.clone(), pipeline.clone());
        let listening = Listening { endpoint, tls, pipeline, places };
        listeners = listeners.child(task(&name, move |handle| listen(handle, listening.clone())));
    }
    spec = spec.child(subtree("listeners", listeners));
    let gate = GateArgs { signs, pipeline: pipeline.clone(), delay: config.shutdown_delay };
    let limit = config.shutdown_delay + DRAIN_LIMIT;
    Ok(spec.child(worker::<Gate>("gate", gate).shutdown(Shutdown::Within(limit))))
}

/// Whom the server believes, for the ConfigMap in which extensions of the API look it up.
fn request_authentication(
    config: &Arc<ApiServerConfig>,
    bundles: Bundles,
) -> Arc<dyn Fn() -> RequestAuthentication + Send + Sync> {
    let config = config.clone();
    Arc::new(move || {
        let (client_ca, front_proxy_ca) = (bundles.0)();
        let proxy = &config.front_proxy;
        RequestAuthentication {
            client_ca,
            front_proxy_ca,
            front_proxy_names: proxy.allowed_names.clone(),
            username_headers: proxy.name_headers.clone(),
            group_headers: proxy.group_headers.clone(),
            uid_headers: proxy.uid_headers.clone(),
            extra_header_prefixes: proxy.extra_prefixes.clone(),
        }
    })
}

type KeysReceiver = watch::Receiver<Option<Arc<crate::authn::ServiceAccountKeys>>>;

/// What resources need that aren't plain.
fn special(
    config: &ApiServerConfig,
    authenticator: &Arc<Authenticator>,
    rights: &watch::Receiver<Arc<Authorizer>>,
    keys: &KeysReceiver,
    clock: &Clock,
    components: Components,
) -> Result<Special, SetupError> {
    let ranges = config
        .service_cidrs
        .iter()
        .map(|cidr| cidr.parse::<Range>().map_err(|source| SetupError::ServiceRange { cidr: cidr.clone(), source }));
    let (first, last) = config.node_ports;
    let node_ports: PortRange = format!("{first}-{last}").parse().map_err(SetupError::NodePorts)?;
    let issuer = Issuer {
        name: config.issuers.first().cloned().unwrap_or_default(),
        audiences: config.audiences().to_vec(),
        extends: config.token_extension,
        lifetime_max: config.token_lifetime_max.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
    };
    let authenticate: Authenticate = {
        let (authenticator, clock) = (authenticator.clone(), clock.clone());
        Arc::new(move |token, wanted| {
            let (authenticator, clock) = (authenticator.clone(), clock.clone());
            Box::pin(async move { authenticator.review(&token, &wanted, clock.wall()).await })
        })
    };
    let (rights, keys) = (rights.clone(), keys.clone());
    Ok(Special {
        service_ranges: ranges.collect::<Result<_, _>>()?,
        node_ports,
        tokens: Some(TokenSource {
            issuer,
            key: Arc::new(move || keys.borrow().as_ref().map(|keys| keys.signing.clone())),
        }),
        authenticate,
        rbac: Arc::new(move || -> Arc<Rbac> { Arc::new(rights.borrow().rbac().clone()) }),
        components: components.0,
    })
}

/// Our own checks, and those of others.
fn health(
    stores: &Stores,
    signs: &Signs,
    keys: &KeysReceiver,
    (rights, progress): (&watch::Receiver<Arc<Authorizer>>, &Progress),
    hooks: &Hooks,
    others: Vec<Check>,
) -> Health {
    let open =
        |stores: &Stores| if stores.storage().is_open() { Ok(()) } else { Err("the datastore is not open".to_owned()) };
    let (etcd, etcd_ready, filled) = (stores.clone(), stores.clone(), stores.clone());
    let (stopping, keys, rights) = (signs.stopping.subscribe(), keys.clone(), rights.clone());
    let mut checks = vec![
        Check::new("ping", || Ok(())),
        Check::new("log", || Ok(())),
        Check::new("etcd", move || open(&etcd)),
        Check::new("etcd-readiness", move || open(&etcd_ready)).ready_only(),
        Check::new("informer-sync", move || match filled.unfilled() {
            unfilled if unfilled.is_empty() => Ok(()),
            unfilled => Err(format!("not filled yet: {}", unfilled.join(", "))),
        })
        .ready_only(),
        Check::new("poststarthook/start-service-account-keys", move || {
            if keys.borrow().is_some() { Ok(()) } else { Err("there are no keys of service accounts yet".to_owned()) }
        }),
        Check::new("poststarthook/start-authorizer", move || {
            if rights.has_changed().unwrap_or(false) {
                Ok(())
            } else {
                Err("roles and bindings are not read yet".to_owned())
            }
        }),
        Check::new(
            "shutdown",
            move || {
                if *stopping.borrow() { Err("the server is about to stop".to_owned()) } else { Ok(()) }
            },
        )
        .ready_only(),
    ];
    for (name, _) in hooks.all() {
        let hooks = hooks.clone();
        // Roles that are written count a moment later. Once they did, nothing of this start is owed any more.
        let (progress, count) = (progress.clone(), AtomicBool::new(name != ROLES_HOOK));
        let is_done = move || {
            let written = hooks.all().iter().any(|(hook, done)| *hook == name && *done);
            let counts = written && (count.load(Relaxed) || progress.is_current());
            count.fetch_or(counts, Relaxed);
            counts
        };
        checks.push(Check::new(&format!("poststarthook/{name}"), move || {
            if is_done() { Ok(()) } else { Err("it is not done yet".to_owned()) }
        }));
    }
    checks.extend(others);
    Health::new(checks)
}
