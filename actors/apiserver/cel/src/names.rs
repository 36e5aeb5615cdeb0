//! Names of properties that are no names in expressions.
//!
//! `a-b` is written `a__dash__b`, a word of the language `__in__`, and two underscores `__underscores__`.

use k3sd_objects::names::is_cel_word;

const PARTS: &[(&str, &str)] = &[("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];

/// The name of a property as expressions write it; `None` if they can't.
pub(crate) fn escape(name: &str) -> Option<String> {
    if is_cel_word(name) {
        return Some(format!("__{name}__"));
    }
    let escaped = PARTS.iter().fold(name.to_owned(), |name, (long, short)| name.replace(short, long));
    let good = escaped.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let start = escaped.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (good && start).then_some(escaped)
}

/// The property that a name in an expression stands for.
pub(crate) fn unescape(name: &str) -> String {
    if let Some(word) = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"))
        && is_cel_word(word)
    {
        return word.to_owned();
    }
    let (mut rest, mut property) = (name, String::new());
    while !rest.is_empty() {
        let part = PARTS.iter().find(|(long, _)| rest.starts_with(long));
        let (text, behind) = match part {
            Some((long, short)) => (*short, &rest[long.len()..]),
            None => rest.split_at(rest.chars().next().map_or(0, char::len_utf8)),
        };
        property.push_str(text);
        rest = behind;
    }
    property
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_upstream_does() {
        for (name, escaped) in [
            ("plain", "plain"),
            ("namespace", "__namespace__"),
            ("x-prop", "x__dash__prop"),
            ("redact__d", "redact__underscores__d"),
            ("string", "string"),
            ("a.b/c", "a__dot__b__slash__c"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(escaped));
            assert_eq!(unescape(escaped), name);
        }
        for name in ["\u{e4}", "1a", "a b", "$ref", ""] {
            assert_eq!(escape(name), None, "{name}");
        }
    }
}
