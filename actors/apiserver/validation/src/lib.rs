//! What makes an object invalid beyond its schema, and what of it may not change.
//!
//! Everything here is a function of objects that were decoded, checked against their types and defaulted before: no
//! input, no clock. Rules are found by group and kind in one table; a kind that isn't there, as custom resources are
//! not, is only asked for its `metadata`. Paths, kinds, words and order of the errors are upstream's, since people and
//! tests compare them.
//!
//! What is deliberately absent: whatever takes a look at other objects (quotas, free addresses and ports), which is
//! admission's and the allocators' business.

mod autoscaling;
mod certificates;
mod claims;
mod cluster;
mod cron;
mod data;
mod discovery;
mod drivers;
mod endpoints;
mod events;
mod job_policies;
mod jobs;
mod limits;
mod meta;
mod networking;
mod nodes;
mod permissions;
mod pod;
mod read;
mod resources;
mod services;
mod storage;
#[cfg(test)]
mod tests;
mod volumes;
mod workloads;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;
use serde_json::Value;

use self::meta::NameRule;
use self::read::{At, Errors};

/// What can't be known from an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Whether containers may run privileged at all (`--allow-privileged`).
    pub allow_privileged: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self { allow_privileged: true }
    }
}

/// A change that goes through a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `status`.
    Status,
    /// `ephemeralcontainers` of a pod.
    EphemeralContainers,
    /// `resize` of a pod.
    Resize,
    /// `approval` of a request for a certificate.
    Approval,
}

