//! The text form of label selectors.
//!
//! The grammar is a comma-separated list of `KEY`, `!KEY`, `KEY op VALUE` and `KEY in|notin (VALUE, ...)`. `in` and
//! `notin` are operators only between a key and its values; elsewhere they are words like others.

use thiserror::Error;

use super::label::{BINARY_OPERATORS_COUNT, OPERATORS, Operator, Requirement, RequirementError, key_error};
use crate::status::field::Path;

/// A text that is no label selector. The words are upstream's, and end up in a 400.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LabelSelectorError {
    /// Something else was expected between requirements.
    #[error("found '{found}', expected: {expected}")]
    Between {
        /// What stands there.
        found: String,
        /// What could.
        expected: &'static str,
    },
    /// A requirement is wrong.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
}

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A key or a value.
    Word(&'a str),
    /// A sign; the words `in` and `notin` are [`Word`](Self::Word)s.
    Sign(&'a str),
    /// Nothing is left.
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Sign(text) => text,
            Self::End => "",
        }
    }
}

/// Signs, the longer ones first.
const SIGNS: &[&str] = &["!=", "==", "!", "=", ">", "<", "(", ")", ","];

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_sign(b: u8) -> bool {
    matches!(b, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

/// What is left of the text.
struct Lexer<'a>(&'a str);

impl<'a> Lexer<'a> {
    /// The next token, and what is left behind it.
    fn split(&self) -> (Token<'a>, &'a str) {
        let start = self.0.bytes().position(|b| !is_space(b)).unwrap_or(self.0.len());
        let text = &self.0[start..];
        if text.is_empty() || text.starts_with('\0') {
            return (Token::End, "");
        }
        if let Some(sign) = SIGNS.iter().find(|sign| text.starts_with(**sign)) {
            let (sign, rest) = text.split_at(sign.len());
            return (Token::Sign(sign), rest);
        }
        let end = text.bytes().position(|b| is_space(b) || is_sign(b) || b == 0).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        (Token::Word(word), rest)
    }

    fn peek(&self) -> Token<'a> {
        self.split().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.split();
        self.0 = rest;
        token
    }
}

/// Reads a selector.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, LabelSelectorError> {
    let mut lexer = Lexer(text);
    let mut requirements = Vec::new();
    let between =
        |found: Token<'_>, expected| Err(LabelSelectorError::Between { found: found.text().into(), expected });
    match lexer.peek() {
        Token::End => return Ok(requirements),
        Token::Word(_) | Token::Sign("!") => {}
        found @ Token::Sign(_) => return between(found, "!, identifier, or 'end of string'"),
    }
    loop {
        requirements.push(requirement(&mut lexer).map_err(LabelSelectorError::Requirement)?);
        match lexer.next() {
            Token::End => return Ok(requirements),
            Token::Sign(",") => {}
            found => return between(found, "',' or 'end of string'"),
        }
        match lexer.peek() {
            Token::Word(_) | Token::Sign("!") => {}
            found => return between(found, "identifier after ','"),
        }
    }
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, String> {
    let negated = lexer.peek() == Token::Sign("!");
    if negated {
        lexer.next();
    }
    let key = match lexer.next() {
        Token::Word(key) => key,
        found => return Err(format!("found '{}', expected: identifier", found.text())),
    };
    if let Some(error) = key_error(key, &Path::root()) {
        return Err(error.to_string());
    }
    let (operator, values) = if negated {
        (Operator::DoesNotExist, Vec::new())
    } else if matches!(lexer.peek(), Token::End | Token::Sign(",")) {
        (Operator::Exists, Vec::new())
    } else {
        let operator = operator(lexer.next())?;
        let is_set = matches!(operator, Operator::In | Operator::NotIn);
        (operator, if is_set { values(lexer)? } else { exact_value(lexer)? })
    };
    Requirement::new(key, operator, values).map_err(|error: RequirementError| error.to_string())
}

fn operator(token: Token<'_>) -> Result<Operator, String> {
    let text = match token {
        Token::Sign(">") => "gt",
        Token::Sign("<") => "lt",
        // These two are names in messages, not signs; as words of the text they are nothing.
        Token::Word("gt" | "lt") => "",
        token => token.text(),
    };
    let binary = &OPERATORS[..BINARY_OPERATORS_COUNT];
    let known = binary.iter().find(|(_, name)| *name == text).map(|(operator, _)| *operator);
    known.ok_or_else(|| {
        let names: Vec<&str> = binary.iter().map(|(_, name)| *name).collect();
        format!("found '{}', expected: {}", token.text(), names.join(", "))
    })
}

/// The one value behind `=` and its like; nothing at all is the empty value.
fn exact_value(lexer: &mut Lexer<'_>) -> Result<Vec<String>, String> {
    if matches!(lexer.peek(), Token::End | Token::Sign(",")) {
        return Ok(vec![String::new()]);
    }
    match lexer.next() {
        Token::Word(value) => Ok(vec![value.to_owned()]),
        found => Err(format!("found '{}', expected: identifier", found.text())),
    }
}

/// The values behind `in` and `notin`: words and commas in parentheses, where a missing word is the empty value.
fn values(lexer: &mut Lexer<'_>) -> Result<Vec<String>, String> {
    let opening = lexer.next();
    if opening != Token::Sign("(") {
        return Err(format!("found '{}' expected: '('", opening.text()));
    }
    match lexer.peek() {
        Token::Word(_) | Token::Sign("," | ")") => {}
        found => return Err(format!("found '{}', expected: ',', ')' or identifier", found.text())),
    }
    let mut values = Vec::new();
    let mut value = None;
    loop {
        match (lexer.next(), value) {
            (Token::Word(word), None) => {
                value = Some(word);
                match lexer.peek() {
                    Token::Sign("," | ")") => {}
                    found => return Err(format!("found '{}', expected: ',' or ')'", found.text())),
                }
            }
            (Token::Sign(","), last) => {
                values.push(last.unwrap_or_default().to_owned());
                value = None;
            }
            (Token::Sign(")"), last) => {
                values.push(last.unwrap_or_default().to_owned());
                return Ok(values);
            }
            (found, _) => return Err(format!("found '{}', expected: ',', or identifier", found.text())),
        }
    }
}
