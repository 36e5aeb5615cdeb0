//! The node's status: what it is, what it has, and whether it is well.

mod actor;
mod conditions;
mod machine;
mod object;
mod patch;
mod resources;
#[cfg(test)]
mod tests;

pub use self::actor::{Ask, DeviceCounts, Standing, StatusConfig};
pub(crate) use self::actor::{Reporter, ReporterArgs, reference};
pub(crate) use self::conditions::time;
pub use self::conditions::{RuntimeHealth, changes, conditions, joined};
pub use self::machine::{FileSystem, Machine, Roots, architecture, processes};
pub(crate) use self::machine::{Memory, cpus, memory_limit, text};
pub use self::object::{Facts, features, handlers, images, status};
pub use self::patch::{Difference, difference};
pub use self::resources::{Amounts, Reserved, ReservedError, Resources, Supply, is_extended, resources, texts};
