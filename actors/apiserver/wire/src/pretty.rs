//! Indents JSON for people while it passes by, whatever its size: two spaces a level, as Go's library does it.

/// How far a document has passed.
#[derive(Debug, Default)]
pub(crate) struct Indenter {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// A list or object was opened, and nothing of it has come yet.
    opened: bool,
}

impl Indenter {
    /// Appends the next piece of the document.
    pub(crate) fn push(&mut self, json: &[u8], out: &mut Vec<u8>) {
        for &byte in json {
            if self.in_text {
                out.push(byte);
                self.pass_text(byte);
            } else {
                self.pass(byte, out);
            }
        }
    }

    fn pass_text(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_text = false,
            _ => {}
        }
    }

    fn pass(&mut self, byte: u8, out: &mut Vec<u8>) {
        if byte.is_ascii_whitespace() {
            return;
        }
        let closes = matches!(byte, b'}' | b']');
        if self.opened && !closes {
            self.depth += 1;
            self.line(out);
        }
        if closes && !self.opened {
            self.depth = self.depth.saturating_sub(1);
            self.line(out);
        }
        self.opened = matches!(byte, b'{' | b'[');
        self.in_text = byte == b'"';
        out.push(byte);
        match byte {
            b',' => self.line(out),
            b':' => out.push(b' '),
            _ => {}
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

/// A whole document, indented.
pub(crate) fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    Indenter::default().push(json, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_what_a_library_makes_of_it() {
        let value = json!({ "a": [], "b": {}, "c": [1, { "d": "x\"{,:}\\" }, null, true], "e": { "f": [[], [[2.5]]] }, "g": "" });
        let compact = serde_json::to_vec(&value).unwrap();
        let expected = serde_json::to_vec_pretty(&value).unwrap();
        assert_eq!(String::from_utf8(indent(&compact)).unwrap(), String::from_utf8(expected.clone()).unwrap());
        // In pieces it is the same.
        let mut indenter = Indenter::default();
        let mut out = Vec::new();
        compact.iter().for_each(|byte| indenter.push(&[*byte], &mut out));
        assert_eq!(out, expected);
    }
}
