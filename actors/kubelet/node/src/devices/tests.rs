//! A plugin of the test's own, over real sockets.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use k3sd_cri::channel;
use k3sd_kubelet_base::PodsSnapshot;
use k3sd_runtime::{Clock, Signal, System, Tree};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::listener::serve;
use super::wire::device_plugin_server::{DevicePlugin, DevicePluginServer};
use super::wire::registration_client::RegistrationClient;
use super::*;
use crate::status::DeviceCounts;

const GPU: &str = "example.com/gpu";
const LIMIT: Duration = Duration::from_secs(10);

/// Has the devices `a` and `b`, prefers `b`, and counts how often it was asked.
#[derive(Clone, Debug, Default)]
struct Plugin(Arc<AtomicUsize>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<wire::ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(&self, _: Request<wire::Empty>) -> Answer<wire::DevicePluginOptions> {
        Ok(Response::new(wire::DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<wire::Empty>) -> Answer<Self::ListAndWatchStream> {
        let device = |id: &str| wire::Device { id: id.to_owned(), health: "Healthy".to_owned() };
        let first = wire::ListAndWatchResponse { devices: vec![device("a"), device("b")] };
        Ok(Response::new(stream::iter([Ok(first)]).chain(stream::pending()).boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<wire::PreferredAllocationRequest>,
    ) -> Answer<wire::PreferredAllocationResponse> {
        let one = wire::ContainerPreferredAllocationResponse { device_ids: vec!["b".to_owned()] };
        Ok(Response::new(wire::PreferredAllocationResponse { container_responses: vec![one] }))
    }

    async fn allocate(&self, request: Request<wire::AllocateRequest>) -> Answer<wire::AllocateResponse> {
        self.0.fetch_add(1, Relaxed);
        let ids = request.into_inner().container_requests.remove(0).device_ids;
        let node = |id: String| wire::DeviceSpec {
            container_path: format!("/dev/{id}"),
            host_path: format!("/dev/gpu-{id}"),
            permissions: "rw".to_owned(),
        };
        let envs = [("IDS".to_owned(), ids.join(","))].into();
        let devices = ids.into_iter().map(node).collect();
        let one = wire::ContainerAllocateResponse { envs, devices, ..wire::ContainerAllocateResponse::default() };
        Ok(Response::new(wire::AllocateResponse { container_responses: vec![one] }))
    }

    async fn pre_start_container(
        &self,
        _: Request<wire::PreStartContainerRequest>,
    ) -> Answer<wire::PreStartContainerResponse> {
        Ok(Response::new(wire::PreStartContainerResponse {}))
    }
}

/// The manager with a plugin beside it.
struct Bench {
    tree: Tree,
    devices: Devices,
    counts: watch::Receiver<DeviceCounts>,
    /// Held, so that the snapshot has an owner.
    _pods: watch::Sender<Arc<PodsSnapshot>>,
}

async fn start(directory: &Path, plugin: Plugin) -> Bench {
    let socket = Lend::new(bind(directory).unwrap());
    let (pods_place, pods) = watch::channel(Arc::new(PodsSnapshot::default()));
    let (place, seen) = watch::channel(None);
    let (counts_place, counts) = watch::channel(DeviceCounts::default());
    let args = DevicesArgs {
        directory: directory.to_owned(),
        pods,
        pods_complete: watch::channel(true).1,
        counts: Arc::new(counts_place),
        place: Arc::new(place),
    };
    let devices = Devices(seen);
    let listener = Lend::new(UnixListener::bind(directory.join("gpu.sock")).unwrap());
    let plugin = task("plugin", move |_| {
        let (listener, plugin) = (listener.clone(), plugin.clone());
        async move {
            let listener = listener.borrow()?;
            let mut all = futures_util::stream::FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => all.push(serve(accepted?.0, DevicePluginServer::new(plugin.clone()))),
                    Some(()) = all.next() => {}
                }
            }
        }
    });
    let tree = System::new(Clock::system()).start(spec(args, socket, devices.clone()).child(plugin));
    tree.ready().await.unwrap();
    Bench { tree, devices, counts, _pods: pods_place }
}

impl Bench {
    async fn wait_for(&self, expected: (u64, u64)) {
        let mut counts = self.counts.clone();
        let found = counts.wait_for(|counts| counts.get(GPU) == Some(&expected));
        assert!(tokio::time::timeout(LIMIT, found).await.is_ok(), "{expected:?} devices are counted");
    }

    async fn allocate(&self, uid: &str, count: u32) -> Result<Given, String> {
        let container = json!({"name": "c", "resources": {"limits": {GPU: count.to_string(), "cpu": "1"}}});
        let pod = json!({"metadata": {"name": uid}, "spec": {"containers": [container]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.devices.allocate(&pod, uid, "c").await.map_err(|error| error.to_string())
    }
}

async fn register(directory: &Path, version: &str, resource: &str) -> Result<(), String> {
    let options = wire::DevicePluginOptions { get_preferred_allocation_available: true, pre_start_required: true };
    let request = wire::RegisterRequest {
        version: version.to_owned(),
        endpoint: "gpu.sock".to_owned(),
        resource_name: resource.to_owned(),
        options: Some(options),
    };
    let mut client = RegistrationClient::new(channel(directory.join("kubelet.sock")));
    client.register(request).await.map(|_| ()).map_err(|status| status.message().to_owned())
}

#[tokio::test]
async fn a_plugin_registers_and_its_devices_are_given_once() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Plugin::default();
    let bench = start(directory.path(), plugin.clone()).await;
    let refused = register(directory.path(), "v1", GPU).await.unwrap_err();
    assert!(refused.starts_with("requested API version \"v1\" is not supported"), "{refused}");
    let refused = register(directory.path(), "v1beta1", "cpu").await.unwrap_err();
    assert_eq!(refused, "the ResourceName \"cpu\" is invalid");

    register(directory.path(), "v1beta1", GPU).await.unwrap();
    bench.wait_for((2, 2)).await;
    let given = bench.allocate("u", 1).await.unwrap();
    assert_eq!((given.envs["IDS"].as_str(), given.nodes[0].host_path.as_str()), ("b", "/dev/gpu-b"));
    assert_eq!(bench.allocate("u", 1).await.unwrap(), given, "the same container has what it has");
    assert_eq!(plugin.0.load(Relaxed), 1);

    assert!(bench.tree.system().signal("manager", Signal::Kill));
    let again = async {
        loop {
            // Nobody is in for a moment.
            match bench.allocate("u", 1).await {
                Ok(again) => break again,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, again).await.unwrap(), given, "a restart gives nothing away");
    assert_eq!(plugin.0.load(Relaxed), 1);
    // The plugin is asked again by itself, and what the pod has stays its own.
    let missing = "requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1";
    let refused = async {
        loop {
            match bench.allocate("v", 2).await {
                Err(text) if text == missing => break,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(LIMIT, refused).await.expect("one device is left");
    assert_eq!(bench.allocate("w", 1).await.unwrap().envs["IDS"], "a");
    bench.tree.stop();
    bench.tree.ended().await;
}
