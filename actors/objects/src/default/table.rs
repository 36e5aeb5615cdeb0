//! The rows of `data/defaults.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::decode::normalize;
use crate::default::is_absent;
use crate::schema::{Presence, SchemaRef};

/// When a row applies.
#[derive(Debug)]
pub(super) enum Condition {
    Always,
    Given(&'static str),
    Absent(&'static str),
    OneOf(&'static str, Vec<&'static str>),
}

/// One row, without its type.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) field: &'static str,
    pub(super) value: Value,
    pub(super) condition: Condition,
}

/// All rows by type; a constant in effect, read on first use.
pub(super) static ROWS: LazyLock<HashMap<&'static str, Vec<Row>>> = LazyLock::new(|| {
    let mut rows: HashMap<&str, Vec<Row>> = HashMap::new();
    let lines = include_str!("../../data/defaults.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (of, row) = read(line).expect("a test reads all rows");
        rows.entry(of).or_default().push(row);
    }
    rows
});

fn read(line: &'static str) -> Option<(&'static str, Row)> {
    let (of, rest) = line.split_once(' ')?;
    let (field, rest) = rest.split_once(' ')?;
    let (value, condition) = rest.split_once(" if ").unwrap_or((rest, ""));
    let condition = match (condition.strip_prefix('!'), condition.split_once('=')) {
        _ if condition.is_empty() => Condition::Always,
        (Some(field), _) => Condition::Absent(field),
        (_, Some((field, values))) => Condition::OneOf(field, values.split('|').collect()),
        _ => Condition::Given(condition),
    };
    Some((of, Row { field, value: serde_json::from_str(value).ok()?, condition }))
}

/// Applies the rows of a type to one structure. What they bring is in upstream's form, like the rest.
pub(super) fn apply(rows: &[Row], map: &mut Map<String, Value>, schema: SchemaRef<'_>) {
    for row in rows {
        let Some(property) = schema.property(row.field) else { continue };
        if is_absent(map.get(row.field), property.presence) && row.condition.holds(map, schema) {
            let mut value = row.value.clone();
            normalize(&mut value, property.schema);
            map.insert(row.field.to_owned(), value);
        }
    }
}

impl Condition {
    fn holds(&self, map: &Map<String, Value>, schema: SchemaRef<'_>) -> bool {
        let absent = |field: &str| {
            let presence = schema.property(field).map_or(Presence::Given, |property| property.presence);
            is_absent(map.get(field), presence)
        };
        match self {
            Self::Always => true,
            Self::Given(field) => !absent(field),
            Self::Absent(field) => absent(field),
            Self::OneOf(field, values) => {
                map.get(*field).and_then(Value::as_str).is_some_and(|value| values.contains(&value))
            }
        }
    }
}
