//! Controllers by the names that upstream's `--controllers` knows them by.

/// What upstream calls a controller now and what it called it before, and the loops that are this controller here. Two of
/// them may share one that only reads.
type Row = (&'static str, &'static str, &'static [&'static str]);

/// All that upstream has. Those without loops have no work here, so it makes no difference whether they run.
const NAMES: &[Row] = &[
    ("bootstrap-signer-controller", "bootstrapsigner", &["bootstrapsigner", "cluster-info", "bootstrap-tokens"]),
    ("certificatesigningrequest-approving-controller", "csrapproving", &["csrapproving"]),
    ("certificatesigningrequest-cleaner-controller", "csrcleaner", &["csrcleaner"]),
    ("certificatesigningrequest-signing-controller", "csrsigning", &["csrsigning"]),
    ("cloud-node-controller", "cloud-node", &["cloud-node"]),
    ("cloud-node-lifecycle-controller", "cloud-node-lifecycle", &[]),
    // The API server does its work.
    ("clusterrole-aggregation-controller", "clusterrole-aggregation", &[]),
    ("cronjob-controller", "cronjob", &["cronjob"]),
    ("daemonset-controller", "daemonset", &["daemonset"]),
    ("deployment-controller", "deployment", &["deployment"]),
    ("device-taint-eviction-controller", "device-taint-eviction", &[]),
    ("disruption-controller", "disruption", &["disruption", "disruption-target"]),
    ("endpoints-controller", "endpoint", &["endpoint"]),
    ("endpointslice-controller", "endpointslice", &["endpointslice"]),
    ("endpointslice-mirroring-controller", "endpointslicemirroring", &["endpointslicemirroring"]),
    ("ephemeral-volume-controller", "ephemeral-volume", &["ephemeral-volume"]),
    ("garbage-collector-controller", "garbagecollector", &["garbage-collector"]),
    ("horizontal-pod-autoscaler-controller", "horizontalpodautoscaling", &["horizontalpodautoscaling"]),
    ("job-controller", "job", &["job"]),
    ("kube-apiserver-serving-clustertrustbundle-publisher-controller", "", &[]),
    (
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        &["legacy-service-account-token-cleaner", "service-account-tokens"],
    ),
    ("namespace-controller", "namespace", &["namespace"]),
    ("node-ipam-controller", "nodeipam", &["nodeipam"]),
    ("node-lifecycle-controller", "nodelifecycle", &["nodelifecycle"]),
    ("node-route-controller", "route", &[]),
    ("persistentvolume-attach-detach-controller", "attachdetach", &["attachdetach"]),
    (
        "persistentvolume-binder-controller",
        "persistentvolume-binder",
        &["persistentvolume-binder", "persistentvolume-directories"],
    ),
    ("persistentvolume-expander-controller", "persistentvolume-expander", &["persistentvolume-expander"]),
    ("persistentvolume-protection-controller", "pv-protection", &["persistentvolume-protection"]),
    ("persistentvolumeclaim-protection-controller", "pvc-protection", &["persistentvolumeclaim-protection"]),
    ("pod-garbage-collector-controller", "podgc", &["pod-garbage-collector"]),
    ("podcertificaterequest-cleaner-controller", "podcertificaterequestcleaner", &[]),
    ("replicaset-controller", "replicaset", &["replicaset"]),
    ("replicationcontroller-controller", "replicationcontroller", &["replicationcontroller"]),
    ("resourceclaim-controller", "resource-claim-controller", &["resourceclaim"]),
    ("resourcequota-controller", "resourcequota", &["resourcequota"]),
    (
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        &["root-ca-certificate-publisher", "root-ca-maps"],
    ),
    ("selinux-warning-controller", "", &[]),
    // The API server does its work.
    ("service-cidr-controller", "service-cidr-controller", &[]),
    ("service-lb-controller", "service", &["service-lb", "service-lb-leftovers"]),
    ("serviceaccount-controller", "serviceaccount", &["serviceaccount"]),
    ("serviceaccount-token-controller", "serviceaccount-token", &["serviceaccount-token", "service-account-tokens"]),
    ("statefulset-controller", "statefulset", &["statefulset"]),
    ("storage-version-migrator-controller", "", &[]),
    ("storageversion-garbage-collector-controller", "storage-version-gc", &[]),
    ("taint-eviction-controller", "taint-eviction", &["taint-eviction"]),
    ("token-cleaner-controller", "tokencleaner", &["tokencleaner", "bootstrap-tokens"]),
    ("ttl-after-finished-controller", "ttl-after-finished", &["ttl-after-finished"]),
    ("ttl-controller", "ttl", &["ttl"]),
    // The engine of ValidatingAdmissionPolicies is its seat: see the page of this crate.
    ("validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status-controller", &[]),
    (
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        &["volumeattributesclass-protection"],
    ),
];

/// Those that upstream only runs when they are named.
const OFF_BY_ITSELF: [&str; 3] =
    ["bootstrap-signer-controller", "token-cleaner-controller", "selinux-warning-controller"];

/// Whether upstream has a controller that is called so, with `-` in front of it or not.
pub(crate) fn is_known(entry: &str) -> bool {
    let name = entry.strip_prefix('-').unwrap_or(entry);
    entry == "*" || !name.is_empty() && NAMES.iter().any(|(now, before, _)| name == *now || name == *before)
}

/// Whether a child is started: any controller that it is of runs, or it is of none.
pub(crate) fn runs(chosen: &[String], child: &str) -> bool {
    let mut of = NAMES.iter().filter(|(.., loops)| loops.contains(&child)).peekable();
    of.peek().is_none() || of.any(|(now, before, _)| is_chosen(chosen, now, before))
}

/// The first that is said of a controller counts; of one of which nothing is said, `*` counts.
fn is_chosen(chosen: &[String], now: &str, before: &str) -> bool {
    let said = chosen.iter().find_map(|entry| match entry.strip_prefix('-') {
        Some(name) if name == now || name == before => Some(false),
        None if entry == now || entry == before => Some(true),
        _ => None,
    });
    said.unwrap_or_else(|| chosen.iter().any(|entry| entry == "*") && !OFF_BY_ITSELF.contains(&now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_is_listed_once_in_order() {
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(OFF_BY_ITSELF.iter().all(|name| is_known(name)));
        assert!(!is_known("") && !is_known("-") && !is_known("deploymentcontroller"));
    }

    #[test]
    fn what_is_said_first_of_a_controller_counts() {
        for (chosen, child, expected) in [
            ("*", "deployment", true),
            ("*", "tokencleaner", false),
            ("*,tokencleaner", "tokencleaner", true),
            ("*,token-cleaner-controller", "bootstrap-tokens", true),
            ("*", "bootstrap-tokens", false),
            ("*,-deployment", "deployment", false),
            ("*,-deployment-controller", "deployment", false),
            ("-deployment,*,deployment", "deployment", false),
            ("deployment", "deployment", true),
            ("deployment", "replicaset", false),
            ("", "deployment", false),
            ("-disruption,*", "disruption-target", false),
            ("", "events", true),
        ] {
            let chosen: Vec<String> = chosen.split(',').map(str::to_owned).collect();
            assert_eq!(runs(&chosen, child), expected, "{chosen:?} {child}");
        }
    }
}
