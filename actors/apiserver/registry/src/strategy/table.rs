//! The kinds that differ from the rule.

use k3sd_apiserver_store::Resource;

use super::{Dependents, OBJECT_METADATA, StatusMetadata, Strategy, batch, certificates, core, pods, storage};

const RULE: Strategy = Strategy::RULE;

const fn row(group: &'static str, plural: &'static str) -> Strategy {
    Strategy { group, plural, ..RULE }
}

/// Kinds that answer a deletion with what is gone.
const fn returning(group: &'static str, plural: &'static str) -> Strategy {
    Strategy { returns_deleted: true, ..row(group, plural) }
}

/// Kinds whose PUT must say what it replaces.
const fn versioned(group: &'static str, plural: &'static str) -> Strategy {
    Strategy { needs_version: true, ..row(group, plural) }
}

/// Kinds that a PUT creates too.
const fn creatable(group: &'static str, plural: &'static str) -> Strategy {
    Strategy { create_on_update: true, ..row(group, plural) }
}

const RESET: StatusMetadata = StatusMetadata::Kept(OBJECT_METADATA);
const ADMISSION: &str = "admissionregistration.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const FLOWS: &str = "flowcontrol.apiserver.k8s.io";

const TABLE: &[Strategy] = &[
    Strategy {
        counts: true,
        status_metadata: StatusMetadata::Kept(&["ownerReferences"]),
        create: pods::create,
        update_status: pods::update_status,
        ..returning("", "pods")
    },
    Strategy { create_on_update: true, ..returning("", "services") },
    creatable("", "endpoints"),
    creatable("", "limitranges"),
    Strategy { create_on_update: true, dependents: Dependents::Ignored, ..row("", "events") },
    Strategy { create_on_update: true, dependents: Dependents::Ignored, ..row("events.k8s.io", "events") },
    Strategy { counts: true, ..returning("", "podtemplates") },
    returning("", "resourcequotas"),
    Strategy { needs_version: true, ..returning("", "serviceaccounts") },
    Strategy {
        create: storage::create_volume,
        update_status: storage::update_volume_status,
        ..returning("", "persistentvolumes")
    },
    Strategy {
        create: storage::create_claim,
        update: storage::update_claim,
        ..returning("", "persistentvolumeclaims")
    },
    Strategy { keeps_status: true, ..row("", "nodes") },
    Strategy { create: core::create_namespace, update: core::update_namespace, ..row("", "namespaces") },
    Strategy { dependents: Dependents::Orphan, ..row("", "replicationcontrollers") },
    Strategy {
        counts_annotations: true,
        status_metadata: StatusMetadata::Kept(&["labels"]),
        ..row("apps", "deployments")
    },
    Strategy { create: batch::create_daemon_set, update: batch::update_daemon_set, ..row("apps", "daemonsets") },
    Strategy { dependents: Dependents::Orphan, create: batch::create_job, ..row("batch", "jobs") },
    versioned("policy", "poddisruptionbudgets"),
    Strategy { counts: true, ..row("discovery.k8s.io", "endpointslices") },
    creatable(RBAC, "roles"),
    creatable(RBAC, "rolebindings"),
    creatable(RBAC, "clusterroles"),
    creatable(RBAC, "clusterrolebindings"),
    Strategy { create_on_update: true, ..versioned("coordination.k8s.io", "leases") },
    Strategy { create_on_update: true, ..versioned("coordination.k8s.io", "leasecandidates") },
    versioned("node.k8s.io", "runtimeclasses"),
    returning(STORAGE, "storageclasses"),
    returning(STORAGE, "volumeattributesclasses"),
    Strategy { needs_version: true, status_metadata: RESET, ..returning(STORAGE, "volumeattachments") },
    Strategy { needs_version: true, ..returning(STORAGE, "csinodes") },
    Strategy { needs_version: true, ..returning(STORAGE, "csidrivers") },
    versioned(ADMISSION, "mutatingwebhookconfigurations"),
    versioned(ADMISSION, "validatingwebhookconfigurations"),
    Strategy { status_metadata: RESET, ..versioned(ADMISSION, "validatingadmissionpolicies") },
    versioned(ADMISSION, "validatingadmissionpolicybindings"),
    versioned(ADMISSION, "mutatingadmissionpolicies"),
    versioned(ADMISSION, "mutatingadmissionpolicybindings"),
    Strategy { status_metadata: RESET, ..versioned("apiextensions.k8s.io", "customresourcedefinitions") },
    Strategy {
        status_metadata: RESET,
        create: core::create_api_service,
        ..versioned("apiregistration.k8s.io", "apiservices")
    },
    Strategy { status_metadata: RESET, ..row(FLOWS, "flowschemas") },
    Strategy { status_metadata: RESET, ..row(FLOWS, "prioritylevelconfigurations") },
    Strategy {
        create: certificates::create,
        update: certificates::update,
        update_status: certificates::update_status,
        ..row("certificates.k8s.io", "certificatesigningrequests")
    },
    versioned("certificates.k8s.io", "clustertrustbundles"),
    Strategy { status_metadata: RESET, ..returning("resource.k8s.io", "resourceclaims") },
    returning("resource.k8s.io", "resourceclaimtemplates"),
    returning("resource.k8s.io", "deviceclasses"),
    returning("resource.k8s.io", "resourceslices"),
];

/// How objects of a resource are prepared.
pub(crate) fn of(resource: &Resource) -> &'static Strategy {
    const CUSTOM: &Strategy = &Strategy::CUSTOM;
    const OTHERS: &Strategy = &Strategy::RULE;
    if resource.custom.is_some() {
        return CUSTOM;
    }
    // Plurals first: they nearly always differ in length already, which costs nothing to see.
    let found = TABLE.iter().find(|row| *row.plural == *resource.plural && *row.group == *resource.group);
    found.unwrap_or(OTHERS)
}

#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().map(|row| (row.group, row.plural))
}
