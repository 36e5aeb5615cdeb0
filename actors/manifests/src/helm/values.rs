//! Values of charts: the Secret that holds them, the files that the job finds them in, and the hash of it all. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_objects::decode::to_yaml;
use k3sd_objects::read::{field, text};
use k3sd_objects::status::go;
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value, json};

use super::types::{HelmChart, HelmChartConfig, ValuesSecret};

/// Annotation of pods: the hash of what the job was made of. Also the label by which Helm's job marks its release.
pub(super) const CONFIG_HASH: &str = "helmcharts.helm.cattle.io/configHash";
/// The type of the Secret.
const SECRET_TYPE: &str = "helmcharts.helm.cattle.io/values";
/// The longest value of a label.
const LABEL_BYTES_MAX: usize = 63;

/// Structured values as YAML; nothing for none.
fn structured(values: &Value) -> Option<String> {
    let is_empty = match values {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    (!is_empty).then(|| to_yaml(values))
}

/// Entries of the Secret, each with the file that it becomes; later files count more.
fn entries(chart: &HelmChart, config: Option<&HelmChartConfig>) -> Vec<(&'static str, &'static str, String)> {
    let spec = &chart.spec;
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let added = config.map(|config| &config.spec);
    let all = [
        ("HelmChartValuesContent", "values-0-000-HelmChart-ValuesContent.yaml", given(&spec.values_content)),
        ("HelmChartValues", "values-0-001-HelmChart-Values.yaml", structured(&spec.values)),
        ("RepoCA", "ca-file.pem", given(&spec.repo_ca)),
        (
            "HelmChartConfigValuesContent",
            "values-1-000-HelmChartConfig-ValuesContent.yaml",
            added.and_then(|added| given(&added.values_content)),
        ),
        (
            "HelmChartConfigValues",
            "values-1-001-HelmChartConfig-Values.yaml",
            added.and_then(|added| structured(&added.values)),
        ),
    ];
    all.into_iter().filter_map(|(key, path, text)| Some((key, path, text?))).collect()
}

/// The Secret.
pub(super) fn values_secret(chart: &HelmChart, config: Option<&HelmChartConfig>) -> Value {
    let data = entries(chart, config).into_iter().map(|(key, _, text)| (key.to_owned(), STANDARD.encode(text).into()));
    let data: Map<String, Value> = data.collect();
    let mut secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": chart.values_name(), "namespace": chart.namespace() },
        "type": SECRET_TYPE,
    });
    if !data.is_empty() {
        secret["data"] = data.into();
    }
    secret
}

/// What the volume of values is made of.
pub(super) fn values_sources(chart: &HelmChart, config: Option<&HelmChartConfig>) -> Vec<Value> {
    let own = chart.values_name();
    let items: Vec<Value> =
        entries(chart, config).into_iter().map(|(key, path, _)| json!({ "key": key, "path": path })).collect();
    let mut secret = json!({ "name": own });
    if !items.is_empty() {
        secret["items"] = items.into();
    }
    let mut sources = vec![json!({ "secret": secret })];
    let added = config.map(|config| config.spec.values_secrets.as_slice()).unwrap_or_default();
    sources.extend(of_secrets(&chart.spec.values_secrets, &own, "0", "HelmChart"));
    sources.extend(of_secrets(added, &own, "1", "HelmChartConfig"));
    sources
}

fn of_secrets<'a>(
    secrets: &'a [ValuesSecret],
    own: &'a str,
    order: &'a str,
    whose: &'a str,
) -> impl Iterator<Item = Value> + 'a {
    // The numbers before are those of what isn't in a Secret of its own.
    let mut number = 1;
    let used = secrets.iter().filter(move |secret| !secret.keys.is_empty() && secret.name != own);
    used.map(move |secret| {
        let items = secret.keys.iter().map(|key| {
            number += 1;
            json!({ "key": key, "path": format!("values-{order}-{number:03}-{whose}-ValuesSecret.yaml") })
        });
        let items: Vec<Value> = items.collect();
        json!({ "secret": { "name": secret.name, "items": items, "optional": secret.ignore_updates } })
    })
}

