//! How decisions are made: one profile for each scheduler's name that pods may ask for.

mod arguments;
mod parse;
mod read;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::plugin::{Plugin, PluginSet};
use crate::pod::{DEFAULT_SCHEDULER, NodeAffinity, Spread};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// At least one, each with a name of its own.
    pub profiles: Vec<Arc<Profile>>,
    /// How long pods wait after vain tries.
    pub backoff: Backoff,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { profiles: vec![Arc::new(Profile::default())], backoff: Backoff::default() }
    }
}

impl SchedulerConfig {
    /// The profile for pods that ask for a scheduler; `None` if somebody else is that scheduler.
    pub fn profile(&self, scheduler: &str) -> Option<&Arc<Profile>> {
        self.profiles.iter().find(|profile| profile.name == scheduler)
    }
}

/// The waits after vain tries: doubled each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first; 1 s unless it is configured.
    pub first: Duration,
    /// The longest; 10 s unless it is configured.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(10) }
    }
}

impl Backoff {
    /// The wait after so many vain tries.
    pub fn after(self, tries: u32) -> Duration {
        match tries.checked_sub(1) {
            None => Duration::ZERO,
            Some(doubled) => {
                self.first.saturating_mul(1_u32.checked_shl(doubled).unwrap_or(u32::MAX)).min(self.longest)
            }
        }
    }
}

/// How one scheduler decides.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What pods ask for in `schedulerName`.
    pub name: String,
    /// What may refuse nodes.
    pub filters: PluginSet,
    /// What compares nodes, each with its weight.
    pub scores: Vec<(Plugin, i64)>,
    /// The percentage of nodes that is enough to choose from; `None` or 0 depends on how many there are.
    pub percentage_of_nodes_to_score: Option<u8>,
    /// How a node's room is worth something.
    pub fit: FitStrategy,
    /// Resources that a node may lack.
    pub ignored_resources: Vec<String>,
    /// Resources with such a prefix too, by what stands before the slash.
    pub ignored_resource_groups: Vec<String>,
    /// Resources that should be used evenly.
    pub balanced: Vec<String>,
    /// How pods are spread that say nothing of it.
    pub default_spread: DefaultSpread,
    /// What it is worth that a pod which is there requires to be near this one; 0 to 100.
    pub hard_pod_affinity_weight: i32,
    /// Whether preferences of pods that are there count only for pods with preferences.
    pub ignores_preferred_terms_of_existing_pods: bool,
    /// What is asked of the nodes of all pods.
    pub added_affinity: Option<NodeAffinity>,
    /// How victims are looked for; see [`Self::preempts`].
    pub preemption: PreemptionArgs,
    /// Whether pods have to go for more important ones.
    pub preempts: bool,
    /// How long a pod's volumes may take to be bound.
    pub volume_bind_timeout: Duration,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            name: DEFAULT_SCHEDULER.to_owned(),
            filters: Plugin::ALL.into_iter().filter(|plugin| plugin.is_filter()).collect(),
            scores: Plugin::ALL.into_iter().filter_map(|plugin| Some((plugin, plugin.score_weight()?))).collect(),
            percentage_of_nodes_to_score: None,
            fit: FitStrategy::LeastAllocated { resources: cpu_and_memory() },
            ignored_resources: Vec::new(),
            ignored_resource_groups: Vec::new(),
            balanced: vec!["cpu".to_owned(), "memory".to_owned()],
            default_spread: DefaultSpread::System,
            hard_pod_affinity_weight: 1,
            ignores_preferred_terms_of_existing_pods: false,
            added_affinity: None,
            preemption: PreemptionArgs::default(),
            preempts: true,
            volume_bind_timeout: Duration::from_secs(600),
        }
    }
}

/// The resources that count by default, each as much as the other.
fn cpu_and_memory() -> Vec<(String, i64)> {
    vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)]
}

impl Profile {
    /// Whether a node may lack a resource.
    pub fn is_ignored_resource(&self, name: &str) -> bool {
        let group = name.split_once('/').map_or("", |(group, _)| group);
        self.ignored_resources.iter().any(|ignored| ignored == name)
            || self.ignored_resource_groups.iter().any(|ignored| ignored == group)
    }
}

/// How full a node should be. Each with the resources that count, and their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the one field is what the type says")]
pub enum FitStrategy {
    /// As empty as possible.
    LeastAllocated { resources: Vec<(String, i64)> },
    /// As full as possible.
    MostAllocated { resources: Vec<(String, i64)> },
    /// As a line through points says.
    RequestedToCapacityRatio { resources: Vec<(String, i64)>, shape: Vec<ShapePoint> },
}

impl FitStrategy {
    /// The resources that count, with their weights.
    pub fn resources(&self) -> &[(String, i64)] {
        match self {
            Self::LeastAllocated { resources }
            | Self::MostAllocated { resources }
            | Self::RequestedToCapacityRatio { resources, .. } => resources,
        }
    }
}

/// A point of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapePoint {
    /// Percent of the resource that is asked for.
    pub utilization: i64,
    /// What that is worth, 0 to 100.
    pub score: i64,
}

/// How pods are spread that say nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DefaultSpread {
    /// Over nodes (skew 3) and zones (skew 5), as well as it goes.
    #[default]
    System,
    /// By these. Their selectors come from the services and controllers of each pod.
    List(Vec<Spread>),
}

/// How many nodes are tried before the best is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreemptionArgs {
    /// Percent of the nodes.
    pub percentage: usize,
    /// At least so many.
    pub absolute: usize,
}

impl Default for PreemptionArgs {
    fn default() -> Self {
        Self { percentage: 10, absolute: 100 }
    }
}

impl PreemptionArgs {
    /// How many candidates are enough, of so many nodes.
    pub fn candidates(self, nodes: usize) -> usize {
        (nodes * self.percentage / 100).max(self.absolute).min(nodes)
    }
}
