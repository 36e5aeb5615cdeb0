//! One of the causes in a `Status`.

use serde::{Deserialize, Serialize};

use super::field;

/// What kind of cause it is; the wire calls this `reason`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum CauseKind {
    /// Left out on the wire: only the message speaks.
    #[default]
    Unnamed,
    /// A field is wrong.
    Field(field::ErrorKind),
    /// Another manager owns the field that an apply would change.
    FieldManagerConflict,
    /// The version asked for is still to come.
    ResourceVersionTooLarge,
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// An eviction would leave too few pods.
    DisruptionBudget,
    /// Something that another server, or a webhook, made up.
    Other(String),
}

/// Names on the wire, fields aside.
const NAMES: &[(CauseKind, &str)] = &[
    (CauseKind::Unnamed, ""),
    (CauseKind::FieldManagerConflict, "FieldManagerConflict"),
    (CauseKind::ResourceVersionTooLarge, "ResourceVersionTooLarge"),
    (CauseKind::NamespaceTerminating, "NamespaceTerminating"),
    (CauseKind::DisruptionBudget, "DisruptionBudget"),
];

impl CauseKind {
    fn is_unnamed(&self) -> bool {
        *self == Self::Unnamed
    }
}

impl From<String> for CauseKind {
    fn from(name: String) -> Self {
        if let Some(kind) = field::ErrorKind::from_reason(&name) {
            return Self::Field(kind);
        }
        let known = NAMES.iter().find(|(_, known)| *known == name);
        known.map_or(Self::Other(name), |(kind, _)| kind.clone())
    }
}

impl From<CauseKind> for String {
    fn from(kind: CauseKind) -> Self {
        match kind {
            CauseKind::Field(kind) => kind.reason().to_owned(),
            CauseKind::Other(name) => name,
            kind => NAMES.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name).to_owned(),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// Of which kind.
    #[serde(rename = "reason", skip_serializing_if = "CauseKind::is_unnamed")]
    pub kind: CauseKind,
    /// For people, without the field.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where, as `spec.containers[0].image`; a path of server-side apply begins with a dot.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Cause {
    /// Puts the three together.
    #[must_use]
    pub fn new(kind: CauseKind, message: impl Into<String>, field: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: field.into() }
    }
}

impl From<&field::Error> for Cause {
    fn from(error: &field::Error) -> Self {
        Self::new(CauseKind::Field(error.kind), error.body(), &error.field)
    }
}
