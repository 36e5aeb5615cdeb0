//! The rules that settings keep, from flags or files to the typed configuration.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use k3sd_kine::StoreConfig;

use super::*;

/// Ten years after the epoch's start is well past the day a clock must have reached.
const NOW: Duration = Duration::from_secs(40 * 365 * 24 * 3600);

fn environment() -> Environment {
    let mut environment = Environment::empty(SystemTime::UNIX_EPOCH + NOW);
    environment.cwd = "/cwd".into();
    environment.root = "/nowhere".into();
    environment
}

fn command_line(role: Role, args: &[&str]) -> Vec<Occurrence> {
    let occurrence = |arg: &&str| {
        let (name, text) = arg.split_once('=').unwrap_or((arg, "true"));
        Occurrence { flag: role.flag(name).unwrap_or_else(|| panic!("no flag {name}")), text: text.to_owned() }
    };
    args.iter().map(occurrence).collect()
}

/// Builds without asking whether the parts exist.
fn build_with(role: Role, args: &[&str], change: impl FnOnce(&mut Facts)) -> Result<RunConfig, String> {
    let mut facts = Facts {
        cwd: "/cwd".into(),
        home: None,
        is_root: true,
        has_server_token: false,
        has_kubelet_certificate: false,
        variables: BTreeMap::new(),
    };
    change(&mut facts);
    let settings = settings::resolve(role, &[], &command_line(role, args), &environment().vars).unwrap();
    build(&settings, &facts).map_err(|error| error.to_string())
}

