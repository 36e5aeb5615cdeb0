//! The directive `rewrite`: another question is answered than was asked, and the answer is made to fit.

use regex::{Regex, RegexBuilder};

use crate::wire::kind;
use crate::wire::message::Record;
use crate::wire::name::Name;

/// Bytes that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A question, to be rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// In small letters.
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

/// How a name is recognised and changed. Texts are names with a dot at the end, in small letters.
#[derive(Clone, Debug)]
enum Matcher {
    Exact(String, String),
    Prefix(String, String),
    Suffix(String, String),
    Substring(String, String),
    Pattern(Regex, String),
}

/// How the names of answers are changed.
#[derive(Clone, Debug)]
pub(crate) enum Rename {
    /// This way.
    Name(MatcherRef),
    /// All live as long as this, at least and at most, in seconds.
    Ttl(u32, u32),
}

/// A way to change names, for the one who writes answers.
#[derive(Clone, Debug)]
pub(crate) struct MatcherRef(Matcher);

#[derive(Clone, Debug)]
enum Field {
    Name { question: Matcher, answer: Option<Matcher> },
    Kind { from: u16, to: u16 },
    Class { from: u16, to: u16 },
    Ttl { names: Matcher, least: u32, most: u32 },
}

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite {
    field: Field,
    stops: bool,
}

impl Matcher {
    fn new(how: &str, from: &str, to: &str) -> Result<Self, String> {
        let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
        let whole = |text: &str| if text.ends_with('.') { text.to_owned() } else { format!("{text}.") };
        Ok(match how {
            "exact" => Self::Exact(whole(&from), whole(&to)),
            "prefix" => Self::Prefix(from, to),
            "suffix" => Self::Suffix(whole(&from), whole(&to)),
            "substring" => Self::Substring(from, to),
            "regex" => {
                let built = RegexBuilder::new(&from).size_limit(PATTERN_BYTES_MAX).build();
                Self::Pattern(built.map_err(|_| format!("{from:?} is no regular expression"))?, to)
            }
            other => return Err(format!("names can't be matched by {other:?}")),
        })
    }

    /// The same the other way round.
    fn reversed(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::Exact(from, to) => Self::Exact(to, from),
            Self::Prefix(from, to) => Self::Prefix(to, from),
            Self::Suffix(from, to) => Self::Suffix(to, from),
            Self::Substring(from, to) => Self::Substring(to, from),
            Self::Pattern(..) => return None,
        })
    }

    /// The name that takes the place of this one; `None` if it isn't meant.
    fn apply(&self, name: &str) -> Option<String> {
        match self {
            Self::Exact(from, to) => (name == from).then(|| to.clone()),
            Self::Prefix(from, to) => name.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}")),
            Self::Suffix(from, to) => name.strip_suffix(from.as_str()).map(|rest| format!("{rest}{to}")),
            Self::Substring(from, to) => name.contains(from.as_str()).then(|| name.replace(from.as_str(), to)),
            Self::Pattern(pattern, to) => {
                let found = pattern.captures(name)?;
                let mut text = to.clone();
                for (number, group) in found.iter().enumerate() {
                    text = text.replace(&format!("{{{number}}}"), group.map_or("", |group| group.as_str()));
                }
                Some(text)
            }
        }
    }

    fn apply_to(&self, name: &Name) -> Option<Name> {
        self.apply(&name.to_string().to_ascii_lowercase()).and_then(|text| Name::parse_lower(&text).ok())
    }
}

impl Rewrite {
    /// Reads a rule from its words.
    ///
    /// # Errors
    /// What of it isn't understood.
    pub(crate) fn parse(words: &[&str], lines: &[Vec<String>]) -> Result<Self, String> {
        let mut words = words.to_vec();
        // Two lines in braces are the same as one behind the other.
        words.extend(lines.iter().flatten().map(String::as_str));
        let stops = match words.first() {
            Some(&"continue") => false,
            Some(&"stop") => true,
            _ => {
                words.insert(0, "stop");
                true
            }
        };
        let field = match words.get(1..).unwrap_or_default() {
            ["name", rest @ ..] => name_rule(rest)?,
            ["type", from, to] => {
                let number = |text: &str| kind::of(text).ok_or_else(|| format!("{text:?} is no type of records"));
                Field::Kind { from: number(from)?, to: number(to)? }
            }
            ["class", from, to] => Field::Class { from: class(from)?, to: class(to)? },
            ["ttl", rest @ ..] => {
                let (how, names, seconds) = match rest {
                    [names, seconds] => ("exact", names, seconds),
                    [how, names, seconds] => (*how, names, seconds),
                    _ => return Err("a rule about ttl needs a name and seconds".to_owned()),
                };
                let (least, most) = range(seconds)?;
                Field::Ttl { names: Matcher::new(how, names, "")?, least, most }
            }
            [other, ..] => return Err(format!("rules about {other:?} aren't known")),
            [] => return Err("a rule needs to say what it changes".to_owned()),
        };
        Ok(Self { field, stops })
    }
}

fn name_rule(words: &[&str]) -> Result<Field, String> {
    const HOW: [&str; 5] = ["exact", "prefix", "suffix", "substring", "regex"];
    let (how, words) = match words {
        [how, rest @ ..] if HOW.contains(how) && rest.len() >= 2 => (*how, rest),
        words => ("exact", words),
    };
    let [from, to, answers @ ..] = words else { return Err("a rule about names needs two of them".to_owned()) };
    let question = Matcher::new(how, from, to)?;
    let mut answer = question.reversed().filter(|_| how == "exact");
    let mut rest = answers;
    while let [first, tail @ ..] = rest {
        (answer, rest) = match (*first, tail) {
            ("answer", ["auto", tail @ ..]) => {
                let reversed = question.reversed().ok_or("a regular expression has no automatic answer")?;
                (Some(reversed), tail)
            }
            ("answer", ["name", from, to, tail @ ..]) => (Some(Matcher::new("regex", from, to)?), tail),
            _ => return Err(format!("{first:?} isn't known in a rule about names")),
        };
    }
    Ok(Field::Name { question, answer })
}

