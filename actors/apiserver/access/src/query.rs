//! What stands behind the question mark, and percent signs.

/// The parameters of a request, in the order they came in. Of a key that
/// occurs several times, the first one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c`. A pair that isn't well-formed (a bad percent sign, a semicolon) is left out, as upstream does.
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

    /// Whether `key` is switched on: it is there, and its first value is neither `false` nor `0`. An empty value counts
    /// as yes.
    #[must_use]
    pub fn is_on(&self, key: &str) -> bool {
        self.first(key).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// Whether the first value of `key` is absent or a number of 64 bits.
    pub(super) fn is_number(&self, key: &str) -> bool {
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
