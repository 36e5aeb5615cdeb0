//! What single plugins are told.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use super::read::{Object, wrong};
use super::{DefaultSpread, FitStrategy, PreemptionArgs, Profile, ShapePoint, cpu_and_memory};
use crate::error::ConfigError;
use crate::plugin::Plugin;
use crate::pod::{NodeAffinity, Spread};

/// What the points of a shape may be worth; they are stretched to what scores may be.
const SHAPE_SCORE_MAX: i64 = 10;

/// Reads the arguments of a plugin.
pub(super) fn arguments(profile: &mut Profile, plugin: Plugin, value: &Value, path: &str) -> Result<(), ConfigError> {
    let object = |known: &[&str]| {
        let known: Vec<&str> = known.iter().copied().chain(["apiVersion", "kind"]).collect();
        Object::new(value, path, &known)
    };
    match plugin {
        Plugin::NodeResourcesFit => {
            let args = object(&["ignoredResources", "ignoredResourceGroups", "scoringStrategy"])?;
            profile.ignored_resources = args.texts("ignoredResources")?;
            profile.ignored_resource_groups = args.texts("ignoredResourceGroups")?;
            if let Some(strategy) = args.get("scoringStrategy") {
                profile.fit = strategy_of(strategy, &args.at("scoringStrategy"))?;
            }
        }
        Plugin::NodeResourcesBalancedAllocation => {
            let args = object(&["resources"])?;
            if args.get("resources").is_some() {
                profile.balanced = resources(&args)?.into_iter().map(|(name, _)| name).collect();
            }
        }
        Plugin::PodTopologySpread => {
            let args = object(&["defaultConstraints", "defaultingType"])?;
            profile.default_spread = default_spread(&args)?;
        }
        Plugin::InterPodAffinity => {
            let args = object(&["hardPodAffinityWeight", "ignorePreferredTermsOfExistingPods"])?;
            if let Some(weight) = args.number("hardPodAffinityWeight", 0, 100)? {
                profile.hard_pod_affinity_weight = i32::try_from(weight).unwrap_or(1);
            }
            profile.ignores_preferred_terms_of_existing_pods =
                args.boolean("ignorePreferredTermsOfExistingPods")?.unwrap_or(false);
        }
        Plugin::NodeAffinity => {
            let args = object(&["addedAffinity"])?;
            if let Some(added) = args.get("addedAffinity") {
                profile.added_affinity = Some(added_affinity(added, &args.at("addedAffinity"))?);
            }
        }
        Plugin::DefaultPreemption => {
            let args = object(&["minCandidateNodesPercentage", "minCandidateNodesAbsolute"])?;
            let default = PreemptionArgs::default();
            let number = |number: Option<i64>, default| {
                number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
            };
            profile.preemption = PreemptionArgs {
                percentage: number(args.number("minCandidateNodesPercentage", 0, 100)?, default.percentage),
                absolute: number(args.number("minCandidateNodesAbsolute", 0, i64::from(i32::MAX))?, default.absolute),
            };
        }
        Plugin::VolumeBinding => {
            let args = object(&["bindTimeoutSeconds", "shape"])?;
            if let Some(seconds) = args.number("bindTimeoutSeconds", 0, i64::from(i32::MAX))? {
                profile.volume_bind_timeout = Duration::from_secs(seconds.unsigned_abs());
            }
        }
        other => return wrong(path, format!("{other} takes no arguments")),
    }
    Ok(())
}

fn resources(args: &Object<'_>) -> Result<Vec<(String, i64)>, ConfigError> {
    let mut list = Vec::new();
    for (value, path) in args.list("resources")? {
        let entry = Object::new(value, &path, &["name", "weight"])?;
        let Some(name) = entry.text("name")?.filter(|name| !name.is_empty()) else {
            return wrong(&entry.at("name"), "is missing");
        };
        let weight = entry.number("weight", 0, 100)?.filter(|weight| *weight > 0).unwrap_or(1);
        list.push((name.to_owned(), weight));
    }
    Ok(list)
}

