//! Bringing the kernel in order. Runs on the actor's thread.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer;
use k3sd_netlink::nft::{Change, Family, Netfilter, News, Table};
use k3sd_netlink::{Cidr, Namespace, NetlinkError, conntrack, write_sysctl};
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::{self as core, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rustix::io::Errno;

use super::plan::{self, Told, UdpEndpoints};
use crate::arguments::{Conntrack, NodePortAddresses, Settings};
use crate::config::ProxyConfig;
use crate::error::ProxyError;
use crate::model::{HealthPort, Model, Node, Terms, WithoutLocal, owner};
use crate::rules::{Policy, SetId, TABLE, family};

const UDP: u8 = 17;
/// The IP families, as the API calls them; wherever there is something for each, it is in this order.
pub(crate) const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What the thread is started with.
#[derive(Debug, Clone)]
pub(crate) struct KernelArgs {
    pub(crate) node_name: String,
    pub(crate) namespace: Option<std::path::PathBuf>,
    pub(crate) policy: Policy,
    pub(crate) node_ports: NodePortAddresses,
    pub(crate) terms: Terms,
    pub(crate) conntrack: Conntrack,
    pub(crate) clock: Clock,
}

/// What informers said.
#[derive(Debug, Default)]
pub struct Changes {
    /// Of Services.
    pub services: Vec<informer::Change<Service>>,
    /// Of their endpoints.
    pub slices: Vec<informer::Change<EndpointSlice>>,
    /// Of the node.
    pub nodes: Vec<informer::Change<core::Node>>,
}

/// What came of a round.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Whether everything was looked at.
    pub was_full: bool,
    /// Changes to elements, or to tables when everything was looked at; none on a healthy kernel.
    pub changes: usize,
    /// UDP exchanges, and clients of sticky services, that were forgotten: their endpoint is gone.
    pub forgotten: usize,
    /// Elements there should be.
    pub elements: usize,
    /// What doesn't keep services from working, for people.
    pub warnings: Vec<String>,
    pub(crate) health_ports: Arc<BTreeMap<u16, HealthPort>>,
    pub(crate) without_local: WithoutLocal,
    /// Whether the kernel has tables of IPv6.
    pub(crate) has_ipv6: bool,
    /// When what led to changes of endpoints happened that the kernel has now, by IP family; since 1970.
    pub(crate) triggers: [Vec<Duration>; 2],
    /// How long it took to find UDP exchanges to forget, if any were looked for, and how many there were by IP family.
    pub(crate) conntrack: Option<(Duration, [usize; 2])>,
    pub(crate) is_going: bool,
}

/// What was written, and what has to be forgotten after it.
struct Applied {
    was_full: bool,
    changes: usize,
    udp: UdpEndpoints,
    /// Whether clients may be remembered with an endpoint that is gone.
    loses_sticky: bool,
}

/// Everything that is known, and the way to the kernel. Its calls block.
#[derive(Debug)]
pub struct Kernel {
    args: KernelArgs,
    namespace: Option<Namespace>,
    netfilter: Netfilter,
    model: Model,
    /// `None` when the kernel's tables may be anything.
    told: Option<Told>,
    /// Whether the kernel has tables of IPv6.
    has_ipv6: bool,
}

impl KernelArgs {
    /// What configuration and flags come to.
    pub(crate) fn new(config: &ProxyConfig, settings: &Settings, clock: Clock) -> Result<Self, ProxyError> {
        let cidr =
            |(address, bits): &(IpAddr, u8)| Cidr::new(*address, *bits).ok_or(ProxyError::ClusterCidr(*address, *bits));
        let cluster_cidrs = match &settings.cluster_cidrs {
            Some(cidrs) => cidrs.clone(),
            None => config.cluster_cidrs.iter().map(cidr).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            node_name: settings.hostname_override.clone().unwrap_or_else(|| config.node_name.clone()),
            namespace: config.namespace.clone(),
            policy: Policy {
                cluster_cidrs,
                mark: 1 << settings.masquerade_bit,
                node_port_cidrs: None,
                localhost_node_ports: settings.localhost_nodeports,
            },
            node_ports: settings.node_port_addresses()?,
            terms: Terms { masquerade_all: settings.masquerade_all, local_load_balancer: config.local_load_balancer },
            conntrack: settings.conntrack.clone(),
            clock,
        })
    }
}

