//! Expressions as a tree.

/// An expression and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expr {
    /// Offset in characters of what errors point at.
    pub(crate) at: usize,
    /// Levels of expressions below, itself included.
    pub(crate) height: usize,
    pub(crate) kind: Kind,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// A field, or whether it is there (`has`), or an optional one (`.?`).
    Select {
        operand: Box<Expr>,
        field: String,
        how: Access,
    },
    /// An element, or an optional one (`[?`).
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// A function or an operator.
    Call {
        name: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Items; with `true` an optional one that is left out when it has no value.
    List(Vec<(Expr, bool)>),
    /// Keys and values, likewise.
    Map(Vec<(Expr, Expr, bool)>),
    /// All of them, from left to right.
    And(Vec<Expr>),
    /// One of them, from left to right.
    Or(Vec<Expr>),
    If(Box<[Expr; 3]>),
    /// A macro over the items of a list or the keys of a map.
    Loop(Box<Loop>),
    /// `optMap` and, when it is flat, `optFlatMap`.
    OptionalMap {
        target: Box<Expr>,
        variable: String,
        body: Box<Expr>,
        flat: bool,
    },
}

/// How a field is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Value,
    Test,
    Optional,
}

/// A comprehension.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loop {
    pub(crate) how: LoopKind,
    pub(crate) range: Expr,
    /// The item of a list or the key of a map; with two variables its index or key.
    pub(crate) first: String,
    /// The item or value, if there are two.
    pub(crate) second: Option<String>,
    /// What decides about an item, if anything does.
    pub(crate) filter: Option<Expr>,
    /// What is made of an item, if something is made.
    pub(crate) transform: Option<Expr>,
}

/// What a comprehension answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    /// A list: `map`, `filter`, `transformList`.
    List,
    /// A map with the keys there were: `transformMap`.
    Map,
}

impl Expr {
    pub(crate) fn new(at: usize, kind: Kind) -> Self {
        let mut height = 0;
        each_child(&kind, |child| height = height.max(child.height));
        Self { at, height: height + 1, kind }
    }

    /// The name, if it is nothing else.
    pub(crate) fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }
}

/// Visits the expressions directly below.
pub(crate) fn each_child<'e>(kind: &'e Kind, mut visit: impl FnMut(&'e Expr)) {
    match kind {
        Kind::Select { operand, .. } => visit(operand),
        Kind::Index { operand, index, .. } => {
            visit(operand);
            visit(index);
        }
        Kind::Call { target, args, .. } => target.iter().map(AsRef::as_ref).chain(args).for_each(visit),
        Kind::List(items) => items.iter().for_each(|(item, _)| visit(item)),
        Kind::Map(entries) => entries.iter().for_each(|(key, value, _)| {
            visit(key);
            visit(value);
        }),
        Kind::And(parts) | Kind::Or(parts) => parts.iter().for_each(visit),
        Kind::If(parts) => parts.iter().for_each(visit),
        Kind::Loop(inner) => {
            visit(&inner.range);
            inner.filter.iter().chain(&inner.transform).for_each(visit);
        }
        Kind::OptionalMap { target, body, .. } => {
            visit(target);
            visit(body);
        }
        _ => {}
    }
}
