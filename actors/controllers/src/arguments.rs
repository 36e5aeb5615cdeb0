//! `--kube-controller-manager-arg`: which flags of kube-controller-manager mean something here.
//!
//! What means nothing here is refused by name, with the reason.

use std::time::Duration;

use k3sd_client::arguments::Rule::{Lists, Only, Refused, Sets};
use k3sd_client::arguments::{
    self, ArgumentError, Rule, boolean, count, duration, fraction, go_duration, leader_elect, lease_time,
};

use crate::config::ControllersConfig;
use crate::names::is_known;

const ELSEWHERE: &str = "k3sd has a flag of its own for it";
const PROCESS: &str = "k3sd is one process, and its own flags decide about files, logs and profiles";
const IN_PROCESS: &str = "controllers reach the API without a socket";
const NO_SOCKET: &str = "controllers listen on no socket of their own";
const CONCURRENCY: &str = "controllers look at as many objects side by side as pays off";
const RESYNC: &str = "controllers act on events and deadlines, and look at nothing periodically";
const NO_CLOUD: &str = "there is no cloud provider in here";
const KEYS: &str = "the authorities of the server sign; others are put into its directory";
const RECYCLER: &str = "volumes are recycled by the pod that upstream has by default";
const FEATURES: &str = "features are as they are in Kubernetes v1.34 by default";
const METRICS: &str = "metrics are as they are";

