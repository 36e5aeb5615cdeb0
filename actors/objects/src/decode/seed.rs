//! The walk through a document along its schema. One walk for JSON, YAML and values that are there already.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::decode::error::StrictError;
use crate::decode::time::Moment;
use crate::decode::{DEPTH_MAX, base64};
use crate::quantity::Quantity;
use crate::schema::{Kind, SchemaRef, builtin};

/// Unknown and repeated fields that are named in full; a body of nothing else must not fill the memory twice.
const STRICT_ERRORS_MAX: usize = 100;

/// Upstream's name of the syntax of times.
const TIME_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";

/// What the walk has found so far, and where it is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// `spec.containers[0].image`.
    path: String,
    /// `spec.containers.image`: what Go calls the field.
    fields: String,
    depth: usize,
    pub(super) strict: Vec<StrictError>,
    /// The first value of a wrong kind.
    pub(super) type_error: Option<String>,
    pub(super) too_deep: bool,
}

/// What is expected at one place.
#[derive(Clone, Copy)]
pub(super) struct Place<'s> {
    schema: Option<SchemaRef<'s>>,
    /// The structure whose field this is, through lists and maps.
    owner: Option<SchemaRef<'s>>,
    /// Whether a wrong kind is an error now, as in built-in structures.
    typed: bool,
}

impl<'s> Place<'s> {
    pub(super) fn root(schema: Option<SchemaRef<'s>>) -> Self {
        Self { schema: None, owner: None, typed: false }.below(schema)
    }

    fn below(self, schema: Option<SchemaRef<'s>>) -> Self {
        let typed = schema.is_some_and(|schema| std::ptr::eq(schema.arena(), builtin()));
        Self { schema, typed, ..self }
    }

    fn kind(self) -> Kind {
        self.schema.map_or(Kind::Any, SchemaRef::kind)
    }

    /// What `null` means as an item of a list or map: the zero value in built-in structures.
    fn zero(self) -> Value {
        if !self.typed {
            return Value::Null;
        }
        match self.kind() {
            Kind::String | Kind::Bytes => Value::from(""),
            Kind::Int32 | Kind::Int64 | Kind::Number | Kind::IntOrString => Value::from(0),
            Kind::Bool => Value::from(false),
            Kind::Object | Kind::Map => Value::Object(Map::new()),
            Kind::Array => Value::Array(Vec::new()),
            Kind::Quantity => Value::from("0"),
            _ => Value::Null,
        }
    }
}

impl Walk {
    fn wrong(&mut self, value: impl fmt::Display, place: Place<'_>) -> Value {
        if self.type_error.is_none() {
            let of = place.schema.map_or_else(|| "interface {}".to_owned(), go_type);
            let into = match place.owner {
                Some(owner) => format!("struct field {}.{} of type {of}", go_struct(owner), self.fields),
                None => format!("value of type {of}"),
            };
            self.type_error = Some(format!("json: cannot unmarshal {value} into Go {into}"));
        }
        Value::Null
    }

    /// An error of a value that decodes itself; its words say nothing of the place.
    fn refuse(&mut self, message: String) -> Value {
        self.type_error.get_or_insert(message);
        Value::Null
    }

    fn note(&mut self, error: impl FnOnce(String) -> StrictError, key: &str) {
        if self.strict.len() < STRICT_ERRORS_MAX {
            let dot = if self.path.is_empty() { "" } else { "." };
            let error = error(format!("{}{dot}{key}", self.path));
            if !self.strict.contains(&error) {
                self.strict.push(error);
            }
        }
    }

    /// Goes down one step of the path and back up. `field` is whether Go has a name for the step.
    fn within<T>(&mut self, step: Step<'_>, field: Option<&str>, visit: impl FnOnce(&mut Self) -> T) -> T {
        let (path, fields) = (self.path.len(), self.fields.len());
        // No formatting machinery: this runs for each value of each request.
        match step {
            Step::Key(key) => {
                if path > 0 {
                    self.path.push('.');
                }
                self.path.push_str(key);
            }
            Step::Index(index) => {
                self.path.push('[');
                push_digits(&mut self.path, index);
                self.path.push(']');
            }
        }
        if let Some(field) = field {
            if fields > 0 {
                self.fields.push('.');
            }
            self.fields.push_str(field);
        }
        let result = visit(self);
        self.path.truncate(path);
        self.fields.truncate(fields);
        result
    }
}

