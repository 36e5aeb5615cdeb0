//! Values while an expression is evaluated. What comes from an object is borrowed from it and read as it is asked for.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;

use k3sd_objects::quantity::Quantity;
use k3sd_objects::schema::{Kind, SchemaRef};
use serde_json::{Map as JsonMap, Value as Json};

use crate::error::EvalError;
use crate::time;
use crate::types::{Opaque, Pattern};
use crate::url::Url;
use crate::version::Version;

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'v>),
    Bytes(Rc<[u8]>),
    Timestamp(time::Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(List<'v>),
    Map(Map<'v>),
    Optional(Option<Rc<Value<'v>>>),
    Type(&'static str),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Url(Rc<Url>),
    Semver(Rc<Version>),
    Format(&'static str),
}

/// Text, of the object or made.
#[derive(Clone, Debug)]
pub(crate) enum Text<'v> {
    Borrowed(&'v str),
    Made(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

/// A list, of the object or made.
#[derive(Clone, Debug)]
pub(crate) enum List<'v> {
    Borrowed(&'v [Json], Option<SchemaRef<'v>>),
    Made(Rc<Vec<Value<'v>>>),
}

/// A map or structure, of the object or made.
#[derive(Clone, Debug)]
pub(crate) enum Map<'v> {
    Borrowed(&'v JsonMap<String, Json>, Option<SchemaRef<'v>>),
    Made(Rc<BTreeMap<Key, Value<'v>>>),
}

/// The key of a map. Whole numbers are the same key however they are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Bool(bool),
    Number(i128),
    Text(Rc<str>),
}

impl<'v> Value<'v> {
    pub(crate) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(Text::Made(text.into()))
    }

    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(List::Made(Rc::new(items)))
    }

    pub(crate) fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// A part of an object, by what its schema says of it. What isn't written as its format asks has no value; the
    /// schema's validation says so elsewhere.
    pub(crate) fn read(json: &'v Json, schema: Option<SchemaRef<'v>>) -> Result<Self, EvalError> {
        let kind = schema.map_or(Kind::Any, SchemaRef::kind);
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (kind, number.as_i64()) {
                (Kind::Number, _) | (_, None) => Self::Double(number.as_f64().unwrap_or_default()),
                (_, Some(whole)) => Self::Int(whole),
            },
            Json::String(text) => {
                let format = schema.and_then(SchemaRef::rules).and_then(|rules| rules.format.as_deref());
                match (kind, format.unwrap_or_default()) {
                    (Kind::String, "date" | "date-time") | (Kind::Time | Kind::MicroTime, _) => {
                        let wrong = || EvalError::other(format!("failed to parse value: {text:?} as time"));
                        Self::Timestamp(time::parse_any(text).ok_or_else(wrong)?)
                    }
                    (Kind::String, "duration") => {
                        let wrong = || EvalError::other(format!("failed to parse value: {text:?} as duration"));
                        Self::Duration(time::parse_duration(text).ok_or_else(wrong)?)
                    }
                    (Kind::String, "byte") | (Kind::Bytes, _) => {
                        use base64::Engine as _;
                        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                        let bytes = bytes.map_err(|_| EvalError::other("failed to decode base64"))?;
                        Self::Bytes(bytes.into())
                    }
                    _ => Self::Text(Text::Borrowed(text)),
                }
            }
            Json::Array(items) => Self::List(List::Borrowed(items, schema)),
            Json::Object(map) => Self::Map(Map::Borrowed(map, schema)),
        })
    }

    /// The name of its type, as `type(x)` has it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => Opaque::Quantity.name(),
            Self::Ip(_) => Opaque::Ip.name(),
            Self::Cidr(..) => Opaque::Cidr.name(),
            Self::Url(_) => Opaque::Url.name(),
            Self::Semver(_) => Opaque::Semver.name(),
            Self::Format(_) => Opaque::Format.name(),
        }
    }

    /// Its size, for prices: bytes, items or entries, and one for what has none.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(inner)) => return inner.size(),
            _ => 1,
        };
        size as u64
    }

    /// Whether a function takes it there.
    pub(crate) fn fits(&self, pattern: Pattern) -> bool {
        match (pattern, self) {
            (Pattern::Dyn | Pattern::A | Pattern::B, _) => true,
            (Pattern::Bool, Self::Bool(_))
            | (Pattern::Int, Self::Int(_))
            | (Pattern::Uint, Self::Uint(_))
            | (Pattern::Double, Self::Double(_))
            | (Pattern::Text, Self::Text(_))
            | (Pattern::Bytes, Self::Bytes(_))
            | (Pattern::Timestamp, Self::Timestamp(_))
            | (Pattern::Duration, Self::Duration(_))
            | (Pattern::List(_), Self::List(_))
            | (Pattern::Map(..), Self::Map(_))
            | (Pattern::Optional(_), Self::Optional(_))
            | (Pattern::Type, Self::Type(_)) => true,
            (Pattern::Opaque(opaque), _) => self.type_name() == opaque.name(),
            _ => false,
        }
    }

    pub(crate) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(value) => Key::Number((*value).into()),
            Self::Uint(value) => Key::Number((*value).into()),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "it has no fraction, and 128 bits hold what is in range"
            )]
            Self::Double(value) if value.fract() == 0.0 && value.abs() < 1e19 => Key::Number(*value as i128),
            Self::Text(text) => Key::Text(Rc::from(&**text)),
            _ => return None,
        })
    }

    /// Whether it is the same as another value. `steps` counts what was compared.
    pub(crate) fn equals(&self, other: &Self, steps: &mut u64) -> bool {
        *steps += 1;
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => {
                *steps += (a.len().min(b.len()) / 10) as u64;
                **a == **b
            }
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Type(a), Self::Type(b)) | (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, n), Self::Cidr(b, m)) => (a, n) == (b, m),
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b, steps),
                (None, None) => true,
                _ => false,
            },
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len()
                    && (0..a.len()).all(|index| match (a.get(index), b.get(index)) {
                        (Some(Ok(a)), Some(Ok(b))) => a.equals(&b, steps),
                        _ => false,
                    })
            }
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len()
                    && a.keys().iter().all(|key| match (a.get(key), b.get(key)) {
                        (Ok(Some(a)), Ok(Some(b))) => a.equals(&b, steps),
                        _ => false,
                    })
            }
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// The order of two values that have one. Numbers of different types compare as numbers.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Quantity(a), Self::Quantity(b)) => Some(a.cmp(b)),
            (Self::Semver(a), Self::Semver(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), whole) => whole.whole().and_then(|whole| compare_mixed(whole, *a)).map(Ordering::reverse),
            (whole, Self::Double(b)) => whole.whole().and_then(|whole| compare_mixed(whole, *b)),
            _ => Some(self.whole()?.cmp(&other.whole()?)),
        }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some((*value).into()),
            Self::Uint(value) => Some((*value).into()),
            _ => None,
        }
    }
}

