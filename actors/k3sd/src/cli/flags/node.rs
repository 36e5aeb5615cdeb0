//! Flags of the node: those that `server` and `agent` share, and those of `agent` alone.

use crate::cli::feature::Feature;
use crate::cli::flag::{Flag, Group, Heading};

const NODE: Group = Group(Heading::Node, Feature::Kubelet);
const RUNTIME: Group = Group(Heading::Runtime, Feature::Containerd);
const NETWORK: Group = Group(Heading::Networking, Feature::Kubelet);
const FLANNEL: Group = Group(Heading::Networking, Feature::Flannel);
const VPN: Group = Group(Heading::Networking, Feature::Vpn);
const ARGUMENTS: Group = Group(Heading::ComponentArguments, Feature::Kubelet);
const JOIN: Group = Group(Heading::Cluster, Feature::Join);

pub(super) static FLAGS: &[Flag] = &[
    // Node
    NODE.text("node-name", "Name of this node").env(&["K3S_NODE_NAME"]).derived("the host name in lower case"),
    NODE.switch("with-node-id", "Append a stable id to the node's name"),
    NODE.list("node-label", "Label the node registers with, as name=value"),
    NODE.list("node-taint", "Taint the node registers with, as name=value:effect"),
    NODE.text("image-credential-provider-bin-dir", "Directory of the programs that supply registry credentials")
        .default("/var/lib/rancher/credentialprovider/bin"),
    NODE.text("image-credential-provider-config", "File that configures those programs")
        .default("/var/lib/rancher/credentialprovider/config.yaml"),
    NODE.switch("protect-kernel-defaults", "Fail, rather than change them, when kernel parameters are not as needed"),
    Group(Heading::Node, Feature::AgentLoadBalancer)
        .int("lb-server-port", "Local port of the load balancer towards the servers; the API server's is one below")
        .env(&["K3S_LB_SERVER_PORT"])
        .default("6444"),
    // Runtime
    Group(Heading::Runtime, Feature::Docker).switch("docker", "Run containers with Docker through cri-dockerd"),
    RUNTIME
        .text("container-runtime-endpoint", "Socket of a container runtime of your own, instead of the built-in one"),
    RUNTIME.text("image-service-endpoint", "Socket of a separate image service"),
    RUNTIME.text("default-runtime", "Name of the containerd runtime that pods get unless they ask"),
    RUNTIME
        .switch("disable-default-registry-endpoint", "Never fall back to the upstream registry of a mirrored one")
        .turns_off(),
    RUNTIME.switch("nonroot-devices", "Give devices to pods whose user is not root"),
    RUNTIME.text("pause-image", "Image of the pod sandbox").default("rancher/mirrored-pause:3.10.2"),
    RUNTIME.text("snapshotter", "How containerd stores layers").default("overlayfs"),
    RUNTIME
        .text("private-registry", "File that configures registries and mirrors")
        .default("/etc/rancher/k3s/registries.yaml"),
    RUNTIME.list("airgap-extra-registry", "Further registry name that preloaded images are known under").hidden(),
    Group(Heading::Runtime, Feature::BundledPrograms)
        .switch("prefer-bundled-bin", "Use the programs shipped with this binary before those of the system"),
    // Networking
    NETWORK
        .list("node-ip", "The node's addresses, at most one per IP family; repeat or separate by commas")
        .short('i')
        .derived("found on the interfaces"),
    NETWORK.list("node-external-ip", "The node's addresses as seen from outside"),
    NETWORK.list("node-internal-dns", "The node's names inside"),
    NETWORK.list("node-external-dns", "The node's names outside"),
    NETWORK
        .text("resolv-conf", "resolv.conf that pods inherit")
        .env(&["K3S_RESOLV_CONF"])
        .derived("the system's, unless it points at loopback"),
    FLANNEL.text("flannel-iface", "Interface that carries traffic between nodes").derived("that of the default route"),
    FLANNEL.text("flannel-conf", "Use this flannel configuration file"),
    FLANNEL.text("flannel-cni-conf", "Use this CNI configuration file"),
    VPN.text("vpn-auth", "VPN provider and key, as name=PROVIDER,joinKey=KEY and more").env(&["K3S_VPN_AUTH"]).secret(),
    VPN.text("vpn-auth-file", "File that holds the same").env(&["K3S_VPN_AUTH_FILE"]),
    // Component arguments
    ARGUMENTS.list("kubelet-arg", "Argument for the kubelet, as name=value"),
    Group(Heading::ComponentArguments, Feature::Proxy)
        .list("kube-proxy-arg", "Argument for the service proxy, as name=value"),
    // Security
    Group(Heading::Security, Feature::Selinux).switch("selinux", "Label containers for SELinux").env(&["K3S_SELINUX"]),
    // Experimental
    Group(Heading::Experimental, Feature::Profiling).switch("enable-pprof", "Serve profiles on the supervisor's port"),
    Group(Heading::Experimental, Feature::Rootless).switch("rootless", "Run without root"),
];

pub(super) static AGENT_FLAGS: &[Flag] = &[
    JOIN.text("token", "Secret with which this node joins").short('t').env(&["K3S_TOKEN"]).secret(),
    JOIN.text("token-file", "File that holds that secret").env(&["K3S_TOKEN_FILE"]),
    JOIN.text("server", "URL of a server whose cluster to join").short('s').env(&["K3S_URL"]),
    Group(Heading::Cluster, Feature::AgentLoadBalancer)
        .switch("disable-apiserver-lb", "Talk to the server's URL directly, without the local load balancer")
        .turns_off(),
    Group(Heading::Data, Feature::DataDir)
        .text("data-dir", "Directory that holds all state")
        .short('d')
        .env(&["K3S_DATA_DIR"])
        .default("/var/lib/rancher/k3s"),
    Group(Heading::Listener, Feature::Kubelet)
        .text("bind-address", "IP address to listen on")
        .derived("all addresses")
        .usual(&["0.0.0.0"]),
];
