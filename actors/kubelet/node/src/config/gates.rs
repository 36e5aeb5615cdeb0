//! Feature gates: features are as they are in Kubernetes v1.34 by default, whatever is asked for.

use std::collections::BTreeMap;

/// Gates that concern a node and are on.
const ON: &[&str] = &[
    "AppArmor",
    "AppArmorFields",
    "DynamicResourceAllocation",
    "HonorPVReclaimPolicy",
    "InPlacePodVerticalScaling",
    "KubeletCgroupDriverFromCRI",
    "KubeletFineGrainedAuthz",
    "KubeletPSI",
    "KubeletTracing",
    "MemoryManager",
    "NodeSwap",
    "PodDisruptionConditions",
    "PodLevelResources",
    "PodLifecycleSleepAction",
    "PodLifecycleSleepActionAllowZero",
    "PodObservedGenerationTracking",
    "PodReadyToStartContainersCondition",
    "PortForwardWebsockets",
    "ProcMountType",
    "RecoverVolumeExpansionFailure",
    "RecursiveReadOnlyMounts",
    "RelaxedDNSSearchValidation",
    "RelaxedEnvironmentVariableValidation",
    "SidecarContainers",
    "SizeMemoryBackedVolumes",
    "SupplementalGroupsPolicy",
    "TopologyAwareHints",
    "TranslateStreamCloseWebsocketRequests",
    "UserNamespacesSupport",
    "WatchList",
];

/// Gates that concern a node and are off.
const OFF: &[&str] = &[
    "ClusterTrustBundle",
    "ClusterTrustBundleProjection",
    "ContainerRestartRules",
    "EnvFiles",
    "HostnameOverride",
    "KubeletCrashLoopBackOffMax",
    "KubeletEnsureSecretPulledImages",
    "PodCertificateRequest",
    "ReduceDefaultCrashLoopBackOffDecay",
];

/// Something about a gate that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateNote {
    /// The feature is what it is.
    NoEffect {
        /// The gate.
        name: String,
        /// Whether the feature is there.
        is_on: bool,
    },
    /// Nothing is known of such a gate.
    Unknown {
        /// The gate.
        name: String,
    },
}

impl std::fmt::Display for GateNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoEffect { name, is_on } => {
                write!(f, "feature gate {name} has no effect: the feature is {}", if *is_on { "on" } else { "off" })
            }
            Self::Unknown { name } => write!(f, "feature gate {name} has no effect: the node knows no such feature"),
        }
    }
}

/// Says which of the gates don't do what they ask for. A gate that asks for what is done anyway is fine.
#[must_use]
pub fn check(gates: &BTreeMap<String, bool>) -> Vec<GateNote> {
    let note = |(name, wanted): (&String, &bool)| {
        let is_on = if ON.contains(&name.as_str()) {
            true
        } else if OFF.contains(&name.as_str()) {
            false
        } else {
            return Some(GateNote::Unknown { name: name.clone() });
        };
        (is_on != *wanted).then(|| GateNote::NoEffect { name: name.clone(), is_on })
    };
    gates.iter().filter_map(note).collect()
}
