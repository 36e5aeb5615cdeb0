//! The syntax of names, labels and keys.
//!
//! Every check answers with what is wrong, in the words that upstream uses: people and tests look for them, and the
//! texts end up in the `Status` unchanged. An empty answer means that the value is fine. Lengths are bytes; a value that
//! passes the other rules is ASCII anyway.

mod generate;
mod syntax;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::status::field::{Error, Path};

pub use generate::{GENERATED_BASE_BYTES_MAX, SUFFIX_LETTERS, SUFFIX_LETTERS_COUNT, generate, uuid};

/// Longest label of a DNS name; also of the name part of a label key, and of a label value.
pub const LABEL_BYTES_MAX: usize = 63;

/// Longest DNS name, and with it longest name of most objects.
pub const SUBDOMAIN_BYTES_MAX: usize = 253;

/// All keys and values of an object's annotations together.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// Longest `fieldManager`.
pub const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// What is wrong with a value, one text per rule that it breaks.
pub type Faults = Vec<String>;

/// A rule made of characters: what it wants in words, the expression that upstream prints, examples.
struct Rule {
    words: &'static str,
    expression: &'static str,
    examples: &'static [&'static str],
}

impl Rule {
    /// The text for a value that breaks it.
    fn text(&self) -> String {
        let examples: Vec<String> = self.examples.iter().map(|example| format!("'{example}', ")).collect();
        let (words, expression) = (self.words, self.expression);
        if examples.is_empty() {
            return format!("{words} (regex used for validation is '{expression}')");
        }
        format!("{words} (e.g. {}regex used for validation is '{expression}')", examples.join(" or "))
    }
}

const LABEL_1123: Rule = Rule {
    words: "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
            end with an alphanumeric character",
    expression: "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    examples: &["my-name", "123-abc"],
};

const SUBDOMAIN: Rule = Rule {
    words: "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
            start and end with an alphanumeric character",
    expression: r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    examples: &["example.com"],
};

const WILDCARD: Rule = Rule {
    words: "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
            of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    expression: r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    examples: &["*.example.com"],
};

const LABEL_1035: Rule = Rule {
    words: "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
            character, and end with an alphanumeric character",
    expression: "[a-z]([-a-z0-9]*[a-z0-9])?",
    examples: &["my-name", "abc-123"],
};

const QUALIFIED: Rule = Rule {
    words: "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
            character",
    expression: "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
    examples: &["MyName", "my.name", "123-abc"],
};

const LABEL_VALUE: Rule = Rule {
    words: "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
            start and end with an alphanumeric character",
    expression: "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
    examples: &["MyValue", "my_value", "12345"],
};

const CONFIG_KEY: Rule = Rule {
    words: "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    expression: "[-._a-zA-Z0-9]+",
    examples: &["key.name", "KEY_NAME", "key-name"],
};

const IDENTIFIER: Rule = Rule {
    words: "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
            characters or '_'",
    expression: "[A-Za-z_][A-Za-z0-9_]*",
    examples: &["my_name", "MY_NAME", "MyName"],
};

const HTTP_HEADER: Rule = Rule {
    words: "a valid HTTP header must consist of alphanumeric characters or '-'",
    expression: "[-A-Za-z0-9]+",
    examples: &["X-Header-Name"],
};

const PERCENT: Rule = Rule {
    words: "a valid percent string must be a numeric string followed by an ending '%'",
    expression: "[0-9]+%",
    examples: &["1%", "93%"],
};

/// The text for a DNS name that is too long.
fn too_many_characters(bytes_max: usize) -> String {
    format!("must be no more than {bytes_max} characters")
}

/// The text for a label that is too long; upstream counts these in bytes by name.
fn too_many_bytes(bytes_max: usize) -> String {
    format!("must be no more than {bytes_max} bytes")
}

fn check(value: &str, bytes_max: usize, fits: bool, rule: &Rule) -> Faults {
    let mut faults = Faults::new();
    if value.len() > bytes_max {
        faults.push(too_many_characters(bytes_max));
    }
    if !fits {
        faults.push(rule.text());
    }
    faults
}

/// A label of DNS as of RFC 1123: namespaces, containers, volumes.
#[must_use]
pub fn dns_label(value: &str) -> Faults {
    let fits = syntax::is_label(value);
    if !fits && syntax::is_subdomain(value) {
        let mut faults = check(value, LABEL_BYTES_MAX, true, &LABEL_1123);
        faults.push("must not contain dots".to_owned());
        return faults;
    }
    check(value, LABEL_BYTES_MAX, fits, &LABEL_1123)
}

/// A name of DNS, one or more labels: most objects.
#[must_use]
pub fn dns_subdomain(value: &str) -> Faults {
    check(value, SUBDOMAIN_BYTES_MAX, syntax::is_subdomain(value), &SUBDOMAIN)
}

/// `*.` before a name of DNS: hosts of an Ingress.
#[must_use]
pub fn wildcard_subdomain(value: &str) -> Faults {
    let fits = value.strip_prefix("*.").is_some_and(syntax::is_subdomain);
    check(value, SUBDOMAIN_BYTES_MAX, fits, &WILDCARD)
}

/// A label of DNS as of RFC 1035, which begins with a letter: Services.
#[must_use]
pub fn dns_1035_label(value: &str) -> Faults {
    let fits = syntax::is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase());
    check(value, LABEL_BYTES_MAX, fits, &LABEL_1035)
}

/// A name that stands as one segment in a path of the API: RBAC objects.
#[must_use]
pub fn path_segment(value: &str) -> Faults {
    match value {
        "." => return vec!["may not be '.'".to_owned()],
        ".." => return vec!["may not be '..'".to_owned()],
        _ => {}
    }
    let forbidden = ["/", "%"].into_iter().filter(|part| value.contains(part));
    forbidden.map(|part| format!("may not contain '{part}'")).collect()
}

