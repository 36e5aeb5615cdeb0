//! The value of an expression. Everything is paid for before it is done.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::ast::{Access, Expr, Kind, Loop, LoopKind};
use crate::check::{TYPE_NAMES, start, step};
use crate::cost::{MAKE_LIST, MAKE_MAP, READ};
use crate::error::EvalError;
use crate::functions::{self, Meter};
use crate::value::{Key, Map, Value};

/// One evaluation.
pub(crate) struct Evaluation<'p, 'v> {
    pub(crate) meter: Meter<'p>,
    /// Variables, inner ones last.
    pub(crate) scope: Vec<(&'p str, Value<'v>)>,
}

type Answer<'v> = Result<Value<'v>, EvalError>;

impl<'p, 'v> Evaluation<'p, 'v> {
    pub(crate) fn value(&mut self, expr: &'p Expr) -> Answer<'v> {
        match &expr.kind {
            Kind::Null => Ok(Value::Null),
            Kind::Bool(value) => Ok(Value::Bool(*value)),
            Kind::Int(value) => Ok(Value::Int(*value)),
            Kind::Uint(value) => Ok(Value::Uint(*value)),
            Kind::Double(value) => Ok(Value::Double(*value)),
            Kind::Text(text) => Ok(Value::text(text.as_str())),
            Kind::Bytes(bytes) => Ok(Value::Bytes(bytes.as_slice().into())),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, how } => {
                let operand = self.value(operand)?;
                self.select(operand, field, *how)
            }
            Kind::Index { operand, index, optional } => {
                let (operand, index) = (self.value(operand)?, self.value(index)?);
                self.index(operand, &index, *optional)
            }
            Kind::Call { name, args, .. } => self.call(name, args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::And(parts) => self.decide(parts, false),
            Kind::Or(parts) => self.decide(parts, true),
            Kind::If(parts) => match self.value(&parts[0])? {
                Value::Bool(true) => self.value(&parts[1]),
                Value::Bool(false) => self.value(&parts[2]),
                _ => Err(EvalError::NoSuchOverload),
            },
            Kind::Loop(inner) => self.run(inner),
            Kind::OptionalMap { target, variable, body, flat } => {
                let target = self.value(target)?;
                self.meter.spend(2)?;
                match target {
                    Value::Optional(None) => Ok(Value::Optional(None)),
                    Value::Optional(Some(inner)) => {
                        self.scope.push((variable, (*inner).clone()));
                        let body = self.value(body);
                        self.scope.pop();
                        if *flat { body } else { body.map(Value::some) }
                    }
                    _ => Err(EvalError::NoSuchOverload),
                }
            }
        }
    }

    fn ident(&mut self, name: &str) -> Answer<'v> {
        self.meter.spend(READ)?;
        if let Some((_, value)) = self.scope.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        let found = TYPE_NAMES.iter().find(|known| **known == name);
        found.map(|name| Value::Type(name)).ok_or_else(|| EvalError::other(format!("no such attribute(s): {name}")))
    }

    fn select(&mut self, operand: Value<'v>, field: &str, how: Access) -> Answer<'v> {
        if how != Access::Test {
            self.meter.spend(READ)?;
        }
        let (operand, optional) = match operand {
            Value::Optional(None) if how == Access::Test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, how == Access::Optional),
        };
        let Value::Map(map) = &operand else {
            return match (how, &operand) {
                (Access::Optional, Value::Null) => Ok(Value::Optional(None)),
                _ => Err(EvalError::NoSuchOverload),
            };
        };
        let found = map.field(field)?;
        if let Some(found) = &found {
            self.pay_for_reading(found)?;
        }
        match (how, found) {
            // Null says that there is nothing.
            (Access::Test, found) => Ok(Value::Bool(found.is_some_and(|found| !matches!(found, Value::Null)))),
            (_, found) if optional => Ok(found.map_or(Value::Optional(None), Value::some)),
            (_, found) => found.ok_or_else(|| EvalError::NoSuchKey(field.to_owned())),
        }
    }

