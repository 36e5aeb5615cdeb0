//! Asks the APIs that measure. None of them may be there: then nobody knows.

use jiff::{SignedDuration, Timestamp};
use k3sd_client::controller::Failure;
use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier};
use kube::Client;
use serde::Deserialize;

use super::calculator::{Sample, Samples};
use crate::scaling::{self, Target};
use crate::support::message;

const RESOURCES: &str = "/apis/metrics.k8s.io/v1beta1";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
/// The window of a sample that says nothing of it.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Timestamp,
    window: Option<String>,
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Named,
    timestamp: Timestamp,
    window_seconds: Option<i64>,
    value: String,
}

#[derive(Deserialize)]
struct ExternalValue {
    value: String,
}

fn milli(text: &str) -> i64 {
    text.parse::<Quantity>().map(Quantity::milli_value).unwrap_or(0)
}

async fn ask<T: serde::de::DeserializeOwned>(client: &Client, url: &str, api: &str) -> Result<Vec<T>, String> {
    let failed = |why: String| format!("unable to fetch metrics from {api} API: {why}");
    let request = http::Request::get(url).body(Vec::new()).map_err(|error| failed(error.to_string()))?;
    let answer = client.request::<List<T>>(request).await.map_err(Failure::from);
    let items = answer.map_err(|failure| failed(message(&failure)))?.items;
    if items.is_empty() { Err(format!("no metrics returned from {api} API")) } else { Ok(items) }
}

fn query(parts: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
        text += if text.is_empty() { "?" } else { "&" };
        text += &format!("{name}={}", escaped(value));
    }
    text
}

/// Text as part of a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

/// What pods use of a resource; one container of each, if that is named.
pub(super) async fn resource(
    client: &Client,
    namespace: &str,
    selector: &str,
    (resource, container): (&str, Option<&str>),
) -> Result<Samples, String> {
    let url = format!("{RESOURCES}/namespaces/{namespace}/pods{}", query(&[("labelSelector", selector)]));
    let measured: Vec<PodMetrics> = ask(client, &url, "resource metrics").await?;
    let mut samples = Samples::new();
    for pod in measured {
        let wanted = pod.containers.iter().filter(|it| container.is_none_or(|container| it.name == container));
        let used: Option<Vec<i64>> = wanted.map(|it| it.usage.get(resource).map(|text| milli(text))).collect();
        let Some(used) = used else { continue };
        if let Some(container) = container.filter(|_| used.is_empty()) {
            return Err(format!(
                "container {container} not present in metrics for pod {namespace}/{}",
                pod.metadata.name
            ));
        }
        let window = pod.window.as_deref().and_then(|window| window.parse().ok()).unwrap_or(WINDOW);
        samples.insert(pod.metadata.name, Sample { value: used.iter().sum(), at: pod.timestamp, window });
    }
    Ok(samples)
}

fn selector_of(metric: &MetricIdentifier) -> String {
    let selector = metric.selector.clone().and_then(|selector| kube::core::Selector::try_from(selector).ok());
    selector.map(|selector| selector.to_string()).unwrap_or_default()
}

/// What is measured of pods under a name.
pub(super) async fn pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &MetricIdentifier,
) -> Result<Samples, String> {
    let query = query(&[("labelSelector", selector), ("metricLabelSelector", &selector_of(metric))]);
    let url = format!("{CUSTOM}/namespaces/{namespace}/pods/*/{}{query}", escaped(&metric.name));
    let measured: Vec<MetricValue> = ask(client, &url, "custom metrics").await?;
    let sample = |value: MetricValue| {
        let window = value.window_seconds.map_or(WINDOW, SignedDuration::from_secs);
        (value.described_object.name, Sample { value: milli(&value.value), at: value.timestamp, window })
    };
    Ok(measured.into_iter().map(sample).collect())
}

/// What is measured of one object under a name.
pub(super) async fn object(
    client: &Client,
    namespace: &str,
    object: &CrossVersionObjectReference,
    metric: &MetricIdentifier,
) -> Result<i64, String> {
    let api_version = object.api_version.as_deref().unwrap_or("v1");
    let query = query(&[("metricLabelSelector", &selector_of(metric))]);
    let place = if object.kind == "Namespace" {
        format!("{}/metrics", escaped(&object.name))
    } else {
        let target = Target { api_version, kind: &object.kind, name: &object.name };
        let found = scaling::plural(client, &target).await.map_err(|failure| message(&failure))?;
        let plural =
            found.ok_or_else(|| format!("no matches for kind \"{}\" in version \"{api_version}\"", object.kind))?;
        let group = api_version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{namespace}/{plural}{group}/{}", escaped(&object.name))
    };
    let url = format!("{CUSTOM}/namespaces/{place}/{}{query}", escaped(&metric.name));
    let measured: Vec<MetricValue> = ask(client, &url, "custom metrics").await?;
    Ok(measured.first().map_or(0, |value| milli(&value.value)))
}

/// What is measured elsewhere under a name, altogether.
pub(super) async fn external(client: &Client, namespace: &str, metric: &MetricIdentifier) -> Result<i64, String> {
    let query = query(&[("labelSelector", &selector_of(metric))]);
    let url = format!("{EXTERNAL}/namespaces/{namespace}/{}{query}", escaped(&metric.name));
    let measured: Vec<ExternalValue> = ask(client, &url, "external metrics").await?;
    Ok(measured.iter().map(|value| milli(&value.value)).fold(0, i64::saturating_add))
}
