//! Operators, conversions and what every expression has.

use std::cmp::Ordering;
use std::rc::Rc;

use super::{Answer, Function, Meter, bounded, mismatch, other};
use crate::cost::Price;
use crate::time;
use crate::types::{Pattern as P, UNKNOWN};
use crate::value::{Text, Value as V};

const fn operator(
    name: &'static str,
    args: &'static [P],
    result: P,
    run: for<'v> fn(&mut Meter<'_>, &[V<'v>]) -> Answer<'v>,
) -> Function {
    Function { name, member: false, args, result, price: Price::One, size: |_| 1, run }
}

/// A comparison, priced by the shorter one.
const fn comparison(
    name: &'static str,
    args: &'static [P],
    run: for<'v> fn(&mut Meter<'_>, &[V<'v>]) -> Answer<'v>,
) -> Function {
    Function { name, member: false, args, result: P::Bool, price: Price::Shorter, size: |_| 1, run }
}

/// A conversion, priced by what is read.
const fn conversion(
    name: &'static str,
    args: &'static [P],
    result: P,
    run: for<'v> fn(&mut Meter<'_>, &[V<'v>]) -> Answer<'v>,
) -> Function {
    Function { name, member: false, args, result, price: Price::First, size: |sizes| sizes[0].max(32), run }
}

macro_rules! ordered {
    ($($args:expr),*) => {
        &[$(
            comparison("_<_", $args, |_, args| order(args, Ordering::is_lt)),
            comparison("_<=_", $args, |_, args| order(args, Ordering::is_le)),
            comparison("_>_", $args, |_, args| order(args, Ordering::is_gt)),
            comparison("_>=_", $args, |_, args| order(args, Ordering::is_ge)),
        )*]
    };
}

pub(super) static ORDERED: &[Function] = ordered!(
    &[P::Int, P::Int],
    &[P::Uint, P::Uint],
    &[P::Double, P::Double],
    &[P::Text, P::Text],
    &[P::Bool, P::Bool],
    &[P::Bytes, P::Bytes],
    &[P::Timestamp, P::Timestamp],
    &[P::Duration, P::Duration],
    &[P::Int, P::Double],
    &[P::Int, P::Uint],
    &[P::Double, P::Int],
    &[P::Double, P::Uint],
    &[P::Uint, P::Int],
    &[P::Uint, P::Double]
);

pub(super) static FUNCTIONS: &[Function] = &[
    comparison("_==_", &[P::A, P::A], |meter, args| Ok(V::Bool(meter.equal(&args[0], &args[1])?))),
    comparison("_!=_", &[P::A, P::A], |meter, args| Ok(V::Bool(!meter.equal(&args[0], &args[1])?))),
    Function {
        name: "@in",
        member: false,
        args: &[P::A, P::List(&P::A)],
        result: P::Bool,
        price: Price::ItemsOfSecond,
        size: |_| 1,
        run: |meter, args| {
            let V::List(list) = &args[1] else { return mismatch() };
            for item in list.items() {
                if meter.equal(&args[0], &item?)? {
                    return Ok(V::Bool(true));
                }
            }
            Ok(V::Bool(false))
        },
    },
    operator("@in", &[P::A, P::Map(&P::A, &P::B)], P::Bool, |_, args| {
        let V::Map(map) = &args[1] else { return mismatch() };
        let found = args[0].key().map(|key| map.get(&key)).transpose()?.flatten();
        Ok(V::Bool(found.is_some()))
    }),
    operator("!_", &[P::Bool], P::Bool, |_, args| match args {
        [V::Bool(value)] => Ok(V::Bool(!value)),
        _ => mismatch(),
    }),
    operator("-_", &[P::Int], P::Int, |_, args| match args {
        [V::Int(value)] => value.checked_neg().map_or_else(|| other("integer overflow"), |value| Ok(V::Int(value))),
        _ => mismatch(),
    }),
    operator("-_", &[P::Double], P::Double, |_, args| match args {
        [V::Double(value)] => Ok(V::Double(-value)),
        _ => mismatch(),
    }),
    Function {
        name: "_+_",
        member: false,
        args: &[P::Text, P::Text],
        result: P::Text,
        price: Price::Both,
        size: |sizes| sizes[0].saturating_add(sizes[1]),
        run: add,
    },
    Function {
        name: "_+_",
        member: false,
        args: &[P::Bytes, P::Bytes],
        result: P::Bytes,
        price: Price::Both,
        size: |sizes| sizes[0].saturating_add(sizes[1]),
        run: add,
    },
    Function {
        name: "_+_",
        member: false,
        args: &[P::List(&P::A), P::List(&P::A)],
        result: P::List(&P::A),
        price: Price::One,
        size: |sizes| sizes[0].saturating_add(sizes[1]),
        run: add,
    },
    operator("_+_", &[P::Int, P::Int], P::Int, add),
    operator("_+_", &[P::Uint, P::Uint], P::Uint, add),
    operator("_+_", &[P::Double, P::Double], P::Double, add),
    operator("_+_", &[P::Timestamp, P::Duration], P::Timestamp, add),
    operator("_+_", &[P::Duration, P::Timestamp], P::Timestamp, add),
    operator("_+_", &[P::Duration, P::Duration], P::Duration, add),
    operator("_-_", &[P::Int, P::Int], P::Int, subtract),
    operator("_-_", &[P::Uint, P::Uint], P::Uint, subtract),
    operator("_-_", &[P::Double, P::Double], P::Double, subtract),
    operator("_-_", &[P::Timestamp, P::Timestamp], P::Duration, subtract),
    operator("_-_", &[P::Timestamp, P::Duration], P::Timestamp, subtract),
    operator("_-_", &[P::Duration, P::Duration], P::Duration, subtract),
    operator("_*_", &[P::Int, P::Int], P::Int, multiply),
    operator("_*_", &[P::Uint, P::Uint], P::Uint, multiply),
    operator("_*_", &[P::Double, P::Double], P::Double, multiply),
    operator("_/_", &[P::Int, P::Int], P::Int, divide),
    operator("_/_", &[P::Uint, P::Uint], P::Uint, divide),
    operator("_/_", &[P::Double, P::Double], P::Double, divide),
    operator("_%_", &[P::Int, P::Int], P::Int, remainder),
    operator("_%_", &[P::Uint, P::Uint], P::Uint, remainder),
    Function {
        name: "size",
        member: true,
        args: &[P::Text],
        result: P::Int,
        price: Price::Count,
        size: |_| 1,
        run: size,
    },
    Function {
        name: "size",
        member: false,
        args: &[P::Text],
        result: P::Int,
        price: Price::Count,
        size: |_| 1,
        run: size,
    },
    Function { member: true, ..operator("size", &[P::Bytes], P::Int, size) },
    Function { member: true, ..operator("size", &[P::List(&P::A)], P::Int, size) },
    Function { member: true, ..operator("size", &[P::Map(&P::A, &P::B)], P::Int, size) },
    operator("size", &[P::Bytes], P::Int, size),
    operator("size", &[P::List(&P::A)], P::Int, size),
    operator("size", &[P::Map(&P::A, &P::B)], P::Int, size),
    operator("type", &[P::Dyn], P::Type, |_, args| Ok(V::Type(args[0].type_name()))),
    Function { size: |_| UNKNOWN, ..operator("dyn", &[P::Dyn], P::Dyn, |_, args| Ok(args[0].clone())) },
    operator("int", &[P::Int], P::Int, |_, args| Ok(args[0].clone())),
    operator("int", &[P::Uint], P::Int, int),
    operator("int", &[P::Double], P::Int, int),
    conversion("int", &[P::Text], P::Int, int),
    operator("int", &[P::Timestamp], P::Int, int),
    operator("int", &[P::Duration], P::Int, int),
    operator("uint", &[P::Uint], P::Uint, |_, args| Ok(args[0].clone())),
    operator("uint", &[P::Int], P::Uint, uint),
    operator("uint", &[P::Double], P::Uint, uint),
    conversion("uint", &[P::Text], P::Uint, uint),
    operator("double", &[P::Double], P::Double, |_, args| Ok(args[0].clone())),
    operator("double", &[P::Int], P::Double, double),
    operator("double", &[P::Uint], P::Double, double),
    conversion("double", &[P::Text], P::Double, double),
    operator("bool", &[P::Bool], P::Bool, |_, args| Ok(args[0].clone())),
    conversion("bool", &[P::Text], P::Bool, |_, args| match &args[0] {
        V::Text(text) => match &**text {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(V::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(V::Bool(false)),
            _ => other(format!("type conversion error from 'string' to 'bool': {}", &**text)),
        },
        _ => mismatch(),
    }),
    conversion("string", &[P::Text], P::Text, |_, args| Ok(args[0].clone())),
    conversion("string", &[P::Int], P::Text, string),
    conversion("string", &[P::Uint], P::Text, string),
    conversion("string", &[P::Double], P::Text, string),
    conversion("string", &[P::Bool], P::Text, string),
    conversion("string", &[P::Bytes], P::Text, string),
    conversion("string", &[P::Timestamp], P::Text, string),
    conversion("string", &[P::Duration], P::Text, string),
    conversion("bytes", &[P::Bytes], P::Bytes, |_, args| Ok(args[0].clone())),
    conversion("bytes", &[P::Text], P::Bytes, |_, args| match &args[0] {
        V::Text(text) => Ok(V::Bytes(Rc::from(text.as_bytes()))),
        _ => mismatch(),
    }),
];

fn order<'v>(args: &[V<'v>], fits: fn(Ordering) -> bool) -> Answer<'v> {
    match args[0].compare(&args[1]) {
        Some(found) => Ok(V::Bool(fits(found))),
        None if matches!((&args[0], &args[1]), (V::Double(_), _) | (_, V::Double(_))) => {
            other("NaN values cannot be ordered")
        }
        None => mismatch(),
    }
}

fn checked<'v, T>(value: Option<T>, wrap: fn(T) -> V<'v>, what: &str) -> Answer<'v> {
    value.map_or_else(|| other(format!("{what} overflow")), |value| Ok(wrap(value)))
}

