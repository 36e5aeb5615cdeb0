//! One method per call.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k3sd_runtime::Clock;
use k8s_cri::v1;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::channel::channel;
use crate::error::CriError;
use crate::numbers::Numbers;

/// The largest message that is sent or taken, as the kubelet has it.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long a call may take that names no time of its own: the kubelet's `runtimeRequestTimeout`.
pub const CALL_LIMIT: Duration = Duration::from_secs(120);

/// The way to a container runtime. Cloning it shares the connection.
#[derive(Clone)]
pub struct Cri {
    shared: Arc<Shared>,
    limit: Duration,
    meter: Option<Arc<Meter>>,
}

/// Counts calls.
struct Meter {
    clock: Clock,
    numbers: Numbers,
}

struct Shared {
    socket: PathBuf,
    channel: OnceLock<Channel>,
}

impl fmt::Debug for Cri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cri").field("socket", &self.shared.socket).field("limit", &self.limit).finish()
    }
}

/// Waits for one call, at most for `limit` if there is one.
async fn unary<T>(
    call: &'static str,
    limit: Option<Duration>,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CriError> {
    let outcome = match limit {
        Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| CriError::Late { call, limit })?,
        None => answer.await,
    };
    outcome.map(Response::into_inner).map_err(|status| CriError::from_status(call, &status))
}

