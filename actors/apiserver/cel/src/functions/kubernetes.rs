//! Quantities, versions and names, as Kubernetes writes them.

use std::rc::Rc;

use k3sd_objects::names;
use k3sd_objects::quantity::Quantity;

use super::{Answer, Function, Meter, mismatch, other};
use crate::cost::Price;
use crate::functions::strings::text;
use crate::types::{Opaque, Pattern as P};
use crate::value::Value as V;
use crate::version::Version;

type Run = for<'v> fn(&mut Meter<'_>, &[V<'v>]) -> Answer<'v>;

const QUANTITY: P = P::Opaque(Opaque::Quantity);
const SEMVER: P = P::Opaque(Opaque::Semver);
const FORMAT: P = P::Opaque(Opaque::Format);

const fn global(name: &'static str, args: &'static [P], result: P, run: Run) -> Function {
    Function { name, member: false, args, result, price: Price::Parse, size: |_| 1, run }
}

const fn method(name: &'static str, args: &'static [P], result: P, run: Run) -> Function {
    Function { name, member: true, args, result, price: Price::One, size: |_| 1, run }
}

/// A named format, as a function without arguments.
macro_rules! formats {
    ($($name:literal),*) => {
        &[$(Function {
            name: concat!("format.", $name),
            member: false,
            args: &[],
            result: FORMAT,
            price: Price::One,
            size: |_| 1,
            run: |_, _| Ok(V::Format($name)),
        }),*]
    };
}

pub(super) static FORMATS: &[Function] = formats!(
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime"
);

pub(super) static FUNCTIONS: &[Function] = &[
    global("quantity", &[P::Text], QUANTITY, |_, args| match text(&args[0])?.parse() {
        Ok(quantity) => Ok(V::Quantity(quantity)),
        Err(error) => other(format!("{error}")),
    }),
    global("isQuantity", &[P::Text], P::Bool, |_, args| Ok(V::Bool(text(&args[0])?.parse::<Quantity>().is_ok()))),
    method("sign", &[QUANTITY], P::Int, |_, args| with(args, |quantity| V::Int(quantity.signum().into()))),
    method("isInteger", &[QUANTITY], P::Bool, |_, args| {
        with(args, |quantity| V::Bool(quantity.exact_value().is_some()))
    }),
    method("asInteger", &[QUANTITY], P::Int, |_, args| match &args[0] {
        V::Quantity(quantity) => match quantity.exact_value() {
            Some(value) => Ok(V::Int(value)),
            None => other("cannot convert value to integer"),
        },
        _ => mismatch(),
    }),
    method("asApproximateFloat", &[QUANTITY], P::Double, |_, args| with(args, |quantity| V::Double(quantity.to_f64()))),
    method("isGreaterThan", &[QUANTITY, QUANTITY], P::Bool, |_, args| order(args, |order| V::Bool(order.is_gt()))),
    method("isLessThan", &[QUANTITY, QUANTITY], P::Bool, |_, args| order(args, |order| V::Bool(order.is_lt()))),
    method("compareTo", &[QUANTITY, QUANTITY], P::Int, |_, args| order(args, |order| V::Int(order as i64))),
    method("add", &[QUANTITY, QUANTITY], QUANTITY, |_, args| arithmetic(args, |a, b| a + b)),
    method("add", &[QUANTITY, P::Int], QUANTITY, |_, args| arithmetic(args, |a, b| a + b)),
    method("sub", &[QUANTITY, QUANTITY], QUANTITY, |_, args| arithmetic(args, |a, b| a - b)),
    method("sub", &[QUANTITY, P::Int], QUANTITY, |_, args| arithmetic(args, |a, b| a - b)),
    global("semver", &[P::Text], SEMVER, semver),
    global("semver", &[P::Text, P::Bool], SEMVER, semver),
    global("isSemver", &[P::Text], P::Bool, |meter, args| Ok(V::Bool(semver(meter, args).is_ok()))),
    global("isSemver", &[P::Text, P::Bool], P::Bool, |meter, args| Ok(V::Bool(semver(meter, args).is_ok()))),
    method("major", &[SEMVER], P::Int, |_, args| number(args, 0)),
    method("minor", &[SEMVER], P::Int, |_, args| number(args, 1)),
    method("patch", &[SEMVER], P::Int, |_, args| number(args, 2)),
    method("isGreaterThan", &[SEMVER, SEMVER], P::Bool, |_, args| order(args, |order| V::Bool(order.is_gt()))),
    method("isLessThan", &[SEMVER, SEMVER], P::Bool, |_, args| order(args, |order| V::Bool(order.is_lt()))),
    method("compareTo", &[SEMVER, SEMVER], P::Int, |_, args| order(args, |order| V::Int(order as i64))),
    global("format.named", &[P::Text], P::Optional(&FORMAT), |_, args| {
        let name = text(&args[0])?;
        let found = FORMATS.iter().find_map(|known| known.name.strip_prefix("format.").filter(|known| *known == name));
        Ok(found.map_or(V::Optional(None), |name| V::some(V::Format(name))))
    }),
    Function {
        price: Price::Second,
        ..method("validate", &[FORMAT, P::Text], P::Optional(&P::List(&P::Text)), |_, args| {
            let V::Format(name) = &args[0] else { return mismatch() };
            let faults = faults(name, text(&args[1])?);
            let faults: Vec<V<'_>> = faults.into_iter().map(V::text).collect();
            Ok(if faults.is_empty() { V::Optional(None) } else { V::some(V::list(faults)) })
        })
    },
];

fn with<'v>(args: &[V<'v>], make: fn(&Quantity) -> V<'static>) -> Answer<'v> {
    match &args[0] {
        V::Quantity(quantity) => Ok(make(quantity)),
        _ => mismatch(),
    }
}