fn class(text: &str) -> Result<u16, String> {
    match text.to_ascii_uppercase().as_str() {
        "IN" => Ok(1),
        "CH" => Ok(3),
        "HS" => Ok(4),
        "ANY" => Ok(255),
        _ => Err(format!("{text:?} is no class of records")),
    }
}

/// Seconds, or from how many to how many.
fn range(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} are no seconds"));
    match text.split_once('-') {
        None => number(text).map(|seconds| (seconds, seconds)),
        Some((least, most)) => {
            let least = if least.is_empty() { 0 } else { number(least)? };
            let most = if most.is_empty() { u32::MAX } else { number(most)? };
            Ok((least, most))
        }
    }
}

/// Applies rules to a question. `None` if none of them means it.
pub(crate) fn apply(rules: &[Rewrite], asked: &Question) -> Option<(Question, Vec<Rename>)> {
    let (mut question, mut renames, mut changed) = (asked.clone(), Vec::new(), false);
    for rule in rules {
        let applies = match &rule.field {
            Field::Name { question: matcher, answer } => match matcher.apply_to(&question.name) {
                Some(name) => {
                    question.name = name;
                    renames.extend(answer.clone().map(|matcher| Rename::Name(MatcherRef(matcher))));
                    true
                }
                None => false,
            },
            Field::Kind { from, to } => (question.kind == *from).then(|| question.kind = *to).is_some(),
            Field::Class { from, to } => (question.class == *from).then(|| question.class = *to).is_some(),
            Field::Ttl { names, least, most } => {
                let is_meant = names.apply(&question.name.to_string()).is_some();
                is_meant.then(|| renames.push(Rename::Ttl(*least, *most))).is_some()
            }
        };
        changed |= applies;
        if applies && rule.stops {
            break;
        }
    }
    // What was changed last is changed back first.
    renames.reverse();
    changed.then_some((question, renames))
}

impl Rename {
    /// Makes a record fit the question that was asked at first.
    pub(crate) fn apply(&self, record: &mut Record) {
        match self {
            Self::Name(MatcherRef(matcher)) => {
                if let Some(name) = matcher.apply_to(&record.owner) {
                    record.owner = name;
                }
            }
            Self::Ttl(least, most) => record.ttl = record.ttl.clamp(*least, (*most).max(*least)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &[&str], asked: &str, expected: Option<&str>, answered: &str, shown: &str) {
        let parse = |text: &&str| Rewrite::parse(&text.split(' ').collect::<Vec<_>>(), &[]).expect("a rule");
        let rules: Vec<Rewrite> = rules.iter().map(parse).collect();
        let asked = Question { name: Name::parse(asked).expect("a name"), kind: 1, class: 1 };
        let found = apply(&rules, &asked);
        assert_eq!(found.as_ref().map(|(question, _)| question.name.to_string()).as_deref(), expected);
        let owner = Name::parse(answered).expect("a name");
        let mut record = Record { owner, kind: 1, class: 1, ttl: 60, data: Box::default() };
        for rename in found.iter().flat_map(|(_, renames)| renames) {
            rename.apply(&mut record);
        }
        assert_eq!(record.owner.to_string(), shown);
    }

    #[test]
    fn names_are_changed_and_changed_back() {
        check(&["name a.example b.example"], "a.example", Some("b.example."), "b.example", "a.example.");
        check(&["name a.example b.example"], "x.a.example", None, "b.example", "b.example.");
        check(&["name prefix old- new-"], "old-x.y", Some("new-x.y."), "new-x.y", "new-x.y.");
        check(
            &["name suffix .a.org .svc.cluster.local answer auto"],
            "w.x.a.org",
            Some("w.x.svc.cluster.local."),
            "w.x.svc.cluster.local",
            "w.x.a.org.",
        );
        check(&["name substring foo bar"], "a.foo.b", Some("a.bar.b."), "a.bar.b", "a.bar.b.");
        let regex = r"name regex (.*)-(us)\.org {1}.{2}.net answer name (.*)\.(us)\.net {1}-{2}.org";
        check(&[regex], "ftp-us.org", Some("ftp.us.net."), "ftp.us.net", "ftp-us.org.");
        let two = ["continue name exact a.x b.x", "name exact b.x c.x", "name exact c.x d.x"];
        check(&two, "a.x", Some("c.x."), "c.x", "a.x.");
    }

    #[test]
    fn types_classes_and_times() {
        let rule = |text: &str| Rewrite::parse(&text.split(' ').collect::<Vec<_>>(), &[]);
        let asked = Question { name: Name::parse("a.b").expect("a name"), kind: kind::ANY, class: 1 };
        let (question, _) = apply(&[rule("type ANY TXT").expect("a rule")], &asked).expect("it is meant");
        assert_eq!(question.kind, kind::TXT);
        let (_, renames) = apply(&[rule("ttl suffix b 10-20").expect("a rule")], &asked).expect("it is meant");
        let mut record = Record { owner: asked.name.clone(), kind: 1, class: 1, ttl: 60, data: Box::default() };
        renames.iter().for_each(|rename| rename.apply(&mut record));
        assert_eq!(record.ttl, 20);
        for wrong in [
            "",
            "stop",
            "edns0 local set 0xffee x",
            "name a",
            "name regex ( x",
            "type A BOGUS",
            "name a b answer value c d",
        ] {
            assert!(rule(wrong).is_err(), "{wrong}");
        }
    }
}
