//! Paths of plain fields, as rules blame and lists select by: `.spec.name`, `.spec['a.b']`.

use serde_json::Value;

/// Follows a path through a schema. Answers with the path as errors write it, without a dot at the front, and the schema
/// there. `brackets` is whether names may stand in brackets.
///
/// # Errors
/// What is wrong with the path, in upstream's words.
pub(crate) fn follow<'s>(path: &str, schema: &'s Value, brackets: bool) -> Result<(String, &'s Value), String> {
    let (mut rest, mut at, mut steps) = (path, schema, String::new());
    while !rest.is_empty() {
        let name;
        if let Some(inner) = rest.strip_prefix('.') {
            let end = inner.find(['.', '[', ']']).unwrap_or(inner.len());
            if inner.is_empty() {
                return Err("unexpected end of JSON path".to_owned());
            }
            // Two dots: the second one is taken for a name, which no schema has.
            let end = end.max(inner.chars().next().filter(|_| end == 0).map_or(0, char::len_utf8));
            name = inner[..end].to_owned();
            rest = &inner[end..];
        } else if let Some(inner) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".to_owned());
            }
            let (quoted, behind) = quoted(inner)?;
            name = quoted;
            rest = behind.strip_prefix(']').ok_or_else(|| match behind.chars().next() {
                None => "unexpected end of JSON path".to_owned(),
                Some(found) => format!("expected ] but got {found}"),
            })?;
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
            return Err(format!("expected [ or . but got: {}", rest.get(..end).unwrap_or(rest)));
        }
        if let Some(fields) = at["properties"].as_object() {
            at = fields.get(&name).ok_or("does not refer to a valid field")?;
            if !steps.is_empty() {
                steps.push('.');
            }
            steps.push_str(&name);
        } else if at["additionalProperties"].is_object() {
            at = &at["additionalProperties"];
            steps.push_str(&format!("[{name}]"));
        } else {
            return Err("does not refer to a valid field".to_owned());
        }
    }
    Ok((steps, at))
}

/// A text in single quotes, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    if text.is_empty() {
        return Err("unexpected end of JSON path".to_owned());
    }
    let wrong =
        || format!("expected single quoted string but got {}", text.split(['.', '[', ']']).next().unwrap_or(""));
    let inner = text.strip_prefix('\'').ok_or_else(wrong)?;
    let mut value = String::new();
    let mut letters = inner.char_indices();
    while let Some((at, c)) = letters.next() {
        match c {
            '\'' => return Ok((value, &inner[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'a')) => value.push('\u{7}'),
                Some((_, 'b')) => value.push('\u{8}'),
                Some((_, 'f')) => value.push('\u{c}'),
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'v')) => value.push('\u{b}'),
                Some((_, c @ ('\'' | '\\'))) => value.push(c),
                Some((_, c)) => return Err(format!("invalid string literal: invalid escape char \\{c}")),
                None => return Err(wrong()),
            },
            c => value.push(c),
        }
    }
    Err(wrong())
}