fn add<'v>(meter: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    match (&args[0], &args[1]) {
        (V::Int(a), V::Int(b)) => checked(a.checked_add(*b), V::Int, "integer"),
        (V::Uint(a), V::Uint(b)) => checked(a.checked_add(*b), V::Uint, "unsigned integer"),
        (V::Double(a), V::Double(b)) => Ok(V::Double(a + b)),
        (V::Text(a), V::Text(b)) => {
            bounded(a.len() + b.len())?;
            Ok(V::text(format!("{}{}", &**a, &**b)))
        }
        (V::Bytes(a), V::Bytes(b)) => {
            bounded(a.len() + b.len())?;
            Ok(V::Bytes([&**a, &**b].concat().into()))
        }
        (V::List(a), V::List(b)) => {
            let count = bounded(a.len() + b.len())?;
            meter.spend(crate::cost::traverse(count as u64).saturating_sub(1))?;
            let mut items = a.all()?;
            items.extend(b.all()?);
            Ok(V::list(items))
        }
        (V::Timestamp(moment), V::Duration(span)) | (V::Duration(span), V::Timestamp(moment)) => {
            checked(time::later(*moment, *span), V::Timestamp, "timestamp")
        }
        (V::Duration(a), V::Duration(b)) => checked(a.checked_add(*b), V::Duration, "duration"),
        _ => mismatch(),
    }
}