fn strategy_of(value: &Value, path: &str) -> Result<FitStrategy, ConfigError> {
    let args = Object::new(value, path, &["type", "resources", "requestedToCapacityRatio"])?;
    let mut resources = resources(&args)?;
    if resources.is_empty() {
        resources = cpu_and_memory();
    }
    match args.text("type")? {
        None | Some("" | "LeastAllocated") => Ok(FitStrategy::LeastAllocated { resources }),
        Some("MostAllocated") => Ok(FitStrategy::MostAllocated { resources }),
        Some("RequestedToCapacityRatio") => {
            let place = args.at("requestedToCapacityRatio");
            let Some(value) = args.get("requestedToCapacityRatio") else { return wrong(&place, "is missing") };
            let shape = shape(&Object::new(value, &place, &["shape"])?)?;
            Ok(FitStrategy::RequestedToCapacityRatio { resources, shape })
        }
        Some(other) => wrong(&args.at("type"), format!("there is no strategy {other:?}")),
    }
}

fn shape(args: &Object<'_>) -> Result<Vec<ShapePoint>, ConfigError> {
    let mut shape: Vec<ShapePoint> = Vec::new();
    for (value, path) in args.list("shape")? {
        let entry = Object::new(value, &path, &["utilization", "score"])?;
        let utilization = entry.number("utilization", 0, 100)?.unwrap_or(0);
        let score =
            entry.number("score", 0, SHAPE_SCORE_MAX)?.unwrap_or(0) * (crate::score::SCORE_MAX / SHAPE_SCORE_MAX);
        if shape.last().is_some_and(|last| last.utilization >= utilization) {
            return wrong(&entry.at("utilization"), "must grow from point to point");
        }
        shape.push(ShapePoint { utilization, score });
    }
    if shape.is_empty() { wrong(&args.at("shape"), "must have a point") } else { Ok(shape) }
}

fn default_spread(args: &Object<'_>) -> Result<DefaultSpread, ConfigError> {
    let constraints = args.list("defaultConstraints")?;
    match args.text("defaultingType")? {
        None | Some("List") => {}
        Some("System") if constraints.is_empty() => return Ok(DefaultSpread::System),
        Some("System") => {
            return wrong(&args.at("defaultConstraints"), "must be empty if the defaults are the system's");
        }
        Some(other) => return wrong(&args.at("defaultingType"), format!("must be System or List, not {other:?}")),
    }
    let mut list = Vec::new();
    for (value, path) in constraints {
        let entry = Object::new(value, &path, &["maxSkew", "topologyKey", "whenUnsatisfiable"])?;
        let Some(key) = entry.text("topologyKey")?.filter(|key| !key.is_empty()) else {
            return wrong(&entry.at("topologyKey"), "is missing");
        };
        let max_skew = entry.number("maxSkew", 1, i64::from(i32::MAX))?;
        let is_hard = match entry.text("whenUnsatisfiable")? {
            Some("DoNotSchedule") => true,
            Some("ScheduleAnyway") => false,
            _ => return wrong(&entry.at("whenUnsatisfiable"), "must be DoNotSchedule or ScheduleAnyway"),
        };
        let Some(max_skew) = max_skew.and_then(|skew| i32::try_from(skew).ok()) else {
            return wrong(&entry.at("maxSkew"), "is missing");
        };
        list.push(Spread {
            max_skew,
            topology_key: key.to_owned(),
            is_hard,
            selector: k3sd_objects::selector::LabelSelector::nothing(),
            min_domains: 1,
            honors_affinity: true,
            honors_taints: false,
        });
    }
    Ok(DefaultSpread::List(list))
}

fn added_affinity(value: &Value, path: &str) -> Result<NodeAffinity, ConfigError> {
    let known = ["requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"];
    Object::new(value, path, &known)?;
    let node_affinity: core::NodeAffinity = match serde_json::from_value(value.clone()) {
        Ok(affinity) => affinity,
        Err(error) => return wrong(path, error.to_string()),
    };
    let affinity = core::Affinity { node_affinity: Some(node_affinity), ..core::Affinity::default() };
    Ok(NodeAffinity::read(&core::PodSpec { affinity: Some(affinity), ..core::PodSpec::default() }))
}
