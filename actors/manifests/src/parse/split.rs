//! Documents of a YAML file.

/// A document, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// Its text, without the line that separates it.
    pub text: &'a str,
    /// Lines of the file before it.
    pub lines_before: usize,
}

/// The documents of a file. A line of three dashes separates them, with nothing but a comment behind it; in a line with
/// more behind it a document begins. Documents without anything but comments are left out.
pub(crate) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let (mut begin, mut begin_line) = (0, 0);
    let mut at = 0;
    for (line_number, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            found.push(Document { text: &text[begin..at], lines_before: begin_line });
            (begin, begin_line) = (at + line.len(), line_number + 1);
        }
        at += line.len();
    }
    found.push(Document { text: &text[begin..], lines_before: begin_line });
    found.retain(|document| !is_empty(document.text));
    found
}

fn is_separator(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("---") else { return false };
    let rest = rest.trim();
    rest.is_empty() || rest.starts_with('#')
}

/// Whether there are only comments, directives of YAML and ends of documents.
fn is_empty(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with(['#', '%']) || matches!(line, "---" | "...")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_at_lines_of_dashes() {
        for (text, wanted) in [
            ("", vec![]),
            ("# nothing\n\n---\n---\n", vec![]),
            ("%YAML 1.2\n---\na: 1\n", vec![("a: 1\n", 2)]),
            ("a: 1", vec![("a: 1", 0)]),
            ("a: 1\n---\nb: 2\n", vec![("a: 1\n", 0), ("b: 2\n", 2)]),
            ("---\na: 1\n---  # more\n\nb: 2", vec![("a: 1\n", 1), ("\nb: 2", 3)]),
            ("a: |\n  ---\n  x\n---\r\nb: 2\r\n", vec![("a: |\n  ---\n  x\n", 0), ("b: 2\r\n", 4)]),
            ("--- {a: 1}\n", vec![("--- {a: 1}\n", 0)]),
            ("a: 1\n...\n---\nb: 2\n", vec![("a: 1\n...\n", 0), ("b: 2\n", 3)]),
            ("----\n", vec![("----\n", 0)]),
        ] {
            let found: Vec<_> = documents(text).iter().map(|it| (it.text, it.lines_before)).collect();
            assert_eq!(found, wanted, "{text:?}");
        }
    }
}
