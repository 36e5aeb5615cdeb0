//! Signals, thresholds, and how they are written.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_client::arguments::go_duration;
use k3sd_objects::quantity::Quantity;
use thiserror::Error;

use crate::config::{KubeletConfiguration, Texts};

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory of the node.
    MemoryAvailable,
    /// Memory that pods may use together.
    AllocatableMemoryAvailable,
    /// Bytes of the file system of the kubelet's root.
    NodefsAvailable,
    /// Inodes there.
    NodefsInodesFree,
    /// Bytes of the file system of images.
    ImagefsAvailable,
    /// Inodes there.
    ImagefsInodesFree,
    /// Bytes of the file system of containers' layers.
    ContainerfsAvailable,
    /// Inodes there.
    ContainerfsInodesFree,
    /// Process ids.
    PidAvailable,
}

/// Signals by their names.
const NAMES: [(&str, Signal); 9] = [
    ("memory.available", Signal::MemoryAvailable),
    ("allocatableMemory.available", Signal::AllocatableMemoryAvailable),
    ("nodefs.available", Signal::NodefsAvailable),
    ("nodefs.inodesFree", Signal::NodefsInodesFree),
    ("imagefs.available", Signal::ImagefsAvailable),
    ("imagefs.inodesFree", Signal::ImagefsInodesFree),
    ("containerfs.available", Signal::ContainerfsAvailable),
    ("containerfs.inodesFree", Signal::ContainerfsInodesFree),
    ("pid.available", Signal::PidAvailable),
];

impl Signal {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, signal)| *signal == self).map_or("", |(name, _)| name)
    }

    /// The resource that runs out, as messages name it.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => "memory",
            Self::NodefsAvailable | Self::ImagefsAvailable | Self::ContainerfsAvailable => "ephemeral-storage",
            Self::NodefsInodesFree | Self::ImagefsInodesFree | Self::ContainerfsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }
}

/// A part of a capacity, or so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, inodes or process ids.
    Bytes(u64),
    /// Percent of the capacity.
    Percent(f64),
}

impl Amount {
    /// How many that is of a capacity.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a capacity, cut as upstream"
    )]
    #[expect(clippy::cast_precision_loss, reason = "a percentage isn't meant to the byte")]
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().ok().filter(|percent: &f64| (0.0..=100.0).contains(percent)).map(Self::Percent);
        }
        let quantity: Quantity = text.parse().ok()?;
        u64::try_from(quantity.value()).ok().map(Self::Bytes)
    }
}

/// Below what something is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What is measured.
    pub signal: Signal,
    /// Below what.
    pub value: Amount,
    /// After which time; none for at once.
    pub grace: Option<Duration>,
    /// How much above the value there has to be until it is over.
    pub min_reclaim: Option<Amount>,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What is left.
    pub available: u64,
    /// Of what.
    pub capacity: u64,
}

/// Measurements of one moment.
pub type Observations = BTreeMap<Signal, Observation>;

impl Threshold {
    /// Whether there is less than there should be. Until a threshold is resolved that means the reclaim as well.
    #[must_use]
    pub fn is_met(&self, seen: Observation, with_reclaim: bool) -> bool {
        let reclaim = self.min_reclaim.filter(|_| with_reclaim).map_or(0, |amount| amount.of(seen.capacity));
        seen.available < self.value.of(seen.capacity).saturating_add(reclaim)
    }
}

/// Why thresholds can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ThresholdError {
    /// Nothing like that is measured.
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    /// Neither an amount nor a percentage.
    #[error("eviction threshold {signal}: {value:?} is neither an amount nor a percentage from 0% to 100%")]
    Amount {
        /// Of what.
        signal: String,
        /// As written.
        value: String,
    },
    /// A soft threshold has no time.
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGrace(String),
    /// It is no time.
    #[error("invalid eviction grace period {value:?} for {signal}: must be a positive duration")]
    Grace {
        /// Of what.
        signal: String,
        /// As written.
        value: String,
    },
}

fn signal(name: &str) -> Result<Signal, ThresholdError> {
    let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
    found.ok_or_else(|| ThresholdError::Signal(name.to_owned()))
}

fn amounts(texts: &Texts) -> Result<BTreeMap<Signal, Amount>, ThresholdError> {
    let one = |(name, value): (&String, &String)| {
        let amount = Amount::parse(value);
        let wrong = || ThresholdError::Amount { signal: name.clone(), value: value.clone() };
        Ok((signal(name)?, amount.ok_or_else(wrong)?))
    };
    texts.iter().map(one).collect()
}

/// Reads the thresholds of a configuration. A hard one of 0 % or 100 % is none, as upstream. Memory of the node is memory
/// of pods too where that is enforced.
///
/// # Errors
/// See [`ThresholdError`].
pub fn parse(config: &KubeletConfiguration) -> Result<Vec<Threshold>, ThresholdError> {
    let reclaims = amounts(&config.eviction_minimum_reclaim)?;
    let mut all = Vec::new();
    for (signal, value) in amounts(&config.eviction_hard)? {
        if matches!(value, Amount::Percent(percent) if percent <= 0.0 || percent >= 100.0) {
            continue;
        }
        all.push(Threshold { signal, value, grace: None, min_reclaim: reclaims.get(&signal).copied() });
    }
    for name in config.eviction_soft_grace_period.keys() {
        signal(name)?;
    }
    for (signal, value) in amounts(&config.eviction_soft)? {
        let name = signal.name();
        let text = config.eviction_soft_grace_period.get(name);
        let text = text.ok_or_else(|| ThresholdError::NoGrace(name.to_owned()))?;
        let wrong = || ThresholdError::Grace { signal: name.to_owned(), value: text.clone() };
        let grace = Some(go_duration(text).ok_or_else(wrong)?);
        all.push(Threshold { signal, value, grace, min_reclaim: reclaims.get(&signal).copied() });
    }
    if config.enforce_node_allocatable.iter().any(|what| what == "pods") {
        let memory: Vec<Threshold> = all
            .iter()
            .filter(|threshold| threshold.signal == Signal::MemoryAvailable && threshold.grace.is_none())
            .map(|threshold| Threshold { signal: Signal::AllocatableMemoryAvailable, ..*threshold })
            .collect();
        all.extend(memory);
    }
    Ok(all)
}
