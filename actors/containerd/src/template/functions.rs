//! What a template can call.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Value;

/// Whether a condition holds: nothing, zero and what is empty don't.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value in the output.
pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", print(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let one = || match arguments {
        [one] => Ok(one),
        _ => Err(format!("{name} takes one value, not {}", arguments.len())),
    };
    match name {
        "not" => Ok((!is_true(one()?)).into()),
        "and" => Ok(arguments.iter().find(|value| !is_true(value)).or(arguments.last()).cloned().unwrap_or_default()),
        "or" => Ok(arguments.iter().find(|value| is_true(value)).or(arguments.last()).cloned().unwrap_or_default()),
        "eq" => match arguments {
            [first, others @ ..] if !others.is_empty() => Ok(others.contains(first).into()),
            _ => Err("eq takes two values or more".to_owned()),
        },
        "ne" | "lt" | "le" | "gt" | "ge" => compare(name, arguments).map(Value::Bool),
        "len" => match one()? {
            Value::String(text) => Ok(text.len().into()),
            Value::Array(items) => Ok(items.len().into()),
            Value::Object(map) => Ok(map.len().into()),
            other => Err(format!("len of {other} has no meaning")),
        },
        "index" => index(arguments),
        "print" => Ok(arguments.iter().map(print).collect::<String>().into()),
        "println" => Ok((arguments.iter().map(print).collect::<Vec<_>>().join(" ") + "\n").into()),
        "printf" => printf(arguments).map(Value::String),
        "toJson" => Ok(one()?.to_string().into()),
        "deschemify" => {
            let text = print(one()?);
            Ok(text.split_once("://").map_or(text.as_str(), |(_, rest)| rest).to_owned().into())
        }
        "filepathjoin" => Ok(join(arguments).into()),
        _ => Err(format!("there is no function {name:?}")),
    }
}

fn compare(name: &str, arguments: &[Value]) -> Result<bool, String> {
    let [first, second] = arguments else { return Err(format!("{name} takes two values")) };
    if name == "ne" {
        return Ok(first != second);
    }
    let order = match (first, second) {
        (Value::String(first), Value::String(second)) => first.cmp(second),
        (Value::Number(first), Value::Number(second)) => {
            first.as_f64().partial_cmp(&second.as_f64()).unwrap_or(Ordering::Equal)
        }
        _ => return Err(format!("{name} can't compare {first} with {second}")),
    };
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let Some((value, keys)) = arguments.split_first() else { return Err("index needs a value".to_owned()) };
    let mut found = value;
    for key in keys {
        let next = match (found, key) {
            (Value::Array(items), Value::Number(number)) => {
                number.as_u64().and_then(|number| items.get(usize::try_from(number).ok()?))
            }
            // A key that a map doesn't have is nothing, as in Go.
            (Value::Object(map), Value::String(key)) => Some(map.get(key).unwrap_or(&Value::Null)),
            _ => None,
        };
        found = next.ok_or_else(|| format!("index {key} is not in {found}"))?;
    }
    Ok(found.clone())
}

fn printf(arguments: &[Value]) -> Result<String, String> {
    let Some((Value::String(format), values)) = arguments.split_first() else {
        return Err("printf needs a format".to_owned());
    };
    let (mut out, mut chars, mut values) = (String::new(), format.chars(), values.iter());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let verb = chars.next().ok_or("the format ends within a verb")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("the format has no value for %{verb}"))?;
        match verb {
            's' | 'v' | 'd' | 't' => out.push_str(&print(value)),
            'q' => write!(out, "{}", Value::String(print(value))).expect("writing to a string"),
            other => return Err(format!("the verb %{other} is not known")),
        }
    }
    Ok(out)
}

/// Paths put together, and cleaned as Go does.
fn join(arguments: &[Value]) -> String {
    let parts: Vec<String> = arguments.iter().map(print).filter(|part| !part.is_empty()).collect();
    let whole = parts.join("/");
    let is_rooted = whole.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if is_rooted => {}
            part => kept.push(part),
        }
    }
    let path = kept.join("/");
    match (is_rooted, path.is_empty()) {
        (true, _) => format!("/{path}"),
        (false, true) if parts.is_empty() => String::new(),
        (false, true) => ".".to_owned(),
        (false, false) => path,
    }
}
