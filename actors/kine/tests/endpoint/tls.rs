//! TLS for clients: who is let in, what happens when certificates change, and that nobody holds up the others.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use k3sd_kine::{Certificates, ServerTls, TlsError};

use crate::support::{LIMIT, Server, etcdctl, pause, wait_until};

/// Files that `openssl` makes.
struct Pki(PathBuf);

impl Pki {
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn openssl(&self, name: &str, args: &[&str]) {
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let mut command = Command::new("openssl");
        command.args(new).args(["-subj", &format!("/CN={name}"), "-keyout", &self.path(&format!("{name}.key"))]);
        let output = command.args(["-out", &self.path(&format!("{name}.crt"))]).args(args).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn authority(&self, name: &str) {
        self.openssl(name, &[]);
    }

    fn leaf(&self, name: &str, authority: &str) {
        let (ca, key) = (self.path(&format!("{authority}.crt")), self.path(&format!("{authority}.key")));
        let signed = ["-CA", &ca, "-CAkey", &key, "-addext", "basicConstraints=critical,CA:FALSE"];
        self.openssl(name, &[&signed[..], &["-addext", "subjectAltName=IP:127.0.0.1"]].concat());
    }

    fn files(&self, name: &str) -> ServerTls {
        let path = |ending| self.path(&format!("{name}.{ending}")).into();
        ServerTls { cert: path("crt"), key: path("key"), client_ca: None }
    }

    /// Puts a certificate in the place of another, as a renewal does.
    fn replace(&self, old: &str, new: &str) {
        for ending in ["crt", "key"] {
            fs::rename(self.path(&format!("{new}.{ending}")), self.path(&format!("{old}.{ending}"))).expect("it moves");
        }
    }
}

fn pki(folder: &Path) -> Pki {
    let pki = Pki(folder.to_owned());
    pki.authority("ca");
    pki.leaf("server", "ca");
    pki
}

fn with_tls(files: ServerTls) -> Server {
    let certificates = Certificates::for_clients(files).expect("the files are fine");
    Server::with_socket(|socket| socket.with_tls(certificates))
}

impl Server {
    /// Whether a client gets an answer over TLS, and else what it says.
    fn answers(&self, args: &[&str]) -> Result<String, String> {
        let endpoint = format!("https://{}", self.endpoint);
        let mut command = etcdctl(&endpoint, &["--dial-timeout=2s", "--command-timeout=3s"]);
        let output = command.args(args).output().expect("etcdctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

#[test]
fn only_those_who_know_the_authority_are_served() {
    let folder = tempfile::tempdir().expect("a directory");
    let pki = pki(folder.path());
    let server = with_tls(pki.files("server"));
    let ca = format!("--cacert={}", pki.path("ca.crt"));
    server.answers(&[&ca, "put", "a", "1"]).expect("it is served");
    let members = server.answers(&[&ca, "member", "list"]).expect("it is served");
    assert!(members.contains(&format!("https://{}", server.endpoint)), "{members}");
    pki.authority("other");
    let other = format!("--cacert={}", pki.path("other.crt"));
    assert!(server.answers(&[&other, "get", "a"]).is_err(), "the server is not whom the client looks for");
    let mut plain = server.command(&["get", "a", "--dial-timeout=1s", "--command-timeout=1s"]);
    assert!(!plain.output().expect("etcdctl runs").status.success(), "without TLS nobody is served");
}

#[test]
fn clients_need_a_certificate_where_that_is_demanded() {
    let folder = tempfile::tempdir().expect("a directory");
    let pki = pki(folder.path());
    for (name, authority) in [("friend", "clients"), ("stranger", "ca")] {
        pki.authority(if name == "friend" { "clients" } else { "unused" });
        pki.leaf(name, authority);
    }
    let client_ca = Some(pki.path("clients.crt").into());
    let server = with_tls(ServerTls { client_ca, ..pki.files("server") });
    let ca = format!("--cacert={}", pki.path("ca.crt"));
    let put = |name: Option<&str>| {
        let files = name.map(|name| (pki.path(&format!("{name}.crt")), pki.path(&format!("{name}.key"))));
        let flags = files.map_or(vec![], |(cert, key)| vec![format!("--cert={cert}"), format!("--key={key}")]);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        server.answers(&[&[ca.as_str()], &flags[..], &["put", "a", "1"]].concat())
    };
    put(Some("friend")).expect("it is served");
    assert!(put(Some("stranger")).is_err() && put(None).is_err());
}

#[test]
fn a_changed_certificate_is_used_without_a_restart() {
    let folder = tempfile::tempdir().expect("a directory");
    let pki = pki(folder.path());
    let server = with_tls(pki.files("server"));
    let old = format!("--cacert={}", pki.path("ca.crt"));
    server.answers(&[&old, "put", "a", "1"]).expect("it is served");
    // Half of a renewal: the key does not fit yet.
    pki.authority("next-ca");
    pki.leaf("next", "next-ca");
    fs::rename(pki.path("next.crt"), pki.path("server.crt")).expect("it moves");
    server.answers(&[&old, "get", "a"]).expect("the old one is used as long as the new one is not whole");
    fs::rename(pki.path("next.key"), pki.path("server.key")).expect("it moves");
    let new = format!("--cacert={}", pki.path("next-ca.crt"));
    server.answers(&[&new, "get", "a"]).expect("the new one is used");
    assert!(server.answers(&[&old, "get", "a"]).is_err());
    pki.leaf("last", "ca");
    pki.replace("server", "last");
    server.answers(&[&old, "get", "a"]).expect("and the next one");
}

#[test]
fn silence_and_noise_hold_up_nobody() {
    let folder = tempfile::tempdir().expect("a directory");
    let pki = pki(folder.path());
    let server = with_tls(pki.files("server"));
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(&server.endpoint).expect("it is accepted")).collect();
    let noisy: Vec<_> = (0..50)
        .map(|_| {
            let mut noisy = TcpStream::connect(&server.endpoint).expect("it is accepted");
            noisy.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is sent");
            noisy
        })
        .collect();
    let ca = format!("--cacert={}", pki.path("ca.crt"));
    server.answers(&[&ca, "put", "a", "1"]).expect("it is served meanwhile");
    drop((silent, noisy));
    // Their tasks end with them.
    let tasks = || server.tree.system().alive();
    let before = tasks();
    wait_until("the tasks are gone", || {
        pause(Duration::from_millis(50));
        tasks() + 50 < before || tasks() < 20
    });
}

/// Nobody keeps a connection that never says a word, with TLS or without.
#[test]
fn silence_ends_a_connection() {
    let folder = tempfile::tempdir().expect("a directory");
    let pki = pki(folder.path());
    let (safe, plain) = (with_tls(pki.files("server")), Server::start());
    let mut silent = [&safe, &plain].map(|server| TcpStream::connect(&server.endpoint).expect("it is accepted"));
    for stream in &mut silent {
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        assert_eq!(stream.read(&mut [0]).expect("it is closed, not forgotten"), 0);
    }
}

#[test]
fn numbers_come_with_tls_too() {
    let folder = tempfile::tempdir().expect("a directory");
    let pki = pki(folder.path());
    // A scrape needs no certificate of its own, though clients do.
    let files = ServerTls { client_ca: Some(pki.path("ca.crt").into()), ..pki.files("server") };
    let certificates = Certificates::for_metrics(files).expect("the files are fine");
    let server = Server::with_metrics(|socket| socket.with_tls(certificates));
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-verify_return_error", "-verify_ip", "127.0.0.1", "-connect"]);
    openssl.args([&server.metrics, "-CAfile", &pki.path("ca.crt"), "-alpn", "http/1.1"]);
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut openssl = openssl.spawn().expect("openssl is installed");
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    openssl.stdin.as_mut().expect("piped").write_all(request).expect("it is sent");
    let output = openssl.wait_with_output().expect("it ends");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("kine_compact_total"), "{answer}");
}

#[test]
fn files_that_can_not_be_used_are_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let pki = pki(folder.path());
    let load = |files| Certificates::for_clients(files).expect_err("they can't be used");
    let missing = load(ServerTls { key: "/nowhere".into(), ..pki.files("server") });
    assert!(matches!(missing, TlsError::File { what: "key", .. }) && missing.to_string().contains("/nowhere"));
    fs::write(pki.path("empty.crt"), "").expect("it is written");
    let empty = load(ServerTls { cert: pki.path("empty.crt").into(), ..pki.files("server") });
    assert!(matches!(empty, TlsError::File { what: "certificate", .. }), "{empty:?}");
    let pair = load(ServerTls { key: pki.path("ca.key").into(), ..pki.files("server") });
    assert!(matches!(pair, TlsError::Pair { .. }), "{pair:?}");
}
