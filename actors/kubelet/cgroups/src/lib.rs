//! The cgroup tree of pods: made, limited, read and removed, on v1, hybrid and v2.
//!
//! ```text
//! kubepods                       what all pods together may take: the node's allocatable
//! ├─ pod<uid>                    Guaranteed
//! ├─ burstable/pod<uid>          shares of CPU by the sum of requests
//! └─ besteffort/pod<uid>         what is left
//! ```
//!
//! With the systemd driver the same places are called `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`.
//!
//! * `layout` finds out where the hierarchies are, and what this process is in.
//! * `names` says what a pod's cgroup is called, in the tree and to the CRI.
//! * `limits` is the arithmetic of shares, quotas and weights; `pod` reads what a pod asks for.
//! * `tree` carries out: it makes, limits, lists and removes.
//! * `systemd` has the init system know of limits and ends, where the cgroups are its slices.
//! * `stats` reads what is used.
//!
//! The kernel owns the truth: nothing here keeps state, every call can be repeated, and what is there already is adopted.
//! Most calls are short reads and writes of kernel files. Those that make, limit and remove are asynchronous: with the
//! systemd driver they ask systemd as well, and wait until it has done it, which takes some milliseconds, or ten seconds
//! at most for each slice. One that is dropped halfway is made up for by the next.

mod disks;
mod error;
mod layout;
mod limits;
mod names;
mod pod;
mod socket;
mod stats;
mod systemd;
mod tree;

pub use crate::disks::{DiskStats, Disks};
pub use crate::error::CgroupError;
pub use crate::layout::{CgroupSources, Layout, OwnLimits, Version};
pub use crate::limits::{CPU_PERIOD_US, SHARES_MIN, cpu_quota, cpu_shares, cpu_weight};
pub use crate::names::{Driver, QosClass};
pub use crate::pod::{Amounts, PodLimits, burstable_milli, pod_limits, pod_requests, qos_class};
pub use crate::stats::CgroupStats;
pub use crate::tree::{Cgroups, NodeLimits, Removal};
