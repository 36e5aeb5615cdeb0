//! `--kube-controller-manager-arg`: which flags of kube-controller-manager mean something here.
//!
//! What means nothing here is refused by name, with the reason.

use k3sd_client::arguments::Rule::{Only, Refused, Sets};
use k3sd_client::arguments::{self, ArgumentError, Rule, boolean, count, duration, fraction, list, text};

use crate::config::{ControllersConfig, Election};

const ELSEWHERE: &str = "k3sd has a flag of its own for it";
const PROCESS: &str = "k3sd is one process, and its own flags decide about files, logs and profiles";
const IN_PROCESS: &str = "controllers reach the API without a socket";
const CONCURRENCY: &str = "controllers look at as many objects side by side as pays off";
const RESYNC: &str = "controllers act on events and deadlines, and look at nothing periodically";
const NO_CLOUD: &str = "there is no cloud provider in here";

/// All flags that mean something, or are worth a reason.
const FLAGS: &[(&str, Rule<ControllersConfig>)] = &[
    ("attach-detach-reconcile-sync-period", Refused(RESYNC)),
    ("authentication-kubeconfig", Refused(IN_PROCESS)),
    ("authorization-kubeconfig", Refused(IN_PROCESS)),
    ("bind-address", Refused(PROCESS)),
    ("cert-dir", Refused(PROCESS)),
    ("cloud-config", Refused(NO_CLOUD)),
    ("cluster-cidr", Refused(ELSEWHERE)),
    ("concurrent-deployment-syncs", Refused(CONCURRENCY)),
    ("concurrent-endpoint-syncs", Refused(CONCURRENCY)),
    ("concurrent-gc-syncs", Refused(CONCURRENCY)),
    ("concurrent-namespace-syncs", Refused(CONCURRENCY)),
    ("concurrent-replicaset-syncs", Refused(CONCURRENCY)),
    ("configure-cloud-routes", Only(&["false"])),
    ("contention-profiling", Refused(PROCESS)),
    ("controllers", Sets(controllers)),
    ("enable-garbage-collector", Only(&["true"])),
    ("feature-gates", Refused("features are as they are in Kubernetes v1.34 by default")),
    ("kube-api-burst", Refused(IN_PROCESS)),
    ("kube-api-qps", Refused(IN_PROCESS)),
    ("kubeconfig", Refused(IN_PROCESS)),
    (
        "large-cluster-size-threshold",
        Sets(|config, value| set(&mut config.loops.nodes.large_cluster_size, count(value))),
    ),
    ("leader-elect", Sets(leader_elect)),
    (
        "leader-elect-lease-duration",
        Sets(|config, value| election(config, value, |election, time| election.terms.lease_duration = time)),
    ),
    (
        "leader-elect-renew-deadline",
        Sets(|config, value| election(config, value, |election, time| election.terms.renew_deadline = time)),
    ),
    ("leader-elect-resource-lock", Only(&["leases"])),
    (
        "leader-elect-retry-period",
        Sets(|config, value| election(config, value, |election, time| election.terms.retry_period = time)),
    ),
    ("min-resync-period", Refused(RESYNC)),
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
    ("profiling", Only(&["false"])),
    ("root-ca-file", Refused(ELSEWHERE)),
    (
        "secondary-node-eviction-rate",
        Sets(|config, value| set(&mut config.loops.nodes.secondary_eviction_rate, fraction(value))),
    ),
    ("secure-port", Refused(PROCESS)),
    ("service-account-private-key-file", Refused(ELSEWHERE)),
    ("service-cluster-ip-range", Refused(ELSEWHERE)),
    (
        "unhealthy-zone-threshold",
        Sets(|config, value| set(&mut config.loops.nodes.unhealthy_zone_threshold, fraction(value))),
    ),
    ("use-service-account-credentials", Only(&["true"])),
    ("v", Refused(PROCESS)),
    ("vmodule", Refused(PROCESS)),
];

/// Applies one argument, `name=value` or `name`, which means `name=true`. Leading dashes are let pass.
///
/// # Errors
/// See [`ArgumentError`]. The configuration is as it was then.
pub fn apply(config: &mut ControllersConfig, argument: &str) -> Result<(), ArgumentError> {
    arguments::apply("kube-controller-manager", FLAGS, config, argument)
}

/// `*` stands for all, `-name` takes one out, and without `*` only those that are named run.
fn controllers(config: &mut ControllersConfig, value: &str) -> Result<(), &'static str> {
    let names = list(value)?;
    if !names.iter().any(|name| name == "*") {
        return Err("a list that begins with *: what is left out has to be named, as -name");
    }
    config.disabled.extend(names.iter().filter_map(|name| name.strip_prefix('-')).map(str::to_owned));
    Ok(())
}

fn set<T>(place: &mut T, value: Result<T, &'static str>) -> Result<(), &'static str> {
    *place = value?;
    Ok(())
}

/// The length of a prefix. Whether it fits the networks of the cluster is found out when those are cut.
fn mask_size(value: &str) -> Result<u8, &'static str> {
    value.parse().ok().filter(|bits| (1..=128).contains(bits)).ok_or("the length of a prefix, from 1 to 128")
}

fn leader_elect(config: &mut ControllersConfig, value: &str) -> Result<(), &'static str> {
    if !boolean(value)? {
        config.election = None;
    } else if config.election.is_none() {
        return Err("false: a server whose datastore is its own leads without a lease");
    }
    Ok(())
}

fn election(
    config: &mut ControllersConfig,
    value: &str,
    set: impl FnOnce(&mut Election, std::time::Duration),
) -> Result<(), &'static str> {
    let time = duration(&text(value)?)?;
    if let Some(election) = &mut config.election {
        set(election, time);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_each_flag_once() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn controllers_can_be_left_out() {
        let mut config = ControllersConfig::default();
        apply(&mut config, "--controllers=*,-ttl-after-finished").expect("it means something");
        assert_eq!(config.disabled, ["ttl-after-finished"]);
        assert!(apply(&mut config, "controllers=job").is_err());
    }

    #[test]
    fn what_counts_as_a_dead_node_can_be_set() {
        let mut config = ControllersConfig::default();
        for argument in ["node-monitor-grace-period=20s", "node-cidr-mask-size-ipv4=25", "node-eviction-rate=0.5"] {
            apply(&mut config, argument).expect("it means something");
        }
        let nodes = &config.loops.nodes;
        assert_eq!(
            (nodes.monitor_grace_period.as_secs(), nodes.cidr_mask_size, nodes.eviction_rate),
            (20, (25, 64), 0.5)
        );
        assert!(apply(&mut config, "node-cidr-mask-size=129").is_err());
    }
}
