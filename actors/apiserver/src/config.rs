//! What the server is told by whoever read flags and environment.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k3sd_apiserver_access::authn::{FrontProxy, StaticTokens};
use k3sd_apiserver_admission::{AdmissionConfig, Plugins};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::aggregation::Aggregation;
use crate::error::SetupError;
use crate::front::TlsLimits;
use crate::streams::Nodes;

/// Configuration of the server. [`ApiServerConfig::default`] is kube-apiserver as K3s starts it, for one IPv4 cluster.
#[derive(Clone)]
pub struct ApiServerConfig {
    /// The address under which the cluster reaches this server: an endpoint of the Service `kubernetes`.
    pub advertise_address: IpAddr,
    /// The port there.
    pub advertise_port: u16,
    /// The networks of services, one or one of each family; the first is that of Services that name none.
    pub service_cidrs: Vec<String>,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// `--cluster-domain`.
    pub cluster_domain: String,
    /// The name of this node's host, by which servers of one cluster tell each other apart.
    pub host_name: String,
    /// `gitVersion` of `/version`, such as `v1.34.1+k3sd1`.
    pub version: String,
    /// Names under which tokens of service accounts are, and were, made; the first is the present one.
    pub issuers: Vec<String>,
    /// Whom tokens are meant for that are meant for us; empty stands for the issuers.
    pub audiences: Vec<String>,
    /// Where the set of keys is found; `None` is this server's own address.
    pub jwks_uri: Option<String>,
    /// The longest lifetime of a token that is asked for, in whole seconds; `None` is no limit but the API's.
    pub token_lifetime_max: Option<Duration>,
    /// Whether tokens in pods live a year, with a warning when they are used after what was asked for.
    pub token_extension: bool,
    /// Whether requests that show nothing are served, as `system:anonymous`. K3s: no.
    pub anonymous: bool,
    /// Whether Secrets of the type `bootstrap.kubernetes.io/token` let machines in.
    pub bootstrap_tokens: bool,
    /// Users by token, from `--token-auth-file`.
    pub static_tokens: Arc<StaticTokens>,
    /// Headers and names of front proxies.
    pub front_proxy: FrontProxy,
    /// Requests that read, and that write, at once; the others wait. Watches and the like aren't counted.
    pub in_flight: (usize, usize),
    /// Connections at once. Whoever comes then waits in the socket's queue.
    pub connections_max: usize,
    /// How long a request may take that isn't a watch or the like.
    pub request_timeout: Duration,
    /// The least time that a watch is served; the time is drawn between once and twice this.
    pub watch_timeout_min: Duration,
    /// How long an Event lives; whole seconds, zero for ever.
    pub event_ttl: Duration,
    /// How long the datastore keeps history, at least; zero leaves it to others to drop it.
    pub compaction_interval: Duration,
    /// Whether pods may be privileged.
    pub allow_privileged: bool,
    /// `--runtime-config`: versions (`apps/v1`), resources (`apps/v1/deployments`), or `api/all`, `api/ga`, `api/beta`,
    /// `api/alpha`, on or off.
    pub runtime_config: BTreeMap<String, bool>,
    /// Admission plugins that are on beside the usual ones.
    pub admission_on: Vec<String>,
    /// How long pods that say nothing of it stay on a node that isn't ready, and on one that can't be reached; seconds.
    pub toleration_seconds: (i64, i64),
    /// Admission plugins that are off.
    pub admission_off: Vec<String>,
    /// Versions and cipher suites of TLS.
    pub tls: TlsLimits,
    /// How long the server goes on when it is told to stop, with `/readyz` failing, before it takes no more requests.
    pub shutdown_delay: Duration,
    /// The `Strict-Transport-Security` header, if it is wanted.
    pub strict_transport_security: Option<String>,
    /// What everybody may read beside the API.
    pub pages: Pages,
    /// The same, in files.
    pub files: Files,
    /// Numbers of others, which `/metrics` shows with its own.
    pub numbers: Numbers,
    /// How nodes are reached, for logs, exec and the like.
    pub nodes: Nodes,
    /// How versions are reached that others answer for.
    pub aggregation: Aggregation,
}

/// Numbers of other parts of this process.
#[derive(Clone)]
pub struct Numbers(Arc<dyn Fn(&mut String) + Send + Sync>);

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

impl Default for Numbers {
    /// There are none.
    fn default() -> Self {
        Self::new(|_| ())
    }
}

