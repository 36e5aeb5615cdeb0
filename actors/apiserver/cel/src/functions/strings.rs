//! Text. Places are counted in characters.

use super::{Answer, Function, Meter, bounded, mismatch, other};
use crate::cost::{Price, traverse};
use crate::error::EvalError;
use crate::functions::standard::show;
use crate::types::{Pattern as P, UNKNOWN};
use crate::value::{Key, Value as V};

type Run = for<'v> fn(&mut Meter<'_>, &[V<'v>]) -> Answer<'v>;

const fn method(name: &'static str, args: &'static [P], result: P, price: Price, run: Run) -> Function {
    Function { name, member: true, args, result, price, size: |sizes| sizes[0], run }
}

pub(super) static FUNCTIONS: &[Function] = &[
    method("contains", &[P::Text, P::Text], P::Bool, Price::Product, |_, a| two(a, |a, b| Ok(V::Bool(a.contains(b))))),
    method("startsWith", &[P::Text, P::Text], P::Bool, Price::Second, |_, a| {
        two(a, |a, b| Ok(V::Bool(a.starts_with(b))))
    }),
    method("endsWith", &[P::Text, P::Text], P::Bool, Price::Second, |_, a| two(a, |a, b| Ok(V::Bool(a.ends_with(b))))),
    method("matches", &[P::Text, P::Text], P::Bool, Price::Expression, matches),
    Function { member: false, ..method("matches", &[P::Text, P::Text], P::Bool, Price::Expression, matches) },
    method("find", &[P::Text, P::Text], P::Text, Price::Expression, |meter, args| {
        let (text, expression) = (text(&args[0])?, text(&args[1])?);
        let found = meter.expression(expression)?.find(text).map_or("", |found| found.as_str());
        Ok(V::text(found))
    }),
    method("findAll", &[P::Text, P::Text], P::List(&P::Text), Price::Expression, find_all),
    method("findAll", &[P::Text, P::Text, P::Int], P::List(&P::Text), Price::Expression, find_all),
    method("charAt", &[P::Text, P::Int], P::Text, Price::One, |meter, args| {
        let (text, V::Int(index)) = (text(&args[0])?, &args[1]) else { return mismatch() };
        meter.spend(traverse(text.len() as u64).saturating_sub(1))?;
        let count = text.chars().count();
        match usize::try_from(*index) {
            Ok(index) if index <= count => Ok(V::text(text.chars().nth(index).map(String::from).unwrap_or_default())),
            _ => other(format!("index out of range: {index}")),
        }
    }),
    method("indexOf", &[P::Text, P::Text], P::Int, Price::First, |meter, a| index_of(meter, a, false)),
    method("indexOf", &[P::Text, P::Text, P::Int], P::Int, Price::First, |meter, a| index_of(meter, a, false)),
    method("lastIndexOf", &[P::Text, P::Text], P::Int, Price::First, |meter, a| index_of(meter, a, true)),
    method("lastIndexOf", &[P::Text, P::Text, P::Int], P::Int, Price::First, |meter, a| index_of(meter, a, true)),
    method("lowerAscii", &[P::Text], P::Text, Price::First, |_, a| Ok(V::text(text(&a[0])?.to_ascii_lowercase()))),
    method("upperAscii", &[P::Text], P::Text, Price::First, |_, a| Ok(V::text(text(&a[0])?.to_ascii_uppercase()))),
    method("trim", &[P::Text], P::Text, Price::First, |_, a| Ok(V::text(text(&a[0])?.trim()))),
    method("reverse", &[P::Text], P::Text, Price::First, |_, a| {
        Ok(V::text(text(&a[0])?.chars().rev().collect::<String>()))
    }),
    method("substring", &[P::Text, P::Int], P::Text, Price::First, substring),
    method("substring", &[P::Text, P::Int, P::Int], P::Text, Price::First, substring),
    Function { size: replaced, ..method("replace", &[P::Text, P::Text, P::Text], P::Text, Price::FirstTwice, replace) },
    Function {
        size: replaced,
        ..method("replace", &[P::Text, P::Text, P::Text, P::Int], P::Text, Price::FirstTwice, replace)
    },
    method("split", &[P::Text, P::Text], P::List(&P::Text), Price::FirstTwice, split),
    method("split", &[P::Text, P::Text, P::Int], P::List(&P::Text), Price::FirstTwice, split),
    Function { size: |_| UNKNOWN, ..method("join", &[P::List(&P::Text)], P::Text, Price::Result, join) },
    Function { size: |_| UNKNOWN, ..method("join", &[P::List(&P::Text), P::Text], P::Text, Price::Result, join) },
    Function {
        size: |_| UNKNOWN,
        ..method("format", &[P::Text, P::List(&P::Dyn)], P::Text, Price::First, |meter, args| {
            let (form, V::List(list)) = (text(&args[0])?, &args[1]) else { return mismatch() };
            let made = format(form, &list.all()?)?;
            meter.spend(traverse(made.len() as u64))?;
            Ok(V::text(made))
        })
    },
    Function {
        member: false,
        size: |sizes| sizes[0].saturating_mul(2).saturating_add(2),
        ..method("strings.quote", &[P::Text], P::Text, Price::First, |_, a| Ok(V::text(quote(text(&a[0])?))))
    },
];

/// The greatest size when each character is replaced.
fn replaced(sizes: &[u64]) -> u64 {
    sizes[0].saturating_add(1).saturating_mul(sizes[2].max(1)).max(sizes[0])
}

pub(super) fn text<'a>(value: &'a V<'_>) -> Result<&'a str, EvalError> {
    match value {
        V::Text(text) => Ok(text),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn two<'v>(args: &[V<'v>], run: impl Fn(&str, &str) -> Answer<'v>) -> Answer<'v> {
    run(text(&args[0])?, text(&args[1])?)
}

fn matches<'v>(meter: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let (text, expression) = (text(&args[0])?, text(&args[1])?);
    Ok(V::Bool(meter.expression(expression)?.is_match(text)))
}

/// An optional limit: none if it is negative.
fn limit(args: &[V<'_>], at: usize) -> Option<usize> {
    match args.get(at) {
        Some(V::Int(limit)) => usize::try_from(*limit).ok(),
        _ => None,
    }
}

fn find_all<'v>(meter: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let (text, expression) = (text(&args[0])?, text(&args[1])?);
    let expression = meter.expression(expression)?;
    let found = expression.find_iter(text).take(limit(args, 2).unwrap_or(usize::MAX));
    Ok(V::list(found.map(|found| V::text(found.as_str())).collect()))
}

/// The offset in bytes of a character.
fn offset(text: &str, characters: usize) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(characters)
}

