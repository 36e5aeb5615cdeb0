//! The values of `format` that upstream checks. An unknown format demands nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::decode::base64;
use crate::decode::time::Moment;
use crate::names;

/// Whether a text is written in the format.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "date" => is_date(text),
        "datetime" => Moment::parse(text).is_some(),
        "duration" => is_duration(text),
        "byte" => base64::decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "email" => is_email(text),
        "uri" => is_uri(text),
        "hostname" => text.len() <= 255 && !text.is_empty() && text.split('.').all(is_host_label),
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && is_hex(digits)
        }
        "rgbcolor" => is_rgb(text),
        "ssn" => is_grouped(text, &[3, 2, 4]),
        "k8sshortname" => names::dns_label(text).is_empty(),
        "k8slongname" => names::dns_subdomain(text).is_empty(),
        _ => true,
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && Moment::parse(&format!("{text}T00:00:00Z")).is_some()
}

/// Go's durations, one or more numbers with a unit, or a number with a word such as `2 days`.
fn is_duration(text: &str) -> bool {
    let words = ["nanosecond", "microsecond", "millisecond", "second", "minute", "hour", "day", "week"];
    if let Some((number, word)) = text.trim().split_once(' ') {
        let word = word.trim();
        let word = word.strip_suffix('s').unwrap_or(word);
        return !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && words.contains(&word);
    }
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let digits = &rest[..number];
        if !digits.bytes().any(|byte| byte.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return false;
        }
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        if !matches!(&rest[..unit], "ns" | "us" | "\u{b5}s" | "\u{3bc}s" | "ms" | "s" | "m" | "h" | "d" | "w") {
            return false;
        }
        rest = &rest[unit..];
        parts += 1;
    }
    parts > 0
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    // No sign and no leading zero, which a number's parser would take.
    let plain = bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let max = match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>()) {
        (Ok(_), _) => 32,
        (_, Ok(_)) => 128,
        _ => return false,
    };
    plain && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}

/// Six, eight or twenty bytes; pairs with `:` or `-`, or groups of four with `.`.
fn is_mac(text: &str) -> bool {
    let groups = |mark: char, digits: usize| {
        let groups: Vec<&str> = text.split(mark).collect();
        let bytes = groups.len() * digits / 2;
        matches!(bytes, 6 | 8 | 20) && groups.iter().all(|group| group.len() == digits && is_hex(group))
    };
    groups(':', 2) || groups('-', 2) || groups('.', 4)
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    // The hyphens may be left out.
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let hyphens: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let whole = digits.len() == 32 && is_hex(&digits) && (hyphens.is_empty() || hyphens == [8, 13, 18, 23]);
    let variant = matches!(digits.chars().nth(16), Some('8' | '9' | 'a' | 'b' | 'A' | 'B'));
    match version {
        None => whole,
        Some('3') => whole && digits.chars().nth(12) == Some('3'),
        Some(version) => whole && digits.chars().nth(12) == Some(version) && variant,
    }
}

fn is_email(text: &str) -> bool {
    let Some((local, host)) = text.rsplit_once('@') else { return false };
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    !local.is_empty() && local.chars().all(atom) && !dots && !host.is_empty() && host.split('.').all(is_host_label)
}

/// A scheme and something behind it, or an absolute path.
fn is_uri(text: &str) -> bool {
    let clean = !text.chars().any(|c| c.is_control() || c == ' ');
    let scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        let letters = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && letters && !rest.is_empty()
    });
    clean && (scheme || text.starts_with('/'))
}

fn is_host_label(label: &str) -> bool {
    let inner = label.chars().all(|c| c.is_alphanumeric() || c == '-');
    !label.is_empty() && label.chars().count() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
}

fn is_rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|text| text.strip_suffix(')'));
    let parts: Vec<&str> = inner.unwrap_or_default().split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

/// Digits in groups of these lengths, with a hyphen or blank between them or nothing.
fn is_grouped(text: &str, groups: &[usize]) -> bool {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let total: usize = groups.iter().sum();
    digits.len() == total && digits.bytes().all(|byte| byte.is_ascii_digit()) && text.len() - total < groups.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_takes_its_own_and_nothing_else() {
        let uuid = "11111111-2222-4333-8444-555555555555";
        for (format, good, bad) in [
            ("date", vec!["2024-02-29"], vec!["2023-02-29", "2024-1-1", "2024-01-01T00:00:00Z"]),
            ("date-time", vec!["2024-01-02T03:04:05Z"], vec!["2024-01-02", "x"]),
            ("datetime", vec!["2024-01-02T03:04:05.5+01:00"], vec![""]),
            (
                "duration",
                vec!["1h", "1h30m", "-1.5s", "0", "2 days", "1d"],
                vec!["", "1", "h", "1x", "1.2.3s", "two days"],
            ),
            ("byte", vec!["Zm9v", ""], vec!["Zm9", "*"]),
            ("ipv4", vec!["1.2.3.4"], vec!["1.2.3", "::1", "01.2.3.4"]),
            ("ipv6", vec!["::1", "fd00::1"], vec!["1.2.3.4", ":::"]),
            ("cidr", vec!["10.0.0.0/8", "fd::/64", "1.2.3.4/0"], vec!["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8"]),
            (
                "mac",
                vec!["00:11:22:33:44:55", "0011.2233.4455", "00-11-22-33-44-55"],
                vec!["00:11:22:33:44", "0:1:2:3:4:5"],
            ),
            (
                "uuid",
                vec![uuid, "11111111222243338444555555555555"],
                vec!["1111", "11111111-2222-4333-84445-55555555555"],
            ),
            ("uuid4", vec![uuid], vec!["11111111-2222-3333-8444-555555555555"]),
            ("email", vec!["a.b@example.org"], vec!["a", "@b", "a..b@c", "a@-b"]),
            ("uri", vec!["https://a/b", "mailto:x", "/a"], vec!["a", "http: //", ":x"]),
            ("hostname", vec!["a.b-c.d"], vec!["", "a..b", "-a", "a_b"]),
            ("bsonobjectid", vec!["0123456789abcdef01234567"], vec!["0123"]),
            ("hexcolor", vec!["#fff", "00ff00"], vec!["#ff", "red"]),
            ("rgbcolor", vec!["rgb(1,2,255)"], vec!["rgb(1,2)", "rgb(1,2,256)", "1,2,3"]),
            ("ssn", vec!["111-22-3333", "111 22 3333"], vec!["111-22-333"]),
            ("k8s-short-name", vec!["a-b"], vec!["a.b", "A"]),
            ("k8s-long-name", vec!["a.b"], vec!["a_b"]),
            ("password", vec!["anything"], vec![]),
            ("unheard-of", vec!["anything"], vec![]),
        ] {
            for text in good {
                assert!(fits(format, text), "{format}: {text}");
            }
            for text in bad {
                assert!(!fits(format, text), "{format}: {text}");
            }
        }
    }
}
