//! Objects, lists and tables of the metrics API. Pure.

use k3sd_objects::quantity::{Format, Quantity};
use serde_json::{Map, Value, json};

use crate::history::{Containers, Reading, Usage};

/// `apiVersion` of all objects here.
pub(crate) const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Whom a reading is about.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) name: String,
    /// Empty for nodes.
    pub(crate) namespace: String,
    pub(crate) labels: Value,
}

/// A node or a pod, with what it uses.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    about: About,
    at: i64,
    window: String,
    /// By container; a node has one without a name.
    usage: Vec<(String, Usage)>,
}

impl Shown {
    pub(crate) fn node(about: About, reading: &Reading<Usage>) -> Self {
        let usage = vec![(String::new(), reading.usage)];
        Self { about, at: reading.at, window: duration(reading.window), usage }
    }

    pub(crate) fn pod(about: About, reading: &Reading<Containers>) -> Self {
        let usage = reading.usage.iter().map(|(name, usage)| (name.clone(), *usage));
        Self { about, at: reading.at, window: duration(reading.window), usage: usage.collect() }
    }

    fn metadata(&self, now: i64) -> Value {
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), self.about.name.as_str().into());
        if !self.about.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), self.about.namespace.as_str().into());
        }
        metadata.insert("creationTimestamp".to_owned(), time(now).into());
        if self.about.labels.as_object().is_some_and(|labels| !labels.is_empty()) {
            metadata.insert("labels".to_owned(), self.about.labels.clone());
        }
        metadata.into()
    }

    /// The object. `now` is in seconds since 1970.
    pub(crate) fn object(&self, now: i64) -> Value {
        let mut object = json!({
            "kind": self.kind(), "apiVersion": API_VERSION, "metadata": self.metadata(now),
            "timestamp": time(self.at / 1_000_000_000), "window": self.window,
        });
        if self.about.namespace.is_empty() {
            object["usage"] = resources(self.sum());
        } else {
            let containers = self.usage.iter().map(|(name, one)| json!({ "name": name, "usage": resources(*one) }));
            object["containers"] = containers.collect();
        }
        object
    }

    fn kind(&self) -> &'static str {
        if self.about.namespace.is_empty() { "NodeMetrics" } else { "PodMetrics" }
    }

    /// Of all containers together.
    fn sum(&self) -> Usage {
        self.usage.iter().fold(Usage::default(), |sum, (_, one)| Usage {
            cpu: sum.cpu.saturating_add(one.cpu),
            memory: sum.memory.saturating_add(one.memory),
        })
    }

    fn row(&self, now: i64) -> Value {
        let usage = resources(self.sum());
        json!({
            "cells": [self.about.name, usage["cpu"], usage["memory"], self.window],
            "object": {
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": self.metadata(now),
            },
        })
    }
}

/// The list of some of them.
pub(crate) fn list(kind: &str, shown: &[Shown], now: i64) -> Value {
    let items = shown.iter().map(|one| one.object(now));
    let items = items.map(|mut object| {
        // A list says once of what it is.
        if let Some(fields) = object.as_object_mut() {
            fields.retain(|name, _| name != "kind" && name != "apiVersion");
        }
        object
    });
    json!({ "kind": format!("{kind}List"), "apiVersion": API_VERSION, "metadata": {}, "items": items.collect::<Vec<_>>() })
}

/// The same for people.
pub(crate) fn table(shown: &[Shown], now: i64) -> Value {
    let column = |name: &str, format: &str| {
        let description = if name == "Name" { "Name of the resource" } else { "" };
        json!({ "name": name, "type": "string", "format": format, "description": description, "priority": 0 })
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [
            column("Name", "name"), column("cpu", "quantity"), column("memory", "quantity"), column("Window", "duration"),
        ],
        "rows": shown.iter().map(|one| one.row(now)).collect::<Vec<_>>(),
    })
}