fn index_of<'v>(_: &mut Meter<'_>, args: &[V<'v>], last: bool) -> Answer<'v> {
    let (text, part) = (text(&args[0])?, text(&args[1])?);
    let from = match args.get(2) {
        Some(V::Int(from)) => {
            let at = usize::try_from(*from).ok().and_then(|from| offset(text, from));
            match at {
                Some(at) => Some(at),
                None => return other(format!("index out of range: {from}")),
            }
        }
        _ => None,
    };
    let found = if last {
        // A match may begin at the place, and reach beyond it.
        let end = from.map_or(text.len(), |from| (from + part.len()).min(text.len()));
        let end = (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
        text[..end].rfind(part).filter(|at| from.is_none_or(|from| *at <= from))
    } else {
        let from = from.unwrap_or(0);
        text[from..].find(part).map(|at| at + from)
    };
    let index = found.map(|at| text[..at].chars().count());
    Ok(V::Int(index.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1)))
}

fn substring<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let text = text(&args[0])?;
    let place = |value: &V<'_>| match value {
        V::Int(at) => usize::try_from(*at)
            .ok()
            .and_then(|at| offset(text, at))
            .ok_or_else(|| EvalError::other(format!("index out of range: {at}"))),
        _ => Err(EvalError::NoSuchOverload),
    };
    let start = place(&args[1])?;
    let end = args.get(2).map_or(Ok(text.len()), place)?;
    match text.get(start..end) {
        Some(part) => Ok(V::text(part)),
        None => other("invalid substring range"),
    }
}

fn replace<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let (text, from, to) = (text(&args[0])?, text(&args[1])?, text(&args[2])?);
    let count = limit(args, 3).unwrap_or(usize::MAX);
    let times = text.matches(from).take(count).count();
    bounded(times.saturating_mul(to.len()).saturating_add(text.len()))?;
    Ok(V::text(text.replacen(from, to, count)))
}

fn split<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let (text, mark) = (text(&args[0])?, text(&args[1])?);
    let count = limit(args, 2).unwrap_or(usize::MAX);
    let parts: Vec<V<'v>> = if count == 0 {
        Vec::new()
    } else if mark.is_empty() {
        // Every character on its own, and the rest together.
        let at = offset(text, count - 1).unwrap_or(text.len());
        let single = text[..at].chars().map(|c| V::text(c.to_string()));
        single.chain((at < text.len()).then(|| V::text(&text[at..]))).collect()
    } else {
        text.splitn(count, mark).map(V::text).collect()
    };
    Ok(V::list(parts))
}

