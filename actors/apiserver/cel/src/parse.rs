//! From text to a tree. Macros are recognized here, since they aren't functions.

use k3sd_objects::names::CEL_RESERVED;

use crate::ast::{Access, Expr, Kind, Loop, LoopKind};
use crate::error::{Fault, fault};
use crate::lex::{Token, tokens};

/// Longest expression, in characters; the usual parser's.
const LENGTH_MAX: usize = 100_000;

/// Deepest nesting. Bounds the recursion of everything that walks a tree.
const DEPTH_MAX: usize = 120;

/// What an expression may begin with, as the usual parser lists it.
const BEGINNINGS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                          BYTES, IDENTIFIER}";

/// Reads an expression.
pub(crate) fn parse(source: &str) -> Result<Expr, Fault> {
    let length = source.chars().count();
    if length > LENGTH_MAX {
        let what = format!("expression code point size exceeds limit: size: {length}, limit {LENGTH_MAX}");
        return Err(fault(0, what));
    }
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

/// Binary operators by precedence, with the names of their functions.
const OPERATORS: &[&[(&str, &str)]] = &[
    &[("==", "_==_"), ("!=", "_!=_"), ("<", "_<_"), ("<=", "_<=_"), (">", "_>_"), (">=", "_>=_"), ("in", "@in")],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.peek(), Token::Mark(found) if *found == mark)
    }

    fn eat(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, mark: &str) -> Result<(), Fault> {
        if self.eat(mark) { Ok(()) } else { Err(self.unexpected(&format!("'{mark}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        let found = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Mark(mark) => (*mark).to_owned(),
            Token::Ident(name) => name.clone(),
            Token::Text(text) => format!("\"{text}\""),
            Token::Int(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        fault(self.at(), format!("Syntax error: mismatched input '{found}' expecting {wanted}"))
    }

    /// Makes a node, unless it is too high.
    fn node(at: usize, kind: Kind) -> Result<Expr, Fault> {
        let expr = Expr::new(at, kind);
        if expr.height > DEPTH_MAX { Err(too_deep(at)) } else { Ok(expr) }
    }

    fn expr(&mut self) -> Result<Expr, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        let condition = self.any_of("||")?;
        let at = self.at();
        let expr = if self.eat("?") {
            let then = self.any_of("||")?;
            self.expect(":")?;
            let otherwise = self.expr()?;
            Self::node(at, Kind::If(Box::new([condition, then, otherwise])))
        } else {
            Ok(condition)
        };
        self.depth -= 1;
        expr
    }

    /// What `||`, and within it `&&`, combines.
    fn any_of(&mut self, mark: &str) -> Result<Expr, Fault> {
        let or = mark == "||";
        let first = if or { self.any_of("&&")? } else { self.binary(0)? };
        if !self.is(mark) {
            return Ok(first);
        }
        let at = self.at();
        let mut parts = vec![first];
        while self.eat(mark) {
            parts.push(if or { self.any_of("&&")? } else { self.binary(0)? });
        }
        Self::node(at, if or { Kind::Or(parts) } else { Kind::And(parts) })
    }

    fn binary(&mut self, level: usize) -> Result<Expr, Fault> {
        let Some(operators) = OPERATORS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let name = match self.peek() {
                Token::Mark(mark) => operators.iter().find(|(operator, _)| operator == mark),
                Token::Ident(word) => operators.iter().find(|(operator, _)| operator == word),
                _ => None,
            };
            let Some((_, name)) = name else { return Ok(left) };
            let at = self.at();
            self.advance();
            let right = self.binary(level + 1)?;
            left = Self::call(at, name, vec![left, right])?;
        }
    }

    fn call(at: usize, name: &str, args: Vec<Expr>) -> Result<Expr, Fault> {
        Self::node(at, Kind::Call { name: name.to_owned(), target: None, args })
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        let mark = if self.is("!") { "!" } else { "-" };
        let mut count = 0;
        while self.eat(mark) {
            count += 1;
        }
        if mark == "-" && count > 0 {
            // The sign belongs to a number behind it.
            let literal = match self.peek() {
                Token::Int(number) => Some(Kind::Int(-number)),
                Token::IntMin => Some(Kind::Int(i64::MIN)),
                Token::Double(number) => Some(Kind::Double(-number)),
                _ => None,
            };
            if let Some(kind) = literal {
                self.advance();
                count -= 1;
                let expr = self.members(Self::node(at, kind)?)?;
                return if count % 2 == 0 { Ok(expr) } else { Self::call(at, "-_", vec![expr]) };
            }
        }
        let operand = self.primary()?;
        let operand = self.members(operand)?;
        match (count % 2, count, mark) {
            (1, _, "!") => Self::call(at, "!_", vec![operand]),
            (1, ..) => Self::call(at, "-_", vec![operand]),
            // Even ones cancel each other, but what they negate has to be of their type.
            (_, 2.., "!") => Self::call(at, "!_", vec![Self::call(at, "!_", vec![operand])?]),
            (_, 2.., _) => Self::call(at, "-_", vec![Self::call(at, "-_", vec![operand])?]),
            _ => Ok(operand),
        }
    }

    /// Fields, elements and calls behind an expression.
    fn members(&mut self, mut expr: Expr) -> Result<Expr, Fault> {
        loop {
            let at = self.at();
            if self.eat(".") {
                let optional = self.eat("?");
                let name_at = self.at();
                let Token::Ident(name) = self.peek().clone() else { return Err(self.unexpected("IDENTIFIER")) };
                self.advance();
                expr = if !optional && self.is("(") {
                    self.advance();
                    let args = self.args(")")?;
                    method(at, name_at, expr, name, args)?
                } else {
                    let how = if optional { Access::Optional } else { Access::Value };
                    Self::node(at, Kind::Select { operand: Box::new(expr), field: name, how })?
                };
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = Box::new(self.expr()?);
                self.expect("]")?;
                expr = Self::node(at, Kind::Index { operand: Box::new(expr), index, optional })?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn args(&mut self, end: &str) -> Result<Vec<Expr>, Fault> {
        let mut args = Vec::new();
        while !self.is(end) {
            args.push(self.expr()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect(end)?;
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        let kind = match self.peek().clone() {
            Token::Int(number) => Kind::Int(number),
            Token::Uint(number) => Kind::Uint(number),
            Token::Double(number) => Kind::Double(number),
            Token::Text(text) => Kind::Text(text),
            Token::Bytes(bytes) => Kind::Bytes(bytes),
            Token::IntMin => return Err(fault(at, "invalid int literal")),
            Token::Ident(name) => return self.name(at, name),
            Token::Mark("(") => {
                self.advance();
                let expr = self.expr()?;
                self.expect(")")?;
                return Ok(expr);
            }
            Token::Mark("[") => return self.list(at),
            Token::Mark("{") => return self.map(at),
            Token::Mark(".") => {
                // A leading dot only says that the name is no local one.
                self.advance();
                return self.primary();
            }
            _ => return Err(self.unexpected(BEGINNINGS)),
        };
        self.advance();
        Self::node(at, kind)
    }

    fn name(&mut self, at: usize, name: String) -> Result<Expr, Fault> {
        self.advance();
        match name.as_str() {
            "true" => return Self::node(at, Kind::Bool(true)),
            "false" => return Self::node(at, Kind::Bool(false)),
            "null" => return Self::node(at, Kind::Null),
            "in" => {
                self.next -= 1;
                return Err(self.unexpected("IDENTIFIER"));
            }
            _ if CEL_RESERVED.contains(&name.as_str()) => {
                return Err(fault(at, format!("reserved identifier: {name}")));
            }
            _ => {}
        }
        if self.eat("(") {
            let mut args = self.args(")")?;
            if name == "has" {
                return match (args.len(), args.pop().map(|arg| arg.kind)) {
                    (1, Some(Kind::Select { operand, field, how: Access::Value })) => {
                        Self::node(at, Kind::Select { operand, field, how: Access::Test })
                    }
                    _ => Err(fault(at, "invalid argument to has() macro")),
                };
            }
            return Self::call(at, &name, args);
        }
        if self.is("{") {
            return Err(fault(at, format!("undeclared reference to '{name}' (in container '')")));
        }
        Self::node(at, Kind::Ident(name))
    }

    fn list(&mut self, at: usize) -> Result<Expr, Fault> {
        self.advance();
        let mut items = Vec::new();
        while !self.is("]") {
            let optional = self.eat("?");
            items.push((self.expr()?, optional));
            if !self.eat(",") {
                break;
            }
        }
        self.expect("]")?;
        Self::node(at, Kind::List(items))
    }

    fn map(&mut self, at: usize) -> Result<Expr, Fault> {
        self.advance();
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.eat("?");
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?, optional));
            if !self.eat(",") {
                break;
            }
        }
        self.expect("}")?;
        Self::node(at, Kind::Map(entries))
    }
}

fn too_deep(at: usize) -> Fault {
    fault(at, format!("expression recursion limit exceeded: {DEPTH_MAX}"))
}

/// A call on a value: a macro or a method.
fn method(at: usize, name_at: usize, target: Expr, name: String, mut args: Vec<Expr>) -> Result<Expr, Fault> {
    let (how, least) = match name.as_str() {
        "all" => (LoopKind::All, 2),
        "exists" => (LoopKind::Exists, 2),
        "exists_one" | "existsOne" => (LoopKind::ExistsOne, 2),
        "map" | "filter" => (LoopKind::List, 2),
        "transformList" => (LoopKind::List, 3),
        "transformMap" => (LoopKind::Map, 3),
        "optMap" | "optFlatMap" if args.len() == 2 => {
            let body = Box::new(args.remove(1));
            let variable = variable(&args[0])?;
            let flat = name == "optFlatMap";
            return Parser::node(at, Kind::OptionalMap { target: Box::new(target), variable, body, flat });
        }
        _ => return Parser::node(at, Kind::Call { name, target: Some(Box::new(target)), args }),
    };
    let transforms = name.starts_with("transform");
    let fits = match name.as_str() {
        "filter" => args.len() == 2,
        "existsOne" if args.len() == 2 => true,
        "exists_one" => args.len() == 2,
        _ => args.len() == least || args.len() == least + 1,
    };
    if !fits {
        return Parser::node(at, Kind::Call { name, target: Some(Box::new(target)), args });
    }
    let last = args.pop();
    let two = transforms || (how != LoopKind::List && args.len() == 2);
    let first = variable(&args[0]).map_err(|fault| Fault { at: name_at.max(fault.at), ..fault })?;
    let second = if two { Some(variable(&args[1])?) } else { None };
    let middle = if args.len() > 1 + usize::from(two) { args.pop() } else { None };
    let (filter, transform) = match (how, name.as_str()) {
        (LoopKind::List, "filter") => (last, None),
        (LoopKind::List | LoopKind::Map, _) => (middle, last),
        _ => (last, None),
    };
    Parser::node(at, Kind::Loop(Box::new(Loop { how, range: target, first, second, filter, transform })))
}

fn variable(expr: &Expr) -> Result<String, Fault> {
    match expr.ident() {
        Some(name) if name != "__result__" => Ok(name.to_owned()),
        _ => Err(fault(expr.at, "argument must be a simple name")),
    }
}