/// Starts to hear of changes to tables, in the node's namespace.
fn listen(namespace: Option<&Namespace>) -> Result<News, NetlinkError> {
    match namespace {
        None => News::open(),
        Some(namespace) => namespace.enter(News::open),
    }
}

impl Kernel {
    /// One for a node with this configuration. Nothing is changed yet.
    ///
    /// # Errors
    /// A setting means nothing, the kernel has no netfilter, or the namespace can't be entered.
    pub fn new(config: &ProxyConfig) -> Result<Self, ProxyError> {
        let settings = Settings::read(&config.arguments)?;
        let (kernel, ..) = Self::open(KernelArgs::new(config, &settings, Clock::system())?)?;
        Ok(kernel)
    }

    /// Opens the ways to the kernel. Nothing is changed yet. The second value hears of what others do, and knows us by the
    /// third.
    ///
    /// # Errors
    /// The kernel has no netfilter, or the namespace can't be entered.
    pub(crate) fn open(args: KernelArgs) -> Result<(Self, News, u32), ProxyError> {
        let failed = |what| move |source| ProxyError::Kernel { what, source };
        let namespace = args.namespace.as_deref().map(Namespace::open).transpose()?;
        let opened = match &namespace {
            None => Netfilter::open(),
            Some(namespace) => Netfilter::open_in(namespace),
        };
        let netfilter = opened.map_err(failed("open nftables"))?;
        let port = netfilter.port().map_err(failed("open nftables"))?;
        let news = listen(namespace.as_ref()).map_err(failed("hear of changes to nftables"))?;
        let model = Model::new(Node::unknown(&args.node_name), args.terms);
        let kernel = Self { args, namespace, netfilter, model, told: None, has_ipv6: true };
        Ok((kernel, news, port))
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T, NetlinkError> + Send) -> Result<T, NetlinkError> {
        match &self.namespace {
            None => work(),
            Some(namespace) => namespace.enter(work),
        }
    }

    /// Sets what the kernel should know of connections, has it route packets to the loopback where node ports are there,
    /// and translate addresses of connections even while somebody has taken our tables away: until they are mended a
    /// packet would reach a port of the node at which nobody listens, and be answered with a reset. Says what it
    /// wouldn't do.
    pub(crate) fn prepare(&mut self) -> Vec<String> {
        let own = format!("{TABLE}-{}", self.netfilter.port().unwrap_or_default());
        let kept = self.netfilter.keep_translating(Family::Inet, &own);
        let keys = sysctls(&self.args);
        let set = || {
            let failed = keys.iter().filter_map(|(key, value)| write_sysctl(key, value).err());
            Ok(failed.map(|error| warning(&error)).collect::<Vec<_>>())
        };
        let mut warnings = self.inside(set).unwrap_or_else(|error| vec![warning(&error)]);
        warnings.extend(kept.err().map(|error| warning(&error)));
        warnings
    }

    /// The kernel's tables may be anything.
    pub(crate) fn distrust(&mut self) {
        self.told = None;
    }