fn subtract<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    match (&args[0], &args[1]) {
        (V::Int(a), V::Int(b)) => checked(a.checked_sub(*b), V::Int, "integer"),
        (V::Uint(a), V::Uint(b)) => checked(a.checked_sub(*b), V::Uint, "unsigned integer"),
        (V::Double(a), V::Double(b)) => Ok(V::Double(a - b)),
        (V::Timestamp(a), V::Timestamp(b)) => checked(time::between(*a, *b), V::Duration, "duration"),
        (V::Timestamp(moment), V::Duration(span)) => {
            let earlier = span.checked_neg().and_then(|span| time::later(*moment, span));
            checked(earlier, V::Timestamp, "timestamp")
        }
        (V::Duration(a), V::Duration(b)) => checked(a.checked_sub(*b), V::Duration, "duration"),
        _ => mismatch(),
    }
}

fn multiply<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    match (&args[0], &args[1]) {
        (V::Int(a), V::Int(b)) => checked(a.checked_mul(*b), V::Int, "integer"),
        (V::Uint(a), V::Uint(b)) => checked(a.checked_mul(*b), V::Uint, "unsigned integer"),
        (V::Double(a), V::Double(b)) => Ok(V::Double(a * b)),
        _ => mismatch(),
    }
}

fn divide<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    match (&args[0], &args[1]) {
        (V::Int(_), V::Int(0)) | (V::Uint(_), V::Uint(0)) => other("division by zero"),
        (V::Int(a), V::Int(b)) => checked(a.checked_div(*b), V::Int, "integer"),
        (V::Uint(a), V::Uint(b)) => Ok(V::Uint(a / b)),
        (V::Double(a), V::Double(b)) => Ok(V::Double(a / b)),
        _ => mismatch(),
    }
}

