//! The definitions of the custom resources that K3s has for this: AddOns, charts and what is added to charts.

use k3sd_objects::read::{field, text};
use k3sd_runtime::Clock;
use serde_json::{Value, json};

use crate::api::{Cluster, Gvk, Key, code, message};
use crate::apply::{difference, established};

/// The definition of a kind, with its schema's fields beside `metadata`.
struct Definition {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    columns: Value,
    fields: Value,
    has_status: bool,
}

impl Definition {
    fn object(&self) -> Value {
        let Self { group, kind, plural, short_names, columns, fields, has_status } = self;
        let mut names = json!({
            "kind": kind,
            "listKind": format!("{kind}List"),
            "plural": plural,
            "singular": kind.to_lowercase(),
        });
        if !short_names.is_empty() {
            names["shortNames"] = json!(short_names);
        }
        let mut properties = json!({
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
        });
        if let (Some(all), Some(fields)) = (properties.as_object_mut(), fields.as_object()) {
            all.extend(fields.clone());
        }
        let mut version = json!({
            "name": "v1",
            "served": true,
            "storage": true,
            "schema": { "openAPIV3Schema": { "type": "object", "properties": properties } },
        });
        if columns.as_array().is_some_and(|columns| !columns.is_empty()) {
            version["additionalPrinterColumns"] = columns.clone();
        }
        if *has_status {
            version["subresources"] = json!({ "status": {} });
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.{group}") },
            "spec": { "group": group, "names": names, "scope": "Namespaced", "versions": [version] },
        })
    }
}

/// `addons.k3s.cattle.io`.
pub(crate) fn addons() -> Value {
    let definition = Definition {
        group: "k3s.cattle.io",
        kind: "Addon",
        plural: "addons",
        short_names: &[],
        columns: json!([column("Source", ".spec.source", "string"), column("Checksum", ".spec.checksum", "string")]),
        fields: json!({ "spec": structure(json!({
            "checksum": described("string", "SHA-256 of the file as it was applied last without a failure"),
            "source": described("string", "the file on the server's disk"),
        })) }),
        has_status: false,
    };
    definition.object()
}

/// `helmcharts.helm.cattle.io` and `helmchartconfigs.helm.cattle.io`.
pub(crate) fn charts() -> [Value; 2] {
    let mut job = column("Job", ".status.jobName", "string");
    job["priority"] = 10.into();
    let charts = Definition {
        group: "helm.cattle.io",
        kind: "HelmChart",
        plural: "helmcharts",
        short_names: &[],
        columns: json!([
            column("Repo", ".spec.repo", "string"),
            column("Chart", ".spec.chart", "string"),
            column("Version", ".spec.version", "string"),
            column("TargetNamespace", ".spec.targetNamespace", "string"),
            column("Bootstrap", ".spec.bootstrap", "boolean"),
            column("Failed", ".status.conditions[?(@.type=='Failed')].status", "string"),
            job,
        ]),
        fields: json!({ "spec": structure(chart_fields()), "status": structure(status_fields()) }),
        has_status: true,
    };
    let configs = Definition {
        group: "helm.cattle.io",
        kind: "HelmChartConfig",
        plural: "helmchartconfigs",
        short_names: &["hcc"],
        columns: json!([]),
        fields: json!({ "spec": structure(shared_fields()) }),
        has_status: false,
    };
    [charts.object(), configs.object()]
}

fn column(name: &str, path: &str, kind: &str) -> Value {
    json!({ "name": name, "jsonPath": path, "type": kind })
}

fn described(kind: &str, description: &str) -> Value {
    json!({ "type": kind, "description": description })
}

fn structure(fields: Value) -> Value {
    json!({ "type": "object", "properties": fields })
}

/// Anything; whoever uses it says what is wrong with it.
fn open() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn reference(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "properties": { "name": { "type": "string", "default": "" } },
        "x-kubernetes-map-type": "atomic",
    })
}

