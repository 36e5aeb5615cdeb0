//! A server's part of the configuration, and the rules that its flags keep between each other.

use std::net::IpAddr;
use std::path::Path;

use crate::config::build::{Facts, node};
use crate::config::cidr::{Cidr, Family};
use crate::config::datastore::datastore;
use crate::config::error::ConfigError;
use crate::config::model::{
    BucketLookup, ClusterConfig, ComponentsConfig, DnsProvider, EgressSelector, EncryptionProvider, FlannelBackend,
    KubeconfigConfig, ListenConfig, NetworkConfig, S3Config, ServerArguments, ServerConfig, ServerJoinConfig,
    SnapshotConfig,
};
use crate::config::read::families;
use crate::config::settings::Settings;

/// Snapshots kept when nobody says how many.
const RETENTION_DEFAULT: u32 = 5;
/// Which address of a service network the DNS service gets.
const DNS_ADDRESS: u128 = 10;

pub(crate) fn server(settings: &Settings, facts: &Facts, data_dir: &Path) -> Result<ServerConfig, ConfigError> {
    check_combinations(settings, facts)?;
    let listen = listen(settings)?;
    let reset = settings.switch("cluster-reset");
    // Resetting a member whose supervisor shares the API server's port leaves nothing for a node to talk to.
    let cut_off = reset && listen.supervisor_port == listen.https_port;
    let runs_node = !settings.switch("disable-agent") && !cut_off;
    let node = node(settings, &facts.cwd)?;
    Ok(ServerConfig {
        network: network(settings, &node.ips)?,
        listen,
        kubeconfig: kubeconfig(settings, facts, data_dir)?,
        join: ServerJoinConfig {
            token: settings.secret("token"),
            token_file: settings.path("token-file", &facts.cwd),
            agent_token: settings.secret("agent-token"),
            agent_token_file: settings.path("agent-token-file", &facts.cwd),
            server: settings.server_url("server")?,
        },
        cluster: ClusterConfig {
            init: reset || settings.switch("cluster-init"),
            reset,
            reset_restore_path: settings.text("cluster-reset-restore-path"),
        },
        datastore: datastore(settings, facts, data_dir)?,
        snapshots: snapshots(settings, &facts.cwd, data_dir, reset)?,
        components: components(settings, &facts.cwd, data_dir, reset),
        arguments: ServerArguments {
            apiserver: settings.list("kube-apiserver-arg"),
            etcd: settings.list("etcd-arg"),
            controller_manager: settings.list("kube-controller-manager-arg"),
            scheduler: settings.list("kube-scheduler-arg"),
            helm_controller: settings.list("helm-controller-arg"),
            cloud_controller: settings.list("kube-cloud-controller-manager-arg"),
        },
        secrets_encryption: secrets_encryption(settings)?,
        node: runs_node.then_some(node),
    })
}

/// Flags that exclude or need each other.
fn check_combinations(settings: &Settings, facts: &Facts) -> Result<(), ConfigError> {
    if !facts.is_root && !settings.switch("rootless") && !settings.switch("disable-agent") {
        let problem = "a server with a node must run as root; start it with sudo, or add --disable-agent";
        return Err(ConfigError::Refused(problem.to_owned()));
    }
    let reset = settings.switch("cluster-reset");
    let refuse = |name: &str, problem: &str| Err(settings.refuse(name, problem));
    if settings.is_set("cluster-reset-restore-path") {
        if !reset {
            return refuse("cluster-reset-restore-path", "restores only while resetting; add --cluster-reset");
        }
        if !settings.is_set("token") && !settings.is_set("token-file") && !facts.has_server_token {
            let problem = "needs the token that was in use when the snapshot was taken; add --token or --token-file";
            return refuse("cluster-reset-restore-path", problem);
        }
    }
    if reset && settings.is_set("server") {
        return refuse("cluster-reset", "can't reset a cluster and join one; remove --server");
    }
    if settings.switch("disable-etcd") && !settings.is_set("server") {
        return refuse("disable-etcd", "leaves no datastore; add --server with the URL of a server that runs etcd");
    }
    if settings.is_set("datastore-endpoint") {
        for name in ["disable-apiserver", "disable-etcd"] {
            if settings.switch(name) {
                return refuse(name, "splits roles of an embedded etcd; remove it, or remove --datastore-endpoint");
            }
        }
    }
    Ok(())
}

fn listen(settings: &Settings) -> Result<ListenConfig, ConfigError> {
    let https_port = settings.required_port("https-listen-port")?;
    let apiserver_port = match settings.port("apiserver-port")? {
        Some(port) => port,
        None => https_port.checked_add(1).ok_or_else(|| {
            settings.refuse("https-listen-port", "65535 leaves no port above it for the API server; write a lower one")
        })?,
    };
    Ok(ListenConfig {
        bind_address: settings.ip("bind-address")?,
        https_port,
        supervisor_port: settings.port("supervisor-port")?.unwrap_or(https_port),
        apiserver_port,
        apiserver_bind_address: settings.ip("apiserver-bind-address")?,
        advertise_address: settings.ip("advertise-address")?,
        advertise_port: settings.port("advertise-port")?.unwrap_or(https_port),
        tls_sans: settings.split_list("tls-san"),
        tls_san_security: settings.switch("tls-san-security"),
    })
}

