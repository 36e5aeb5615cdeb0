//! Who may depend on whom. The table is the design's section 2 as data; change it together with that page.
//!
//! ```text
//! k3sd ──▶ subsystems ──▶ client ──▶ objects          everything ──▶ runtime
//!            kine ──▶ datastore      flannel, proxy, netpol, kubelet/cni, coredns, servicelb ──▶ netlink
//!            containerd, kubelet ──▶ cri
//! ```
//!
//! Subsystems never see each other: they meet in the API, or in a message type that `client` owns. Dependencies for
//! tests follow the same arrows; a test across subsystems belongs to `k3sd` or to `chaos-tests`.

use crate::metadata::Edge;

/// What a subsystem may use without further reason. Objects too: they are what the client speaks in.
const COMMON: &[&str] = &["k3sd-client", "k3sd-objects", "k3sd-runtime"];

/// The subsystems, and what each of them alone may use.
const SUBSYSTEMS: &[(&str, &[&str])] = &[
    ("k3sd-pki", &[]),
    ("k3sd-kine", &["k3sd-datastore"]),
    (
        "k3sd-apiserver",
        &[
            "k3sd-apiserver-access",
            "k3sd-apiserver-admission",
            "k3sd-apiserver-custom",
            "k3sd-apiserver-registry",
            "k3sd-apiserver-store",
            "k3sd-apiserver-wire",
        ],
    ),
    (
        "k3sd-controllers",
        &[
            "k3sd-controllers-accounts",
            "k3sd-controllers-batch",
            "k3sd-controllers-collection",
            "k3sd-controllers-network",
            "k3sd-controllers-nodes",
            "k3sd-controllers-volumes",
            "k3sd-controllers-workloads",
        ],
    ),
    ("k3sd-scheduler", &[]),
    ("k3sd-manifests", &[]),
    ("k3sd-coredns", &["k3sd-netlink"]),
    ("k3sd-tunnel", &[]),
    ("k3sd-join", &[]),
    ("k3sd-containerd", &["k3sd-cri"]),
    (
        "k3sd-kubelet",
        &[
            "k3sd-cri",
            "k3sd-kubelet-base",
            "k3sd-kubelet-cgroups",
            "k3sd-kubelet-cni",
            "k3sd-kubelet-node",
            "k3sd-kubelet-pods",
            "k3sd-kubelet-server",
            "k3sd-kubelet-volumes",
        ],
    ),
    ("k3sd-flannel", &["k3sd-netlink"]),
    ("k3sd-proxy", &["k3sd-netlink"]),
    ("k3sd-netpol", &["k3sd-netlink"]),
    ("k3sd-servicelb", &["k3sd-netlink"]),
    ("k3sd-local-storage", &[]),
    ("k3sd-metrics", &[]),
];

/// The parts of the API server, of the controllers and of the node, each a crate that compiles and tests alone. Nobody but their own
/// subsystem uses them.
const PARTS: &[(&str, &[&str])] = &[
    ("k3sd-controllers-accounts", COMMON),
    ("k3sd-controllers-batch", COMMON),
    ("k3sd-controllers-collection", COMMON),
    ("k3sd-controllers-network", COMMON),
    ("k3sd-controllers-nodes", COMMON),
    ("k3sd-controllers-volumes", COMMON),
    ("k3sd-controllers-workloads", COMMON),
    ("k3sd-kubelet-base", &[]),
    ("k3sd-kubelet-cgroups", &["k3sd-objects"]),
    ("k3sd-kubelet-cni", &["k3sd-netlink", "k3sd-runtime"]),
    (
        "k3sd-kubelet-node",
        &["k3sd-client", "k3sd-cri", "k3sd-kubelet-base", "k3sd-kubelet-cgroups", "k3sd-objects", "k3sd-runtime"],
    ),
    (
        "k3sd-kubelet-pods",
        &[
            "k3sd-client",
            "k3sd-cri",
            "k3sd-kubelet-base",
            "k3sd-kubelet-cgroups",
            "k3sd-kubelet-volumes",
            "k3sd-objects",
            "k3sd-runtime",
        ],
    ),
    ("k3sd-kubelet-server", &["k3sd-client", "k3sd-cri", "k3sd-kubelet-base", "k3sd-objects", "k3sd-runtime"]),
    ("k3sd-kubelet-volumes", &["k3sd-client", "k3sd-kubelet-base", "k3sd-objects", "k3sd-runtime"]),
    ("k3sd-apiserver-cel", &["k3sd-objects"]),
    ("k3sd-apiserver-validation", &["k3sd-objects"]),
    ("k3sd-apiserver-access", &["k3sd-objects"]),
    ("k3sd-apiserver-store", COMMON),
    ("k3sd-apiserver-wire", &["k3sd-apiserver-store", "k3sd-objects"]),
    (
        "k3sd-apiserver-custom",
        &[
            "k3sd-apiserver-cel",
            "k3sd-apiserver-store",
            "k3sd-apiserver-validation",
            // For its tests, which need a store.
            "k3sd-client",
            "k3sd-objects",
            "k3sd-runtime",
        ],
    ),
    (
        "k3sd-apiserver-admission",
        &[
            "k3sd-apiserver-access",
            "k3sd-apiserver-store",
            // For its tests, which need a store.
            "k3sd-client",
            "k3sd-objects",
            "k3sd-runtime",
        ],
    ),
    (
        "k3sd-apiserver-registry",
        &[
            "k3sd-apiserver-access",
            "k3sd-apiserver-admission",
            "k3sd-apiserver-custom",
            "k3sd-apiserver-store",
            "k3sd-apiserver-validation",
            "k3sd-client",
            "k3sd-objects",
            "k3sd-runtime",
        ],
    ),
];

