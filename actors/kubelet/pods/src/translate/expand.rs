//! `$(NAME)` in commands, arguments and values.

use std::collections::BTreeMap;

/// Replaces `$(NAME)` by the variable of that name. `$$` stands for one `$`, and a name nobody knows stays as written.
///
/// ```
/// use std::collections::BTreeMap;
/// let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
/// assert_eq!(k3sd_kubelet_pods::translate::expand::expand("$(A) $$(A) $(B)", &[&known]), "1 $(A) $(B)");
/// ```
#[must_use]
pub fn expand(text: &str, known: &[&BTreeMap<String, String>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = match after.chars().next() {
            None => {
                out.push('$');
                after
            }
            Some('$') => {
                out.push('$');
                &after[1..]
            }
            Some('(') => match after.find(')') {
                Some(end) => {
                    let name = &after[1..end];
                    match known.iter().find_map(|map| map.get(name)) {
                        Some(value) => out.push_str(value),
                        None => out.push_str(&rest[at..at + end + 2]),
                    }
                    &after[end + 1..]
                }
                None => {
                    out.push_str("$(");
                    &after[1..]
                }
            },
            Some(other) => {
                out.push('$');
                out.push(other);
                &after[other.len_utf8()..]
            }
        };
    }
    out.push_str(rest);
    out
}

/// As [`expand`], and says which name is missing instead of leaving it; for `subPathExpr`.
///
/// # Errors
/// The first name that nobody knows.
pub fn expand_strictly(text: &str, known: &BTreeMap<String, String>) -> Result<String, String> {
    let mut missing = None;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let after = &rest[at + 1..];
        if let Some(end) = after.strip_prefix('(').and_then(|inner| inner.find(')')) {
            let name = &after[1..=end];
            if !known.contains_key(name) {
                missing.get_or_insert_with(|| name.to_owned());
            }
            rest = &after[end + 2..];
        } else {
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    match missing {
        Some(name) => Err(name),
        None => Ok(expand(text, &[known])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_expanded_as_upstream_does() {
        let known: BTreeMap<_, _> =
            [("A", "a"), ("B", "b"), ("EMPTY", ""), ("C", "$(A)")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "a"),
            ("$(A)-$(B)", "a-b"),
            ("$(C)", "$(A)"),
            ("$(EMPTY)x", "x"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("$", "$"),
            ("x$", "x$"),
            ("$$", "$"),
            ("$()", "$()"),
            ("$ä$(A)", "$äa"),
            ("$($(A))", "$($(A))"),
        ] {
            assert_eq!(expand(text, &[&known]), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_name_is_told() {
        let known = BTreeMap::from([("A".to_owned(), "a".to_owned())]);
        assert_eq!(expand_strictly("x/$(A)/$$(B)", &known), Ok("x/a/$(B)".to_owned()));
        assert_eq!(expand_strictly("x/$(A)/$(B)", &known), Err("B".to_owned()));
        assert_eq!(expand_strictly("$(", &known), Ok("$(".to_owned()));
    }
}
