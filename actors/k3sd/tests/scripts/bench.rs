//! What `bench.sh` makes of the lines that benches leave.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::machine::text;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn bench(args: &[&str]) -> Output {
    Command::new("./bench.sh").args(args).current_dir(ROOT).output().unwrap()
}

/// The bars of the list: part, name, bench, what, bar.
fn bars() -> Vec<[String; 5]> {
    let list = fs::read_to_string(Path::new(ROOT).join("benches/bars.txt")).unwrap();
    let fields = |line: &str| -> [String; 5] {
        let fields: Vec<String> = line.split(" | ").map(str::to_owned).collect();
        fields.try_into().unwrap_or_else(|_| panic!("five fields: {line}"))
    };
    list.lines().filter(|line| !line.starts_with('#')).map(fields).collect()
}

/// A line for each bar, as a bench writes it.
fn lines(change: impl Fn(&str, &str) -> Option<String>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let all: Vec<String> = bars().iter().filter_map(|[_, name, _, _, bar]| change(name, bar)).collect();
    fs::write(file.path(), all.join("")).unwrap();
    file
}

fn good(name: &str, bar: &str) -> String {
    format!("{name}\t{bar}\t2.5 ms\t-\t-\tpass\n")
}

fn table(file: &tempfile::NamedTempFile, is_success: bool) -> String {
    text(&bench(&["--table", file.path().to_str().unwrap()]), is_success)
}

#[test]
fn every_bar_has_a_line_and_a_verdict() {
    let said = table(&lines(|name, bar| Some(good(name, bar))), true);
    for [part, _, _, what, bar] in bars() {
        let line = format!("| {part} | {what} | {bar} | 2.5 ms | - | pass |");
        assert!(said.contains(&line), "{line}\n{said}");
    }
    assert!(said.contains(&format!("{} pass, 0 fall short, 0 not measured", bars().len())), "{said}");
}

#[test]
fn what_falls_short_is_told_and_no_failure() {
    let said = table(
        &lines(|name, bar| {
            let missed = format!("{name}\t{bar} = 241 ms\t300 ms\t147 ms\t2.04 x\tfalls short\n");
            Some(if name == "pod" { missed } else { good(name, bar) })
        }),
        true,
    );
    assert!(said.contains("300 ms beside 147 ms | 2.04 x | falls short |"), "{said}");
    assert!(said.contains(" 1 fall short, 0 not measured"), "{said}");
}

#[test]
fn what_is_not_measured_or_not_listed_is_a_failure() {
    let said = table(&lines(|name, bar| (name != "list").then(|| good(name, bar))), false);
    assert!(said.contains("| not measured |"), "{said}");
    let said = table(&lines(|name, bar| Some(good(if name == "list" { "lists" } else { name }, bar))), false);
    assert!(said.contains("lists: no such bar in the list"), "{said}");
    let said = table(&lines(|name, bar| Some(good(name, if name == "list" { "at least 9 x" } else { bar }))), false);
    assert!(said.contains("list: the list says \"at least 0.7 x\" and the bench \"at least 9 x\""), "{said}");
    assert!(table(&lines(|_, _| None), false).contains("0 pass, 0 fall short"), "nothing measured at all");
}

#[test]
fn flags_are_checked() {
    assert!(text(&bench(&["--quick", "--write"]), false).contains("worth writing down"));
    assert!(text(&bench(&["no-such-bench"]), false).contains("there is no bench no-such-bench"));
    assert!(text(&bench(&["--table", "/nonexistent"]), false).contains("--table needs a file"));
    assert!(text(&bench(&["--list"]), true).contains("call-one-thread"));
}

/// The names that benches use and those of the list are the same, each once.
#[test]
fn the_list_is_that_of_the_benches() {
    let listed: Vec<String> = bars().into_iter().map(|[_, name, ..]| name).collect();
    let names: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(names.len(), listed.len(), "each name once");
    let mut code = String::new();
    for place in ["runtime", "actors/kine", "actors/k3sd", "actors/coredns", "actors/proxy", "chaos-tests"] {
        read_all(&Path::new(ROOT).join(place).join("benches"), &mut code);
    }
    for name in names {
        assert!(code.contains(&format!("\"{name}\"")), "no bench names the bar {name}");
    }
}

fn read_all(directory: &Path, code: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read_all(&path, code),
            false => code.push_str(&fs::read_to_string(&path).unwrap()),
        }
    }
}
