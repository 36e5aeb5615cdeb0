//! A label selector and its requirements.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::parser::{self, LabelSelectorError};
use crate::names;
use crate::status::field::{Error as FieldError, Path, aggregate};

/// What a requirement asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values, or no such label.
    NotIn,
    /// The value; prints `=`.
    Equals,
    /// The value; prints `==`.
    DoubleEquals,
    /// Another value, or no such label.
    NotEquals,
    /// Any value.
    Exists,
    /// No such label.
    DoesNotExist,
    /// A whole number above the value.
    GreaterThan,
    /// A whole number below the value.
    LessThan,
}

/// Operators with the names that error messages list.
pub(super) const OPERATORS: &[(Operator, &str)] = &[
    (Operator::In, "in"),
    (Operator::NotIn, "notin"),
    (Operator::Equals, "="),
    (Operator::DoubleEquals, "=="),
    (Operator::NotEquals, "!="),
    (Operator::GreaterThan, "gt"),
    (Operator::LessThan, "lt"),
    (Operator::Exists, "exists"),
    (Operator::DoesNotExist, "!"),
];

/// How many of [`OPERATORS`] stand between a key and its values.
pub(super) const BINARY_OPERATORS_COUNT: usize = 7;

/// A requirement that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct RequirementError(String);

impl RequirementError {
    /// One error, or several as one.
    pub(super) fn new(errors: &[FieldError]) -> Option<Self> {
        aggregate(errors).map(Self)
    }
}

/// One thing that a selector asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted and without repetitions.
    values: Vec<String>,
}

impl Requirement {
    /// Checks key and values as upstream does.
    ///
    /// # Errors
    ///
    /// Fails if the key is no label's key, a value no label's value, or their number doesn't fit the operator.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, RequirementError> {
        let path = Path::root();
        let mut errors = Vec::new();
        errors.extend(key_error(key, &path.child("key")));
        let values_path = path.child("values");
        errors.extend(values_error(operator, &values, &values_path));
        for (index, value) in values.iter().enumerate() {
            let place = values_path.index(index);
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(&place, value.as_str(), detail));
            }
            let faults = names::label_value(value);
            if !faults.is_empty() {
                errors.push(FieldError::invalid(&place.key(key), value.as_str(), faults.join("; ")));
            }
        }
        if let Some(error) = RequirementError::new(&errors) {
            return Err(error);
        }
        values.sort_unstable();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// The label's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is asked of it.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, sorted.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label with this value, or its absence, is what is asked for.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|known| known == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(value, limit)| value > limit),
            Operator::LessThan => self.compare(value).is_some_and(|(value, limit)| value < limit),
        }
    }

    /// Label and limit as numbers.
    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

pub(super) fn key_error(key: &str, path: &Path) -> Option<FieldError> {
    let faults = names::qualified_name(key);
    (!faults.is_empty()).then(|| FieldError::invalid(path, key, faults.join("; ")))
}

/// What is wrong with the number of values.
fn values_error(operator: Operator, values: &[String], path: &Path) -> Option<FieldError> {
    let (fits, detail) = match operator {
        Operator::In | Operator::NotIn => {
            (!values.is_empty(), "for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals => {
            (values.len() == 1, "exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist => {
            (values.is_empty(), "values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan => {
            (values.len() == 1, "for 'Gt', 'Lt' operators, exactly one value is required")
        }
    };
    (!fits).then(|| FieldError::invalid(path, values.to_vec(), detail))
}

impl fmt::Display for Requirement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(out, "{key} in ({values})"),
            Operator::NotIn => write!(out, "{key} notin ({values})"),
            Operator::Equals => write!(out, "{key}={values}"),
            Operator::DoubleEquals => write!(out, "{key}=={values}"),
            Operator::NotEquals => write!(out, "{key}!={values}"),
            Operator::Exists => write!(out, "{key}"),
            Operator::DoesNotExist => write!(out, "!{key}"),
            Operator::GreaterThan => write!(out, "{key}>{values}"),
            Operator::LessThan => write!(out, "{key}<{values}"),
        }
    }
}

/// Requirements that must all be met. The default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// Sorted by key; those of one key in the order in which they came.
    requirements: Vec<Requirement>,
    /// Selects no object, whatever its labels: an absent selector object.
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects none.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Selects what meets them all.
    #[must_use]
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// What is asked for. Empty for [`nothing`](Self::nothing) too.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether no object can be selected.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether labels are selected; `lookup` gives the value of a key.
    pub fn matches<'l>(&self, lookup: impl Fn(&str) -> Option<&'l str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(lookup(&requirement.key)))
    }

    /// The only value that a label may have, if there is just one: what an index over that label is asked for.
    #[must_use]
    pub fn exact(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements.iter().find(|requirement| requirement.key == key)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            out.write_str(if index == 0 { "" } else { "," })?;
            requirement.fmt(out)?;
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parser::parse(text).map(Self::new)
    }
}
