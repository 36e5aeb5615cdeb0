//! Why an apply was refused.

use std::collections::BTreeMap;

use thiserror::Error;

use super::element::{Path, print_path};
use super::managers::{Manager, ManagersError};
use super::set::Set;
use crate::status::{Cause, CauseKind, Reason, Status};

/// A field that somebody else owns and the configuration would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: Manager,
    /// The field.
    pub path: Path,
}

/// Why an apply was refused. The object is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// Others own what it would change. Sorted by manager; never empty.
    #[error("{}", message(.0))]
    Conflicts(Vec<Conflict>),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration doesn't fit the schema.
    #[error("failed to create typed patch object ({object}): {faults}")]
    Untyped {
        /// Namespace, name and kind.
        object: String,
        /// What is wrong with it.
        faults: String,
    },
    /// The object's own list of managers can't be read.
    #[error("failed to decode managed fields: {0}")]
    Managers(#[from] ManagersError),
    /// The object can't be had in another version.
    #[error("{0}")]
    Conversion(String),
}

impl ApplyError {
    /// One error for the fields of each manager; `None` if there are none.
    pub(super) fn conflicts<'m>(sets: impl IntoIterator<Item = (&'m Manager, &'m Set)>) -> Option<Self> {
        let mut conflicts = Vec::new();
        for (manager, set) in sets {
            let of_manager = set.paths().into_iter().map(|path| Conflict { manager: manager.clone(), path });
            conflicts.extend(of_manager);
        }
        (!conflicts.is_empty()).then_some(Self::Conflicts(conflicts))
    }

    /// The answer to the client.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Conflicts(conflicts) => {
                let cause = |conflict: &Conflict| {
                    let message = format!("conflict with {}", conflict.manager.shown());
                    Cause::new(CauseKind::FieldManagerConflict, message, print_path(&conflict.path))
                };
                Status::apply_conflict(conflicts.iter().map(cause).collect(), self.to_string())
            }
            Self::BadRequest(message) => Status::bad_request(message.as_str()),
            // Upstream answers these as errors of no kind in particular.
            Self::Untyped { .. } | Self::Managers(_) | Self::Conversion(_) => {
                Status::failure(500, Reason::Unknown, self.to_string())
            }
        }
    }
}

fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        let (manager, path) = (only.manager.shown(), print_path(&only.path));
        return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
    }
    let mut by_manager: BTreeMap<&Manager, Vec<String>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(&conflict.manager).or_default().push(format!("- {}", print_path(&conflict.path)));
    }
    let parts: Vec<String> = by_manager
        .into_iter()
        .map(|(manager, paths)| format!("conflicts with {}:\n{}", manager.shown(), paths.join("\n")))
        .collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), parts.join("\n"))
}
