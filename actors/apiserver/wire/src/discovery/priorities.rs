//! Where groups and versions stand among others, and how versions compare that nobody ranked.

use std::cmp::Reverse;

/// The group of APIService objects. It has none for itself and stands before all others.
pub(super) const OWN_GROUP: &str = "apiregistration.k8s.io";
/// What custom resources have.
pub const CUSTOM: (i64, i64) = (1000, 100);

/// Priorities of groups that are compiled in.
const GROUPS: &[(&str, i64)] = &[
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
];

/// Versions that don't have the usual priority of their stage.
const VERSIONS: &[(&str, &str, i64)] = &[
    ("", "v1", 1),
    ("autoscaling", "v2", 30),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1", 20),
    ("resource.k8s.io", "v1beta2", 15),
    ("coordination.k8s.io", "v1beta1", 13),
    ("rbac.authorization.k8s.io", "v1beta1", 12),
    ("admissionregistration.k8s.io", "v1beta1", 12),
    ("discovery.k8s.io", "v1beta1", 12),
    ("coordination.k8s.io", "v1alpha2", 12),
];

/// `groupPriorityMinimum` and `versionPriority` of a version that is compiled in; `None` for the others, and for the group
/// of APIService objects itself, which nobody registers.
#[must_use]
pub fn builtin(group: &str, version: &str) -> Option<(i64, i64)> {
    let (_, group_priority) = GROUPS.iter().find(|(name, _)| *name == group)?;
    let named = VERSIONS.iter().find(|(of, name, _)| *of == group && *name == version);
    let usual = match version {
        version if version.contains("alpha") => 1,
        version if version.contains("beta") => 9,
        _ => 15,
    };
    Some((*group_priority, named.map_or(usual, |(.., priority)| *priority)))
}

/// The place of a version that this server has itself.
pub(super) fn own(group: &str, version: &str) -> (i64, i64) {
    if group == OWN_GROUP { (i64::MAX, i64::MAX) } else { builtin(group, version).unwrap_or(CUSTOM) }
}

/// Sorts versions of one priority: those named as Kubernetes names its own before the others, stable ones first, newer
/// ones first.
pub(super) fn order(version: &str) -> (Reverse<(u8, u64, u64)>, &str) {
    (Reverse(rank(version).map_or((0, 0, 0), |(stage, major, minor)| (stage + 1, major, minor))), version)
}

/// Stability, major and minor of a version named as Kubernetes names its own.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(digits);
    let major = major.parse().ok()?;
    for (stage, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some(minor) = rest.strip_prefix(stage) {
            return Some((stability, major, if minor.is_empty() { 0 } else { minor.parse().ok()? }));
        }
    }
    rest.is_empty().then_some((2, major, 0))
}