/// A check of an object as it is.
type Check = fn(&At<'_>, &Context, &mut Errors);

/// A check of an object, then of the one that it replaces.
type Change = fn(&At<'_>, &At<'_>, &Context, &mut Errors);

/// What is asked of a kind.
struct Rules {
    group: &'static str,
    kind: &'static str,
    namespaced: bool,
    name: NameRule,
    create: Check,
    update: Change,
    subresources: &'static [(Subresource, Change)],
}

/// The kinds, by group.
const KINDS: &[Rules] = &[
    Rules {
        group: "",
        kind: "Pod",
        namespaced: true,
        name: names::dns_subdomain,
        create: pod::check_create,
        update: pod::check_update,
        subresources: &[
            (Subresource::Status, pod::check_status),
            (Subresource::EphemeralContainers, pod::check_ephemeral_update),
            (Subresource::Resize, pod::check_resize),
        ],
    },
    Rules {
        group: "",
        kind: "PodTemplate",
        namespaced: true,
        name: names::dns_subdomain,
        create: |object, context, out| pod::check_template(&object.field("template"), context, out),
        update: |new, _, context, out| pod::check_template(&new.field("template"), context, out),
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "Binding",
        namespaced: true,
        name: names::dns_subdomain,
        create: |object, _, out| pod::check_binding(object, out),
        update: |_, _, _, _| {},
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "ConfigMap",
        namespaced: true,
        name: names::dns_subdomain,
        create: data::check_config_map,
        update: data::update_config_map,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "Secret",
        namespaced: true,
        name: names::dns_subdomain,
        create: data::check_secret,
        update: data::update_secret,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "ReplicationController",
        namespaced: true,
        name: names::dns_subdomain,
        create: workloads::check_replication_controller,
        update: workloads::update_replication_controller,
        subresources: &[],
    },
    Rules {
        group: "apps",
        kind: "Deployment",
        namespaced: true,
        name: names::dns_subdomain,
        create: workloads::check_deployment,
        update: workloads::update_deployment,
        subresources: &[],
    },
    Rules {
        group: "apps",
        kind: "ReplicaSet",
        namespaced: true,
        name: names::dns_subdomain,
        create: workloads::check_replica_set,
        update: workloads::update_replica_set,
        subresources: &[],
    },
    Rules {
        group: "apps",
        kind: "DaemonSet",
        namespaced: true,
        name: names::dns_subdomain,
        create: workloads::check_daemon_set,
        update: workloads::update_daemon_set,
        subresources: &[],
    },
    Rules {
        group: "apps",
        kind: "StatefulSet",
        namespaced: true,
        name: names::dns_subdomain,
        create: workloads::check_stateful_set,
        update: workloads::update_stateful_set,
        subresources: &[],
    },
    Rules {
        group: "apps",
        kind: "ControllerRevision",
        namespaced: true,
        name: names::dns_subdomain,
        create: workloads::check_controller_revision,
        update: workloads::update_controller_revision,
        subresources: &[],
    },
    Rules {
        group: "batch",
        kind: "Job",
        namespaced: true,
        name: names::dns_subdomain,
        create: jobs::check_job,
        update: jobs::update_job,
        subresources: &[(Subresource::Status, jobs::update_job_status)],
    },
    Rules {
        group: "batch",
        kind: "CronJob",
        namespaced: true,
        name: names::dns_subdomain,
        create: jobs::check_cron_job,
        update: jobs::update_cron_job,
        subresources: &[],
    },
    Rules {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        namespaced: true,
        name: names::dns_subdomain,
        create: autoscaling::check,
        update: autoscaling::update,
        subresources: &[(Subresource::Status, autoscaling::update_status)],
    },
    Rules {
        group: "autoscaling",
        kind: "Scale",
        namespaced: true,
        name: names::dns_subdomain,
        create: autoscaling::check_scale,
        update: |new, _, context, out| autoscaling::check_scale(new, context, out),
        subresources: &[],
    },
    Rules {
        group: "networking.k8s.io",
        kind: "Ingress",
        namespaced: true,
        name: names::dns_subdomain,
        create: networking::check_ingress,
        update: networking::update_ingress,
        subresources: &[],
    },
    Rules {
        group: "networking.k8s.io",
        kind: "IngressClass",
        namespaced: false,
        name: names::dns_subdomain,
        create: networking::check_class,
        update: networking::update_class,
        subresources: &[],
    },
    Rules {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        namespaced: true,
        name: names::dns_subdomain,
        create: networking::check_policy,
        update: networking::update_policy,
        subresources: &[],
    },
    Rules {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        namespaced: false,
        name: names::dns_subdomain,
        create: networking::check_service_range,
        update: networking::update_service_range,
        subresources: &[],
    },
    Rules {
        group: "networking.k8s.io",
        kind: "IPAddress",
        namespaced: false,
        name: networking::address_name,
        create: networking::check_address,
        update: networking::update_address,
        subresources: &[],
    },
    Rules {
        group: "certificates.k8s.io",
        kind: "CertificateSigningRequest",
        namespaced: false,
        name: names::path_segment,
        create: certificates::check,
        update: certificates::update,
        subresources: &[
            (Subresource::Approval, certificates::update_approval),
            (Subresource::Status, certificates::update_status),
        ],
    },
    Rules {
        group: "rbac.authorization.k8s.io",
        kind: "Role",
        namespaced: true,
        name: names::path_segment,
        create: permissions::check_role,
        update: |new, _, context, out| permissions::check_role(new, context, out),
        subresources: &[],
    },
    Rules {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        namespaced: false,
        name: names::path_segment,
        create: permissions::check_cluster_role,
        update: |new, _, context, out| permissions::check_cluster_role(new, context, out),
        subresources: &[],
    },
    Rules {
        group: "rbac.authorization.k8s.io",
        kind: "RoleBinding",
        namespaced: true,
        name: names::path_segment,
        create: permissions::check_role_binding,
        update: permissions::update_role_binding,
        subresources: &[],
    },
    Rules {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        namespaced: false,
        name: names::path_segment,
        create: permissions::check_cluster_role_binding,
        update: permissions::update_cluster_role_binding,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "Namespace",
        namespaced: false,
        name: names::dns_label,
        create: cluster::check_namespace,
        update: cluster::update_namespace,
        subresources: &[(Subresource::Status, cluster::check_namespace_status)],
    },
    Rules {
        group: "",
        kind: "ServiceAccount",
        namespaced: true,
        name: names::dns_subdomain,
        create: cluster::check_nothing,
        update: cluster::update_nothing,
        subresources: &[],
    },
    Rules {
        group: "coordination.k8s.io",
        kind: "Lease",
        namespaced: true,
        name: names::dns_subdomain,
        create: cluster::check_lease,
        update: cluster::update_lease,
        subresources: &[],
    },
    Rules {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        namespaced: false,
        name: names::dns_subdomain,
        create: cluster::check_priority_class,
        update: cluster::update_priority_class,
        subresources: &[],
    },
    Rules {
        group: "node.k8s.io",
        kind: "RuntimeClass",
        namespaced: false,
        name: names::dns_subdomain,
        create: cluster::check_runtime_class,
        update: cluster::update_runtime_class,
        subresources: &[],
    },
    Rules {
        group: "policy",
        kind: "PodDisruptionBudget",
        namespaced: true,
        name: names::dns_subdomain,
        create: cluster::check_disruption_budget,
        update: cluster::update_disruption_budget,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "Service",
        namespaced: true,
        name: names::dns_1035_label,
        create: services::check,
        update: services::update,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "Node",
        namespaced: false,
        name: names::dns_subdomain,
        create: nodes::check,
        update: nodes::update,
        subresources: &[(Subresource::Status, nodes::check_status)],
    },
    Rules {
        group: "",
        kind: "ResourceQuota",
        namespaced: true,
        name: names::dns_subdomain,
        create: limits::check_quota,
        update: limits::update_quota,
        subresources: &[(Subresource::Status, limits::check_quota_status)],
    },
    Rules {
        group: "",
        kind: "LimitRange",
        namespaced: true,
        name: names::dns_subdomain,
        create: limits::check_range,
        update: limits::update_range,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "Event",
        namespaced: true,
        name: names::path_segment,
        create: events::check,
        update: events::update,
        subresources: &[],
    },
    Rules {
        group: "events.k8s.io",
        kind: "Event",
        namespaced: true,
        name: names::dns_subdomain,
        create: events::check_new,
        update: events::update_new,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "Endpoints",
        namespaced: true,
        name: names::dns_subdomain,
        create: endpoints::check,
        update: endpoints::update,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "PersistentVolume",
        namespaced: false,
        name: names::dns_subdomain,
        create: volumes::check,
        update: volumes::update,
        subresources: &[],
    },
    Rules {
        group: "",
        kind: "PersistentVolumeClaim",
        namespaced: true,
        name: names::dns_subdomain,
        create: claims::check,
        update: claims::update,
        subresources: &[(Subresource::Status, claims::check_status)],
    },
    Rules {
        group: "storage.k8s.io",
        kind: "StorageClass",
        namespaced: false,
        name: names::dns_subdomain,
        create: storage::check_class,
        update: storage::update_class,
        subresources: &[],
    },
    Rules {
        group: "storage.k8s.io",
        kind: "CSIDriver",
        namespaced: false,
        name: names::dns_subdomain,
        create: drivers::check_csi_driver,
        update: drivers::update_csi_driver,
        subresources: &[],
    },
    Rules {
        group: "storage.k8s.io",
        kind: "CSINode",
        namespaced: false,
        name: names::dns_subdomain,
        create: drivers::check_csi_node,
        update: drivers::update_csi_node,
        subresources: &[],
    },
    Rules {
        group: "storage.k8s.io",
        kind: "CSIStorageCapacity",
        namespaced: true,
        name: names::dns_subdomain,
        create: drivers::check_capacity,
        update: drivers::update_capacity,
        subresources: &[],
    },
    Rules {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        namespaced: false,
        name: names::dns_subdomain,
        create: drivers::check_attachment,
        update: drivers::update_attachment,
        subresources: &[(Subresource::Status, drivers::update_attachment)],
    },
    Rules {
        group: "storage.k8s.io",
        kind: "VolumeAttributesClass",
        namespaced: false,
        name: names::dns_subdomain,
        create: drivers::check_attributes,
        update: drivers::update_attributes,
        subresources: &[],
    },
    Rules {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        namespaced: true,
        name: names::dns_subdomain,
        create: discovery::check,
        update: discovery::update,
        subresources: &[],
    },
];

/// The rules of a kind, given its group (empty for core) and name.
fn rules((group, kind): (&str, &str)) -> Option<&'static Rules> {
    KINDS.iter().find(|rules| rules.group == group && rules.kind == kind)
}

