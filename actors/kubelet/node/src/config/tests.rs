use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn document(value: Value) -> (String, Value) {
    ("file".to_owned(), value)
}

fn problem(value: Value) -> String {
    merge(&[document(value)]).expect_err("it is wrong").to_string()
}

#[test]
fn without_files_the_defaults_are_upstreams() {
    let loaded = merge(&[]).unwrap();
    assert_eq!(loaded.config, KubeletConfiguration::default());
    assert_eq!(loaded.config.eviction_hard["nodefs.inodesFree"], "5%");
    assert!(loaded.warnings.is_empty());
}

#[test]
fn what_is_written_reads_the_same() {
    let config = KubeletConfiguration::default();
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["streamingConnectionIdleTimeout"], "4h0m0s");
    assert_eq!(written["cpuCFSQuotaPeriod"], "100ms");
    assert_eq!(written["imageGCHighThresholdPercent"], 85);
    assert_eq!(merge(&[document(written)]).unwrap().config, config);
}

#[test]
fn later_documents_count_more_and_objects_are_merged() {
    let first = json!({"maxPods": 10, "evictionHard": {"memory.available": "1Gi"}, "clusterDNS": ["10.43.0.10"]});
    let second = json!({"maxPods": 20, "evictionHard": {"nodefs.available": "1%"}, "clusterDNS": ["10.43.0.11"]});
    let config = merge(&[document(first), document(second)]).unwrap().config;
    assert_eq!(config.max_pods, 20);
    assert_eq!(config.eviction_hard, texts(&[("memory.available", "1Gi"), ("nodefs.available", "1%")]));
    assert_eq!(config.cluster_dns, ["10.43.0.11"]);
}

#[test]
fn default_thresholds_come_back_if_they_are_asked_for() {
    let asked = json!({"evictionHard": {"nodefs.available": "1%"}, "mergeDefaultEvictionSettings": true});
    let config = merge(&[document(asked)]).unwrap().config;
    assert_eq!(config.eviction_hard["nodefs.available"], "1%");
    assert_eq!(config.eviction_hard["memory.available"], "100Mi");
}

#[test]
fn mistakes_are_named() {
    let rows = [
        (json!({"maxPodz": 3}), "file: unknown field `maxPodz`"),
        (json!({"syncFrequency": "soon"}), "file: \"soon\" is not a duration such as 90s or 1h30m"),
        (
            json!({"cpuManagerPolicy": "static"}),
            "file: cpuManagerPolicy is not supported here; it can only be \"none\"",
        ),
        (json!({"kind": "Pod"}), "file: must be a KubeletConfiguration of kubelet.config.k8s.io/v1beta1"),
        (json!([]), "file: must be an object"),
    ];
    for (value, expected) in rows {
        assert_eq!(problem(value), expected);
    }
    assert!(problem(json!({"readOnlyPort": 10255})).contains("readOnlyPort"));
    assert!(problem(json!({"imageGCLowThresholdPercent": 90})).contains("imageGCLowThresholdPercent"));
    assert!(problem(json!({"cgroupDriver": "docker"})).contains("cgroupDriver"));
    assert!(problem(json!({"containerLogMaxSize": "big"})).contains("containerLogMaxSize"));
    let by_priority = json!([{"priority": 0, "shutdownGracePeriodSeconds": 5}]);
    let both = json!({"shutdownGracePeriod": "9s", "shutdownGracePeriodByPodPriority": by_priority});
    assert!(problem(both).contains("can't be set both"));
    assert!(problem(json!({"shutdownGracePeriod": "1ms"})).contains("must be either zero or otherwise >= 1 sec"));
    let wrong = json!({"shutdownGracePeriod": "9s", "shutdownGracePeriodCriticalPods": "10s"});
    assert!(problem(wrong).contains("must be <= shutdownGracePeriod"));
    assert!(merge(&[document(json!({"shutdownGracePeriodByPodPriority": by_priority}))]).is_ok());
}

#[test]
fn settings_without_effect_are_told_of() {
    let loaded = merge(&[document(json!({"hairpinMode": "hairpin-veth", "cpuManagerPolicy": "none"}))]).unwrap();
    assert_eq!(loaded.warnings, ["file: hairpinMode has no effect here"]);
}

#[test]
fn files_are_read_in_the_order_of_their_paths() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("00-k3s-defaults.conf", "maxPods: 1\nport: 1\n");
    write("10-cli-config.conf", "maxPods: 2\n");
    write("20-cli-config-dir/a.conf", "port: 3\n");
    write("20-cli-config-dir/README", "no configuration");
    let config = load(directory.path()).unwrap().config;
    assert_eq!((config.max_pods, config.port), (2, 3));
    write("30.conf", "maxPods: 2\nmaxPods: 3\n");
    assert!(load(directory.path()).unwrap_err().to_string().contains("30.conf"));
    assert_eq!(load(&directory.path().join("none")).unwrap().config, KubeletConfiguration::default());
}

