//! Volumes with real mounts, in a mount namespace of the tests' own; the API is a script, a storage driver speaks real gRPC.

mod api;
mod driver;
mod storage;
mod volumes;

use std::process::{Command, ExitCode};

/// Given to the copy of this program that runs inside of the namespace.
const INSIDE: &str = "--inside";

/// A test: its name, and what it does.
type Test = (&'static str, fn());

fn tests() -> impl Iterator<Item = &'static Test> {
    volumes::TESTS.iter().chain(storage::TESTS)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|first| first == INSIDE) {
        return run(&arguments[1..]);
    }
    let own = std::env::current_exe().expect("this program has a path");
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private"]).arg(own).arg(INSIDE).args(&arguments);
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("ignored: no mount namespace can be made here");
        return ExitCode::SUCCESS;
    }
    let status = inside.status().expect("unshare was there a moment ago");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &[String]) -> ExitCode {
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut failures = 0;
    for (name, test) in tests() {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let is_ok = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
        failures += usize::from(!is_ok);
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
