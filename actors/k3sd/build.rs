//! Stamps the commit and the compiler's version into the binary, for `--version`, and has the linker make a release small.
//!
//! Neither git nor a repository is required: without them the commit reads `unknown`, and a packager who builds from a
//! tarball sets `K3SD_COMMIT`.

use std::path::Path;
use std::process::Command;

/// Length of the shortened commit, the same as K3s prints.
const COMMIT_DIGITS: usize = 8;

fn main() {
    println!("cargo::rerun-if-env-changed=K3SD_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    watch_repository();
    println!("cargo::rustc-env=K3SD_COMMIT={}", commit());
    println!("cargo::rustc-env=K3SD_RUSTC={}", compiler());
    link_small();
}

/// What is generic is compiled in each crate that uses it, so that much code is there several times. The linker that rustc
/// brings along keeps one of each (a backtrace may name a twin then), and lists densely which addresses are to be adjusted
/// at the start: as `DT_RELR`, which glibc reads since 2.36. Debian 12's mold does that in a way that glibc refuses. What
/// `cargo ship` took apart from the code that runs stays apart.
fn link_small() {
    let target = |name| variable(name).unwrap_or_default();
    if is_release() && target("CARGO_CFG_TARGET_OS") == "linux" && target("CARGO_CFG_TARGET_ARCH") == "x86_64" {
        let packed = "-Wl,-z,pack-relative-relocs";
        for argument in ["-fuse-ld=lld", "-Wl,--icf=all", packed, "-Wl,-z,keep-text-section-prefix"] {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}

fn is_release() -> bool {
    variable("PROFILE").is_some_and(|profile| profile == "release")
}

/// Rebuilds when the commit changes, but only for a release: during development each commit would rebuild the crate.
fn watch_repository() {
    let git = Path::new("../../.git");
    if !is_release() {
        return;
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = git.join(file);
        // A path that does not exist would make cargo rerun this script on each build.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// The commit this was built from, shortened; `unknown` when nobody can tell.
fn commit() -> String {
    let stamped = variable("K3SD_COMMIT").filter(|commit| !commit.is_empty());
    let commit = stamped.or_else(|| output(Command::new("git").args(["rev-parse", "HEAD"])));
    commit.map_or_else(|| "unknown".to_owned(), |commit| commit.chars().take(COMMIT_DIGITS).collect())
}

/// `rustc --version` without its first word, such as `1.95.0 (f2d3ce0bd 2026-03-21)`.
fn compiler() -> String {
    let rustc = variable("RUSTC").unwrap_or_else(|| "rustc".to_owned());
    let version = output(Command::new(rustc).arg("--version"));
    version.map_or_else(|| "unknown".to_owned(), |version| version.trim_start_matches("rustc ").to_owned())
}

/// What a command prints, trimmed; nothing when it can't run, fails or prints nothing.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[expect(clippy::disallowed_methods, reason = "cargo speaks to a build script through the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
