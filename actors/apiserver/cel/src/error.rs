//! What can be wrong with an expression, and with its evaluation.

use std::fmt;

use thiserror::Error;

/// Something wrong at one place of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Offset in characters.
    pub(crate) at: usize,
    pub(crate) what: String,
}

pub(crate) fn fault(at: usize, what: impl Into<String>) -> Fault {
    Fault { at, what: what.into() }
}

/// Why an expression can't be used: one or more faults, as the usual compiler of CEL prints them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct CompileError {
    text: String,
}

impl CompileError {
    pub(crate) fn new(source: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.at);
        let texts: Vec<String> = faults.iter().map(|fault| show(source, fault)).collect();
        Self { text: texts.join("\n") }
    }

    /// One that isn't about a place.
    pub(crate) fn whole(text: String) -> Self {
        Self { text }
    }

    /// Whether the expression can't be read, or doesn't fit its types; not that it gives something else than wanted.
    pub fn is_about_a_place(&self) -> bool {
        self.text.starts_with("ERROR")
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// The fault, the line it is in, and a mark below it.
fn show(source: &str, fault: &Fault) -> String {
    let (mut start, mut number) = (0, 1);
    for (index, c) in source.chars().take(fault.at).enumerate() {
        if c == '\n' {
            start = index + 1;
            number += 1;
        }
    }
    let line: String = source.chars().skip(start).take_while(|c| *c != '\n').collect();
    let column = fault.at - start;
    format!("ERROR: <input>:{number}:{}: {}\n | {line}\n | {}^", column + 1, fault.what, ".".repeat(column))
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvalError {
    /// A field or key that isn't there.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// Values of the wrong types, where the compiler couldn't know.
    #[error("no such overload")]
    NoSuchOverload,
    /// The expression costs more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// Anything else, in the words of the usual interpreter.
    #[error("{0}")]
    Other(String),
}

impl EvalError {
    pub(crate) fn other(what: impl Into<String>) -> Self {
        Self::Other(what.into())
    }
}
