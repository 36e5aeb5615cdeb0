//! Which parts of k3sd this build has.
//!
//! Each flag names the part that gives it a meaning. A flag of a part that does not exist yet is understood and then
//! refused, so that nobody believes a setting took effect when it did not. Building a part means: move its line in
//! [`Feature::exists`].

/// A part of the program that flags can belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// Finding, reading and printing the configuration.
    Config,
    /// Log level, format and destination.
    Logging,
    /// Log levels per source file.
    LogPerModule,
    /// The directory that holds all state.
    DataDir,
    /// The inspection socket, and stopping actors through it.
    Inspection,
    /// Probe actors for chaos tests.
    Probes,
    /// The API server and the supervisor's listener.
    ApiServer,
    /// Certificates and their names.
    Pki,
    /// Looking at certificates and rotating them from the command line.
    CertificateCommands,
    /// The administrator's kubeconfig.
    Kubeconfig,
    /// Secrets with which nodes join.
    Tokens,
    /// Joining an existing cluster.
    Join,
    /// Addresses of pods and services.
    ClusterNetwork,
    /// The cluster's DNS server.
    Dns,
    /// The overlay network.
    Flannel,
    /// VPN integration of the overlay network.
    Vpn,
    /// Network policies.
    NetworkPolicy,
    /// The service proxy.
    Proxy,
    /// Connections from the API server to nodes and pods.
    Tunnel,
    /// Load balancers for services.
    ServiceLb,
    /// Node addresses and other work of a cloud provider.
    CloudController,
    /// Scheduling of pods.
    Scheduler,
    /// The built-in controllers.
    ControllerManager,
    /// Charts installed through the API.
    Helm,
    /// Manifests applied at start, and the packaged components among them.
    Manifests,
    /// Volumes on the node's own disk.
    LocalStorage,
    /// The object store behind the API.
    Datastore,
    /// The embedded etcd.
    Etcd,
    /// Snapshots of the embedded etcd.
    EtcdSnapshots,
    /// Secrets encrypted at rest.
    SecretsEncryption,
    /// Metrics of the supervisor.
    Metrics,
    /// Profiling endpoints.
    Profiling,
    /// The embedded registry mirror.
    RegistryMirror,
    /// The node's agent: registration, pods, kubelet settings.
    Kubelet,
    /// The container runtime and its images.
    Containerd,
    /// Docker through cri-dockerd.
    Docker,
    /// The agent's own load balancer towards servers.
    AgentLoadBalancer,
    /// Running without root.
    Rootless,
    /// SELinux labels on containers.
    Selinux,
    /// Programs shipped with the binary.
    BundledPrograms,
}

impl Feature {
    /// Whether this build has the part. Flags of an absent part are refused at start.
    #[must_use]
    pub const fn exists(self) -> bool {
        matches!(
            self,
            Self::Config
                | Self::Logging
                | Self::DataDir
                | Self::Inspection
                | Self::Probes
                | Self::Datastore
                | Self::Pki
                | Self::Kubeconfig
                | Self::Tokens
                | Self::ApiServer
                | Self::ControllerManager
                | Self::CloudController
                | Self::ClusterNetwork
                | Self::Scheduler
                | Self::Kubelet
                | Self::Containerd
                | Self::Selinux
                | Self::Dns
                | Self::Proxy
                | Self::ServiceLb
                | Self::Helm
                | Self::Manifests
                | Self::LocalStorage
        )
    }

    /// Who would carry the setting out; completes "... is not part of this build".
    #[must_use]
    pub const fn provider(self) -> &'static str {
        match self {
            Self::Config => "the configuration loader",
            Self::Logging => "logging",
            Self::LogPerModule => "logging per source file",
            Self::DataDir => "the data directory",
            Self::Inspection => "the inspection socket",
            Self::Probes => "the probe tree",
            Self::ApiServer => "the API server",
            Self::Pki => "the certificate actor",
            Self::CertificateCommands => "the set of certificate commands",
            Self::Kubeconfig => "the kubeconfig writer",
            Self::Tokens => "the token keeper",
            Self::Join => "joining a cluster",
            Self::ClusterNetwork => "the cluster network",
            Self::Dns => "the DNS actor",
            Self::Flannel => "the flannel actor",
            Self::Vpn => "the VPN integration",
            Self::NetworkPolicy => "the network policy actor",
            Self::Proxy => "the service proxy",
            Self::Tunnel => "the tunnel to the nodes",
            Self::ServiceLb => "the service load balancer",
            Self::CloudController => "the cloud controller",
            Self::Scheduler => "the scheduler",
            Self::ControllerManager => "the controller manager",
            Self::Helm => "the helm controller",
            Self::Manifests => "the manifest deployer",
            Self::LocalStorage => "the local storage provisioner",
            Self::Datastore => "the datastore",
            Self::Etcd => "the embedded etcd",
            Self::EtcdSnapshots => "the etcd snapshot actor",
            Self::SecretsEncryption => "secrets encryption",
            Self::Metrics => "the metrics endpoint",
            Self::Profiling => "the profiling endpoint",
            Self::RegistryMirror => "the embedded registry mirror",
            Self::Kubelet => "the node agent",
            Self::Containerd => "the containerd actor",
            Self::Docker => "the cri-dockerd integration",
            Self::AgentLoadBalancer => "the agent's load balancer",
            Self::Rootless => "rootless operation",
            Self::Selinux => "SELinux support",
            Self::BundledPrograms => "the bundled program set",
        }
    }
}