impl Cri {
    /// The same, counted if somebody wants that.
    async fn unary<T>(
        &self,
        call: &'static str,
        limit: Option<Duration>,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CriError> {
        let Some(meter) = &self.meter else { return unary(call, limit, answer).await };
        let began = meter.clock.now();
        let outcome = unary(call, limit, answer).await;
        meter.numbers.count(call, meter.clock.now().since(began), outcome.is_err());
        outcome
    }
}

/// The calls of one service: method, its name on the wire, request, response, and what it is for.
macro_rules! calls {
    ($client:ident { $($(#[$doc:meta])* $method:ident, $name:literal, $request:ident => $response:ident;)+ }) => {
        impl Cri {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// See [`CriError`]; late after the limit of this way.
                pub async fn $method(&self, request: v1::$request) -> Result<v1::$response, CriError> {
                    self.unary($name, Some(self.limit), self.$client().$method(request)).await
                }
            )+
        }
    };
}

calls!(runtime {
    /// The runtime's name and version. The cheapest sign of life.
    version, "Version", VersionRequest => VersionResponse;
    /// Ends all processes of a sandbox and gives its network back. Safe to repeat.
    stop_pod_sandbox, "StopPodSandbox", StopPodSandboxRequest => StopPodSandboxResponse;
    /// Removes a sandbox with its containers. Safe to repeat.
    remove_pod_sandbox, "RemovePodSandbox", RemovePodSandboxRequest => RemovePodSandboxResponse;
    /// The state of a sandbox.
    pod_sandbox_status, "PodSandboxStatus", PodSandboxStatusRequest => PodSandboxStatusResponse;
    /// The sandboxes there are.
    list_pod_sandbox, "ListPodSandbox", ListPodSandboxRequest => ListPodSandboxResponse;
    /// Makes a container in a sandbox, without starting it.
    create_container, "CreateContainer", CreateContainerRequest => CreateContainerResponse;
    /// Starts a container that was made.
    start_container, "StartContainer", StartContainerRequest => StartContainerResponse;
    /// Removes a container, by force if it runs. Safe to repeat.
    remove_container, "RemoveContainer", RemoveContainerRequest => RemoveContainerResponse;
    /// The containers there are.
    list_containers, "ListContainers", ListContainersRequest => ListContainersResponse;
    /// The state of a container.
    container_status, "ContainerStatus", ContainerStatusRequest => ContainerStatusResponse;
    /// Changes the cgroup limits of a container.
    update_container_resources, "UpdateContainerResources", UpdateContainerResourcesRequest => UpdateContainerResourcesResponse;
    /// Opens the log file of a container again, after it was moved away.
    reopen_container_log, "ReopenContainerLog", ReopenContainerLogRequest => ReopenContainerLogResponse;
    /// Prepares a command with streams; answers the URL at which they are.
    exec, "Exec", ExecRequest => ExecResponse;
    /// Prepares the streams of a running container; answers the URL at which they are.
    attach, "Attach", AttachRequest => AttachResponse;
    /// Prepares connections into a sandbox; answers the URL at which they are.
    port_forward, "PortForward", PortForwardRequest => PortForwardResponse;
    /// What a container uses.
    container_stats, "ContainerStats", ContainerStatsRequest => ContainerStatsResponse;
    /// What containers use.
    list_container_stats, "ListContainerStats", ListContainerStatsRequest => ListContainerStatsResponse;
    /// What a sandbox uses.
    pod_sandbox_stats, "PodSandboxStats", PodSandboxStatsRequest => PodSandboxStatsResponse;
    /// What sandboxes use.
    list_pod_sandbox_stats, "ListPodSandboxStats", ListPodSandboxStatsRequest => ListPodSandboxStatsResponse;
    /// Tells the runtime the pod CIDR.
    update_runtime_config, "UpdateRuntimeConfig", UpdateRuntimeConfigRequest => UpdateRuntimeConfigResponse;
    /// Whether runtime and network are ready.
    status, "Status", StatusRequest => StatusResponse;
    /// Writes a checkpoint of a container.
    checkpoint_container, "CheckpointContainer", CheckpointContainerRequest => CheckpointContainerResponse;
    /// What `list_pod_sandbox_metrics` measures.
    list_metric_descriptors, "ListMetricDescriptors", ListMetricDescriptorsRequest => ListMetricDescriptorsResponse;
    /// The metrics of all sandboxes.
    list_pod_sandbox_metrics, "ListPodSandboxMetrics", ListPodSandboxMetricsRequest => ListPodSandboxMetricsResponse;
    /// How the runtime is set up: its cgroup driver. Runtimes before containerd 2.0 don't know it.
    runtime_config, "RuntimeConfig", RuntimeConfigRequest => RuntimeConfigResponse;
});

calls!(image {
    /// The images there are.
    list_images, "ListImages", ListImagesRequest => ListImagesResponse;
    /// One image; none in the answer when it is not there.
    image_status, "ImageStatus", ImageStatusRequest => ImageStatusResponse;
    /// Removes an image under all its names. Safe to repeat.
    remove_image, "RemoveImage", RemoveImageRequest => RemoveImageResponse;
    /// What the file systems of images hold.
    image_fs_info, "ImageFsInfo", ImageFsInfoRequest => ImageFsInfoResponse;
});

/// A number of seconds from a request; what is negative is none.
fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl Cri {
    /// The way to the runtime at `socket`, which need not be there yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let shared = Shared { socket: socket.into(), channel: OnceLock::new() };
        Self { shared: Arc::new(shared), limit: CALL_LIMIT, meter: None }
    }

    /// The way over a channel that somebody else has opened, such as one to a runtime in this process. It has no socket.
    pub fn over(channel: Channel) -> Self {
        let shared = Shared { socket: PathBuf::new(), channel: OnceLock::from(channel) };
        Self { shared: Arc::new(shared), limit: CALL_LIMIT, meter: None }
    }

    /// The same way, on which calls may take so long.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same way, whose calls and those of its clones are counted; see [`Cri::write_metrics`].
    #[must_use]
    pub fn counted(self, clock: Clock) -> Self {
        Self { meter: Some(Arc::new(Meter { clock, numbers: Numbers::default() })), ..self }
    }

    /// Where the runtime is.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// Writes how often what was called since this way was counted, in Prometheus' text format.
    pub fn write_metrics(&self, text: &mut String) {
        if let Some(meter) = &self.meter {
            meter.numbers.write(text);
        }
    }

    fn channel(&self) -> Channel {
        self.shared.channel.get_or_init(|| channel(&self.shared.socket)).clone()
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        let client = RuntimeServiceClient::new(self.channel());
        client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn image(&self) -> ImageServiceClient<Channel> {
        let client = ImageServiceClient::new(self.channel());
        client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Makes and starts a sandbox, its network included, which may pull the sandbox's image: twice the limit.
    ///
    /// # Errors
    /// See [`CriError`]. After an absent or late answer there may be a sandbox, under the name that was asked for.
    pub async fn run_pod_sandbox(
        &self,
        request: v1::RunPodSandboxRequest,
    ) -> Result<v1::RunPodSandboxResponse, CriError> {
        self.unary("RunPodSandbox", Some(self.limit * 2), self.runtime().run_pod_sandbox(request)).await
    }

    /// Stops a container within the seconds that the request grants; the limit comes on top of them. Safe to repeat.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn stop_container(
        &self,
        request: v1::StopContainerRequest,
    ) -> Result<v1::StopContainerResponse, CriError> {
        let limit = self.limit.saturating_add(seconds(request.timeout));
        self.unary("StopContainer", Some(limit), self.runtime().stop_container(request)).await
    }

    /// Runs a command and returns what it wrote. Without a timeout in the request it may take for ever; otherwise the
    /// limit comes on top of that timeout.
    ///
    /// # Errors
    /// See [`CriError`]; that of the runtime when the timeout was over.
    pub async fn exec_sync(&self, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, CriError> {
        let limit = (request.timeout > 0).then(|| self.limit.saturating_add(seconds(request.timeout)));
        self.unary("ExecSync", limit, self.runtime().exec_sync(request)).await
    }

    /// Pulls an image, however long that takes; the runtime itself gives up when nothing moves. Drop the future to give
    /// up earlier.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn pull_image(&self, request: v1::PullImageRequest) -> Result<v1::PullImageResponse, CriError> {
        self.unary("PullImage", None, self.image().pull_image(request)).await
    }
}