fn network(settings: &Settings, node_ips: &[IpAddr]) -> Result<NetworkConfig, ConfigError> {
    let on_ipv6 = node_ips.first().is_some_and(|ip| Family::of(*ip) == Family::V6);
    let cidrs_or = |name: &str, v4: &str, v6: &str| {
        let cidrs = settings.cidrs(name)?;
        let default = || (if on_ipv6 { v6 } else { v4 }).parse().expect("the default is a network");
        Ok(if cidrs.is_empty() { vec![default()] } else { cidrs })
    };
    let cluster_cidrs = cidrs_or("cluster-cidr", "10.42.0.0/16", "fd00:42::/56")?;
    let service_cidrs = cidrs_or("service-cidr", "10.43.0.0/16", "fd00:43::/112")?;
    check_families(settings, &cluster_cidrs, &service_cidrs, node_ips)?;
    let backends = [
        ("none", FlannelBackend::None),
        ("vxlan", FlannelBackend::Vxlan),
        ("host-gw", FlannelBackend::HostGw),
        ("wireguard-native", FlannelBackend::WireguardNative),
    ];
    let modes = [
        ("agent", EgressSelector::Agent),
        ("cluster", EgressSelector::Cluster),
        ("pod", EgressSelector::Pod),
        ("disabled", EgressSelector::Disabled),
    ];
    let dns = [("embedded", DnsProvider::Embedded), ("coredns", DnsProvider::CoreDns)];
    Ok(NetworkConfig {
        cluster_dns: cluster_dns(settings, &service_cidrs)?,
        dns: settings.choice("dns", &dns)?,
        cluster_cidrs,
        service_cidrs,
        node_ports: settings.port_range("service-node-port-range")?,
        cluster_domain: settings.word("cluster-domain"),
        flannel_backend: settings.choice("flannel-backend", &backends)?,
        flannel_ipv6_masq: settings.switch("flannel-ipv6-masq"),
        flannel_external_ip: settings.switch("flannel-external-ip"),
        egress_selector: settings.choice("egress-selector-mode", &modes)?,
        servicelb_namespace: settings.word("servicelb-namespace"),
    })
}

