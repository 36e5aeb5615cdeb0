//! What deploys itself on a server, and the parts that stand for packaged components.

use std::path::Path;

use k3sd_client::api::Identities;
use k3sd_client::arguments::{Rule, apply_all, text};
use k3sd_client::election::{Election, ElectionArgs, Leading, elector};
use k3sd_client::informer::Shared;
use k3sd_coredns::{ManifestArgs, Provider};
use k3sd_manifests::config::VariableFacts;
use k3sd_manifests::{HelmConfig, ManifestsConfig, ManifestsDeps, Packaged, Variables, own_files};
use k3sd_runtime::{Spec, Strategy, System, subtree};

use super::{Identity, ServerError};
use crate::cli::Environment;
use crate::config::{DnsProvider, ServerConfig};

/// Who acts for the server itself: K3s's supervisor.
const SUPERVISOR: (&str, &str) = ("system:k3s-supervisor", "system:masters");
/// The namespace of everything that belongs to the server itself.
const NAMESPACE: &str = "kube-system";
/// The name of the lease, as K3s has it.
const LEASE: &str = "k3s";

/// Names of packaged components, as `--disable` has them.
pub(crate) mod packaged {
    /// The cluster's DNS.
    pub(crate) const COREDNS: &str = "coredns";
    /// Volumes in directories of nodes.
    pub(crate) const LOCAL_STORAGE: &str = "local-storage";
    /// The metrics of pods and nodes.
    pub(crate) const METRICS_SERVER: &str = "metrics-server";
    /// Nodes as load balancers.
    pub(crate) const SERVICELB: &str = "servicelb";
    /// Duties of a cloud.
    pub(crate) const CCM: &str = "ccm";
}

/// What the parts need.
#[derive(Debug)]
pub(crate) struct AddonsArgs<'a> {
    pub(crate) config: &'a ServerConfig,
    pub(crate) identity: &'a Identity,
    pub(crate) environment: &'a Environment,
    pub(crate) data_dir: &'a Path,
    pub(crate) system: &'a System,
    pub(crate) identities: &'a Identities,
    /// How servers agree on who acts, where there may be several.
    pub(crate) election: Option<Election>,
    /// The place of whoever measures for the metrics API, if there is one.
    pub(crate) metrics: Option<k3sd_metrics::Seat>,
}

/// Puts them together.
pub(crate) fn addons(args: AddonsArgs<'_>, informers: &mut Shared) -> Result<Spec, ServerError> {
    let AddonsArgs { config, identity, system, identities, election, .. } = &args;
    let connect = identities.user(SUPERVISOR.0, &[SUPERVISOR.1]);
    let mut spec = Spec::new(Strategy::RestForOne);
    let leading = match election {
        None => Leading::always(),
        Some(election) => {
            let mut terms = ElectionArgs::new(connect.clone(), NAMESPACE, LEASE, &election.identity);
            terms.terms = election.terms;
            let (child, leading) = elector("lease", terms);
            spec = spec.child(child);
            leading
        }
    };
    let mut parts = Spec::new(Strategy::OneForOne);
    let (addresses, domain) = (&config.network.cluster_dns, &config.network.cluster_domain);
    parts = parts.child(k3sd_coredns::announcement(connect.clone(), addresses, domain));
    if !config.components.disable.contains(packaged::COREDNS) {
        let hosts = k3sd_coredns::node_hosts(&connect, &informers.informer(), leading.clone());
        parts = parts.child(subtree("node-hosts", hosts));
    }
    if !config.components.disable.contains(packaged::LOCAL_STORAGE) {
        let connect = identities.service_account(NAMESPACE, k3sd_local_storage::SERVICE_ACCOUNT);
        let (nodes, volumes) = (informers.informer(), informers.informer());
        parts = parts.child(k3sd_local_storage::gone(connect, &nodes, &volumes, leading.clone()));
    }
    let manifests = ManifestsDeps { connect: connect.clone(), leading, clock: system.clock().clone() };
    let manifests = k3sd_manifests::tree(manifests_config(&args, identity)?, manifests);
    parts = parts.child(subtree("manifests", manifests.map_err(ServerError::Manifests)?.spec));
    if let Some(seat) = args.metrics {
        parts = parts.child(subtree("metrics", seat.tree(connect, informers)));
    }
    Ok(spec.child(subtree("parts", parts)))
}

