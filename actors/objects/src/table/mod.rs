//! The columns that people see of each kind, and the cells of an object.
//!
//! The server makes them, so that a client shows kinds that it does not know. Most cells are rows of `data/columns.txt`;
//! what needs thought is code. The time is an argument.

mod cells;
mod custom;
mod definitions;
mod durations;
mod kinds;
mod network;
mod path;
mod pods;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use crate::convert::convert;
use crate::decode::time::Moment;
use crate::schema::SchemaRef;

pub use self::custom::{CustomColumn, custom_cells, custom_columns};
pub use self::definitions::Column;
pub use self::durations::human_duration;
pub use self::path::{JsonPath, PathError};

/// The columns of a kind, in order. The wide ones are among them; clients leave them out.
pub fn columns(schema: Option<SchemaRef<'_>>) -> &'static [Column] {
    definitions::of(schema.and_then(SchemaRef::type_name))
}

/// The cells of an object, one per column. `now` is in seconds since 1970.
pub fn cells(object: &Value, schema: Option<SchemaRef<'_>>, now: i64) -> Vec<Value> {
    let name = schema.and_then(SchemaRef::type_name);
    let columns = definitions::of(name);
    // The older version of an autoscaler hides its metrics in annotations.
    let newer = match name {
        Some("autoscaling.v1.HorizontalPodAutoscaler") => convert(object.clone(), "autoscaling/v2").ok(),
        _ => None,
    };
    let object = newer.as_ref().unwrap_or(object);
    let mut row: Vec<Value> = columns.iter().map(|column| column.cell(object, now)).collect();
    if name == Some("storage.v1.StorageClass") && kinds::is_default_class(object) {
        row[0] = Value::from(format!("{} (default)", cells::str(&row[0])));
    }
    row
}

/// What a row says about its object beside the cells: pods that ended are told apart.
pub fn conditions(object: &Value, schema: Option<SchemaRef<'_>>) -> Option<Value> {
    let pod = schema.and_then(SchemaRef::type_name) == Some("core.v1.Pod");
    let phase = object["status"]["phase"].as_str().filter(|phase| pod && matches!(*phase, "Succeeded" | "Failed"))?;
    let message = if phase == "Succeeded" { "The pod has completed successfully." } else { "The pod failed." };
    Some(json!([{ "type": "Completed", "status": "True", "reason": phase, "message": message }]))
}

/// Seconds since a moment in RFC 3339.
fn seconds_since(time: &Value, now: i64) -> Option<i64> {
    let moment = Moment::parse(time.as_str()?)?;
    Some(now.saturating_sub(moment.seconds))
}

/// Time since a moment, for people.
fn age(time: &Value, now: i64) -> String {
    seconds_since(time, now).map_or_else(|| "<unknown>".to_owned(), human_duration)
}
