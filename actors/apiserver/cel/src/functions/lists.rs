//! Lists, sets and optional values.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::{Answer, Function, Meter, bounded, mismatch, other};
use crate::cost::Price;
use crate::error::EvalError;
use crate::types::{Pattern as P, UNKNOWN};
use crate::value::{List, Value as V};

type Run = for<'v> fn(&mut Meter<'_>, &[V<'v>]) -> Answer<'v>;

const fn method(name: &'static str, args: &'static [P], result: P, price: Price, run: Run) -> Function {
    Function { name, member: true, args, result, price, size: |sizes| sizes[0], run }
}

const fn global(name: &'static str, args: &'static [P], result: P, price: Price, run: Run) -> Function {
    Function { name, member: false, args, result, price, size: |sizes| sizes.first().copied().unwrap_or(1), run }
}

pub(super) static FUNCTIONS: &[Function] = &[
    method("isSorted", &[P::List(&P::A)], P::Bool, Price::Items, |_, args| {
        let items = list(&args[0])?.all()?;
        for pair in items.windows(2) {
            if compare(&pair[0], &pair[1])?.is_gt() {
                return Ok(V::Bool(false));
            }
        }
        Ok(V::Bool(true))
    }),
    method("sum", &[P::List(&P::Int)], P::Int, Price::Items, sum),
    method("sum", &[P::List(&P::Uint)], P::Uint, Price::Items, sum),
    method("sum", &[P::List(&P::Double)], P::Double, Price::Items, sum),
    method("sum", &[P::List(&P::Duration)], P::Duration, Price::Items, sum),
    method("min", &[P::List(&P::A)], P::A, Price::Items, |_, args| best(&args[0], "min", Ordering::is_lt)),
    method("max", &[P::List(&P::A)], P::A, Price::Items, |_, args| best(&args[0], "max", Ordering::is_gt)),
    method("indexOf", &[P::List(&P::A), P::A], P::Int, Price::Items, |meter, args| position(meter, args, false)),
    method("lastIndexOf", &[P::List(&P::A), P::A], P::Int, Price::Items, |meter, args| position(meter, args, true)),
    method("slice", &[P::List(&P::A), P::Int, P::Int], P::List(&P::A), Price::Items, |_, args| {
        let list = list(&args[0])?;
        let (V::Int(start), V::Int(end)) = (&args[1], &args[2]) else { return mismatch() };
        let range = usize::try_from(*start).ok().zip(usize::try_from(*end).ok());
        match range.filter(|(start, end)| start <= end && *end <= list.len()) {
            Some((start, end)) => {
                let items = (start..end).filter_map(|index| list.get(index));
                Ok(V::list(items.collect::<Result<_, _>>()?))
            }
            None => other(format!("cannot slice({start}, {end}), list is length {}", list.len())),
        }
    }),
    method("reverse", &[P::List(&P::A)], P::List(&P::A), Price::Items, |_, args| {
        let mut items = list(&args[0])?.all()?;
        items.reverse();
        Ok(V::list(items))
    }),
    method("sort", &[P::List(&P::A)], P::List(&P::A), Price::Items, |meter, args| {
        let mut items = list(&args[0])?.all()?;
        for pair in items.windows(2) {
            compare(&pair[0], &pair[1])?;
        }
        meter.spend((items.len() as u64).saturating_mul(u64::from(items.len().max(1).ilog2())))?;
        items.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
        Ok(V::list(items))
    }),
    method("distinct", &[P::List(&P::A)], P::List(&P::A), Price::Items, |meter, args| {
        let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
        for item in list(&args[0])?.items() {
            let item = item?;
            let known = match item.key() {
                Some(key) => !seen.insert(key),
                None => contains(meter, &kept, &item)?,
            };
            if !known {
                kept.push(item);
            }
        }
        Ok(V::list(kept))
    }),
    Function {
        size: |_| UNKNOWN,
        ..method("flatten", &[P::List(&P::Dyn)], P::List(&P::Dyn), Price::Items, |meter, args| {
            let mut flat = Vec::new();
            for item in list(&args[0])?.items() {
                match item? {
                    V::List(inner) => {
                        meter.spend(inner.len() as u64)?;
                        bounded(flat.len() + inner.len())?;
                        flat.extend(inner.all()?);
                    }
                    item => flat.push(item),
                }
            }
            Ok(V::list(flat))
        })
    },
    Function {
        size: |_| UNKNOWN,
        ..global("lists.range", &[P::Int], P::List(&P::Int), Price::One, |meter, args| {
            let V::Int(count) = &args[0] else { return mismatch() };
            let count = (*count).max(0);
            meter.spend(count.unsigned_abs())?;
            Ok(V::list((0..count).map(V::Int).collect()))
        })
    },
    global("sets.contains", &[P::List(&P::A), P::List(&P::A)], P::Bool, Price::Pairs, |meter, args| {
        subset(meter, list(&args[1])?, list(&args[0])?).map(V::Bool)
    }),
    global("sets.equivalent", &[P::List(&P::A), P::List(&P::A)], P::Bool, Price::Pairs, |meter, args| {
        let (a, b) = (list(&args[0])?, list(&args[1])?);
        Ok(V::Bool(subset(meter, a, b)? && subset(meter, b, a)?))
    }),
    global("sets.intersects", &[P::List(&P::A), P::List(&P::A)], P::Bool, Price::Pairs, |meter, args| {
        let (a, b) = (list(&args[0])?.all()?, list(&args[1])?.all()?);
        for item in &a {
            if contains(meter, &b, item)? {
                return Ok(V::Bool(true));
            }
        }
        Ok(V::Bool(false))
    }),
    global("optional.of", &[P::A], P::Optional(&P::A), Price::One, |_, args| Ok(V::some(args[0].clone()))),
    global("optional.none", &[], P::Optional(&P::A), Price::One, |_, _| Ok(V::Optional(None))),
    global("optional.ofNonZeroValue", &[P::A], P::Optional(&P::A), Price::One, |_, args| {
        let zero = match &args[0] {
            V::Null | V::Bool(false) | V::Int(0) | V::Uint(0) | V::Duration(0) => true,
            V::Double(value) => *value == 0.0,
            V::Text(_) | V::Bytes(_) | V::List(_) | V::Map(_) => args[0].size() == 0,
            _ => false,
        };
        Ok(if zero { V::Optional(None) } else { V::some(args[0].clone()) })
    }),
    method("hasValue", &[P::Optional(&P::A)], P::Bool, Price::One, |_, args| match &args[0] {
        V::Optional(inner) => Ok(V::Bool(inner.is_some())),
        _ => mismatch(),
    }),
    method("value", &[P::Optional(&P::A)], P::A, Price::One, |_, args| match &args[0] {
        V::Optional(Some(inner)) => Ok((**inner).clone()),
        V::Optional(None) => other("optional.none() dereference"),
        _ => mismatch(),
    }),
    method("orValue", &[P::Optional(&P::A), P::A], P::A, Price::One, |_, args| match &args[0] {
        V::Optional(Some(inner)) => Ok((**inner).clone()),
        V::Optional(None) => Ok(args[1].clone()),
        _ => mismatch(),
    }),
    method("or", &[P::Optional(&P::A), P::Optional(&P::A)], P::Optional(&P::A), Price::One, |_, args| match &args[0] {
        V::Optional(None) => Ok(args[1].clone()),
        V::Optional(Some(_)) => Ok(args[0].clone()),
        _ => mismatch(),
    }),
];

fn list<'a, 'v>(value: &'a V<'v>) -> Result<&'a List<'v>, EvalError> {
    match value {
        V::List(list) => Ok(list),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn compare(a: &V<'_>, b: &V<'_>) -> Result<Ordering, EvalError> {
    a.compare(b).ok_or(EvalError::NoSuchOverload)
}

fn contains<'v>(meter: &mut Meter<'_>, items: &[V<'v>], wanted: &V<'v>) -> Result<bool, EvalError> {
    for item in items {
        meter.spend(1)?;
        if meter.equal(item, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn subset<'v>(meter: &mut Meter<'_>, part: &List<'v>, whole: &List<'v>) -> Result<bool, EvalError> {
    let whole = whole.all()?;
    for item in part.items() {
        if !contains(meter, &whole, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sum<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let mut total: Option<V<'v>> = None;
    for item in list(&args[0])?.items() {
        let item = item?;
        let overflow = || EvalError::other("integer overflow");
        total = Some(match (total, item) {
            (None, item) => item,
            (Some(V::Int(a)), V::Int(b)) => V::Int(a.checked_add(b).ok_or_else(overflow)?),
            (Some(V::Uint(a)), V::Uint(b)) => V::Uint(a.checked_add(b).ok_or_else(overflow)?),
            (Some(V::Duration(a)), V::Duration(b)) => V::Duration(a.checked_add(b).ok_or_else(overflow)?),
            (Some(V::Double(a)), V::Double(b)) => V::Double(a + b),
            _ => return mismatch(),
        });
    }
    Ok(total.unwrap_or(V::Int(0)))
}

fn best<'v>(value: &V<'v>, name: &str, better: fn(Ordering) -> bool) -> Answer<'v> {
    let mut best: Option<V<'v>> = None;
    for item in list(value)?.items() {
        let item = item?;
        let take = match &best {
            None => true,
            Some(best) => better(compare(&item, best)?),
        };
        if take {
            best = Some(item);
        }
    }
    best.map_or_else(|| other(format!("{name} called on empty list")), Ok)
}

fn position<'v>(meter: &mut Meter<'_>, args: &[V<'v>], last: bool) -> Answer<'v> {
    let list = list(&args[0])?;
    let mut found = -1;
    for (index, item) in list.items().enumerate() {
        if meter.equal(&item?, &args[1])? {
            found = i64::try_from(index).unwrap_or(i64::MAX);
            if !last {
                break;
            }
        }
    }
    Ok(V::Int(found))
}