/// What there is below the version.
pub(crate) fn resources_list() -> Value {
    let row = |name: &str, kind: &str, namespaced: bool| json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"] });
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION,
        "resources": [row("nodes", "NodeMetrics", false), row("pods", "PodMetrics", true)],
    })
}

fn resources(usage: Usage) -> Value {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let cpu = Quantity::from_scaled(number(usage.cpu), -9, Format::DecimalSi);
    let memory = Quantity::from_i64(number(usage.memory), Format::BinarySi);
    json!({ "cpu": cpu.to_string(), "memory": memory.to_string() })
}

/// RFC 3339, to the second.
fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// A time span as Go writes it, from nanoseconds; never negative here.
fn duration(nanos: i64) -> String {
    let nanos = nanos.max(0);
    let decimal = |value: i64, unit: i64, suffix: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", value / unit, value % unit);
        format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(nanos, 1_000_000, "ms"),
        _ => {
            const MINUTE: i64 = 60 * 1_000_000_000;
            let seconds = decimal(nanos % MINUTE, 1_000_000_000, "s");
            match nanos / MINUTE {
                0 => seconds,
                minutes @ 1..60 => format!("{minutes}m{seconds}"),
                minutes => format!("{}h{}m{seconds}", minutes / 60, minutes % 60),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (15_000_000_000, "15s"),
            (15_023_000_000, "15.023s"),
            (10_000_000_001, "10.000000001s"),
            (850_000_000, "850ms"),
            (1_500, "1.5µs"),
            (62_500_000_000, "1m2.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (-5, "0s"),
        ] {
            assert_eq!(duration(nanos), text, "{nanos}");
        }
    }

    fn node() -> Shown {
        let about = About { name: "a".into(), namespace: String::new(), labels: json!({ "os": "linux" }) };
        let usage = Usage { cpu: 125_000_001, memory: 512 * 1024 };
        Shown::node(about, &Reading { at: 1_763_741_000_123_000_000, window: 15_001_000_000, usage })
    }

    fn pod() -> Shown {
        let about = About { name: "p".into(), namespace: "n".into(), labels: json!({}) };
        let usage = BTreeMap::from([
            ("x".to_owned(), Usage { cpu: 250_000_000, memory: 1000 }),
            ("y".to_owned(), Usage { cpu: 750_000_000, memory: 24 }),
        ]);
        Shown::pod(about, &Reading { at: 1_763_741_000_000_000_000, window: 15_000_000_000, usage })
    }

    #[test]
    fn objects_are_those_of_metrics_server() {
        assert_eq!(
            node().object(1_763_741_005),
            json!({
                "kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": { "name": "a", "creationTimestamp": "2025-11-21T16:03:25Z", "labels": { "os": "linux" } },
                "timestamp": "2025-11-21T16:03:20Z", "window": "15.001s",
                "usage": { "cpu": "125000001n", "memory": "512Ki" },
            })
        );
        assert_eq!(
            pod().object(1_763_741_005),
            json!({
                "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": { "name": "p", "namespace": "n", "creationTimestamp": "2025-11-21T16:03:25Z" },
                "timestamp": "2025-11-21T16:03:20Z", "window": "15s",
                "containers": [
                    { "name": "x", "usage": { "cpu": "250m", "memory": "1k" } },
                    { "name": "y", "usage": { "cpu": "750m", "memory": "24" } },
                ],
            })
        );
        let list = list("PodMetrics", &[pod()], 1_763_741_005);
        assert_eq!((&list["kind"], list["items"][0].get("kind")), (&json!("PodMetricsList"), None));
    }

    #[test]
    fn tables_sum_up_a_pod() {
        let table = table(&[pod(), node()], 1_763_741_005);
        let names: Vec<&str> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["Name", "cpu", "memory", "Window"]);
        assert_eq!(table["rows"][0]["cells"], json!(["p", "1", "1Ki", "15s"]));
        assert_eq!(table["rows"][1]["cells"], json!(["a", "125000001n", "512Ki", "15.001s"]));
        assert_eq!(table["rows"][0]["object"]["metadata"]["namespace"], "n");
    }
}
