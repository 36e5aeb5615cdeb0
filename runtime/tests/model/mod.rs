//! Random schedules, the reference they are checked against, and the two ways of checking.

pub(crate) mod lockstep;
pub(crate) mod reference;
mod rules;
pub(crate) mod schedule;
pub(crate) mod storm;

use std::fmt;

/// The path of a child.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent == k3sd_runtime::ROOT { name.to_owned() } else { format!("{parent}/{name}") }
}

/// Prints one thing per line.
pub(crate) fn lines<T: fmt::Display>(things: impl IntoIterator<Item = T>) -> String {
    things.into_iter().map(|thing| format!("  {thing}\n")).collect()
}
