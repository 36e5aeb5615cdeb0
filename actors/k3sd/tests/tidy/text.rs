//! What a file may hold. The patterns are put together from pieces, so that this file does not find itself.

use std::collections::BTreeMap;

use crate::repository::File;

/// A Rust file beyond this many lines is more than one room.
const LINES_MAX: usize = 700;

/// Longer files, and why each of them is one thing.
pub(crate) const LONG_FILES: &[(&str, &str)] = &[];

/// Rust files that are too long, and exceptions that are no longer needed.
pub(crate) fn check_length(files: &[File], exceptions: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        let excepted = exceptions.iter().any(|(path, _)| *path == file.path);
        if lines > LINES_MAX && !excepted {
            findings
                .push(format!("{}: {lines} lines, at most {LINES_MAX}; split it, or list it with a reason", file.path));
        }
        if lines <= LINES_MAX && excepted {
            findings.push(format!("{}: is short enough now; take it off the list", file.path));
        }
    }
    for (path, _) in exceptions {
        if !files.iter().any(|file| file.path == *path) {
            findings.push(format!("{path}: is listed as long, and is gone"));
        }
    }
    findings
}

/// Words that mark work left over.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Code that stands for code to come, or silences a lint without a reason.
const STUBS: &[(&str, &str)] = &[
    (concat!("to", "do!("), "write it, or refuse it with a clear message"),
    (concat!("unimple", "mented!("), "write it, or refuse it with a clear message"),
    (concat!("#[al", "low("), "use `#[expect(.., reason = \"..\")]`"),
    (concat!("#![al", "low("), "use `#![expect(.., reason = \"..\")]`"),
    (concat!("#[ig", "nore]"), "say why: `#[ignore = \"..\"]`"),
];

/// On the line before, it makes an attribute that hides a lint one with a reason: some lints hold in one of two uses only.
const EXCUSE: &str = "expect(clippy::allow_attributes, reason = ";

/// Left-over marks, stubs, and attributes without a reason.
pub(crate) fn check_leftovers(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_source()) {
        let mut excused = false;
        for (number, line) in (1..).zip(file.text.lines()) {
            for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
                findings.push(format!("{}:{number}: {mark}: do it, or open an issue", file.path));
            }
            if std::mem::replace(&mut excused, line.contains(EXCUSE)) {
                continue;
            }
            for (stub, instead) in STUBS.iter().filter(|(stub, _)| file.is_rust() && line.contains(stub)) {
                findings.push(format!("{}:{number}: {stub}: {instead}", file.path));
            }
        }
    }
    findings
}

/// Whether `word` stands in `line` by itself, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !part_of_word(line[..at].chars().next_back()) && !part_of_word(line[at + word.len()..].chars().next())
    })
}

/// Directories that exist on somebody's machine only.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/bash_", "jobs"), concat!("/home", "/user/")];

/// Lines that name a directory of the machine they were written on.
pub(crate) fn check_machine_paths(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text.lines()) {
            for path in MACHINE_PATHS.iter().filter(|path| line.contains(**path)) {
                findings.push(format!("{}:{number}: {path}", file.path));
            }
        }
    }
    findings
}

/// The crate that reads YAML, as Rust names it.
const YAML: &str = concat!("serde_", "saphyr");

/// Second modules of a crate that name the YAML crate: it has to be replaceable in one place. Which crates may name it at
/// all is for the arrows to say.
pub(crate) fn check_yaml(files: &[File]) -> Vec<String> {
    let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust() && file.text.contains(YAML)) {
        let krate = file.path.split_once("/src/").map_or(file.path.as_str(), |(krate, _)| krate);
        named.entry(krate).or_default().push(&file.path);
    }
    let several = named.values().filter(|paths| paths.len() > 1);
    several.map(|paths| format!("{YAML} is named by {}", paths.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: &str) -> Vec<File> {
        vec![File::fake("a.rs", text)]
    }

    #[test]
    fn a_long_file_needs_a_reason_and_a_short_one_none() {
        let long = rust(&"\n".repeat(LINES_MAX + 1));
        assert_eq!(check_length(&long, &[]).len(), 1);
        assert_eq!(check_length(&long, &[("a.rs", "one table")]), Vec::<String>::new());
        assert_eq!(check_length(&rust(&"\n".repeat(LINES_MAX)), &[]), Vec::<String>::new());
        assert_eq!(check_length(&rust(""), &[("a.rs", "one table")]).len(), 1);
        assert_eq!(check_length(&[], &[("a.rs", "one table")]).len(), 1);
    }

    #[test]
    fn marks_and_stubs_are_found() {
        for line in [
            format!("// {}: later", MARKS[0]),
            format!("let a = 1; // {}", MARKS[1]),
            format!("{})", STUBS[0].0),
            format!("{})", STUBS[1].0),
            format!("{}dead_code)]", STUBS[2].0),
            format!("{}dead_code)]", STUBS[3].0),
            STUBS[4].0.to_owned(),
        ] {
            assert_eq!(check_leftovers(&rust(&line)).len(), 1, "{line}");
        }
    }

    #[test]
    fn hiding_a_lint_with_a_reason_passes() {
        let lines = format!("#[{EXCUSE}\"one of two benches\")]\n{}dead_code)]\n", STUBS[2].0);
        assert_eq!(check_leftovers(&rust(&lines)), Vec::<String>::new());
        let later = lines.replace(")]\n", ")]\nfn f() {}\n");
        assert_eq!(check_leftovers(&rust(&later)).len(), 1, "an excuse holds for one line");
    }

    #[test]
    fn parts_of_words_and_prose_are_left_alone() {
        let name = format!("mktemp {}X; let {}S = 1;", MARKS[2], MARKS[0]);
        assert_eq!(check_leftovers(&rust(&name)), Vec::<String>::new());
        assert_eq!(check_leftovers(&[File::fake("a.md", MARKS[0])]), Vec::<String>::new());
        assert_eq!(
            check_leftovers(&rust(&format!("{} = \"why\"]", STUBS[4].0.trim_end_matches(']')))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn paths_of_a_machine_are_found_in_any_file() {
        let text = format!("see {}notes", MACHINE_PATHS[0]);
        assert_eq!(check_machine_paths(&[File::fake("README.md", &text)]).len(), 1);
        assert_eq!(check_machine_paths(&[File::fake("README.md", "see /var/lib/rancher")]), Vec::<String>::new());
    }

    #[test]
    fn a_second_module_with_yaml_is_found() {
        let file = |path| File::fake(path, &format!("use {YAML};"));
        let mut files = vec![file("actors/a/src/yaml.rs"), file("actors/b/src/yaml.rs")];
        assert_eq!(check_yaml(&files), Vec::<String>::new());
        files.push(file("actors/a/src/deep/other.rs"));
        assert_eq!(check_yaml(&files).len(), 1);
    }
}
