//! What is done to pods beside writing them: putting them on nodes, and asking them to leave.

pub(crate) mod binding;
pub(crate) mod budget;
pub(crate) mod conditions;
pub(crate) mod eviction;