fn manifests_config(args: &AddonsArgs<'_>, identity: &Identity) -> Result<ManifestsConfig, ServerError> {
    let AddonsArgs { config, environment, data_dir, .. } = args;
    let (components, network) = (&config.components, &config.network);
    let registry = components.system_default_registry.as_deref();
    let storage = components.local_storage_path.to_string_lossy();
    let mut disabled = components.disable.clone();
    if !components.cloud_controller && disabled.contains(packaged::SERVICELB) {
        disabled.insert(packaged::CCM.to_owned());
    } else {
        // Its rights are needed as long as anybody acts under its name.
        disabled.remove(packaged::CCM);
    }
    Ok(ManifestsConfig {
        dir: data_dir.join("server/manifests"),
        packaged: packaged_files(config),
        variables: Variables::new(&VariableFacts {
            cluster_dns: &network.cluster_dns,
            cluster_domain: &network.cluster_domain,
            local_storage: &storage,
            registry: registry.unwrap_or_default(),
            prefers_external: network.flannel_external_ip,
        }),
        disabled,
        skips: std::collections::BTreeSet::new(),
        node_name: identity.node_name.clone(),
        helm: components.helm_controller.then(|| helm(config, environment)).transpose()?,
    })
}

/// Flags of the helm controller, as it is inside K3s.
const HELM_FLAGS: &[(&str, Rule<HelmConfig>)] = &[
    ("controller-name", Rule::Refused("there is one controller")),
    ("default-job-image", Rule::Sets(|helm, value| text(value).map(|image| helm.job_image = image))),
    ("job-cluster-role", Rule::Only(&["cluster-admin"])),
    ("namespace", Rule::Refused("charts of all namespaces are looked after")),
    ("node-name", Rule::Refused("the node is this one")),
    ("threads", Rule::Refused("charts are few")),
];

fn helm(config: &ServerConfig, environment: &Environment) -> Result<HelmConfig, ServerError> {
    let registry = config.components.system_default_registry.as_deref();
    let variable = |name: &str| environment.var(name).map(ToOwned::to_owned);
    let mut helm = HelmConfig::new(config.listen.https_port, registry, variable);
    if let Some(image) = &config.components.helm_job_image {
        helm.job_image.clone_from(image);
    }
    let arguments = config.arguments.helm_controller.iter().map(String::as_str);
    apply_all("helm-controller", HELM_FLAGS, &[], &mut helm, arguments).map_err(ServerError::HelmArgument)?;
    Ok(helm)
}

/// The files that come with the program.
fn packaged_files(config: &ServerConfig) -> Vec<Packaged> {
    let network = &config.network;
    let coredns = k3sd_coredns::manifest(&ManifestArgs {
        provider: match network.dns {
            DnsProvider::Embedded => Provider::Embedded,
            DnsProvider::CoreDns => Provider::Coredns,
        },
        cluster_dns: network.cluster_dns.clone(),
        cluster_domain: network.cluster_domain.clone(),
        system_default_registry: config.components.system_default_registry.clone().unwrap_or_default(),
    });
    let file = |path: &str, text: String| Packaged { path: path.to_owned(), text };
    let mut files = own_files();
    files.extend([
        file("coredns.yaml", coredns),
        file("local-storage.yaml", k3sd_local_storage::MANIFEST.to_owned()),
        file("metrics-server/metrics.yaml", k3sd_metrics::MANIFEST.to_owned()),
    ]);
    files
}
