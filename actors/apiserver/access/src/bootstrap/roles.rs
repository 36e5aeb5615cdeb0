//! The cluster roles for people, nodes and the parts of the control plane, and who has them.

use super::table::{
    BindingRow, CORE, EVENTS, READ, READ_UPDATE, READ_WRITE, RoleRow, Row, WRITE, named, on, role, urls,
};

const APPS: &str = "apps";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

const REVIEW_TOKENS: Row = on("create", AUTHENTICATION, "tokenreviews");
const REVIEW_ACCESS: Row = on("create", AUTHORIZATION, "subjectaccessreviews");

const fn aggregated(name: &'static str, aggregate_to: &'static str) -> RoleRow<'static> {
    RoleRow { name, aggregate_to, aggregates: true, rules: &[] }
}

const fn part(name: &'static str, aggregate_to: &'static str, rules: &'static [Row]) -> RoleRow<'static> {
    RoleRow { name, aggregate_to, aggregates: false, rules }
}

pub(super) const ROLES: &[RoleRow<'static>] = &[
    role("cluster-admin", &[on("*", "*", "*"), urls("*", "*")]),
    role(
        "system:discovery",
        &[urls("get", "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*")],
    ),
    role(
        "system:basic-user",
        &[
            on("create", AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
            on("create", AUTHENTICATION, "selfsubjectreviews"),
        ],
    ),
    role("system:public-info-viewer", &[urls("get", "/livez /readyz /healthz /version /version/")]),
    role(
        "system:monitoring",
        &[urls("get", "/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/*")],
    ),
    aggregated("admin", ""),
    aggregated("edit", "admin"),
    aggregated("view", "edit"),
    part("system:aggregate-to-admin", "admin", ADMIN),
    part("system:aggregate-to-edit", "edit", EDIT),
    part("system:aggregate-to-view", "view", VIEW),
    role("system:heapster", &[on(READ, CORE, "events pods nodes namespaces"), on(READ, "extensions", "deployments")]),
    role("system:node", NODE),
    role("system:node-problem-detector", &[on("get", CORE, "nodes"), on("patch", CORE, "nodes/status"), EVENTS]),
    role(
        "system:kubelet-api-admin",
        &[
            on(READ, CORE, "nodes"),
            on("proxy", CORE, "nodes"),
            on("*", CORE, "nodes/proxy nodes/metrics nodes/stats nodes/log"),
            on("*", CORE, "nodes/configz nodes/healthz nodes/pods"),
        ],
    ),
    role("system:node-bootstrapper", &[on("create get list watch", CERTIFICATES, "certificatesigningrequests")]),
    role("system:auth-delegator", &[REVIEW_TOKENS, REVIEW_ACCESS]),
    role("system:kube-aggregator", &[on(READ, CORE, "services endpoints")]),
    role("system:kube-controller-manager", CONTROLLER_MANAGER),
    role("system:kube-dns", &[on("list watch", CORE, "endpoints services")]),
    // K3s's manager that stands for a cloud.
    role(
        "k3s-cloud-controller-manager",
        &[
            on("get create update", COORDINATION, "leases"),
            EVENTS,
            on("*", CORE, "nodes"),
            on("patch", CORE, "nodes/status"),
        ],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            on("get list watch create delete", CORE, "persistentvolumes"),
            on("get list watch update", CORE, "persistentvolumeclaims"),
            on(READ, STORAGE, "storageclasses"),
            on("watch", CORE, "events"),
            EVENTS,
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[on("create", CERTIFICATES, "certificatesigningrequests/nodeclient")],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[on("create", CERTIFICATES, "certificatesigningrequests/selfnodeclient")],
    ),
    role(
        "system:volume-scheduler",
        &[
            on(READ_UPDATE, CORE, "persistentvolumes"),
            on(READ, STORAGE, "storageclasses"),
            on(READ_UPDATE, CORE, "persistentvolumeclaims"),
        ],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/legacy-unknown")],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kubelet-serving")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    role(
        "system:node-proxier",
        &[
            on("list watch", CORE, "services endpoints"),
            on(READ, CORE, "nodes"),
            EVENTS,
            on("list watch", DISCOVERY, "endpointslices"),
            on("list watch", NETWORKING, "servicecidrs"),
        ],
    ),
    role("system:kube-scheduler", SCHEDULER),
];

const ADMIN: &[Row] = &[
    on("create", AUTHORIZATION, "localsubjectaccessreviews"),
    on(READ_WRITE, "rbac.authorization.k8s.io", "roles rolebindings"),
];

const EDIT: &[Row] = &[
    // Reading these is as good as acting, so viewers may not.
    on(READ, CORE, "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
    on("impersonate", CORE, "serviceaccounts"),
    on(WRITE, CORE, "pods pods/attach pods/proxy pods/exec pods/portforward"),
    on("create", CORE, "pods/eviction"),
    on(
        WRITE,
        CORE,
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy \
         persistentvolumeclaims configmaps secrets events",
    ),
    on("create", CORE, "serviceaccounts/token"),
    on(
        WRITE,
        APPS,
        "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets \
         replicasets/scale",
    ),
    on(WRITE, "autoscaling", "horizontalpodautoscalers"),
    on(WRITE, "batch", "jobs cronjobs"),
    on(
        WRITE,
        "extensions",
        "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale \
         replicationcontrollers/scale networkpolicies",
    ),
    on(WRITE, "policy", "poddisruptionbudgets"),
    on(WRITE, NETWORKING, "networkpolicies ingresses"),
    on(READ_WRITE, COORDINATION, "leases"),
    on(WRITE, RESOURCE, "resourceclaims resourceclaimtemplates"),
];

const VIEW: &[Row] = &[
    on(
        READ,
        CORE,
        "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints \
         persistentvolumeclaims persistentvolumeclaims/status configmaps",
    ),
    on(
        READ,
        CORE,
        "limitranges resourcequotas bindings events pods/status resourcequotas/status namespaces/status \
         replicationcontrollers/status pods/log",
    ),
    // Within a namespace this is the right to see that namespace.
    on(READ, CORE, "namespaces"),
    on(READ, DISCOVERY, "endpointslices"),
    on(
        READ,
        APPS,
        "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status \
         deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale",
    ),
    on(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    on(READ, "batch", "jobs cronjobs cronjobs/status jobs/status"),
    on(
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status \
         replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies",
    ),
    on(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    on(READ, NETWORKING, "networkpolicies ingresses ingresses/status"),
    on(READ, RESOURCE, "resourceclaims resourceclaims/status resourceclaimtemplates"),
];

/// Nobody is bound to it: the Node authorizer takes it as the outer limit of what a node may do.
pub(super) const NODE: &[Row] = &[
    REVIEW_TOKENS,
    on("create", AUTHORIZATION, "subjectaccessreviews localsubjectaccessreviews"),
    on(READ, CORE, "services"),
    on("create get list watch", CORE, "nodes"),
    on("update patch", CORE, "nodes/status"),
    on("update patch", CORE, "nodes"),
    on("create update patch", CORE, "events"),
    on(READ, CORE, "pods"),
    on("create delete", CORE, "pods"),
    on("update patch", CORE, "pods/status"),
    on("create", CORE, "pods/eviction"),
    on(READ, CORE, "secrets configmaps"),
    on("get", CORE, "persistentvolumeclaims persistentvolumes"),
    on("get", CORE, "endpoints"),
    on("create get list watch", CERTIFICATES, "certificatesigningrequests"),
    on("get create update patch delete", COORDINATION, "leases"),
    on("get", STORAGE, "volumeattachments"),
    on("get update patch", CORE, "persistentvolumeclaims/status"),
    on("create", CORE, "serviceaccounts/token"),
    // Credential providers of images are told about the annotations of the pod's account.
    on("get", CORE, "serviceaccounts"),
    on(READ, STORAGE, "csidrivers"),
    on("get create update patch delete", STORAGE, "csinodes"),
    on(READ, "node.k8s.io", "runtimeclasses"),
    on("get", RESOURCE, "resourceclaims"),
    on("deletecollection", RESOURCE, "resourceslices"),
    on("get list watch create update patch delete", RESOURCE, "resourceslices"),
];

const CONTROLLER_MANAGER: &[Row] = &[
    EVENTS,
    on("create", COORDINATION, "leases"),
    named("get update", COORDINATION, "leases", "kube-controller-manager"),
    on("create", CORE, "secrets serviceaccounts"),
    on("delete", CORE, "secrets"),
    on("get", CORE, "namespaces secrets serviceaccounts configmaps"),
    on("update", CORE, "secrets serviceaccounts"),
    REVIEW_TOKENS,
    REVIEW_ACCESS,
    on("list watch", "*", "*"),
    on("create", CORE, "serviceaccounts/token"),
];

const SCHEDULER: &[Row] = &[
    EVENTS,
    on("create", COORDINATION, "leases"),
    named("get update", COORDINATION, "leases", "kube-scheduler"),
    on(READ, CORE, "nodes"),
    on("get list watch delete", CORE, "pods"),
    on("create", CORE, "pods/binding bindings"),
    on("patch update", CORE, "pods/status"),
    on(READ, CORE, "services replicationcontrollers"),
    on(READ, "apps extensions", "replicasets"),
    on(READ, APPS, "statefulsets"),
    on(READ, "policy", "poddisruptionbudgets"),
    on(READ, CORE, "persistentvolumeclaims persistentvolumes"),
    REVIEW_TOKENS,
    REVIEW_ACCESS,
    on(READ, STORAGE, "csinodes"),
    on(READ, CORE, "namespaces"),
    on(READ, STORAGE, "csidrivers"),
    on(READ, STORAGE, "csistoragecapacities"),
    on(READ, STORAGE, "volumeattachments"),
    on(READ, RESOURCE, "deviceclasses"),
    on(READ_UPDATE, RESOURCE, "resourceclaims"),
    on(READ_UPDATE, RESOURCE, "resourceclaims/status"),
    on(READ_UPDATE, CORE, "pods/finalizers"),
    on(READ, RESOURCE, "resourceslices"),
];

const fn for_users(name: &'static str, users: &'static str) -> BindingRow<'static> {
    BindingRow { name, role: name, users, groups: "", accounts: "" }
}

const fn for_groups(name: &'static str, groups: &'static str) -> BindingRow<'static> {
    BindingRow { name, role: name, users: "", groups, accounts: "" }
}

pub(super) const BINDINGS: &[BindingRow<'static>] = &[
    for_groups("cluster-admin", "system:masters"),
    for_groups("system:monitoring", "system:monitoring"),
    for_groups("system:discovery", "system:authenticated"),
    for_groups("system:basic-user", "system:authenticated"),
    for_groups("system:public-info-viewer", "system:authenticated system:unauthenticated"),
    for_users("system:node-proxier", "system:kube-proxy"),
    for_users("system:kube-controller-manager", "system:kube-controller-manager"),
    BindingRow {
        name: "system:kube-dns",
        role: "system:kube-dns",
        users: "",
        groups: "",
        accounts: "kube-system/kube-dns",
    },
    for_users("system:kube-scheduler", "system:kube-scheduler"),
    for_users("k3s-cloud-controller-manager", "k3s-cloud-controller-manager"),
    for_users("system:volume-scheduler", "system:kube-scheduler"),
    // Without subjects since the Node authorizer took over; it stays so that nobody else takes the name.
    for_users("system:node", ""),
    for_groups("system:service-account-issuer-discovery", "system:serviceaccounts"),
];