/// The crates below and above the subsystems.
const OTHERS: &[(&str, &[&str])] = &[
    ("k3sd-runtime", &[]),
    ("k3sd-datastore", &["k3sd-runtime"]),
    ("k3sd-netlink", &["k3sd-runtime"]),
    // No async and no IO, so not even the runtime.
    ("k3sd-objects", &[]),
    ("k3sd-client", &["k3sd-objects", "k3sd-runtime"]),
    // The messages of the container runtime, which the engine's actor and the node both speak.
    ("k3sd-cri", &["k3sd-runtime"]),
];

/// The binary: every subsystem, but never past one to its backend.
const BINARY: &str = "k3sd";

/// Stands outside and may use anything; nobody uses it.
const CHAOS: &str = "chaos-tests";

/// Crates of others that only some of ours may name.
const FOREIGN: &[Foreign] = &[
    Foreign { crates: &["wireguard-control"], only: &["k3sd-netlink"], why: "LGPL, kept in one place" },
    Foreign { crates: &["anyhow"], only: &[BINARY, CHAOS], why: "a library says what went wrong with a type" },
    Foreign {
        crates: &["rusqlite", "etcd-client", "tokio-postgres", "mysql_async"],
        only: &["k3sd-datastore"],
        why: "kine sees a store, not a database",
    },
    Foreign { crates: &["serde-saphyr"], only: &[BINARY, "k3sd-objects"], why: "one module names the YAML crate" },
];

struct Foreign {
    crates: &'static [&'static str],
    only: &'static [&'static str],
    why: &'static str,
}

/// Who must stay free of what.
const FREE_OF: &[(&[&str], &[&str], &str)] = &[
    (
        &["k3sd-runtime", "k3sd-datastore", "k3sd-netlink"],
        &["kube", "kube-client", "kube-core", "kube-runtime", "k8s-openapi"],
        "it knows nothing of Kubernetes",
    ),
    (&["k3sd-objects"], &["tokio", "hyper", "kube", "kube-client"], "objects have no async and no IO"),
];

/// Each edge that is not in the tables, with the rule it breaks.
pub(crate) fn check(edges: &[Edge]) -> Vec<String> {
    let mut findings = Vec::new();
    for Edge { from, to } in edges {
        let (from, to) = (from.as_str(), to.as_str());
        if is_ours(to) && from != to {
            findings.extend(check_own(from, to).map(|why| format!("{from} -> {to}: {why}")));
        }
        for rule in FOREIGN {
            if rule.crates.contains(&to) && !rule.only.contains(&from) {
                findings.push(format!("{from} -> {to}: only for {}: {}", rule.only.join(", "), rule.why));
            }
        }
        for (crates, without, why) in FREE_OF {
            if crates.contains(&from) && without.contains(&to) {
                findings.push(format!("{from} -> {to}: {why}"));
            }
        }
    }
    findings
}

/// Whether a crate of the workspace is in one of the tables.
pub(crate) fn is_known(name: &str) -> bool {
    name == BINARY || name == CHAOS || rows().any(|(row, _)| *row == name)
}

