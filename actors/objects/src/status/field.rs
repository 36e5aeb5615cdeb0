//! Places in an object, and what is wrong with them.
//!
//! A path reads `spec.containers[0].ports[1].hostPort`, with map keys in brackets too: `metadata.labels[app]`. The root
//! without a step prints `<nil>`, since that is what clients of upstream are used to.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::go;

/// A place in an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// The whole object.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// A field of the object.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// A field of what stands here.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        // Made for each field that is looked at, though hardly any is wrong.
        if self.0.is_empty() { Self::new(name) } else { Self([&self.0, ".", name].concat()) }
    }

    /// An item of the list that stands here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.key(&index.to_string())
    }

    /// A value of the map that stands here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self([&self.0, "[", key, "]"].concat())
    }

    /// Whether it is the whole object.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What can be wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It names something that doesn't exist.
    NotFound,
    /// It has to be there.
    Required,
    /// It has to be unique.
    Duplicate,
    /// It is malformed or out of bounds.
    Invalid,
    /// It is none of the values there are.
    NotSupported,
    /// It may not be set here, or not now.
    Forbidden,
    /// Too many bytes.
    TooLong,
    /// Too many items.
    TooMany,
    /// Not of the type that the schema wants.
    TypeInvalid,
    /// Not the client's fault.
    Internal,
}

/// Per kind: the cause's reason on the wire, and the words in a message.
const KINDS: &[(ErrorKind, &str, &str)] = &[
    (ErrorKind::NotFound, "FieldValueNotFound", "Not found"),
    (ErrorKind::Required, "FieldValueRequired", "Required value"),
    (ErrorKind::Duplicate, "FieldValueDuplicate", "Duplicate value"),
    (ErrorKind::Invalid, "FieldValueInvalid", "Invalid value"),
    (ErrorKind::NotSupported, "FieldValueNotSupported", "Unsupported value"),
    (ErrorKind::Forbidden, "FieldValueForbidden", "Forbidden"),
    (ErrorKind::TooLong, "FieldValueTooLong", "Too long"),
    (ErrorKind::TooMany, "FieldValueTooMany", "Too many"),
    (ErrorKind::TypeInvalid, "FieldValueTypeInvalid", "Invalid value"),
    (ErrorKind::Internal, "InternalError", "Internal error"),
];

impl ErrorKind {
    fn row(self) -> &'static (Self, &'static str, &'static str) {
        KINDS.iter().find(|(kind, ..)| *kind == self).expect("every kind has a row")
    }

    /// The cause's reason on the wire.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.row().1
    }

    /// The words in a message.
    #[must_use]
    pub fn words(self) -> &'static str {
        self.row().2
    }

    /// The kind with this reason.
    #[must_use]
    pub fn from_reason(reason: &str) -> Option<Self> {
        KINDS.iter().find(|(_, known, _)| *known == reason).map(|(kind, ..)| *kind)
    }
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// How.
    pub kind: ErrorKind,
    /// Where, as [`Path`] prints it.
    pub field: String,
    /// What stands there; `None` where the message doesn't show it.
    pub value: Option<Value>,
    /// What would be right, or empty.
    pub detail: String,
}

impl Error {
    fn new(kind: ErrorKind, path: &Path, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), value, detail: detail.into() }
    }

    /// It names something that doesn't exist.
    #[must_use]
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// It has to be there.
    #[must_use]
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, None, detail)
    }

    /// It has to be unique.
    #[must_use]
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::Duplicate, path, Some(value.into()), "")
    }

    /// It is malformed or out of bounds.
    #[must_use]
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, Some(value.into()), detail)
    }

    /// It is malformed, and too big or too secret to show.
    #[must_use]
    pub fn invalid_unshown(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, None, detail)
    }

    /// It is none of the values there are, which are listed in the order given.
    #[must_use]
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|value| go::quote(value)).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self::new(ErrorKind::NotSupported, path, Some(value.into()), detail)
    }

    /// It may not be set here, or not now.
    #[must_use]
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, None, detail)
    }

    /// More than `bytes_max` bytes.
    #[must_use]
    pub fn too_long(path: &Path, bytes_max: usize) -> Self {
        let unit = if bytes_max == 1 { "byte" } else { "bytes" };
        Self::new(ErrorKind::TooLong, path, None, format!("may not be more than {bytes_max} {unit}"))
    }

    /// More than `count_max` items.
    #[must_use]
    pub fn too_many(path: &Path, count: usize, count_max: usize) -> Self {
        let unit = if count_max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {count_max} {unit}");
        Self::new(ErrorKind::TooMany, path, Some(count.into()), detail)
    }

    /// Not of the type that the schema wants.
    #[must_use]
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::TypeInvalid, path, Some(value.into()), detail)
    }

    /// Not the client's fault.
    #[must_use]
    pub fn internal(path: &Path, detail: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, path, None, detail.to_string())
    }

    /// The message without the field.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(&go::display(value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for Error {}

/// All messages as one, or `None` if there are none. Several are put in brackets, and nothing is said twice.
#[must_use]
pub fn aggregate(errors: &[Error]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).filter(|text| seen.insert(text.clone())).collect();
    match texts.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}