    /// Bytes are decoded each time they are read.
    fn pay_for_reading(&mut self, value: &Value<'v>) -> Result<(), EvalError> {
        match value {
            Value::Bytes(bytes) => self.meter.spend(crate::cost::traverse(bytes.len() as u64)),
            _ => Ok(()),
        }
    }

    fn index(&mut self, operand: Value<'v>, index: &Value<'v>, optional: bool) -> Answer<'v> {
        self.meter.spend(READ)?;
        let (operand, optional) = match operand {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, optional),
        };
        let key = index.key().ok_or(EvalError::NoSuchOverload)?;
        let found = match (&operand, &key) {
            (Value::List(list), Key::Number(number)) => {
                let found = usize::try_from(*number).ok().and_then(|number| list.get(number)).transpose()?;
                found.ok_or_else(|| EvalError::other(format!("index out of bounds: {number}")))
            }
            (Value::Map(map), key) => map.get(key)?.ok_or_else(|| {
                let shown = match key {
                    Key::Text(text) => text.to_string(),
                    Key::Number(number) => number.to_string(),
                    Key::Bool(value) => value.to_string(),
                };
                EvalError::NoSuchKey(shown)
            }),
            _ => return Err(EvalError::NoSuchOverload),
        };
        if let Ok(found) = &found {
            self.pay_for_reading(found)?;
        }
        if optional { Ok(found.map_or(Value::Optional(None), Value::some)) } else { found }
    }

    fn call(&mut self, name: &str, args: &'p [Expr]) -> Answer<'v> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.value(arg)?);
        }
        // The compiler put a target before the other arguments, so that both kinds are looked at by name.
        let all = functions::named(name, true).iter().chain(functions::named(name, false));
        let fits = |function: &&&functions::Function| {
            function.args.len() == values.len()
                && function.args.iter().zip(&values).all(|(pattern, value)| value.fits(*pattern))
        };
        let Some(function) = all.clone().find(fits) else { return Err(EvalError::NoSuchOverload) };
        let sizes: Vec<u64> = values.iter().map(Value::size).collect();
        let price = |result| function.price.of(&sizes, result);
        if function.price == crate::cost::Price::Result {
            let result = (function.run)(&mut self.meter, &values)?;
            self.meter.spend(price(result.size()))?;
            return Ok(result);
        }
        self.meter.spend(price(0))?;
        (function.run)(&mut self.meter, &values)
    }

    fn list(&mut self, items: &'p [(Expr, bool)]) -> Answer<'v> {
        self.meter.spend(MAKE_LIST)?;
        let mut made = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.value(item)?, optional) {
                (Value::Optional(inner), true) => made.extend(inner.map(|inner| (*inner).clone())),
                (value, _) => made.push(value),
            }
        }
        Ok(Value::list(made))
    }

    fn map(&mut self, entries: &'p [(Expr, Expr, bool)]) -> Answer<'v> {
        self.meter.spend(MAKE_MAP)?;
        let mut made = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.value(key)?.key().ok_or_else(|| EvalError::other("unsupported key type"))?;
            let value = match (self.value(value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            if made.insert(key, value).is_some() {
                return Err(EvalError::other("Failed with repeated key"));
            }
        }
        Ok(Value::Map(Map::Made(Rc::new(made))))
    }

    /// `&&` and `||`: the value that decides wins over errors, wherever it stands.
    fn decide(&mut self, parts: &'p [Expr], decisive: bool) -> Answer<'v> {
        let mut failed = None;
        for part in parts {
            match self.value(part) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Err(EvalError::CostLimit) => return Err(EvalError::CostLimit),
                Err(error) => failed = failed.or(Some(error)),
                Ok(_) => failed = failed.or(Some(EvalError::NoSuchOverload)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn run(&mut self, inner: &'p Loop) -> Answer<'v> {
        let range = self.value(&inner.range)?;
        self.meter.spend(start(inner))?;
        let mut result = Outcome::default();
        let scope = self.scope.len();
        let answer = match &range {
            Value::List(list) => {
                let mut answer = Ok(());
                for index in 0..list.len() {
                    let item = list.get(index).unwrap_or(Err(EvalError::NoSuchOverload));
                    let key = Key::Number(i128::try_from(index).unwrap_or(i128::MAX));
                    answer = item.and_then(|item| self.turn(inner, &key, item, false, &mut result));
                    self.scope.truncate(scope);
                    if answer.is_err() || result.finished {
                        break;
                    }
                }
                answer
            }
            Value::Map(map) => {
                let mut answer = Ok(());
                for key in map.keys() {
                    let value = map.get(&key).and_then(|value| value.ok_or(EvalError::NoSuchOverload));
                    answer = value.and_then(|value| self.turn(inner, &key, value, true, &mut result));
                    self.scope.truncate(scope);
                    if answer.is_err() || result.finished {
                        break;
                    }
                }
                answer
            }
            _ => Err(EvalError::NoSuchOverload),
        };
        answer?;
        result.answer(inner.how)
    }

    /// One turn of a comprehension.
    fn turn(
        &mut self,
        inner: &'p Loop,
        key: &Key,
        value: Value<'v>,
        keyed: bool,
        result: &mut Outcome<'v>,
    ) -> Result<(), EvalError> {
        self.meter.spend(step(inner))?;
        let first = match &inner.second {
            Some(second) => {
                self.scope.push((second, value));
                key.value()
            }
            None if keyed => key.value(),
            None => value,
        };
        self.scope.push((&inner.first, first.clone()));
        let chosen = match inner.filter.as_ref().map(|filter| self.value(filter)) {
            None => true,
            Some(Ok(Value::Bool(chosen))) => chosen,
            Some(Err(EvalError::CostLimit)) => return Err(EvalError::CostLimit),
            // Another item may decide.
            Some(found) if matches!(inner.how, LoopKind::All | LoopKind::Exists) => {
                let error = found.err().unwrap_or(EvalError::NoSuchOverload);
                result.failed.get_or_insert(error);
                return Ok(());
            }
            Some(found) => return Err(found.err().unwrap_or(EvalError::NoSuchOverload)),
        };
        match inner.how {
            LoopKind::All => result.finished = !chosen,
            LoopKind::Exists => result.finished = chosen,
            _ if !chosen => {}
            LoopKind::ExistsOne => result.count += 1,
            LoopKind::List => {
                let item = match &inner.transform {
                    Some(transform) => self.value(transform)?,
                    None => first,
                };
                result.items.push(item);
            }
            LoopKind::Map => {
                let transform = inner.transform.as_ref().ok_or(EvalError::NoSuchOverload)?;
                let value = self.value(transform)?;
                result.entries.insert(key.clone(), value);
            }
        }
        Ok(())
    }
}

/// What a comprehension has found so far.
#[derive(Default)]
struct Outcome<'v> {
    /// The answer is known.
    finished: bool,
    count: u64,
    items: Vec<Value<'v>>,
    entries: BTreeMap<Key, Value<'v>>,
    failed: Option<EvalError>,
}

impl<'v> Outcome<'v> {
    fn answer(self, how: LoopKind) -> Answer<'v> {
        match how {
            LoopKind::All if self.finished => Ok(Value::Bool(false)),
            LoopKind::Exists if self.finished => Ok(Value::Bool(true)),
            LoopKind::All | LoopKind::Exists => match self.failed {
                Some(error) => Err(error),
                None => Ok(Value::Bool(how == LoopKind::All)),
            },
            LoopKind::ExistsOne => Ok(Value::Bool(self.count == 1)),
            LoopKind::List => Ok(Value::list(self.items)),
            LoopKind::Map => Ok(Value::Map(Map::Made(Rc::new(self.entries)))),
        }
    }
}
