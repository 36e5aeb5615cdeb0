//! Zone files as in RFC 1035, section 5: from text to records.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::parse::ParseError;
use crate::wire::message::Record;
use crate::wire::name::Name;
use crate::wire::{CLASS_IN, kind};

/// Seconds for records before which nothing else was said.
const TTL_STANDARD: u32 = 3600;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    quoted: bool,
}

/// A record's words, which may have stood on several lines.
#[derive(Debug)]
struct Entry {
    words: Vec<Word>,
    /// It begins with white space: the owner is the one before.
    is_indented: bool,
    line: usize,
}

/// Reads all records of a zone.
///
/// # Errors
/// The first thing that isn't understood, with its line.
pub(crate) fn read(file: &str, text: &str, origin: &Name) -> Result<Vec<Record>, ParseError> {
    let place = |line: usize| format!("{file}, line {line}");
    let wrong = |line: usize| move |what: String| ParseError { place: place(line), what };
    let mut state = State { origin: origin.clone(), owner: None, ttl: None, ttl_before: None };
    let mut records = Vec::new();
    for entry in split(text).map_err(|(line, what)| wrong(line)(what.to_owned()))? {
        let line = entry.line;
        records.extend(state.entry(entry).map_err(wrong(line))?);
    }
    Ok(records)
}

fn split(text: &str) -> Result<Vec<Entry>, (usize, &'static str)> {
    let mut entries = Vec::new();
    let mut entry = Entry { words: Vec::new(), is_indented: false, line: 1 };
    let (mut line, mut depth, mut at_start) = (1, 0_usize, true);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' => {
                line += 1;
                if depth == 0 {
                    let full = std::mem::replace(&mut entry, Entry { words: Vec::new(), is_indented: false, line });
                    entries.extend((!full.words.is_empty()).then_some(full));
                    at_start = true;
                    continue;
                }
            }
            ';' => while characters.next_if(|character| *character != '\n').is_some() {},
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or((line, "a parenthesis closes what was never opened"))?,
            '"' => {
                let mut text = String::new();
                loop {
                    match characters.next().ok_or((line, "a quote is never closed"))? {
                        '"' => break,
                        '\\' => {
                            text.push('\\');
                            text.extend(characters.next());
                        }
                        character => text.push(character),
                    }
                }
                entry.words.push(Word { text, quoted: true });
            }
            character if character.is_whitespace() => entry.is_indented |= at_start && depth == 0,
            character => {
                let mut text = String::from(character);
                if character == '\\' {
                    text.extend(characters.next());
                }
                while let Some(more) = characters.next_if(|more| !more.is_whitespace() && !"();\"".contains(*more)) {
                    text.push(more);
                    if more == '\\' {
                        text.extend(characters.next());
                    }
                }
                entry.words.push(Word { text, quoted: false });
            }
        }
        at_start = false;
    }
    if depth > 0 {
        return Err((line, "a parenthesis is never closed"));
    }
    entries.extend((!entry.words.is_empty()).then_some(entry));
    Ok(entries)
}

struct State {
    origin: Name,
    owner: Option<Name>,
    ttl: Option<u32>,
    ttl_before: Option<u32>,
}

impl State {
    fn name(&self, text: &str) -> Result<Name, String> {
        if text == "@" {
            return Ok(self.origin.clone());
        }
        Name::parse_below(text, self.origin.wire()).map_err(|error| format!("{text:?}: {error}"))
    }

