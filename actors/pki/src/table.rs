//! What there is, as data: authorities, leaves, keys and kubeconfigs of a server, with the names, subjects and uses that
//! K3s gives them. Paths are below `tls/` or `cred/` of the server's directory and without their endings.

use std::fmt;

use crate::x509::Usage;

/// A certificate authority of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authority {
    /// Signs clients of the API server.
    Client,
    /// Signs the API server and whatever else is reached over TLS. Its hash is in the tokens.
    Server,
    /// Signs the front proxy, whose requests may name a user.
    RequestHeader,
    /// Signs servers and clients of etcd.
    EtcdServer,
    /// Signs etcd's peers.
    EtcdPeer,
}

/// A row of the table of authorities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuthorityRow {
    /// Which one.
    pub name: Authority,
    /// Its files, without `.crt` and `.key`.
    pub stem: &'static str,
    /// Its `CN`, without `-ca@` and the time it was made.
    pub prefix: &'static str,
    /// Whether there is a file with only the first certificate of its bundle.
    pub without_chain: bool,
}

/// All authorities, in the order in which they are made.
pub(crate) const AUTHORITIES: &[AuthorityRow] = &[
    AuthorityRow { name: Authority::Client, stem: "client-ca", prefix: "k3s-client", without_chain: true },
    AuthorityRow { name: Authority::Server, stem: "server-ca", prefix: "k3s-server", without_chain: true },
    AuthorityRow {
        name: Authority::RequestHeader,
        stem: "request-header-ca",
        prefix: "k3s-request-header",
        without_chain: false,
    },
    AuthorityRow { name: Authority::EtcdServer, stem: "etcd/server-ca", prefix: "etcd-server", without_chain: false },
    AuthorityRow { name: Authority::EtcdPeer, stem: "etcd/peer-ca", prefix: "etcd-peer", without_chain: false },
];

impl Authority {
    /// Its row. The order of the variants is that of the table.
    pub(crate) fn row(self) -> &'static AuthorityRow {
        &AUTHORITIES[self as usize]
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().stem)
    }
}

/// A certificate that an authority signs for a part of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leaf {
    /// The administrator, as in the kubeconfig that is written for people.
    Admin,
    /// The supervisor of the server.
    Supervisor,
    /// The controller manager as a client.
    ControllerManager,
    /// The scheduler as a client.
    Scheduler,
    /// The API server as a client of kubelets, and of itself.
    ApiServer,
    /// The cloud controller manager.
    CloudController,
    /// The front proxy.
    AuthProxy,
    /// The API server, to its clients.
    ServingApiServer,
    /// The scheduler's own port.
    ServingScheduler,
    /// The controller manager's own port.
    ServingControllerManager,
    /// A client of etcd.
    EtcdClient,
    /// etcd, or what stands for it, to its clients.
    EtcdServer,
    /// etcd, to its peers.
    EtcdPeer,
    /// The node as a client of the API server.
    Kubelet,
    /// The node's own port.
    ServingKubelet,
    /// The service proxy of the node, as a client.
    KubeProxy,
    /// K3s' own loops on the node, as a client.
    NodeController,
}

/// By what names a leaf is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sans {
    /// It is a client.
    None,
    /// Only from this machine.
    Local,
    /// By all names of the server.
    Server,
    /// The same, and through kine's socket.
    ServerAndKine,
    /// By all names of the node.
    Node,
}

/// A row of the table of leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafRow {
    /// Which one.
    pub name: Leaf,
    /// Its files, without `.crt` and `.key`; below `tls/`, or in the agent's directory for a [node's](Leaf::is_of_node).
    pub stem: &'static str,
    /// `CN`, or what stands before the node's name there.
    pub common_name: &'static str,
    /// `O`.
    pub organizations: &'static [&'static str],
    /// What for.
    pub usage: Usage,
    /// By whom.
    pub signer: Authority,
    /// Names.
    pub sans: Sans,
}

const fn client(
    name: Leaf,
    stem: &'static str,
    common_name: &'static str,
    organizations: &'static [&'static str],
) -> LeafRow {
    LeafRow {
        name,
        stem,
        common_name,
        organizations,
        usage: Usage::Client,
        signer: Authority::Client,
        sans: Sans::None,
    }
}

const fn server(name: Leaf, stem: &'static str, common_name: &'static str, sans: Sans) -> LeafRow {
    LeafRow { name, stem, common_name, organizations: &[], usage: Usage::Server, signer: Authority::Server, sans }
}

const fn etcd(name: Leaf, stem: &'static str, common_name: &'static str, signer: Authority) -> LeafRow {
    LeafRow { name, stem, common_name, organizations: &[], usage: Usage::Both, signer, sans: Sans::ServerAndKine }
}

/// May do anything.
const MASTERS: &[&str] = &["system:masters"];