/// What both a chart and what is added to it may say.
fn shared_fields() -> Value {
    json!({
        "failurePolicy": {
            "type": "string",
            "default": "reinstall",
            "enum": ["abort", "reinstall", "retry"],
            "description": "what is done about a release that failed: reinstall takes it away and starts anew, abort \
                            leaves it to people, retry tries again when something changes",
        },
        "forceConflicts": described("boolean", "take over fields that somebody else applied (--force-conflicts)"),
        "serverSide": {
            "type": "string",
            "enum": ["true", "false", "auto"],
            "description": "whether Helm applies on the server's side (--server-side)",
        },
        "values": {
            "description": "values of the chart as structure; they count more than valuesContent (--values)",
            "x-kubernetes-preserve-unknown-fields": true,
        },
        "valuesContent": described("string", "values of the chart as YAML (--values)"),
        "valuesSecrets": {
            "type": "array",
            "description": "Secrets of the same namespace that hold values (--values)",
            "items": structure(json!({
                "name": described("string", "the Secret"),
                "keys": { "type": "array", "items": { "type": "string" }, "description": "none of it is used without" },
                "ignoreUpdates": described("boolean", "it needn't be there, and its changes upgrade nothing"),
            })),
        },
    })
}

fn chart_fields() -> Value {
    let mut fields = json!({
        "authPassCredentials": described("boolean", "send the credentials to every host (--pass-credentials)"),
        "authSecret": reference("a Secret of type kubernetes.io/basic-auth for the repository"),
        "backOffLimit": { "type": "integer", "format": "int32", "description": "failures of the job before it is given up" },
        "bootstrap": described("boolean", "the cluster needs it to come up: it runs on a control plane's host network"),
        "chart": described("string", "name in the repository, or the URL of an archive"),
        "chartContent": described("string", "the archive itself in base64; instead of chart and version"),
        "createNamespace": described("boolean", "make the target namespace (--create-namespace)"),
        "dockerRegistrySecret": reference("a Secret of type kubernetes.io/dockerconfigjson for an OCI registry"),
        "driver": {
            "type": "string",
            "enum": ["secret", "configmap"],
            "description": "where Helm keeps what it knows of its releases",
        },
        "helmVersion": described("string", "no longer of use: only v3 is supported"),
        "insecureSkipTLSVerify": described("boolean", "believe any certificate (--insecure-skip-tls-verify)"),
        "jobImage": described("string", "the image of the job"),
        "plainHTTP": described("boolean", "fetch the chart without TLS (--plain-http)"),
        "podSecurityContext": open(),
        "repo": described("string", "URL of the repository (--repo)"),
        "repoCA": described("string", "authorities for the repository in PEM (--ca-file)"),
        "repoCAConfigMap": reference("a ConfigMap with authorities for the repository"),
        "securityContext": open(),
        "set": {
            "type": "object",
            "description": "single values, which count most (--set, --set-string)",
            "additionalProperties": {
                "anyOf": [{ "type": "integer" }, { "type": "string" }],
                "x-kubernetes-int-or-string": true,
            },
        },
        "takeOwnership": described("boolean", "take over objects of others (--take-ownership)"),
        "targetNamespace": described("string", "where the release goes (--namespace)"),
        "timeout": described("string", "how long Helm may take (--timeout)"),
        "version": described("string", "version of the chart in its repository (--version)"),
    });
    if let (Some(all), Some(shared)) = (fields.as_object_mut(), shared_fields().as_object()) {
        all.extend(shared.clone());
    }
    fields
}

fn status_fields() -> Value {
    let condition = json!({
        "type": "object",
        "required": ["type", "status"],
        "properties": {
            "type": { "type": "string" },
            "status": { "type": "string" },
            "reason": { "type": "string" },
            "message": { "type": "string" },
        },
    });
    json!({
        "jobName": described("string", "the job that installs or deletes the chart"),
        "conditions": {
            "type": "array",
            "items": condition,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    })
}

/// Has the API serve these: makes what isn't there, changes what is another, and waits until they are established.
///
/// # Errors
/// What is in the way.
pub(crate) async fn ensure(cluster: &Cluster, clock: &Clock, definitions: &[Value]) -> Result<(), String> {
    let gvk = Gvk::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let failed = |error: kube::Error| message(&error);
    let kind = cluster.served(&gvk).await.map_err(failed)?.ok_or("definitions of custom resources are not served")?;
    for definition in definitions {
        let key = Key::new("", text(field(definition, "metadata"), "name"));
        match cluster.get(&kind, &key).await.map_err(failed)? {
            None => match cluster.create(&kind, "", definition).await {
                Ok(_) => {}
                // Another server was faster.
                Err(error) if code(&error) == Some(409) => {}
                Err(error) => return Err(failed(error)),
            },
            Some(is) => {
                if let Some((form, patch)) = difference(&gvk, definition, &is) {
                    cluster.patch(&kind, &key, form, &patch).await.map_err(failed)?;
                }
            }
        }
        established(cluster, clock, &kind, &key).await?;
        cluster.forget(text(field(definition, "spec"), "group"));
    }
    Ok(())
}
