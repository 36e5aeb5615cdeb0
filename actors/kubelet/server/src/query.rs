//! What stands behind the question mark.

/// The parameters of a request, in the order they came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c`. A pair that isn't well-formed is left out, as Go's servers leave it out.
    pub(crate) fn parse(raw: &str) -> Self {
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
    pub(crate) fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// All values of `key`, in their order.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// Whether `key` is switched on.
    pub(crate) fn is_on(&self, key: &str) -> bool {
        matches!(self.first(key), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// Turns `%2F` into what it stands for. `None` for a bad percent sign, and for what is no UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
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
        let query = Query::parse("command=sh&command=-c&command=echo+%22a%26b%22&tty=1&bad=%zz&;&flag");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo \"a&b\""]);
        assert!(query.is_on("tty") && !query.is_on("flag") && query.first("bad").is_none());
        assert_eq!(query.first("flag"), Some(""));
    }
}
