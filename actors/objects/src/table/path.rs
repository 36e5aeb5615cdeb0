//! JSON paths, as definitions of custom resources use them: for columns, for the fields of scaling and of selectors.
//!
//! `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`, `.a['b.c']`, `.list[0]`, `.list[-1]`, `.list[*].x`

use serde_json::Value;
use thiserror::Error;

/// Steps of one path.
const STEPS_MAX: usize = 64;

/// Length of a path, which also bounds how many filters there can be within filters.
const TEXT_BYTES_MAX: usize = 1024;

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is no JSON path that is understood here")]
pub struct PathError {
    /// The text.
    pub text: String,
}

/// A path that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose value at a path compares with another.
    Where(JsonPath, Comparison, Value),
    /// Items that have a value at a path.
    Having(JsonPath),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
}

impl JsonPath {
    /// Reads a path. The braces that `kubectl` wants around it may be there.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let inner = text.trim();
        if inner.len() > TEXT_BYTES_MAX {
            return Err(PathError { text: inner.chars().take(TEXT_BYTES_MAX).collect() });
        }
        let inner = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(inner);
        steps(inner.strip_prefix('$').unwrap_or(inner)).ok_or_else(|| PathError { text: text.to_owned() })
    }

    /// All values that the path leads to.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.follow(value)).collect();
        }
        found
    }

    /// The first value that the path leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }

    /// The names of a path of plain fields; none for paths with anything else in them.
    pub fn fields(&self) -> Option<Vec<&str>> {
        let mut names = Vec::with_capacity(self.0.len());
        for step in &self.0 {
            let Step::Field(name) = step else { return None };
            names.push(name.as_str());
        }
        Some(names)
    }
}

fn steps(mut text: &str) -> Option<JsonPath> {
    let mut steps = Vec::new();
    while !text.is_empty() && steps.len() < STEPS_MAX {
        let (step, rest) = if let Some(inner) = text.strip_prefix('[') {
            let end = closing(inner)?;
            (bracket(&inner[..end])?, &inner[end + 1..])
        } else if let Some(inner) = text.strip_prefix('.') {
            // A dot may stand before a bracket, and one alone is the whole.
            if inner.starts_with('[') || (inner.is_empty() && steps.is_empty()) {
                text = inner;
                continue;
            }
            let end = name_end(inner);
            let name = inner[..end].replace('\\', "");
            (if name == "*" { Step::All } else { Step::Field(name) }, &inner[end..])
        } else {
            return None;
        };
        if step == Step::Field(String::new()) {
            return None;
        }
        steps.push(step);
        text = rest;
    }
    text.is_empty().then_some(JsonPath(steps))
}

/// Where a name ends; a dot behind a backslash is part of it.
fn name_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '.' | '[' => return at,
            _ => {}
        }
    }
    text.len()
}

/// Where the bracket that is open closes, quotes and brackets within considered.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquote(inner) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        return filter(condition.trim());
    }
    inner.parse().ok().map(Step::Index)
}

fn filter(condition: &str) -> Option<Step> {
    let (left, comparison, right) = match (condition.split_once("=="), condition.split_once("!=")) {
        (Some((left, right)), _) => (left, Comparison::Equal, right),
        (_, Some((left, right))) => (left, Comparison::Unequal, right),
        _ => return steps(condition.strip_prefix('@')?).map(Step::Having),
    };
    let path = steps(left.trim().strip_prefix('@')?)?;
    let right = right.trim();
    let wanted = match unquote(right) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Where(path, comparison, wanted))
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

impl Step {
    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let items = || value.as_array().map_or(&[][..], Vec::as_slice);
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let count = i64::try_from(items().len()).unwrap_or(i64::MAX);
                let index = if *index < 0 { index.saturating_add(count) } else { *index };
                usize::try_from(index).ok().and_then(|index| items().get(index)).into_iter().collect()
            }
            Self::All => match value {
                Value::Object(map) => map.values().collect(),
                _ => items().iter().collect(),
            },
            Self::Where(path, comparison, wanted) => {
                let fits = |item: &&Value| match path.first(item) {
                    Some(found) => (found == wanted) == (*comparison == Comparison::Equal),
                    None => false,
                };
                items().iter().filter(fits).collect()
            }
            Self::Having(path) => items().iter().filter(|item| path.first(item).is_some()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let value = json!({ "spec": { "a": 1, "b.c": 2, "list": [{ "n": "x", "v": 1 }, { "n": "y", "v": 2 }, { "n": "z" }] },
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Other", "status": "False" }] });
        for (path, found) in [
            (".spec.a", json!([1])),
            ("{.spec.a}", json!([1])),
            ("$.spec.a", json!([1])),
            (".spec['b.c']", json!([2])),
            (".spec.b\\.c", json!([2])),
            (".spec.list[0].n", json!(["x"])),
            (".spec.list[-1].n", json!(["z"])),
            (".spec.list[9].n", json!([])),
            (".spec.list[*].v", json!([1, 2])),
            (".conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".conditions[?(@.type=='Nope')].status", json!([])),
            (".conditions[?(@.type!='Ready')].status", json!(["False"])),
            (".spec.list[?(@.v==2)].n", json!(["y"])),
            (".spec.list[?(@.v)].n", json!(["x", "y"])),
            (".nothing.at.all", json!([])),
        ] {
            let parsed = JsonPath::parse(path).unwrap();
            let values: Vec<Value> = parsed.find(&value).into_iter().cloned().collect();
            assert_eq!(Value::from(values), found, "{path}");
        }
        assert_eq!(JsonPath::parse(".spec.replicas").unwrap().fields(), Some(vec!["spec", "replicas"]));
        assert_eq!(JsonPath::parse(".a[0]").unwrap().fields(), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["spec", ".a..b", ".a[", ".a[x]", ".a[?(b==1)]", ".a[?(@.b==)]", "..", ".a."] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
        assert!(JsonPath::parse(&"[?(@".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[.\\[\\]'\"@?()=!*a-c0-9$\\\\{}]{0,40}", any: String) {
            for text in [text, any] {
                if let Ok(path) = JsonPath::parse(&text) {
                    path.find(&json!({ "a": [{ "b": 1 }, { "c": { "a": "b" } }] }));
                }
            }
        }
    }
}
