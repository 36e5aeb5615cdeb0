//! A port of a machine that is reached over the simulation's network: what stands where a listening socket would be,
//! and whoever connects to it. What is spoken on a connection, TLS and HTTP, is the real thing.
//!
//! ```text
//! API server ─ Dial ─ pipe ─ [`Wire::carry`]: slow, cut, away ─ pipe ─ Port ─▶ the node's server
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver::{Connection, Dial, Nodes};
use k3sd_kubelet_server::Entrance;
use k3sd_pki::{AuthorityPair, PrivateKey, San, Usage};
use k3sd_runtime::Clock;
use k3sd_runtime::lend::Lend;
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::wire::Wire;

/// The port of a node's server.
const NUMBER: u16 = 10250;
/// What a pipe holds.
const PIPE_BYTES: usize = 1 << 16;
/// Who waits to be accepted; whoever comes then is refused.
const WAITING_MAX: usize = 128;
/// How long an authority is there before anybody asks: clocks are set back.
const AUTHORITY_AGE: Duration = Duration::from_secs(24 * 3600);

/// Where connections come in. It is lent as a socket is, and keeps those who come while nobody accepts.
#[derive(Debug)]
pub struct Port(Mutex<mpsc::Receiver<DuplexStream>>);

impl Port {
    /// The port of this number at this address, and the way to it; all else is out of reach.
    #[must_use]
    pub fn new(address: &'static str, number: u16, wire: Wire) -> (Self, Dial) {
        let (door, guests) = mpsc::channel(WAITING_MAX);
        let dial = Dial::new(move |target| {
            let (wire, door) = (wire.clone(), door.clone());
            Box::pin(async move {
                if (target.host.as_str(), target.port) != (address, number) {
                    return Err(io::ErrorKind::HostUnreachable.into());
                }
                Ok(Box::new(connect(&wire, &door).await?) as Connection)
            })
        });
        (Self(Mutex::new(guests)), dial)
    }
}

/// Opens a connection; its other end waits at the door.
async fn connect(wire: &Wire, door: &mpsc::Sender<DuplexStream>) -> io::Result<DuplexStream> {
    wire.open().await.map_err(|_| io::Error::from(io::ErrorKind::HostUnreachable))?;
    let (near, left) = tokio::io::duplex(PIPE_BYTES);
    let (right, far) = tokio::io::duplex(PIPE_BYTES);
    door.try_send(far).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
    tokio::spawn(wire.carry(left, right));
    Ok(near)
}

impl Entrance for Port {
    type Stream = DuplexStream;

    async fn accept(&self) -> io::Result<DuplexStream> {
        self.0.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn set_up(_: &DuplexStream) -> io::Result<()> {
        Ok(())
    }
}

/// The simulation's time, for certificates.
#[derive(Debug)]
struct Wall(Clock);

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.wall()))
    }
}

/// How both sides shake hands: each has a certificate of one authority, made as the server makes them.
#[derive(Debug)]
struct Handshakes {
    client: ClientConfig,
    server: Arc<ServerConfig>,
}

impl Handshakes {
    fn new(clock: &Clock, name: &str, address: &str) -> Self {
        let (now, provider) = (clock.wall(), Arc::new(default_provider()));
        let time: Arc<dyn TimeProvider> = Arc::new(Wall(clock.clone()));
        let authority = AuthorityPair::generate("k3s-ca", now.saturating_sub(AUTHORITY_AGE)).expect("randomness");
        let signed = |subject: (&str, &[&str]), sans: &[San], usage| {
            let key = PrivateKey::generate_ec().expect("randomness");
            let own = authority.sign(subject, sans, usage, key.public_key_info(), now).expect("such a certificate");
            let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).expect("it was just written");
            (vec![own.der().clone()], key)
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().der().clone()).expect("it is an authority");
        let roots = Arc::new(roots);

        let (chain, key) = signed(("system:apiserver", &["system:masters"]), &[], Usage::Client);
        let client = ClientConfig::builder_with_details(provider.clone(), time.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain, key)
            .expect("they belong together");

        let (chain, key) = signed((name, &[]), &[San::new(name), San::new(address)], Usage::Server);
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let clients = clients.allow_unauthenticated().build().expect("there is an authority");
        let mut server = ServerConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .expect("they belong together");
        // As in the binary: a session that is resumed would show the certificate from before a renewal.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Self { client, server: Arc::new(server) }
    }
}

/// What a node's server is given: where connections come in, and how hands are shaken there.
#[derive(Debug)]
pub struct Doorway {
    /// The port.
    pub socket: Lend<Port>,
    /// The node's certificate, and who may have signed those of clients.
    pub tls: Arc<ServerConfig>,
}

impl Doorway {
    /// Of a node with this name and address, and the API server's way to it.
    ///
    /// # Panics
    /// When the system has no randomness.
    #[must_use]
    pub fn new(clock: &Clock, wire: &Wire, name: &str, address: &'static str) -> (Self, Nodes) {
        let Handshakes { client, server } = Handshakes::new(clock, name, address);
        let (port, dial) = Port::new(address, NUMBER, wire.clone());
        (Self { socket: Lend::new(port), tls: server }, Nodes::new(&client, dial))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    const ADDRESS: &str = "192.0.2.10";

    /// Both ends of a new connection.
    async fn opened(wire: &Wire, door: &mpsc::Sender<DuplexStream>, port: &Port) -> (DuplexStream, DuplexStream) {
        let near = connect(wire, door).await.expect("it is there");
        (near, port.accept().await.expect("somebody came"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_carries_both_ways_until_it_is_cut() {
        let clock = Clock::simulated(7);
        let wire = Wire::new(clock.clone());
        let (door, guests) = mpsc::channel(1);
        let port = Port(Mutex::new(guests));
        wire.set_delay(100);
        let began = clock.now();
        let (mut near, mut far) = opened(&wire, &door, &port).await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        drop(far);
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "questionanswer");
        assert!(clock.now() > began, "a slow connection takes its time");

        let (mut near, mut far) = opened(&wire, &door, &port).await;
        wire.cut();
        assert_eq!((near.read(&mut [0]).await.unwrap(), far.read(&mut [0]).await.unwrap()), (0, 0));
        wire.set_away(true);
        assert_eq!(connect(&wire, &door).await.unwrap_err().kind(), io::ErrorKind::HostUnreachable);
        wire.heal();
        let waits = connect(&wire, &door).await.expect("there is a place to wait in");
        assert_eq!(connect(&wire, &door).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        drop(waits);
    }

    #[tokio::test(start_paused = true)]
    async fn both_sides_believe_each_other() {
        let clock = Clock::simulated(7);
        let handshakes = Handshakes::new(&clock, "one", ADDRESS);
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let name = ServerName::try_from(ADDRESS).expect("an address");
        let connector = TlsConnector::from(Arc::new(handshakes.client));
        let both = tokio::join!(connector.connect(name, near), TlsAcceptor::from(handshakes.server).accept(far));
        let (_near, far) = (both.0.expect("the node is believed"), both.1.expect("the server is believed"));
        assert_eq!(far.get_ref().1.peer_certificates().map(<[_]>::len), Some(1));
    }
}