/// Whether the rules of a kind are known; of others only `metadata` is checked.
#[must_use]
pub fn is_known(kind: (&str, &str)) -> bool {
    rules(kind).is_some()
}

/// What is wrong with an object that is about to be created. `kind` is its group, empty for core, and kind.
///
/// An object with `generateName` only must have got its name before.
#[must_use]
pub fn create(kind: (&str, &str), object: &Value, context: &Context) -> Vec<Error> {
    let mut out = Errors::new();
    let object = At::root(object);
    let metadata = object.field("metadata");
    if let Some(rules) = rules(kind) {
        // A binding only borrows the name of its pod.
        if rules.kind != "Binding" {
            meta::check(&metadata, rules.namespaced, rules.name, &mut out);
        }
        (rules.create)(&object, context, &mut out);
    } else {
        let namespaced = !metadata.text("namespace").is_empty();
        meta::check(&metadata, namespaced, names::path_segment, &mut out);
    }
    out
}

/// What is wrong with an object that is about to take the place of another of its kind and name.
#[must_use]
pub fn update(kind: (&str, &str), new: &Value, old: &Value, context: &Context) -> Vec<Error> {
    change(kind, new, old, |rules| Some(rules.update), context)
}

/// The same for a change through a subresource. Of kinds that ask nothing there only `metadata` is checked.
#[must_use]
pub fn subresource(
    kind: (&str, &str),
    through: Subresource,
    new: &Value,
    old: &Value,
    context: &Context,
) -> Vec<Error> {
    let find = |rules: &Rules| {
        rules.subresources.iter().find(|(subresource, _)| *subresource == through).map(|(_, change)| *change)
    };
    change(kind, new, old, find, context)
}

fn change(
    kind: (&str, &str),
    new: &Value,
    old: &Value,
    find: impl Fn(&Rules) -> Option<Change>,
    context: &Context,
) -> Vec<Error> {
    let mut out = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    meta::check_update(&new.field("metadata"), &old.field("metadata"), &mut out);
    if let Some(change) = rules(kind).and_then(find) {
        change(&new, &old, context, &mut out);
    }
    out
}