/// Pods and services must have the same families, and nodes all of them.
fn check_families(
    settings: &Settings,
    cluster_cidrs: &[Cidr],
    service_cidrs: &[Cidr],
    node_ips: &[IpAddr],
) -> Result<(), ConfigError> {
    let set_one = |names: [&'static str; 2]| if settings.is_set(names[0]) { names[0] } else { names[1] };
    if families(cluster_cidrs) != families(service_cidrs) {
        let problem = format!(
            "pods ({}) and services ({}) must have networks of the same IP families; \
             set --cluster-cidr and --service-cidr to matching ones",
            join(cluster_cidrs),
            join(service_cidrs),
        );
        return Err(settings.refuse(set_one(["service-cidr", "cluster-cidr"]), problem));
    }
    let missing = families(cluster_cidrs)
        .into_iter()
        .find(|family| !node_ips.is_empty() && !node_ips.iter().any(|ip| Family::of(*ip) == *family));
    if let Some(family) = missing {
        let problem = format!(
            "the pod networks ({}) need a node address of each IP family, and there is none of {family}; \
             add one to --node-ip or change --cluster-cidr and --service-cidr",
            join(cluster_cidrs),
        );
        return Err(settings.refuse(set_one(["cluster-cidr", "node-ip"]), problem));
    }
    Ok(())
}

fn join(cidrs: &[Cidr]) -> String {
    cidrs.iter().map(Cidr::to_string).collect::<Vec<_>>().join(", ")
}

fn cluster_dns(settings: &Settings, service_cidrs: &[Cidr]) -> Result<Vec<IpAddr>, ConfigError> {
    let given = settings.ips("cluster-dns")?;
    if given.is_empty() {
        let address = |cidr: &Cidr| {
            cidr.nth(DNS_ADDRESS).ok_or_else(|| {
                let problem = format!("{cidr} is too small to hold a DNS service; choose a larger network");
                settings.refuse("service-cidr", problem)
            })
        };
        return service_cidrs.iter().map(address).collect();
    }
    // Outside the service networks is fine: a DNS cache on each node listens on a link-local address.
    Ok(given)
}

/// Where the kubeconfig of a server is that root runs.
const KUBECONFIG_OF_ROOT: &str = "/etc/rancher/k3s/k3s.yaml";

fn kubeconfig(settings: &Settings, facts: &Facts, data_dir: &Path) -> Result<KubeconfigConfig, ConfigError> {
    let default_path = match &facts.home {
        _ if facts.is_root => KUBECONFIG_OF_ROOT.into(),
        Some(home) => home.join(".kube/k3s.yaml"),
        None => data_dir.join("server/kubeconfig-k3s.yaml"),
    };
    Ok(KubeconfigConfig {
        default_path,
        path: settings.path("write-kubeconfig", &facts.cwd),
        mode: settings.mode("write-kubeconfig-mode")?,
        group: settings.text("write-kubeconfig-group"),
        name: settings.word("write-kubeconfig-name"),
    })
}

fn snapshots(settings: &Settings, cwd: &Path, data_dir: &Path, reset: bool) -> Result<SnapshotConfig, ConfigError> {
    let retention = settings.int("etcd-snapshot-retention", 0, u32::MAX.into())?.unwrap_or(RETENTION_DEFAULT);
    let s3 = s3(settings, retention)?;
    Ok(SnapshotConfig {
        scheduled: !reset && !settings.switch("etcd-disable-snapshots"),
        schedule_cron: settings.word("etcd-snapshot-schedule-cron"),
        name: settings.word("etcd-snapshot-name"),
        directory: settings.path("etcd-snapshot-dir", cwd).unwrap_or_else(|| data_dir.join("server/db/snapshots")),
        retention,
        compress: settings.switch("etcd-snapshot-compress"),
        reconcile_interval: settings.positive_duration("etcd-snapshot-reconcile-interval")?,
        s3: settings.switch("etcd-s3").then_some(s3),
    })
}

/// Read even when S3 is off, so that mistakes show before it is turned on.
fn s3(settings: &Settings, snapshot_retention: u32) -> Result<S3Config, ConfigError> {
    let lookups = [("auto", BucketLookup::Auto), ("dns", BucketLookup::Dns), ("path", BucketLookup::Path)];
    Ok(S3Config {
        endpoint: settings.word("etcd-s3-endpoint"),
        endpoint_ca: settings.text("etcd-s3-endpoint-ca"),
        skip_ssl_verify: settings.switch("etcd-s3-skip-ssl-verify"),
        insecure: settings.switch("etcd-s3-insecure"),
        access_key: settings.secret("etcd-s3-access-key"),
        secret_key: settings.secret("etcd-s3-secret-key"),
        session_token: settings.secret("etcd-s3-session-token"),
        bucket: settings.text("etcd-s3-bucket"),
        bucket_lookup: settings.choice("etcd-s3-bucket-lookup-type", &lookups)?,
        region: settings.word("etcd-s3-region"),
        folder: settings.text("etcd-s3-folder"),
        retention: settings.int("etcd-s3-retention", 0, u32::MAX.into())?.unwrap_or(snapshot_retention),
        proxy: settings.secret("etcd-s3-proxy"),
        config_secret: settings.text("etcd-s3-config-secret"),
        timeout: settings.positive_duration("etcd-s3-timeout")?,
    })
}

/// While resetting, etcd runs and next to nothing else.
fn components(settings: &Settings, cwd: &Path, data_dir: &Path, reset: bool) -> ComponentsConfig {
    let runs = |flag: &str| !settings.switch(flag);
    let mut disable: std::collections::BTreeSet<String> = settings.split_list("disable").into_iter().collect();
    if reset {
        disable.insert("servicelb".to_owned());
    }
    // `ccm` among the packaged components is another way to write --disable-cloud-controller.
    let cloud_controller = runs("disable-cloud-controller") && !disable.contains("ccm");
    ComponentsConfig {
        disable,
        apiserver: !reset && runs("disable-apiserver"),
        controller_manager: !reset && runs("disable-controller-manager"),
        scheduler: !reset && runs("disable-scheduler"),
        cloud_controller: !reset && cloud_controller,
        etcd: runs("disable-etcd"),
        kube_proxy: runs("disable-kube-proxy"),
        network_policy: runs("disable-network-policy"),
        helm_controller: runs("disable-helm-controller"),
        embedded_registry: settings.switch("embedded-registry"),
        supervisor_metrics: settings.switch("supervisor-metrics"),
        system_default_registry: settings.text("system-default-registry"),
        local_storage_path: settings
            .path("default-local-storage-path", cwd)
            .unwrap_or_else(|| data_dir.join("storage")),
        helm_job_image: settings.text("helm-job-image"),
    }
}

fn secrets_encryption(settings: &Settings) -> Result<Option<EncryptionProvider>, ConfigError> {
    let providers = [("aescbc", EncryptionProvider::AesCbc), ("secretbox", EncryptionProvider::SecretBox)];
    let provider = settings.choice("secrets-encryption-provider", &providers)?;
    Ok(settings.switch("secrets-encryption").then_some(provider))
}
