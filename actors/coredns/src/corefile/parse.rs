//! From text to blocks and directives: the shape of a Corefile, without a look at what the directives mean.

use std::collections::BTreeMap;

use thiserror::Error;

use super::Files;

/// How deep files may import files.
const IMPORTS_MAX: usize = 8;
/// Words of everything together; more is a mistake.
const WORDS_MAX: usize = 100_000;

/// What is wrong with the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {what}")]
pub(crate) struct ParseError {
    pub(crate) place: String,
    pub(crate) what: String,
}

/// A directive with its block, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) lines: Vec<Vec<String>>,
    /// File and line, for people.
    pub(crate) place: String,
}

/// A server block: what it is for, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) keys: Vec<String>,
    pub(crate) directives: Vec<Directive>,
    pub(crate) place: String,
}

/// A line, split into words. A brace that stands alone is a word without quotes.
#[derive(Clone, Debug)]
struct Line {
    words: Vec<Word>,
    place: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    quoted: bool,
}

impl Word {
    fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// Reads a Corefile with all that it imports.
///
/// # Errors
/// Braces or quotes don't fit, or imports never end.
pub(crate) fn parse(text: &str, files: &Files) -> Result<Vec<Block>, ParseError> {
    let mut snippets = BTreeMap::new();
    let mut blocks = Vec::new();
    let mut budget = WORDS_MAX;
    file("Corefile", text, files, &mut snippets, &mut blocks, (0, &mut budget))?;
    Ok(blocks)
}

type Snippets = BTreeMap<String, Vec<Line>>;

fn file(
    name: &str,
    text: &str,
    files: &Files,
    snippets: &mut Snippets,
    blocks: &mut Vec<Block>,
    (depth, budget): (usize, &mut usize),
) -> Result<(), ParseError> {
    let lines = split(name, text)?;
    spend(budget, &lines, depth, name)?;
    let mut at = 0;
    let mut keys: Vec<String> = Vec::new();
    while let Some(line) = lines.get(at) {
        at += 1;
        let wrong = |what: &str| ParseError { place: line.place.clone(), what: what.to_owned() };
        if keys.is_empty()
            && let [first, pattern] = &*line.words
            && first.is("import")
        {
            for (name, text) in files.matching(&pattern.text) {
                file(name, text, files, snippets, blocks, (depth + 1, budget))?;
            }
            continue;
        }
        let opens = line.words.last().is_some_and(|word| word.is("{"));
        let named = line.words.iter().take(line.words.len() - usize::from(opens));
        for word in named {
            if word.is("}") {
                return Err(wrong("a brace closes what was never opened"));
            }
            keys.extend(word.text.split(',').filter(|key| !key.is_empty()).map(str::to_owned));
        }
        if !opens {
            continue;
        }
        let (inside, end) = body(&lines, at).ok_or_else(|| wrong("the block is never closed"))?;
        at = end;
        let keys = std::mem::take(&mut keys);
        if let [key] = &*keys
            && let Some(name) = key.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'))
        {
            snippets.insert(name.to_owned(), inside.to_vec());
            continue;
        }
        if keys.is_empty() {
            return Err(wrong("a block needs a zone before it"));
        }
        let mut directives = Vec::new();
        read_directives(inside, files, snippets, &mut directives, (depth, budget))?;
        blocks.push(Block { keys, directives, place: line.place.clone() });
    }
    match keys.first() {
        Some(key) => Err(ParseError { place: name.to_owned(), what: format!("there is no block behind {key:?}") }),
        None => Ok(()),
    }
}

fn spend(budget: &mut usize, lines: &[Line], depth: usize, name: &str) -> Result<(), ParseError> {
    let words: usize = lines.iter().map(|line| line.words.len()).sum();
    let rest = budget.checked_sub(words).filter(|_| depth <= IMPORTS_MAX);
    *budget = rest.ok_or_else(|| ParseError { place: name.to_owned(), what: "imports never end".to_owned() })?;
    Ok(())
}

/// The lines up to the brace that closes, and the place behind that.
fn body(lines: &[Line], begin: usize) -> Option<(&[Line], usize)> {
    let mut depth = 1_usize;
    for (at, line) in lines.iter().enumerate().skip(begin) {
        if line.words.first().is_some_and(|word| word.is("}")) {
            depth -= 1;
        }
        if depth == 0 {
            return Some((lines.get(begin..at)?, at + 1));
        }
        if line.words.last().is_some_and(|word| word.is("{")) {
            depth += 1;
        }
    }
    None
}

fn read_directives(
    lines: &[Line],
    files: &Files,
    snippets: &Snippets,
    out: &mut Vec<Directive>,
    (depth, budget): (usize, &mut usize),
) -> Result<(), ParseError> {
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        let Some((first, rest)) = line.words.split_first() else { continue };
        let opens = rest.last().is_some_and(|word| word.is("{"));
        let args: Vec<String> =
            rest.iter().take(rest.len() - usize::from(opens)).map(|word| word.text.clone()).collect();
        let mut block = Vec::new();
        if opens {
            let wrong = || ParseError { place: line.place.clone(), what: "the block is never closed".to_owned() };
            let (inside, end) = body(lines, at).ok_or_else(wrong)?;
            at = end;
            let words = |line: &Line| line.words.iter().map(|word| word.text.clone()).collect::<Vec<_>>();
            block = inside.iter().map(words).collect();
        }
        if first.is("import") {
            let pattern = args.first().map_or("", String::as_str);
            let found: Vec<Vec<Line>> = match snippets.get(pattern) {
                Some(lines) => vec![lines.clone()],
                None => {
                    let matching = files.matching(pattern).into_iter();
                    matching.map(|(name, text)| split(name, text)).collect::<Result<_, _>>()?
                }
            };
            for lines in found {
                spend(budget, &lines, depth + 1, pattern)?;
                read_directives(&lines, files, snippets, out, (depth + 1, budget))?;
            }
            continue;
        }
        out.push(Directive { name: first.text.clone(), args, lines: block, place: line.place.clone() });
    }
    Ok(())
}

