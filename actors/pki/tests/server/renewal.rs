//! Renewal while the server runs, as those see it who are connected.
//!
//! The clock is paused and moved by hand; so a year passes in a moment, and every certificate is made, presented and
//! checked at the simulated time.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use k3sd_pki::{Authority, Certificates, Leaf, Snapshot, renewal};
use k3sd_runtime::{Clock, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::support::{HeldClock, Server};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
struct At(Clock);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.wall()))
    }
}

/// A listener with the API server's certificate, and a client with the administrator's.
struct Peers {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

type Ends = (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>);

impl Peers {
    async fn new(certificates: &Certificates, clock: &Clock) -> Self {
        let provider = Arc::new(default_provider());
        let mut accepting = ServerConfig::builder_with_details(provider.clone(), Arc::new(At(clock.clone())))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_client_cert_verifier(certificates.client_verifier(Authority::Client, true))
            .with_cert_resolver(certificates.server(Leaf::ServingApiServer));
        // A resumed session shows what was shown when it began.
        accepting.send_tls13_tickets = 0;
        let connecting = ClientConfig::builder_with_details(provider, Arc::new(At(clock.clone())))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .dangerous()
            .with_custom_certificate_verifier(certificates.server_verifier(Authority::Server))
            .with_client_cert_resolver(certificates.client(Leaf::Admin));
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("it listens"),
            acceptor: TlsAcceptor::from(Arc::new(accepting)),
            connector: TlsConnector::from(Arc::new(connecting)),
        }
    }

    async fn connect(&self) -> Ends {
        let address = self.listener.local_addr().expect("it has one");
        let name = ServerName::try_from("localhost").expect("a name");
        let client = async {
            let stream = TcpStream::connect(address).await.expect("it connects");
            self.connector.connect(name, stream).await.expect("the server is trusted")
        };
        let server = async {
            let (stream, _) = self.listener.accept().await.expect("it accepts");
            self.acceptor.accept(stream).await.expect("the client is trusted")
        };
        tokio::join!(client, server)
    }
}

async fn talk((client, server): &mut Ends) {
    let mut heard = [0; 5];
    client.write_all(b"hello").await.expect("it is open");
    client.flush().await.expect("it is open");
    server.read_exact(&mut heard).await.expect("it is open");
    server.write_all(&heard).await.expect("it is open");
    server.flush().await.expect("it is open");
    client.read_exact(&mut heard).await.expect("it is open");
    assert_eq!(&heard, b"hello");
}

/// What client and server showed each other.
fn shown((client, server): &Ends) -> [CertificateDer<'static>; 2] {
    let first = |all: Option<&[CertificateDer<'static>]>| all.expect("they were shown")[0].clone();
    [first(client.get_ref().1.peer_certificates()), first(server.get_ref().1.peer_certificates())]
}

fn current(snapshot: &Snapshot) -> [CertificateDer<'static>; 2] {
    [Leaf::ServingApiServer, Leaf::Admin].map(|leaf| snapshot.leaf(leaf).expect("wanted").certificate().der().clone())
}

fn check_consistent(snapshot: &Snapshot) {
    for leaf in [Leaf::ServingApiServer, Leaf::Admin, Leaf::EtcdPeer, Leaf::AuthProxy] {
        let pair = snapshot.leaf(leaf).expect("wanted");
        pair.certified().keys_match().expect("key and certificate belong together");
        assert!(pair.certificate().is_signed_by(pair.certificates().get(1).expect("a bundle follows")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_breaks_no_connection_and_new_ones_see_the_new_certificates() {
    let (held, clock) = (HeldClock::hold(), Clock::simulated(1));
    let mut server = Server::start(clock.clone()).await;
    let first = server.certificates.ready().await.expect("it is up");
    let began = clock.wall();
    let peers = Peers::new(&server.certificates, &clock).await;
    let mut old = peers.connect().await;
    assert_eq!(shown(&old), current(&first));
    let handle = renewal(&server.system, "pki").expect("it is the one");
    let second = loop {
        held.pass(DAY / 4).await;
        handle.status().await.expect("it answers");
        let found = server.certificates.current().expect("it is up");
        if current(&found) != current(&first) {
            break found;
        }
    };
    let passed = clock.wall() - began;
    assert!(passed >= DAY * 244 && passed < DAY * 246, "renewed when 120 days of a year are left: {passed:?}");
    check_consistent(&second);
    talk(&mut old).await;
    let mut new = peers.connect().await;
    assert_eq!(shown(&new), current(&second), "on both sides");
    assert!(current(&first).iter().zip(current(&second)).all(|(one, two)| *one != two));
    talk(&mut new).await;
    talk(&mut old).await;
    let on_disk = fs::read_to_string(server.tls("serving-kube-apiserver.crt")).expect("it is there");
    assert!(on_disk.starts_with(&second.leaf(Leaf::ServingApiServer).expect("wanted").certificate().to_pem()));
    drop(server.stop().await);
}

#[tokio::test(start_paused = true)]
async fn killed_between_writing_and_publishing_it_leaves_a_consistent_snapshot_and_goes_on() {
    let (held, clock) = (HeldClock::hold(), Clock::simulated(2));
    let mut server = Server::start(clock.clone()).await;
    let first = server.certificates.ready().await.expect("it is up");
    let written = server.system.faults().barrier("pki/written");
    for _ in 0..4 * 246 {
        held.pass(DAY / 4).await;
    }
    written.arrival().await;
    let on_disk = fs::read_to_string(server.tls("client-admin.crt")).expect("it is there");
    let seen = server.certificates.current().expect("it outlives its owner");
    assert_eq!(current(&seen), current(&first), "what is written is not published yet");
    assert!(!on_disk.starts_with(&seen.leaf(Leaf::Admin).expect("wanted").certificate().to_pem()));
    server.system.faults().clear("pki/written");
    assert!(server.system.signal("pki/renewal", Signal::Kill));
    check_consistent(&server.certificates.current().expect("it outlives its owner"));
    let mut certificates = server.certificates.clone();
    let second = held.until(certificates.changed()).await.expect("it comes back");
    assert!(current(&second).iter().zip(current(&first)).all(|(one, two)| *one != two));
    check_consistent(&second);
    assert!(on_disk.starts_with(&second.leaf(Leaf::Admin).expect("wanted").certificate().to_pem()), "not made twice");
    drop(server.stop().await);
}

#[tokio::test]
async fn what_somebody_took_away_is_made_again_on_request() {
    let mut server = Server::start(Clock::system()).await;
    let first = server.certificates.ready().await.expect("it is up");
    let handle = renewal(&server.system, "pki").expect("it is the one");
    let before = handle.status().await.expect("it answers");
    assert!(!before.failed && before.files_changed > 40);
    fs::remove_file(server.tls("client-admin.crt")).expect("it is there");
    let after = handle.renew_now().await.expect("it answers");
    // The certificate, and the kubeconfig that carries it.
    assert_eq!(after.files_changed, before.files_changed + 2);
    let second = server.certificates.current().expect("it is up");
    assert_ne!(current(&first)[1], current(&second)[1]);
    assert_eq!(current(&first)[0], current(&second)[0], "the others stay");
    fs::write(server.tls("server-ca.crt"), "damaged").expect("it is written");
    assert!(handle.renew_now().await.expect("it goes on").failed);
    assert_eq!(current(&server.certificates.current().expect("still there")), current(&second));
    drop(server.stop().await);
}