/// One step down.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn push_digits(text: &mut String, number: usize) {
    if number >= 10 {
        push_digits(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// Reads one value.
pub(super) struct Seed<'w, 's> {
    pub(super) walk: &'w mut Walk,
    pub(super) place: Place<'s>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        let Self { walk, place } = self;
        Ok(match place.kind() {
            Kind::Bool | Kind::Any | Kind::Json | Kind::SchemaOrBool | Kind::RawExtension => Value::Bool(value),
            _ if !place.typed => Value::Bool(value),
            Kind::IntOrString => walk.refuse("json: cannot unmarshal bool into Go value of type int32".to_owned()),
            Kind::Time | Kind::MicroTime => {
                walk.refuse("json: cannot unmarshal bool into Go value of type string".to_owned())
            }
            Kind::Quantity => walk.refuse(not_a_quantity()),
            _ => walk.wrong("bool", place),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.number(Number::from(value), Some(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        let whole = i64::try_from(value).ok();
        Ok(self.number(Number::from(value), whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        let Some(number) = Number::from_f64(value) else {
            return Ok(self.walk.refuse(format!("json: unsupported value: {value}")));
        };
        Ok(self.number(number, None))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        let Self { walk, place } = self;
        Ok(match place.kind() {
            Kind::String | Kind::IntOrString | Kind::Any | Kind::Json | Kind::RawExtension => Value::String(text),
            _ if !place.typed => Value::String(text),
            Kind::Bytes => match base64::decode(&text) {
                Ok(bytes) => Value::String(base64::encode(&bytes)),
                Err(at) => walk.refuse(format!("illegal base64 data at input byte {at}")),
            },
            Kind::Time => time(walk, &text, Moment::to_seconds_text),
            Kind::MicroTime => time(walk, &text, Moment::to_micros_text),
            Kind::Quantity => quantity(walk, &Value::String(text)),
            _ => walk.wrong("string", place),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let Self { walk, place } = self;
        let below = match place.kind() {
            Kind::Array => place.below(place.schema.and_then(SchemaRef::item)),
            Kind::SchemaOrArray => place.below(place.schema.and_then(SchemaRef::nested_schema)),
            Kind::SchemaOrStrings | Kind::Any | Kind::Json | Kind::RawExtension | Kind::Fields => place.below(None),
            _ if !place.typed => place.below(None),
            _ => {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(walk.wrong("array", place));
            }
        };
        descend(walk)?;
        let mut list = Vec::new();
        loop {
            let step = Step::Index(list.len());
            let item = walk.within(step, None, |walk| items.next_element_seed(Seed { walk, place: below }))?;
            match item {
                None => break,
                Some(Value::Null) => list.push(below.zero()),
                Some(item) => list.push(item),
            }
        }
        walk.depth -= 1;
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Self { walk, place } = self;
        let structure = match place.kind() {
            Kind::Object => place.schema,
            Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
                place.schema.and_then(SchemaRef::nested_schema)
            }
            Kind::Map | Kind::Any | Kind::Json | Kind::RawExtension | Kind::Fields => None,
            _ if !place.typed => None,
            _ => {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(walk.wrong("object", place));
            }
        };
        descend(walk)?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Some((below, field)) = value_of(place, structure, &key) else {
                walk.note(StrictError::Unknown, &key);
                entries.next_value::<IgnoredAny>()?;
                continue;
            };
            if map.contains_key(&key) {
                walk.note(StrictError::Duplicate, &key);
            }
            let step = Step::Key(&key);
            let value = walk.within(step, field, |walk| entries.next_value_seed(Seed { walk, place: below }))?;
            let value = if value.is_null() && field.is_none() { below.zero() } else { value };
            map.insert(key, value);
        }
        // To Go's decoder, null is the same as absence; only now, so that a second field of the name is noticed.
        if let Some(structure) = structure.filter(|structure| std::ptr::eq(structure.arena(), builtin())) {
            map.retain(|key, value| !value.is_null() || structure.property(key).is_none());
        }
        walk.depth -= 1;
        Ok(Value::Object(map))
    }
}

impl Seed<'_, '_> {
    /// A number, and the whole number it is if it fits 64 bits and is written as one.
    fn number(self, number: Number, whole: Option<i64>) -> Value {
        let Self { walk, place } = self;
        match (place.kind(), whole) {
            (Kind::Int64 | Kind::Number, Some(_)) => Value::Number(number),
            (Kind::Int32, Some(whole)) if i32::try_from(whole).is_ok() => Value::Number(number),
            (Kind::IntOrString, Some(whole)) if i32::try_from(whole).is_ok() || !place.typed => Value::Number(number),
            (Kind::Number | Kind::Any | Kind::Json | Kind::RawExtension | Kind::Fields, _) => shortest(number, whole),
            _ if !place.typed => shortest(number, whole),
            (Kind::Int32 | Kind::Int64, _) => walk.wrong(format_args!("number {number}"), place),
            (Kind::IntOrString, _) => {
                walk.refuse(format!("json: cannot unmarshal number {number} into Go value of type int32"))
            }
            (Kind::Quantity, _) => quantity(walk, &Value::Number(number)),
            (Kind::Time | Kind::MicroTime, _) => {
                walk.refuse("json: cannot unmarshal number into Go value of type string".to_owned())
            }
            _ => walk.wrong("number", place),
        }
    }
}

fn descend<E: serde::de::Error>(walk: &mut Walk) -> Result<(), E> {
    walk.depth += 1;
    if walk.depth > DEPTH_MAX {
        walk.too_deep = true;
        return Err(E::custom("exceeded max depth"));
    }
    Ok(())
}

/// What is expected under a key, and the name that Go has for the field. Nothing when the key is unknown.
fn value_of<'s, 'k>(
    place: Place<'s>,
    structure: Option<SchemaRef<'s>>,
    key: &'k str,
) -> Option<(Place<'s>, Option<&'k str>)> {
    let Some(structure) = structure else {
        return Some((place.below(place.schema.and_then(SchemaRef::values)), None));
    };
    match structure.property(key) {
        Some(property) => Some((Place { owner: Some(structure), ..place }.below(Some(property.schema)), Some(key))),
        None if structure.preserves_unknown() => Some((place.below(None), None)),
        None => None,
    }
}

/// A number as Go writes it: without a fraction when there is none.
fn shortest(number: Number, whole: Option<i64>) -> Value {
    /// Below this, every float without a fraction is a whole number that 64 bits hold.
    const WHOLE_MAX: f64 = 9.0e18;
    let float = number.as_f64().filter(|float| whole.is_none() && float.fract() == 0.0 && float.abs() < WHOLE_MAX);
    #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is in range")]
    float.map_or(Value::Number(number), |float| Value::from(float as i64))
}

fn time(walk: &mut Walk, text: &str, write: fn(Moment) -> Option<String>) -> Value {
    let moment = Moment::parse(text);
    if moment == Some(Moment::UNSET) {
        return Value::Null;
    }
    match moment.and_then(write) {
        Some(canonical) => Value::String(canonical),
        None => walk.refuse(format!("parsing time {text:?} as {TIME_LAYOUT:?}: cannot parse {text:?} as \"2006\"")),
    }
}

fn quantity(walk: &mut Walk, value: &Value) -> Value {
    match Quantity::from_json(value) {
        Ok(quantity) => Value::String(quantity.to_string()),
        Err(error) => walk.refuse(error.to_string()),
    }
}

fn not_a_quantity() -> String {
    match "?".parse::<Quantity>() {
        Err(error) => error.to_string(),
        Ok(_) => String::new(),
    }
}

/// The structure's name without its package.
fn go_struct(structure: SchemaRef<'_>) -> &str {
    let name = structure.type_name().unwrap_or_default();
    name.rsplit('.').next().unwrap_or_default()
}

/// What Go calls the type of a value.
fn go_type(schema: SchemaRef<'_>) -> String {
    match schema.kind() {
        Kind::String => "string".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Number => "float64".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Bytes => "[]uint8".to_owned(),
        Kind::Quantity => "resource.Quantity".to_owned(),
        Kind::Array => format!("[]{}", schema.item().map_or_else(String::new, go_type)),
        Kind::Map => format!("map[string]{}", schema.values().map_or_else(String::new, go_type)),
        Kind::Object => {
            // Package and version are one word there: `v1.PodSpec`.
            let name = schema.type_name().unwrap_or_default();
            name.split_once('.').map_or(name, |(_, rest)| rest).to_owned()
        }
        Kind::Time | Kind::MicroTime => "v1.Time".to_owned(),
        Kind::IntOrString => "intstr.IntOrString".to_owned(),
        Kind::Fields => "v1.FieldsV1".to_owned(),
        Kind::RawExtension | Kind::Any => "runtime.RawExtension".to_owned(),
        Kind::Json => "v1.JSON".to_owned(),
        Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => "v1.JSONSchemaProps".to_owned(),
    }
}

/// Depth is an error of ours, whatever the reader makes of it.
pub(super) fn is_depth(message: &str) -> bool {
    message.contains("recursion limit exceeded") || message.contains("exceeded max depth")
}
