//! The parts of deciding, by the names that upstream's configuration and events have for them.

use std::borrow::Cow;
use std::fmt;

/// A part of deciding that can be switched off, weighed, or refuse a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "upstream's names, documented there and in the module of each")]
#[repr(u8)]
pub enum Plugin {
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    DefaultBinder,
}

impl Plugin {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 18] = [
        Self::SchedulingGates,
        Self::PrioritySort,
        Self::NodeUnschedulable,
        Self::NodeName,
        Self::TaintToleration,
        Self::NodeAffinity,
        Self::NodePorts,
        Self::NodeResourcesFit,
        Self::VolumeRestrictions,
        Self::NodeVolumeLimits,
        Self::VolumeBinding,
        Self::VolumeZone,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
        Self::DefaultPreemption,
        Self::NodeResourcesBalancedAllocation,
        Self::ImageLocality,
        Self::DefaultBinder,
    ];

    /// Its name in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::SchedulingGates => "SchedulingGates",
            Self::PrioritySort => "PrioritySort",
            Self::NodeUnschedulable => "NodeUnschedulable",
            Self::NodeName => "NodeName",
            Self::TaintToleration => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::NodePorts => "NodePorts",
            Self::NodeResourcesFit => "NodeResourcesFit",
            Self::VolumeRestrictions => "VolumeRestrictions",
            Self::NodeVolumeLimits => "NodeVolumeLimits",
            Self::VolumeBinding => "VolumeBinding",
            Self::VolumeZone => "VolumeZone",
            Self::PodTopologySpread => "PodTopologySpread",
            Self::InterPodAffinity => "InterPodAffinity",
            Self::DefaultPreemption => "DefaultPreemption",
            Self::NodeResourcesBalancedAllocation => "NodeResourcesBalancedAllocation",
            Self::ImageLocality => "ImageLocality",
            Self::DefaultBinder => "DefaultBinder",
        }
    }

    /// The part with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plugin| plugin.name() == name)
    }

    /// Whether it refuses nodes.
    pub fn is_filter(self) -> bool {
        (Self::NodeUnschedulable..=Self::InterPodAffinity).contains(&self)
    }

    /// Its weight among the scores, unless it is configured; `None` if it gives none.
    pub fn score_weight(self) -> Option<i64> {
        match self {
            Self::TaintToleration => Some(3),
            Self::NodeAffinity | Self::PodTopologySpread | Self::InterPodAffinity => Some(2),
            Self::NodeResourcesFit | Self::NodeResourcesBalancedAllocation | Self::ImageLocality => Some(1),
            _ => None,
        }
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PluginSet(u32);

impl PluginSet {
    /// All of them.
    pub fn all() -> Self {
        Plugin::ALL.into_iter().collect()
    }

    /// With one more.
    pub fn insert(&mut self, plugin: Plugin) {
        self.0 |= 1 << plugin as u8;
    }

    /// Without one.
    pub fn remove(&mut self, plugin: Plugin) {
        self.0 &= !(1 << plugin as u8);
    }

    /// Whether one is in it.
    pub fn contains(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u8) != 0
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in it, in the order in which they are asked.
    pub fn iter(self) -> impl Iterator<Item = Plugin> {
        Plugin::ALL.into_iter().filter(move |plugin| self.contains(*plugin))
    }
}

impl FromIterator<Plugin> for PluginSet {
    fn from_iter<I: IntoIterator<Item = Plugin>>(plugins: I) -> Self {
        let mut set = Self::default();
        plugins.into_iter().for_each(|plugin| set.insert(plugin));
        set
    }
}

/// A reason as the user reads it.
pub type Reason = Cow<'static, str>;

/// Why a node, or every node, is not for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who says so.
    pub plugin: Plugin,
    /// Making pods go from the node could change it.
    pub is_resolvable: bool,
    /// The reasons, at least one.
    pub reasons: Vec<Reason>,
}

impl Refusal {
    /// A refusal that stays, whoever goes.
    pub fn for_good(plugin: Plugin, reason: impl Into<Reason>) -> Self {
        Self { plugin, is_resolvable: false, reasons: vec![reason.into()] }
    }

    /// A refusal that may end when pods go.
    pub fn for_now(plugin: Plugin, reason: impl Into<Reason>) -> Self {
        Self { plugin, is_resolvable: true, reasons: vec![reason.into()] }
    }
}
