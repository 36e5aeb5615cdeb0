//! Server-side apply, and the ownership of fields that every write keeps up.
//!
//! Each object lists its managers and the fields that each of them owns (`metadata.managedFields`). Whoever applies a
//! configuration owns what it says; what it no longer says goes, unless somebody else owns it too. To change a field of
//! another manager is a conflict, which the applier may force. Every other write simply takes the fields it changes.
//!
//! ```text
//!   object, configuration ─ validate ─ merge ─ prune what I no longer say ─ compare ─ conflicts? ─ new owners
//!   object before, after ──────────────────────────────────────────────── compare ─────────────── new owners
//! ```
//!
//! Which paths a value has, is a matter of its schema (`types`): structures and maps are owned field by
//! field, lists as a whole or item by item, and atomic ones as a whole. Sets of paths are trees ([`Set`]). The rules
//! are those of upstream's structured-merge-diff, down to the text of a conflict; the code is ours, and its model in the
//! tests shares nothing with it but the rules.

mod compare;
mod conflict;
mod element;
mod managers;
mod merge;
mod options;
mod ownership;
mod set;
#[cfg(test)]
mod tests;
mod tracker;
mod types;
mod validate;
mod walk;

pub use conflict::{ApplyError, Conflict};
pub use element::{ElementError, Path, PathElement, equal, print_path};
pub use managers::{Entry, Manager, Managers, ManagersError, Operation, UPDATE_ENTRIES_MAX, check_managed_fields};
pub use options::{check_patch_options, manager_or_user_agent};
pub use set::{FieldsError, Set};
pub use tracker::{Tracker, Versions, keep_times};