/// All leaves, in the order in which they are made.
pub(crate) const LEAVES: &[LeafRow] = &[
    client(Leaf::Admin, "client-admin", "system:admin", MASTERS),
    client(Leaf::Supervisor, "client-supervisor", "system:k3s-supervisor", MASTERS),
    client(Leaf::ControllerManager, "client-controller", "system:kube-controller-manager", &[]),
    client(Leaf::Scheduler, "client-scheduler", "system:kube-scheduler", &[]),
    client(Leaf::ApiServer, "client-kube-apiserver", "system:apiserver", MASTERS),
    client(Leaf::CloudController, "client-k3s-cloud-controller", "k3s-cloud-controller-manager", &[]),
    LeafRow {
        signer: Authority::RequestHeader,
        ..client(Leaf::AuthProxy, "client-auth-proxy", "system:auth-proxy", &[])
    },
    server(Leaf::ServingApiServer, "serving-kube-apiserver", "kube-apiserver", Sans::Server),
    server(Leaf::ServingScheduler, "kube-scheduler/kube-scheduler", "kube-scheduler", Sans::Local),
    server(
        Leaf::ServingControllerManager,
        "kube-controller-manager/kube-controller-manager",
        "kube-controller-manager",
        Sans::Local,
    ),
    LeafRow { signer: Authority::EtcdServer, ..client(Leaf::EtcdClient, "etcd/client", "etcd-client", &[]) },
    etcd(Leaf::EtcdServer, "etcd/server-client", "etcd-server", Authority::EtcdServer),
    etcd(Leaf::EtcdPeer, "etcd/peer-server-client", "etcd-peer", Authority::EtcdPeer),
    client(Leaf::Kubelet, "client-kubelet", "system:node:", &["system:nodes"]),
    server(Leaf::ServingKubelet, "serving-kubelet", "", Sans::Node),
    client(Leaf::KubeProxy, "client-kube-proxy", "system:kube-proxy", &[]),
    client(Leaf::NodeController, "client-k3s-controller", "system:k3s-controller", &[]),
];

impl Leaf {
    /// Its row. The order of the variants is that of the table.
    pub(crate) fn row(self) -> &'static LeafRow {
        &LEAVES[self as usize]
    }

    /// Whether it is only there where etcd is.
    pub(crate) fn needs_etcd(self) -> bool {
        matches!(self, Self::EtcdServer | Self::EtcdPeer)
    }

    /// Whether it belongs to the node of this machine.
    pub(crate) fn is_of_node(self) -> bool {
        matches!(self, Self::Kubelet | Self::ServingKubelet | Self::KubeProxy | Self::NodeController)
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().stem)
    }
}

/// A key that is handed to agents too old to send a signing request, with the authority whose end is also its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedKey {
    /// Its file, without `.key`.
    pub stem: &'static str,
    /// Under whom it is used.
    pub signer: Authority,
    /// Whether a certificate of an older release beside it is taken away.
    pub drops_certificate: bool,
}

/// All shared keys.
pub(crate) const SHARED_KEYS: &[SharedKey] = &[
    SharedKey { stem: "client-kube-proxy", signer: Authority::Client, drops_certificate: true },
    SharedKey { stem: "client-k3s-controller", signer: Authority::Client, drops_certificate: true },
    SharedKey { stem: "client-kubelet", signer: Authority::Client, drops_certificate: false },
    SharedKey { stem: "serving-kubelet", signer: Authority::Server, drops_certificate: false },
];

/// The kubeconfigs in `cred/` and who they are for.
pub(crate) const KUBECONFIGS: &[(&str, Leaf)] = &[
    ("admin.kubeconfig", Leaf::Admin),
    ("supervisor.kubeconfig", Leaf::Supervisor),
    ("controller.kubeconfig", Leaf::ControllerManager),
    ("scheduler.kubeconfig", Leaf::Scheduler),
    ("api-server.kubeconfig", Leaf::ApiServer),
    ("cloud-controller.kubeconfig", Leaf::CloudController),
];

/// The kubeconfigs in the agent's directory and who they are for.
pub(crate) const NODE_KUBECONFIGS: &[(&str, Leaf)] = &[
    ("kubelet.kubeconfig", Leaf::Kubelet),
    ("kubeproxy.kubeconfig", Leaf::KubeProxy),
    ("k3scontroller.kubeconfig", Leaf::NodeController),
];

/// Directories of the server, all 0700. Parents come first.
pub(crate) const DIRECTORIES: &[&str] =
    &["", "tls", "tls/etcd", "tls/kube-scheduler", "tls/kube-controller-manager", "tls/temporary-certs", "cred"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_where_their_names_point() {
        for row in AUTHORITIES {
            assert_eq!(row.name.row().stem, row.stem);
        }
        for row in LEAVES {
            assert_eq!(row.name.row().stem, row.stem);
        }
    }

    #[test]
    fn no_two_rows_share_a_file() {
        let mut stems: Vec<&str> = AUTHORITIES.iter().map(|row| row.stem).collect();
        stems.extend(LEAVES.iter().filter(|row| !row.name.is_of_node()).map(|row| row.stem));
        stems.extend(SHARED_KEYS.iter().map(|row| row.stem));
        let all = stems.len();
        stems.sort_unstable();
        stems.dedup();
        assert_eq!(stems.len(), all);
    }

    #[test]
    fn each_file_lies_in_a_directory_that_is_made() {
        for stem in AUTHORITIES.iter().map(|row| row.stem).chain(LEAVES.iter().map(|row| row.stem)) {
            let folder = stem.rsplit_once('/').map_or("tls".to_owned(), |(folder, _)| format!("tls/{folder}"));
            assert!(DIRECTORIES.contains(&folder.as_str()), "{stem}");
        }
    }
}
