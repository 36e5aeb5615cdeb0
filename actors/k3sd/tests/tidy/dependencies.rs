//! Licences and versions of what others wrote. The policy is `deny.toml`, so this test and cargo-deny cannot disagree.

use std::collections::{BTreeMap, BTreeSet};

use crate::metadata::Package;

/// Weak copyleft that one crate of ours may use: it stays replaceable behind that crate's interface.
const LGPL: &[(&str, &str)] = &[("wireguard-control", "k3sd-netlink")];

/// What `deny.toml` says, as far as it is checked here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// SPDX identifiers, with their exception if they have one.
    pub licences: BTreeSet<String>,
    /// Crates that must not come in, and why.
    pub banned: Vec<Entry>,
    /// `name@version` of a second version that is bearable, and why.
    pub skipped: Vec<Entry>,
}

/// One `{ crate = "..", reason = ".." }`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub krate: String,
    pub reason: String,
}

impl Policy {
    /// Reads the three lists, which hold one entry per line.
    pub(crate) fn parse(text: &str) -> Self {
        let entries = |section, key| list(text, section, key).into_iter().map(entry).collect();
        Self {
            licences: list(text, "[licenses]", "allow").into_iter().filter_map(|line| strings(line).next()).collect(),
            banned: entries("[bans]", "deny"),
            skipped: entries("[bans]", "skip"),
        }
    }
}

/// The lines of `key = [ .. ]` in a section, without comments.
fn list<'a>(text: &'a str, section: &str, key: &str) -> Vec<&'a str> {
    let opening = format!("{key} = [");
    let lines = text.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('[')).skip_while(|line| *line != opening).skip(1);
    lines.take_while(|line| *line != "]").filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The quoted strings of a line; none of ours holds an escape.
fn strings(line: &str) -> impl Iterator<Item = String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned)
}

fn entry(line: &str) -> Entry {
    let mut strings = strings(line);
    Entry { krate: strings.next().unwrap_or_default(), reason: strings.next().unwrap_or_default() }
}

/// Packages whose licence does not let us use them, or where nobody can tell.
pub(crate) fn check_licences(packages: &[Package], policy: &Policy) -> Vec<String> {
    let mut findings = Vec::new();
    if policy.licences.is_empty() {
        findings.push("deny.toml: no list of licences was found".to_owned());
    }
    for package in packages {
        let Some(license) = &package.license else {
            findings.push(format!("{} {}: states no licence", package.name, package.version));
            continue;
        };
        let confined = LGPL.iter().find(|(name, _)| *name == package.name);
        if let Some((_, home)) = confined {
            if package.used_by.iter().any(|user| user != home) {
                findings
                    .push(format!("{}: {license} stays within {home}, but {:?} use it", package.name, package.used_by));
            }
        } else if !satisfied(license, &policy.licences) {
            findings.push(format!("{} {}: {license} (used by {:?})", package.name, package.version, package.used_by));
        }
    }
    findings
}

/// Whether an SPDX expression can be met with these licences. `/` is the old way to write OR.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().collect::<Vec<_>>().into_iter().peekable();
    let met = any_of(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words, allowed);
    }
    met
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let Some(word) = words.next() else { return false };
    if word == "(" {
        let met = any_of(words, allowed);
        return words.next_if_eq(&")").is_some() && met;
    }
    if words.next_if_eq(&"WITH").is_none() {
        return allowed.contains(word);
    }
    // An exception only adds permissions, so the plain licence is enough.
    words
        .next()
        .is_some_and(|exception| allowed.contains(&format!("{word} WITH {exception}")) || allowed.contains(word))
}