fn order<'v>(args: &[V<'v>], make: fn(std::cmp::Ordering) -> V<'static>) -> Answer<'v> {
    args[0].compare(&args[1]).map_or_else(mismatch, |order| Ok(make(order)))
}

fn arithmetic<'v>(args: &[V<'v>], make: fn(Quantity, Quantity) -> Quantity) -> Answer<'v> {
    match (&args[0], &args[1]) {
        (V::Quantity(a), V::Quantity(b)) => Ok(V::Quantity(make(*a, *b))),
        (V::Quantity(a), V::Int(b)) => Ok(V::Quantity(make(*a, Quantity::from_i64(*b, a.format())))),
        _ => mismatch(),
    }
}

fn semver<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let (text, lenient) = (text(&args[0])?, matches!(args.get(1), Some(V::Bool(true))));
    match Version::parse(text, lenient) {
        Some(version) => Ok(V::Semver(Rc::new(version))),
        None => other(format!("semver parse error during conversion from string: {text:?}")),
    }
}

fn number<'v>(args: &[V<'v>], index: usize) -> Answer<'v> {
    match &args[0] {
        V::Semver(version) => Ok(V::Int(i64::try_from(version.numbers[index]).unwrap_or(i64::MAX))),
        _ => mismatch(),
    }
}

/// What is wrong with a text by one of the named formats.
fn faults(name: &str, text: &str) -> Vec<String> {
    let wrong = |good: bool, what: &str| if good { Vec::new() } else { vec![what.to_owned()] };
    match name {
        "dns1123Label" => names::dns_label(text),
        "dns1123Subdomain" => names::dns_subdomain(text),
        "dns1035Label" => names::dns_1035_label(text),
        "dns1123LabelPrefix" => names::dns_label(&names::as_prefix(text)),
        "dns1123SubdomainPrefix" => names::dns_subdomain(&names::as_prefix(text)),
        "dns1035LabelPrefix" => names::dns_1035_label(&names::as_prefix(text)),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        "uri" => wrong(crate::url::Url::parse(text).is_some(), "invalid URI"),
        "uuid" => wrong(is_uuid(text), "does not match the UUID format"),
        "byte" => {
            use base64::Engine as _;
            wrong(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64")
        }
        "date" => wrong(text.len() == 10 && crate::time::parse_any(text).is_some(), "invalid date"),
        "datetime" => wrong(crate::time::parse(text).is_some(), "invalid datetime"),
        _ => Vec::new(),
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit());
    hex && (lengths == [8, 4, 4, 4, 12] || lengths == [32])
}
