//! Writing TOML.

use std::fmt::Write as _;

/// A string in quotes, whatever is in it.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                write!(out, "\\u{:04X}", u32::from(c)).expect("writing to a string");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A document under construction: tables one after the other, each with its header.
#[derive(Debug, Default)]
pub(crate) struct Document(String);

impl Document {
    /// Begins a table; each part of its name is quoted where it must be.
    pub(crate) fn table(&mut self, path: &[&str]) -> &mut Self {
        self.header("[", path, "]")
    }

    /// Begins another element of a list of tables.
    pub(crate) fn array_table(&mut self, path: &[&str]) -> &mut Self {
        self.header("[[", path, "]]")
    }

    fn header(&mut self, open: &str, path: &[&str], close: &str) -> &mut Self {
        let bare =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let parts: Vec<String> =
            path.iter().map(|part| if bare(part) { (*part).to_owned() } else { quote(part) }).collect();
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        writeln!(self.0, "{open}{}{close}", parts.join(".")).expect("writing to a string");
        self
    }

    fn pair(&mut self, key: &str, value: &str) -> &mut Self {
        writeln!(self.0, "{key} = {value}").expect("writing to a string");
        self
    }

    /// A string.
    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.pair(key, &quote(value))
    }

    /// A list of strings.
    pub(crate) fn list(&mut self, key: &str, values: &[&str]) -> &mut Self {
        let values: Vec<String> = values.iter().map(|value| quote(value)).collect();
        self.pair(key, &format!("[{}]", values.join(", ")))
    }

    /// A truth value.
    pub(crate) fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.pair(key, if value { "true" } else { "false" })
    }

    /// A whole number.
    pub(crate) fn number(&mut self, key: &str, value: u32) -> &mut Self {
        self.pair(key, &value.to_string())
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_string_stays_in_it() {
        assert_eq!(quote("a\"b\\c\nd\u{1}ä"), "\"a\\\"b\\\\c\\nd\\u0001ä\"");
        let mut document = Document::default();
        document
            .table(&["plugins", "io.containerd.x", "a-b"])
            .text("k", "]\n[x]")
            .flag("f", true)
            .list("l", &["a", "b"]);
        let wanted = "[plugins.\"io.containerd.x\".a-b]\nk = \"]\\n[x]\"\nf = true\nl = [\"a\", \"b\"]\n";
        assert_eq!(document.finish(), wanted);
    }
}
