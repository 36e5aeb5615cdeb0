//! CEL, the expressions in which users write rules for their objects.
//!
//! ```text
//! text ─▶ lex, parse ─▶ tree ─▶ check ─▶ Program        types of the schema, a price that is known beforehand
//!                                           │
//!                 object, budget ─▶ eval ───┘─▶ value, cost
//! ```
//!
//! Written here and not taken from crates.io, because what there is (`cel`, formerly `cel-interpreter`) has neither
//! types nor prices: it can't refuse a wrong rule when it is stored, and can't stop one that runs for ever. Functions
//! are those that Kubernetes offers; prices are those of the usual implementation, so that a rule that fits there fits
//! here.
//!
//! Nothing here reads a clock, and nothing goes deeper or longer than its input allows: nesting, the size of what
//! functions make, and every step of an evaluation are bounded.

mod ast;
mod check;
mod cost;
mod error;
mod eval;
mod functions;
mod lex;
mod names;
mod parse;
mod schema;
#[cfg(test)]
mod tests;
mod time;
mod types;
mod url;
mod value;
mod version;

use std::collections::HashMap;

use k3sd_objects::schema::SchemaRef;
use regex::Regex;
use serde_json::Value as Json;

use crate::ast::Expr;
use crate::check::Checker;
use crate::eval::Evaluation;
use crate::functions::Meter;
use crate::types::Type;
use crate::value::Value;

pub use crate::error::{CompileError, EvalError};

/// What an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A rule.
    Bool,
    /// A message.
    Text,
}

/// A variable of an expression.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'s> {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub schema: SchemaRef<'s>,
    /// Whether it is wrapped, since it may be absent.
    pub optional: bool,
}

/// The value of a variable.
#[derive(Clone, Copy, Debug)]
pub struct Given<'v> {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub schema: SchemaRef<'v>,
    /// The value; `None` is an absent optional one.
    pub value: Option<&'v Json>,
    /// Whether it is wrapped.
    pub optional: bool,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Program {
    expr: Expr,
    expressions: HashMap<String, Regex>,
    cost_max: u64,
    used: Vec<String>,
}

/// What an evaluation gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of a rule.
    Bool(bool),
    /// Of a message.
    Text(String),
}

/// The most items a list, or entries a map, can have; 1 for everything else.
pub fn count_max(schema: SchemaRef<'_>) -> u64 {
    schema::count(schema)
}

/// How many values of a schema fit into one request at most.
pub fn repeats_max(schema: SchemaRef<'_>) -> u64 {
    // A comma stands between them.
    schema::REQUEST_BYTES_MAX / (schema::least_bytes(schema) + 1)
}

/// Whether a rule can speak of values of a schema.
pub fn has_type(schema: SchemaRef<'_>) -> bool {
    schema::type_of(schema).is_some()
}

impl Program {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is none, when types don't fit, or when it gives something else than wanted.
    pub fn compile(source: &str, variables: &[Variable<'_>], wanted: Wanted) -> Result<Self, CompileError> {
        let failed = |fault| CompileError::new(source, vec![fault]);
        let mut expr = parse::parse(source).map_err(failed)?;
        let mut declared = Vec::new();
        for variable in variables {
            let of = schema::type_of(variable.schema).unwrap_or(Type::Dyn);
            let of = if variable.optional { Type::Optional(of.into()) } else { of };
            declared.push((variable.name.to_owned(), of));
        }
        let mut checker = Checker::new(declared);
        let checked = checker.check(&mut expr);
        if !checker.faults.is_empty() {
            return Err(CompileError::new(source, checker.faults));
        }
        let fits = match wanted {
            Wanted::Bool => matches!(checked.of, Type::Bool),
            Wanted::Text => matches!(checked.of, Type::Text(_)),
        };
        if !fits {
            return Err(match wanted {
                Wanted::Bool => CompileError::plain("cel expression must evaluate to a bool"),
                Wanted::Text => CompileError::plain("messageExpression must evaluate to a string"),
            });
        }
        let Checker { expressions, used, .. } = checker;
        Ok(Self { expr, expressions, cost_max: checked.cost, used })
    }

    /// What it costs at most, as far as the schema tells.
    pub fn cost_max(&self) -> u64 {
        self.cost_max
    }

    /// Whether it uses a variable.
    pub fn uses(&self, name: &str) -> bool {
        self.used.iter().any(|used| used == name)
    }

    /// Evaluates it. Answers also with what it cost, which is never much more than `limit`.
    ///
    /// # Errors
    /// When it has no value, or costs more than `limit`.
    pub fn run<'v>(&self, given: &[Given<'v>], limit: u64) -> (Result<Outcome, EvalError>, u64) {
        let mut evaluation = Evaluation { meter: Meter::new(limit, &self.expressions), scope: Vec::new() };
        for given in given {
            let read = given.value.map(|value| Value::read(value, Some(given.schema))).transpose();
            let value = match read {
                Ok(Some(value)) if given.optional => Value::some(value),
                Ok(Some(value)) => value,
                Ok(None) => Value::Optional(None),
                Err(error) => return (Err(error), 0),
            };
            evaluation.scope.push((given.name, value));
        }
        let answer = match evaluation.value(&self.expr) {
            Ok(Value::Bool(value)) => Ok(Outcome::Bool(value)),
            Ok(Value::Text(text)) => Ok(Outcome::Text(text.to_string())),
            Ok(_) => Err(EvalError::NoSuchOverload),
            Err(error) => Err(error),
        };
        (answer, evaluation.meter.spent)
    }
}

impl CompileError {
    fn plain(text: &str) -> Self {
        Self::whole(text.to_owned())
    }
}
