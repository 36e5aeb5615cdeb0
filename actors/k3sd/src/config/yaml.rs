//! The only module that names the YAML crate: text in, entries with positions out.
//!
//! Scalars keep the spelling they have in the file. A mode of `0644` or a version of `1.30` would not survive being
//! taken for a number, and the file never says which of its scalars are text to us; the flag tables do.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Location, Spanned};

/// One key of the file's top-level mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key as written, a `+` at its end included.
    pub(crate) key: String,
    /// The line of the key, from 1.
    pub(crate) line: u64,
    /// What it maps to.
    pub(crate) value: Node,
}

/// A value in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// Nothing after the colon, `~` or `null`.
    Null,
    /// A single value.
    Scalar(Scalar),
    /// A list; each item with its line.
    List(Vec<(u64, Node)>),
    /// A mapping. No flag takes one, so its contents are dropped.
    Mapping,
}

/// A single value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    /// As written, without quotes.
    pub(crate) text: String,
    /// What it means if it is taken for a boolean: unquoted `yes`, `no`, `on` and `off` count, as they do in K3s.
    pub(crate) boolean: Option<bool>,
}

/// Why a text is not usable YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct YamlError {
    /// The line, from 1.
    pub(crate) line: u64,
    /// The column, from 1.
    pub(crate) column: u64,
    /// What is wrong, in one line.
    pub(crate) problem: String,
}

/// Reads a config file's text. A file of nothing but comments has no entries.
pub(crate) fn parse(text: &str) -> Result<Vec<Entry>, YamlError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    let root: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|error| describe(&error))?;
    match root.value {
        Raw::Null => Ok(Vec::new()),
        Raw::Mapping(entries) => entries.into_iter().map(|(key, value)| entry(text, &key, value)).collect(),
        Raw::Text(_) | Raw::Boolean(_) | Raw::Number | Raw::List(_) => Err(YamlError {
            line: root.referenced.line().max(1),
            column: root.referenced.column().max(1),
            problem: "the file must hold a mapping of flag names to values, such as `debug: true`".to_owned(),
        }),
    }
}

/// Reads a document that somebody else understands.
pub(crate) fn document(text: &str) -> Result<serde_json::Value, YamlError> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| describe(&error))
}

impl std::fmt::Display for YamlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.problem)
    }
}

/// The error's message without the position, which travels separately, and in one line.
fn describe(error: &serde_saphyr::Error) -> YamlError {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let (line, column) = (location.line().max(1), location.column().max(1));
    // The crate's own words for these two address a programmer.
    let problem = match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key} appears twice"),
        serde_saphyr::Error::MultipleDocuments { .. } => "a second document begins, and only one is read".to_owned(),
        other => other.to_string(),
    };
    let mut problem = problem.split_whitespace().collect::<Vec<_>>().join(" ");
    for suffix in [format!(" at line {line}, column {column}"), format!(" at line {line} column {column}")] {
        if let Some(stripped) = problem.strip_suffix(&suffix) {
            problem = stripped.to_owned();
        }
    }
    for prefix in [format!("error: line {line} column {column}: "), "error: ".to_owned()] {
        if let Some(stripped) = problem.strip_prefix(&prefix) {
            problem = stripped.to_owned();
        }
    }
    YamlError { line, column, problem }
}

fn entry(text: &str, key: &Spanned<Raw>, value: Spanned<Raw>) -> Result<Entry, YamlError> {
    let line = key.referenced.line();
    match node(text, key) {
        Node::Scalar(Scalar { text: key, .. }) => Ok(Entry { key, line, value: node(text, &value) }),
        Node::Null | Node::List(_) | Node::Mapping => Err(YamlError {
            line,
            column: key.referenced.column(),
            problem: "a key must be the name of a flag".to_owned(),
        }),
    }
}

/// Resolves what was parsed against the text it came from.
fn node(text: &str, raw: &Spanned<Raw>) -> Node {
    match &raw.value {
        Raw::Null => Node::Null,
        Raw::Text(value) => Node::Scalar(Scalar { text: value.clone(), boolean: None }),
        Raw::Boolean(value) => Node::Scalar(Scalar { text: spelling(text, raw.defined), boolean: Some(*value) }),
        Raw::Number => Node::Scalar(Scalar { text: spelling(text, raw.defined), boolean: None }),
        Raw::List(items) => Node::List(items.iter().map(|item| (item.referenced.line(), node(text, item))).collect()),
        Raw::Mapping(_) => Node::Mapping,
    }
}

