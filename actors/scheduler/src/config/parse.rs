//! `KubeSchedulerConfiguration` of `kubescheduler.config.k8s.io/v1`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::arguments::arguments;
use super::read::{Object, wrong};
use super::{Backoff, Profile, SchedulerConfig};
use crate::error::ConfigError;
use crate::plugin::{Plugin, PluginSet};
use crate::pod::DEFAULT_SCHEDULER;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// What the document may have. Those about the process rather than decisions are read by whoever owns the process.
const FIELDS: &[&str] = &[
    "apiVersion",
    "kind",
    "parallelism",
    "leaderElection",
    "clientConnection",
    "healthzBindAddress",
    "metricsBindAddress",
    "enableProfiling",
    "enableContentionProfiling",
    "percentageOfNodesToScore",
    "podInitialBackoffSeconds",
    "podMaxBackoffSeconds",
    "profiles",
    "extenders",
    "delayCacheUntilActive",
];

/// Where plugins are switched on and off.
const POINTS: &[&str] = &[
    "preEnqueue",
    "queueSort",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
    "multiPoint",
];

/// Weights and waits stay below what could overflow.
const LARGE: i64 = 1_000_000;

impl SchedulerConfig {
    /// Reads a document.
    ///
    /// # Errors
    /// It has something that isn't known, or that makes no sense; the error says where.
    pub fn from_value(document: &Value) -> Result<Self, ConfigError> {
        let object = Object::new(document, "", FIELDS)?;
        if object.text("apiVersion")? != Some(API_VERSION) {
            return wrong("apiVersion", format!("must be {API_VERSION}"));
        }
        if object.text("kind")? != Some(KIND) {
            return wrong("kind", format!("must be {KIND}"));
        }
        if !object.list("extenders")?.is_empty() {
            return wrong("extenders", "are not supported");
        }
        let percentage = percentage(&object)?;
        let seconds = |number: i64| Duration::from_secs(number.unsigned_abs());
        let first = object.number("podInitialBackoffSeconds", 1, LARGE)?.map(seconds);
        let longest = object.number("podMaxBackoffSeconds", 1, LARGE)?.map(seconds);
        let default = Backoff::default();
        let first = first.unwrap_or(default.first);
        let backoff = Backoff { first, longest: longest.unwrap_or(default.longest.max(first)) };
        if backoff.longest < backoff.first {
            return wrong("podMaxBackoffSeconds", "must not be less than podInitialBackoffSeconds");
        }
        let mut profiles: Vec<Arc<Profile>> = Vec::new();
        for (value, path) in object.list("profiles")? {
            let profile = profile(value, &path, percentage)?;
            if profiles.iter().any(|other| other.name == profile.name) {
                return wrong(&format!("{path}.schedulerName"), format!("{:?} is there twice", profile.name));
            }
            profiles.push(Arc::new(profile));
        }
        if profiles.is_empty() {
            profiles.push(Arc::new(Profile { percentage_of_nodes_to_score: percentage, ..Profile::default() }));
        }
        Ok(Self { profiles, backoff })
    }
}

fn percentage(object: &Object<'_>) -> Result<Option<u8>, ConfigError> {
    let number = object.number("percentageOfNodesToScore", 0, 100)?;
    Ok(number.and_then(|number| u8::try_from(number).ok()))
}

fn profile(value: &Value, path: &str, default_percentage: Option<u8>) -> Result<Profile, ConfigError> {
    let known = ["schedulerName", "percentageOfNodesToScore", "plugins", "pluginConfig"];
    let object = Object::new(value, path, &known)?;
    let name = object.text("schedulerName")?.unwrap_or(DEFAULT_SCHEDULER);
    let mut profile = Profile {
        name: name.to_owned(),
        percentage_of_nodes_to_score: percentage(&object)?.or(default_percentage),
        ..Profile::default()
    };
    if let Some(plugins) = object.get("plugins") {
        switch(&mut profile, plugins, &object.at("plugins"))?;
    }
    for (value, path) in object.list("pluginConfig")? {
        let object = Object::new(value, &path, &["name", "args"])?;
        let name = object.text("name")?.unwrap_or_default();
        let Some(plugin) = Plugin::named(name) else {
            return wrong(&object.at("name"), format!("there is no plugin {name:?}"));
        };
        if let Some(args) = object.get("args") {
            arguments(&mut profile, plugin, args, &object.at("args"))?;
        }
    }
    Ok(profile)
}

/// What is switched at one place.
struct Switched {
    off: PluginSet,
    on: Vec<(Plugin, Option<i64>)>,
}

fn switched(plugins: &Object<'_>, point: &str) -> Result<Switched, ConfigError> {
    let mut switched = Switched { off: PluginSet::default(), on: Vec::new() };
    let Some(value) = plugins.get(point) else { return Ok(switched) };
    let object = Object::new(value, &plugins.at(point), &["enabled", "disabled"])?;
    let plugin = |entry: &Object<'_>| {
        let name = entry.text("name")?.unwrap_or_default();
        Plugin::named(name).map_or_else(|| wrong(&entry.at("name"), format!("there is no plugin {name:?}")), Ok)
    };
    for (value, path) in object.list("disabled")? {
        let entry = Object::new(value, &path, &["name", "weight"])?;
        if entry.text("name")? == Some("*") {
            switched.off = PluginSet::all();
        } else {
            switched.off.insert(plugin(&entry)?);
        }
    }
    for (value, path) in object.list("enabled")? {
        let entry = Object::new(value, &path, &["name", "weight"])?;
        let weight = entry.number("weight", 0, LARGE)?.filter(|weight| *weight > 0);
        switched.on.push((plugin(&entry)?, weight));
    }
    Ok(switched)
}

/// Switches plugins, everywhere first and then place by place.
fn switch(profile: &mut Profile, value: &Value, path: &str) -> Result<(), ConfigError> {
    let plugins = Object::new(value, path, POINTS)?;
    for point in ["multiPoint", "preFilter", "filter", "postFilter", "score"] {
        let Switched { off, on } = switched(&plugins, point)?;
        let everywhere = point == "multiPoint";
        if everywhere || point == "filter" || point == "preFilter" {
            off.iter().for_each(|plugin| profile.filters.remove(plugin));
            on.iter().filter(|(plugin, _)| plugin.is_filter()).for_each(|(plugin, _)| profile.filters.insert(*plugin));
        }
        if everywhere || point == "postFilter" {
            let is_on = on.iter().any(|(plugin, _)| *plugin == Plugin::DefaultPreemption);
            profile.preempts = is_on || (profile.preempts && !off.contains(Plugin::DefaultPreemption));
        }
        if everywhere || point == "score" {
            profile.scores.retain(|(plugin, _)| !off.contains(*plugin));
            for (plugin, weight) in on {
                let Some(default) = plugin.score_weight() else { continue };
                // At a place of its own a plugin counts once, unless it says more.
                let weight = weight.unwrap_or(if everywhere { default } else { 1 });
                profile.scores.retain(|(other, _)| *other != plugin);
                profile.scores.push((plugin, weight));
            }
        }
    }
    // The rest can be written, and changes nothing: these places have one plugin each, which has to be there.
    for point in POINTS {
        switched(&plugins, point)?;
    }
    Ok(())
}