    fn take(&mut self, changes: Changes) {
        for change in changes.services {
            match change {
                informer::Change::Replaced(all) => self.model.replace_services(all.iter().cloned()),
                informer::Change::Applied { new, .. } => self.model.set_service(new),
                informer::Change::Deleted(old) => self.model.remove_service(&owner(&old.metadata)),
            }
        }
        for change in changes.slices {
            match change {
                informer::Change::Replaced(all) => self.model.replace_slices(all.iter().cloned()),
                informer::Change::Applied { new, .. } => self.model.set_slice(new),
                informer::Change::Deleted(old) => self.model.remove_slice(&owner(&old.metadata)),
            }
        }
        let name = self.args.node_name.clone();
        for change in changes.nodes {
            match change {
                informer::Change::Replaced(all) => {
                    let node = all.get("", &name).map_or_else(|| Node::unknown(&name), |node| Node::of(&name, node));
                    self.model.set_node(node);
                }
                informer::Change::Applied { new, .. } => self.model.set_node(Node::of(&name, &new)),
                // The last that was known of it is better than nothing.
                informer::Change::Deleted(_) => {}
            }
        }
        self.choose_node_ports();
    }

    /// Where node ports are follows from the node's own address, if that was asked for.
    fn choose_node_ports(&mut self) {
        let cidrs = match &self.args.node_ports {
            NodePortAddresses::All => None,
            NodePortAddresses::In(cidrs) => Some(cidrs.clone()),
            NodePortAddresses::Primary => Some(self.model.node().primary.iter().copied().map(Cidr::host).collect()),
        };
        if self.args.policy.node_port_cidrs != cidrs {
            self.args.policy.node_port_cidrs = cidrs;
            self.told = None;
        }
    }

    /// Takes over what informers said, and has the kernel do it.
    ///
    /// # Errors
    /// The kernel refused. What was said is taken over, and the next round looks at everything.
    pub fn sync(&mut self, changes: Changes) -> Result<Round, ProxyError> {
        self.take(changes);
        self.model.refresh();
        let applied = match self.told.take() {
            Some(told) => self.apply_differences(told),
            None => self.apply_everything(),
        };
        let Applied { was_full, changes, udp: stale, loses_sticky } = applied?;
        self.model.ledger.told();
        let mut round = Round {
            was_full,
            changes,
            elements: self.model.ledger.len(),
            health_ports: Arc::new(self.model.health_ports()),
            without_local: self.model.without_local(),
            has_ipv6: self.has_ipv6,
            triggers: self.model.take_triggers(),
            is_going: self.model.node().is_going,
            ..Round::default()
        };
        if loses_sticky {
            self.forget_clients(&mut round);
        }
        if was_full || !stale.is_empty() {
            self.forget_exchanges(&stale, &mut round);
        }
        Ok(round)
    }

    /// UDP exchanges whose endpoint is gone begin anew. So does, after everything was looked at, what tried to reach a
    /// service while its rules were away: the kernel remembers that it goes nowhere.
    fn forget_exchanges(&self, stale: &UdpEndpoints, round: &mut Round) {
        let (ledger, was_full) = (&self.model.ledger, round.was_full);
        let is_stale = |flow: &conntrack::Flow| match flow.protocol {
            UDP => stale.is_stale(flow.destination, flow.destination_port, flow.answers_from),
            _ => was_full && flow.answers_from == flow.destination && plan::is_service(ledger, flow.destination),
        };
        let began = self.args.clock.now();
        // Services work without; only clients that go on sending from the same port don't get to the new endpoint.
        match self.inside(|| conntrack::forget(is_stale)) {
            Ok(forgotten) => {
                round.forgotten += forgotten.iter().sum::<usize>();
                round.conntrack = Some((self.args.clock.now().since(began), forgotten));
            }
            Err(error) => round.warnings.push(warning(&error)),
        }
    }