/// All flags that upstream's program has; those that mean nothing here with the reason.
const FLAGS: &[(&str, Rule<ControllersConfig>)] = &[
    ("allocate-node-cidrs", Only(&["true"])),
    ("allow-metric-labels", Refused(METRICS)),
    ("allow-metric-labels-manifest", Refused(METRICS)),
    ("attach-detach-reconcile-sync-period", Refused(RESYNC)),
    ("authentication-kubeconfig", Refused(IN_PROCESS)),
    ("authentication-skip-lookup", Refused(NO_SOCKET)),
    ("authentication-token-webhook-cache-ttl", Refused(NO_SOCKET)),
    ("authentication-tolerate-lookup-failure", Refused(NO_SOCKET)),
    ("authorization-always-allow-paths", Refused(NO_SOCKET)),
    ("authorization-kubeconfig", Refused(IN_PROCESS)),
    ("authorization-webhook-cache-authorized-ttl", Refused(NO_SOCKET)),
    ("authorization-webhook-cache-unauthorized-ttl", Refused(NO_SOCKET)),
    ("bind-address", Refused(NO_SOCKET)),
    ("cert-dir", Refused(NO_SOCKET)),
    ("cidr-allocator-type", Only(&["RangeAllocator"])),
    ("client-ca-file", Refused(NO_SOCKET)),
    ("cloud-config", Refused(NO_CLOUD)),
    ("cloud-provider", Refused(NO_CLOUD)),
    ("cluster-cidr", Refused(ELSEWHERE)),
    ("cluster-name", Only(&["kubernetes"])),
    ("cluster-signing-cert-file", Refused(KEYS)),
    (
        "cluster-signing-duration",
        Sets(|config, value| set(&mut config.loops.certificate_duration, positive(value).map(Some))),
    ),
    ("cluster-signing-key-file", Refused(KEYS)),
    ("cluster-signing-kube-apiserver-client-cert-file", Refused(KEYS)),
    ("cluster-signing-kube-apiserver-client-key-file", Refused(KEYS)),
    ("cluster-signing-kubelet-client-cert-file", Refused(KEYS)),
    ("cluster-signing-kubelet-client-key-file", Refused(KEYS)),
    ("cluster-signing-kubelet-serving-cert-file", Refused(KEYS)),
    ("cluster-signing-kubelet-serving-key-file", Refused(KEYS)),
    ("cluster-signing-legacy-unknown-cert-file", Refused(KEYS)),
    ("cluster-signing-legacy-unknown-key-file", Refused(KEYS)),
    ("concurrent-cron-job-syncs", Refused(CONCURRENCY)),
    ("concurrent-daemonset-syncs", Refused(CONCURRENCY)),
    ("concurrent-deployment-syncs", Refused(CONCURRENCY)),
    ("concurrent-device-taint-eviction-syncs", Refused(CONCURRENCY)),
    ("concurrent-endpoint-syncs", Refused(CONCURRENCY)),
    ("concurrent-ephemeralvolume-syncs", Refused(CONCURRENCY)),
    ("concurrent-gc-syncs", Refused(CONCURRENCY)),
    ("concurrent-horizontal-pod-autoscaler-syncs", Refused(CONCURRENCY)),
    ("concurrent-job-syncs", Refused(CONCURRENCY)),
    ("concurrent-namespace-syncs", Refused(CONCURRENCY)),
    ("concurrent-rc-syncs", Refused(CONCURRENCY)),
    ("concurrent-replicaset-syncs", Refused(CONCURRENCY)),
    ("concurrent-resource-quota-syncs", Refused(CONCURRENCY)),
    ("concurrent-service-endpoint-syncs", Refused(CONCURRENCY)),
    ("concurrent-service-syncs", Refused(CONCURRENCY)),
    ("concurrent-serviceaccount-token-syncs", Refused(CONCURRENCY)),
    ("concurrent-statefulset-syncs", Refused(CONCURRENCY)),
    ("concurrent-ttl-after-finished-syncs", Refused(CONCURRENCY)),
    ("concurrent-validating-admission-policy-status-syncs", Refused(CONCURRENCY)),
    ("configure-cloud-routes", Only(&["false"])),
    ("contention-profiling", Refused(PROCESS)),
    ("controller-start-interval", Refused(RESYNC)),
    ("controllers", Lists(|config| &mut config.controllers)),
    ("disable-attach-detach-reconcile-sync", Refused(RESYNC)),
    (
        "disable-force-detach-on-timeout",
        Sets(|config, value| set(&mut config.loops.disable_force_detach, boolean(value))),
    ),
    ("disable-http2-serving", Refused(NO_SOCKET)),
    ("disabled-metrics", Refused(METRICS)),
    ("emulated-version", Refused(FEATURES)),
    ("emulation-forward-compatible", Refused(FEATURES)),
    ("enable-dynamic-provisioning", Only(&["true"])),
    ("enable-garbage-collector", Only(&["true"])),
    ("enable-hostpath-provisioner", Only(&["false"])),
    ("enable-leader-migration", Only(&["false"])),
    ("endpoint-updates-batch-period", Only(&["0", "0s"])),
    ("endpointslice-updates-batch-period", Only(&["0", "0s"])),
    ("external-cloud-volume-plugin", Refused(NO_CLOUD)),
    ("feature-gates", Refused(FEATURES)),
    ("flex-volume-plugin-dir", Refused("volumes are attached by drivers of CSI alone")),
    (
        "horizontal-pod-autoscaler-cpu-initialization-period",
        Sets(|config, value| set(&mut config.loops.autoscaling.cpu_initialization_period, duration(value))),
    ),
    (
        "horizontal-pod-autoscaler-downscale-stabilization",
        Sets(|config, value| set(&mut config.loops.autoscaling.downscale_stabilization, duration(value))),
    ),
    (
        "horizontal-pod-autoscaler-initial-readiness-delay",
        Sets(|config, value| set(&mut config.loops.autoscaling.initial_readiness_delay, duration(value))),
    ),
    (
        "horizontal-pod-autoscaler-sync-period",
        Sets(|config, value| set(&mut config.loops.autoscaling.sync_period, positive(value))),
    ),
    (
        "horizontal-pod-autoscaler-tolerance",
        Sets(|config, value| set(&mut config.loops.autoscaling.tolerance, fraction(value))),
    ),
    ("http2-max-streams-per-connection", Refused(NO_SOCKET)),
    ("kube-api-burst", Refused(IN_PROCESS)),
    ("kube-api-content-type", Refused(IN_PROCESS)),
    ("kube-api-qps", Refused(IN_PROCESS)),
    ("kubeconfig", Refused(IN_PROCESS)),
    (
        "large-cluster-size-threshold",
        Sets(|config, value| set(&mut config.loops.nodes.large_cluster_size, count(value))),
    ),
    ("leader-elect", Sets(|config, value| leader_elect(&mut config.election, value))),
    (
        "leader-elect-lease-duration",
        Sets(|config, value| lease_time(&mut config.election, value, |terms| &mut terms.lease_duration)),
    ),
    (
        "leader-elect-renew-deadline",
        Sets(|config, value| lease_time(&mut config.election, value, |terms| &mut terms.renew_deadline)),
    ),
    ("leader-elect-resource-lock", Only(&["leases"])),
    ("leader-elect-resource-name", Only(&["kube-controller-manager"])),
    ("leader-elect-resource-namespace", Only(&["kube-system"])),
    (
        "leader-elect-retry-period",
        Sets(|config, value| lease_time(&mut config.election, value, |terms| &mut terms.retry_period)),
    ),
    ("leader-migration-config", Refused("leaders don't migrate: there is one lease for all controllers")),
    (
        "legacy-service-account-token-clean-up-period",
        Sets(|config, value| set(&mut config.loops.token_clean_up_period, positive(value).map(Some))),
    ),
    ("log-flush-frequency", Refused(PROCESS)),
    ("log-json-info-buffer-size", Refused(PROCESS)),
    ("log-json-split-stream", Refused(PROCESS)),
    ("log-text-info-buffer-size", Refused(PROCESS)),
    ("log-text-split-stream", Refused(PROCESS)),
    ("logging-format", Refused(PROCESS)),
    ("master", Refused(IN_PROCESS)),
    ("max-endpoints-per-slice", Only(&["100"])),
    ("min-compatibility-version", Refused(FEATURES)),
    ("min-resync-period", Refused(RESYNC)),
    ("mirroring-concurrent-service-endpoint-syncs", Refused(CONCURRENCY)),
    ("mirroring-endpointslice-updates-batch-period", Only(&["0", "0s"])),
    ("mirroring-max-endpoints-per-subset", Only(&["1000"])),
    ("namespace-sync-period", Refused(RESYNC)),
    (
        "node-cidr-mask-size",
        Sets(|config, value| {
            let bits = mask_size(value)?;
            config.loops.nodes.cidr_mask_size = (bits, bits);
            Ok(())
        }),
    ),
    ("node-cidr-mask-size-ipv4", Sets(|config, value| set(&mut config.loops.nodes.cidr_mask_size.0, mask_size(value)))),
    ("node-cidr-mask-size-ipv6", Sets(|config, value| set(&mut config.loops.nodes.cidr_mask_size.1, mask_size(value)))),
    ("node-eviction-rate", Sets(|config, value| set(&mut config.loops.nodes.eviction_rate, fraction(value)))),
    (
        "node-monitor-grace-period",
        Sets(|config, value| set(&mut config.loops.nodes.monitor_grace_period, duration(value))),
    ),
    ("node-monitor-period", Refused(RESYNC)),
    (
        "node-startup-grace-period",
        Sets(|config, value| set(&mut config.loops.nodes.startup_grace_period, duration(value))),
    ),
    ("node-sync-period", Refused(RESYNC)),
    ("permit-address-sharing", Refused(NO_SOCKET)),
    ("permit-port-sharing", Refused(NO_SOCKET)),
    ("profiling", Only(&["false"])),
    ("pv-recycler-increment-timeout-nfs", Refused(RECYCLER)),
    ("pv-recycler-minimum-timeout-hostpath", Refused(RECYCLER)),
    ("pv-recycler-minimum-timeout-nfs", Refused(RECYCLER)),
    ("pv-recycler-pod-template-filepath-hostpath", Refused(RECYCLER)),
    ("pv-recycler-pod-template-filepath-nfs", Refused(RECYCLER)),
    ("pv-recycler-timeout-increment-hostpath", Refused(RECYCLER)),
    ("pvclaimbinder-sync-period", Refused(RESYNC)),
    ("requestheader-allowed-names", Refused(NO_SOCKET)),
    ("requestheader-client-ca-file", Refused(NO_SOCKET)),
    ("requestheader-extra-headers-prefix", Refused(NO_SOCKET)),
    ("requestheader-group-headers", Refused(NO_SOCKET)),
    ("requestheader-uid-headers", Refused(NO_SOCKET)),
    ("requestheader-username-headers", Refused(NO_SOCKET)),
    ("resource-quota-sync-period", Refused(RESYNC)),
    ("root-ca-file", Refused(ELSEWHERE)),
    ("route-reconciliation-period", Refused(NO_CLOUD)),
    (
        "secondary-node-eviction-rate",
        Sets(|config, value| set(&mut config.loops.nodes.secondary_eviction_rate, fraction(value))),
    ),
    ("secure-port", Refused(NO_SOCKET)),
    ("service-account-private-key-file", Refused(ELSEWHERE)),
    ("service-cluster-ip-range", Refused(ELSEWHERE)),
    ("show-hidden-metrics-for-version", Refused(METRICS)),
    ("terminated-pod-gc-threshold", Sets(|config, value| set(&mut config.loops.terminated_pods_max, threshold(value)))),
    ("tls-cert-file", Refused(NO_SOCKET)),
    ("tls-cipher-suites", Refused(NO_SOCKET)),
    ("tls-min-version", Refused(NO_SOCKET)),
    ("tls-private-key-file", Refused(NO_SOCKET)),
    ("tls-sni-cert-key", Refused(NO_SOCKET)),
    (
        "unhealthy-zone-threshold",
        Sets(|config, value| set(&mut config.loops.nodes.unhealthy_zone_threshold, fraction(value))),
    ),
    ("use-service-account-credentials", Only(&["true"])),
    ("v", Refused(PROCESS)),
    ("vmodule", Refused(PROCESS)),
];

