//! Which containerd it is, and which configuration it reads.

/// A form of configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// containerd 1.x.
    V2,
    /// containerd 2.x.
    V3,
}

/// The version in what `containerd --version` prints, and the form that goes with it.
pub(crate) fn parse_version(printed: &str) -> Option<(String, Format)> {
    let numbers = |word: &str| {
        let word = word.strip_prefix('v').unwrap_or(word);
        let mut parts = word.split(['.', '-', '~', '+']);
        let major: u32 = parts.next()?.parse().ok()?;
        parts.next()?.parse::<u32>().ok()?;
        Some((word.to_owned(), major))
    };
    let (version, major) = printed.split_whitespace().find_map(numbers)?;
    match major {
        0 => None,
        1 => Some((version, Format::V2)),
        _ => Some((version, Format::V3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_distributions_print() {
        let debian = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n";
        assert_eq!(parse_version(debian), Some(("1.6.20~ds1".to_owned(), Format::V2)));
        let upstream = "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376";
        assert_eq!(parse_version(upstream), Some(("2.1.4".to_owned(), Format::V3)));
        let k3s = "containerd github.com/k3s-io/containerd v1.7.23-k3s2 57f17b0a6295a39009d861b89e3b3b87b005ca27";
        assert_eq!(parse_version(k3s), Some(("1.7.23-k3s2".to_owned(), Format::V2)));
        assert_eq!(parse_version("containerd: command not found"), None);
    }
}