    /// Clients whose endpoint is gone are given another one. From the moment on in which it went nobody was sent there who
    /// wasn't before, so one look finds them all.
    fn forget_clients(&mut self, round: &mut Round) {
        for is_ipv6 in [false, true].into_iter().filter(|is_ipv6| !is_ipv6 || self.has_ipv6) {
            let (set, family) = (SetId::Sticky.name().to_owned(), family(is_ipv6));
            let outcome = self.netfilter.elements(family, TABLE, &set).and_then(|known| {
                let stale = plan::stale_clients(&self.model.ledger, is_ipv6, known);
                let mut forgotten = 0;
                for (key, element) in stale {
                    // One at a time, as the time of some may just be over.
                    let change = Change::DeleteElements { set: set.clone(), elements: [(key, element)].into() };
                    match self.netfilter.apply(family, TABLE, &[change], None) {
                        Ok(()) => forgotten += 1,
                        Err(error) if error.is_gone() => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(forgotten)
            });
            match outcome {
                Ok(forgotten) => round.forgotten += forgotten,
                Err(error) => round.warnings.push(warning(&error)),
            }
        }
    }

    fn apply_differences(&mut self, mut told: Told) -> Result<Applied, ProxyError> {
        let differences = self.model.ledger.differences();
        let Some(changes) = plan::changes(&differences, &mut told, &self.args.policy) else {
            return self.apply_everything();
        };
        for (family, changes) in &changes {
            if *family == Family::Ip6 && !self.has_ipv6 {
                continue;
            }
            if let Err(error) = self.netfilter.apply(*family, TABLE, changes, None) {
                // Somebody was at the table, and the news of it isn't here yet.
                tracing::info!(reason = warning(&error), "the services' rules are not as they were left");
                return self.apply_everything();
            }
        }
        self.told = Some(told);
        Ok(Applied {
            was_full: false,
            changes: differences.len(),
            udp: UdpEndpoints::of(&self.model.ledger, Some(&differences)),
            loses_sticky: plan::loses_sticky_endpoints(&differences),
        })
    }

    fn apply_everything(&mut self) -> Result<Applied, ProxyError> {
        let (mut changes, mut refused, mut told) = (0, None, Told::default());
        for (is_ipv6, name) in [false, true].into_iter().zip(FAMILIES) {
            if is_ipv6 && !self.has_ipv6 {
                continue;
            }
            let (ledger, policy) = (&self.model.ledger, &self.args.policy);
            let wanted = |found: Option<&Table>| {
                let (table, of_family) = plan::everything(ledger, policy, is_ipv6, found);
                told.note(is_ipv6, of_family);
                table
            };
            match self.netfilter.converge_from(family(is_ipv6), TABLE, wanted) {
                Ok(taken) => changes += taken,
                Err(error) if is_ipv6 && is_unsupported(&error) => self.has_ipv6 = false,
                // The other family can be in order all the same.
                Err(source) => _ = refused.get_or_insert(ProxyError::Rules { family: name, source }),
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        self.told = Some(told);
        Ok(Applied { was_full: true, changes, udp: UdpEndpoints::of(&self.model.ledger, None), loses_sticky: true })
    }
}

fn is_unsupported(error: &NetlinkError) -> bool {
    matches!(error.errno(), Some(Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT))
}

/// An error with its reasons, in one line.
pub(crate) fn warning(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        text += &format!(": {reason}");
        source = reason.source();
    }
    text
}

/// Keys below /proc/sys, and what they should be.
fn sysctls(args: &KernelArgs) -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    if args.policy.localhost_node_ports {
        keys.push(("net/ipv4/conf/all/route_localnet", "1".to_owned()));
    }
    let conntrack = &args.conntrack;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let per_core = conntrack.max_per_core.map(|max| max.saturating_mul(processors));
    let max = per_core.map(|max| max.max(conntrack.min.unwrap_or(0)));
    keys.extend(max.map(|max| ("net/netfilter/nf_conntrack_max", max.to_string())));
    for (key, time) in [
        ("net/netfilter/nf_conntrack_tcp_timeout_established", conntrack.tcp_established),
        ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", conntrack.tcp_close_wait),
        ("net/netfilter/nf_conntrack_udp_timeout", conntrack.udp),
        ("net/netfilter/nf_conntrack_udp_timeout_stream", conntrack.udp_stream),
    ] {
        keys.extend(time.map(|time| (key, time.as_secs().max(1).to_string())));
    }
    if conntrack.tcp_be_liberal {
        keys.push(("net/netfilter/nf_conntrack_tcp_be_liberal", "1".to_owned()));
    }
    keys
}