    fn entry(&mut self, entry: Entry) -> Result<Option<Record>, String> {
        let mut words = entry.words.as_slice();
        let first = words.first().map(|word| word.text.as_str()).unwrap_or_default();
        let argument =
            || words.get(1).map(|word| word.text.clone()).ok_or_else(|| format!("{first} needs an argument"));
        match first.to_ascii_uppercase().as_str() {
            "$ORIGIN" => {
                self.origin = self.name(&argument()?)?;
                return Ok(None);
            }
            "$TTL" => {
                self.ttl = Some(seconds(&argument()?).ok_or("$TTL needs seconds")?);
                return Ok(None);
            }
            text if text.starts_with('$') => return Err(format!("{first} isn't supported")),
            _ => {}
        }
        if !entry.is_indented {
            self.owner = Some(self.name(first)?.lower());
            words = words.get(1..).unwrap_or_default();
        }
        let owner = self.owner.clone().ok_or("the first record has no owner")?;
        let mut ttl = None;
        // Time and class come in any order, or not at all.
        while let Some((word, rest)) = words.split_first() {
            if let Some(found) = seconds(&word.text).filter(|_| ttl.is_none()) {
                ttl = Some(found);
            } else if !word.text.eq_ignore_ascii_case("IN") {
                break;
            }
            words = rest;
        }
        let (word, data) = words.split_first().ok_or("a record needs a type")?;
        let kind = kind::of(&word.text).ok_or_else(|| format!("{:?} is no type of records", word.text))?;
        let data = self.data(kind, data)?;
        if kind == kind::SOA && self.ttl_before.is_none() {
            // What stands at the end of the first record of a zone was the standard before $TTL.
            self.ttl_before = data.get(data.len() - 4..).and_then(|end| end.try_into().ok()).map(u32::from_be_bytes);
        }
        let ttl = ttl.or(self.ttl).or(self.ttl_before).unwrap_or(TTL_STANDARD);
        Ok(Some(Record { owner, kind, class: CLASS_IN, ttl, data: data.into() }))
    }

    fn data(&self, kind: u16, words: &[Word]) -> Result<Vec<u8>, String> {
        if let [mark, length, hex @ ..] = words
            && mark.text == r"\#"
        {
            return generic(&length.text, hex);
        }
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let shape = |what: &str| format!("a record of type {} needs {what}", kind::name(kind));
        let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no number below 65536"));
        let mut data = Vec::new();
        match (kind, &*texts) {
            (kind::A, [address]) => {
                data.extend(address.parse::<Ipv4Addr>().map_err(|_| shape("an IPv4 address"))?.octets());
            }
            (kind::AAAA, [address]) => {
                data.extend(address.parse::<Ipv6Addr>().map_err(|_| shape("an IPv6 address"))?.octets());
            }
            (kind::NS | kind::CNAME | kind::PTR | kind::DNAME, [name]) => data.extend(self.name(name)?.wire()),
            (kind::MX | kind::AFSDB, [preference, name]) => {
                data.extend(number(preference)?.to_be_bytes());
                data.extend(self.name(name)?.wire());
            }
            (kind::SRV, [priority, weight, port, name]) => {
                for text in [priority, weight, port] {
                    data.extend(number(text)?.to_be_bytes());
                }
                data.extend(self.name(name)?.wire());
            }
            (kind::SOA, [server, mail, numbers @ ..]) if numbers.len() == 5 => {
                data.extend(self.name(server)?.wire());
                data.extend(self.name(mail)?.wire());
                for text in numbers {
                    data.extend(seconds(text).ok_or_else(|| format!("{text:?} is no number"))?.to_be_bytes());
                }
            }
            (kind::TXT | 99, [_, ..]) => {
                for text in &texts {
                    string(text, &mut data)?;
                }
            }
            (kind::CAA, [flags, tag, value]) => {
                data.push(flags.parse().map_err(|_| shape("flags below 256"))?);
                string(tag, &mut data)?;
                data.extend(unescaped(value)?);
            }
            (kind::A | kind::NS | kind::CNAME | kind::PTR | kind::DNAME, _) => return Err(shape("one word")),
            (kind::AAAA, _) => return Err(shape("an IPv6 address")),
            (kind::MX | kind::AFSDB, _) => return Err(shape("a number and a name")),
            (kind::SRV, _) => return Err(shape("three numbers and a name")),
            (kind::SOA, _) => return Err(shape("two names and five numbers")),
            (kind::TXT | 99, _) => return Err(shape("a text")),
            (kind::CAA, _) => return Err(shape("flags, a tag and a value")),
            _ => return Err(format!(r"the type {} is only read in the form \# LENGTH HEX", kind::name(kind))),
        }
        Ok(data)
    }
}

fn generic(length: &str, hex: &[Word]) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = hex.iter().flat_map(|word| word.text.bytes()).collect();
    let pair = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let data: Option<Vec<u8>> = digits.chunks(2).map(|digits| pair(digits).filter(|_| digits.len() == 2)).collect();
    let data = data.ok_or("the bytes aren't hexadecimal")?;
    if length.parse() != Ok(data.len()) {
        return Err("there are more or fewer bytes than was said".to_owned());
    }
    Ok(data)
}

