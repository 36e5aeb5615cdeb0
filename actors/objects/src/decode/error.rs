//! What can be wrong with a body.

use std::fmt;

use thiserror::Error;

/// Why a body can't be used at all. Served as 400 BadRequest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is not JSON.
    #[error("{0}")]
    Json(String),
    /// It is not YAML, or YAML that JSON can't say.
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
    /// A value of the wrong kind, in the words of Go's decoder, which people know.
    #[error("{0}")]
    Type(String),
    /// Values within values beyond any use.
    #[error("exceeded max depth")]
    TooDeep,
    /// Bytes that are no protobuf message, or not of this kind.
    #[error("{0}")]
    Protobuf(String),
}

/// What strict validation refuses. By default it is a warning, and the field is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StrictError {
    /// The schema has no such field.
    Unknown(
        /// Its path.
        String,
    ),
    /// The field came more than once.
    Duplicate(
        /// Its path.
        String,
    ),
}

impl fmt::Display for StrictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "unknown field \"{path}\""),
            Self::Duplicate(path) => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// The message of a refusal under strict validation; none without errors.
pub fn strict_message(errors: &[StrictError]) -> Option<String> {
    if errors.is_empty() {
        return None;
    }
    let errors: Vec<String> = errors.iter().map(StrictError::to_string).collect();
    Some(format!("strict decoding error: {}", errors.join(", ")))
}
