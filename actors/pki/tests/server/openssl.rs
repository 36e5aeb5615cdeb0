//! Every file as openssl sees it: chains, purposes, names, keys.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use k3sd_pki::token::Token;
use k3sd_pki::{Authority, CertificateRequest, Terms, TokenConfig, Usage, requested_key};
use k3sd_runtime::Clock;

use crate::support::{Server, config, openssl, text};

/// Files, authority, purpose, subject as openssl prints it.
const LEAVES: &[(&str, &str, &str, &str)] = &[
    ("client-admin", "client-ca", "sslclient", "O=system:masters,CN=system:admin"),
    ("client-supervisor", "client-ca", "sslclient", "O=system:masters,CN=system:k3s-supervisor"),
    ("client-controller", "client-ca", "sslclient", "CN=system:kube-controller-manager"),
    ("client-scheduler", "client-ca", "sslclient", "CN=system:kube-scheduler"),
    ("client-kube-apiserver", "client-ca", "sslclient", "O=system:masters,CN=system:apiserver"),
    ("client-k3s-cloud-controller", "client-ca", "sslclient", "CN=k3s-cloud-controller-manager"),
    ("client-auth-proxy", "request-header-ca", "sslclient", "CN=system:auth-proxy"),
    ("serving-kube-apiserver", "server-ca", "sslserver", "CN=kube-apiserver"),
    ("kube-scheduler/kube-scheduler", "server-ca", "sslserver", "CN=kube-scheduler"),
    ("kube-controller-manager/kube-controller-manager", "server-ca", "sslserver", "CN=kube-controller-manager"),
    ("etcd/client", "etcd/server-ca", "sslclient", "CN=etcd-client"),
    ("etcd/server-client", "etcd/server-ca", "sslserver", "CN=etcd-server"),
    ("etcd/server-client", "etcd/server-ca", "sslclient", "CN=etcd-server"),
    ("etcd/peer-server-client", "etcd/peer-ca", "sslserver", "CN=etcd-peer"),
    ("etcd/peer-server-client", "etcd/peer-ca", "sslclient", "CN=etcd-peer"),
];

fn print(path: &Path, what: &[&str]) -> String {
    let mut args = vec!["x509", "-noout", "-in", text(path)];
    args.extend(what);
    openssl(&args)
}

fn public_key(kind: &[&str], path: &Path) -> String {
    let mut args = kind.to_vec();
    args.extend(["-in", text(path)]);
    openssl(&args)
}

#[tokio::test]
async fn openssl_verifies_every_certificate_for_its_purpose_and_no_other() {
    let server = Server::start(Clock::system()).await;
    for (stem, authority, purpose, subject) in LEAVES {
        let (certificate, key) = (server.tls(&format!("{stem}.crt")), server.tls(&format!("{stem}.key")));
        let authority = server.tls(&format!("{authority}.crt"));
        openssl(&["verify", "-CAfile", text(&authority), "-purpose", purpose, text(&certificate)]);
        let printed = print(&certificate, &["-subject", "-nameopt", "RFC2253,-dn_rev"]);
        assert_eq!(printed.trim(), format!("subject={subject}"), "{stem}");
        let usage = print(&certificate, &["-ext", "keyUsage,basicConstraints"]);
        assert!(usage.contains("Digital Signature, Key Encipherment") && !usage.contains("CA:TRUE"), "{usage}");
        assert!(usage.contains("critical"), "{usage}");
        assert_eq!(public_key(&["x509", "-noout", "-pubkey"], &certificate), public_key(&["pkey", "-pubout"], &key));
        openssl(&["pkey", "-check", "-noout", "-in", text(&key)]);
        let kind = print(&certificate, &["-text"]);
        assert!(kind.contains("NIST CURVE: P-256"), "{kind}");
        let only = LEAVES.iter().filter(|row| row.0 == *stem).count() == 1;
        let other = if *purpose == "sslserver" { "TLS Web Client" } else { "TLS Web Server" };
        assert_eq!(kind.contains(other), !only, "{stem}: {kind}");
    }
    drop(server.stop().await);
}

