//! The objects of a chart: a job that runs Helm, and what it needs. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use super::types::{HelmChart, HelmChartConfig, Reference};
use super::values::{values_secret, values_sources};
use crate::config::HelmConfig;

/// Label: the name of the chart, on jobs and pods.
pub(super) const CHART_LABEL: &str = "helmcharts.helm.cattle.io/chart";
/// Failures before a job is given up.
const BACK_OFF_LIMIT: i32 = 1000;
/// What Helm's jobs may do: anything, since charts hold anything.
const CLUSTER_ROLE: &str = "cluster-admin";
/// What is done about a release that failed.
const FAILURE_POLICY: &str = "reinstall";
/// The mode of files in volumes, 0644.
const FILE_MODE: i32 = 0o644;

/// The objects of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChartObjects {
    /// The job, without the hash of all this.
    pub job: Value,
    /// Values, and authorities; none while it is being deleted.
    pub values: Option<Value>,
    /// The chart itself, if it is in the resource; none while it is being deleted.
    pub content: Option<Value>,
    pub account: Value,
    pub binding: Value,
}

/// The objects of a chart, as its fields and what is added to it ask for.
pub(super) fn objects(chart: &HelmChart, config: Option<&HelmChartConfig>, helm: &HelmConfig) -> ChartObjects {
    // Values are of no use to the job that deletes the release.
    let config = config.filter(|_| !chart.is_leaving());
    let name = chart.name();
    let account = format!("helm-{name}");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": format!("helm-{}-{name}", chart.namespace()) },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": CLUSTER_ROLE },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": chart.namespace() }],
    });
    let (values, content) = match chart.is_leaving() {
        true => (None, None),
        false => (Some(values_secret(chart, config)), Some(content(chart))),
    };
    ChartObjects {
        job: job(chart, config, helm),
        values,
        content,
        account: json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(chart, &account),
            "automountServiceAccountToken": true,
        }),
        binding,
    }
}

fn metadata(chart: &HelmChart, name: &str) -> Value {
    json!({ "name": name, "namespace": chart.namespace() })
}

fn content_name(chart: &HelmChart) -> String {
    format!("chart-content-{}", chart.name())
}

fn content(chart: &HelmChart) -> Value {
    let mut map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(chart, &content_name(chart)) });
    if !chart.spec.chart_content.is_empty() {
        map["data"] = json!({ format!("{}.tgz.base64", chart.name()): chart.spec.chart_content });
    }
    map
}

fn job(chart: &HelmChart, config: Option<&HelmChartConfig>, helm: &HelmConfig) -> Value {
    let labels = json!({ (CHART_LABEL): chart.name() });
    let mut metadata = metadata(chart, &chart.job_name());
    metadata["labels"] = labels.clone();
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": chart.spec.back_off_limit.unwrap_or(BACK_OFF_LIMIT),
            // It is resumed once its controller has seen it, so that it is never replaced under the controller's hands.
            "suspend": true,
            "template": { "metadata": { "labels": labels }, "spec": pod(chart, config, helm) },
        },
    })
}

