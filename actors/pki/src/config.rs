//! What the subtree is told, by whoever read flags and environment.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::table::{Leaf, LeafRow, Sans};
use crate::x509::San;

/// By what names the server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames {
    /// `--cluster-domain`; empty stands for `cluster.local`.
    pub cluster_domain: String,
    /// Each `--tls-san`.
    pub tls_sans: Vec<String>,
    /// The name of this node; its first label is added by itself.
    pub node_name: String,
    /// Addresses of this node, the external ones too.
    pub node_addresses: Vec<IpAddr>,
    /// The first address of each service range.
    pub service_addresses: Vec<IpAddr>,
    /// `--advertise-address`.
    pub advertise_address: Option<IpAddr>,
}

/// The default of `--cluster-domain`.
const CLUSTER_DOMAIN: &str = "cluster.local";

impl ServerNames {
    /// All of them, each once.
    pub fn sans(&self) -> Vec<San> {
        let domain = if self.cluster_domain.is_empty() { CLUSTER_DOMAIN } else { &self.cluster_domain };
        let mut all: Vec<San> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(San::new).into();
        all.push(San::Dns(format!("kubernetes.default.svc.{domain}")));
        all.extend(self.tls_sans.iter().filter(|san| !san.is_empty()).map(|san| San::new(san)));
        all.extend(local());
        if !self.node_name.is_empty() {
            all.push(San::new(&self.node_name));
            all.extend(self.node_name.split_once('.').map(|(first, _)| San::new(first)));
        }
        let addresses = self.node_addresses.iter().chain(&self.service_addresses).chain(&self.advertise_address);
        all.extend(addresses.copied().map(San::Ip));
        let mut seen = std::collections::HashSet::new();
        all.retain(|san| seen.insert(san.clone()));
        all
    }
}

fn local() -> [San; 3] {
    ["127.0.0.1", "::1", "localhost"].map(San::new)
}

/// The kubeconfig that is written for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminKubeconfig {
    /// Where it is, unless `output` says otherwise: `/etc/rancher/k3s/k3s.yaml`, or in the home directory.
    pub default_path: PathBuf,
    /// `--write-kubeconfig`. The default path then becomes a link to it.
    pub output: Option<PathBuf>,
    /// `--write-kubeconfig-mode`.
    pub mode: u32,
    /// `--write-kubeconfig-group`: a name or a number.
    pub group: Option<String>,
    /// `--write-kubeconfig-name`: of cluster, user and context.
    pub name: String,
    /// `https://` with the address and port that people reach.
    pub url: String,
}

/// The node on this machine, whose certificates the server signs itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNames {
    /// `<data-dir>/agent`.
    pub agent_dir: PathBuf,
    /// Its name.
    pub name: String,
    /// Its addresses, the external ones too.
    pub addresses: Vec<IpAddr>,
}

/// Secrets that joining nodes know.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TokenConfig {
    /// `--token`, in any form; without one, that of the directory is used, or made.
    pub server: Option<String>,
    /// `--agent-token`, in any form; without one, agents join with the server's.
    pub agent: Option<String>,
}

impl std::fmt::Debug for TokenConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = |token: &Option<String>| token.as_ref().map(|_| "(secret)");
        f.debug_struct("TokenConfig").field("server", &told(&self.server)).field("agent", &told(&self.agent)).finish()
    }
}

/// Everything the subtree needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PkiConfig {
    /// `<data-dir>/server`.
    pub server_dir: PathBuf,
    /// By what names the server is reached.
    pub names: ServerNames,
    /// Whether the certificates of an etcd server are made; not with `--disable-etcd`.
    pub etcd: bool,
    /// Where the components of this server reach the API: `https://127.0.0.1:6444`.
    pub api_url: String,
    /// The kubeconfig for people; none where there is no API server.
    pub admin: Option<AdminKubeconfig>,
    /// Secrets that joining nodes know.
    pub tokens: TokenConfig,
    /// The node on this machine, if there is one.
    pub node: Option<NodeNames>,
}

impl PkiConfig {
    /// The names that a leaf is to have.
    pub(crate) fn sans(&self, row: &LeafRow) -> Vec<San> {
        match row.sans {
            Sans::None => Vec::new(),
            Sans::Local => local().into(),
            Sans::Server => self.names.sans(),
            Sans::ServerAndKine => {
                let mut all = vec![San::new("kine.sock")];
                all.extend(self.names.sans());
                all
            }
            Sans::Node => {
                let node = self.node.iter();
                let names = node.clone().map(|node| San::new(&node.name)).chain(local());
                names.chain(node.flat_map(|node| &node.addresses).copied().map(San::Ip)).collect()
            }
        }
    }

    /// Whose a leaf is.
    pub(crate) fn common_name(&self, row: &LeafRow) -> String {
        let node = self.node.as_ref().map_or("", |node| &node.name);
        match row.name {
            Leaf::Kubelet | Leaf::ServingKubelet => format!("{}{node}", row.common_name),
            _ => row.common_name.to_owned(),
        }
    }

    /// Whether a leaf is to be there.
    pub(crate) fn wants(&self, leaf: Leaf) -> bool {
        (self.etcd || !leaf.needs_etcd()) && (self.node.is_some() || !leaf.is_of_node())
    }

    /// Where a leaf's files are, without their endings.
    fn leaf(&self, leaf: Leaf) -> PathBuf {
        match &self.node {
            Some(node) if leaf.is_of_node() => node.agent_dir.join(leaf.row().stem),
            _ => self.tls(leaf.row().stem),
        }
    }

    /// The certificate of a leaf.
    pub(crate) fn leaf_certificate(&self, leaf: Leaf) -> PathBuf {
        self.leaf(leaf).with_extension("crt")
    }

    /// The key of a leaf.
    pub(crate) fn leaf_key(&self, leaf: Leaf) -> PathBuf {
        self.leaf(leaf).with_extension("key")
    }

    /// A file below `tls/`.
    pub(crate) fn tls(&self, name: &str) -> PathBuf {
        self.server_dir.join("tls").join(name)
    }

    /// The certificate of a pair.
    pub(crate) fn certificate(&self, stem: &str) -> PathBuf {
        self.tls(&format!("{stem}.crt"))
    }

    /// The key of a pair.
    pub(crate) fn key(&self, stem: &str) -> PathBuf {
        self.tls(&format!("{stem}.key"))
    }

    /// A file below `cred/`.
    pub(crate) fn cred(&self, name: &str) -> PathBuf {
        self.server_dir.join("cred").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_reached_by_each_of_its_names_once() {
        let address: IpAddr = "10.0.0.7".parse().expect("an address");
        let names = ServerNames {
            tls_sans: vec!["k3s.example".to_owned(), "192.0.2.1".to_owned(), "localhost".to_owned()],
            node_name: "one.example".to_owned(),
            node_addresses: vec![address],
            service_addresses: vec![
                "10.43.0.1".parse().expect("an address"),
                "fd00:43::1".parse().expect("an address"),
            ],
            advertise_address: Some(address),
            ..ServerNames::default()
        };
        let sans: Vec<String> = names.sans().iter().map(San::to_string).collect();
        let wanted = "kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local \
                      k3s.example 192.0.2.1 localhost 127.0.0.1 ::1 one.example one 10.0.0.7 10.43.0.1 fd00:43::1";
        assert_eq!(sans.join(" "), wanted);
        assert!(matches!(names.sans()[5], San::Ip(_)), "an address among the names is one");
    }
}