/// A whole number against another number.
fn compare_mixed(whole: i128, other: f64) -> Option<Ordering> {
    if other.is_nan() {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast saturates, and both ends are beyond any whole number here"
    )]
    let floor = other.floor() as i128;
    Some(whole.cmp(&floor).then(if other.fract() == 0.0 { Ordering::Equal } else { Ordering::Less }))
}

impl<'v> List<'v> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Borrowed(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Result<Value<'v>, EvalError>> {
        match self {
            Self::Borrowed(items, schema) => {
                let item = items.get(index)?;
                Some(Value::read(item, schema.and_then(SchemaRef::item)))
            }
            Self::Made(items) => items.get(index).cloned().map(Ok),
        }
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = Result<Value<'v>, EvalError>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// All items at once.
    pub(crate) fn all(&self) -> Result<Vec<Value<'v>>, EvalError> {
        self.items().collect()
    }
}

impl<'v> Map<'v> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Borrowed(map, _) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    /// The value under a key of a map. The fields of a structure have their own way, [`field`](Self::field).
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value<'v>>, EvalError> {
        match (self, key) {
            (Self::Borrowed(map, schema), Key::Text(name)) => {
                let below = schema.and_then(|schema| schema.field(name));
                map.get(&**name).map(|json| Value::read(json, below)).transpose()
            }
            (Self::Borrowed(..), _) => Ok(None),
            (Self::Made(map), key) => Ok(map.get(key).cloned()),
        }
    }

    /// The value of a field, whose name is escaped as expressions need it if this is a structure.
    pub(crate) fn field(&self, name: &str) -> Result<Option<Value<'v>>, EvalError> {
        let structure = matches!(self, Self::Borrowed(_, Some(schema)) if schema.kind() == Kind::Object);
        let name = if structure { crate::names::unescape(name).into() } else { Rc::from(name) };
        self.get(&Key::Text(name))
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        match self {
            Self::Borrowed(map, _) => map.keys().map(|key| Key::Text(Rc::from(key.as_str()))).collect(),
            Self::Made(map) => map.keys().cloned().collect(),
        }
    }
}

impl Key {
    pub(crate) fn value<'v>(&self) -> Value<'v> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => match i64::try_from(*number) {
                Ok(number) => Value::Int(number),
                Err(_) => Value::Uint(u64::try_from(*number).unwrap_or(u64::MAX)),
            },
            Self::Text(text) => Value::Text(Text::Made(text.clone())),
        }
    }
}
