//! The scheduler: finds a node for each pod that has none.
//!
//! ```text
//! informers ─▶ Snapshot ─┐
//!          └─▶ Queue ────┴─▶ decide ─▶ assumed ─▶ (volumes) ─▶ bind
//!                 ▲            └─▶ why not, victims ─┐            │ failed
//!                 └──────────────────────────────────┴────────────┘
//! ```
//!
//! * [`decide`](mod@decide) is one decision: a pure function of the [`snapshot`], a [`pod`], a profile of the [`config`] and random
//!   numbers for ties. It asks [`filter`]s which nodes will do and [`score`]s which are best.
//! * [`preemption`] looks who could go when none will do; [`diagnosis`] says why none did.
//! * [`queue`] holds the pods that wait, and knows which events may help which of them.
//! * [`volumes`] chooses volumes for pods whose claims wait for a node.
//! * `actor` is the only part that waits and writes; [`tree`](mod@tree) is what to start.

mod actor;
pub mod config;
pub mod decide;
pub mod diagnosis;
pub mod error;
pub mod filter;
pub mod labels;
pub mod plugin;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod score;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod tree;
pub mod volumes;

pub use config::SchedulerConfig;
pub use error::{ConfigError, SetupError};
pub use tree::{SchedulerArgs, tree};
