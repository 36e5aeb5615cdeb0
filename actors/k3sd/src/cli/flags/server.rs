//! Flags of `server` alone, but for those of etcd.

use crate::cli::feature::Feature;
use crate::cli::flag::{Flag, Group, Heading};

const LISTENER: Group = Group(Heading::Listener, Feature::ApiServer);
const NAMES: Group = Group(Heading::Listener, Feature::Pki);
const DATA: Group = Group(Heading::Data, Feature::DataDir);
const NETWORK: Group = Group(Heading::Networking, Feature::ClusterNetwork);
const SERVICES: Group = Group(Heading::Networking, Feature::ApiServer);
const FLANNEL: Group = Group(Heading::Networking, Feature::Flannel);
const KUBECONFIG: Group = Group(Heading::Client, Feature::Kubeconfig);
const TOKENS: Group = Group(Heading::Cluster, Feature::Tokens);
const JOIN: Group = Group(Heading::Cluster, Feature::Join);
const ETCD_CLUSTER: Group = Group(Heading::Cluster, Feature::Etcd);
const DATASTORE: Group = Group(Heading::Database, Feature::Datastore);
const PACKAGED: Group = Group(Heading::PackagedComponents, Feature::Manifests);
const ENCRYPTION: Group = Group(Heading::Security, Feature::SecretsEncryption);

/// A flag that hands arguments to a component.
const fn arguments(feature: Feature, name: &'static str, meaning: &'static str) -> Flag {
    Group(Heading::ComponentArguments, feature).list(name, meaning)
}

/// A flag that leaves a component out.
const fn disable(feature: Feature, name: &'static str, meaning: &'static str) -> Flag {
    Group(Heading::Components, feature).switch(name, meaning).turns_off()
}

