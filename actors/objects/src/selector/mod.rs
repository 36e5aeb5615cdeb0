//! Selectors: which objects a request or a controller is about.
//!
//! By labels, as text (`app in (a,b),!canary`) or as an object (`matchLabels`, `matchExpressions`); by fields, as text
//! only (`spec.nodeName=n1`). Both print in a form that parses to the same selector.

mod field;
mod label;
mod object;
mod parser;
#[cfg(test)]
mod tests;

pub use field::{FieldRequirement, FieldSelector, FieldSelectorError};
pub use label::{LabelSelector, Operator, Requirement, RequirementError};
pub use object::{ObjectSelectorError, check_label_selector};
pub use parser::LabelSelectorError;
