//! The roles of the controllers: each is bound to the service account of its name in `kube-system`.

use super::table::{CORE, EVENTS, READ, Row, named, on};

const APPS: &str = "apps";
const BATCH: &str = "batch";
const CERTIFICATES: &str = "certificates.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";
/// Workloads were in `extensions` once, and the roles still say so.
const WORKLOADS: &str = "apps extensions";

/// Name of the controller, and what it may do.
pub(super) const ROLES: &[(&str, &[Row])] = &[
    (
        "attachdetach-controller",
        &[
            on("list watch", CORE, "persistentvolumes persistentvolumeclaims"),
            on(READ, CORE, "nodes"),
            on("patch update", CORE, "nodes/status"),
            on("list watch", CORE, "pods"),
            EVENTS,
            on("get create delete list watch", STORAGE, "volumeattachments"),
            on(READ, STORAGE, "csidrivers"),
            on(READ, STORAGE, "csinodes"),
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[on("escalate get list watch update patch", "rbac.authorization.k8s.io", "clusterroles")],
    ),
    (
        "cronjob-controller",
        &[
            on("get list watch update", BATCH, "cronjobs"),
            on("get list watch create update delete patch", BATCH, "jobs"),
            on("update", BATCH, "cronjobs/status"),
            on("update", BATCH, "cronjobs/finalizers"),
            on("list watch delete", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            on(READ, WORKLOADS, "daemonsets"),
            on("update", WORKLOADS, "daemonsets/status"),
            on("update", WORKLOADS, "daemonsets/finalizers"),
            on("list watch", CORE, "nodes"),
            on("list watch create delete patch", CORE, "pods"),
            on("create", CORE, "pods/binding"),
            on("get list watch create delete update patch", APPS, "controllerrevisions"),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            on("get list watch update", WORKLOADS, "deployments"),
            on("update", WORKLOADS, "deployments/status"),
            on("update", WORKLOADS, "deployments/finalizers"),
            on("get list watch create update patch delete", WORKLOADS, "replicasets"),
            on("get list watch update", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            on(READ, WORKLOADS, "deployments"),
            on(READ, WORKLOADS, "replicasets"),
            on(READ, CORE, "replicationcontrollers"),
            on(READ, "policy", "poddisruptionbudgets"),
            on(READ, APPS, "statefulsets"),
            on("update", "policy", "poddisruptionbudgets/status"),
            on("patch update", CORE, "pods/status"),
            on("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            on(READ, CORE, "services pods"),
            on("get list watch create update delete", CORE, "endpoints"),
            on("create", CORE, "endpoints/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            on(READ, CORE, "services pods nodes"),
            // Slices are owned by their service, and block its deletion.
            on("update", CORE, "services/finalizers"),
            on("get list watch create update delete", DISCOVERY, "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            on(READ, CORE, "services endpoints"),
            on("update", CORE, "services/finalizers"),
            on("update", CORE, "endpoints/finalizers"),
            on("get list watch create update delete", DISCOVERY, "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            on("get list watch update patch", CORE, "persistentvolumes"),
            on("update patch", CORE, "persistentvolumeclaims/status"),
            on(READ, CORE, "persistentvolumeclaims"),
            EVENTS,
            on("get", CORE, "services"),
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            on(READ, CORE, "pods"),
            on("update", CORE, "pods/finalizers"),
            on("get list watch create", CORE, "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            on(READ, CORE, "pods"),
            on("update", CORE, "pods/finalizers"),
            on("get list watch create delete", RESOURCE, "resourceclaims"),
            on("update patch", RESOURCE, "resourceclaims resourceclaims/status"),
            on("update patch", CORE, "pods/status"),
            EVENTS,
        ],
    ),
    ("generic-garbage-collector", &[on("get list watch patch update delete", "*", "*"), EVENTS]),
    (
        "horizontal-pod-autoscaler",
        &[
            on(READ, "autoscaling", "horizontalpodautoscalers"),
            on("update", "autoscaling", "horizontalpodautoscalers/status"),
            on("get update", "*", "*/scale"),
            on("list watch", CORE, "pods"),
            on("list watch", "metrics.k8s.io", "pods"),
            on(READ, "custom.metrics.k8s.io", "*"),
            on(READ, "external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            on("get list watch update patch", BATCH, "jobs"),
            on("update", BATCH, "jobs/status"),
            on("update", BATCH, "jobs/finalizers"),
            on("list watch create delete patch", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "namespace-controller",
        &[
            on("get list watch delete", CORE, "namespaces"),
            on("update", CORE, "namespaces/finalize namespaces/status"),
            on("get list watch delete deletecollection", "*", "*"),
        ],
    ),
    (
        "node-controller",
        &[
            on("get list watch update delete patch", CORE, "nodes"),
            on("patch update", CORE, "nodes/status"),
            on("patch update", CORE, "pods/status"),
            on("get list watch delete", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            on("get list watch update create delete", CORE, "persistentvolumes"),
            on("update", CORE, "persistentvolumes/status"),
            on("get list watch update", CORE, "persistentvolumeclaims"),
            on("update", CORE, "persistentvolumeclaims/status"),
            on("list watch get create delete", CORE, "pods"),
            on(READ, STORAGE, "storageclasses"),
            on("list watch", CORE, "nodes"),
            EVENTS,
            on("watch", CORE, "events"),
            on("get", CORE, "services"),
        ],
    ),
    (
        "pod-garbage-collector",
        &[on("list watch delete", CORE, "pods"), on(READ, CORE, "nodes"), on("patch", CORE, "pods/status")],
    ),
    (
        "replicaset-controller",
        &[
            on("get list watch update", WORKLOADS, "replicasets"),
            on("update", WORKLOADS, "replicasets/status"),
            on("update", WORKLOADS, "replicasets/finalizers"),
            on("list watch patch create delete", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            on("get list watch update", CORE, "replicationcontrollers"),
            on("update", CORE, "replicationcontrollers/status"),
            on("update", CORE, "replicationcontrollers/finalizers"),
            on("list watch patch create delete", CORE, "pods"),
            EVENTS,
        ],
    ),
    ("resourcequota-controller", &[on("list watch", "*", "*"), on("update", CORE, "resourcequotas/status"), EVENTS]),
    ("route-controller", &[on("list watch", CORE, "nodes"), on("patch", CORE, "nodes/status"), EVENTS]),
    ("service-account-controller", &[on("create", CORE, "serviceaccounts"), EVENTS]),
    (
        "service-controller",
        &[
            on(READ, CORE, "services"),
            on("patch update", CORE, "services/status"),
            on("list watch", CORE, "nodes"),
            EVENTS,
        ],
    ),
    (
        "service-cidrs-controller",
        &[
            on("get list watch patch update", NETWORKING, "servicecidrs"),
            on("patch update", NETWORKING, "servicecidrs/finalizers"),
            on("patch update", NETWORKING, "servicecidrs/status"),
            on(READ, NETWORKING, "ipaddresses"),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            on("list watch", CORE, "pods"),
            on(READ, APPS, "statefulsets"),
            on("update", APPS, "statefulsets/status"),
            on("update", APPS, "statefulsets/finalizers"),
            on("get create delete update patch", CORE, "pods"),
            on("get create delete update patch list watch", APPS, "controllerrevisions"),
            on("get create list watch", CORE, "persistentvolumeclaims"),
            on("update delete", CORE, "persistentvolumeclaims"),
            on("update", CORE, "pods/finalizers"),
            EVENTS,
        ],
    ),
    ("ttl-controller", &[on("update patch list watch", CORE, "nodes"), EVENTS]),
    (
        "certificate-controller",
        &[
            on("get list watch delete", CERTIFICATES, "certificatesigningrequests"),
            on("update", CERTIFICATES, "certificatesigningrequests/status certificatesigningrequests/approval"),
            named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
            named(
                "sign",
                CERTIFICATES,
                "signers",
                "kubernetes.io/legacy-unknown kubernetes.io/kube-apiserver-client \
                 kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving",
            ),
            on("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "pvc-protection-controller",
        &[on("get list watch update", CORE, "persistentvolumeclaims"), on(READ, CORE, "pods"), EVENTS],
    ),
    ("pv-protection-controller", &[on("get list watch update", CORE, "persistentvolumes"), EVENTS]),
    (
        "volumeattributesclass-protection-controller",
        &[
            on(READ, CORE, "persistentvolumeclaims"),
            on(READ, CORE, "persistentvolumes"),
            on("get list watch update", STORAGE, "volumeattributesclasses"),
            EVENTS,
        ],
    ),
    ("ttl-after-finished-controller", &[on("get list watch delete", BATCH, "jobs"), EVENTS]),
    ("root-ca-cert-publisher", &[on("create update", CORE, "configmaps"), EVENTS]),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            on(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
            on("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
            EVENTS,
        ],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            named("get", CORE, "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
            on("patch delete", CORE, "secrets"),
        ],
    ),
    (
        "selinux-warning-controller",
        &[
            EVENTS,
            on(READ, CORE, "persistentvolumes"),
            on(READ, CORE, "persistentvolumeclaims"),
            on(READ, CORE, "pods"),
            on(READ, STORAGE, "csidrivers"),
        ],
    ),
];
