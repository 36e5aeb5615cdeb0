//! The kinds that have rules, by group.

use k3sd_objects::names;

use super::meta::NameRule;
use super::read::{At, Errors};
use super::{
    Context, Subresource, aggregation, autoscaling, certificates, claims, cluster, data, devices, discovery, drivers,
    endpoints, events, flow, hooks, job_status, jobs, limits, networking, nodes, permissions, pod, policies, services,
    slices, statuses, storage, volumes, workloads,
};

/// A check of an object as it is.
pub(super) type Check = fn(&At<'_>, &Context, &mut Errors);

/// A check of an object, then of the one that it replaces.
pub(super) type Change = fn(&At<'_>, &At<'_>, &Context, &mut Errors);

/// What is asked of a kind.
pub(super) struct Rules {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    /// Whether its objects are in a namespace.
    pub(super) namespaced: bool,
    pub(super) name: NameRule,
    pub(super) create: Check,
    pub(super) update: Change,
    pub(super) subresources: &'static [(Subresource, Change)],
}

/// A kind whose objects are in a namespace.
const fn inside(group: &'static str, kind: &'static str, create: Check, update: Change) -> Rules {
    Rules { group, kind, namespaced: true, name: names::dns_subdomain, create, update, subresources: &[] }
}

/// A kind whose objects are in none.
const fn outside(group: &'static str, kind: &'static str, create: Check, update: Change) -> Rules {
    Rules { namespaced: false, ..inside(group, kind, create, update) }
}

impl Rules {
    /// The same with names that are no DNS subdomains.
    const fn named(self, name: NameRule) -> Self {
        Self { name, ..self }
    }

    /// The same with subresources that ask something.
    const fn through(self, subresources: &'static [(Subresource, Change)]) -> Self {
        Self { subresources, ..self }
    }
}

/// The kinds, by group.
pub(super) const KINDS: &[Rules] = &[
    inside("", "Pod", pod::check_create, pod::check_update).through(&[
        (Subresource::Status, pod::check_status),
        (Subresource::EphemeralContainers, pod::check_ephemeral_update),
        (Subresource::Resize, pod::check_resize),
    ]),
    inside(
        "",
        "PodTemplate",
        |object, context, out| pod::check_template(&object.field("template"), context, out),
        |new, _, context, out| pod::check_template(&new.field("template"), context, out),
    ),
    inside("", "Binding", |object, _, out| pod::check_binding(object, out), |_, _, _, _| {}),
    inside("", "ConfigMap", data::check_config_map, data::update_config_map),
    inside("", "Secret", data::check_secret, data::update_secret),
    inside(
        "",
        "ReplicationController",
        workloads::check_replication_controller,
        workloads::update_replication_controller,
    )
    .through(&[(Subresource::Status, statuses::update_replica_set)]),
    outside("", "Namespace", cluster::check_namespace, cluster::update_namespace)
        .named(names::dns_label)
        .through(&[(Subresource::Status, cluster::check_namespace_status)]),
    inside("", "ServiceAccount", cluster::check_nothing, cluster::update_nothing),
    inside("", "Service", services::check, services::update)
        .named(names::dns_1035_label)
        .through(&[(Subresource::Status, statuses::update_service)]),
    outside("", "Node", nodes::check, nodes::update).through(&[(Subresource::Status, nodes::check_status)]),
    inside("", "ResourceQuota", limits::check_quota, limits::update_quota)
        .through(&[(Subresource::Status, limits::check_quota_status)]),
    inside("", "LimitRange", limits::check_range, limits::update_range),
    inside("", "Event", events::check, events::update).named(names::path_segment),
    inside("", "Endpoints", endpoints::check, endpoints::update),
    outside("", "PersistentVolume", volumes::check, volumes::update),
    inside("", "PersistentVolumeClaim", claims::check, claims::update)
        .through(&[(Subresource::Status, claims::check_status)]),
    inside("apps", "Deployment", workloads::check_deployment, workloads::update_deployment)
        .through(&[(Subresource::Status, statuses::update_deployment)]),
    inside("apps", "ReplicaSet", workloads::check_replica_set, workloads::update_replica_set)
        .through(&[(Subresource::Status, statuses::update_replica_set)]),
    inside("apps", "DaemonSet", workloads::check_daemon_set, workloads::update_daemon_set)
        .through(&[(Subresource::Status, statuses::update_daemon_set)]),
    inside("apps", "StatefulSet", workloads::check_stateful_set, workloads::update_stateful_set)
        .through(&[(Subresource::Status, statuses::update_stateful_set)]),
    inside("apps", "ControllerRevision", workloads::check_controller_revision, workloads::update_controller_revision),
    inside("batch", "Job", jobs::check_job, jobs::update_job).through(&[(Subresource::Status, job_status::update)]),
    inside("batch", "CronJob", jobs::check_cron_job, jobs::update_cron_job),
    inside("autoscaling", "HorizontalPodAutoscaler", autoscaling::check, autoscaling::update)
        .through(&[(Subresource::Status, autoscaling::update_status)]),
    inside("autoscaling", "Scale", autoscaling::check_scale, |new, _, context, out| {
        autoscaling::check_scale(new, context, out)
    }),
    inside("networking.k8s.io", "Ingress", networking::check_ingress, networking::update_ingress)
        .through(&[(Subresource::Status, statuses::update_ingress)]),
    outside("networking.k8s.io", "IngressClass", networking::check_class, networking::update_class),
    inside("networking.k8s.io", "NetworkPolicy", networking::check_policy, networking::update_policy),
    outside("networking.k8s.io", "ServiceCIDR", networking::check_service_range, networking::update_service_range),
    outside("networking.k8s.io", "IPAddress", networking::check_address, networking::update_address)
        .named(networking::address_name),
    outside("certificates.k8s.io", "CertificateSigningRequest", certificates::check, certificates::update)
        .named(names::path_segment)
        .through(&[
            (Subresource::Approval, certificates::update_approval),
            (Subresource::Status, certificates::update_status),
        ]),
    inside("rbac.authorization.k8s.io", "Role", permissions::check_role, |new, _, context, out| {
        permissions::check_role(new, context, out)
    })
    .named(names::path_segment),
    outside("rbac.authorization.k8s.io", "ClusterRole", permissions::check_cluster_role, |new, _, context, out| {
        permissions::check_cluster_role(new, context, out)
    })
    .named(names::path_segment),
    inside(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        permissions::check_role_binding,
        permissions::update_role_binding,
    )
    .named(names::path_segment),
    outside(
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        permissions::check_cluster_role_binding,
        permissions::update_cluster_role_binding,
    )
    .named(names::path_segment),
    inside("coordination.k8s.io", "Lease", cluster::check_lease, cluster::update_lease),
    outside("scheduling.k8s.io", "PriorityClass", cluster::check_priority_class, cluster::update_priority_class),
    outside("node.k8s.io", "RuntimeClass", cluster::check_runtime_class, cluster::update_runtime_class),
    inside("policy", "PodDisruptionBudget", cluster::check_disruption_budget, cluster::update_disruption_budget)
        .through(&[(Subresource::Status, statuses::update_disruption_budget)]),
    inside("events.k8s.io", "Event", events::check_new, events::update_new),
    outside("storage.k8s.io", "StorageClass", storage::check_class, storage::update_class),
    outside("storage.k8s.io", "CSIDriver", drivers::check_csi_driver, drivers::update_csi_driver),
    outside("storage.k8s.io", "CSINode", drivers::check_csi_node, drivers::update_csi_node),
    inside("storage.k8s.io", "CSIStorageCapacity", drivers::check_capacity, drivers::update_capacity),
    outside("storage.k8s.io", "VolumeAttachment", drivers::check_attachment, drivers::update_attachment)
        .through(&[(Subresource::Status, drivers::update_attachment)]),
    outside("storage.k8s.io", "VolumeAttributesClass", drivers::check_attributes, drivers::update_attributes),
    inside("discovery.k8s.io", "EndpointSlice", discovery::check, discovery::update),
    outside("admissionregistration.k8s.io", "MutatingWebhookConfiguration", hooks::check, hooks::update),
    outside("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", hooks::check, hooks::update),
    outside("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", policies::check, policies::update)
        .through(&[(Subresource::Status, policies::update_status)]),
    outside(
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding",
        policies::check_binding,
        policies::update_binding,
    ),
    outside("apiregistration.k8s.io", "APIService", aggregation::check, aggregation::update)
        .named(names::path_segment)
        .through(&[(Subresource::Status, aggregation::update_status)]),
    outside("flowcontrol.apiserver.k8s.io", "FlowSchema", flow::check_schema, flow::update_schema)
        .through(&[(Subresource::Status, flow::update_status)]),
    outside("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", flow::check_level, flow::update_level)
        .through(&[(Subresource::Status, flow::update_status)]),
    outside("resource.k8s.io", "DeviceClass", devices::check_class, devices::update_class),
    inside("resource.k8s.io", "ResourceClaim", devices::check_claim, devices::update_claim)
        .through(&[(Subresource::Status, devices::update_claim_status)]),
    inside("resource.k8s.io", "ResourceClaimTemplate", devices::check_template, devices::update_claim),
    outside("resource.k8s.io", "ResourceSlice", slices::check, slices::update),
];
