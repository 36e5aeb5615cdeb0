//! The loops over the API: controllers, the scheduler and what they read, as the flags ask for them.

use std::path::Path;
use std::sync::Arc;

use k3sd_apiserver::{Pipeline, User};
use k3sd_client::api::{Connect, Identities};
use k3sd_client::controller::setup::{Bundle, Network, Setup};
use k3sd_client::election::{Election, Terms};
use k3sd_client::informer::Shared;
use k3sd_controllers::{ControllersArgs, ControllersConfig, apply_arguments};
use k3sd_kine::StoreConfig;
use k3sd_pki::{Authority, Certificates};
use k3sd_runtime::{ChildSpec, Spec, Strategy, System, subtree};
use k3sd_servicelb::ServiceLbConfig;

use super::addons::{AddonsArgs, addons, packaged};
use super::scheduler::scheduler;
use super::signer::Signer;
use super::{Identity, ServerError};
use crate::cli::Environment;
use crate::config::{Cidr, ServerConfig};

/// Who the informers read as, which all loops share: one who may read everything.
const READER: (&str, &str) = ("system:apiserver", "system:masters");

/// What the loops need.
pub(crate) struct LoopsArgs<'a> {
    pub(crate) config: &'a ServerConfig,
    pub(crate) identity: &'a Identity,
    pub(crate) environment: &'a Environment,
    pub(crate) data_dir: &'a Path,
    pub(crate) system: &'a System,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) certificates: &'a Certificates,
    /// The place of whoever measures for the metrics API, if there is one.
    pub(crate) metrics: Option<k3sd_metrics::Seat>,
}

/// Puts the loops together. They reach the API without a socket, each as somebody of its own.
pub(crate) fn loops(args: LoopsArgs<'_>) -> Result<Spec, ServerError> {
    let LoopsArgs { config, identity, system, pipeline, certificates, .. } = args;
    let identities = {
        let pipeline = pipeline.clone();
        Identities::new(move |user, groups| Connect::over(pipeline.local(User::new(user, groups))))
    };
    let mut informers = Shared::new(identities.user(READER.0, &[READER.1]));
    // Two servers may have one name by mistake; they still are two.
    let process = format!("{}_{:016x}", identity.node_name, system.clock().rng("server/loops").next_u64());
    let root_ca = {
        let certificates = certificates.clone();
        let pem = move || certificates.current().map(|current| current.authority(Authority::Server).bundle_pem());
        Bundle::new(move || pem().unwrap_or_default())
    };
    let mut parts = Vec::new();
    if config.components.controller_manager {
        let mut config =
            controllers(ControllersConfig::default(), config, &process, &config.arguments.controller_manager)?;
        config.loops.root_ca = root_ca;
        let signer = Arc::new(Signer(certificates.clone()));
        config.loops.signer = Some(signer.clone());
        config.loops.tokens = Some(signer);
        let args = ControllersArgs { config, identities: identities.clone(), clock: system.clock().clone() };
        parts.push(("controllers", k3sd_controllers::controllers(&args, &mut informers)));
    }
    let cloud = ControllersArgs {
        config: controllers(ControllersConfig::cloud(), config, &process, &config.arguments.cloud_controller)?,
        identities: identities.clone(),
        clock: system.clock().clone(),
    };
    let nodes = config.components.cloud_controller;
    let cloud = k3sd_controllers::cloud(&cloud, &mut informers, nodes, |setup| load_balancers(config, setup));
    parts.push(("cloud", cloud));
    if config.components.scheduler {
        let (arguments, election) = (&config.arguments.scheduler, election(config, &process));
        let spec = scheduler(arguments, election, &identity.node_name, &identities, &mut informers)?;
        parts.push(("scheduler", spec));
    }
    let addon = AddonsArgs {
        config,
        identity,
        environment: args.environment,
        data_dir: args.data_dir,
        system,
        identities: &identities,
        election: election(config, &process),
        metrics: args.metrics,
    };
    parts.push(("addons", addons(addon, &mut informers)?));
    let spec = Spec::new(Strategy::OneForOne).child(subtree("informers", informers.spec()));
    Ok(parts.into_iter().fold(spec, |spec, (name, part)| spec.child(subtree(name, part))))
}

/// Nodes as load balancers, or what takes away what K3s made for that.
fn load_balancers(config: &ServerConfig, setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let settings = ServiceLbConfig {
        namespace: config.network.servicelb_namespace.clone(),
        rootless: config.node.as_ref().is_some_and(|node| node.rootless),
    };
    if config.components.disable.contains(packaged::SERVICELB) {
        k3sd_servicelb::disabled(setup, &settings)
    } else {
        k3sd_servicelb::loops(setup, &settings)
    }
}

/// The settings of controllers: K3s's, then the flags, then their own arguments, of which the last one counts.
fn controllers(
    usual: ControllersConfig,
    config: &ServerConfig,
    process: &str,
    arguments: &[String],
) -> Result<ControllersConfig, ServerError> {
    let mut settings = ControllersConfig { election: election(config, process), ..usual };
    settings.loops.has_other_servers = settings.election.is_some();
    settings.loops.nodes.cluster_cidrs = config.network.cluster_cidrs.iter().map(network).collect();
    settings.loops.nodes.service_cidrs = config.network.service_cidrs.iter().map(network).collect();
    let arguments = arguments.iter().map(String::as_str);
    apply_arguments(&mut settings, arguments).map_err(ServerError::ControllerArgument)?;
    Ok(settings)
}

fn network(cidr: &Cidr) -> Network {
    Network { address: cidr.network(), prefix_bits: cidr.prefix_bits() }
}

/// Servers compete where they share a datastore. One with a file of its own is alone, and as K3s does, it leads without
/// asking.
fn election(config: &ServerConfig, process: &str) -> Option<Election> {
    let alone = matches!(config.datastore.kine.store, StoreConfig::Sqlite(_) | StoreConfig::Memory);
    (!alone).then(|| Election { identity: process.to_owned(), terms: Terms::default() })
}
