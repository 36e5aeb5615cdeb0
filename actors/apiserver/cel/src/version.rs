//! Semantic versions.

use std::cmp::Ordering;

/// A version: three numbers, and what comes before a release. What was said of the build doesn't count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) numbers: [u64; 3],
    before: Vec<String>,
}

impl Version {
    /// Reads a version. A lenient one may have a `v` at the front, fewer numbers, and zeros before a number.
    pub(crate) fn parse(text: &str, lenient: bool) -> Option<Self> {
        let text = if lenient { text.trim().trim_start_matches(['v', 'V']) } else { text };
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        if build.is_some_and(|build| !build.split('.').all(is_part)) {
            return None;
        }
        let (text, before) = text.split_once('-').map_or((text, None), |(text, before)| (text, Some(before)));
        let before: Vec<String> = before.into_iter().flat_map(|before| before.split('.')).map(str::to_owned).collect();
        let zeros = |part: &str| part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit());
        if !before.iter().all(|part| is_part(part) && !zeros(part)) {
            return None;
        }
        let parts: Vec<&str> = text.split('.').collect();
        let complete = parts.len() == 3 || (lenient && parts.len() < 3 && before.is_empty() && build.is_none());
        if !complete || parts.iter().any(|part| !lenient && zeros(part)) {
            return None;
        }
        let mut numbers = [0; 3];
        for (number, part) in numbers.iter_mut().zip(&parts) {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            *number = part.parse().ok().filter(|_| digits)?;
        }
        Some(Self { numbers, before })
    }
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let part = |a: &String, b: &String| match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        let parts = || {
            let different = self.before.iter().zip(&other.before).map(|(a, b)| part(a, b)).find(|order| order.is_ne());
            different.unwrap_or_else(|| self.before.len().cmp(&other.before.len()))
        };
        // A release is later than what came before it.
        let release = || self.before.is_empty().cmp(&other.before.is_empty());
        self.numbers.cmp(&other.numbers).then_with(release).then_with(parts)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered() {
        let order =
            ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0", "1.0.1", "1.10.0"];
        for pair in order.windows(2) {
            assert!(Version::parse(pair[0], false) < Version::parse(pair[1], false), "{pair:?}");
        }
        for text in ["1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "", "1.0.0.0", "a.b.c"] {
            assert_eq!(Version::parse(text, false), None, "{text}");
        }
        assert_eq!(Version::parse("v1.2", true).unwrap().numbers, [1, 2, 0]);
    }
}