/// Lines of words, without comments and empty lines.
fn split(name: &str, text: &str) -> Result<Vec<Line>, ParseError> {
    let mut lines = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let mut characters = text.chars().peekable();
    let (mut number, mut begun) = (1_usize, 1_usize);
    let place = |number: usize| format!("{name}, line {number}");
    while let Some(character) = characters.next() {
        match character {
            '\n' => {
                end_line(&mut lines, &mut words, &place(begun));
                number += 1;
                begun = number;
            }
            '#' => while characters.next_if(|character| *character != '\n').is_some() {},
            '"' => {
                let begin = number;
                let wrong = || ParseError { place: place(begin), what: "a quote is never closed".to_owned() };
                let mut text = String::new();
                loop {
                    match characters.next().ok_or_else(wrong)? {
                        '"' => break,
                        '\\' if characters.peek() == Some(&'"') => text.extend(characters.next()),
                        character => {
                            number += usize::from(character == '\n');
                            text.push(character);
                        }
                    }
                }
                words.push(Word { text, quoted: true });
            }
            character if character.is_whitespace() => {}
            character => {
                let mut text = String::from(character);
                while let Some(more) = characters.next_if(|character| !character.is_whitespace()) {
                    text.push(more);
                }
                words.push(Word { text, quoted: false });
            }
        }
    }
    end_line(&mut lines, &mut words, &place(begun));
    Ok(lines)
}

fn end_line(lines: &mut Vec<Line>, words: &mut Vec<Word>, place: &str) {
    if !words.is_empty() {
        lines.push(Line { words: std::mem::take(words), place: place.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Block>, ParseError> {
        let custom = [
            ("a.override", "log\nhosts {\n  10.0.0.1 x\n}\n"),
            ("b.server", "example.org {\n  forward . 10.0.0.2\n}\n"),
            ("loop.server", "import /etc/coredns/custom/loop.server\n"),
        ];
        let custom = custom.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        parse(text, &Files { coredns: None, custom })
    }

    #[test]
    fn blocks_directives_snippets_and_imports() {
        let text = "(common) {\n  errors\n}\n.:53, example.com {  # comment\n  import common\n  \
            kubernetes \"cluster.local\" {\n    pods insecure\n  }\n  import /etc/coredns/custom/*.override\n}\n\
            import /etc/coredns/custom/b*.server\n";
        let blocks = read(text).expect("it fits");
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[0].keys, [".:53", "example.com"]);
        let names: Vec<_> = blocks[0].directives.iter().map(|directive| &*directive.name).collect();
        assert_eq!(names, ["errors", "kubernetes", "log", "hosts"]);
        assert_eq!(blocks[0].directives[1].args, ["cluster.local"]);
        assert_eq!(blocks[0].directives[1].lines, [["pods", "insecure"]]);
        assert_eq!(blocks[0].directives[3].lines, [["10.0.0.1", "x"]]);
        assert_eq!(blocks[0].directives[3].place, "a.override, line 2");
        assert_eq!(blocks[1].directives[0].args, [".", "10.0.0.2"]);
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_line() {
        for (text, place, what) in [
            (".:53 {\n errors\n", "Corefile, line 1", "the block is never closed"),
            (".:53 {\n hosts {\n}\n", "Corefile, line 1", "the block is never closed"),
            ("}\n", "Corefile, line 1", "a brace closes what was never opened"),
            ("\n{\n}\n", "Corefile, line 2", "a block needs a zone before it"),
            (".:53\n", "Corefile", "there is no block behind \".:53\""),
            (". {\n log \"x\n}\n", "Corefile, line 2", "a quote is never closed"),
            ("import /etc/coredns/custom/loop.server\n", "loop.server", "imports never end"),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!((&*error.place, &*error.what), (place, what), "{text:?}");
        }
    }
}