/// A key of labels, annotations, taints and extended resources: `[example.com/]name`.
#[must_use]
pub fn qualified_name(value: &str) -> Faults {
    let mut faults = Faults::new();
    let mut parts = value.split('/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let name = match (second, third) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                faults.extend(dns_subdomain(first).into_iter().map(|fault| format!("prefix part {fault}")));
            }
            name
        }
        (Some(_), Some(_)) => {
            let form = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {}{form}", QUALIFIED.text())];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        faults.push(format!("name part {}", too_many_bytes(LABEL_BYTES_MAX)));
    }
    if !syntax::is_qualified_part(name) {
        faults.push(format!("name part {}", QUALIFIED.text()));
    }
    faults
}

/// The value of a label; may be empty.
#[must_use]
pub fn label_value(value: &str) -> Faults {
    let mut faults = Faults::new();
    if value.len() > LABEL_BYTES_MAX {
        faults.push(too_many_bytes(LABEL_BYTES_MAX));
    }
    if !value.is_empty() && !syntax::is_qualified_part(value) {
        faults.push(LABEL_VALUE.text());
    }
    faults
}

/// A key of a ConfigMap or Secret, which becomes a file name.
#[must_use]
pub fn config_key(value: &str) -> Faults {
    let fits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let mut faults = check(value, SUBDOMAIN_BYTES_MAX, fits, &CONFIG_KEY);
    match value {
        "." | ".." => faults.push(format!("must not be '{value}'")),
        _ if value.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// An environment variable: anything printable but `=`.
#[must_use]
pub fn environment_variable(value: &str) -> Faults {
    let mut faults = Faults::new();
    if value.is_empty() {
        faults.push("environment variable name must be non-empty".to_owned());
    }
    if !value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        let words = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        faults.push(words.to_owned());
    }
    faults
}

/// Words that CEL keeps for later: no names in expressions. With `true`, `false`, `null` and `in`, which mean something,
/// they are all that properties and variables can't be called.
pub const CEL_RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether a name is a word of CEL's own.
#[must_use]
pub fn is_cel_word(name: &str) -> bool {
    matches!(name, "true" | "false" | "null" | "in") || CEL_RESERVED.contains(&name)
}

/// An identifier as in C.
#[must_use]
pub fn c_identifier(value: &str) -> Faults {
    let fits = !value.is_empty()
        && !value.starts_with(|c: char| c.is_ascii_digit())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    check(value, usize::MAX, fits, &IDENTIFIER)
}

/// The name of a port of a container, as IANA registers services.
#[must_use]
pub fn port_name(value: &str) -> Faults {
    const BYTES_MAX: usize = 15;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let mut faults = Faults::new();
    if value.len() > BYTES_MAX {
        faults.push(too_many_characters(BYTES_MAX));
    }
    for (broken, text) in [
        (
            value.is_empty() || !value.bytes().all(legal),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!value.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (value.contains("--"), "must not contain consecutive hyphens"),
        (value.starts_with('-') || value.ends_with('-'), "must not begin or end with a hyphen"),
    ] {
        if broken {
            faults.push(text.to_owned());
        }
    }
    faults
}

/// The number of a port.
#[must_use]
pub fn port_number(value: i64) -> Faults {
    in_range(value, 1, 65_535)
}

/// A number between two others, both included.
#[must_use]
pub fn in_range(value: i64, least: i64, most: i64) -> Faults {
    if (least..=most).contains(&value) {
        return Faults::new();
    }
    vec![format!("must be between {least} and {most}, inclusive")]
}

/// `25%`.
#[must_use]
pub fn percent(value: &str) -> Faults {
    let digits = value.strip_suffix('%').unwrap_or_default();
    let fits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    check(value, usize::MAX, fits, &PERCENT)
}

/// The name of an HTTP header.
#[must_use]
pub fn http_header(value: &str) -> Faults {
    let fits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    check(value, usize::MAX, fits, &HTTP_HEADER)
}

/// A value that is only a prefix yet, as `generateName` is: a dash at its end stands for letters to come.
#[must_use]
pub fn as_prefix(value: &str) -> String {
    match value.strip_suffix('-') {
        Some(start) if !start.is_empty() => format!("{start}a"),
        _ => value.to_owned(),
    }
}

/// `labels` or `matchLabels`. Whatever isn't a string is left to the schema.
#[must_use]
pub fn check_labels(labels: &Map<String, Value>, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    for (key, value) in labels {
        errors.extend(check_label_key(key, path));
        let Some(value) = value.as_str() else { continue };
        errors.extend(label_value(value).into_iter().map(|fault| Error::invalid(path, value, fault)));
    }
    errors
}

/// The key of a label, and of everything that is written like one.
#[must_use]
pub fn check_label_key(key: &str, path: &Path) -> Vec<Error> {
    qualified_name(key).into_iter().map(|fault| Error::invalid(path, key, fault)).collect()
}

/// `annotations`: keys are checked in lower case, and all of it may not be too much.
#[must_use]
pub fn check_annotations(annotations: &Map<String, Value>, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for (key, value) in annotations {
        let faults = qualified_name(&key.to_lowercase());
        errors.extend(faults.into_iter().map(|fault| Error::invalid(path, key.as_str(), fault)));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(Error::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
    errors
}

/// `fieldManager`: short and printable. Empty counts as not set.
#[must_use]
pub fn check_field_manager(manager: &str, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    if manager.len() > FIELD_MANAGER_BYTES_MAX {
        errors.push(Error::too_long(path, FIELD_MANAGER_BYTES_MAX));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !crate::status::go::is_printable(*c)) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(Error::invalid(path, manager, detail));
    }
    errors
}
