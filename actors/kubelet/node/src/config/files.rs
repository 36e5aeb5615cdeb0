//! Reading the configuration: strict documents, merged in order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k3sd_objects::decode::yaml;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{EVICTION_HARD, KubeletConfiguration, texts};

/// Largest file that is read: a configuration has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How deep directories are followed.
const DEPTH_MAX: usize = 8;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file or directory can't be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is too large to be one.
    #[error("{} has {bytes} bytes, more than a configuration may have", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How large it is.
        bytes: u64,
    },
    /// What stands there is no configuration.
    #[error("{place}: {problem}")]
    Invalid {
        /// The file, or what was merged.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

/// A configuration, and what somebody should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What was read.
    pub config: KubeletConfiguration,
    /// Settings without effect, each a sentence for the log.
    pub warnings: Vec<String>,
}

/// Fields of upstream that are no settings here: with these values alone they say what is done anyway.
const ONLY: &[(&str, &[&str])] = &[
    ("staticPodURL", &["\"\""]),
    ("cpuManagerPolicy", &["\"none\"", "\"\""]),
    ("memoryManagerPolicy", &["\"None\"", "\"\""]),
    ("topologyManagerPolicy", &["\"none\"", "\"\""]),
    ("reservedSystemCPUs", &["\"\""]),
    ("reservedMemory", &["[]"]),
    ("qosReserved", &["{}"]),
    ("rotateCertificates", &["false"]),
    ("serverTLSBootstrap", &["false"]),
    ("systemReservedCgroup", &["\"\""]),
    ("kubeReservedCgroup", &["\"\""]),
    ("systemCgroups", &["\"\""]),
    ("runOnce", &["false"]),
    ("enableSystemLogQuery", &["false"]),
    ("userNamespaces", &["{}"]),
    ("imagePullCredentialsVerificationPolicy", &["\"\"", "\"NeverVerifyPreloadedImages\"", "\"NeverVerify\""]),
    ("preloadedImagesVerificationAllowlist", &["[]"]),
];

/// Fields of upstream that tune what works otherwise here: read, and of no effect.
const TUNING: &[&str] = &[
    "httpCheckFrequency",
    "staticPodURLHeader",
    "eventRecordQPS",
    "eventBurst",
    "enableContentionProfiling",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "topologyManagerScope",
    "topologyManagerPolicyOptions",
    "hairpinMode",
    "contentType",
    "kubeAPIQPS",
    "kubeAPIBurst",
    "makeIPTablesUtilChains",
    "iptablesMasqueradeBit",
    "iptablesDropBit",
    "containerLogMaxWorkers",
    "configMapAndSecretChangeDetectionStrategy",
    "showHiddenMetricsForVersion",
    "volumePluginDir",
    "kernelMemcgNotification",
    "logging",
    "enableProfilingHandler",
    "enableDebugFlagsHandler",
    "memoryThrottlingFactor",
    "tracing",
];

/// Puts documents on top of each other, each with the name of its place: objects are merged, all else is replaced, as
/// upstream does it with its drop-in files.
///
/// # Errors
/// A document isn't one of this kind, has a field that is unknown or not of its type, or asks for what isn't there.
pub fn merge(documents: &[(String, Value)]) -> Result<Loaded, ConfigError> {
    let (mut merged, mut warnings) = (Value::Object(Map::new()), Vec::new());
    for (place, document) in documents {
        let own = known(place, document, &mut warnings)?;
        // Each is read alone, so that the file with the mistake is named.
        read(place, own.clone())?;
        overlay(&mut merged, own);
    }
    let all = "the merged configuration";
    let merges = merged.get("mergeDefaultEvictionSettings").and_then(Value::as_bool).unwrap_or(false);
    let mut config = read(all, merged)?;
    if merges {
        for (signal, value) in texts(&EVICTION_HARD) {
            config.eviction_hard.entry(signal).or_insert(value);
        }
    }
    check(all, &config)?;
    Ok(Loaded { config, warnings })
}

/// Reads every `.conf` file of a directory and those below it, in the order of their paths, as upstream does. A directory
/// that isn't there has none. Called while the process starts: it reads files.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(directory: &Path) -> Result<Loaded, ConfigError> {
    load_with(None, Some(directory))
}

/// Reads a file, whatever its name, and after it those of a directory as [`load`] does.
///
/// # Errors
/// See [`ConfigError`].
pub fn load_with(file: Option<&Path>, directory: Option<&Path>) -> Result<Loaded, ConfigError> {
    let mut files: Vec<PathBuf> = file.map(Path::to_owned).into_iter().collect();
    if let Some(directory) = directory {
        walk(directory, 0, &mut files)?;
    }
    let mut documents = Vec::new();
    for path in files {
        let wrong = |source| ConfigError::Read { path: path.clone(), source };
        let bytes = std::fs::metadata(&path).map_err(wrong)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge { path, bytes });
        }
        let text = std::fs::read(&path).map_err(wrong)?;
        let place = path.display().to_string();
        let document = yaml(&text, None).map_err(|error| invalid(&place, error.to_string()))?;
        if let Some(twice) = document.strict.first() {
            return Err(invalid(&place, twice.to_string()));
        }
        documents.push((place, document.value));
    }
    merge(&documents)
}

fn walk(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), ConfigError> {
    let wrong = |source| ConfigError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && depth == 0 => return Ok(()),
        Err(error) => return Err(wrong(error)),
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, depth + 1, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    Ok(())
}

