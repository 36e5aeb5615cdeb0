//! The columns that the definition of a custom resource asks for.

use serde_json::Value;

use crate::table::path::{JsonPath, PathError};
use crate::table::{age, cells};

/// One column of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomColumn {
    /// Its heading.
    pub name: String,
    /// The type of its cells: `integer`, `number`, `string`, `boolean` or `date`.
    pub kind: String,
    /// A hint how to print them.
    pub format: String,
    /// What it is for.
    pub description: String,
    /// Zero, or more when only those who ask for it see it.
    pub priority: i32,
    path: JsonPath,
}

/// The columns of a custom resource: its name, then those of `additionalPrinterColumns`, or its age when there are none.
pub fn custom_columns(additional: &Value) -> Result<Vec<CustomColumn>, PathError> {
    let name = column("Name", "string", "name", ".metadata.name")?;
    let mut columns = vec![name];
    for row in cells::items(additional) {
        let text = |field: &str| cells::str(&row[field]).to_owned();
        columns.push(CustomColumn {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: row["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or_default(),
            path: JsonPath::parse(cells::str(&row["jsonPath"]))?,
        });
    }
    if columns.len() == 1 {
        columns.push(column("Age", "date", "", ".metadata.creationTimestamp")?);
    }
    Ok(columns)
}

fn column(name: &str, kind: &str, format: &str, path: &str) -> Result<CustomColumn, PathError> {
    let (name, kind, format) = (name.to_owned(), kind.to_owned(), format.to_owned());
    Ok(CustomColumn { name, kind, format, description: String::new(), priority: 0, path: JsonPath::parse(path)? })
}

/// The cells of a custom resource; one that has no value of the column's type is null.
pub fn custom_cells(object: &Value, columns: &[CustomColumn], now: i64) -> Vec<Value> {
    columns.iter().map(|column| column.cell(object, now)).collect()
}

impl CustomColumn {
    fn cell(&self, object: &Value, now: i64) -> Value {
        let Some(value) = self.path.first(object) else { return Value::Null };
        match (self.kind.as_str(), value) {
            ("string", Value::String(_)) => value.clone(),
            ("string", Value::Null) => Value::Null,
            ("string", other) => Value::String(other.to_string()),
            ("integer", Value::Number(number)) => {
                #[expect(clippy::cast_possible_truncation, reason = "the fraction is what is cut off")]
                let whole = number.as_i64().or_else(|| number.as_f64().map(|float| float as i64));
                whole.map_or(Value::Null, Value::from)
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(_)) => match age(value, now).as_str() {
                "<unknown>" => Value::from("<invalid>"),
                age => Value::from(age),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_values_of_their_columns_type() {
        let columns = custom_columns(&json!([
            { "name": "Spec", "type": "string", "jsonPath": ".spec.cron", "description": "when" },
            { "name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1 },
            { "name": "Ratio", "type": "number", "jsonPath": ".spec.ratio" },
            { "name": "On", "type": "boolean", "jsonPath": ".spec.on" },
            { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" },
            { "name": "Since", "type": "date", "jsonPath": ".status.since" },
            { "name": "Map", "type": "string", "jsonPath": ".spec.map" },
            { "name": "Wrong", "type": "integer", "jsonPath": ".spec.cron" },
            { "name": "Bad", "type": "date", "jsonPath": ".spec.cron" },
        ]))
        .unwrap();
        assert_eq!(
            (columns[1].name.as_str(), columns[1].description.as_str(), columns[2].priority),
            ("Spec", "when", 1)
        );
        let object = json!({ "metadata": { "name": "a" }, "spec": { "cron": "* *", "replicas": 3.7, "ratio": 0.5, "on": true, "map": { "a": 1 } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }], "since": "2024-01-02T03:04:05Z" } });
        let cells = custom_cells(&object, &columns, 1_704_164_645 + 90);
        let expected = json!(["a", "* *", 3, 0.5, true, "True", "90s", "{\"a\":1}", null, "<invalid>"]);
        assert_eq!(Value::from(cells), expected);
        assert_eq!(custom_cells(&json!({}), &columns, 0), vec![Value::Null; 10]);
    }

    #[test]
    fn without_columns_there_is_the_age() {
        let columns = custom_columns(&Value::Null).unwrap();
        let object = json!({ "metadata": { "name": "a", "creationTimestamp": "2024-01-02T03:04:05Z" } });
        assert_eq!(Value::from(custom_cells(&object, &columns, 1_704_164_645 + 7200)), json!(["a", "120m"]));
        assert!(custom_columns(&json!([{ "name": "x", "type": "string", "jsonPath": "x" }])).is_err());
    }
}
