//! Tables: what people see of objects, made here so that a client shows kinds that it does not know.

use std::borrow::Cow;
use std::sync::LazyLock;

use k3sd_apiserver_store::Resource;
use k3sd_objects::decode::to_bytes;
use k3sd_objects::status::Status;
use k3sd_objects::table::{self, CustomColumn, custom_cells, custom_columns};
use serde_json::{Value, json};

use crate::negotiate::IncludeObject;
use crate::object::{Content, META, in_version, is_rewritten, metadata_json, schema_of};

/// What comes before the columns and rows of a table.
pub(crate) fn head(metadata: &Value) -> Vec<u8> {
    let mut out = format!(r#"{{"kind":"Table","apiVersion":"{META}","metadata":"#).into_bytes();
    out.extend_from_slice(&to_bytes(metadata));
    out
}

/// A table with one row.
pub(crate) fn single(
    include: IncludeObject,
    resource: &Resource,
    content: Content<'_>,
    columns: bool,
    now: i64,
) -> Result<Vec<u8>, Status> {
    let version = match content {
        Content::Stored(object) => Value::from(object.resource_version().to_string()),
        Content::Value(value) => value["metadata"]["resourceVersion"].clone(),
    };
    let metadata = if version.is_null() { json!({}) } else { json!({ "resourceVersion": version }) };
    let mut out = head(&metadata);
    out.extend_from_slice(br#","columnDefinitions":"#);
    let definitions = if columns { columns_of(resource, content) } else { Value::Null };
    out.extend_from_slice(&to_bytes(&definitions));
    out.extend_from_slice(br#","rows":["#);
    row(include, resource, content, now, &mut out)?;
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// `columnDefinitions` of a resource's tables.
pub(crate) fn columns_of(resource: &Resource, content: Content<'_>) -> Value {
    let schema = match content {
        Content::Stored(_) => {
            if let Some(columns) = custom(resource) {
                return of_custom(&columns);
            }
            Some(stored_schema(resource))
        }
        Content::Value(value) => {
            let own = value["kind"] == *resource.kind;
            if let Some(columns) = custom(resource).filter(|_| own) {
                return of_custom(&columns);
            }
            schema_of(value, resource)
        }
    };
    let row = |column: &table::Column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format, "description": "",
            "priority": column.priority,
        })
    };
    table::columns(schema).iter().map(row).collect()
}

fn of_custom(columns: &[CustomColumn]) -> Value {
    let row = |column: &CustomColumn| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format, "description": column.description,
            "priority": column.priority,
        })
    };
    columns.iter().map(row).collect()
}

/// The columns of custom resources that ask for none.
static STANDARD: LazyLock<Vec<CustomColumn>> =
    LazyLock::new(|| custom_columns(&Value::Null).expect("the paths of the standard columns are well formed"));

/// The columns of a custom resource; none for a built-in one.
fn custom(resource: &Resource) -> Option<Cow<'_, [CustomColumn]>> {
    let own = &resource.custom.as_ref()?.columns;
    Some(match own.first() {
        None => Cow::Borrowed(&**STANDARD),
        Some(first) if first.format == "name" => Cow::Borrowed(&**own),
        // The name comes first, whoever else is there.
        Some(_) => STANDARD.iter().take(1).chain(own).cloned().collect(),
    })
}

/// Built-in cells are read from an object as it is stored, whatever version is asked for: they say the same.
fn stored_schema(resource: &Resource) -> k3sd_objects::schema::SchemaRef<'_> {
    resource.stored.as_ref().map_or_else(|| resource.schema.get(), |stored| stored.schema.get())
}

/// Appends the row of an object.
pub(crate) fn row(
    include: IncludeObject,
    resource: &Resource,
    content: Content<'_>,
    now: i64,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    let parsed;
    let (value, schema) = match content {
        Content::Stored(object) => {
            parsed = object.value();
            (&parsed, Some(stored_schema(resource)))
        }
        Content::Value(value) => (value, schema_of(value, resource)),
    };
    let own = matches!(content, Content::Stored(_)) || value["kind"] == *resource.kind;
    let cells = match custom(resource).filter(|_| own) {
        Some(columns) => custom_cells(value, &columns, now),
        None => table::cells(value, schema, now),
    };
    out.extend_from_slice(br#"{"cells":"#);
    out.extend_from_slice(&to_bytes(&Value::from(cells)));
    if let Some(conditions) = table::conditions(value, schema) {
        out.extend_from_slice(br#","conditions":"#);
        out.extend_from_slice(&to_bytes(&conditions));
    }
    out.extend_from_slice(br#","object":"#);
    match (include, content) {
        (IncludeObject::None, _) => out.extend_from_slice(b"null"),
        (IncludeObject::Metadata, content) => out.extend_from_slice(&metadata_json(content)),
        (IncludeObject::Object, Content::Stored(object)) if is_rewritten(resource) => {
            out.extend_from_slice(&to_bytes(&in_version(object, resource)?));
        }
        (IncludeObject::Object, Content::Stored(object)) => out.extend_from_slice(object.bytes()),
        (IncludeObject::Object, Content::Value(value)) => out.extend_from_slice(&to_bytes(value)),
    }
    out.push(b'}');
    Ok(())
}
