//! What server-side apply has to know of a place: structure, list or scalar, and who may own what of it.

use serde_json::Value;

use super::element::PathElement;
use crate::schema::{Kind, ListType, MapType, SchemaRef};
use crate::status::go;

/// The type of a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Type<'a> {
    /// A schema describes it.
    Known(SchemaRef<'a>),
    /// No schema does, so the value decides: maps have an owner per key, lists one as a whole.
    Deduced,
}

/// How a value is walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Field by field.
    Map,
    /// Item by item.
    List,
    /// A map or list that has one owner as a whole.
    AtomicMap,
    /// See [`AtomicMap`](Self::AtomicMap).
    AtomicList,
    /// Text, number or boolean.
    Scalar,
}

impl<'a> Type<'a> {
    /// The type that a schema gives.
    pub(super) fn of(schema: SchemaRef<'a>) -> Self {
        match schema.kind() {
            Kind::Any
            | Kind::RawExtension
            | Kind::Fields
            | Kind::Json
            | Kind::SchemaOrArray
            | Kind::SchemaOrBool
            | Kind::SchemaOrStrings => Self::Deduced,
            _ => Self::Known(schema),
        }
    }

    /// How a value of it is walked through.
    pub(super) fn shape(self, value: &Value) -> Shape {
        let Self::Known(schema) = self else {
            return match value {
                Value::Object(_) | Value::Null => Shape::Map,
                Value::Array(_) => Shape::AtomicList,
                _ => Shape::Scalar,
            };
        };
        match schema.kind() {
            Kind::Object | Kind::Map => match schema.map_type() {
                MapType::Granular => Shape::Map,
                MapType::Atomic => Shape::AtomicMap,
            },
            Kind::Array => match schema.list_type() {
                ListType::Atomic => Shape::AtomicList,
                ListType::Set | ListType::Map => Shape::List,
            },
            _ => Shape::Scalar,
        }
    }

    /// The kind of a known scalar.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Known(schema) => Some(schema.kind()),
            Self::Deduced => None,
        }
    }

    /// The type of a field, or `None` if there is no such field.
    pub(super) fn declared_field(self, name: &str) -> Option<Self> {
        match self {
            Self::Deduced => Some(Self::Deduced),
            Self::Known(schema) => match schema.field(name) {
                Some(field) => Some(Self::of(field)),
                None => schema.preserves_unknown().then_some(Self::Deduced),
            },
        }
    }

    /// The type of a field. One that shouldn't be there is what it looks like.
    pub(super) fn field(self, name: &str) -> Self {
        self.declared_field(name).unwrap_or(Self::Deduced)
    }

    /// Whether the field is one that the schema names, not just a key of a map.
    pub(super) fn names_field(self, name: &str) -> bool {
        matches!(self, Self::Known(schema) if schema.property(name).is_some())
    }

    /// The type of a list's items.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Known(schema) => schema.item().map_or(Self::Deduced, Self::of),
            Self::Deduced => Self::Deduced,
        }
    }

    /// The type behind a step.
    pub(super) fn step(self, element: &PathElement) -> Self {
        match element {
            PathElement::Field(name) => self.field(name),
            _ => self.item(),
        }
    }

    /// What tells an item of a list apart.
    ///
    /// # Errors
    ///
    /// Fails, in upstream's words, for an item that nothing tells apart.
    pub(super) fn element(self, item: &Value) -> Result<PathElement, String> {
        let Self::Known(schema) = self else { return Err("invalid indexing of non-associative list".to_owned()) };
        match schema.list_type() {
            ListType::Atomic => Err("invalid indexing of non-associative list".to_owned()),
            ListType::Set => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(PathElement::Value(scalar.clone())),
            },
            ListType::Map => key_element(schema, item),
        }
    }
}

fn key_element(schema: SchemaRef<'_>, item: &Value) -> Result<PathElement, String> {
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut keys = Vec::new();
    for name in schema.list_keys() {
        let default = || schema.item()?.property(name)?.schema.default();
        match fields.get(name).or_else(default) {
            Some(value) => keys.push((name.to_owned(), value.clone())),
            None => {
                let name = go::quote(name);
                return Err(format!(
                    "associative list with keys has an element that omits key field {name} (and doesn't have default \
                     value)"
                ));
            }
        }
    }
    Ok(PathElement::key(keys))
}