fn pod(chart: &HelmChart, config: Option<&HelmChartConfig>, helm: &HelmConfig) -> Value {
    let spec = &chart.spec;
    let mut volumes = Volumes::default();
    for (name, path) in [
        ("klipper-helm", "/home/klipper-helm/.helm"),
        ("klipper-cache", "/home/klipper-helm/.cache"),
        ("klipper-config", "/home/klipper-helm/.config"),
        ("tmp", "/tmp"),
    ] {
        volumes.add(name, path, json!({ "emptyDir": { "medium": "Memory" } }));
    }
    let secret = |reference: &Reference| json!({ "defaultMode": FILE_MODE, "secretName": reference.name });
    if let Some(reference) = &spec.auth_secret {
        volumes.add("auth", "/auth", json!({ "secret": secret(reference) }));
    }
    if let Some(reference) = &spec.docker_registry_secret {
        let mut secret = secret(reference);
        secret["items"] = json!([{ "key": ".dockerconfigjson", "path": "config.json" }]);
        volumes.add("dockerconfig", "/home/klipper-helm/.docker", json!({ "secret": secret }));
    }
    if let Some(reference) = &spec.repo_ca_config_map {
        let map = json!({ "defaultMode": FILE_MODE, "name": reference.name });
        volumes.add("ca-files", "/ca-files", json!({ "configMap": map }));
    }
    if !chart.is_leaving() {
        let sources = values_sources(chart, config);
        volumes.add("values", "/config", json!({ "projected": { "defaultMode": FILE_MODE, "sources": sources } }));
        let map = json!({ "defaultMode": FILE_MODE, "name": content_name(chart) });
        volumes.add("content", "/chart", json!({ "configMap": map }));
    }
    let image = Some(spec.job_image.trim()).filter(|image| !image.is_empty()).unwrap_or(&helm.job_image);
    let confined = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
    });
    let container = json!({
        "name": "helm",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments(chart),
        "env": environment(chart, config, helm),
        "resources": {
            "limits": { "cpu": "32", "memory": "32G" },
            "requests": { "cpu": "100m", "memory": "10M" },
        },
        "securityContext": spec.security_context.clone().unwrap_or(confined),
        "volumeMounts": volumes.mounts,
    });
    let unprivileged = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    let mut pod = json!({
        "restartPolicy": "OnFailure",
        "containers": [container],
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "priorityClassName": "system-cluster-critical",
        "securityContext": spec.pod_security_context.clone().unwrap_or(unprivileged),
        "serviceAccountName": format!("helm-{}", chart.name()),
        "volumes": volumes.volumes,
    });
    if spec.bootstrap {
        pod["hostNetwork"] = true.into();
        pod["nodeSelector"]["node-role.kubernetes.io/control-plane"] = "true".into();
        pod["tolerations"] = tolerations();
    }
    pod
}

/// What a chart bears that the cluster can't come up without.
fn tolerations() -> Value {
    json!([
        { "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" },
        { "key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule" },
        {
            "key": "node.cloudprovider.kubernetes.io/uninitialized",
            "operator": "Equal",
            "value": "true",
            "effect": "NoSchedule",
        },
        { "key": "CriticalAddonsOnly", "operator": "Exists" },
        { "key": "node-role.kubernetes.io/etcd", "operator": "Exists", "effect": "NoExecute" },
        { "key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule" },
    ])
}

/// Volumes and where they are mounted, in one order.
#[derive(Default)]
struct Volumes {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
}

impl Volumes {
    fn add(&mut self, name: &str, path: &str, source: Value) {
        let mut volume = source;
        volume["name"] = name.into();
        self.volumes.push(volume);
        self.mounts.push(json!({ "mountPath": path, "name": name }));
    }
}