#[test]
fn k3s_defaults_read_as_what_k3s_sets() {
    let input = K3sDefaults {
        agent_dir: "/var/lib/rancher/k3s/agent".into(),
        listen_address: None,
        is_ipv6: false,
        cluster_dns: vec![IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10))],
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf: "/etc/resolv.conf".into(),
        systemd_cgroups: false,
        cgroup_root: Some("/k3s".to_owned()),
        has_cpu_controller: false,
        protect_kernel_defaults: false,
        node_taints: vec![arguments::taint("a=b:NoSchedule").unwrap()],
        runtime_socket: "/run/k3s/containerd/containerd.sock".into(),
        image_endpoint: None,
    };
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("00-k3s-defaults.conf"), k3s_defaults(&input)).unwrap();
    let config = load(directory.path()).unwrap().config;
    assert_eq!(config.eviction_hard, texts(&[("imagefs.available", "5%"), ("nodefs.available", "5%")]));
    assert_eq!(config.eviction_minimum_reclaim["nodefs.available"], "10%");
    assert_eq!(config.static_pod_path, "/var/lib/rancher/k3s/agent/pod-manifests");
    assert_eq!(config.cgroup_root, "/k3s");
    assert_eq!(config.cluster_dns, ["10.43.0.10"]);
    assert!(!config.fail_swap_on && !config.serialize_image_pulls && !config.cpu_cfs_quota);
    assert_eq!(config.register_with_taints[0].value.as_deref(), Some("b"));
}

#[test]
fn flags_set_fields() {
    let mut settings = KubeletSettings::default();
    let given = [
        "max-pods=250",
        "--eviction-hard=memory.available<1Gi,nodefs.available<3%",
        "kube-reserved=cpu=500m,memory=1Gi",
        "feature-gates=A=true,B=false",
        "register-with-taints=key=value:NoSchedule,bare:NoExecute",
        "node-labels=a=b",
        "cloud-provider=external",
        "image-gc-high-threshold=70",
        "image-gc-low-threshold=60",
        "streaming-connection-idle-timeout=5m",
        "node-ip=10.0.0.1,fd00::1",
    ];
    apply(&mut settings, given).unwrap();
    let config = &settings.config;
    assert_eq!(config.max_pods, 250);
    assert_eq!(config.eviction_hard, texts(&[("memory.available", "1Gi"), ("nodefs.available", "3%")]));
    assert_eq!(config.kube_reserved, texts(&[("cpu", "500m"), ("memory", "1Gi")]));
    assert_eq!(config.feature_gates.len(), 2);
    assert_eq!(config.register_with_taints[1].effect, "NoExecute");
    assert_eq!(config.streaming_connection_idle_timeout, Duration::from_secs(300));
    assert_eq!((settings.is_cloud_external, settings.node_ips.len()), (true, 2));
    assert_eq!(settings.node_labels["a"], "b");
}

#[test]
fn flags_that_do_nothing_are_refused_by_name() {
    let rows = [
        ("cpu-manager-policy=static", "--cpu-manager-policy: \"static\" is not the one value that it has here"),
        ("v=4", "--v has no effect here and is refused: the log is set by the flags of k3sd"),
        ("nonsense=1", "kubelet has no flag --nonsense"),
        ("max-pods=many", "--max-pods: \"many\" is not a number in its range"),
        ("eviction-hard=memory.available=1", "--eviction-hard: \"memory.available=1\" is not a list of signal<amount"),
        ("register-with-taints=a", "--register-with-taints: \"a\" is not a taint, key=value:effect"),
    ];
    for (argument, expected) in rows {
        let refused = apply(&mut KubeletSettings::default(), [argument]).expect_err("it is refused");
        assert_eq!(refused.to_string(), expected);
    }
    assert!(apply(&mut KubeletSettings::default(), ["max-pods=-1"]).is_err());
}

#[test]
fn gates_are_what_they_are() {
    let gates = [("NodeSwap", true), ("EnvFiles", true), ("SidecarContainers", false), ("Nonsense", true)];
    let gates = gates.map(|(name, wanted)| (name.to_owned(), wanted)).into();
    let notes: Vec<String> = check_gates(&gates).iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "feature gate EnvFiles has no effect: the feature is off",
            "feature gate Nonsense has no effect: the node knows no such feature",
            "feature gate SidecarContainers has no effect: the feature is on",
        ]
    );
}

#[test]
fn times_are_written_as_go_writes_them() {
    let rows = [
        (Duration::ZERO, "0s"),
        (Duration::from_millis(100), "100ms"),
        (Duration::from_micros(5), "5µs"),
        (Duration::from_nanos(1500), "1.5µs"),
        (Duration::from_millis(1500), "1.5s"),
        (Duration::from_secs(90), "1m30s"),
        (Duration::from_secs(14400), "4h0m0s"),
    ];
    for (span, expected) in rows {
        assert_eq!(duration::go(span), expected);
    }
}