#[tokio::test]
async fn authorities_are_as_k3s_makes_them() {
    let server = Server::start(Clock::system()).await;
    for (stem, name) in [
        ("client-ca", "k3s-client-ca@"),
        ("server-ca", "k3s-server-ca@"),
        ("request-header-ca", "k3s-request-header-ca@"),
        ("etcd/server-ca", "etcd-server-ca@"),
        ("etcd/peer-ca", "etcd-peer-ca@"),
    ] {
        let path = server.tls(&format!("{stem}.crt"));
        openssl(&["verify", "-CAfile", text(&path), text(&path)]);
        let all = print(&path, &["-serial", "-subject", "-nameopt", "RFC2253", "-ext", "basicConstraints,keyUsage"]);
        for part in ["serial=00", &format!("subject=CN={name}"), "CA:TRUE", "Key Encipherment, Certificate Sign"] {
            assert!(all.contains(part), "{stem}: {part}: {all}");
        }
        assert!(
            openssl(&["x509", "-in", text(&path), "-checkend", &(3649 * 24 * 3600).to_string()]).contains("will not")
        );
    }
    for name in ["client-ca", "server-ca"] {
        assert_eq!(server.text(&format!("tls/{name}.nochain.crt")), server.text(&format!("tls/{name}.crt")));
    }
    assert!(openssl(&["rsa", "-check", "-noout", "-in", text(&server.tls("service.key"))]).contains("RSA key ok"));
    assert!(openssl(&["pkey", "-text", "-noout", "-in", text(&server.tls("service.key"))]).contains("(2048 bit"));
    drop(server.stop().await);
}

#[tokio::test]
async fn a_server_has_the_names_it_is_reached_by() {
    let server = Server::start(Clock::system()).await;
    let names = |stem: &str| {
        let printed = print(&server.tls(&format!("{stem}.crt")), &["-ext", "subjectAltName"]);
        printed.lines().nth(1).unwrap_or_default().trim().to_owned()
    };
    let all = "DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, \
               DNS:kubernetes.default.svc.cluster.local, DNS:k3s.example, DNS:*.wild.example, IP Address:127.0.0.1, \
               IP Address:0:0:0:0:0:0:0:1, DNS:localhost, DNS:one.example, DNS:one, IP Address:192.0.2.7, \
               IP Address:10.43.0.1";
    assert_eq!(names("serving-kube-apiserver"), all);
    assert_eq!(names("etcd/server-client"), format!("DNS:kine.sock, {all}"));
    assert_eq!(names("etcd/peer-server-client"), format!("DNS:kine.sock, {all}"));
    let local = "IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:localhost";
    assert_eq!(names("kube-scheduler/kube-scheduler"), local);
    drop(server.stop().await);
}

/// A root and an authority below it, as an operator makes them, with names in which attributes repeat.
fn custom_chain(folder: &Path, name: &str, key: &[&str]) {
    let path = |ending: &str| folder.join(format!("{name}{ending}")).to_string_lossy().into_owned();
    let generate = |out: &str| {
        let mut args = vec!["genpkey", "-out", out];
        args.extend(key);
        openssl(&args);
    };
    generate(&path(".root.key"));
    generate(&path(".key"));
    let root = ["req", "-x509", "-new", "-key", &path(".root.key"), "-out", &path(".root.crt"), "-days", "3650"];
    let extra = ["-subj", "/DC=com/DC=example/O=Example/CN=root", "-addext", "keyUsage=critical,keyCertSign"];
    openssl(&[&root[..], &extra].concat());
    let request = ["req", "-new", "-key", &path(".key"), "-out", &path(".csr"), "-subj"];
    openssl(&[&request[..], &["/DC=com/DC=example/O=Example/OU=a/OU=b/CN=below"]].concat());
    fs::write(
        path(".ext"),
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
        subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
    )
    .expect("it is written");
    let (csr, extensions, below) = (path(".csr"), path(".ext"), path(".below.crt"));
    let (root_certificate, root_key) = (path(".root.crt"), path(".root.key"));
    let sign = ["x509", "-req", "-in", &csr, "-CA", &root_certificate, "-CAkey", &root_key, "-CAcreateserial"];
    openssl(&[&sign[..], &["-days", "3650", "-out", &below, "-extfile", &extensions]].concat());
    let bundle = [fs::read(&below).expect("made"), fs::read(&root_certificate).expect("made")].concat();
    fs::write(path(".crt"), bundle).expect("it is written");
}

