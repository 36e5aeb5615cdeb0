//! Field selectors: `metadata.name=a,status.phase!=Running`.
//!
//! Only some fields of each kind can be selected by; which, is for the caller to say. In a value, backslash, comma and
//! equals sign are written with a backslash before them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A text that is no field selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldSelectorError {
    /// A term without an operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole text.
        selector: String,
        /// The term.
        term: String,
    },
    /// A backslash before something that needs none.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A character that needs a backslash. Upstream shows its number.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*.0))]
    Unescaped(char),
}

/// One thing that a field selector asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldRequirement {
    /// The field, as `spec.nodeName`.
    pub field: String,
    /// Whether the value must differ.
    pub negated: bool,
    /// The value; an absent field counts as empty.
    pub value: String,
}

impl FieldRequirement {
    /// Whether a field with this value is what is asked for.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        (self.value == value) != self.negated
    }
}

impl fmt::Display for FieldRequirement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.negated { "!=" } else { "=" };
        write!(out, "{}{operator}{}", self.field, escape(&self.value))
    }
}

/// Requirements that must all be met. The default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Selects what has this value in this field.
    #[must_use]
    pub fn equals(field: &str, value: &str) -> Self {
        let (field, value) = (field.to_owned(), value.to_owned());
        Self { requirements: vec![FieldRequirement { field, negated: false, value }] }
    }

    /// What is asked for.
    #[must_use]
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether fields are selected; `lookup` gives a field's value.
    pub fn matches<'l>(&self, lookup: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.requirements.iter().all(|wanted| wanted.matches(lookup(&wanted.field).unwrap_or_default()))
    }

    /// The only value that a field may have, if there is just one: what an index over that field is asked for.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        let found = self.requirements.iter().find(|wanted| wanted.field == field && !wanted.negated);
        found.map(|wanted| wanted.value.as_str())
    }

    /// The same with fields renamed, and refused, by `rename`: old names of fields, and fields a kind doesn't have.
    ///
    /// # Errors
    ///
    /// Fails as soon as `rename` does.
    pub fn rename<E>(mut self, rename: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        for requirement in &mut self.requirements {
            requirement.field = rename(&requirement.field)?;
        }
        Ok(self)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            out.write_str(if index == 0 { "" } else { "," })?;
            requirement.fmt(out)?;
        }
        Ok(())
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let Some((field, negated, value)) = split_term(term) else {
                return Err(FieldSelectorError::Term { selector: text.to_owned(), term: term.to_owned() });
            };
            requirements.push(FieldRequirement { field: field.to_owned(), negated, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }
}

/// Cuts at commas that have no backslash before them.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Field, whether it is negated, and value, cut at the first operator.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let (index, operator) = term.char_indices().find_map(|(index, _)| {
        let operators = ["!=", "==", "="].into_iter();
        operators.into_iter().find(|operator| term[index..].starts_with(operator)).map(|operator| (index, operator))
    })?;
    Some((&term[..index], operator == "!=", &term[index + operator.len()..]))
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(FieldSelectorError::Escape(format!("\\{other}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c)),
            c => out.push(c),
        }
    }
    Ok(out)
}
