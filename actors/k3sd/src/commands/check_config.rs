//! `check-config`: whether the kernel was built with what containers and their networks need.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

use crate::cli::Environment;

/// Longest configuration that is read; real ones are below half a megabyte.
const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The first two bytes of a compressed file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Options nothing works without.
const REQUIRED: &[(&str, &[&str])] = &[
    ("Namespaces", &["NAMESPACES", "NET_NS", "PID_NS", "IPC_NS", "UTS_NS"]),
    (
        "Control groups",
        &[
            "CGROUPS",
            "CGROUP_PIDS",
            "CGROUP_CPUACCT",
            "CGROUP_DEVICE",
            "CGROUP_FREEZER",
            "CGROUP_SCHED",
            "CPUSETS",
            "MEMCG",
        ],
    ),
    ("Isolation", &["SECCOMP", "KEYS", "POSIX_MQUEUE"]),
    ("Links", &["VETH", "BRIDGE", "BRIDGE_NETFILTER"]),
    (
        "Packet filter",
        &[
            "IP_NF_FILTER",
            "IP_NF_TARGET_MASQUERADE",
            "IP_NF_TARGET_REJECT",
            "IP_NF_NAT",
            "NF_NAT",
            "NETFILTER_XT_MATCH_ADDRTYPE",
            "NETFILTER_XT_MATCH_CONNTRACK",
            "NETFILTER_XT_MATCH_IPVS",
            "NETFILTER_XT_MATCH_COMMENT",
            "NETFILTER_XT_MATCH_MULTIPORT",
            "NETFILTER_XT_MATCH_STATISTIC",
        ],
    ),
];

/// Options that only some features need.
const OPTIONAL: &[(&str, &[&str])] = &[
    ("User namespaces", &["USER_NS"]),
    (
        "Limits",
        &["CGROUP_PERF", "CGROUP_HUGETLB", "BLK_CGROUP", "BLK_DEV_THROTTLING", "FAIR_GROUP_SCHED", "CFS_BANDWIDTH"],
    ),
    ("Network classes", &["NET_CLS_CGROUP", "CGROUP_NET_PRIO"]),
    ("Address sets", &["IP_SET", "NETFILTER_XT_SET"]),
    ("nftables", &["NF_TABLES", "NF_TABLES_INET", "NFT_CT", "NFT_NAT", "NFT_MASQ"]),
    (
        "Virtual servers",
        &["IP_VS", "IP_VS_NFCT", "IP_VS_PROTO_TCP", "IP_VS_PROTO_UDP", "IP_VS_RR", "IP_NF_TARGET_REDIRECT"],
    ),
    ("Overlay networks", &["VXLAN", "WIREGUARD", "TUN", "IPV6"]),
    ("Storage", &["OVERLAY_FS", "BTRFS_FS", "EXT4_FS", "EXT4_FS_POSIX_ACL", "EXT4_FS_SECURITY"]),
    (
        "Encrypted overlay",
        &["CRYPTO", "CRYPTO_AEAD", "CRYPTO_GCM", "CRYPTO_SEQIV", "CRYPTO_GHASH", "XFRM_ALGO", "XFRM_USER"],
    ),
];

/// Why there is nothing to check.
#[derive(Debug, Error)]
pub enum CheckConfigError {
    /// None of the usual places holds the running kernel's configuration.
    #[error("no kernel configuration found in {}; name one: check-config FILE", list(places))]
    NotFound {
        /// The places.
        places: Vec<PathBuf>,
    },
    /// The file is there and can't be read.
    #[error("kernel configuration {path} can't be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file can be read and has no option in it.
    #[error("{path} is not a kernel configuration: it sets no option")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// A line per option, and the verdict at the end.
    pub text: String,
    /// How many required options are missing.
    pub failures: usize,
}

/// How an option is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BuiltIn,
    Module,
    Missing,
}

/// Checks a configuration: the one named, else that of the running kernel.
///
/// # Errors
/// When there is none, or it can't be read.
pub fn run(environment: &Environment, file: Option<&Path>) -> Result<Report, CheckConfigError> {
    let (path, text) = match file {
        Some(path) => (path.to_owned(), read(path)?),
        None => find(environment)?,
    };
    let options = parse(&text);
    if options.is_empty() {
        return Err(CheckConfigError::Empty { path });
    }
    Ok(report(&path, &options))
}

/// The running kernel's configuration.
fn find(environment: &Environment) -> Result<(PathBuf, String), CheckConfigError> {
    let release = fs::read_to_string(environment.well_known("/proc/sys/kernel/osrelease")).unwrap_or_default();
    let places = vec![
        environment.well_known("/proc/config.gz"),
        environment.well_known(format!("/boot/config-{}", release.trim())),
    ];
    match places.iter().find(|place| place.exists()) {
        Some(place) => Ok((place.clone(), read(place)?)),
        None => Err(CheckConfigError::NotFound { places }),
    }
}