#[tokio::test]
async fn authorities_of_an_operator_are_used_with_their_chains() {
    let folder = tempfile::tempdir().expect("a directory");
    let tls = folder.path().join("server/tls");
    fs::create_dir_all(&tls).expect("it is made");
    custom_chain(&tls, "client-ca", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    custom_chain(&tls, "server-ca", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    custom_chain(&tls, "request-header-ca", &["-algorithm", "ED25519"]);
    // The forms of keys of older tools: SEC 1 and PKCS#1. The third stays PKCS#8.
    let [ec, rsa] = ["client-ca.key", "server-ca.key"].map(|name| tls.join(name));
    openssl(&["ec", "-in", text(&ec), "-out", text(&ec)]);
    openssl(&["rsa", "-traditional", "-in", text(&rsa), "-out", text(&rsa)]);
    let first_line = |path: &Path| fs::read_to_string(path).expect("made").lines().next().map(str::to_owned);
    assert_eq!(first_line(&ec).as_deref(), Some("-----BEGIN EC PRIVATE KEY-----"));
    assert_eq!(first_line(&rsa).as_deref(), Some("-----BEGIN RSA PRIVATE KEY-----"));
    let before: Vec<_> = ["client-ca.crt", "server-ca.key"].map(|name| fs::read(tls.join(name)).expect("made")).into();
    let config = config(folder.path());
    let server = Server::with(folder, config, Clock::system()).await;
    let after: Vec<_> = ["client-ca.crt", "server-ca.key"].map(|name| fs::read(tls.join(name)).expect("kept")).into();
    assert_eq!(before, after);
    for (stem, authority, purpose, _) in LEAVES.iter().filter(|row| !row.0.starts_with("etcd/")) {
        let root = server.tls(&format!("{authority}.root.crt"));
        let leaf = server.tls(&format!("{stem}.crt"));
        // The leaf's own file holds what lies between it and the root.
        openssl(&["verify", "-CAfile", text(&root), "-untrusted", text(&leaf), "-purpose", purpose, text(&leaf)]);
    }
    assert_eq!(server.text("tls/client-ca.nochain.crt"), server.text("tls/client-ca.below.crt"));
    let token = Token::parse(server.text("token").trim()).expect("a token");
    let root = openssl(&["x509", "-in", text(&server.tls("server-ca.root.crt")), "-noout", "-fingerprint", "-sha256"]);
    let digits: String =
        root.split('=').nth(1).expect("a fingerprint").chars().filter(char::is_ascii_hexdigit).collect();
    assert_eq!(token.ca_hash, Some(digits.to_lowercase()), "the hash of a chain is that of its root");
    token.check(server.text("tls/server-ca.crt").as_bytes()).expect("it fits");
    drop(server.stop().await);
}

#[tokio::test]
async fn tokens_and_kubeconfigs_fit_the_certificates() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut config = config(folder.path());
    config.tokens = TokenConfig { server: Some("K10::server:first".to_owned()), agent: Some("second".to_owned()) };
    let admin = config.admin.as_mut().expect("it is there");
    (admin.output, admin.mode) = (Some(folder.path().join("elsewhere/admin.yaml")), 0o640);
    let (default, output) = (admin.default_path.clone(), folder.path().join("elsewhere/admin.yaml"));
    admin.name = "prod".to_owned();
    admin.group = Some(fs::metadata(folder.path()).expect("it is there").gid().to_string());
    let server = Server::with(folder, config, Clock::system()).await;
    let digest = openssl(&["dgst", "-sha256", "-r", text(&server.tls("server-ca.crt"))]);
    let hash = digest.split(' ').next().expect("a hash");
    assert_eq!(server.text("token"), format!("K10{hash}::server:first\n"));
    assert_eq!(server.text("node-token"), server.text("token"));
    assert_eq!(server.text("agent-token"), format!("K10{hash}::node:second\n"));
    assert_eq!(server.text("cred/passwd"), "second,node,node,k3s:agent\nfirst,server,server,k3s:server\n");
    assert_eq!(server.text("cred/ipsec.psk").trim().len(), 96);
    assert_eq!(fs::read_link(&default).expect("a link"), output);
    assert_eq!(fs::metadata(&output).expect("it is there").mode() & 0o777, 0o640);
    let yaml = fs::read_to_string(&default).expect("it is there");
    assert!(yaml.contains("server: https://127.0.0.1:6443\n  name: prod\n"), "{yaml}");
    assert!(yaml.contains("current-context: prod\n"), "{yaml}");
    for (field, file) in [
        ("certificate-authority-data", "server-ca.crt"),
        ("client-certificate-data", "client-admin.crt"),
        ("client-key-data", "client-admin.key"),
    ] {
        let encoded = openssl(&["base64", "-A", "-in", text(&server.tls(file))]);
        assert!(yaml.contains(&format!("{field}: {}\n", encoded.trim())), "{field}");
    }
    let controller = server.text("cred/controller.kubeconfig");
    assert!(
        controller.contains(&format!("client-key: {}\n", text(&server.tls("client-controller.key")))),
        "{controller}"
    );
    drop(server.stop().await);
}

#[tokio::test]
async fn a_certificate_says_what_was_requested_and_approved() {
    let server = Server::start(Clock::system()).await;
    let path = |name: &str| server.folder.path().join(name);
    let (key, request, made) = (path("site.key"), path("site.csr"), path("site.crt"));
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", text(&key)]);
    let names = "subjectAltName=DNS:a.example,IP:10.0.0.1,IP:fd00::1,email:a@example.org,URI:spiffe://a/b";
    let new = ["req", "-new", "-key", text(&key), "-subj", "/O=dev/O=ops/CN=Jos\u{e9}", "-utf8", "-addext", names];
    openssl(&[&new[..], &["-out", text(&request)]].concat());
    let read = CertificateRequest::from_pem(&fs::read(&request).expect("it was made")).expect("openssl signed it");
    assert_eq!((read.common_name.as_str(), read.organizations.join(" ").as_str()), ("Jos\u{e9}", "dev ops"));
    assert_eq!((read.hosts().collect::<Vec<_>>(), read.addresses().count()), (vec!["a.example"], 2));
    assert_eq!(
        (&read.emails[..], &read.uris[..]),
        (&["a@example.org".to_owned()][..], &["spiffe://a/b".to_owned()][..])
    );
    let snapshot = server.certificates.current().expect("it is up");
    let now = server.system.clock().wall();
    let usages =
        ["digital signature", "key encipherment", "client auth", "client auth", "decipher only"].map(str::to_owned);
    let ends = now + std::time::Duration::from_secs(3600);
    let terms = |usages| Terms { usages, not_before: now, not_after: ends };
    let authority = snapshot.authority(Authority::Client);
    let signed = authority.sign_requested(&read, terms(&usages)).expect("it can be signed");
    assert_eq!(signed.not_after.as_secs(), ends.as_secs());
    fs::write(&made, signed.to_pem()).expect("it is written");
    openssl(&["verify", "-CAfile", text(&server.tls("client-ca.crt")), "-purpose", "sslclient", text(&made)]);
    let shown = print(&made, &["-ext", "keyUsage,extendedKeyUsage,subjectAltName,basicConstraints"]);
    for line in [
        "Digital Signature, Key Encipherment, Decipher Only",
        "TLS Web Client Authentication\n",
        "CA:FALSE",
        "DNS:a.example, IP Address:10.0.0.1, IP Address:FD00:0:0:0:0:0:0:1, email:a@example.org, URI:spiffe://a/b",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    assert_eq!(public_key(&["x509", "-noout", "-pubkey"], &made), public_key(&["pkey", "-pubout"], &key));
    let unknown = ["world domination".to_owned()];
    assert!(authority.sign_requested(&read, terms(&unknown)).is_err());
    assert!(CertificateRequest::from_pem(b"-----BEGIN CERTIFICATE REQUEST-----\n-----END").is_err());
    drop(server.stop().await);
}

#[tokio::test]
async fn a_node_gets_a_certificate_for_the_key_of_its_request() {
    let server = Server::start(Clock::system()).await;
    let path = |name: &str| server.folder.path().join(name);
    let (key, request, made) = (path("node.key"), path("node.csr"), path("node.crt"));
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&key)]);
    let new = ["req", "-new", "-key", text(&key), "-outform", "DER", "-out", text(&request), "-subj", "/CN=ignored"];
    openssl(&new);
    let mut bytes = fs::read(&request).expect("it was made");
    let public = requested_key(&bytes).expect("openssl signed it");
    let snapshot = server.certificates.current().expect("it is up");
    let now = server.system.clock().wall();
    let subject = ("system:node:one", &["system:nodes"][..]);
    let signed = snapshot.authority(Authority::Client).sign(subject, &[], Usage::Client, &public, now);
    fs::write(&made, signed.expect("it can be signed").to_pem()).expect("it is written");
    let authority = server.tls("client-ca.crt");
    openssl(&["verify", "-CAfile", text(&authority), "-purpose", "sslclient", text(&made)]);
    let subject = print(&made, &["-subject", "-nameopt", "RFC2253,-dn_rev"]);
    assert_eq!(subject.trim(), "subject=O=system:nodes,CN=system:node:one");
    assert_eq!(public_key(&["x509", "-noout", "-pubkey"], &made), public_key(&["pkey", "-pubout"], &key));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(requested_key(&bytes).is_err(), "whoever asks has to have the key");
    drop(server.stop().await);
}
