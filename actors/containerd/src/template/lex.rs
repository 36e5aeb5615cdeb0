//! A template as text and actions, and an action as words.

use super::Fault;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Part {
    Text(String),
    Action(Action),
}

/// What stands between braces.
#[derive(Debug)]
pub(super) struct Action {
    pub at: usize,
    pub words: Vec<Word>,
}

/// A word, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub at: usize,
    pub token: Token,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Text(String),
    Number(i64),
    /// A keyword, a function, `true`, `false` or `nil`.
    Name(String),
    /// `.A.B`; empty for the dot alone.
    Field(Vec<String>),
    /// `$x.A.B`; the name is empty for `$` alone.
    Variable(String, Vec<String>),
    Pipe,
    Declare,
    Assign,
    Comma,
    Open,
    Close,
}

/// Takes a template apart.
pub(super) fn split(text: &str) -> Result<Vec<Part>, Fault> {
    let (mut parts, mut rest, mut trim_next) = (Vec::new(), 0, false);
    loop {
        let found = text[rest..].find("{{").map(|at| rest + at);
        let mut plain = &text[rest..found.unwrap_or(text.len())];
        if trim_next {
            plain = plain.trim_start();
        }
        let Some(open) = found else {
            parts.push(Part::Text(plain.to_owned()));
            return Ok(parts);
        };
        let mut at = open + 2;
        if text[at..].starts_with('-') && text[at + 1..].starts_with(char::is_whitespace) {
            plain = plain.trim_end();
            at += 1;
        }
        parts.push(Part::Text(plain.to_owned()));
        let inner = text[at..].trim_start();
        let (words, end) = if inner.starts_with("/*") {
            (None, comment(text, text.len() - inner.len(), open)?)
        } else {
            let (words, end) = words(text, at, open)?;
            (Some(words), end)
        };
        trim_next = text[end..].starts_with('-');
        rest = end + if trim_next { 3 } else { 2 };
        parts.extend(words.map(|words| Part::Action(Action { at: open + 2, words })));
    }
}

/// The end of a comment, where its closing braces or their dash begin.
fn comment(text: &str, at: usize, open: usize) -> Result<usize, Fault> {
    let end =
        text[at..].find("*/").map(|end| at + end + 2).ok_or_else(|| Fault::new(open, "the remark is not closed"))?;
    let rest = text[end..].trim_start();
    let next = text.len() - rest.len();
    match rest {
        _ if rest.starts_with("}}") || rest.starts_with("-}}") => Ok(next),
        _ => Err(Fault::new(next, "nothing may follow a remark in its action")),
    }
}

/// The words of an action, and where its closing braces or their dash begin.
fn words(text: &str, start: usize, open: usize) -> Result<(Vec<Word>, usize), Fault> {
    let (mut words, mut at) = (Vec::new(), start);
    loop {
        at = text.len() - text[at..].trim_start().len();
        let rest = &text[at..];
        if rest.starts_with("}}") || rest.starts_with("-}}") {
            return Ok((words, at));
        }
        if rest.is_empty() {
            return Err(Fault::new(open, "the action is not closed"));
        }
        let (token, length) = token(rest, at)?;
        words.push(Word { at, token });
        at += length;
    }
}

fn token(rest: &str, at: usize) -> Result<(Token, usize), Fault> {
    let signs = [("|", Token::Pipe), (":=", Token::Declare), ("=", Token::Assign), (",", Token::Comma)];
    let brackets = [("(", Token::Open), (")", Token::Close)];
    if let Some((sign, token)) = signs.into_iter().chain(brackets).find(|(sign, _)| rest.starts_with(sign)) {
        return Ok((token, sign.len()));
    }
    let first = rest.chars().next().unwrap_or_default();
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum();
    match first {
        '"' => quoted(rest, at),
        '`' => {
            let end = rest[1..].find('`').ok_or_else(|| Fault::new(at, "the text is not closed"))?;
            Ok((Token::Text(rest[1..=end].to_owned()), end + 2))
        }
        '.' | '$' => {
            let mut length: usize = 0;
            let mut variable = None;
            if first == '$' {
                let count: usize = name(&rest[1..]);
                variable = Some(rest[1..=count].to_owned());
                length = count + 1;
            }
            let mut fields = Vec::new();
            while rest[length..].starts_with('.') {
                let count: usize = name(&rest[length + 1..]);
                if count == 0 {
                    length += 1;
                    break;
                }
                fields.push(rest[length + 1..=length + count].to_owned());
                length += count + 1;
            }
            Ok((variable.map_or(Token::Field(fields.clone()), |name| Token::Variable(name, fields)), length))
        }
        c if c.is_ascii_digit() || c == '-' => {
            let count = 1 + rest[1..].bytes().take_while(u8::is_ascii_digit).count();
            let number = rest[..count].parse().map_err(|_| Fault::new(at, "this is no whole number"))?;
            Ok((Token::Number(number), count))
        }
        c if c.is_alphabetic() || c == '_' => {
            let count: usize = name(rest);
            Ok((Token::Name(rest[..count].to_owned()), count))
        }
        c => Err(Fault::new(at, format!("{c:?} has no meaning in an action"))),
    }
}

/// A text in double quotes, with Go's usual escapes.
fn quoted(rest: &str, at: usize) -> Result<(Token, usize), Fault> {
    let (mut text, mut chars) = (String::new(), rest.char_indices().skip(1));
    while let Some((position, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(text), position + 1)),
            '\n' => break,
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(c @ ('"' | '\\' | '\'')) => text.push(c),
                _ => return Err(Fault::new(at + position, "this escape is not known")),
            },
            c => text.push(c),
        }
    }
    Err(Fault::new(at, "the text is not closed"))
}
