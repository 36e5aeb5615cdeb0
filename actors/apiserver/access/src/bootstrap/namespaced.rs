//! The roles and bindings inside of `kube-system` and `kube-public`.

use super::table::{BindingRow, CORE, EVENTS, READ, RoleRow, named, on, role};

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";

/// Namespace and role.
pub(super) const ROLES: &[(&str, RoleRow<'static>)] = &[
    (
        SYSTEM,
        role(
            "extension-apiserver-authentication-reader",
            &[named(READ, CORE, "configmaps", "extension-apiserver-authentication")],
        ),
    ),
    (SYSTEM, role("system:controller:bootstrap-signer", &[on(READ, CORE, "secrets")])),
    (SYSTEM, role("system:controller:cloud-provider", &[on("create get list watch", CORE, "configmaps")])),
    (SYSTEM, role("system:controller:token-cleaner", &[on("get list watch delete", CORE, "secrets"), EVENTS])),
    (
        SYSTEM,
        role(
            "system::leader-locking-kube-controller-manager",
            &[on("watch", CORE, "configmaps"), named("get update", CORE, "configmaps", "kube-controller-manager")],
        ),
    ),
    (
        SYSTEM,
        role(
            "system::leader-locking-kube-scheduler",
            &[on("watch", CORE, "configmaps"), named("get update", CORE, "configmaps", "kube-scheduler")],
        ),
    ),
    (
        PUBLIC,
        role(
            "system:controller:bootstrap-signer",
            &[on(READ, CORE, "configmaps"), named("update", CORE, "configmaps", "cluster-info"), EVENTS],
        ),
    ),
];

const fn bound(
    name: &'static str,
    role: &'static str,
    users: &'static str,
    accounts: &'static str,
) -> BindingRow<'static> {
    BindingRow { name, role, users, groups: "", accounts }
}

/// Namespace and binding.
pub(super) const BINDINGS: &[(&str, BindingRow<'static>)] = &[
    (
        SYSTEM,
        bound(
            "system::extension-apiserver-authentication-reader",
            "extension-apiserver-authentication-reader",
            "system:kube-controller-manager system:kube-scheduler",
            "",
        ),
    ),
    (
        SYSTEM,
        bound(
            "system::leader-locking-kube-controller-manager",
            "system::leader-locking-kube-controller-manager",
            "system:kube-controller-manager",
            "kube-system/kube-controller-manager",
        ),
    ),
    (
        SYSTEM,
        bound(
            "system::leader-locking-kube-scheduler",
            "system::leader-locking-kube-scheduler",
            "system:kube-scheduler",
            "kube-system/kube-scheduler",
        ),
    ),
    (SYSTEM, own("system:controller:bootstrap-signer", "kube-system/bootstrap-signer")),
    (SYSTEM, own("system:controller:cloud-provider", "kube-system/cloud-provider")),
    (SYSTEM, own("system:controller:token-cleaner", "kube-system/token-cleaner")),
    (PUBLIC, own("system:controller:bootstrap-signer", "kube-system/bootstrap-signer")),
];

const fn own(name: &'static str, accounts: &'static str) -> BindingRow<'static> {
    bound(name, name, "", accounts)
}