/// The characters at a position. Only asked for what is no text, whose characters are its value; quotes appear only
/// around a scalar with a tag such as `!!int`.
fn spelling(text: &str, location: Location) -> String {
    let span = location.span();
    let bytes = span.byte_offset().zip(span.byte_len()).and_then(|(start, len)| {
        let start = usize::try_from(start).ok()?;
        text.get(start..start.checked_add(usize::try_from(len).ok()?)?)
    });
    bytes.expect("a text source reports byte positions inside itself").trim().trim_matches(['"', '\'']).to_owned()
}

/// A value as the YAML crate hands it over, before the original spelling is looked up.
enum Raw {
    Null,
    Text(String),
    Boolean(bool),
    Number,
    List(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Boolean(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Node {
        Node::Scalar(Scalar { text: text.to_owned(), boolean: None })
    }

    fn boolean(text: &str, value: bool) -> Node {
        Node::Scalar(Scalar { text: text.to_owned(), boolean: Some(value) })
    }

    fn value(yaml: &str) -> Node {
        let mut entries = parse(yaml).unwrap();
        assert_eq!(entries.len(), 1, "{yaml}");
        entries.remove(0).value
    }

    #[test]
    fn scalars_keep_their_spelling() {
        let rows = [
            ("k: text", scalar("text")),
            ("k: \"quo ted\"", scalar("quo ted")),
            ("k: 'it''s'", scalar("it's")),
            ("k: 0644", scalar("0644")),
            ("k: \"0644\"", scalar("0644")),
            ("k: 1.30", scalar("1.30")),
            ("k: 0x1F", scalar("0x1F")),
            ("k: 99999999999999999999999", scalar("99999999999999999999999")),
            ("k: 1e999", scalar("1e999")),
            ("k: .inf", scalar(".inf")),
            ("k: -5 # comment", scalar("-5")),
            ("k: true", boolean("true", true)),
            ("k: yes", boolean("yes", true)),
            ("k: Off", boolean("Off", false)),
            ("k: \"yes\"", scalar("yes")),
            ("k: 10.42.0.0/16", scalar("10.42.0.0/16")),
            ("k: ärger 5", scalar("ärger 5")),
            ("# ärger\nk: 5", scalar("5")),
            ("k:", Node::Null),
            ("k: ~", Node::Null),
            ("k: \"\"", scalar("")),
            ("k: |\n  a\n  b\n", scalar("a\nb\n")),
            ("k: {a: b}", Node::Mapping),
            ("k: []", Node::List(vec![])),
            ("k: &x 5", scalar("5")),
            ("k: !!str 5", scalar("5")),
            ("k: !!int \"5\"", scalar("5")),
            ("k: !!bool 'yes'", boolean("yes", true)),
        ];
        for (yaml, node) in rows {
            assert_eq!(value(yaml), node, "{yaml}");
        }
    }

    #[test]
    fn lines_of_keys_and_items() {
        let entries = parse("# top\na: 1\n\n7:\n- x\n- 0\n-\nb+: [u,\n  v]\n").unwrap();
        let list = |items: &[(u64, &str)]| Node::List(items.iter().map(|(line, text)| (*line, scalar(text))).collect());
        let mut with_null = list(&[(5, "x"), (6, "0")]);
        if let Node::List(items) = &mut with_null {
            items.push((7, Node::Null));
        }
        let expected = [("a", 2, scalar("1")), ("7", 4, with_null), ("b+", 8, list(&[(8, "u"), (9, "v")]))];
        for (entry, (key, line, value)) in entries.into_iter().zip(expected) {
            assert_eq!(entry, Entry { key: key.to_owned(), line, value });
        }
    }

    #[test]
    fn aliases_are_resolved_to_the_anchored_spelling() {
        let entries = parse("a: &mode 0644\nb: *mode\n").unwrap();
        assert_eq!(entries[1].value, scalar("0644"));
    }

    #[test]
    fn nothing_is_no_entries() {
        for yaml in ["", "\n", "# only a comment\n", "---\n", "null"] {
            assert_eq!(parse(yaml), Ok(vec![]), "{yaml:?}");
        }
    }

    #[test]
    fn errors_name_the_position_in_one_line() {
        let rows = [
            ("a: 1\nb: [1, 2\n", 2, 4),
            ("a: 1\n\tb: 2\n", 1, 4),
            ("a: 1\na: 2\n", 2, 1),
            ("- a\n- b\n", 1, 1),
            ("just text", 1, 1),
            ("a: 1\n? [x]\n: 2\n", 2, 3),
            ("a: 'open\n", 2, 1),
            ("a: 1\n---\nb: 2\n", 3, 1),
        ];
        for (yaml, line, column) in rows {
            let error = parse(yaml).unwrap_err();
            assert!(!error.problem.contains('\n') && !error.problem.is_empty(), "{error:?}");
            assert_eq!((error.line, error.column), (line, column), "{yaml:?}: {}", error.problem);
        }
    }
}
