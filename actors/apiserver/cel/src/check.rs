//! Types and prices of expressions: what doesn't fit is refused before anything is evaluated.

use std::collections::HashMap;
use std::rc::Rc;

use regex::Regex;

use crate::ast::{Access, Expr, Kind, Loop, LoopKind};
use crate::cost::{MAKE_LIST, MAKE_MAP, READ};
use crate::error::{Fault, fault};
use crate::functions::{self, Function};
use crate::schema::field_type;
use crate::types::{Bindings, Type, UNKNOWN};

/// What is known of an expression: its type, and what it costs at most.
#[derive(Clone, Debug)]
pub(crate) struct Checked<'s> {
    pub(crate) of: Type<'s>,
    pub(crate) cost: u64,
}

/// The compiler's pass over a tree. It changes the tree where only types tell what is meant.
pub(crate) struct Checker<'s> {
    /// Variables, inner ones last.
    scope: Vec<(String, Type<'s>)>,
    /// Faults so far; the pass goes on after one, with the unknown type.
    pub(crate) faults: Vec<Fault>,
    /// Regular expressions that are written down.
    pub(crate) expressions: HashMap<String, Regex>,
    /// Names of variables that are used.
    pub(crate) used: Vec<String>,
    /// Whether the next list may hold values of different types, as the arguments of `format` do.
    mixed: bool,
}

impl<'s> Checker<'s> {
    pub(crate) fn new(variables: Vec<(String, Type<'s>)>) -> Self {
        Self { scope: variables, faults: Vec::new(), expressions: HashMap::new(), used: Vec::new(), mixed: false }
    }

    fn wrong(&mut self, at: usize, what: String) -> Checked<'s> {
        self.faults.push(fault(at, what));
        Checked { of: Type::Dyn, cost: 0 }
    }

