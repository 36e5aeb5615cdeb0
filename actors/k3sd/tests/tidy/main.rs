//! The rules of the repository that a compiler does not know, as tests: who may depend on whom, what a file may hold,
//! which licences and versions come in, and that `supervisor-tree.md` shows the tree the binary really builds.
//!
//! Each rule is a pure function from what was read to a list of findings, with cases that prove it finds something.
//! The tests here only read the repository and ask. Nothing needs a network or a tool beside cargo.

mod arrows;
#[path = "../support/costs.rs"]
mod costs;
mod dependencies;
mod layout;
mod metadata;
#[path = "../support/ports.rs"]
mod ports;
mod repository;
mod text;
mod tree_page;

use std::process::Command;

use metadata::Metadata;
use repository::{repository_files, repository_root};

/// Fails with every finding on a line of its own.
#[track_caller]
fn assert_clean(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}\n", findings.join("\n  "));
}

fn metadata() -> Metadata {
    // Only what this platform builds: the other platforms' crates need not be on the disk.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &platform])
        .current_dir(repository_root())
        .output()
        .expect("cargo runs, it started this test");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata failed (a `cargo fetch --locked` may help): {complaint}");
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints format version 1")
}

fn deny_toml() -> dependencies::Policy {
    let text = std::fs::read_to_string(repository_root().join("deny.toml")).expect("deny.toml is at the root");
    dependencies::Policy::parse(&text)
}

#[test]
fn crates_depend_only_along_the_arrows() {
    assert_clean("dependency arrows (design, section 2)", &arrows::check(&metadata().workspace_edges()));
}

#[test]
fn licences_are_acceptable() {
    let metadata = metadata();
    assert_clean("licences (deny.toml)", &dependencies::check_licences(&metadata.packages_in_use(), &deny_toml()));
}

#[test]
fn each_crate_has_one_version() {
    let metadata = metadata();
    assert_clean("versions (deny.toml)", &dependencies::check_versions(&metadata.packages_in_use(), &deny_toml()));
}

#[test]
fn crates_have_the_standard_shape() {
    let files = repository_files();
    assert_clean("crate layout", &layout::check_crates(&metadata().members(), &files));
}

#[test]
fn scripts_are_executable() {
    assert_clean("scripts", &layout::check_scripts(&repository_files()));
}

#[test]
fn files_are_short_enough_to_be_read() {
    assert_clean("file length", &text::check_length(&repository_files(), text::LONG_FILES));
}

#[test]
fn nothing_unfinished_is_left_lying() {
    assert_clean("leftovers", &text::check_leftovers(&repository_files()));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    assert_clean("machine paths", &text::check_machine_paths(&repository_files()));
}

#[test]
fn one_module_names_the_yaml_crate() {
    assert_clean("YAML", &text::check_yaml(&repository_files()));
}

#[test]
fn the_page_shows_the_tree_that_runs() {
    let page = std::fs::read_to_string(repository_root().join("supervisor-tree.md")).expect("the page is at the root");
    assert_clean("supervisor-tree.md", &tree_page::check(&page, &tree_page::running_tree()));
}
