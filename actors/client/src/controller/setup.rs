//! What subsystems of controllers are put together from.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::Clock;
use serde_json::Value;

use crate::api::{Connect, Identities};
use crate::election::Leading;
use crate::events::Recorder;
use crate::informer::Shared;

/// The namespace of the service accounts that controllers act as.
const NAMESPACE: &str = "kube-system";

/// What a crate of controllers is given, to make its loops from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Ways to the API.
    pub identities: &'a Identities,
    /// Copies of what there is, for all controllers.
    pub informers: &'a mut Shared,
    /// Writes Events.
    pub recorder: &'a Recorder,
    /// Whether this process acts.
    pub leading: &'a Leading,
    /// Time and randomness.
    pub clock: &'a Clock,
    /// Settings.
    pub config: &'a ControllerConfig,
}

impl Setup<'_> {
    /// The API as a controller of that name sees it, such as `deployment-controller`: it has a service account of its own,
    /// and the rights of the role `system:controller:NAME`.
    pub fn connect(&self, controller: &str) -> Connect {
        self.identities.service_account(NAMESPACE, controller)
    }
}

/// Settings of controllers; the defaults are upstream's.
#[derive(Clone, Debug, Default)]
pub struct ControllerConfig {
    /// Pods that have ended and are kept; `None` is upstream's 12,500.
    pub terminated_pods_max: Option<usize>,
    /// Volumes stay attached to nodes that don't answer, for as long as nobody says that those are off.
    pub disable_force_detach: bool,
    /// Settings about nodes.
    pub nodes: NodesConfig,
    /// Whom pods should believe when they speak to the API.
    pub root_ca: Bundle,
    /// Signs certificates that were approved; without one none are signed.
    pub signer: Option<Arc<dyn CertificateSigner>>,
    /// The longest time for which a certificate on request is valid; `None` is upstream's year.
    pub certificate_duration: Option<Duration>,
    /// Signs the tokens that Secrets hold; without one none are made.
    pub tokens: Option<Arc<dyn TokenSigner>>,
    /// How long such a token that was made by itself may lie unused, and then be marked; `None` is upstream's year.
    pub token_clean_up_period: Option<Duration>,
    /// Other servers write to the same datastore.
    pub has_other_servers: bool,
    /// Settings about autoscalers.
    pub autoscaling: AutoscalingConfig,
}

/// Settings of the autoscaler; the defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoscalingConfig {
    /// How often what is measured is asked for.
    pub sync_period: Duration,
    /// The part by which what is measured may differ from what is wanted.
    pub tolerance: f64,
    /// For how long the highest number asked for counts, before pods are taken away.
    pub downscale_stabilization: Duration,
    /// How long after its start the load of a pod says nothing about it.
    pub cpu_initialization_period: Duration,
    /// How long after its start a pod that becomes unready counts as one that has never been ready.
    pub initial_readiness_delay: Duration,
}

impl Default for AutoscalingConfig {
    fn default() -> Self {
        Self {
            sync_period: Duration::from_secs(15),
            tolerance: 0.1,
            downscale_stabilization: Duration::from_secs(300),
            cpu_initialization_period: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
        }
    }
}

/// Settings of the controllers of nodes; the defaults are upstream's.
#[derive(Clone, Debug, PartialEq)]
pub struct NodesConfig {
    /// How long nothing may be heard of a node before it counts as unreachable.
    pub monitor_grace_period: Duration,
    /// The same for a node that has reported nothing yet.
    pub startup_grace_period: Duration,
    /// Nodes per second and zone whose pods are evicted because they don't answer.
    pub eviction_rate: f64,
    /// The same in a zone of which many nodes don't answer; in small zones it is 0 then.
    pub secondary_eviction_rate: f64,
    /// A zone with more nodes is no small one.
    pub large_cluster_size: usize,
    /// The part of a zone's nodes that has to be away for that, but at least three nodes.
    pub unhealthy_zone_threshold: f64,
    /// What pods get addresses of: none, one network, or one of each family.
    pub cluster_cidrs: Vec<Network>,
    /// What Services get addresses of: pods get none of these.
    pub service_cidrs: Vec<Network>,
    /// The length of the prefix of each node's network, for IPv4 and for IPv6.
    pub cidr_mask_size: (u8, u8),
}

impl Default for NodesConfig {
    fn default() -> Self {
        Self {
            monitor_grace_period: Duration::from_secs(50),
            startup_grace_period: Duration::from_secs(60),
            eviction_rate: 0.1,
            secondary_eviction_rate: 0.01,
            large_cluster_size: 50,
            unhealthy_zone_threshold: 0.55,
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            cidr_mask_size: (24, 64),
        }
    }
}

/// An IP network: its first address, and the length of the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Bits behind the prefix count as zero.
    pub address: IpAddr,
    /// At most 32 or 128.
    pub prefix_bits: u8,
}

/// Certificates of authorities in PEM, which may become others while the process runs.
#[derive(Clone)]
pub struct Bundle(Arc<dyn Fn() -> String + Send + Sync>);

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundle")
    }
}

impl Default for Bundle {
    /// None yet.
    fn default() -> Self {
        Self::new(String::new)
    }
}

impl Bundle {
    /// Asks a function, which answers from memory.
    pub fn new(ask: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// What it holds now; empty as long as there is none.
    pub fn pem(&self) -> String {
        (self.0)()
    }
}

/// What a request for a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedCertificate {
    /// `CN`, empty when there is none.
    pub common_name: String,
    /// All `O`, in their order.
    pub organizations: Vec<String>,
    /// How many alternative names there are of hosts, addresses, mail boxes and URIs.
    pub names: RequestedNames,
}

/// Counts of alternative names, by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestedNames {
    /// Hosts.
    pub hosts: usize,
    /// Addresses.
    pub addresses: usize,
    /// Mail boxes.
    pub emails: usize,
    /// URIs.
    pub uris: usize,
}

/// Which authority of the cluster signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateAuthority {
    /// The one that clients of the API are known by.
    Client,
    /// The one that servers are believed by.
    Server,
}

/// Reads requests for certificates and signs them; who may have one is decided by who asks for that.
pub trait CertificateSigner: fmt::Debug + Send + Sync {
    /// Reads a request in PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(&self, request: &[u8]) -> Result<RequestedCertificate, String>;

    /// When the first certificate in a text in PEM ends, since 1970; `None` if there is none.
    fn ends(&self, certificates: &[u8]) -> Option<std::time::Duration>;

    /// Signs a request in PEM: the certificate in PEM. `usages` have the names of `certificates.k8s.io`, the times count
    /// from 1970, and the certificate ends no later than its authority.
    ///
    /// # Errors
    /// What is in the way.
    fn sign(
        &self,
        request: &[u8],
        authority: CertificateAuthority,
        usages: &[String],
        valid: std::ops::Range<std::time::Duration>,
    ) -> Result<String, String>;
}

/// Signs tokens of service accounts, with the present key of this server.
pub trait TokenSigner: fmt::Debug + Send + Sync {
    /// Makes a token that says `claims`, an object in JSON.
    ///
    /// # Errors
    /// What is in the way.
    fn sign(&self, claims: &Value) -> Result<String, String>;
}