/// Variables in the order in which K3s has them; empty ones have no value.
fn environment(chart: &HelmChart, config: Option<&HelmChartConfig>, helm: &HelmConfig) -> Vec<Value> {
    let spec = &chart.spec;
    let source = if spec.repo.is_empty() { spec.chart.clone() } else { format!("{}/{}", chart.name(), spec.chart) };
    let mut all = vec![
        ("NAME", chart.name().to_owned()),
        ("VERSION", spec.version.clone()),
        ("REPO", spec.repo.clone()),
        ("HELM_DRIVER", chart.driver().to_owned()),
        ("CHART_NAMESPACE", chart.namespace().to_owned()),
        ("CHART", source),
        ("HELM_VERSION", spec.helm_version.clone()),
        ("TARGET_NAMESPACE", chart.target_namespace().to_owned()),
        ("AUTH_PASS_CREDENTIALS", spec.auth_pass_credentials.to_string()),
        ("INSECURE_SKIP_TLS_VERIFY", spec.insecure_skip_tls_verify.to_string()),
        ("PLAIN_HTTP", spec.plain_http.to_string()),
    ];
    if !spec.timeout.is_empty() {
        all.push(("TIMEOUT", spec.timeout.clone()));
    }
    if spec.bootstrap {
        all.push(("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()));
        all.push(("KUBERNETES_SERVICE_PORT", helm.api_port.to_string()));
        all.push(("BOOTSTRAP", "true".to_owned()));
    }
    all.extend(helm.proxies.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let of_config = |text: fn(&HelmChartConfig) -> &str| config.map(text).filter(|text| !text.is_empty());
    let policies = [of_config(|config| &config.spec.failure_policy), Some(spec.failure_policy.as_str())];
    let policy = policies.into_iter().flatten().find(|policy| !policy.is_empty()).unwrap_or(FAILURE_POLICY);
    all.push(("FAILURE_POLICY", policy.to_owned()));
    let server_side = of_config(|config| &config.spec.server_side).unwrap_or(&spec.server_side);
    if !server_side.is_empty() {
        all.push(("SERVER_SIDE", server_side.to_owned()));
    }
    let force = config.and_then(|config| config.spec.force_conflicts).unwrap_or(spec.force_conflicts);
    if force {
        all.push(("FORCE_CONFLICTS", force.to_string()));
    }
    all.into_iter().map(|(name, value)| variable(name, &value)).collect()
}

/// One variable.
pub(super) fn variable(name: &str, value: &str) -> Value {
    let mut variable = Map::from_iter([("name".to_owned(), Value::from(name))]);
    if !value.is_empty() {
        variable.insert("value".to_owned(), value.into());
    }
    Value::Object(variable)
}

/// What Helm is called with.
fn arguments(chart: &HelmChart) -> Vec<String> {
    if chart.is_leaving() {
        return vec!["delete".to_owned()];
    }
    let spec = &chart.spec;
    let mut arguments = vec!["install".to_owned()];
    let mut add = |parts: &[&str]| arguments.extend(parts.iter().map(|part| (*part).to_owned()));
    if !spec.target_namespace.is_empty() {
        add(&["--namespace", &spec.target_namespace]);
    }
    if spec.create_namespace {
        add(&["--create-namespace"]);
    }
    if spec.take_ownership {
        add(&["--take-ownership"]);
    }
    if !spec.version.is_empty() {
        add(&["--version", &spec.version]);
    }
    for (name, value) in &spec.set {
        match value {
            IntOrString::Int(number) => add(&["--set", &format!("{name}={number}")]),
            IntOrString::String(text) if is_word(text) => add(&["--set", &format!("{name}={text}")]),
            IntOrString::String(text) => add(&["--set-string", &format!("{name}={}", escaped(text))]),
        }
    }
    arguments
}

/// Whether YAML would read it as something else than a text.
fn is_word(text: &str) -> bool {
    matches!(text.to_lowercase().as_str(), "true" | "false" | "null")
}

/// A text whose commas are no separators; those that were escaped by somebody stay.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_escaped = false;
    for c in text.chars() {
        if c == ',' && !is_escaped {
            out.push('\\');
        }
        is_escaped = c == '\\' && !is_escaped;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(spec: Value) -> HelmChart {
        let chart = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": spec});
        serde_json::from_value(chart).unwrap()
    }

    fn helm() -> HelmConfig {
        HelmConfig { job_image: "klipper:1".to_owned(), api_port: 6443, proxies: vec![("NO_PROXY".into(), "x".into())] }
    }

    fn made(spec: Value, config: Option<Value>) -> ChartObjects {
        let config = config.map(|spec| serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap());
        objects(&chart(spec), config.as_ref(), &helm())
    }

    fn container(objects: &ChartObjects) -> &Value {
        &objects.job["spec"]["template"]["spec"]["containers"][0]
    }

    fn variables(objects: &ChartObjects) -> Vec<(String, String)> {
        let all = container(objects)["env"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
    }

    #[test]
    fn a_job_has_the_shape_that_k3s_gives_it() {
        let all = made(json!({"chart": "stable/x", "repo": "https://r", "timeout": "10m0s"}), None);
        let job = &all.job;
        assert_eq!((&job["metadata"]["name"], &job["spec"]["suspend"]), (&json!("helm-install-c"), &json!(true)));
        assert_eq!(job["spec"]["backoffLimit"], 1000);
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!((&pod["restartPolicy"], &pod["serviceAccountName"]), (&json!("OnFailure"), &json!("helm-c")));
        assert!(pod.get("hostNetwork").is_none() && pod.get("tolerations").is_none());
        let mounts: Vec<&str> = container(&all)["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["mountPath"].as_str().unwrap())
            .collect();
        assert_eq!(
            mounts,
            [
                "/home/klipper-helm/.helm",
                "/home/klipper-helm/.cache",
                "/home/klipper-helm/.config",
                "/tmp",
                "/config",
                "/chart"
            ]
        );
        let names: Vec<String> = variables(&all).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names.join(" "),
            "NAME VERSION REPO HELM_DRIVER CHART_NAMESPACE CHART HELM_VERSION TARGET_NAMESPACE AUTH_PASS_CREDENTIALS \
             INSECURE_SKIP_TLS_VERIFY PLAIN_HTTP TIMEOUT NO_PROXY FAILURE_POLICY"
        );
        assert!(variables(&all).contains(&("CHART".to_owned(), "c/stable/x".to_owned())));
        assert_eq!(container(&all)["args"], json!(["install"]));
        assert_eq!(container(&all)["image"], "klipper:1");
        assert_eq!(all.binding["metadata"]["name"], "helm-n-c");
        assert_eq!(all.binding["subjects"][0]["name"], "helm-c");
    }

    #[test]
    fn a_chart_that_the_cluster_needs_runs_on_the_control_plane() {
        let all = made(json!({"chartContent": "eA==", "bootstrap": true, "jobImage": " other:2 "}), None);
        let pod = &all.job["spec"]["template"]["spec"];
        assert_eq!(pod["hostNetwork"], true);
        assert_eq!(pod["nodeSelector"]["node-role.kubernetes.io/control-plane"], "true");
        assert_eq!(pod["tolerations"].as_array().map(Vec::len), Some(6));
        for variable in
            [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443"), ("BOOTSTRAP", "true")]
        {
            assert!(variables(&all).contains(&(variable.0.to_owned(), variable.1.to_owned())));
        }
        assert_eq!(all.content.as_ref().unwrap()["data"], json!({"c.tgz.base64": "eA=="}));
        assert_eq!(container(&all)["image"], "other:2");
    }

    #[test]
    fn what_is_added_to_a_chart_counts_more() {
        let spec = json!({"chart": "x", "failurePolicy": "abort", "serverSide": "auto", "forceConflicts": true});
        let of = |config: Option<Value>, name: &str| {
            let all = variables(&made(spec.clone(), config));
            all.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
        };
        for (config, [policy, side, force]) in [
            (None, [Some("abort"), Some("auto"), Some("true")]),
            (Some(json!({})), [Some("abort"), Some("auto"), Some("true")]),
            (
                Some(json!({"failurePolicy": "retry", "serverSide": "false", "forceConflicts": false})),
                [Some("retry"), Some("false"), None],
            ),
        ] {
            assert_eq!(of(config.clone(), "FAILURE_POLICY").as_deref(), policy);
            assert_eq!(of(config.clone(), "SERVER_SIDE").as_deref(), side);
            assert_eq!(of(config, "FORCE_CONFLICTS").as_deref(), force);
        }
    }

    #[test]
    fn single_values_become_arguments() {
        let spec = json!({"chart": "x", "targetNamespace": "t", "createNamespace": true, "takeOwnership": true,
            "version": "1.2", "set": {"a": 1, "b": "True", "c": "x,y\\,z", "d": "5"}});
        let all = made(spec, None);
        let arguments: Vec<&str> =
            container(&all)["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(
            arguments.join(" "),
            "install --namespace t --create-namespace --take-ownership --version 1.2 --set a=1 --set b=True \
             --set-string c=x\\,y\\,z --set-string d=5"
        );
        for (text, wanted) in [(",", "\\,"), ("\\,", "\\,"), ("\\\\,", "\\\\\\,"), ("a\\b,", "a\\b\\,")] {
            assert_eq!(escaped(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_chart_that_goes_needs_no_values() {
        let mut leaving = chart(json!({"chart": "x", "valuesContent": "a: 1", "targetNamespace": "t"}));
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2030-01-01T00:00:00Z")).unwrap();
        let all = objects(&leaving, None, &helm());
        assert_eq!(all.job["metadata"]["name"], "helm-delete-c");
        assert_eq!(container(&all)["args"], json!(["delete"]));
        assert_eq!((all.values, all.content), (None, None));
    }
}