/// Crates that come in twice or not at all welcome, and exceptions that nothing needs.
pub(crate) fn check_versions(packages: &[Package], policy: &Policy) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(package);
    }
    let skipped = |package: &Package| {
        let key = format!("{}@{}", package.name, package.version);
        policy.skipped.iter().any(|entry| entry.krate == key)
    };
    let mut findings = Vec::new();
    for (name, all) in &versions {
        if all.iter().filter(|package| !skipped(package)).count() > 1 {
            let all: Vec<String> =
                all.iter().map(|package| format!("{} by {}", package.version, package.used_by.join(", "))).collect();
            findings.push(format!("{name}: {}", all.join("; ")));
        }
        if let Some(ban) = policy.banned.iter().find(|ban| ban.krate == *name) {
            findings.push(format!("{name}: banned: {}", ban.reason));
        }
    }
    for entry in &policy.skipped {
        let needed = packages.iter().any(|package| {
            format!("{}@{}", package.name, package.version) == entry.krate && versions[package.name.as_str()].len() > 1
        });
        if !needed {
            findings.push(format!("deny.toml skips {}, which no longer is a second version", entry.krate));
        }
        if entry.reason.is_empty() {
            findings.push(format!("deny.toml skips {} without a reason", entry.krate));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
[licenses]
# words
allow = [
    "MIT",
    "Apache-2.0",
    # why
    "Zlib",
]
[bans]
deny = [
    { crate = "serde_yaml", reason = "archived" },
]
skip = [
    { crate = "syn@1.0.0", reason = "a macro of old" },
]
"#;

    fn package(name: &str, version: &str, license: &str) -> Package {
        Package::fake(name, version, Some(license), &["somebody"])
    }

    #[test]
    fn the_policy_is_read_from_its_lists() {
        let policy = Policy::parse(SAMPLE);
        assert_eq!(policy.licences.iter().map(String::as_str).collect::<Vec<_>>(), ["Apache-2.0", "MIT", "Zlib"]);
        assert_eq!(policy.banned, [Entry { krate: "serde_yaml".to_owned(), reason: "archived".to_owned() }]);
        assert_eq!(policy.skipped, [Entry { krate: "syn@1.0.0".to_owned(), reason: "a macro of old".to_owned() }]);
    }

    #[test]
    fn licence_expressions_are_understood() {
        let allowed = Policy::parse(SAMPLE).licences;
        for (expression, expected) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("(GPL-3.0 OR MIT) AND Zlib", true),
            ("MIT AND (GPL-3.0 OR AGPL-3.0)", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-2.0 WITH Classpath-exception-2.0", false),
            ("", false),
            ("MIT MIT", false),
            ("(MIT", false),
        ] {
            assert_eq!(satisfied(expression, &allowed), expected, "{expression:?}");
        }
    }

    #[test]
    fn copyleft_and_silence_are_found() {
        let policy = Policy::parse(SAMPLE);
        let packages = [
            package("good", "1.0.0", "MIT"),
            package("bad", "1.0.0", "GPL-3.0"),
            Package::fake("mute", "1.0.0", None, &[]),
        ];
        let findings = check_licences(&packages, &policy);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].starts_with("bad 1.0.0: GPL-3.0"));
        assert!(findings[1].starts_with("mute 1.0.0: states no licence"));
        assert_eq!(check_licences(&[], &Policy::default()).len(), 1, "an empty policy allows nothing");
    }

    #[test]
    fn lgpl_stays_in_netlink() {
        let policy = Policy::parse(SAMPLE);
        let used_by = |user| Package::fake("wireguard-control", "1.0.0", Some("LGPL-2.1-or-later"), &[user]);
        assert_eq!(check_licences(&[used_by("k3sd-netlink")], &policy), Vec::<String>::new());
        assert_eq!(check_licences(&[used_by("k3sd-flannel")], &policy).len(), 1);
    }

    #[test]
    fn second_versions_bans_and_stale_exceptions_are_found() {
        let policy = Policy::parse(SAMPLE);
        let two = [package("syn", "1.0.0", "MIT"), package("syn", "2.0.0", "MIT")];
        assert_eq!(check_versions(&two, &policy), Vec::<String>::new());
        let three = [two[0].clone(), two[1].clone(), package("syn", "3.0.0", "MIT")];
        assert_eq!(check_versions(&three, &policy).len(), 1);
        assert!(check_versions(&two[1..], &policy)[0].contains("no longer is a second version"));
        let banned = [two[0].clone(), two[1].clone(), package("serde_yaml", "0.9.0", "MIT")];
        assert!(check_versions(&banned, &policy)[0].contains("banned: archived"));
    }
}
