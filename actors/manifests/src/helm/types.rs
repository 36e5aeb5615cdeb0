//! Charts, and what is added to them, as their controller reads them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The group of both.
pub(crate) const GROUP: &str = "helm.cattle.io";
const VERSION: &str = "v1";
const API_VERSION: &str = "helm.cattle.io/v1";

/// A chart that is to be installed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HelmChart {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ChartSpec,
    #[serde(default)]
    pub status: ChartStatus,
}

/// What a chart says; the definition of the resource has a word on each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ChartSpec {
    pub target_namespace: String,
    pub create_namespace: bool,
    pub chart: String,
    pub version: String,
    pub repo: String,
    #[serde(rename = "repoCA")]
    pub repo_ca: String,
    #[serde(rename = "repoCAConfigMap")]
    pub repo_ca_config_map: Option<Reference>,
    pub set: BTreeMap<String, IntOrString>,
    pub values: Value,
    pub values_content: String,
    pub values_secrets: Vec<ValuesSecret>,
    pub helm_version: String,
    pub bootstrap: bool,
    pub take_ownership: bool,
    pub server_side: String,
    pub force_conflicts: bool,
    pub chart_content: String,
    pub job_image: String,
    pub back_off_limit: Option<i32>,
    pub timeout: String,
    pub failure_policy: String,
    pub auth_secret: Option<Reference>,
    pub auth_pass_credentials: bool,
    #[serde(rename = "insecureSkipTLSVerify")]
    pub insecure_skip_tls_verify: bool,
    #[serde(rename = "plainHTTP")]
    pub plain_http: bool,
    pub docker_registry_secret: Option<Reference>,
    pub pod_security_context: Option<Value>,
    pub security_context: Option<Value>,
    pub driver: String,
}

/// A name in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    #[serde(default)]
    pub name: String,
}

/// A Secret that holds values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ValuesSecret {
    pub name: String,
    pub keys: Vec<String>,
    pub ignore_updates: bool,
}

/// What came of a chart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ChartStatus {
    pub job_name: String,
    pub conditions: Vec<ChartCondition>,
}

/// One thing about a chart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChartCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What is added to the chart of the same name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HelmChartConfig {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ConfigSpec,
}

/// See [`ChartSpec`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConfigSpec {
    pub values: Value,
    pub values_content: String,
    pub values_secrets: Vec<ValuesSecret>,
    pub failure_policy: String,
    pub server_side: String,
    pub force_conflicts: Option<bool>,
}

macro_rules! resource {
    ($kind:ident, $plural:literal) => {
        impl Resource for $kind {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind(_: &()) -> Cow<'_, str> {
                stringify!($kind).into()
            }

            fn group(_: &()) -> Cow<'_, str> {
                GROUP.into()
            }

            fn version(_: &()) -> Cow<'_, str> {
                VERSION.into()
            }

            fn api_version(_: &()) -> Cow<'_, str> {
                API_VERSION.into()
            }

            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(HelmChart, "helmcharts");
resource!(HelmChartConfig, "helmchartconfigs");

impl HelmChart {
    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Whether it is being deleted.
    pub(crate) fn is_leaving(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Where its release is.
    pub(crate) fn target_namespace(&self) -> &str {
        if self.spec.target_namespace.is_empty() { self.namespace() } else { &self.spec.target_namespace }
    }

    /// The job that installs it, or deletes it.
    pub(crate) fn job_name(&self) -> String {
        let action = if self.is_leaving() { "delete" } else { "install" };
        format!("helm-{action}-{}", self.name())
    }

    /// The Secret that holds its values.
    pub(crate) fn values_name(&self) -> String {
        format!("chart-values-{}", self.name())
    }

    /// Where Helm keeps what it knows of its releases.
    pub(crate) fn driver(&self) -> &str {
        if self.spec.driver.is_empty() { "secret" } else { &self.spec.driver }
    }

    /// Where the chart comes from, for people.
    pub(crate) fn source(&self) -> String {
        let ChartSpec { chart, version, repo, chart_content, .. } = &self.spec;
        if !chart_content.is_empty() {
            let from = self.annotation("helm.cattle.io/chart-url").filter(|url| !url.is_empty());
            let from = from.map(|url| format!(" from {url}")).unwrap_or_default();
            return format!("inline spec.chartContent{from}");
        }
        match (chart.starts_with("oci://"), chart.contains("://"), version.is_empty()) {
            (true, _, false) => format!("version {version} from OCI registry {chart}"),
            (true, _, true) => format!("latest stable version from OCI registry {chart}"),
            (_, true, _) => chart.clone(),
            (_, _, false) => format!("{chart} version {version} from chart repository {repo}"),
            (_, _, true) => format!("latest stable version of {chart} from chart repository {repo}"),
        }
    }

    /// The Secrets whose changes upgrade it.
    pub(crate) fn watched_secrets<'a>(
        &'a self,
        config: Option<&'a HelmChartConfig>,
    ) -> impl Iterator<Item = &'a ValuesSecret> {
        let own = self.values_name();
        let all = self.spec.values_secrets.iter().chain(config.into_iter().flat_map(|it| &it.spec.values_secrets));
        all.filter(move |secret| !secret.ignore_updates && secret.name != own)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn charts_are_read() {
        let chart: HelmChart = serde_json::from_value(json!({
            "metadata": {"name": "traefik", "namespace": "kube-system"},
            "spec": {"chart": "c", "repoCA": "pem", "insecureSkipTLSVerify": true, "plainHTTP": true,
                "set": {"a": 1, "b": "x"}, "backOffLimit": 3, "values": {"a": 1}},
        }))
        .unwrap();
        let spec = &chart.spec;
        assert_eq!((spec.repo_ca.as_str(), spec.insecure_skip_tls_verify, spec.plain_http), ("pem", true, true));
        assert_eq!(spec.set["a"], IntOrString::Int(1));
        assert_eq!((chart.job_name().as_str(), chart.target_namespace()), ("helm-install-traefik", "kube-system"));
    }

    #[test]
    fn sources_are_told_as_helm_controller_tells_them() {
        for (spec, told) in [
            (json!({"chart": "a", "repo": "r"}), "latest stable version of a from chart repository r"),
            (json!({"chart": "a", "repo": "r", "version": "1"}), "a version 1 from chart repository r"),
            (json!({"chart": "oci://x"}), "latest stable version from OCI registry oci://x"),
            (json!({"chart": "oci://x", "version": "1"}), "version 1 from OCI registry oci://x"),
            (json!({"chart": "https://x/a.tgz", "version": "1"}), "https://x/a.tgz"),
            (json!({"chartContent": "x"}), "inline spec.chartContent"),
        ] {
            let chart: HelmChart = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            assert_eq!(chart.source(), told);
        }
    }
}
