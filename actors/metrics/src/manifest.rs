//! What the cluster has to have for the metrics API.

/// The APIService, without a service: the version is answered in this process. And the role by which those who may see a
/// namespace may see what it uses. YAML, for the directory of manifests.
pub const MANIFEST: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: system:aggregated-metrics-reader
  labels:
    rbac.authorization.k8s.io/aggregate-to-view: \"true\"
    rbac.authorization.k8s.io/aggregate-to-edit: \"true\"
    rbac.authorization.k8s.io/aggregate-to-admin: \"true\"
rules:
- apiGroups: [\"metrics.k8s.io\"]
  resources: [\"pods\", \"nodes\"]
  verbs: [\"get\", \"list\", \"watch\"]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata:
  name: v1beta1.metrics.k8s.io
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
";
