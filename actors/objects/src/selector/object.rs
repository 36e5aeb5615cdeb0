//! Label selectors as objects: `matchLabels` and `matchExpressions`.

use serde_json::Value;
use thiserror::Error;

use super::label::{LabelSelector, Operator, Requirement, RequirementError};
use crate::names;
use crate::status::field::{Error as FieldError, Path};
use crate::status::go;

/// A selector object that selects nothing in particular because it makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ObjectSelectorError {
    /// An operator that there isn't.
    #[error("{} is not a valid label selector operator", go::quote(.0))]
    Operator(String),
    /// A key or a value that no label has.
    #[error(transparent)]
    Requirement(#[from] RequirementError),
}

/// The operators of `matchExpressions`.
const OPERATORS: &[(&str, Operator)] = &[
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

/// One of `matchExpressions`, whatever of it is there.
struct Expression<'a> {
    key: &'a str,
    operator: &'a str,
    values: Vec<&'a str>,
}

fn expressions(selector: &Value) -> impl Iterator<Item = Expression<'_>> {
    let list = selector.get("matchExpressions").and_then(Value::as_array);
    list.into_iter().flatten().map(|expression| {
        let text = |name| expression.get(name).and_then(Value::as_str).unwrap_or_default();
        let values = expression.get("values").and_then(Value::as_array);
        let values = values.into_iter().flatten().filter_map(Value::as_str).collect();
        Expression { key: text("key"), operator: text("operator"), values }
    })
}

impl LabelSelector {
    /// Reads a selector object. An absent one selects nothing, an empty one everything.
    ///
    /// # Errors
    ///
    /// Fails for operators, keys and values that there aren't; a validated object has none of these.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, ObjectSelectorError> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        for (key, value) in labels.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for Expression { key, operator, values } in expressions(selector) {
            let known = OPERATORS.iter().find(|(name, _)| *name == operator);
            let (_, operator) = known.ok_or_else(|| ObjectSelectorError::Operator(operator.to_owned()))?;
            let values = values.into_iter().map(str::to_owned).collect();
            requirements.push(Requirement::new(key, *operator, values)?);
        }
        Ok(Self::new(requirements))
    }
}

/// What is wrong with a selector object at `path`. Types are the schema's business.
#[must_use]
pub fn check_label_selector(selector: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        errors.extend(names::check_labels(labels, &path.child("matchLabels")));
    }
    let list = path.child("matchExpressions");
    for (index, expression) in expressions(selector).enumerate() {
        check_expression(&expression, &list.index(index), &mut errors);
    }
    errors
}

fn check_expression(expression: &Expression<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    let values = path.child("values");
    match (expression.operator, expression.values.is_empty()) {
        ("In" | "NotIn", true) => {
            errors.push(FieldError::required(&values, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        ("Exists" | "DoesNotExist", false) => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&values, detail));
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
        (unknown, _) => {
            errors.push(FieldError::invalid(&path.child("operator"), unknown, "not a valid selector operator"));
        }
    }
    errors.extend(names::check_label_key(expression.key, &path.child("key")));
    for (index, value) in expression.values.iter().enumerate() {
        let faults = names::label_value(value);
        errors.extend(faults.into_iter().map(|fault| FieldError::invalid(&values.index(index), *value, fault)));
    }
}
