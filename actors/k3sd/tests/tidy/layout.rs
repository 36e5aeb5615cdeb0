//! What a crate of the workspace looks like from outside, and which files may be run.

use crate::arrows;
use crate::metadata::Member;
use crate::repository::File;

/// What every crate under `actors/` holds: its page, its configuration, its supervision spec, its errors.
const STANDARD_FILES: &[&str] = &["src/lib.rs", "src/config.rs", "src/tree.rs", "src/error.rs"];

/// Crates under `actors/` that have no tree of their own to describe, and why.
const EXEMPT: &[(&str, &str)] = &[
    ("actors/k3sd", "the binary: its tree is the root, its configuration the command line"),
    ("actors/client", "types in which others meet, and ways to reach the API; its tree is part of its users'"),
    ("actors/cri", "messages and a client; no actor lives there"),
    ("actors/local-storage", "one argument each, and nothing that can fail at the start: its tree is on its page"),
    ("actors/metrics", "nothing to configure, and nothing that can fail at the start: its tree is on its page"),
    ("actors/servicelb", "loops of the tree that `controllers` has for what a cloud would do"),
    ("actors/objects", "no actor lives there: no async, no IO"),
];

/// Names, tables, lints and standard files of each crate.
pub(crate) fn check_crates(members: &[Member], files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for Member { name, folder } in members {
        if !arrows::is_known(name) {
            findings.push(format!("{folder}: crate {name} is not in the table of arrows"));
        }
        // A part of a subsystem carries that one's name in front of its own.
        let below = folder.strip_prefix("actors/").unwrap_or(folder).replace('/', "-");
        if *name != below && *name != format!("k3sd-{below}") {
            findings.push(format!("{folder}: crate {name} is not named after its folder"));
        }
        let manifest = files.iter().find(|file| file.path == format!("{folder}/Cargo.toml"));
        if !manifest.is_some_and(|manifest| inherits_lints(&manifest.text)) {
            findings.push(format!("{folder}: Cargo.toml lacks `[lints] workspace = true`"));
        }
        let is_part = folder.matches('/').count() > 1;
        let standard = folder.starts_with("actors/") && !is_part && !EXEMPT.iter().any(|(exempt, _)| exempt == folder);
        for wanted in STANDARD_FILES.iter().filter(|_| standard) {
            if !files.iter().any(|file| file.path == format!("{folder}/{wanted}")) {
                findings.push(format!("{folder}: {wanted} is missing"));
            }
        }
    }
    findings
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty()) == Some("workspace = true")
}

/// A file with an interpreter line can be run, and nothing else can.
pub(crate) fn check_scripts(files: &[File]) -> Vec<String> {
    let finding = |file: &File| {
        // `#![...]` opens an inner attribute of Rust.
        let script = file.text.starts_with("#!") && !file.text.starts_with("#![");
        match (script, file.executable) {
            (true, false) => Some(format!("{}: has an interpreter line, but no permission to be run", file.path)),
            (false, true) => Some(format!("{}: may be run, but has no interpreter line", file.path)),
            _ => None,
        }
    };
    files.iter().filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INHERITS: &str = "[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n";

    fn member(name: &str, folder: &str) -> Member {
        Member { name: name.to_owned(), folder: folder.to_owned() }
    }

    fn files(folder: &str, manifest: &str, rest: &[&str]) -> Vec<File> {
        let mut files = vec![File::fake(&format!("{folder}/Cargo.toml"), manifest)];
        files.extend(rest.iter().map(|name| File::fake(&format!("{folder}/{name}"), "")));
        files
    }

    #[test]
    fn a_complete_crate_passes() {
        let findings =
            check_crates(&[member("k3sd-kine", "actors/kine")], &files("actors/kine", INHERITS, STANDARD_FILES));
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn missing_files_lints_and_odd_names_are_found() {
        let members = [member("k3sd-kine", "actors/storage")];
        let manifest = "[lints.rust]\nunsafe_code = \"allow\"\n";
        let findings = check_crates(&members, &files("actors/storage", manifest, &["src/lib.rs"])).join("\n");
        for part in ["not named after", "[lints] workspace", "src/config.rs", "src/tree.rs", "src/error.rs"] {
            assert!(findings.contains(part), "{part}: {findings}");
        }
        assert!(!findings.contains("src/lib.rs"), "{findings}");
    }

    #[test]
    fn an_unknown_crate_is_found() {
        let findings =
            check_crates(&[member("k3sd-extra", "actors/extra")], &files("actors/extra", INHERITS, STANDARD_FILES));
        assert_eq!(findings, ["actors/extra: crate k3sd-extra is not in the table of arrows"]);
    }

    #[test]
    fn scripts_and_permissions_go_together() {
        let file = |path: &str, text: &str, executable| File { executable, ..File::fake(path, text) };
        let fine = [file("a.sh", "#!/bin/sh\n", true), file("lib.rs", "#![doc = \"\"]\n", false)];
        assert_eq!(check_scripts(&fine), Vec::<String>::new());
        let wrong = [file("a.sh", "#!/bin/sh\n", false), file("notes.md", "hello\n", true)];
        assert_eq!(check_scripts(&wrong).len(), 2);
    }
}