/// The file's text, decompressed if need be.
fn read(path: &Path) -> Result<String, CheckConfigError> {
    let unreadable = |source| CheckConfigError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(CONFIG_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.starts_with(&GZIP_MAGIC) {
        let mut text = Vec::new();
        let decoder = MultiGzDecoder::new(bytes.as_slice());
        decoder.take(CONFIG_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
        bytes = text;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The options that are built, by name without `CONFIG_`.
fn parse(text: &str) -> BTreeMap<&str, State> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(&str, State)> {
    let (name, value) = line.trim().strip_prefix("CONFIG_")?.split_once('=')?;
    let state = match value {
        "m" => State::Module,
        "n" => State::Missing,
        _ => State::BuiltIn,
    };
    Some((name, state))
}

fn report(path: &Path, options: &BTreeMap<&str, State>) -> Report {
    let mut text = format!("Checking {}\n", path.display());
    let mut failures = 0;
    for (title, groups, is_required) in [("Required", REQUIRED, true), ("Optional", OPTIONAL, false)] {
        push(&mut text, format_args!("\n{title}:"));
        for (group, names) in groups {
            push(&mut text, format_args!("  {group}"));
            for name in *names {
                let verdict = match options.get(name).copied().unwrap_or(State::Missing) {
                    State::BuiltIn => "built in",
                    State::Module => "module",
                    State::Missing if is_required => {
                        failures += 1;
                        "missing (fail)"
                    }
                    State::Missing => "missing",
                };
                push(&mut text, format_args!("    {:40} {verdict}", format!("CONFIG_{name}")));
            }
        }
    }
    match failures {
        0 => push(&mut text, format_args!("\nSTATUS: pass")),
        failures => push(&mut text, format_args!("\nSTATUS: {failures} (fail)")),
    }
    Report { text, failures }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string never fails");
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::SystemTime;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn complete() -> String {
        REQUIRED.iter().flat_map(|(_, names)| *names).map(|name| format!("CONFIG_{name}=y\n")).collect()
    }

    fn check(text: &str) -> Report {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        run(&Environment::empty(SystemTime::UNIX_EPOCH), Some(file.path())).unwrap()
    }

    #[test]
    fn complete_passes_and_optional_options_do_not_matter() {
        let report = check(&complete());
        assert_eq!(report.failures, 0, "{}", report.text);
        assert!(report.text.ends_with("STATUS: pass\n"), "{}", report.text);
        assert!(report.text.contains("CONFIG_VXLAN") && report.text.contains(" missing\n"));
    }

    #[test]
    fn modules_count_and_what_is_not_set_does_not() {
        let text = complete()
            .replace("CONFIG_VETH=y", "CONFIG_VETH=m")
            .replace("CONFIG_MEMCG=y", "# CONFIG_MEMCG is not set")
            .replace("CONFIG_BRIDGE=y", "CONFIG_BRIDGE=n");
        let report = check(&text);
        assert_eq!(report.failures, 2, "{}", report.text);
        assert!(report.text.ends_with("STATUS: 2 (fail)\n"), "{}", report.text);
    }

    #[test]
    fn the_running_kernel_is_found_compressed_or_in_boot() {
        let root = tempfile::tempdir().unwrap();
        let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
        environment.root = root.path().to_owned();
        let error = run(&environment, None).unwrap_err().to_string();
        assert!(error.contains("no kernel configuration found") && error.contains("config.gz"), "{error}");

        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        fs::create_dir_all(root.path().join("boot")).unwrap();
        fs::write(root.path().join("proc/sys/kernel/osrelease"), "6.1.0-test\n").unwrap();
        fs::write(root.path().join("boot/config-6.1.0-test"), "CONFIG_VETH=y\n").unwrap();
        let report = run(&environment, None).unwrap();
        assert!(report.failures > 0 && report.text.contains("config-6.1.0-test"), "{}", report.text);

        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(complete().as_bytes()).unwrap();
        fs::write(root.path().join("proc/config.gz"), encoder.finish().unwrap()).unwrap();
        let report = run(&environment, None).unwrap();
        assert!(report.failures == 0 && report.text.contains("config.gz"), "{}", report.text);
    }

    #[test]
    fn what_is_no_configuration_is_an_error() {
        let environment = Environment::empty(SystemTime::UNIX_EPOCH);
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = run(&environment, Some(file.path())).unwrap_err();
        assert!(matches!(error, CheckConfigError::Empty { .. }), "{error}");
        fs::write(file.path(), [0x1f, 0x8b, 1, 2, 3]).unwrap();
        let error = run(&environment, Some(file.path())).unwrap_err();
        assert!(matches!(error, CheckConfigError::Unreadable { .. }), "{error}");
        let error = run(&environment, Some(Path::new("/nowhere/config"))).unwrap_err();
        assert!(matches!(error, CheckConfigError::Unreadable { .. }), "{error}");
    }
}
