//! Regular expressions as Go reads them, in the words of the `regex` crate.
//!
//! Both match in linear time, and nearly all is written alike. But to Go the classes `\w`, `\d`, `\s` and the border `\b`
//! are ASCII's, a bracket within brackets stands for itself, and so does a brace that repeats nothing.

/// Reads an expression that takes at most `bytes_max` bytes once it is compiled.
///
/// # Errors
/// When it is none, or a greater one.
pub fn expression(text: &str, bytes_max: usize) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(&translate(text)).size_limit(bytes_max).build()
}

/// Escapes that mean something else, and what says it here. Each stands within brackets as well as outside of them.
const ESCAPES: &[(char, &str)] = &[
    ('w', "[0-9A-Za-z_]"),
    ('W', "[^0-9A-Za-z_]"),
    ('d', "[0-9]"),
    ('D', "[^0-9]"),
    ('s', r"[\t\n\x0C\r ]"),
    ('S', r"[^\t\n\x0C\r ]"),
    ('<', "<"),
    ('>', ">"),
];

fn translate(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let (mut rest, mut class) = (text, false);
    while let Some(c) = rest.chars().next() {
        let behind = &rest[c.len_utf8()..];
        let taken = match c {
            '\\' => escape(behind, class, &mut made),
            '[' if !class => {
                class = true;
                made.push('[');
                // A bracket that closes stands for itself at the beginning.
                let begin = if behind.starts_with('^') { 1 } else { 0 };
                made.push_str(&behind[..begin]);
                if behind[begin..].starts_with(']') {
                    made.push_str("\\]");
                    begin + 1
                } else {
                    begin
                }
            }
            '[' if behind.starts_with(':') && behind.contains(":]") => {
                let end = behind.find(":]").map_or(0, |end| end + 2);
                made.push('[');
                made.push_str(&behind[..end]);
                end
            }
            ']' if class => {
                class = false;
                made.push(']');
                0
            }
            // What combines sets here is a letter there.
            '[' | '&' | '~' if class => {
                made.push('\\');
                made.push(c);
                0
            }
            '-' if class && behind.starts_with('-') => {
                // A range that ends with a hyphen, and no difference of sets.
                made.push_str("-\\-");
                1
            }
            '{' if !class && !repeats(behind) => {
                made.push_str("\\{");
                0
            }
            c => {
                made.push(c);
                0
            }
        };
        rest = &behind[taken..];
    }
    made
}

/// Translates what is behind a backslash; answers how much of it that is.
fn escape(behind: &str, class: bool, made: &mut String) -> usize {
    let Some(c) = behind.chars().next() else {
        made.push('\\');
        return 0;
    };
    match ESCAPES.iter().find(|(letter, _)| *letter == c) {
        Some((_, instead)) => made.push_str(instead),
        None if c == 'b' && !class => made.push_str(r"(?-u:\b)"),
        None => {
            made.push('\\');
            made.push(c);
        }
    }
    c.len_utf8()
}

/// Whether a brace begins a count: `{3}`, `{3,}` or `{3,5}`.
fn repeats(behind: &str) -> bool {
    let Some((inner, _)) = behind.split_once('}') else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_mean_what_go_means() {
        for (text, good, bad) in [
            (r"^\w+$", "a_1", "\u{e4}"),
            (r"^\d+$", "42", "\u{663}"),
            (r"^[\w.-]+$", "a.b-c", "\u{e4}"),
            (r"^\S+$", "\u{e4}", "a b"),
            (r"^[^[]+$", "ab", "a[b"),
            (r"^[]a]+$", "]a", "b"),
            (r"^[^]a]+$", "b", "]"),
            (r"^[[:alpha:]]+$", "ab", "1"),
            (r"^[a&&b]+$", "a&b", "c"),
            (r"^[+--]+$", "+,-", "a"),
            (r"^{a}$", "{a}", "a"),
            (r"^a{2}$", "aa", "a"),
            (r"^a{2,}b{0,1}$", "aaa", "a"),
            (r"^\<a\>$", "<a>", "a"),
            (r"\bfoo\b", "a foo b", "food"),
            (r"^https?:\/\/", "http://", "ftp://"),
            (r"^(\d{1,3}\.){3}\d{1,3}$", "10.0.0.1", "10.0.0"),
        ] {
            let read = expression(text, 1 << 20).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(read.is_match(good), "{text} {good}");
            assert!(!read.is_match(bad), "{text} {bad}");
        }
        // A name as long as names may be; with all letters of the world it would be a megabyte.
        assert!(expression(r"^\w{1,253}$", 1 << 20).is_ok());
        assert!(expression("(", 1 << 20).is_err() && expression("\\", 1 << 20).is_err());
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in r"[\[\]^$\\wdsb{}(),:0-9a&~<>\u{e4}-]{0,20}", any: String) {
            for text in [text, any] {
                expression(&text, 1 << 16).ok();
            }
        }
    }
}
