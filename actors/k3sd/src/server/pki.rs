//! The certificates of a server, as its flags ask for them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use k3sd_pki::{AdminKubeconfig, NameFilter, NodeNames, PkiConfig, San, ServerNames, TokenConfig};

use super::Identity;
use crate::config::{Secret, ServerConfig};

/// What the certificate actors are told.
pub(crate) fn pki_config(config: &ServerConfig, identity: &Identity, data_dir: &Path) -> PkiConfig {
    let loopback = loopback(identity.advertise_address);
    let kubeconfig = &config.kubeconfig;
    let reached = config.listen.bind_address.filter(|address| !address.is_unspecified()).unwrap_or(loopback);
    let own = config.listen.apiserver_bind_address.filter(|address| !address.is_unspecified()).unwrap_or(loopback);
    let secret = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    PkiConfig {
        server_dir: data_dir.join("server"),
        names: ServerNames {
            cluster_domain: config.network.cluster_domain.clone(),
            tls_sans: config.listen.tls_sans.clone(),
            node_name: identity.node_name.clone(),
            node_addresses: identity.node_addresses.clone(),
            service_addresses: identity.service_addresses.clone(),
            advertise_address: Some(identity.advertise_address),
        },
        etcd: true,
        api_url: url(own, config.listen.apiserver_port),
        admin: Some(AdminKubeconfig {
            default_path: kubeconfig.default_path.clone(),
            output: kubeconfig.path.clone(),
            mode: kubeconfig.mode,
            group: kubeconfig.group.clone(),
            name: kubeconfig.name.clone(),
            url: url(reached, config.listen.https_port),
        }),
        tokens: TokenConfig { server: secret(&config.join.token), agent: secret(&config.join.agent_token) },
        node: config.node.as_ref().map(|_| NodeNames {
            agent_dir: data_dir.join("agent"),
            name: identity.node_name.clone(),
            addresses: identity.node_addresses.clone(),
        }),
    }
}

/// Which names the listener's certificate learns beside those of the configuration: with `--tls-san-security` only the
/// server's own, else any that a client uses.
pub(crate) fn name_filter(config: &ServerConfig, names: &ServerNames) -> NameFilter {
    if !config.listen.tls_san_security {
        return NameFilter::new(|_| true);
    }
    let own: BTreeSet<String> = names.sans().iter().map(ToString::to_string).collect();
    NameFilter::new(move |name: &San| own.contains(&name.to_string()))
}

/// The loopback address of the family in which the cluster reaches the server.
pub(crate) fn loopback(advertised: IpAddr) -> IpAddr {
    if advertised.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

fn url(address: IpAddr, port: u16) -> String {
    format!("https://{}", std::net::SocketAddr::new(address, port))
}