fn join<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let V::List(list) = &args[0] else { return mismatch() };
    let mark = args.get(1).map_or(Ok(""), text)?;
    let mut joined = String::new();
    for (index, item) in list.items().enumerate() {
        if index > 0 {
            joined.push_str(mark);
        }
        joined.push_str(text(&item?)?);
        bounded(joined.len())?;
    }
    Ok(V::text(joined))
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%o`, `%x`, `%X` and `%%`, with a precision for fractions.
fn format(form: &str, args: &[V<'_>]) -> Result<String, EvalError> {
    let (mut made, mut letters, mut next) = (String::new(), form.chars(), args.iter());
    let wrong = |what: String| EvalError::other(format!("error during formatting: {what}"));
    while let Some(c) = letters.next() {
        if c != '%' {
            made.push(c);
            continue;
        }
        let mut clause = letters.next().ok_or_else(|| wrong("unexpected end of string".to_owned()))?;
        let mut precision = 6;
        if clause == '.' {
            let mut digits = String::new();
            clause = loop {
                match letters.next() {
                    Some(digit) if digit.is_ascii_digit() && digits.len() < 3 => digits.push(digit),
                    Some(other) => break other,
                    None => return Err(wrong("unexpected end of string".to_owned())),
                }
            };
            precision = digits.parse().unwrap_or(0);
        }
        if clause == '%' {
            made.push('%');
            continue;
        }
        let arg = next.next().ok_or_else(|| wrong(format!("index {} out of range", args.len())))?;
        let shown = one(clause, arg, precision);
        made.push_str(&shown.ok_or_else(|| wrong(format!("unrecognized formatting clause \"{clause}\"")))?);
        bounded(made.len())?;
    }
    Ok(made)
}

fn one(clause: char, arg: &V<'_>, precision: usize) -> Option<String> {
    Some(match (clause, arg) {
        ('s', arg) => plain(arg, 0)?,
        ('d', V::Int(_) | V::Uint(_)) => show(arg)?,
        #[expect(clippy::cast_precision_loss, reason = "it is shown as a fraction")]
        ('f', V::Int(value)) => format!("{:.precision$}", *value as f64),
        ('f', V::Double(value)) => format!("{value:.precision$}"),
        ('e', V::Double(value)) => {
            let shown = format!("{value:.precision$e}");
            let (number, exponent) = shown.split_once('e')?;
            let exponent: i32 = exponent.parse().ok()?;
            format!("{number}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        ('b', V::Int(value)) if *value < 0 => format!("-{:b}", value.unsigned_abs()),
        ('b', V::Int(value)) => format!("{value:b}"),
        ('b', V::Uint(value)) => format!("{value:b}"),
        ('b', V::Bool(value)) => u8::from(*value).to_string(),
        ('o', V::Int(value)) if *value < 0 => format!("-{:o}", value.unsigned_abs()),
        ('o', V::Int(value)) => format!("{value:o}"),
        ('o', V::Uint(value)) => format!("{value:o}"),
        ('x' | 'X', arg) => {
            let hex = match arg {
                V::Int(value) if *value < 0 => format!("-{:x}", value.unsigned_abs()),
                V::Int(value) => format!("{value:x}"),
                V::Uint(value) => format!("{value:x}"),
                V::Text(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                V::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                _ => return None,
            };
            if clause == 'X' { hex.to_uppercase() } else { hex }
        }
        _ => return None,
    })
}

/// Any value as text. Lists and maps within lists and maps, but not without end.
fn plain(value: &V<'_>, depth: usize) -> Option<String> {
    const DEPTH_MAX: usize = 32;
    if depth > DEPTH_MAX {
        return None;
    }
    match value {
        V::Null => Some("null".to_owned()),
        V::List(list) => {
            let items: Option<Vec<String>> = list.items().map(|item| plain(&item.ok()?, depth + 1)).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        V::Map(map) => {
            let entries = map.keys().into_iter().map(|key| {
                let value = map.get(&key).ok()??;
                let key: &Key = &key;
                Some(format!("{}: {}", plain(&key.value(), depth + 1)?, plain(&value, depth + 1)?))
            });
            Some(format!("{{{}}}", entries.collect::<Option<Vec<String>>>()?.join(", ")))
        }
        other => show(other),
    }
}