/// Applies arguments, in their order; see [`arguments::apply_all`].
///
/// # Errors
/// See [`ArgumentError`]. Some of the arguments may be applied then.
pub fn apply<'a>(
    config: &mut ControllersConfig,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<(), ArgumentError> {
    arguments::apply_all("kube-controller-manager", FLAGS, &[], config, arguments)?;
    match config.controllers.iter().find(|entry| !is_known(entry)) {
        None => Ok(()),
        Some(unknown) => Err(ArgumentError::Value {
            name: "controllers".to_owned(),
            value: unknown.clone(),
            wanted: "in the list of known controllers",
        }),
    }
}

fn set<T>(place: &mut T, value: Result<T, &'static str>) -> Result<(), &'static str> {
    *place = value?;
    Ok(())
}

/// A time above zero.
fn positive(value: &str) -> Result<Duration, &'static str> {
    go_duration(value).ok_or("a duration above zero, such as 90s or 1h30m")
}

/// How many pods that have ended are kept; all of them for zero and less.
fn threshold(value: &str) -> Result<Option<usize>, &'static str> {
    let count: i32 = value.parse().map_err(|_| "a whole number")?;
    Ok(Some(usize::try_from(count).ok().filter(|count| *count > 0).unwrap_or(usize::MAX)))
}

