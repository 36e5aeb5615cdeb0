//! The files of a server through many starts: what is made, what stays, what is made again, and what a start that was cut
//! short leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use super::*;
use crate::config::{AdminKubeconfig, NodeNames, ServerNames, TokenConfig};
use crate::plan::{RENEWAL_WINDOW, Reason};
use crate::table::LeafRow;
use crate::x509::{San, Usage};

/// The leaves of a server without a node.
fn leaves() -> impl Iterator<Item = &'static LeafRow> {
    LEAVES.iter().filter(|row| !row.name.is_of_node())
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// 2026-01-01, when the tests happen.
const NOW: Duration = Duration::from_secs(1_767_225_600);

struct Server {
    _folder: tempfile::TempDir,
    config: PkiConfig,
}

impl Server {
    fn new() -> Self {
        // In memory, where there is such a place: making files durable is most of the time that these tests would take.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let config = PkiConfig {
            server_dir: folder.path().join("server"),
            names: ServerNames { node_name: "one".to_owned(), ..ServerNames::default() },
            etcd: true,
            api_url: "https://127.0.0.1:6444".to_owned(),
            admin: Some(AdminKubeconfig {
                default_path: folder.path().join("etc/k3s.yaml"),
                output: Some(folder.path().join("elsewhere.yaml")),
                mode: 0o644,
                group: None,
                name: "default".to_owned(),
                url: "https://127.0.0.1:6443".to_owned(),
            }),
            tokens: TokenConfig::default(),
            node: None,
        };
        Self { _folder: folder, config }
    }

    /// One without files, but for the one that takes its time to make.
    fn with_service_key() -> Self {
        static KEY: OnceLock<String> = OnceLock::new();
        let server = Self::new();
        let key = KEY.get_or_init(|| PrivateKey::generate_rsa().expect("random").to_pem());
        let mut files = Files::default();
        files.directory(&server.config.tls("")).expect("it is made");
        files.write(&server.config.tls(SERVICE_KEYS), key.as_bytes(), SECRET).expect("it is written");
        server
    }

    /// One that was started before.
    fn started() -> Self {
        let server = Self::with_service_key();
        server.keep(NOW);
        server
    }

    fn keep(&self, now: Duration) -> (Snapshot, u32) {
        let mut files = Files::default();
        let snapshot = keep(&self.config, &mut files, now).unwrap_or_else(|error| panic!("{error:?}"));
        (snapshot, files.changes())
    }

    /// What the plan would make, and why.
    fn wants(&self, now: Duration) -> BTreeMap<String, Reason> {
        let found = look(&self.config).expect("it can be read");
        let plan = plan(&found, &self.config, now).expect("all authorities can be used");
        let authorities = plan.authorities.into_iter().map(|(name, action)| (name.to_string(), action));
        let leaves = plan.leaves.into_iter().map(|(name, action)| (name.to_string(), action));
        let made = |(name, action)| match action {
            Action::Keep => None,
            Action::Make { reason, .. } => Some((name, reason)),
        };
        authorities.chain(leaves).filter_map(made).collect()
    }

    /// Everything below the directory: bytes, mode, and which file it is.
    fn content(&self) -> BTreeMap<String, (Vec<u8>, u32, u64)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.config.server_dir.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("it is there") {
                let path = entry.expect("an entry").path();
                let facts = fs::symlink_metadata(&path).expect("it is there");
                let name = path.strip_prefix(&self.config.server_dir).expect("below it").display().to_string();
                if facts.is_dir() {
                    assert_eq!(facts.mode() & 0o777, 0o700, "{name}");
                    folders.push(path);
                } else {
                    found.insert(name, (fs::read(&path).expect("it is there"), facts.mode(), facts.ino()));
                }
            }
        }
        found
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.config.server_dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.config.tls(name)).expect("it is there");
    }

    /// Replaces a leaf's certificate by one of the test's making.
    fn forge(&self, row: &LeafRow, change: impl FnOnce(&mut Request<'_>, &mut Duration), signer: Authority) {
        let pair =
            complete(&self.config.leaf_certificate(row.name), &self.config.leaf_key(row.name)).expect("it is there");
        let signer = authority(&self.config, signer).expect("it is there");
        let sans = self.config.sans(row);
        let mut now = NOW;
        let common_name = self.config.common_name(row);
        let mut request =
            Request { common_name: &common_name, organizations: row.organizations, sans: &sans, usage: row.usage };
        change(&mut request, &mut now);
        let key = pair.key().public_key_info();
        let made = issue(&request, key, (signer.certificate(), signer.key()), now).expect("it can be made");
        fs::write(self.config.leaf_certificate(row.name), made.to_pem()).expect("it is written");
    }
}