fn invalid(place: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { place: place.to_owned(), problem: problem.into() }
}

/// The document without what has no effect here.
fn known(place: &str, document: &Value, warnings: &mut Vec<String>) -> Result<Value, ConfigError> {
    let map = match document {
        Value::Null => return Ok(Value::Object(Map::new())), // An empty file says nothing.
        Value::Object(map) => map,
        _ => return Err(invalid(place, "must be an object")),
    };
    let is = |field: &str, wanted: &str| map.get(field).is_none_or(|found| found == wanted);
    if !is("kind", "KubeletConfiguration") || !is("apiVersion", "kubelet.config.k8s.io/v1beta1") {
        return Err(invalid(place, "must be a KubeletConfiguration of kubelet.config.k8s.io/v1beta1"));
    }
    let mut kept = Map::new();
    for (field, value) in map {
        if value.is_null() {
            continue;
        }
        if let Some((_, only)) = ONLY.iter().find(|(name, _)| name == field) {
            if !only.contains(&value.to_string().as_str()) {
                return Err(invalid(place, format!("{field} is not supported here; it can only be {}", only[0])));
            }
        } else if TUNING.contains(&field.as_str()) {
            warnings.push(format!("{place}: {field} has no effect here"));
        } else {
            kept.insert(field.clone(), value.clone());
        }
    }
    Ok(Value::Object(kept))
}

fn read(place: &str, document: Value) -> Result<KubeletConfiguration, ConfigError> {
    serde_json::from_value(document).map_err(|error| {
        let text = error.to_string();
        // What else could have stood there is a list of all fields.
        let problem = text.split_once(", expected one of").map_or(text.as_str(), |(problem, _)| problem);
        invalid(place, problem)
    })
}

fn overlay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (field, value) in over {
                overlay(under.entry(field).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

/// What can't be said with types.
pub(super) fn check(place: &str, config: &KubeletConfiguration) -> Result<(), ConfigError> {
    let choices: [(&str, &str, &[&str]); 3] = [
        ("cgroupDriver", &config.cgroup_driver, &["cgroupfs", "systemd"]),
        ("authorization.mode", &config.authorization.mode, &["Webhook", "AlwaysAllow"]),
        ("memorySwap.swapBehavior", &config.memory_swap.swap_behavior, &["", "NoSwap", "LimitedSwap"]),
    ];
    for (field, value, choices) in choices {
        if !choices.contains(&value) {
            return Err(invalid(place, format!("{field}: {value:?} is none of {choices:?}")));
        }
    }
    let (high, low) = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
    let rules = [
        (config.read_only_port == 0, "readOnlyPort: there is no port without authentication"),
        (high <= 100, "imageGCHighThresholdPercent must be between 0 and 100, inclusive"),
        (low < high, "imageGCLowThresholdPercent must be less than imageGCHighThresholdPercent"),
        (config.container_log_max_files > 1, "containerLogMaxFiles must be greater than 1"),
        (config.node_lease_duration_seconds > 0, "nodeLeaseDurationSeconds must be greater than 0"),
        (config.max_pods >= 0, "maxPods must not be a negative number"),
        (config.pods_per_core >= 0, "podsPerCore must not be a negative number"),
        (config.node_status_max_images >= -1, "nodeStatusMaxImages must be -1 or greater"),
        (!config.node_status_update_frequency.is_zero(), "nodeStatusUpdateFrequency must be greater than 0"),
        (!config.container_log_monitor_interval.is_zero(), "containerLogMonitorInterval must be greater than 0"),
        (config.cgroups_per_qos, "cgroupsPerQOS can only be true"),
    ];
    if let Some((_, problem)) = rules.iter().find(|(holds, _)| !holds) {
        return Err(invalid(place, *problem));
    }
    check_shutdown(config).map_err(|problem| invalid(place, problem))?;
    if let Some(other) = config.enforce_node_allocatable.iter().find(|what| !["pods", "none"].contains(&what.as_str()))
    {
        return Err(invalid(place, format!("enforceNodeAllocatable: {other:?} is not supported here")));
    }
    if config.container_log_max_size.parse::<k3sd_objects::quantity::Quantity>().is_err() {
        return Err(invalid(place, format!("containerLogMaxSize: {:?} is no quantity", config.container_log_max_size)));
    }
    Ok(())
}

/// What the times before the machine's end have to be to each other.
fn check_shutdown(config: &KubeletConfiguration) -> Result<(), &'static str> {
    let (all, critical) = (config.shutdown_grace_period, config.shutdown_grace_period_critical_pods);
    let by_priority = &config.shutdown_grace_period_by_pod_priority;
    let is_none_or_long = |time: Duration| time.is_zero() || time >= Duration::from_secs(1);
    let rules = [
        (critical <= all, "shutdownGracePeriodCriticalPods must be <= shutdownGracePeriod"),
        (is_none_or_long(all), "shutdownGracePeriod must be either zero or otherwise >= 1 sec"),
        (is_none_or_long(critical), "shutdownGracePeriodCriticalPods must be either zero or otherwise >= 1 sec"),
        (
            by_priority.is_empty() || all.is_zero() && critical.is_zero(),
            "shutdownGracePeriodByPodPriority and shutdownGracePeriod can't be set both",
        ),
        (
            by_priority.iter().all(|row| row.shutdown_grace_period_seconds >= 0),
            "shutdownGracePeriodByPodPriority: seconds must not be negative",
        ),
    ];
    rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, problem)| Err(problem))
}