/// The length of a prefix. Whether it fits the networks of the cluster is found out when those are cut.
fn mask_size(value: &str) -> Result<u8, &'static str> {
    value.parse().ok().filter(|bits| (1..=128).contains(bits)).ok_or("the length of a prefix, from 1 to 128")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::runs;

    fn applied(arguments: &[&str]) -> Result<ControllersConfig, String> {
        let mut config = ControllersConfig::default();
        let outcome = apply(&mut config, arguments.iter().copied());
        outcome.map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn the_table_is_sorted_and_names_each_flag_once() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn controllers_can_be_chosen() {
        for (arguments, running, stopped) in [
            (&[] as &[&str], &["ttl", "tokencleaner", "bootstrapsigner"] as &[&str], &[] as &[&str]),
            (&["--controllers=*,-ttl"], &["job"], &["ttl", "tokencleaner"]),
            (&["controllers+=-ttl-controller,-job"], &["tokencleaner"], &["ttl", "job"]),
            (&["controllers-=-tokencleaner"], &["job"], &["tokencleaner"]),
            (&["controllers=job,cronjob"], &["job", "cronjob", "events"], &["ttl"]),
        ] {
            let config = applied(arguments).expect("they mean something");
            assert!(running.iter().all(|child| runs(&config.controllers, child)), "{arguments:?}");
            assert!(stopped.iter().all(|child| !runs(&config.controllers, child)), "{arguments:?}");
        }
        let error = applied(&["controllers=*,-jobs"]).expect_err("there is none");
        assert_eq!(error, "--controllers: \"-jobs\" is not in the list of known controllers");
    }

    #[test]
    fn what_counts_as_a_dead_node_can_be_set() {
        let config =
            applied(&["node-monitor-grace-period=20s", "node-cidr-mask-size-ipv4=25", "node-eviction-rate=0.5"])
                .expect("they mean something");
        let nodes = &config.loops.nodes;
        assert_eq!(
            (nodes.monitor_grace_period.as_secs(), nodes.cidr_mask_size, nodes.eviction_rate),
            (20, (25, 64), 0.5)
        );
        assert!(applied(&["node-cidr-mask-size=129"]).is_err());
    }

    #[test]
    fn autoscalers_and_what_is_kept_can_be_set() {
        let flag = |name: &str| format!("--horizontal-pod-autoscaler-{name}");
        let flags = ["sync-period=5s", "tolerance=0.2", "downscale-stabilization=0s"].map(flag);
        let mut arguments: Vec<&str> = flags.iter().map(String::as_str).collect();
        arguments.extend(["terminated-pod-gc-threshold=0", "cluster-signing-duration=1h"]);
        let config = applied(&arguments).expect("they mean something");
        let scaling = config.loops.autoscaling;
        assert_eq!((scaling.sync_period.as_secs(), scaling.tolerance), (5, 0.2));
        assert_eq!((scaling.downscale_stabilization, scaling.initial_readiness_delay.as_secs()), (Duration::ZERO, 30));
        assert_eq!(config.loops.terminated_pods_max, Some(usize::MAX));
        assert_eq!(config.loops.certificate_duration, Some(Duration::from_secs(3600)));
        assert!(applied(&[flag("sync-period=0s").as_str()]).is_err());
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (argument, part) in [
            ("concurrent-job-syncs=5", "as many objects side by side"),
            ("feature-gates=X=true", "v1.34"),
            ("enable-garbage-collector=false", "the one value"),
            ("pod-eviction-timeout=5m", "has no flag"),
        ] {
            let error = applied(&[argument]).expect_err(argument);
            assert!(error.contains(part), "{error}");
        }
    }
}