pub(super) static FLAGS: &[Flag] = &[
    // Listener
    LISTENER.text("bind-address", "IP address to listen on").derived("all addresses").usual(&["0.0.0.0"]),
    LISTENER.int("https-listen-port", "Port for the API server and the supervisor").default("6443"),
    Group(Heading::Listener, Feature::Join)
        .int("supervisor-port", "Separate port for the supervisor")
        .env(&["K3S_SUPERVISOR_PORT"])
        .derived("same as --https-listen-port")
        .usual(&["6443"])
        .hidden(),
    LISTENER
        .int("apiserver-port", "Port of the API server behind the supervisor's listener")
        .env(&["K3S_APISERVER_PORT"])
        .derived("one above --https-listen-port")
        .usual(&["6444"])
        .hidden(),
    LISTENER
        .text("apiserver-bind-address", "IP address of the API server behind the supervisor's listener")
        .env(&["K3S_APISERVER_BIND_ADDRESS"])
        .derived("loopback")
        .usual(&["127.0.0.1"])
        .hidden(),
    NAMES
        .text("advertise-address", "IP address under which the cluster reaches this API server")
        .derived("the node's external address, else its own"),
    LISTENER
        .int("advertise-port", "Port under which the cluster reaches this API server")
        .derived("same as --https-listen-port")
        .usual(&["6443"]),
    NAMES.list("tls-san", "Further names or addresses for the serving certificate; repeat or separate by commas"),
    NAMES.switch("tls-san-security", "Keep names nobody configured out of the serving certificate").default("true"),
    // Data
    DATA.text("data-dir", "Directory that holds all state")
        .short('d')
        .env(&["K3S_DATA_DIR"])
        .derived("/var/lib/rancher/k3s, or ~/.rancher/k3s when not root"),
    // Networking
    NETWORK
        .list("cluster-cidr", "Networks for pod addresses, at most one per IP family")
        .derived("10.42.0.0/16, or fd00:42::/56 on an IPv6 node")
        .usual(&["10.42.0.0/16"])
        .must_match(),
    SERVICES
        .list("service-cidr", "Networks for service addresses, at most one per IP family")
        .derived("10.43.0.0/16, or fd00:43::/112 on an IPv6 node")
        .usual(&["10.43.0.0/16"])
        .must_match(),
    SERVICES.text("service-node-port-range", "Ports handed to services of type NodePort").default("30000-32767"),
    Group(Heading::Networking, Feature::Dns)
        .list("cluster-dns", "Addresses of the cluster's DNS service, inside the service networks")
        .derived("the tenth address of each service network")
        .usual(&["10.43.0.10"])
        .must_match(),
    Group(Heading::Networking, Feature::Dns)
        .text("cluster-domain", "DNS domain of the cluster")
        .default("cluster.local")
        .must_match(),
    Group(Heading::Networking, Feature::Dns)
        .text("dns", "Who answers names of the cluster: embedded, on each node itself, or coredns, in pods")
        .default("embedded"),
    FLANNEL
        .text("flannel-backend", "How packets travel between nodes: vxlan, host-gw, wireguard-native, or none")
        .default("vxlan")
        .turns_off_with("none")
        .must_match(),
    FLANNEL.switch("flannel-ipv6-masq", "Masquerade IPv6 traffic that leaves the pod network").must_match(),
    FLANNEL.switch("flannel-external-ip", "Use the nodes' external addresses between nodes").must_match(),
    Group(Heading::Networking, Feature::Tunnel)
        .text("egress-selector-mode", "What is reached through the tunnel: agent, cluster, pod, or disabled")
        .default("agent")
        .turns_off_with("disabled")
        .must_match(),
    Group(Heading::Networking, Feature::ServiceLb)
        .text("servicelb-namespace", "Namespace of the service load balancer's pods")
        .default("kube-system"),
    // Client
    KUBECONFIG
        .text("write-kubeconfig", "Write the administrator's kubeconfig to this file")
        .short('o')
        .env(&["K3S_KUBECONFIG_OUTPUT"])
        .derived("/etc/rancher/k3s/k3s.yaml, or ~/.kube/k3s.yaml when not root")
        .usual(&["/etc/rancher/k3s/k3s.yaml"]),
    KUBECONFIG.mode("write-kubeconfig-mode", "Octal mode of that file").env(&["K3S_KUBECONFIG_MODE"]).default("0600"),
    KUBECONFIG.text("write-kubeconfig-group", "Group that owns that file").env(&["K3S_KUBECONFIG_GROUP"]),
    KUBECONFIG
        .text("write-kubeconfig-name", "Name of cluster, user and context in that file")
        .env(&["K3S_KUBECONFIG_NAME"])
        .default("default"),
    // Cluster
    TOKENS
        .text("token", "Secret with which servers and agents join")
        .short('t')
        .env(&["K3S_TOKEN"])
        .derived("made up at the first start")
        .secret(),
    TOKENS.text("token-file", "File that holds that secret").env(&["K3S_TOKEN_FILE"]),
    TOKENS
        .text("agent-token", "Secret with which agents, but no servers, join")
        .env(&["K3S_AGENT_TOKEN"])
        .derived("same as --token")
        .secret(),
    TOKENS.text("agent-token-file", "File that holds that secret").env(&["K3S_AGENT_TOKEN_FILE"]),
    JOIN.text("server", "URL of a server whose cluster to join").short('s').env(&["K3S_URL"]),
    ETCD_CLUSTER.switch("cluster-init", "Start a new cluster on the embedded etcd").env(&["K3S_CLUSTER_INIT"]),
    ETCD_CLUSTER
        .switch("cluster-reset", "Forget all other members, become the only one, and exit")
        .env(&["K3S_CLUSTER_RESET"]),
    ETCD_CLUSTER.text("cluster-reset-restore-path", "With --cluster-reset, start from this snapshot"),
    // Component arguments
    arguments(Feature::ApiServer, "kube-apiserver-arg", "Argument for the API server, as name=value"),
    arguments(Feature::Etcd, "etcd-arg", "Argument for etcd, as name=value"),
    arguments(
        Feature::ControllerManager,
        "kube-controller-manager-arg",
        "Argument for the controller manager, as name=value",
    )
    .aliases(&["kube-controller-arg"]),
    arguments(Feature::Scheduler, "kube-scheduler-arg", "Argument for the scheduler, as name=value"),
    arguments(Feature::Helm, "helm-controller-arg", "Argument for the helm controller, as name=value"),
    arguments(
        Feature::CloudController,
        "kube-cloud-controller-manager-arg",
        "Argument for the cloud controller manager, as name=value",
    )
    .aliases(&["kube-cloud-controller-arg"]),
    // Database
    // The certificate is one of those that the server makes for etcd.
    Group(Heading::Database, Feature::Pki).switch("kine-tls", "Serve the datastore's local socket over TLS").hidden(),
    DATASTORE
        .text("datastore-endpoint", "Data source name of an external etcd, MySQL, PostgreSQL or SQLite datastore")
        .env(&["K3S_DATASTORE_ENDPOINT"])
        .derived("a SQLite file in the data directory")
        .credentials(),
    DATASTORE
        .text("datastore-cafile", "Certificate authority that the datastore's certificate is checked against")
        .env(&["K3S_DATASTORE_CAFILE"]),
    DATASTORE.text("datastore-certfile", "Certificate shown to the datastore").env(&["K3S_DATASTORE_CERTFILE"]),
    DATASTORE.text("datastore-keyfile", "Private key of that certificate").env(&["K3S_DATASTORE_KEYFILE"]),
    // Packaged components
    PACKAGED
        .list("disable", "Leave out and remove: coredns, servicelb, traefik, local-storage, metrics-server, runtimes")
        .turns_off(),
    Group(Heading::PackagedComponents, Feature::LocalStorage)
        .text("default-local-storage-path", "Where local volumes are made")
        .derived("storage in the data directory"),
    PACKAGED
        .text("system-default-registry", "Registry that system images are taken from")
        .env(&["K3S_SYSTEM_DEFAULT_REGISTRY"]),
    Group(Heading::PackagedComponents, Feature::Helm)
        .text("helm-job-image", "Image of the jobs that install charts")
        .deprecated("--helm-controller-arg=default-job-image=IMAGE")
        .hidden(),
    // Components
    disable(Feature::Scheduler, "disable-scheduler", "Run without the scheduler"),
    disable(Feature::CloudController, "disable-cloud-controller", "Run without the cloud controller manager")
        .must_match(),
    disable(Feature::Proxy, "disable-kube-proxy", "Run without the service proxy"),
    disable(Feature::NetworkPolicy, "disable-network-policy", "Run without network policies").must_match(),
    disable(Feature::Helm, "disable-helm-controller", "Run without the helm controller").must_match(),
    disable(Feature::ApiServer, "disable-apiserver", "Run without an API server, on a server for etcd alone").hidden(),
    disable(Feature::ControllerManager, "disable-controller-manager", "Run without the controller manager").hidden(),
    disable(Feature::Etcd, "disable-etcd", "Run without etcd, on a server for the control plane alone").hidden(),
    disable(Feature::Kubelet, "disable-agent", "Run the control plane only, no node").hidden(),
    Group(Heading::Components, Feature::RegistryMirror)
        .switch("embedded-registry", "Share images between nodes through a registry mirror")
        .must_match(),
    Group(Heading::Components, Feature::Metrics)
        .switch("supervisor-metrics", "Serve metrics on the supervisor's port")
        .must_match(),
    // Security
    ENCRYPTION.switch("secrets-encryption", "Encrypt secrets in the datastore").must_match(),
    ENCRYPTION
        .text("secrets-encryption-provider", "With which cipher: aescbc or secretbox")
        .default("aescbc")
        .must_match(),
];
