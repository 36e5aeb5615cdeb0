//! The subtree, as data.
//!
//! ```text
//! proxy              one_for_one
//! ├─ services        informer
//! ├─ endpointslices  informer
//! ├─ node            informer of this node alone
//! ├─ rules           the kernel's tables
//! ├─ healthz         10256
//! ├─ metrics         10249
//! └─ health-ports    the ports of services that ask for one
//! ```
//!
//! None of them needs another to start, and none takes another along.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer::{InformerArgs, informer};
use k3sd_netlink::Namespace;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ChildSpec, Spec, Strategy, task, worker};
use tokio::sync::watch;

use crate::arguments::Settings;
use crate::config::{ProxyConfig, ProxyDeps};
use crate::error::ProxyError;
use crate::http::{Meters, Pages, Sockets, bind, health_page, listen, metrics_page, serve_ports};
use crate::sync::{KernelArgs, Sync, SyncArgs};

/// Services without these labels are ours: others have a proxy of their own, or need none.
const OURS: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// How many deaths are borne: none of the seven takes another along, and packets don't notice.
const RESTARTS: u32 = 20;
const PERIOD: Duration = Duration::from_secs(60);

/// The subtree.
#[derive(Clone, Debug)]
pub struct ProxyTree {
    /// What to start.
    pub spec: Spec,
}

/// Puts the proxy together, and opens its sockets. Nothing runs yet, and the kernel is as it was.
///
/// # Errors
/// A setting means nothing, or a port is taken.
pub async fn tree(config: ProxyConfig, deps: ProxyDeps) -> Result<ProxyTree, ProxyError> {
    let settings = Settings::read(&config.arguments)?;
    let kernel = KernelArgs::new(&config, &settings, deps.clock.clone())?;
    let connect = deps.connect;
    let (services_spec, services) = informer("services", InformerArgs::all(connect.clone()).labels(OURS));
    let (slices_spec, slices) = informer("endpointslices", InformerArgs::all(connect.clone()).labels(OURS));
    let own = format!("metadata.name={}", kernel.node_name);
    let (node_spec, nodes) = informer("node", InformerArgs::all(connect).fields(&own));
    let meters = Arc::new(Meters::new(deps.clock, settings.sync_period * 2));
    let (health_ports, health_ports_seen) = watch::channel(Arc::new(BTreeMap::new()));
    let rules = SyncArgs {
        kernel,
        services,
        slices,
        nodes,
        min_sync_period: settings.min_sync_period,
        meters: meters.clone(),
        health_ports: Arc::new(health_ports),
    };
    let namespace = config.namespace.as_deref().map(Namespace::open).transpose()?;
    let page = |answer: fn(&Meters, &str) -> _, meters: &Arc<Meters>| -> Pages {
        let meters = meters.clone();
        Arc::new(move |path| answer(&meters, path))
    };
    let door = |name: &str, at: Option<SocketAddr>, pages: Pages| -> Result<Option<ChildSpec>, ProxyError> {
        let Some(at) = at else { return Ok(None) };
        let socket = Lend::new(bind(namespace.as_ref(), at)?);
        Ok(Some(task(name, move |handle| listen(handle, socket.clone(), pages.clone()))))
    };
    let healthz = door("healthz", settings.healthz, page(health_page, &meters))?;
    let metrics = door("metrics", settings.metrics, page(metrics_page, &meters))?;
    let sockets = Lend::new(Sockets::new());
    let at = config.namespace;
    let ports = task("health-ports", move |handle| {
        serve_ports(handle, at.clone(), health_ports_seen.clone(), sockets.clone(), meters.clone())
    });
    let spec = Spec::new(Strategy::OneForOne).budget(RESTARTS, PERIOD);
    let spec = spec.child(services_spec).child(slices_spec).child(node_spec);
    let spec = spec.child(worker::<Sync>("rules", rules));
    let spec = healthz.into_iter().chain(metrics).fold(spec, Spec::child);
    Ok(ProxyTree { spec: spec.child(ports) })
}