fn rows() -> impl Iterator<Item = &'static (&'static str, &'static [&'static str])> {
    SUBSYSTEMS.iter().chain(PARTS).chain(OTHERS)
}

fn is_ours(name: &str) -> bool {
    name == CHAOS || name == BINARY || name.starts_with("k3sd-")
}

fn is_subsystem(name: &str) -> bool {
    SUBSYSTEMS.iter().any(|(row, _)| *row == name)
}

/// Why one of our crates may not use another.
fn check_own(from: &str, to: &str) -> Option<&'static str> {
    if !is_known(from) || !is_known(to) {
        return Some("not in the table of arrows; add the crate there and in the design");
    }
    if to == CHAOS || to == BINARY {
        // The tests drive the binary; they do not link it in, except to reuse its wire types.
        return (from != CHAOS || to == CHAOS).then_some("nobody depends on what stands at the top");
    }
    if from == CHAOS {
        return None;
    }
    if from == BINARY {
        let allowed = is_subsystem(to) || COMMON.contains(&to);
        return (!allowed).then_some("the binary reaches a backend through the subsystem that owns it");
    }
    let (_, own) =
        rows().find(|(row, _)| *row == from).expect("a known crate that is neither binary nor chaos has a row");
    if own.contains(&to) || (is_subsystem(from) && COMMON.contains(&to)) {
        return None;
    }
    Some(match (is_subsystem(from), is_subsystem(to)) {
        (true, true) => "subsystems meet in the API or in a message type owned by client",
        (true, false) => "this subsystem has no business with that backend",
        (false, _) => "the arrow points the other way",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule's answer about one made-up edge, empty when it is allowed.
    fn answer(from: &str, to: &str) -> String {
        check(&[Edge { from: from.to_owned(), to: to.to_owned() }]).join("; ")
    }

    #[test]
    fn the_arrows_of_the_design_are_allowed() {
        for (from, to) in [
            ("k3sd", "k3sd-apiserver"),
            ("k3sd", "k3sd-runtime"),
            ("k3sd-kine", "k3sd-datastore"),
            ("k3sd-kubelet-cni", "k3sd-netlink"),
            ("k3sd-servicelb", "k3sd-netlink"),
            ("k3sd-scheduler", "k3sd-client"),
            ("k3sd-apiserver", "k3sd-objects"),
            ("k3sd-client", "k3sd-objects"),
            ("k3sd-datastore", "k3sd-runtime"),
            ("chaos-tests", "k3sd-runtime"),
            ("k3sd-runtime", "tokio"),
            ("k3sd", "serde-saphyr"),
            ("k3sd-datastore", "rusqlite"),
        ] {
            assert_eq!(answer(from, to), "", "{from} -> {to}");
        }
    }

    #[test]
    fn every_other_arrow_is_found() {
        for (from, to, why) in [
            ("k3sd-kubelet", "k3sd-containerd", "subsystems meet in the API"),
            ("k3sd-apiserver", "k3sd-kine", "subsystems meet in the API"),
            ("k3sd-apiserver", "k3sd-datastore", "no business with that backend"),
            ("k3sd-scheduler", "k3sd-netlink", "no business with that backend"),
            ("k3sd", "k3sd-datastore", "through the subsystem that owns it"),
            ("k3sd", "k3sd-netlink", "through the subsystem that owns it"),
            ("k3sd-runtime", "k3sd-objects", "the other way"),
            ("k3sd-objects", "k3sd-runtime", "the other way"),
            ("k3sd-objects", "k3sd-client", "the other way"),
            ("k3sd-client", "k3sd-apiserver", "the other way"),
            ("k3sd-datastore", "k3sd-netlink", "the other way"),
            ("k3sd-kine", "k3sd", "stands at the top"),
            ("k3sd", "chaos-tests", "stands at the top"),
            ("k3sd-mystery", "k3sd-runtime", "not in the table"),
            ("k3sd", "k3sd-mystery", "not in the table"),
            ("k3sd-runtime", "k8s-openapi", "knows nothing of Kubernetes"),
            ("k3sd-objects", "tokio", "no async"),
            ("k3sd-flannel", "wireguard-control", "LGPL"),
            ("k3sd-kine", "rusqlite", "not a database"),
            ("k3sd-runtime", "anyhow", "with a type"),
            ("k3sd-pki", "serde-saphyr", "YAML"),
        ] {
            assert!(answer(from, to).contains(why), "{from} -> {to}: {:?}", answer(from, to));
        }
    }
}
