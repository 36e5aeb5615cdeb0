//! The actors of a node's DNS, as data.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k3sd_client::events::recorder;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Spec, Strategy, subtree};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};

use crate::addresses::present;
use crate::config::{DnsConfig, DnsDeps};
use crate::corefile::Machine;
use crate::error::DnsError;
use crate::keeper::{KeeperArgs, View, keeper};
use crate::resolver::{WAITING_MAX, resolver};
use crate::serve::{Answering, tcp_server, udp_server};
use crate::wire::name::Name;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Bytes of questions that may wait for a worker: a burst of thousands.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// Who writes the Events.
const COMPONENT: &str = "k3sd-dns";

/// A node's DNS.
#[derive(Debug)]
pub struct DnsTree {
    /// Its actors.
    pub spec: Spec,
}

/// Opens the sockets of a node's DNS, which outlive its actors, and puts the actors together. The addresses need not be
/// the host's yet.
///
/// ```text
/// dns            one_for_one
///   addresses    the addresses on the loopback link
///   events       writes what a Corefile asks for in vain
///   keeper       what answers are made of, from the API
///   resolver     what upstream servers say
///   udp-N, tcp-N answer
/// ```
///
/// # Errors
/// A socket can't be opened, or the domain is no name.
pub async fn tree(config: DnsConfig, deps: DnsDeps) -> Result<DnsTree, DnsError> {
    if Name::parse(&config.cluster_domain).is_err() {
        return Err(DnsError::Domain(config.cluster_domain));
    }
    let own: Arc<[IpAddr]> = config.addresses.clone().into();
    let sockets: Vec<SocketAddr> = own.iter().map(|address| SocketAddr::new(*address, config.port)).collect();
    let (place, view) = watch::channel(Arc::new(View::default()));
    let (asking, waiting) = mpsc::channel(WAITING_MAX);
    let answering = Answering { view, resolver: asking, own: own.clone() };
    let (events, recorder) = recorder("events", deps.connect.clone());
    let args = KeeperArgs {
        connect: deps.connect,
        machine: Machine { domain: config.cluster_domain, name_servers: Vec::new(), own: sockets.clone() },
        resolv_conf: config.resolv_conf,
        recorder: recorder.component(COMPONENT).host(&config.node_name),
        place: Arc::new(place),
    };
    let mut servers = Spec::new(Strategy::OneForOne);
    let mut number = 0;
    for address in &sockets {
        for _ in 0..config.workers.max(1) {
            let socket = open_udp(*address)?;
            servers = servers.child(udp_server(&format!("udp-{number}"), Lend::new(socket), answering.clone()));
            number += 1;
        }
    }
    for (number, address) in sockets.iter().enumerate() {
        let listener = open_tcp(*address)?;
        servers = servers.child(tcp_server(&format!("tcp-{number}"), Lend::new(listener), answering.clone()));
    }
    let mut spec = Spec::new(Strategy::OneForOne);
    if config.adds_addresses {
        spec = spec.child(present(own));
    }
    let spec =
        spec.child(events).child(keeper(args)).child(resolver(Lend::new(waiting))).child(subtree("servers", servers));
    Ok(DnsTree { spec })
}

/// A socket for an address that this host needn't have yet.
fn open(address: SocketAddr, kind: SocketType) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&fd, true)?;
    } else {
        sockopt::set_ipv6_v6only(&fd, true)?;
        sockopt::set_ipv6_freebind(&fd, true)?;
    }
    if kind == SocketType::DGRAM {
        // Several workers, between which the kernel shares the askers out.
        sockopt::set_socket_reuseport(&fd, true)?;
        // As much as the host allows.
        sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_BYTES)?;
    }
    rustix::net::bind(&fd, &address)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    Ok(fd)
}

fn open_udp(address: SocketAddr) -> Result<UdpSocket, DnsError> {
    let failed = |source| DnsError::Listen { address, protocol: "UDP", source };
    let fd = open(address, SocketType::DGRAM).map_err(|errno| failed(errno.into()))?;
    UdpSocket::from_std(fd.into()).map_err(failed)
}

fn open_tcp(address: SocketAddr) -> Result<TcpListener, DnsError> {
    let failed = |source| DnsError::Listen { address, protocol: "TCP", source };
    let fd = open(address, SocketType::STREAM).map_err(|errno| failed(errno.into()))?;
    TcpListener::from_std(fd.into()).map_err(failed)
}