/// The hash over a job, as it is before it carries the hash, and over what the objects that it reads hold.
pub(super) fn config_hash<'a>(job: &Value, read: impl Iterator<Item = &'a Value>) -> String {
    let mut hash = Context::new(&SHA256);
    let spec = field(job, "spec");
    hash.update(field(spec, "backoffLimit").to_string().as_bytes());
    // Go's encoder ends with a line.
    hash.update(go::json(field(spec, "template")).as_bytes());
    hash.update(b"\n");
    for object in read {
        for (key, value) in field(object, "data").as_object().into_iter().flatten() {
            hash.update(key.as_bytes());
            hash.update(value.as_str().unwrap_or_default().as_bytes());
        }
    }
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The hash as a label has it.
pub(super) fn label_of(hash: &str) -> &str {
    &hash[..hash.len().min(LABEL_BYTES_MAX)]
}

/// A release that Helm knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Release {
    /// 0 if there is none.
    pub revision: i64,
    pub status: String,
    pub hash: String,
}

/// The newest of the releases that these objects hold.
pub(super) fn newest<'a>(objects: impl Iterator<Item = &'a Value>) -> Release {
    let releases = objects.map(|object| {
        let labels = field(field(object, "metadata"), "labels");
        Release {
            revision: text(labels, "version").parse().unwrap_or_default(),
            status: text(labels, "status").to_owned(),
            hash: text(labels, CONFIG_HASH).to_owned(),
        }
    });
    releases.max_by_key(|release| release.revision).filter(|release| release.revision > 0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(spec: Value) -> HelmChart {
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn values_become_files_of_which_later_ones_count_more() {
        let chart = chart(json!({
            "valuesContent": "a: 1", "values": {"b": 2}, "repoCA": "pem",
            "valuesSecrets": [{"name": "s", "keys": ["k", "l"]}, {"name": "none"},
                {"name": "chart-values-c", "keys": ["own"]}, {"name": "t", "keys": ["m"], "ignoreUpdates": true}],
        }));
        let config: HelmChartConfig = serde_json::from_value(json!({"metadata": {}, "spec": {
            "valuesContent": "a: 3", "values": {}, "valuesSecrets": [{"name": "u", "keys": ["k"]}]}}))
        .unwrap();
        let sources = values_sources(&chart, Some(&config));
        let paths: Vec<&str> = sources
            .iter()
            .flat_map(|source| source["secret"]["items"].as_array().unwrap())
            .map(|item| item["path"].as_str().unwrap())
            .collect();
        assert_eq!(
            paths,
            [
                "values-0-000-HelmChart-ValuesContent.yaml",
                "values-0-001-HelmChart-Values.yaml",
                "ca-file.pem",
                "values-1-000-HelmChartConfig-ValuesContent.yaml",
                "values-0-002-HelmChart-ValuesSecret.yaml",
                "values-0-003-HelmChart-ValuesSecret.yaml",
                "values-0-004-HelmChart-ValuesSecret.yaml",
                "values-1-002-HelmChartConfig-ValuesSecret.yaml",
            ]
        );
        assert_eq!(
            (&sources[1]["secret"]["optional"], &sources[2]["secret"]["optional"]),
            (&json!(false), &json!(true))
        );
        let secret = values_secret(&chart, Some(&config));
        assert_eq!(secret["data"]["HelmChartValues"], STANDARD.encode("b: 2\n"));
        assert_eq!(secret["data"]["HelmChartConfigValuesContent"], STANDARD.encode("a: 3"));
        assert_eq!(secret["type"], SECRET_TYPE);
        let watched: Vec<&str> = chart.watched_secrets(Some(&config)).map(|secret| secret.name.as_str()).collect();
        assert_eq!(watched, ["s", "none", "u"]);
    }

    #[test]
    fn the_hash_covers_the_job_and_what_it_reads() {
        let job = |image: &str, limit: i32| json!({"spec": {"backoffLimit": limit, "template": {"image": image}}});
        let data = |value: &str| json!({"data": {"a": value}});
        let hash = |job: &Value, data: &Value| config_hash(job, [data].into_iter());
        let first = hash(&job("i", 1), &data("x"));
        assert_eq!(first.len(), 64);
        assert_eq!(label_of(&first).len(), 63);
        assert_eq!(first, hash(&job("i", 1), &data("x")));
        for other in [hash(&job("j", 1), &data("x")), hash(&job("i", 2), &data("x")), hash(&job("i", 1), &data("y"))] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn the_newest_release_counts() {
        let object = |version: &str, status: &str| json!({"metadata": {"labels": {"version": version, "status": status, (CONFIG_HASH): status}}});
        let all = [object("2", "superseded"), object("10", "deployed"), object("x", "broken"), json!({})];
        let release = newest(all.iter());
        assert_eq!((release.revision, release.status.as_str(), release.hash.as_str()), (10, "deployed", "deployed"));
        assert_eq!(newest([].iter()), Release::default());
    }
}
