//! What stands behind the question mark of a request, and percent signs.

/// The parameters of a request, in the order they came in. Of a key that occurs several times, the first one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c`. A pair that isn't well-formed (a bad percent sign, a semicolon) is left out, as Go's servers do.
    #[must_use]
    pub fn parse(raw: &str) -> Self {
        let pair = |pair: &str| {
            if pair.is_empty() || pair.contains(';') {
                return None;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(&key.replace('+', " "))?, percent_decode(&value.replace('+', " "))?))
        };
        Self(raw.split('&').filter_map(pair).collect())
    }

    /// The first value of `key`.
    #[must_use]
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// All values of `key`, in their order.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// Whether `key` is switched on, as the API understands it: it is there, and its first value is neither `false` nor
    /// `0`. An empty value counts as yes.
    #[must_use]
    pub fn is_on(&self, key: &str) -> bool {
        self.first(key).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// Whether the first value of `key` is one of Go's words for true, as the kubelet's server has it.
    #[must_use]
    pub fn is_true(&self, key: &str) -> bool {
        matches!(self.first(key), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    /// Whether the first value of `key` is absent or a number of 64 bits.
    #[must_use]
    pub fn is_number(&self, key: &str) -> bool {
        self.first(key).is_none_or(|value| value.parse::<i64>().is_ok())
    }
}

/// Turns `%2F` into what it stands for. `None` for a percent sign without two hexadecimal digits, and for a result that
/// is not UTF-8, which no name of ours can be.
#[must_use]
pub fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let code = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(code).ok()?);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read() {
        let query = Query::parse("command=sh&command=-c&command=echo+%22a%26b%22&tty=1&bad=%zz&;&flag&no=False&n=x");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo \"a&b\""]);
        assert!(query.first("bad").is_none());
        assert_eq!(query.first("flag"), Some(""));
        for (key, is_on, is_true) in [
            ("tty", true, true),
            ("flag", true, false),
            ("no", false, false),
            ("n", true, false),
            ("none", false, false),
        ] {
            assert_eq!((query.is_on(key), query.is_true(key)), (is_on, is_true), "{key}");
        }
        assert!(query.is_number("tty") && query.is_number("none") && !query.is_number("n"));
    }

    #[test]
    fn percent_signs_stand_for_something() {
        for (text, expected) in
            [("a%2Fb", Some("a/b")), ("plain", Some("plain")), ("%e2%82%ac", Some("€")), ("%2", None), ("%ff", None)]
        {
            assert_eq!(percent_decode(text).as_deref(), expected, "{text}");
        }
    }
}