fn remainder<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    match (&args[0], &args[1]) {
        (V::Int(_), V::Int(0)) | (V::Uint(_), V::Uint(0)) => other("modulus by zero"),
        (V::Int(a), V::Int(b)) => checked(a.checked_rem(*b), V::Int, "integer"),
        (V::Uint(a), V::Uint(b)) => Ok(V::Uint(a % b)),
        _ => mismatch(),
    }
}

/// Characters of a text that are counted for one unit.
const COUNTED: usize = 1000;

fn size<'v>(meter: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let size = match &args[0] {
        V::Text(text) => {
            meter.spend((text.len() / COUNTED) as u64)?;
            text.chars().count()
        }
        V::Bytes(bytes) => bytes.len(),
        V::List(list) => list.len(),
        V::Map(map) => map.len(),
        _ => return mismatch(),
    };
    Ok(V::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn int<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    match &args[0] {
        V::Uint(value) => checked(i64::try_from(*value).ok(), V::Int, "integer"),
        // The ends themselves are no whole numbers of 64 bits once they are floats.
        V::Double(value) => {
            checked((value.abs() < 9.223_372_036_854_776e18).then_some(*value as i64), V::Int, "integer")
        }
        V::Text(text) => match text.parse() {
            Ok(value) => Ok(V::Int(value)),
            Err(_) => other(format!("type conversion error from 'string' to 'int': {}", &**text)),
        },
        V::Timestamp(moment) => Ok(V::Int(moment.as_second())),
        V::Duration(nanos) => Ok(V::Int(*nanos)),
        _ => mismatch(),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
fn uint<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    match &args[0] {
        V::Int(value) => checked(u64::try_from(*value).ok(), V::Uint, "unsigned integer"),
        V::Double(value) => {
            let fits = (0.0..1.844_674_407_370_955_2e19).contains(value);
            checked(fits.then_some(*value as u64), V::Uint, "unsigned integer")
        }
        V::Text(text) => match text.parse() {
            Ok(value) => Ok(V::Uint(value)),
            Err(_) => other(format!("type conversion error from 'string' to 'uint': {}", &**text)),
        },
        _ => mismatch(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "that is what the conversion does")]
fn double<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    match &args[0] {
        V::Int(value) => Ok(V::Double(*value as f64)),
        V::Uint(value) => Ok(V::Double(*value as f64)),
        V::Text(text) => match text.parse() {
            Ok(value) => Ok(V::Double(value)),
            Err(_) => other(format!("type conversion error from 'string' to 'double': {}", &**text)),
        },
        _ => mismatch(),
    }
}

fn string<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    if let V::Text(Text::Borrowed(_)) = &args[0] {
        return Ok(args[0].clone());
    }
    show(&args[0]).map_or_else(mismatch, |text| Ok(V::text(text)))
}

/// A scalar as text.
pub(super) fn show(value: &V<'_>) -> Option<String> {
    Some(match value {
        V::Text(text) => text.to_string(),
        V::Int(value) => value.to_string(),
        V::Uint(value) => value.to_string(),
        V::Double(value) if value.is_infinite() => if *value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        V::Double(value) => value.to_string(),
        V::Bool(value) => value.to_string(),
        V::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        V::Timestamp(moment) => time::show(*moment),
        V::Duration(nanos) => time::show_duration(*nanos),
        V::Type(name) => (*name).to_owned(),
        V::Ip(address) => address.to_string(),
        V::Cidr(address, bits) => format!("{address}/{bits}"),
        _ => return None,
    })
}