fn build_server(args: &[&str]) -> Result<ServerConfig, String> {
    match build_with(Role::Server, args, |_| {})?.role {
        RoleConfig::Server(server) => Ok(*server),
        RoleConfig::Agent(_) => panic!("asked for a server"),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_server_with_no_flags_is_that_of_k3s() {
    let config = build_with(Role::Server, &[], |_| {}).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/rancher/k3s"));
    assert_eq!(config.log, LogConfig::default());
    let socket = PathBuf::from("/run/k3s/inspect.sock");
    assert_eq!(config.inspect, InspectConfig { socket, actor_control: false });
    assert_eq!(config.probe, ProbeConfig::default());
    let server = build_server(&[]).unwrap();
    let ports = (server.listen.https_port, server.listen.supervisor_port, server.listen.apiserver_port);
    assert_eq!((ports, server.listen.advertise_port), ((6443, 6443, 6444), 6443));
    assert!(server.listen.tls_san_security);
    assert_eq!(server.network.cluster_cidrs, ["10.42.0.0/16".parse().unwrap()]);
    assert_eq!(server.network.service_cidrs, ["10.43.0.0/16".parse().unwrap()]);
    assert_eq!(server.network.cluster_dns, [ip("10.43.0.10")]);
    assert_eq!(server.network.node_ports, PortRange { first: 30000, last: 32767 });
    assert_eq!((server.kubeconfig.mode, server.kubeconfig.name.as_str()), (0o600, "default"));
    assert_eq!(server.snapshots.directory, PathBuf::from("/var/lib/rancher/k3s/server/db/snapshots"));
    assert_eq!((server.snapshots.retention, server.snapshots.s3), (5, None));
    assert_eq!(server.snapshots.reconcile_interval, Duration::from_secs(600));
    assert_eq!(server.components.local_storage_path, PathBuf::from("/var/lib/rancher/k3s/storage"));
    assert_eq!(server.secrets_encryption, None);
    let node = server.node.expect("a server runs a node");
    assert_eq!((node.lb_server_port, node.runtime.snapshotter.as_str()), (6444, "overlayfs"));
    assert!(node.runtime.default_registry_endpoint);
}

#[test]
fn flags_reach_the_types() {
    let server = build_server(&[
        "https-listen-port=8443",
        "advertise-port=443",
        "tls-san=a,b",
        "tls-san=c",
        "node-ip=192.0.2.1, fd00::1",
        "cluster-cidr=10.1.2.3/16,fd01::/56",
        "service-cidr=10.2.0.0/16",
        "service-cidr=fd02::/112",
        "node-name=Node-A",
        "disable=traefik,ccm",
        "disable=coredns",
        "flannel-backend=host-gw",
        "egress-selector-mode=pod",
        "write-kubeconfig=k.yaml",
        "write-kubeconfig-mode=644",
        "secrets-encryption",
        "secrets-encryption-provider=secretbox",
        "datastore-endpoint=postgres://u:p-hush@h/",
        "kubelet-arg=a=b,c",
        "etcd-s3",
        "etcd-snapshot-retention=7",
        "etcd-s3-bucket-lookup-type=path",
    ])
    .unwrap();
    let ports = (server.listen.supervisor_port, server.listen.apiserver_port, server.listen.advertise_port);
    assert_eq!(ports, (8443, 8444, 443));
    assert_eq!(server.listen.tls_sans, ["a", "b", "c"]);
    assert_eq!(server.network.cluster_dns, [ip("10.2.0.10"), ip("fd02::a")]);
    assert_eq!(server.network.flannel_backend, FlannelBackend::HostGw);
    assert_eq!(server.network.egress_selector, EgressSelector::Pod);
    assert_eq!(server.kubeconfig.path, Some("/cwd/k.yaml".into()));
    assert_eq!(server.kubeconfig.mode, 0o644);
    assert_eq!(server.secrets_encryption, Some(EncryptionProvider::SecretBox));
    assert_eq!(server.components.disable.iter().collect::<Vec<_>>(), ["ccm", "coredns", "traefik"]);
    assert!(!server.components.cloud_controller && server.components.scheduler);
    let s3 = server.snapshots.s3.unwrap();
    assert_eq!((s3.retention, s3.bucket_lookup, s3.region.as_str()), (7, BucketLookup::Path, "us-east-1"));
    let node = server.node.unwrap();
    assert_eq!(node.name.as_deref(), Some("node-a"));
    assert_eq!(node.ips, [ip("192.0.2.1"), ip("fd00::1")]);
    assert_eq!(node.kubelet_arguments, ["a=b,c"], "component arguments keep their commas");
    assert!(!format!("{:?}", server.datastore).contains("hush"), "secrets do not print");
}

#[test]
fn a_server_keeps_its_datastore_where_k3s_does() {
    let store = |args: &[&str]| build_server(args).unwrap().datastore.kine.store;
    let path = |args: &[&str]| match store(args) {
        StoreConfig::Sqlite(options) => options.path.display().to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(path(&[]), "/var/lib/rancher/k3s/server/db/state.db");
    assert_eq!(path(&["data-dir=/d"]), "/d/server/db/state.db");
    assert_eq!(path(&["data-dir=/d", "datastore-endpoint=sqlite://x.db"]), "/d/server/x.db");
    assert_eq!(path(&["datastore-endpoint=sqlite:///x.db"]), "/x.db");
    let tls = ["datastore-cafile=ca", "datastore-certfile=cert", "datastore-keyfile=key"];
    let StoreConfig::Etcd(etcd) = store(&[&["datastore-endpoint=https://a:2379"][..], &tls].concat()) else {
        panic!("it is an etcd")
    };
    assert_eq!((etcd.tls.ca, etcd.tls.key), (Some("/cwd/ca".into()), Some("/cwd/key".into())));
}

#[test]
fn the_datastore_hears_kines_variables_and_compacts_when_asked_alone() {
    let with = |name: &str, value: &str| {
        let variables = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        build_with(Role::Server, &[], |facts| facts.variables = variables)
    };
    let config = with("KINE_WATCH_PROGRESS_NOTIFY_INTERVAL", "7s").unwrap();
    let RoleConfig::Server(server) = config.role else { panic!("asked for a server") };
    assert_eq!(server.datastore.kine.progress_interval, Duration::from_secs(7));
    assert_eq!(server.datastore.kine.compact.interval, Duration::ZERO);
    assert_eq!(config.warnings, Vec::<String>::new());
    let warnings = with("KINE_POLL_BATCH_SIZE", "1").unwrap().warnings;
    assert!(warnings[0].starts_with("environment variable KINE_POLL_BATCH_SIZE has no effect: "), "{warnings:?}");
    let error = with("KINE_COMPACT_MIN_RETAIN", "many").unwrap_err();
    assert!(error.starts_with("environment variable KINE_COMPACT_MIN_RETAIN: "), "{error}");
    // Variables of an agent's machine are nobody's business.
    let variables = BTreeMap::from([("KINE_COMPACT_MIN_RETAIN".to_owned(), "many".to_owned())]);
    let agent = ["server=https://s", "token=t"];
    assert!(build_with(Role::Agent, &agent, |facts| facts.variables = variables).is_ok());
}

#[test]
fn a_datastore_that_can_not_be_had_is_named_without_its_secrets() {
    let rows: [(&[&str], &str); 4] = [
        (&["datastore-endpoint=root:hush"], "--datastore-endpoint: "),
        (&["datastore-endpoint=nats://me:hush@h"], "--datastore-endpoint: "),
        (
            &["datastore-certfile=c"],
            "--datastore-certfile: goes together with --datastore-keyfile; set both or neither",
        ),
        (&["datastore-keyfile=k"], "--datastore-keyfile: goes together with --datastore-certfile; "),
    ];
    for (args, start) in rows {
        let error = build_server(args).unwrap_err();
        assert!(error.starts_with(start) && !error.contains("hush"), "{args:?}: {error}");
    }
}

#[test]
fn an_ipv6_node_gets_ipv6_networks() {
    let network = build_server(&["node-ip=fd00::5"]).unwrap().network;
    assert_eq!(network.cluster_cidrs, ["fd00:42::/56".parse().unwrap()]);
    assert_eq!(network.service_cidrs, ["fd00:43::/112".parse().unwrap()]);
    assert_eq!(network.cluster_dns, [ip("fd00:43::a")]);
}

#[test]
fn resetting_leaves_etcd_alone() {
    let server = build_server(&["cluster-reset"]).unwrap();
    assert!(server.cluster.init && server.cluster.reset && server.node.is_none() && !server.snapshots.scheduled);
    let components = &server.components;
    assert!(!components.apiserver && !components.controller_manager && !components.scheduler && components.etcd);
    assert!(!components.cloud_controller && components.disable.contains("servicelb"));
    let apart = build_server(&["cluster-reset", "supervisor-port=9345"]).unwrap();
    assert!(apart.node.is_some(), "with a supervisor of its own the node has someone to talk to");
}

#[test]
fn server_rules() {
    let rows: [(&[&str], &str); 35] = [
        (&["cluster-reset-restore-path=/s"], "--cluster-reset-restore-path: restores only while resetting"),
        (&["cluster-reset", "cluster-reset-restore-path=/s"], "--cluster-reset-restore-path: needs the token"),
        (&["cluster-reset", "server=https://s:6443"], "--cluster-reset: can't reset a cluster and join one"),
        (&["disable-etcd"], "--disable-etcd: leaves no datastore; add --server"),
        (&["datastore-endpoint=x://y", "disable-apiserver"], "--disable-apiserver: splits roles"),
        (&["datastore-endpoint=x://y", "disable-etcd", "server=https://s"], "--disable-etcd: splits roles"),
        (
            &["egress-selector-mode=all"],
            "--egress-selector-mode: \"all\" is not one of the choices; write one of agent",
        ),
        (&["flannel-backend=ipsec"], "--flannel-backend: \"ipsec\" is not one of the choices"),
        (&["secrets-encryption-provider=rot13"], "--secrets-encryption-provider: \"rot13\" is not one"),
        (&["etcd-s3-bucket-lookup-type=x"], "--etcd-s3-bucket-lookup-type: \"x\" is not one"),
        (&["etcd-snapshot-reconcile-interval=0"], "--etcd-snapshot-reconcile-interval: \"0\" is no time at all"),
        (&["etcd-s3-timeout=0s"], "--etcd-s3-timeout: \"0s\" is no time at all"),
        (
            &["cluster-cidr=10.42.0.0"],
            "--cluster-cidr: \"10.42.0.0\" is not a network in CIDR notation; write one such",
        ),
        (&["service-cidr=10.43.0.0/40"], "--service-cidr: \"10.43.0.0/40\" is not a network"),
        (&["cluster-cidr=10.1.0.0/16,10.2.0.0/16"], "--cluster-cidr: 10.2.0.0/16 is a second IPv4 network beside"),
        (&["service-cidr=fd02::/112"], "--service-cidr: pods (10.42.0.0/16) and services (fd02::/112) must have"),
        (&["cluster-cidr=fd01::/56"], "--cluster-cidr: pods (fd01::/56) and services (10.43.0.0/16) must have"),
        (&["cluster-cidr=10.0.0.0/16,fd01::/56"], "--cluster-cidr: pods (10.0.0.0/16, fd01::/56) and services"),
        (
            &["cluster-cidr=fd01::/56", "service-cidr=fd02::/112", "node-ip=192.0.2.1"],
            "--cluster-cidr: the pod networks (fd01::/56) need a node address of each IP family, and there is none of IPv6",
        ),
        (&["service-cidr=10.43.0.0/30"], "--service-cidr: 10.43.0.0/30 is too small"),
        (&["cluster-dns=dns"], "--cluster-dns: \"dns\" is not an IP address"),
        (&["node-ip=192.0.2.1,x"], "--node-ip: \"x\" is not an IP address"),
        (&["bind-address=eth0"], "--bind-address: \"eth0\" is not an IP address"),
        (&["https-listen-port=0"], "--https-listen-port: \"0\" is not a port"),
        (&["https-listen-port=65536"], "--https-listen-port: \"65536\" is not a port"),
        (&["https-listen-port=65535"], "--https-listen-port: 65535 leaves no port"),
        (&["supervisor-port=-1"], "--supervisor-port: \"-1\" is not a port"),
        (&["lb-server-port=0"], "--lb-server-port: \"0\" is not a port"),
        (&["service-node-port-range=5-1"], "--service-node-port-range: \"5-1\" is not a range of ports"),
        (&["server=http://s"], "--server: \"http://s\" is not an https URL"),
        (&["server=https://"], "--server: \"https://\" is not an https URL"),
        (&["log-format=xml"], "--log-format: \"xml\" is not one of the choices; write one of auto, text, json"),
        (&["v=-1"], "-v: \"-1\" is out of range; write a number from 0 to 255"),
        (&["probe-actors=-1"], "--probe-actors: \"-1\" is out of range"),
        (&["print-config=xml"], "--print-config: \"xml\" is not one of the choices"),
    ];
    for (args, start) in rows {
        let error = build_server(args).unwrap_err();
        assert!(error.starts_with(start), "{args:?}: {error}");
        assert!(!error.contains('\n') && error.contains(';'), "{args:?} says what to do: {error}");
    }
}

#[test]
fn what_a_reset_finds_decides() {
    let args = ["cluster-reset", "cluster-reset-restore-path=/s"];
    assert!(build_with(Role::Server, &args, |facts| facts.has_server_token = true).is_ok());
    assert!(build_server(&[&args[..], &["token=t"]].concat()).is_ok());
    assert!(build_server(&[&args[..], &["token-file=/t"]].concat()).is_ok());
}

#[test]
fn only_root_runs_nodes() {
    let as_user = |role, args: &[&str]| {
        build_with(role, args, |facts| {
            facts.is_root = false;
            facts.home = Some("/home/me".into());
        })
    };
    assert!(as_user(Role::Server, &[]).unwrap_err().contains("must run as root"));
    assert!(as_user(Role::Server, &["rootless"]).is_ok());
    let config = as_user(Role::Server, &["disable-agent"]).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/home/me/.rancher/k3s"));
    let agent = ["server=https://s", "token=t"];
    assert!(as_user(Role::Agent, &agent).unwrap_err().contains("must run as root"));
    let homeless = build_with(Role::Server, &["disable-agent"], |facts| facts.is_root = false).unwrap_err();
    assert!(homeless.contains("set HOME or --data-dir"), "{homeless}");
}

#[test]
fn agents_need_a_server_and_a_token() {
    let agent =
        |args: &[&str], certificate| build_with(Role::Agent, args, |facts| facts.has_kubelet_certificate = certificate);
    assert!(agent(&["token=t"], false).unwrap_err().contains("--server or K3S_URL"));
    assert!(agent(&["server=https://s"], false).unwrap_err().contains("--token, --token-file or K3S_TOKEN"));
    assert!(agent(&["server=https://s"], true).is_ok(), "a node that joined before needs no token");
    let config = agent(&["server=https://s:6443/x", "token=hush", "disable-apiserver-lb"], false).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    let RoleConfig::Agent(agent) = config.role else { panic!("asked for an agent") };
    assert_eq!(agent.token, Some(Secret::new("hush".to_owned())));
    assert!(!agent.apiserver_load_balancer);
}

#[test]
fn a_clock_before_1980_is_refused() {
    let at = |seconds| {
        let mut environment = environment();
        environment.now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        load(&environment, Role::Server, &[])
    };
    assert!(at(315_532_799).unwrap_err().to_string().contains("clock"));
    assert!(at(315_532_800).is_ok());
}

#[test]
fn what_exists_today_starts() {
    let args =
        ["debug", "v=4", "log=k.log", "alsologtostderr", "log-format=json", "inspect-socket=i.sock", "data-dir=d"];
    let Loaded::Run(config) = load(&environment(), Role::Server, &command_line(Role::Server, &args)).unwrap() else {
        panic!("nobody asked to print");
    };
    let log = LogConfig {
        format: LogFormat::Json,
        file: Some("/cwd/k.log".into()),
        also_stderr: true,
        debug: true,
        verbosity: 4,
        vmodule: None,
    };
    assert_eq!((config.log, config.data_dir), (log, "/cwd/d".into()));
    assert_eq!(config.inspect.socket, PathBuf::from("/cwd/i.sock"));
}

#[test]
fn a_wrong_value_is_reported_before_a_missing_part() {
    let refused = |args: &[&str]| load(&environment(), Role::Server, &command_line(Role::Server, args)).unwrap_err();
    assert!(matches!(refused(&["cluster-dns=x"]), ConfigError::Value { .. }));
    assert!(matches!(refused(&["lb-server-port=7000"]), ConfigError::Unavailable { .. }));
}

/// A config file with one drop-in, and an environment that names it.
fn with_files(main: &str, drop_in: &str) -> (tempfile::TempDir, Environment) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("c.yaml"), main).unwrap();
    fs::create_dir(directory.path().join("c.yaml.d")).unwrap();
    fs::write(directory.path().join("c.yaml.d/x.yaml"), drop_in).unwrap();
    let mut environment = environment();
    let path = directory.path().join("c.yaml").display().to_string();
    environment.vars.insert("K3S_CONFIG_FILE".to_owned(), path);
    (directory, environment)
}

#[test]
fn errors_in_files_name_file_line_and_key() {
    let (directory, environment) = with_files("debug: true\n\ncluster-cidr:\n- 10.42.0.0/16\n- nonsense\n", "");
    let error = load(&environment, Role::Server, &[]).unwrap_err().to_string();
    let start = format!("{}/c.yaml:5: cluster-cidr: \"nonsense\" is not a network", directory.path().display());
    assert!(error.starts_with(&start), "{error}");
    let (directory, environment) = with_files("", "# one\nflannel-iface: n\n");
    let error = load(&environment, Role::Server, &[]).unwrap_err().to_string();
    let start = format!("--flannel-iface (set in {}/c.yaml.d/x.yaml:2) is not available", directory.path().display());
    assert!(error.starts_with(&start), "{error}");
}

#[test]
fn print_config_names_every_origin_and_no_secret() {
    let (directory, mut environment) = with_files(
        "token: hush1\ntls-san: [a]\ndatastore-endpoint: postgres://me:hush2@db/k\nunknown: 1\n",
        "tls-san+: b\nlog-format: json\n",
    );
    environment.vars.insert("K3S_AGENT_TOKEN".to_owned(), "hush3".to_owned());
    environment.vars.insert("K3S_LB_SERVER_PORT".to_owned(), "7000".to_owned());
    let args = ["print-config", "tls-san=c,d", "etcd-s3-secret-key=hush4"];
    let loaded = load(&environment, Role::Server, &command_line(Role::Server, &args)).unwrap();
    let Loaded::Print { text, problem: None } = loaded else { panic!("{loaded:?}") };
    assert!(!text.contains("hush"), "{text}");
    let folder = directory.path().display();
    let squeezed: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = [
        format!("# config files: {folder}/c.yaml, {folder}/c.yaml.d/x.yaml"),
        format!("# warning: {folder}/c.yaml:4: unknown:"),
        format!("config: {folder}/c.yaml # env K3S_CONFIG_FILE"),
        format!("token: \"(not shown)\" # {folder}/c.yaml:1"),
        "agent-token: \"(not shown)\" # env K3S_AGENT_TOKEN".to_owned(),
        format!("- a # {folder}/c.yaml:2 - b # {folder}/c.yaml.d/x.yaml:1"),
        "- \"c,d\" # command line".to_owned(),
        "lb-server-port: 7000 # env K3S_LB_SERVER_PORT, not available yet".to_owned(),
        format!("log-format: json # {folder}/c.yaml.d/x.yaml:2"),
        "https-listen-port: 6443 # default".to_owned(),
        "postgres://(not shown)@db/k".to_owned(),
        "# advertise-port: same as --https-listen-port".to_owned(),
        "# server: not set".to_owned(),
    ];
    for part in parts {
        assert!(squeezed.contains(&part), "{part}\n{text}");
    }
    assert!(yaml::parse(&text).is_ok(), "the text is YAML: {text}");
}

#[test]
fn print_config_as_json() {
    let (directory, environment) =
        with_files("token: hush\nhttps-listen-port: 443\nnode-name: one\nflannel-iface: one\n", "tls-san: [a]\n");
    let loaded = load(&environment, Role::Server, &command_line(Role::Server, &["print-config=json"])).unwrap();
    let Loaded::Print { text, .. } = loaded else { panic!("{loaded:?}") };
    assert!(!text.contains("hush"), "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = |name: &str| {
        let rows = document["settings"].as_array().unwrap();
        rows.iter().find(|row| row["flag"] == name).unwrap().clone()
    };
    assert_eq!(row("https-listen-port")["value"], 443);
    assert_eq!(row("tls-san")["value"], serde_json::json!(["a"]));
    assert_eq!(row("debug")["value"], false);
    assert_eq!(row("advertise-port")["value"], serde_json::Value::Null);
    let origin = &row("token")["given"][0]["origin"];
    let path = directory.path().join("c.yaml").display().to_string();
    assert_eq!(origin, &serde_json::json!({"kind": "file", "path": path, "line": 1, "key": "token"}));
    assert_eq!(row("token")["available"], true);
    assert_eq!(row("node-name")["available"], true);
    assert_eq!(row("flannel-iface")["available"], false);
}

#[test]
fn printing_reports_what_would_not_start() {
    let print = |args: &[&str]| match load(&environment(), Role::Server, &command_line(Role::Server, args)) {
        Ok(Loaded::Print { problem, .. }) => problem.map(|problem| problem.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(print(&["print-config", "token=t"]), None, "a part that is not built yet is no mistake");
    assert!(print(&["print-config", "cluster-cidr=x"]).unwrap().contains("cluster-cidr"));
    assert!(matches!(
        load(&environment(), Role::Server, &command_line(Role::Server, &["print-config=false"])),
        Ok(Loaded::Run(_))
    ));
}