/// A text with its length before it.
fn string(text: &str, data: &mut Vec<u8>) -> Result<(), String> {
    let bytes = unescaped(text)?;
    data.push(u8::try_from(bytes.len()).map_err(|_| "a text is longer than 255 bytes".to_owned())?);
    data.extend(bytes);
    Ok(())
}

fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let wrong = || "an escape is invalid".to_owned();
        let first = rest.next().ok_or_else(wrong)?;
        if !first.is_ascii_digit() {
            bytes.push(first);
            continue;
        }
        let digits = [Some(first), rest.next(), rest.next()];
        let number = digits.into_iter().try_fold(0_u32, |number, digit| {
            let digit = digit.filter(u8::is_ascii_digit)?;
            Some(number * 10 + u32::from(digit - b'0'))
        });
        bytes.push(number.and_then(|number| u8::try_from(number).ok()).ok_or_else(wrong)?);
    }
    Ok(bytes)
}

/// `300`, or `1h30m`.
pub(super) fn seconds(text: &str) -> Option<u32> {
    let (mut total, mut number) = (0_u32, None::<u32>);
    for character in text.chars() {
        if let Some(digit) = character.to_digit(10) {
            number = Some(number.unwrap_or_default().checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match character.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    match number {
        Some(number) => total.checked_add(number),
        None => (!text.is_empty()).then_some(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Name {
        Name::parse("example.org").expect("a name")
    }

    #[test]
    fn a_zone_is_read_with_all_that_people_write() {
        let text = "$TTL 1h30m\n\
            @ IN SOA ns hostmaster.example.org. (\n  2024 ; serial\n  7200 1800\n  86400 60 )\n\
            \tNS ns\n\
            ns 300 IN A 192.0.2.1\n\
            \tIN 300 AAAA 2001:db8::1\n\
            $ORIGIN sub.example.org.\n\
            www CNAME @\n\
            *.wild TXT \"a; \\\"b\" c\\100\n\
            _x._tcp SRV 1 2 3 www\n\
            mail MX 10 mx.example.net.\n\
            odd TYPE65280 \\# 3 ab cdef\n\
            caa CAA 0 issue \"ca.example\"\n";
        let records = read("db", text, &origin()).expect("a zone");
        let shown: Vec<_> = records.iter().map(|record| (record.owner.to_string(), record.kind, record.ttl)).collect();
        let expected = [
            ("example.org.", kind::SOA, 5400),
            ("example.org.", kind::NS, 5400),
            ("ns.example.org.", kind::A, 300),
            ("ns.example.org.", kind::AAAA, 300),
            ("www.sub.example.org.", kind::CNAME, 5400),
            ("*.wild.sub.example.org.", kind::TXT, 5400),
            ("_x._tcp.sub.example.org.", kind::SRV, 5400),
            ("mail.sub.example.org.", kind::MX, 5400),
            ("odd.sub.example.org.", 65280, 5400),
            ("caa.sub.example.org.", kind::CAA, 5400),
        ];
        assert_eq!(shown, expected.map(|(name, kind, ttl)| (name.to_owned(), kind, ttl)));
        assert_eq!(*records[5].data, *b"\x05a; \"b\x02cd");
        assert_eq!(*records[8].data, [0xab, 0xcd, 0xef]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line, what) in [
            ("a A 192.0.2.1\nb A nonsense\n", 2, "an IPv4 address"),
            ("a MX x\n", 1, "a number and a name"),
            ("a BOGUS x\n", 1, "no type"),
            ("a SOA x y (\n1 2 3\n", 3, "never closed"),
            (" A 192.0.2.1\n", 1, "no owner"),
            ("$INCLUDE /etc/shadow\n", 1, "isn't supported"),
            ("a TXT \"x\n", 1, "never closed"),
            ("a TYPE1 \\# 2 ab\n", 1, "more or fewer"),
            ("a HINFO x y\n", 1, "only read in the form"),
        ] {
            let error = read("db", text, &origin()).expect_err(text);
            assert_eq!(error.place, format!("db, line {line}"), "{text:?}: {error}");
            assert!(error.what.contains(what), "{text:?}: {error}");
        }
    }
}
