//! The deploy controller: an AddOn for each file.

mod actor;
mod addon;
mod core;
mod pass;

pub(crate) use self::actor::{Deploy, DeployArgs};