    fn variable(&self, name: &str) -> Option<&Type<'s>> {
        self.scope.iter().rev().find(|(known, _)| known == name).map(|(_, of)| of)
    }

    pub(crate) fn check(&mut self, expr: &mut Expr) -> Checked<'s> {
        let at = expr.at;
        let done = |of, cost| Checked { of, cost };
        match &mut expr.kind {
            Kind::Null => done(Type::Null, 0),
            Kind::Bool(_) => done(Type::Bool, 0),
            Kind::Int(_) => done(Type::Int, 0),
            Kind::Uint(_) => done(Type::Uint, 0),
            Kind::Double(_) => done(Type::Double, 0),
            Kind::Text(text) => done(Type::Text(text.len() as u64), 0),
            Kind::Bytes(bytes) => done(Type::Bytes(bytes.len() as u64), 0),
            Kind::Ident(name) => {
                let name = name.clone();
                self.ident(at, &name)
            }
            Kind::Select { operand, field, how } => {
                let (field, how) = (field.clone(), *how);
                let operand = self.check(operand);
                self.select(at, operand, &field, how)
            }
            Kind::Index { operand, index, optional } => {
                let optional = *optional;
                let (operand, index) = (self.check(operand), self.check(index));
                self.index(at, operand, index, optional)
            }
            Kind::Call { name, target, args } => self.call(at, name, target, args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::And(parts) | Kind::Or(parts) => {
                let mut cost = 0_u64;
                for part in parts {
                    let checked = self.check(part);
                    self.want_bool(part.at, &checked.of);
                    cost = cost.saturating_add(checked.cost);
                }
                done(Type::Bool, cost)
            }
            Kind::If(parts) => {
                let [condition, then, otherwise] = &mut **parts;
                let checked = self.check(condition);
                self.want_bool(condition.at, &checked.of);
                let (then, otherwise) = (self.check(then), self.check(otherwise));
                let cost = checked.cost.saturating_add(then.cost.max(otherwise.cost));
                match then.of.join(&otherwise.of) {
                    Some(of) => done(of, cost),
                    None => {
                        let types = format!("(bool, {}, {})", then.of, otherwise.of);
                        self.wrong(at, format!("found no matching overload for '_?_:_' applied to '{types}'"))
                    }
                }
            }
            Kind::Loop(inner) => self.loop_over(inner),
            Kind::OptionalMap { target, variable, body, flat } => {
                let (variable, flat) = (variable.clone(), *flat);
                self.optional_map(at, target, variable, body, flat)
            }
        }
    }

    fn optional_map(
        &mut self,
        at: usize,
        target: &mut Expr,
        variable: String,
        body: &mut Expr,
        flat: bool,
    ) -> Checked<'s> {
        let target = self.check(target);
        let inner = match target.of {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                let name = if flat { "optFlatMap" } else { "optMap" };
                return self.wrong(at, format!("found no matching overload for '{name}' applied to '{other}'"));
            }
        };
        self.scope.push((variable, inner));
        let body = self.check(body);
        self.scope.pop();
        let cost = target.cost.saturating_add(body.cost).saturating_add(2);
        let of = match body.of {
            of @ (Type::Optional(_) | Type::Dyn) if flat => of,
            of => Type::Optional(Rc::new(of)),
        };
        Checked { of, cost }
    }

    fn ident(&mut self, at: usize, name: &str) -> Checked<'s> {
        if let Some(of) = self.variable(name).cloned() {
            self.used.push(name.to_owned());
            return Checked { of, cost: READ };
        }
        if TYPE_NAMES.contains(&name) {
            return Checked { of: Type::Meta, cost: READ };
        }
        self.wrong(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn select(&mut self, at: usize, operand: Checked<'s>, field: &str, how: Access) -> Checked<'s> {
        let (inner, optional) = match &operand.of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let of = match &inner {
            Type::Dyn => Type::Dyn,
            Type::Map(key, value, _) if key.fits(&Type::Text(UNKNOWN)) => (**value).clone(),
            Type::Object(schema) => match field_type(*schema, field) {
                Some(of) => of,
                None => return self.wrong(at, format!("undefined field '{field}'")),
            },
            other => return self.wrong(at, format!("type '{other}' does not support field selection")),
        };
        let cost = operand.cost.saturating_add(READ);
        match how {
            // A test is free beside what it looks at.
            Access::Test => Checked { of: Type::Bool, cost: operand.cost },
            Access::Optional => Checked { of: Type::Optional(Rc::new(of)), cost },
            Access::Value if optional => Checked { of: Type::Optional(Rc::new(of)), cost },
            Access::Value => Checked { of, cost },
        }
    }

    fn index(&mut self, at: usize, operand: Checked<'s>, index: Checked<'s>, optional: bool) -> Checked<'s> {
        let (inner, wrapped) = match &operand.of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let of = match &inner {
            Type::Dyn => Some(Type::Dyn),
            Type::List(item, _) if Type::Int.fits(&index.of) => Some((**item).clone()),
            Type::Map(key, value, _) if key.fits(&index.of) => Some((**value).clone()),
            _ => None,
        };
        let Some(of) = of else {
            let types = format!("({}, {})", operand.of, index.of);
            return self.wrong(at, format!("found no matching overload for '_[_]' applied to '{types}'"));
        };
        let cost = operand.cost.saturating_add(index.cost).saturating_add(READ);
        let of = if optional || wrapped { Type::Optional(Rc::new(of)) } else { of };
        Checked { of, cost }
    }

    fn list(&mut self, items: &mut [(Expr, bool)]) -> Checked<'s> {
        let mixed = std::mem::take(&mut self.mixed);
        let (mut of, mut cost) = (None, MAKE_LIST);
        for (item, optional) in items.iter_mut() {
            let at = item.at;
            let checked = self.check(item);
            cost = cost.saturating_add(checked.cost);
            let inner = unwrapped(checked.of, *optional);
            of = match of {
                None => Some(inner),
                Some(known) => match Type::join(&known, &inner) {
                    Some(joined) => Some(joined),
                    None if mixed => Some(Type::Dyn),
                    None => return self.wrong(at, format!("expected type '{known}' but found '{inner}'")),
                },
            };
        }
        Checked { of: Type::List(Rc::new(of.unwrap_or(Type::Dyn)), items.len() as u64), cost }
    }

    fn map(&mut self, entries: &mut [(Expr, Expr, bool)]) -> Checked<'s> {
        let (mut keys, mut values, mut cost): (Option<Type<'s>>, Option<Type<'s>>, u64) = (None, None, MAKE_MAP);
        for (key, value, optional) in entries.iter_mut() {
            for (expr, optional, known) in [(key, false, &mut keys), (value, *optional, &mut values)] {
                let at = expr.at;
                let checked = self.check(expr);
                cost = cost.saturating_add(checked.cost);
                let inner = unwrapped(checked.of, optional);
                match known.as_ref().map(|known| known.join(&inner)) {
                    None => *known = Some(inner),
                    Some(Some(joined)) => *known = Some(joined),
                    Some(None) => {
                        let wanted = known.as_ref().map(ToString::to_string).unwrap_or_default();
                        return self.wrong(at, format!("expected type '{wanted}' but found '{inner}'"));
                    }
                }
            }
        }
        let (keys, values) = (keys.unwrap_or(Type::Dyn), values.unwrap_or(Type::Dyn));
        Checked { of: Type::Map(Rc::new(keys), Rc::new(values), entries.len() as u64), cost }
    }

    fn want_bool(&mut self, at: usize, of: &Type<'s>) {
        if !Type::Bool.fits(of) {
            self.wrong(at, format!("expected type 'bool' but found '{of}'"));
        }
    }

    fn call(
        &mut self,
        at: usize,
        name: &mut String,
        target: &mut Option<Box<Expr>>,
        args: &mut Vec<Expr>,
    ) -> Checked<'s> {
        // `sets.contains(a, b)` is a function of that name, unless there is a variable `sets`.
        if let Some(space) = target.as_ref().and_then(|target| target.ident())
            && self.variable(space).is_none()
            && !functions::named(&format!("{space}.{name}"), false).is_empty()
        {
            *name = format!("{space}.{name}");
            *target = None;
        }
        if let Some(target) = target.take() {
            // The rest of the way, a target is the first argument.
            args.insert(0, *target);
            return self.apply(at, name, true, args);
        }
        self.apply(at, name, false, args)
    }

    fn apply(&mut self, at: usize, name: &mut String, member: bool, args: &mut [Expr]) -> Checked<'s> {
        let before = self.faults.len();
        let mut checked: Vec<Checked<'s>> = Vec::with_capacity(args.len());
        for (index, arg) in args.iter_mut().enumerate() {
            self.mixed = name == "format" && index == 1 && matches!(arg.kind, Kind::List(_));
            checked.push(self.check(arg));
        }
        if self.faults.len() > before {
            return Checked { of: Type::Dyn, cost: 0 };
        }
        if !functions::exists(name) {
            return self.wrong(at, format!("undeclared reference to '{name}' (in container '')"));
        }
        let mut found: Option<(&'static Function, Type<'s>)> = None;
        let (mut cost, mut size) = (0, 0);
        let sizes: Vec<u64> = checked.iter().map(|arg| arg.of.size()).collect();
        for function in functions::named(name, member) {
            let mut bindings = Bindings::default();
            let fits = function.args.len() == checked.len()
                && function.args.iter().zip(&checked).all(|(pattern, arg)| bindings.take(*pattern, &arg.of));
            if !fits {
                continue;
            }
            // Where types are open, any of several may be called: the dearest counts.
            let result = (function.size)(&sizes);
            cost = cost.max(function.price.estimate(&sizes, result));
            size = size.max(result);
            let given = bindings.give(function.result);
            found = Some(match found {
                None => (function, given),
                Some((first, of)) => {
                    let joined = if of.fits(&given) && given.fits(&of) { of } else { Type::Dyn };
                    (first, joined)
                }
            });
        }
        let Some((_, of)) = found else {
            let types: Vec<String> = checked.iter().map(|arg| arg.of.to_string()).collect();
            let shown = if member {
                format!("{}.({})", types[0], types[1..].join(", "))
            } else {
                format!("({})", types.join(", "))
            };
            return self.wrong(at, format!("found no matching overload for '{name}' applied to '{shown}'"));
        };
        self.literal_expression(name, args);
        let of = match of {
            // What a list holds is as great as the texts it was made from.
            Type::List(item, _) => {
                let source = sizes.first().copied().unwrap_or(UNKNOWN);
                let item = if item.size() == UNKNOWN { (*item).clone().sized(source) } else { (*item).clone() };
                Type::List(Rc::new(item), size)
            }
            other if other.size() == UNKNOWN => other.sized(size),
            other => other,
        };
        let cost = checked.iter().fold(cost, |cost, arg| cost.saturating_add(arg.cost));
        Checked { of, cost }
    }

    /// A regular expression that is written down is read now, and refused if it is none.
    fn literal_expression(&mut self, name: &str, args: &[Expr]) {
        if !["matches", "find", "findAll"].contains(&name) {
            return;
        }
        let Some(Expr { kind: Kind::Text(text), at, .. }) = args.get(1) else { return };
        match functions::expression(text) {
            Ok(read) => drop(self.expressions.insert(text.clone(), read)),
            Err(why) => drop(self.wrong(*at, format!("invalid matches argument: {why}"))),
        }
    }

    fn loop_over(&mut self, inner: &mut Loop) -> Checked<'s> {
        let range = self.check(&mut inner.range);
        let (key, value) = match &range.of {
            Type::Dyn => (Type::Dyn, Type::Dyn),
            Type::List(item, _) => (Type::Int, (**item).clone()),
            Type::Map(key, value, _) => ((**key).clone(), (**value).clone()),
            other => {
                let what = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return self.wrong(inner.range.at, what);
            }
        };
        let keyed = matches!(range.of, Type::Map(..));
        let (first, second) = match &inner.second {
            Some(second) => (key.clone(), Some((second.clone(), value))),
            None => (if keyed { key.clone() } else { value }, None),
        };
        let scope = self.scope.len();
        self.scope.push((inner.first.clone(), first.clone()));
        self.scope.extend(second);
        let filter = inner.filter.as_mut().map(|filter| {
            let checked = self.check(filter);
            (filter.at, checked)
        });
        let transform = inner.transform.as_mut().map(|transform| self.check(transform));
        self.scope.truncate(scope);
        if let Some((at, filter)) = &filter {
            self.want_bool(*at, &filter.of);
        }
        let filter_cost = filter.map_or(0, |(_, filter)| filter.cost);
        let each = step(inner).saturating_add(filter_cost).saturating_add(transform.as_ref().map_or(0, |t| t.cost));
        let count = range.of.size();
        let cost = range.cost.saturating_add(start(inner)).saturating_add(each.saturating_mul(count));
        let of = match inner.how {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
            LoopKind::List => Type::List(Rc::new(transform.map_or(first, |transform| transform.of)), count),
            LoopKind::Map => Type::Map(Rc::new(key), Rc::new(transform.map_or(Type::Dyn, |t| t.of)), count),
        };
        Checked { of, cost }
    }
}

/// What each turn of a comprehension costs beside its expressions: the result so far is read, looked at, added to.
pub(crate) fn step(inner: &Loop) -> u64 {
    match inner.how {
        LoopKind::All => 3,
        LoopKind::Exists => 4,
        LoopKind::ExistsOne => 2,
        LoopKind::List => 2 + MAKE_LIST + u64::from(inner.transform.is_none()),
        LoopKind::Map => 2 + MAKE_MAP,
    }
}

/// What a comprehension costs once.
pub(crate) fn start(inner: &Loop) -> u64 {
    match inner.how {
        LoopKind::All | LoopKind::Exists => 1,
        LoopKind::ExistsOne => 2,
        LoopKind::List => 1 + MAKE_LIST,
        LoopKind::Map => 1 + MAKE_MAP,
    }
}

/// Names that stand for types.
pub(crate) const TYPE_NAMES: &[&str] =
    &["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"];

fn unwrapped(of: Type<'_>, optional: bool) -> Type<'_> {
    match of {
        Type::Optional(inner) if optional => (*inner).clone(),
        other => other,
    }
}
