//! One object as its reader wants it.
//!
//! Stored bytes are sent as they are unless something else is asked for; only then are they parsed.

use std::borrow::Cow;

use bytes::Bytes;
use k3sd_apiserver_store::{Resource, Schema, to_version};
use k3sd_objects::decode::{to_bytes, to_yaml};
use k3sd_objects::object::{Object, members};
use k3sd_objects::schema::{SchemaRef, builtin, kind_schema};
use k3sd_objects::status::Status;
use k3sd_objects::{default, protobuf};
use serde_json::{Value, json};

use crate::negotiate::{Format, Media, Shape};
use crate::pretty::indent;
use crate::table;

/// The group and version of tables and of objects without their insides.
pub(crate) const META: &str = "meta.k8s.io/v1";

/// What of an object is known.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// As it lies in the store, in the version that is stored.
    Stored(&'a Object),
    /// As a tree, in the version of the request; of another kind than its resource's when a subresource speaks one.
    Value(&'a Value),
}

/// Writes an object. `now` is in seconds since 1970, for the ages in tables.
///
/// Fails with 406 when the object's kind has no protobuf message, and with 500 when it can't be brought into the version
/// of `resource`.
pub fn object(format: Format, resource: &Resource, content: Content<'_>, now: i64) -> Result<Bytes, Status> {
    match shaped(format, resource, content, true, now)? {
        Shaped::Value(value) => document(format, &value),
        Shaped::Json(json) => match format.media {
            Media::Json if format.pretty => Ok(Bytes::from(indent(&json))),
            Media::Json => Ok(Bytes::from([&*json, b"\n"].concat())),
            Media::Yaml | Media::Protobuf => document(format, &parse(&json)?),
        },
    }
}

/// Writes an error, or whatever else a `Status` says.
#[must_use]
pub fn status(format: Format, status: &Status) -> Bytes {
    match format.media {
        // Its fields in upstream's order, which is easier to read.
        Media::Json if format.pretty => Bytes::from(indent(&status.to_bytes())),
        Media::Json => Bytes::from([&*status.to_bytes(), b"\n"].concat()),
        _ => document(format, &status.to_value()).unwrap_or_else(|_| Bytes::from(status.to_bytes())),
    }
}

/// Writes a document that is no object of a resource, such as a list of groups: never a table.
///
/// Fails with 406 when its kind has no protobuf message.
pub fn document(format: Format, value: &Value) -> Result<Bytes, Status> {
    let out = match format.media {
        Media::Json if format.pretty => indent(&to_bytes(value)),
        Media::Json => {
            let mut json = to_bytes(value);
            json.push(b'\n');
            json
        }
        Media::Yaml => to_yaml(value).into_bytes(),
        Media::Protobuf => to_protobuf(value)?,
    };
    Ok(Bytes::from(out))
}

/// An object in the wanted shape and version: what is left are the letters.
pub(crate) enum Shaped<'a> {
    Json(Cow<'a, [u8]>),
    Value(Cow<'a, Value>),
}

impl Shaped<'_> {
    /// Its JSON.
    pub(crate) fn json(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Json(json) => Cow::Borrowed(json),
            Self::Value(value) => Cow::Owned(to_bytes(value)),
        }
    }
}

/// Makes of an object what `format` wants. A tree comes back if protobuf is to be written, else whatever was cheaper.
/// `columns` says whether a table names its columns.
pub(crate) fn shaped<'a>(
    format: Format,
    resource: &Resource,
    content: Content<'a>,
    columns: bool,
    now: i64,
) -> Result<Shaped<'a>, Status> {
    let tree = format.media == Media::Protobuf;
    match (format.shape, content) {
        (_, Content::Value(value)) if value["kind"] == "Status" => Ok(Shaped::Value(Cow::Borrowed(value))),
        (Shape::Whole, Content::Value(value)) => Ok(Shaped::Value(Cow::Borrowed(value))),
        (Shape::Whole, Content::Stored(object)) if !is_rewritten(resource) && !tree => {
            Ok(Shaped::Json(Cow::Borrowed(object.bytes())))
        }
        (Shape::Whole, Content::Stored(object)) => Ok(Shaped::Value(Cow::Owned(in_version(object, resource)?))),
        (Shape::Metadata, content) if tree => {
            let metadata = match content {
                Content::Value(value) => value["metadata"].clone(),
                Content::Stored(object) => parse(metadata_of(object))?,
            };
            let value = json!({ "kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata });
            Ok(Shaped::Value(Cow::Owned(value)))
        }
        (Shape::Metadata, content) => Ok(Shaped::Json(Cow::Owned(metadata_json(content)))),
        (Shape::Table(include), content) => {
            table::single(include, resource, content, columns, now).map(|json| Shaped::Json(Cow::Owned(json)))
        }
    }
}

/// `PartialObjectMetadata` of an object, in JSON.
pub(crate) fn metadata_json(content: Content<'_>) -> Vec<u8> {
    const HEAD: &[u8] = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#;
    let of_tree;
    let metadata = match content {
        Content::Stored(object) => metadata_of(object),
        Content::Value(value) => {
            of_tree = to_bytes(value.get("metadata").unwrap_or(&json!({})));
            &of_tree
        }
    };
    [HEAD, metadata, b"}"].concat()
}

/// The JSON of an object's metadata, found without parsing.
fn metadata_of(object: &Object) -> &[u8] {
    let found = members(object.bytes(), ["metadata"]).ok().and_then(|[metadata]| metadata);
    found.map_or(b"{}", |metadata| &object.bytes()[metadata.value])
}

/// Whether stored bytes are not what readers of a resource get: they read another version, or the schema of a custom
/// resource has defaults, which an older object may lack.
pub(crate) fn is_rewritten(resource: &Resource) -> bool {
    match &resource.schema {
        Schema::Custom(arena) => !resource.is_storage_version() || arena.has_defaults(),
        Schema::Builtin(_) => !resource.is_storage_version(),
    }
}

/// A stored object in the version of a resource.
pub fn in_version(object: &Object, resource: &Resource) -> Result<Value, Status> {
    let (schema, is_custom) = (resource.schema.get(), matches!(resource.schema, Schema::Custom(_)));
    let mut value =
        to_version(object.value(), &resource.api_version, schema, is_custom).map_err(Status::internal_error)?;
    // A definition may have got defaults since the object was written.
    if is_custom {
        default::apply(&mut value, schema);
    }
    Ok(value)
}

/// A tree with its envelope.
pub(crate) fn to_protobuf(value: &Value) -> Result<Vec<u8>, Status> {
    // Documents of discovery are no objects, but have messages like them.
    let of_discovery = || {
        let kind = value["kind"].as_str()?;
        let schema = builtin().type_named(&format!("meta.v1.{kind}"))?;
        Some(protobuf::envelope("v1", kind, &protobuf::encode_message(value, schema)?))
    };
    protobuf::encode(value)
        .or_else(of_discovery)
        .ok_or_else(|| Status::not_acceptable(&[Media::Json.as_str(), Media::Yaml.as_str()]))
}

/// The schema of an object of a resource, or of what its subresource speaks.
pub(crate) fn schema_of<'a>(value: &Value, resource: &'a Resource) -> Option<SchemaRef<'a>> {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    if text("kind") == &*resource.kind && text("apiVersion") == &*resource.api_version {
        return Some(resource.schema.get());
    }
    kind_schema(text("apiVersion"), text("kind"))
}

/// Our own JSON, or the store's.
pub(crate) fn parse(json: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(json).map_err(|error| Status::internal_error(format!("stored object: {error}")))
}
