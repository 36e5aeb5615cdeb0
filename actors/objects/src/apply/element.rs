//! Steps from a value to a part of it, and values as server-side apply compares them.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};
use thiserror::Error;

use crate::status::go;

/// One step of a path.
#[derive(Clone, Debug)]
pub enum PathElement {
    /// A field of a structure, or a key of a map. Written `f:name`, printed `.name`.
    Field(String),
    /// The item of a list whose fields have these values; sorted by name. Written `k:{..}`, printed `[name="x"]`.
    Key(Vec<(String, Value)>),
    /// The item of a set. Written `v:..`, printed `[="x"]`.
    Value(Value),
    /// The item at a place; nothing writes it any more, but old objects may hold it. Written `i:0`, printed `[0]`.
    Index(i64),
}

/// A path from an object to one of its parts. The empty one is the object.
pub type Path = Vec<PathElement>;

/// A step that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ElementError {
    /// Of a kind that we don't know; what it leads to is skipped.
    #[error("unknown path element type")]
    Unknown,
    /// Malformed.
    #[error("malformed path element {0}")]
    Malformed(String),
}

impl PathElement {
    /// A field.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    /// The item with these values.
    #[must_use]
    pub fn key(mut fields: Vec<(String, Value)>) -> Self {
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Key(fields)
    }

    /// As it stands in `fieldsV1`.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Key(fields) => {
                let fields: Map<String, Value> = fields.iter().cloned().collect();
                format!("k:{}", go::json(&Value::Object(fields)))
            }
            Self::Value(value) => format!("v:{}", go::json(value)),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads what [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    ///
    /// Fails for anything else.
    pub fn from_text(text: &str) -> Result<Self, ElementError> {
        let malformed = || ElementError::Malformed(go::quote(text));
        let (kind, rest) = text.split_once(':').ok_or_else(malformed)?;
        match kind {
            "f" => Ok(Self::field(rest)),
            "v" => serde_json::from_str(rest).map(Self::Value).map_err(|_| malformed()),
            "k" => match serde_json::from_str(rest) {
                Ok(Value::Object(fields)) => Ok(Self::key(fields.into_iter().collect())),
                _ => Err(malformed()),
            },
            "i" => rest.parse().map(Self::Index).map_err(|_| malformed()),
            _ if kind.len() == 1 => Err(ElementError::Unknown),
            _ => Err(malformed()),
        }
    }

    /// Place among the four kinds.
    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(out, ".{name}"),
            Self::Key(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
                write!(out, "[{}]", fields.join(","))
            }
            Self::Value(value) => write!(out, "[={}]", shown(value)),
            Self::Index(index) => write!(out, "[{index}]"),
        }
    }
}

/// A value inside a printed path.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
            format!("{{{}}}", fields.join(";"))
        }
        scalar => go::display(scalar),
    }
}

/// A path as messages print it: `.spec.containers[name="web"].image`.
#[must_use]
pub fn print_path(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(left), Self::Field(right)) => left.cmp(right),
            (Self::Key(left), Self::Key(right)) => {
                let pairs = left.iter().zip(right);
                let mut orders = pairs.map(|((a, x), (b, y))| a.cmp(b).then_with(|| compare(x, y)));
                orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
            }
            (Self::Value(left), Self::Value(right)) => compare(left, right),
            (Self::Index(left), Self::Index(right)) => left.cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PathElement {}

/// Whether two values are the same to their owners. Numbers are, however they are written: `1` and `1.0`.
#[must_use]
pub fn equal(left: &Value, right: &Value) -> bool {
    compare(left, right) == Ordering::Equal
}

/// An order of all values: numbers, text, booleans, lists, maps, null.
fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let mut orders = left.iter().zip(right).map(|(x, y)| compare(x, y));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => {
            let mut orders = left.iter().zip(right).map(|((a, x), (b, y))| a.cmp(b).then_with(|| compare(x, y)));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return left.cmp(&right);
    }
    // JSON has no number that isn't comparable.
    left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(Ordering::Equal)
}