#[test]
fn a_server_without_anything_makes_its_service_key_itself() {
    let server = Server::new();
    server.keep(NOW);
    assert!(server.bytes("tls/service.key").starts_with(b"-----BEGIN RSA PRIVATE KEY-----\n"));
    assert_eq!(server.bytes("tls/service.key"), server.bytes("tls/service.current.key"));
}

#[test]
fn each_row_of_the_tables_is_made_as_it_says() {
    let server = Server::started();
    let (snapshot, _) = server.keep(NOW);
    for row in AUTHORITIES {
        let made = snapshot.authority(row.name).certificate();
        assert_eq!(made.common_name, format!("{}-ca@{}", row.prefix, NOW.as_secs()));
        assert_eq!((made.not_before, made.not_after), (NOW, NOW + DAY * 3650));
        assert!(made.is_authority && made.is_root() && made.is_signed_by(made));
    }
    for row in leaves() {
        let pair = snapshot.leaf(row.name).expect("it is wanted");
        let (made, signer) = (pair.certificate(), snapshot.authority(row.signer));
        assert_eq!(
            (made.common_name.as_str(), &made.organizations[..]),
            (server.config.common_name(row).as_str(), &owned(row.organizations)[..])
        );
        assert_eq!(made.sans, server.config.sans(row), "{}", row.stem);
        assert_eq!(made.not_after, NOW + DAY * 365);
        assert_eq!(made.not_before, NOW, "an hour back, but not before its authority");
        assert!(made.is_signed_by(signer.certificate()) && !made.is_authority, "{}", row.stem);
        assert_eq!(&pair.certificates()[1..], signer.certificates(), "{}: leaf, then bundle", row.stem);
        assert_eq!(made.authority_key, signer.certificate().subject_key);
    }
    assert_eq!(snapshot.service_keys().len(), 1);
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn every_file_has_its_mode_and_nothing_else_is_there() {
    let server = Server::started();
    let mut expected: Vec<String> = Vec::new();
    for stem in AUTHORITIES.iter().map(|row| row.stem).chain(leaves().map(|row| row.stem)) {
        expected.extend([format!("tls/{stem}.crt"), format!("tls/{stem}.key")]);
    }
    expected.extend(SHARED_KEYS.iter().map(|row| format!("tls/{}.key", row.stem)));
    expected.extend(
        ["client-ca.nochain.crt", "server-ca.nochain.crt", "service.key", "service.current.key"]
            .map(|name| format!("tls/{name}")),
    );
    expected.extend(crate::table::KUBECONFIGS.iter().map(|(name, _)| format!("cred/{name}")));
    expected.extend(["cred/passwd", "cred/ipsec.psk", "token", "node-token", "agent-token"].map(str::to_owned));
    expected.sort();
    let content = server.content();
    assert_eq!(content.keys().cloned().collect::<Vec<_>>(), expected);
    for (name, (_, mode, _)) in content {
        let link = ["node-token", "agent-token"].contains(&name.as_str());
        let wanted = if link {
            0o120_777
        } else if name.ends_with(".crt") {
            0o100_644
        } else {
            0o100_600
        };
        assert_eq!(mode, wanted, "{name}: {mode:o}");
    }
}

#[test]
fn a_second_start_changes_nothing() {
    let server = Server::started();
    let before = server.content();
    let (_, changes) = server.keep(NOW + DAY);
    assert_eq!(changes, 0);
    assert_eq!(server.content(), before, "byte for byte, and the same files");
}

#[test]
fn each_reason_to_make_a_leaf_again_is_seen() {
    let server = Server::started();
    let (admin, api) = (Leaf::Admin.row(), Leaf::ServingApiServer.row());
    let check = |row: &LeafRow, wanted: Reason| {
        assert_eq!(server.wants(NOW), BTreeMap::from([(row.stem.to_owned(), wanted.clone())]));
        let (snapshot, _) = server.keep(NOW);
        assert_eq!(server.wants(NOW), BTreeMap::new(), "{wanted} is mended");
        snapshot.leaf(row.name).expect("it is wanted").key().to_pem()
    };
    let key = String::from_utf8(server.bytes("tls/client-admin.key")).expect("text");
    server.remove("client-admin.crt");
    assert_eq!(check(admin, Reason::CertificateMissing), key, "the key is kept, as nothing is wrong with it");
    server.remove("client-admin.key");
    assert_ne!(check(admin, Reason::KeyMissing), key);
    server.forge(admin, |request, _| request.common_name = "somebody", Authority::Client);
    check(admin, Reason::CommonName);
    server.forge(admin, |request, _| request.organizations = &[], Authority::Client);
    check(admin, Reason::Organizations);
    server.forge(admin, |_, now| *now = NOW - DAY * 245, Authority::Client);
    check(admin, Reason::Expires);
    server.forge(admin, |_, now| *now = NOW + DAY, Authority::Client);
    check(admin, Reason::NotYetValid);
    server.forge(admin, |_, _| (), Authority::Server);
    check(admin, Reason::OtherAuthority);
    let named = San::new("kubernetes.default");
    let fewer: Vec<San> = server.config.sans(api).into_iter().filter(|san| *san != named).collect();
    server.forge(api, |request, _| *request = Request { sans: &[], ..request.clone() }, Authority::Server);
    check(api, Reason::SanMissing(San::new("kubernetes")));
    let pair = complete(&server.config.certificate(api.stem), &server.config.key(api.stem)).expect("it is there");
    let signer = authority(&server.config, Authority::Server).expect("it is there");
    let made = signer.sign((api.common_name, &[]), &fewer, Usage::Server, pair.key().public_key_info(), NOW);
    fs::write(server.config.certificate(api.stem), made.expect("it is made").to_pem()).expect("it is written");
    check(api, Reason::SanMissing(named));
    fs::write(server.config.certificate(admin.stem), "not a certificate").expect("it is written");
    check(admin, Reason::Broken(MaterialError::Absent { what: "certificate" }));
    fs::copy(server.config.key("client-scheduler"), server.config.key(admin.stem)).expect("it is copied");
    check(admin, Reason::Broken(MaterialError::Mismatch));
}

#[test]
fn a_signature_by_somebody_with_the_same_name_and_key_identifier_is_noticed() {
    let server = Server::started();
    let row = Leaf::Admin.row();
    let path = server.config.certificate(row.stem);
    let pair = complete(&server.config.certificate(row.stem), &server.config.key(row.stem)).expect("it is there");
    let mut der = pair.certificate().der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    fs::write(&path, pem::section("CERTIFICATE", &der)).expect("it is written");
    assert_eq!(server.wants(NOW), BTreeMap::from([(row.stem.to_owned(), Reason::NotSigned)]));
}

#[test]
fn a_leaf_is_renewed_in_its_last_120_days_and_authorities_never() {
    let server = Server::started();
    let before = server.content();
    let due = NOW + DAY * 365 - RENEWAL_WINDOW;
    assert_eq!(server.wants(due - Duration::from_secs(1)), BTreeMap::new());
    assert!(server.wants(due).values().all(|reason| *reason == Reason::Expires));
    assert_eq!(server.wants(due).len(), leaves().count());
    let (snapshot, _) = server.keep(due);
    assert!(snapshot.ends().all(|end| end == due + DAY * 365));
    let after = server.content();
    for (name, content) in before {
        let is_leaf = leaves().any(|row| name.starts_with(&format!("tls/{}.", row.stem)));
        assert_eq!(after[&name] == content, !is_leaf, "{name}");
    }
    // Long after the ten years of the authorities there still is nothing that replaces them.
    assert!(!server.wants(NOW + DAY * 5000).keys().any(|name| name.ends_with("-ca")));
}

#[test]
fn a_start_may_be_cut_short_anywhere() {
    let mut cuts = 0;
    for cut in 0.. {
        let server = Server::with_service_key();
        if keep(&server.config, &mut Files::dying_at(cut), NOW).is_ok() {
            break;
        }
        cuts = cut;
        check_heals(&server, NOW);
    }
    assert!(cuts > 40, "the start was cut in {cuts} places");
}

#[test]
fn a_renewal_may_be_cut_short_anywhere() {
    let server = Server::started();
    let mut now = NOW;
    for cut in (0..).step_by(3) {
        now += DAY * 300;
        if keep(&server.config, &mut Files::dying_at(cut), now).is_ok() {
            assert!(cut > 20);
            break;
        }
        check_heals(&server, now);
    }
}

#[test]
fn a_start_repairs_the_files_that_nobody_waited_for_when_they_are_empty() {
    let server = Server::started();
    let before = server.content();
    let mut durable: Vec<String> =
        vec!["tls/service.key".to_owned(), "cred/passwd".to_owned(), "cred/ipsec.psk".to_owned()];
    durable
        .extend(AUTHORITIES.iter().flat_map(|row| [format!("tls/{}.crt", row.stem), format!("tls/{}.key", row.stem)]));
    for name in before.keys().filter(|name| !durable.contains(name)) {
        fs::write(server.config.server_dir.join(name), "").expect("it is emptied");
    }
    server.keep(NOW);
    assert_eq!(server.keep(NOW).1, 0);
    let after = server.content();
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (name, (bytes, mode, _)) in after {
        assert!(!bytes.is_empty(), "{name}");
        assert_eq!(mode, before[&name].1, "{name}");
        let derived = name.starts_with("cred/")
            || name.ends_with("token")
            || name.contains("nochain")
            || name.contains("current");
        assert!(bytes == before[&name].0 || !(derived || durable.contains(&name)), "{name} is as it was");
    }
}

/// The next start repairs what a cut left, keeps each authority that was complete, and the one after it has nothing to do.
fn check_heals(server: &Server, now: Duration) {
    let complete_before: Vec<_> = AUTHORITIES
        .iter()
        .filter_map(|row| complete(&server.config.certificate(row.stem), &server.config.key(row.stem)).ok())
        .collect();
    let (snapshot, _) = server.keep(now);
    for pair in complete_before {
        assert!(AUTHORITIES.iter().any(|row| snapshot.authority(row.name).certificate() == pair.certificate()));
    }
    let before = server.content();
    assert_eq!(server.keep(now).1, 0);
    assert_eq!(server.content(), before);
    assert!(!before.keys().any(|name| name.ends_with(".new")), "nothing is left beside the files");
}

#[test]
fn an_authority_is_completed_from_its_key_and_made_anew_without_one() {
    let server = Server::started();
    let key = server.bytes("tls/client-ca.key");
    server.remove("client-ca.crt");
    let (snapshot, _) = server.keep(NOW + DAY);
    assert_eq!(server.bytes("tls/client-ca.key"), key);
    assert!(
        snapshot
            .leaf(Leaf::Admin)
            .expect("wanted")
            .certificate()
            .is_signed_by(snapshot.authority(Authority::Client).certificate())
    );
    server.remove("client-ca.key");
    server.keep(NOW + DAY * 2);
    assert_ne!(server.bytes("tls/client-ca.key"), key);
    assert_eq!(server.wants(NOW + DAY * 2), BTreeMap::new());
}

#[test]
fn a_damaged_authority_stops_the_start_and_is_not_touched() {
    let server = Server::started();
    fs::write(server.config.certificate("server-ca"), "damaged").expect("it is written");
    let outcome = keep(&server.config, &mut Files::default(), NOW);
    assert!(matches!(outcome, Err(PkiError::Authority { .. })), "{outcome:?}");
    assert_eq!(server.bytes("tls/server-ca.crt"), b"damaged");
    fs::copy(server.config.certificate("client-ca"), server.config.certificate("server-ca")).expect("it is copied");
    let outcome = keep(&server.config, &mut Files::default(), NOW);
    let Err(PkiError::Authority { source, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(source, MaterialError::Mismatch);
}

#[test]
fn the_authority_of_an_old_release_is_adopted_even_when_half_done() {
    let donor = Server::started();
    for key_is_linked in [false, true] {
        let server = Server::with_service_key();
        for ending in ["crt", "key"] {
            fs::copy(
                donor.config.tls(&format!("server-ca.{ending}")),
                server.config.tls(&format!("token-ca.{ending}")),
            )
            .expect("it is copied");
        }
        if key_is_linked {
            fs::hard_link(server.config.tls("token-ca.key"), server.config.tls("server-ca.key")).expect("it is linked");
        }
        let (snapshot, _) = server.keep(NOW);
        assert_eq!(
            snapshot.authority(Authority::Server).certificate(),
            donor.keep(NOW).0.authority(Authority::Server).certificate()
        );
        let node = |name: &str| fs::metadata(server.config.tls(name)).expect("it is there").ino();
        assert_eq!((node("token-ca.crt"), node("token-ca.key")), (node("server-ca.crt"), node("server-ca.key")));
    }
}

#[test]
fn several_service_keys_verify_and_the_first_signs() {
    let server = Server::started();
    let old = server.bytes("tls/service.key");
    let new = PrivateKey::generate_ec().expect("random").to_pem();
    let both = [new.as_bytes(), &old].concat();
    fs::write(server.config.tls("service.key"), &both).expect("it is written");
    let (snapshot, _) = server.keep(NOW);
    assert_eq!(snapshot.service_keys().len(), 2);
    assert_eq!(server.bytes("tls/service.current.key"), new.as_bytes());
    assert_eq!(server.bytes("tls/service.key"), both);
}

#[test]
fn certificates_of_an_older_release_are_taken_away_and_without_etcd_there_are_fewer() {
    let mut server = Server::started();
    fs::write(server.config.certificate("client-kube-proxy"), "old").expect("it is written");
    server.config.etcd = false;
    let (snapshot, changes) = server.keep(NOW);
    assert!(!server.config.certificate("client-kube-proxy").exists());
    assert_eq!(changes, 1);
    assert!(snapshot.leaf(Leaf::EtcdServer).is_none() && snapshot.leaf(Leaf::EtcdClient).is_some());
}

#[test]
fn a_node_on_the_server_has_files_of_its_own() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut server = Server::started();
    let agent = server.config.server_dir.with_file_name("agent");
    let (name, addresses) = ("one".to_owned(), vec!["192.0.2.7".parse().expect("an address")]);
    server.config.node = Some(NodeNames { agent_dir: agent.clone(), name, addresses });
    server.keep(NOW);
    let stems = ["client-kubelet", "serving-kubelet", "client-kube-proxy", "client-k3s-controller"];
    let pairs = stems.iter().flat_map(|stem| [format!("{stem}.crt"), format!("{stem}.key")]);
    let others = ["client-ca.crt", "server-ca.crt", "kubelet.kubeconfig", "kubeproxy.kubeconfig"];
    for name in pairs.chain(others.map(str::to_owned)).chain(["k3scontroller.kubeconfig".to_owned()]) {
        let found = fs::metadata(agent.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let read = |name: &str| fs::read_to_string(agent.join(name)).expect("it is there");
    let (snapshot, _) = server.keep(NOW);
    let kubelet = snapshot.leaf(Leaf::Kubelet).expect("it is wanted").certificate();
    assert_eq!((&*kubelet.common_name, &kubelet.organizations[..]), ("system:node:one", &owned(&["system:nodes"])[..]));
    let serving = snapshot.leaf(Leaf::ServingKubelet).expect("it is wanted").certificate();
    let sans: Vec<String> = serving.sans.iter().map(San::to_string).collect();
    assert_eq!((&*serving.common_name, sans.join(" ")), ("one", "one 127.0.0.1 ::1 localhost 192.0.2.7".to_owned()));
    assert_eq!(read("server-ca.crt").as_bytes(), server.bytes("tls/server-ca.crt"));
    assert!(
        read("kubelet.kubeconfig").contains(&format!("client-key: {}", agent.join("client-kubelet.key").display()))
    );
    // A name more, and only the certificate that lacks it is made again.
    let mut renamed = server.config.clone();
    renamed.node.as_mut().expect("a node").addresses.push("192.0.2.8".parse().expect("an address"));
    let before = stems.map(|stem| read(&format!("{stem}.crt")));
    keep(&renamed, &mut Files::default(), NOW).expect("it can be made");
    let changed: Vec<bool> = stems.iter().zip(before).map(|(stem, old)| read(&format!("{stem}.crt")) != old).collect();
    assert_eq!(changed, [false, true, false, false]);
}
