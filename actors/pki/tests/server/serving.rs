//! The certificate of the supervisor's listener: which names it learns, what it keeps, and when it is made again.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_pki::{Authority, Certificate, San, ServingHandle};
use k3sd_runtime::{Clock, Signal};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::support::{HeldClock, Server, config, openssl, text};

/// A part of the Secret that is kept.
fn part(json: &str, name: &str) -> Vec<u8> {
    let read: serde_json::Value = serde_json::from_str(json).expect("JSON");
    STANDARD.decode(read["data"][name].as_str().expect("text")).expect("base64")
}

fn names(json: &str) -> BTreeSet<String> {
    let read: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let annotations = read["metadata"]["annotations"].as_object().expect("there are some");
    let names = annotations.iter().filter(|(key, _)| key.starts_with("listener.cattle.io/cn-"));
    names.map(|(_, name)| name.as_str().expect("text").to_owned()).collect()
}

fn secret(serving: &ServingHandle) -> String {
    serving.secret().expect("there is one")
}

async fn learn(serving: &ServingHandle, names: &[&str]) {
    serving.ensure(&names.iter().map(|name| San::new(name)).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn names_are_learned_if_the_filter_allows_and_outlive_a_restart() {
    let server = Server::start(Clock::system()).await;
    let first = secret(&server.serving);
    let configured = names(&first);
    assert!(configured.contains("k3s.example") && configured.contains("*.wild.example"), "{configured:?}");
    learn(&server.serving, &["k3s.example", "evil.example", "*.allowed.example", "fd00::7"]).await;
    assert_eq!(secret(&server.serving), first, "one it has, and three that it must not have");
    learn(&server.serving, &["a.allowed.example", "198.51.100.7", "evil.example"]).await;
    let grown = secret(&server.serving);
    let mut wanted = configured.clone();
    wanted.extend(["a.allowed.example", "198.51.100.7"].map(str::to_owned));
    assert_eq!(names(&grown), wanted);
    assert_eq!(part(&grown, "tls.key"), part(&first, "tls.key"), "the key stays");
    assert_eq!(server.text("tls/dynamic-cert.json"), grown);
    let leaf = server.folder.path().join("leaf.crt");
    fs::write(&leaf, part(&grown, "tls.crt")).expect("it is written");
    let authority = server.tls("server-ca.crt");
    openssl(&["verify", "-CAfile", text(&authority), "-purpose", "sslserver", text(&leaf)]);
    let printed = openssl(&["x509", "-in", text(&leaf), "-noout", "-subject", "-nameopt", "RFC2253,-dn_rev"]);
    assert_eq!(printed.trim(), "subject=O=k3s,CN=k3s");
    let fingerprint = openssl(&["x509", "-in", text(&leaf), "-noout", "-fingerprint", "-sha1"]);
    let digits = fingerprint.trim().rsplit('=').next().expect("a fingerprint").replace(':', "");
    assert!(grown.contains(&format!("\"listener.cattle.io/fingerprint\":\"SHA1={digits}\"")), "{grown}");

    let folder = server.stop().await;
    let config = config(folder.path());
    let server = Server::with(folder, config.clone(), Clock::system()).await;
    assert_eq!(secret(&server.serving), grown, "nothing is forgotten");
    let marker = server.tls("dynamic-cert-regenerate");
    fs::write(&marker, "").expect("it is written");
    let folder = server.stop().await;
    let server = Server::with(folder, config, Clock::system()).await;
    let again = secret(&server.serving);
    assert_eq!(names(&again), wanted);
    assert_ne!(part(&again, "tls.crt"), part(&grown, "tls.crt"));
    assert!(!marker.exists());
    drop(server.stop().await);
}

#[tokio::test]
async fn a_client_gets_a_certificate_for_its_name_in_the_very_first_handshake() {
    let server = Server::start(Clock::system()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
    let address = listener.local_addr().expect("it has one");
    let provider = Arc::new(default_provider());
    let accepting = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_cert_resolver(server.serving.resolver());
    let connecting = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .dangerous()
        .with_custom_certificate_verifier(server.certificates.server_verifier(Authority::Server))
        .with_no_client_auth();
    let (accepting, connector) = (Arc::new(accepting), TlsConnector::from(Arc::new(connecting)));
    for (name, trusted) in [("new.allowed.example", true), ("other.example", false)] {
        let serve = async {
            let (stream, _) = listener.accept().await.expect("it accepts");
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.expect("a hello");
            let wanted = hello.client_hello().server_name().map(San::new);
            server.serving.ensure(wanted.as_slice()).await;
            hello.into_stream(accepting.clone()).await.ok();
        };
        let connect = async {
            let stream = TcpStream::connect(address).await.expect("it connects");
            connector.connect(ServerName::try_from(name).expect("a name"), stream).await.is_ok()
        };
        let (connected, ()) = tokio::join!(connect, serve);
        assert_eq!(connected, trusted, "{name}");
    }
    drop(server.stop().await);
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_while_it_runs_and_survives_its_owner() {
    let (held, clock) = (HeldClock::hold(), Clock::simulated(3));
    let server = Server::start(clock.clone()).await;
    let mut serving = server.serving.clone();
    let first = serving.changed().await.expect("there is one");
    assert!(server.system.signal("pki/serving", Signal::Kill));
    assert_eq!(secret(&serving), first, "it stays published");
    let began = clock.wall();
    assert_eq!(held.until(serving.changed()).await.expect("it comes back"), first);
    let second = loop {
        held.pass(Duration::from_secs(6 * 3600)).await;
        let answer = serving.merge(Vec::new()).await; // Refused, when all that was due before is done.
        assert!(answer.expect("it answers").is_err());
        let found = secret(&serving);
        if found != first {
            break found;
        }
    };
    assert_eq!((clock.wall() - began).as_secs() / (24 * 3600), 245);
    assert_eq!(names(&second), names(&first));
    assert_eq!(part(&second, "tls.key"), part(&first, "tls.key"));
    drop(server.stop().await);
}

#[tokio::test]
async fn what_two_servers_hold_is_brought_together() {
    let server = Server::start(Clock::system()).await;
    let first = secret(&server.serving);
    learn(&server.serving, &["a.allowed.example"]).await;
    let grown = secret(&server.serving);
    let merged = server.serving.merge(first.into_bytes()).await.expect("it answers").expect("it is a Secret");
    assert_eq!(merged, grown, "ours has all names");
    let broken = server.serving.merge(b"{}".to_vec()).await.expect("it answers");
    assert!(broken.is_err());
    assert_eq!(secret(&server.serving), grown);
    let fixed = grown.replace("\"listener.cattle.io/fingerprint\"", "\"listener.cattle.io/static\":\"true\",\"x\"");
    server.serving.merge(fixed.into_bytes()).await.expect("it answers").expect("it is a Secret");
    learn(&server.serving, &["b.allowed.example"]).await;
    assert!(!names(&secret(&server.serving)).contains("b.allowed.example"), "an operator fixed it");
    drop(server.stop().await);
}

#[tokio::test]
async fn a_damaged_file_is_made_again() {
    let server = Server::start(Clock::system()).await;
    let folder = server.stop().await;
    let path = folder.path().join("server/tls/dynamic-cert.json");
    fs::write(&path, "{\"data\":{}}").expect("it is written");
    let config = config(folder.path());
    let server = Server::with(folder, config, Clock::system()).await;
    let made = secret(&server.serving);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), made);
    let pem = String::from_utf8(part(&made, "tls.crt")).expect("text");
    let authority = server.certificates.current().expect("it is up").authority(Authority::Server).clone();
    assert!(pem.ends_with(&authority.bundle_pem()) && Certificate::to_pem(authority.certificate()).len() < pem.len());
    drop(server.stop().await);
}
