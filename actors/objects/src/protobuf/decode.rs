//! Protobuf to JSON values.

use serde_json::{Map, Value};

use crate::decode::time::Moment;
use crate::decode::{DEPTH_MAX, DecodeError, base64, json, normalize};
use crate::protobuf::wire::{Fields, Raw, wrong};
use crate::protobuf::{MAGIC, tag};
use crate::quantity::Quantity;
use crate::schema::node::Wire;
use crate::schema::{Kind, SchemaRef, kind_schema};

/// What stands around an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope<'a> {
    /// What the object would write in `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its message.
    pub raw: &'a [u8],
    /// The media type of `raw` when it is no protobuf.
    pub content_type: String,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of a body.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let Some(body) = body.strip_prefix(MAGIC) else {
            let message = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
            return Err(DecodeError::Protobuf(message.to_owned()));
        };
        let mut envelope = Self::default();
        let mut fields = Fields(body);
        while let Some((number, raw)) = fields.next()? {
            match number {
                tag::UNKNOWN_TYPE => envelope.read_type(bytes(raw)?)?,
                tag::UNKNOWN_RAW => envelope.raw = bytes(raw)?,
                tag::UNKNOWN_CONTENT_TYPE => envelope.content_type = text(raw)?,
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let mut fields = Fields(message);
        while let Some((number, raw)) = fields.next()? {
            match number {
                tag::TYPE_API_VERSION => self.api_version = text(raw)?,
                tag::TYPE_KIND => self.kind = text(raw)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads a body of a built-in kind that it names itself. Gives the object in upstream's form.
pub fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    decode_within(body, 0)
}

fn decode_within(body: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let envelope = Envelope::read(body)?;
    let Some(schema) = kind_schema(&envelope.api_version, &envelope.kind) else {
        let message = format!("no kind {:?} is registered for version {:?}", envelope.kind, envelope.api_version);
        return Err(DecodeError::Protobuf(message));
    };
    let mut value = message(envelope.raw, schema, depth)?;
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".to_owned(), Value::String(envelope.api_version));
        map.insert("kind".to_owned(), Value::String(envelope.kind));
    }
    normalize(&mut value, schema);
    Ok(value)
}

/// Reads the message of an object whose schema is known, such as `raw` of an [`Envelope`]. The object has no
/// `apiVersion` and no `kind` then.
pub fn decode_message(raw: &[u8], schema: SchemaRef<'_>) -> Result<Value, DecodeError> {
    let mut value = message(raw, schema, 0)?;
    normalize(&mut value, schema);
    Ok(value)
}

fn message(raw: &[u8], schema: SchemaRef<'_>, depth: usize) -> Result<Value, DecodeError> {
    let Some(message) = schema.message() else {
        return Err(wrong("this kind has no message"));
    };
    let mut map = Map::new();
    read_fields(raw, schema, message, &mut map, depth)?;
    Ok(Value::Object(map))
}

fn read_fields(
    raw: &[u8],
    schema: SchemaRef<'_>,
    message: u32,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    let known = schema.message_fields(message);
    let mut fields = Fields(raw);
    while let Some((number, raw)) = fields.next()? {
        let found = known.binary_search_by_key(&number, |field| u32::from(field.tag));
        // Fields of a later version are skipped.
        let Ok(found) = found else { continue };
        let field = known[found];
        if field.wire == Wire::Inline {
            read_fields(bytes(raw)?, schema, field.target, map, depth + 1)?;
            continue;
        }
        let property = schema.property_number(field.target);
        let slot = map.entry(property.name).or_insert(Value::Null);
        if field.wire == Wire::Wrapped {
            *slot = wrapped(bytes(raw)?, property.schema, depth + 1)?;
        } else {
            read_into(slot, raw, property.schema, depth + 1)?;
        }
    }
    Ok(())
}

/// A list within a message of its own.
fn wrapped(raw: &[u8], schema: SchemaRef<'_>, depth: usize) -> Result<Value, DecodeError> {
    let mut list = Value::Array(Vec::new());
    let mut fields = Fields(raw);
    while let Some((number, raw)) = fields.next()? {
        if number == tag::ONLY {
            read_into(&mut list, raw, schema, depth)?;
        }
    }
    Ok(list)
}

/// Reads one occurrence of a field: lists and maps grow, everything else is replaced.
fn read_into(slot: &mut Value, raw: Raw<'_>, schema: SchemaRef<'_>, depth: usize) -> Result<(), DecodeError> {
    match schema.kind() {
        Kind::Array => {
            if !slot.is_array() {
                *slot = Value::Array(Vec::new());
            }
            let (Value::Array(items), Some(item)) = (slot, schema.item()) else { return Ok(()) };
            if let (Raw::Bytes(packed), Kind::Int32 | Kind::Int64 | Kind::Bool) = (raw, item.kind()) {
                let mut packed = Fields(packed);
                while !packed.0.is_empty() {
                    items.push(value(Raw::Varint(packed.varint()?), item, depth)?);
                }
            } else {
                items.push(value(raw, item, depth)?);
            }
        }
        Kind::Map => {
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            let (Value::Object(map), Some(values)) = (slot, schema.values()) else { return Ok(()) };
            let (key, value) = entry(bytes(raw)?, values, depth)?;
            map.insert(key, value);
        }
        _ => *slot = value(raw, schema, depth)?,
    }
    Ok(())
}

fn entry(raw: &[u8], schema: SchemaRef<'_>, depth: usize) -> Result<(String, Value), DecodeError> {
    let (mut key, mut found) = (String::new(), None);
    let mut fields = Fields(raw);
    while let Some((number, raw)) = fields.next()? {
        match number {
            tag::KEY => key = text(raw)?,
            tag::VALUE if schema.kind() == Kind::Array => found = Some(wrapped(bytes(raw)?, schema, depth)?),
            tag::VALUE => found = Some(value(raw, schema, depth)?),
            _ => {}
        }
    }
    // An absent value is the zero value of its kind.
    let found = match (found, schema.kind()) {
        (Some(found), _) => found,
        (None, Kind::String | Kind::Bytes) => Value::from(""),
        (None, Kind::Array) => Value::Array(Vec::new()),
        (None, _) => value(Raw::Bytes(&[]), schema, depth)?,
    };
    Ok((key, found))
}

fn value(raw: Raw<'_>, schema: SchemaRef<'_>, depth: usize) -> Result<Value, DecodeError> {
    Ok(match schema.kind() {
        Kind::String => Value::String(text(raw)?),
        Kind::Bytes => Value::String(base64::encode(bytes(raw)?)),
        Kind::Int32 => Value::from(varint(raw)?.cast_signed() as i32),
        Kind::Int64 => Value::from(varint(raw)?.cast_signed()),
        Kind::Bool => Value::from(varint(raw)? != 0),
        Kind::Number => match raw {
            Raw::Fixed64(bits) => Value::from(f64::from_bits(bits)),
            _ => return Err(wrong("wrong wireType")),
        },
        Kind::Time => time(bytes(raw)?, Moment::to_seconds_text)?,
        Kind::MicroTime => time(bytes(raw)?, Moment::to_micros_text)?,
        Kind::Quantity => quantity(bytes(raw)?)?,
        Kind::IntOrString => number_or_text(bytes(raw)?)?,
        Kind::RawExtension | Kind::Fields | Kind::Json => embedded(only(bytes(raw)?)?, depth)?,
        Kind::Any => Value::Object(Map::new()),
        Kind::Object => message(bytes(raw)?, schema, depth)?,
        Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => schema_or(bytes(raw)?, schema, depth)?,
        Kind::Array | Kind::Map => return Err(wrong("wrong wireType")),
    })
}

fn time(raw: &[u8], write: fn(Moment) -> Option<String>) -> Result<Value, DecodeError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Fields(raw);
    while let Some((number, raw)) = fields.next()? {
        match number {
            tag::SECONDS => seconds = varint(raw)?.cast_signed(),
            tag::NANOS => nanos = varint(raw)?,
            _ => {}
        }
    }
    let nanos = u32::try_from(nanos).unwrap_or_default() % 1_000_000_000;
    let moment = Moment { seconds, nanos };
    // The first second of 1970 stands for no time at all, and so does what no text can say.
    if (seconds, nanos) == (0, 0) || moment == Moment::UNSET {
        return Ok(Value::Null);
    }
    Ok(write(moment).map_or(Value::Null, Value::String))
}

fn quantity(raw: &[u8]) -> Result<Value, DecodeError> {
    let text = String::from_utf8_lossy(only(raw)?).into_owned();
    if text.is_empty() {
        return Ok(Value::from("0"));
    }
    let quantity: Quantity = text.parse().map_err(|error| DecodeError::Protobuf(format!("{error}")))?;
    Ok(Value::String(quantity.to_string()))
}

fn number_or_text(raw: &[u8]) -> Result<Value, DecodeError> {
    let (mut form, mut value, mut string) = (0, 0, String::new());
    let mut fields = Fields(raw);
    while let Some((number, raw)) = fields.next()? {
        match number {
            tag::FORM => form = varint(raw)?,
            tag::NUMBER => value = varint(raw)?.cast_signed() as i32,
            tag::TEXT => string = text(raw)?,
            _ => {}
        }
    }
    Ok(if form == 0 { Value::from(value) } else { Value::String(string) })
}

/// A value that is kept as it came: JSON, or an object with an envelope of its own.
fn embedded(raw: &[u8], depth: usize) -> Result<Value, DecodeError> {
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    if raw.starts_with(MAGIC) {
        if depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        return decode_within(raw, depth + 1);
    }
    json(raw, None).map(|decoded| decoded.value)
}

fn schema_or(raw: &[u8], schema: SchemaRef<'_>, depth: usize) -> Result<Value, DecodeError> {
    let Some(nested) = schema.nested_schema() else { return Ok(Value::Null) };
    let bool_first = schema.kind() == Kind::SchemaOrBool;
    let (mut found, mut allows, mut several) = (None, None, Vec::new());
    let mut fields = Fields(raw);
    while let Some((number, raw)) = fields.next()? {
        match number {
            tag::ALLOWS if bool_first => allows = Some(varint(raw)? != 0),
            tag::ALLOWED_SCHEMA if bool_first => found = Some(message(bytes(raw)?, nested, depth + 1)?),
            tag::SCHEMA => found = Some(message(bytes(raw)?, nested, depth + 1)?),
            tag::SEVERAL if schema.kind() == Kind::SchemaOrStrings => several.push(Value::String(text(raw)?)),
            tag::SEVERAL => several.push(message(bytes(raw)?, nested, depth + 1)?),
            _ => {}
        }
    }
    Ok(match (found, schema.kind()) {
        (Some(found), _) => found,
        (None, Kind::SchemaOrBool) => Value::Bool(allows.unwrap_or_default()),
        (None, _) => Value::Array(several),
    })
}

/// The content of a message's one field.
fn only(raw: &[u8]) -> Result<&[u8], DecodeError> {
    let mut content = &[][..];
    let mut fields = Fields(raw);
    while let Some((number, raw)) = fields.next()? {
        if number == tag::ONLY {
            content = bytes(raw)?;
        }
    }
    Ok(content)
}

fn bytes(raw: Raw<'_>) -> Result<&[u8], DecodeError> {
    match raw {
        Raw::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong("wrong wireType")),
    }
}

fn varint(raw: Raw<'_>) -> Result<u64, DecodeError> {
    match raw {
        Raw::Varint(value) => Ok(value),
        _ => Err(wrong("wrong wireType")),
    }
}

fn text(raw: Raw<'_>) -> Result<String, DecodeError> {
    bytes(raw).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
