//! The plugins as processes, as a container runtime calls them, in network namespaces of each test's own.
//!
//! Started under a plugin's name, this program is the plugin; otherwise it is the tests.

mod chains;
mod leaks;
mod ports;
mod support;

use std::path::Path;
use std::process::ExitCode;

use support::Host;

/// A test, and how it is called on the command line.
type Test = (&'static str, fn(&Host));

const TESTS: &[Test] = &[
    ("a_pod_of_two_families", chains::a_pod_of_two_families),
    ("masquerading", chains::masquerading),
    ("older_versions_and_errors", chains::older_versions_and_errors),
    ("parallel_adds_give_different_addresses", chains::parallel_adds_give_different_addresses),
    ("a_killed_add_leaks_nothing", chains::a_killed_add_leaks_nothing),
    ("deleting_without_a_namespace", chains::deleting_without_a_namespace),
    ("collection", chains::collection),
    ("what_nobody_knows_is_freed", leaks::what_nobody_knows_is_freed),
    ("host_ports", ports::host_ports),
    ("limits", ports::limits),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let own = arguments.next().unwrap_or_default();
    let name = Path::new(&own).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if k3sd_kubelet_cni::is_plugin(name) {
        return k3sd_kubelet_cni::run(name);
    }
    let filters: Vec<String> = arguments.filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let mut failed = Vec::new();
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let Some(host) = Host::new() else {
            println!("test {name} ... ignored");
            continue;
        };
        let passed = std::panic::catch_unwind(|| test(&host)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}
