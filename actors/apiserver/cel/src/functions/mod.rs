//! The functions there are: their signatures, prices and results.
//!
//! One table for the compiler and for evaluation. A function may have several signatures under one name; the first one
//! that fits counts.

mod addresses;
mod kubernetes;
mod lists;
mod standard;
mod strings;
mod times;

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::cost::Price;
use crate::error::EvalError;
use crate::types::Pattern;
use crate::value::Value;

/// The greatest text or list that a function makes, in bytes or items: more than an object holds.
const RESULT_MAX: usize = 10 << 20;

/// The greatest compiled expression.
const EXPRESSION_BYTES_MAX: usize = 1 << 18;

/// Expressions kept of those that an evaluation makes itself.
const EXPRESSIONS_KEPT: usize = 16;

/// What an expression costs that isn't known when the rule is compiled, per character: reading it is the dear part.
const EXPRESSION_MAKING: u64 = 10;

pub(crate) type Answer<'v> = Result<Value<'v>, EvalError>;

/// One signature.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// Whether it is called on its first argument.
    pub(crate) member: bool,
    pub(crate) args: &'static [Pattern],
    pub(crate) result: Pattern,
    pub(crate) price: Price,
    /// The greatest size of the result by those of the arguments.
    pub(crate) size: fn(&[u64]) -> u64,
    pub(crate) run: for<'v> fn(&mut Meter<'_>, &[Value<'v>]) -> Answer<'v>,
}

/// Signatures by name and by whether they are called on something.
static TABLE: LazyLock<HashMap<&'static str, [Vec<&'static Function>; 2]>> = LazyLock::new(|| {
    let mut table: HashMap<_, [Vec<_>; 2]> = HashMap::new();
    let all = [
        standard::FUNCTIONS,
        standard::ORDERED,
        strings::FUNCTIONS,
        lists::FUNCTIONS,
        times::FUNCTIONS,
        times::PARTS,
        addresses::FUNCTIONS,
        kubernetes::FUNCTIONS,
        kubernetes::FORMATS,
    ];
    for function in all.into_iter().flatten() {
        table.entry(function.name).or_default()[usize::from(function.member)].push(function);
    }
    table
});

/// The signatures of a name.
pub(crate) fn named(name: &str, member: bool) -> &'static [&'static Function] {
    TABLE.get(name).map_or(&[], |signatures| &signatures[usize::from(member)])
}

/// Whether there is anything of this name.
pub(crate) fn exists(name: &str) -> bool {
    !named(name, true).is_empty() || !named(name, false).is_empty()
}

/// What an evaluation has spent, and the expressions it has read.
pub(crate) struct Meter<'p> {
    pub(crate) spent: u64,
    pub(crate) limit: u64,
    /// Expressions that were read when the rule was compiled.
    known: &'p HashMap<String, Regex>,
    made: HashMap<String, Regex>,
}

impl<'p> Meter<'p> {
    pub(crate) fn new(limit: u64, known: &'p HashMap<String, Regex>) -> Self {
        Self { spent: 0, limit, known, made: HashMap::new() }
    }

    /// Spends something.
    pub(crate) fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    /// Compares, and pays for it by what had to be compared.
    pub(crate) fn equal(&mut self, a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
        let mut steps = 0;
        let equal = a.equals(b, &mut steps);
        self.spend(crate::cost::traverse(steps).saturating_sub(1))?;
        Ok(equal)
    }

    pub(crate) fn expression(&mut self, text: &str) -> Result<Regex, EvalError> {
        if let Some(found) = self.known.get(text).or_else(|| self.made.get(text)) {
            return Ok(found.clone());
        }
        self.spend((text.len() as u64).saturating_mul(EXPRESSION_MAKING))?;
        let made = expression(text).map_err(EvalError::other)?;
        if self.made.len() < EXPRESSIONS_KEPT {
            self.made.insert(text.to_owned(), made.clone());
        }
        Ok(made)
    }
}

/// Reads a regular expression.
pub(crate) fn expression(text: &str) -> Result<Regex, String> {
    let read = k3sd_objects::schema::expression(text, EXPRESSION_BYTES_MAX);
    read.map_err(|error| {
        let why = error.to_string();
        format!("error parsing regexp: {}", why.lines().last().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// Refuses to make what is too great.
fn bounded(size: usize) -> Result<usize, EvalError> {
    if size > RESULT_MAX { Err(EvalError::CostLimit) } else { Ok(size) }
}

fn other<'v>(what: impl Into<String>) -> Answer<'v> {
    Err(EvalError::other(what))
}

/// Values of the types that a signature promises; anything else was a bug of the table.
fn mismatch<'v>() -> Answer<'v> {
    Err(EvalError::NoSuchOverload)
}