impl Numbers {
    /// Asks a function, which adds lines in Prometheus' text format, from memory.
    pub fn new(write: impl Fn(&mut String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Adds their lines.
    pub(crate) fn write(&self, text: &mut String) {
        (self.0)(text);
    }
}

/// Pages that everybody may read, known or not, on the sockets of the API.
#[derive(Clone)]
pub struct Pages(Arc<AskPage>);

type AskPage = dyn Fn(&str) -> Option<Page> + Send + Sync;

/// One of them: its type, and its text.
pub type Page = (&'static str, Bytes);

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

impl Default for Pages {
    /// There are none.
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl Pages {
    /// Asks a function for the page of a path, which answers from memory.
    pub fn new(ask: impl Fn(&str) -> Option<Page> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// The page of a path.
    pub(crate) fn of(&self, path: &str) -> Option<Page> {
        (self.0)(path)
    }
}

/// Files that everybody may read, known or not, on the sockets of the API.
#[derive(Clone)]
pub struct Files {
    /// Where their paths begin; empty for nowhere.
    prefix: &'static str,
    open: Arc<OpenFile>,
    seats: Arc<Semaphore>,
}

type OpenFile = dyn Fn(&str) -> Option<File> + Send + Sync;

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Default for Files {
    /// There are none.
    fn default() -> Self {
        Self::new("", |_| None)
    }
}

impl Files {
    /// So many are read at once: each costs a descriptor, and anybody may ask.
    pub(crate) const AT_ONCE: usize = 256;

    /// Asks a function for the file of a path that begins with `prefix`, such as `/static/`. It is told the path as it
    /// was asked for, and opens nothing but plain files that everybody may read.
    pub fn new(prefix: &'static str, open: impl Fn(&str) -> Option<File> + Send + Sync + 'static) -> Self {
        Self { prefix, open: Arc::new(open), seats: Arc::new(Semaphore::new(Self::AT_ONCE)) }
    }

    /// Whether a path is one of files.
    pub(crate) fn are_at(&self, path: &str) -> bool {
        !self.prefix.is_empty() && path.starts_with(self.prefix)
    }

    /// The file of a path.
    pub(crate) fn open(&self, path: &str) -> Option<File> {
        (self.open)(path)
    }

    /// A place among those who read one, if there is any left.
    pub(crate) fn seat(&self) -> Option<OwnedSemaphorePermit> {
        self.seats.clone().try_acquire_owned().ok()
    }
}

/// Leaves out the tokens.
impl fmt::Debug for ApiServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServerConfig")
            .field("advertise_address", &self.advertise_address)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The issuer that tokens have unless another is configured.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl Default for ApiServerConfig {
    fn default() -> Self {
        Self {
            advertise_address: IpAddr::from([127, 0, 0, 1]),
            advertise_port: 6443,
            service_cidrs: vec!["10.43.0.0/16".to_owned()],
            node_ports: (30_000, 32_767),
            cluster_domain: "cluster.local".to_owned(),
            host_name: "localhost".to_owned(),
            version: "v1.34.1+k3sd1".to_owned(),
            issuers: vec![ISSUER.to_owned()],
            audiences: Vec::new(),
            jwks_uri: None,
            token_lifetime_max: None,
            token_extension: true,
            anonymous: false,
            bootstrap_tokens: true,
            static_tokens: Arc::default(),
            front_proxy: FrontProxy::default(),
            in_flight: (400, 200),
            connections_max: 10_000,
            request_timeout: Duration::from_secs(60),
            watch_timeout_min: Duration::from_secs(1800),
            event_ttl: Duration::from_secs(3600),
            compaction_interval: Duration::from_secs(300),
            allow_privileged: true,
            runtime_config: BTreeMap::new(),
            admission_on: vec!["NodeRestriction".to_owned()],
            toleration_seconds: (300, 300),
            admission_off: Vec::new(),
            tls: TlsLimits::default(),
            shutdown_delay: Duration::ZERO,
            strict_transport_security: None,
            pages: Pages::default(),
            files: Files::default(),
            numbers: Numbers::default(),
            nodes: Nodes::default(),
            aggregation: Aggregation::default(),
        }
    }
}

impl ApiServerConfig {
    /// Whom tokens are meant for that are meant for us.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        if self.audiences.is_empty() { &self.issuers } else { &self.audiences }
    }

    /// The admission plugins that run.
    pub(crate) fn admission(&self) -> Result<AdmissionConfig, SetupError> {
        let (on, off) = (self.admission_on.iter(), self.admission_off.iter());
        let plugins =
            Plugins::resolve(on.map(String::as_str), off.map(String::as_str)).map_err(SetupError::Admission)?;
        let (not_ready_toleration_seconds, unreachable_toleration_seconds) = self.toleration_seconds;
        Ok(AdmissionConfig { plugins, not_ready_toleration_seconds, unreachable_toleration_seconds })
    }

    /// Whether a resource is served: what is by default, changed by `--runtime-config`. The most exact entry decides.
    #[must_use]
    pub fn serves(&self, resource: &k3sd_objects::schema::Resource) -> bool {
        let (version, config) = (resource.api_version(), &self.runtime_config);
        let level = match resource.version {
            version if version.contains("alpha") => "api/alpha",
            version if version.contains("beta") => "api/beta",
            _ => "api/ga",
        };
        let named = config.get(&format!("{version}/{}", resource.plural)).or_else(|| config.get(version.as_str()));
        let found = named.or_else(|| config.get(level)).or_else(|| config.get("api/all"));
        found.copied().unwrap_or(resource.served)
    }
}
