//! The three patches that name changes: JSON patch, merge patch and strategic merge patch.
//!
//! Server-side apply is the fourth kind, and has [a module of its own](crate::apply). A patch arrives as a tree, read
//! under the decoder's limits; here it meets the object, and either all of it applies or nothing. What a patch may cost
//! is bounded, whatever it says: by the number of its operations, by the bytes it may copy, by the steps it may take
//! and by the depth of what it may build.

mod json;
mod list;
mod merge;
mod strategic;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::status::{Details, Reason, Status};

pub use json::{COPY_BYTES_MAX, OPERATIONS_MAX, apply_json_patch};
pub use merge::apply_merge_patch;
pub use strategic::apply_strategic_patch;

/// Why a patch did not apply. The object is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    /// It isn't of the form that its media type promises.
    #[error("{0}")]
    Malformed(String),
    /// More operations than are allowed.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooManyOperations(usize),
    /// It doesn't fit the object: a missing path, a test that failed, more work or depth than is allowed. The text is
    /// for our own log; clients read upstream's one sentence for all of these.
    #[error("{0}")]
    Unfit(String),
}

impl PatchError {
    /// The answer to the client.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Malformed(message) => Status::bad_request(message.as_str()),
            Self::TooManyOperations(_) => Status::request_entity_too_large(self),
            Self::Unfit(_) => {
                let message = "the server rejected our request due to an error in our request";
                Status::failure(422, Reason::Invalid, message).with_details(Details::default())
            }
        }
    }
}

/// What a value is called where a message says that another was expected.
fn type_name(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "bool",
        serde_json::Value::Number(_) => "number",
        serde_json::Value::String(_) => "string",
        serde_json::Value::Array(_) => "array",
        serde_json::Value::Object(_) => "object",
    }
}
