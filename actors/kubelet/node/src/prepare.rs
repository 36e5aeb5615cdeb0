//! Makes the machine ready for pods, as K3s does: kernel modules, sysctls. Called once, before anything else starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

/// What is wanted of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preparation {
    /// Pods have addresses of IPv4.
    pub ipv4: bool,
    /// Pods have addresses of IPv6.
    pub ipv6: bool,
    /// The service proxy or flannel run, which need to see what bridges carry.
    pub bridges: bool,
    /// `--protect-kernel-defaults`: settings that the kubelet needs and that differ are an error, and stay as they are.
    pub protects_defaults: bool,
}

/// Why the machine can't be made ready.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// A setting of the kernel isn't what it has to be, and may not be changed.
    #[error("invalid kernel flag: {name}, expected value: {wanted}, actual value: {found}")]
    Protected {
        /// Its name, as `vm/overcommit_memory`.
        name: &'static str,
        /// What it has to be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
}

const MODULES: [&str; 8] = [
    "overlay",
    "nf_conntrack",
    "br_netfilter",
    "iptable_nat",
    "iptable_filter",
    "nft-expr-counter",
    "nfnetlink-subsys-11",
    "nft-chain-2-nat",
];
const MODULES_IPV6: [&str; 2] = ["ip6table_nat", "ip6table_filter"];

/// Settings that upstream's kubelet needs, wherever it runs.
const KUBELET: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The modules that are wanted. One that can't be loaded may be a part of the kernel, or not needed.
#[must_use]
pub fn modules(wanted: &Preparation) -> Vec<&'static str> {
    let ipv6: &[&str] = if wanted.ipv6 { &MODULES_IPV6 } else { &[] };
    MODULES.iter().chain(ipv6).copied().collect()
}

/// The settings that are wanted, by their paths below `/proc/sys`; each has to be 1.
#[must_use]
pub fn sysctls(wanted: &Preparation) -> Vec<&'static str> {
    let mut all = Vec::new();
    if wanted.ipv4 {
        all.extend(["net/ipv4/conf/all/forwarding", "net/ipv4/conf/default/forwarding"]);
        all.extend(wanted.bridges.then_some("net/bridge/bridge-nf-call-iptables"));
    }
    if wanted.ipv6 {
        all.extend(["net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/forwarding"]);
        all.push("net/core/devconf_inherit_init_net");
        all.extend(wanted.bridges.then_some("net/bridge/bridge-nf-call-ip6tables"));
    }
    all
}

/// Loads the modules with the host's `modprobe`. Each one that isn't there then is a warning, a sentence for the log, as with
/// K3s: it may be a part of the kernel, and whether it matters shows later, with an error of its own.
#[must_use]
pub fn load_modules(wanted: &Preparation) -> Vec<String> {
    let missing = modules(wanted).into_iter().filter(|module| !is_there(module) && !modprobe(module));
    missing.map(|module| format!("the kernel module {module} can't be loaded")).collect()
}

/// Sets the settings below `proc`, with those that upstream's kubelet needs. What can't be set is a warning.
///
/// # Errors
/// Only with [`Preparation::protects_defaults`].
pub fn set_sysctls(wanted: &Preparation, proc: &Path) -> Result<Vec<String>, PrepareError> {
    let sys = proc.join("sys");
    let mut warnings = Vec::new();
    for name in sysctls(wanted) {
        if let Err(error) = set(&sys.join(name), "1") {
            warnings.push(format!("{} can't be set to 1: {error}", name.replace('/', ".")));
        }
    }
    for (name, value) in KUBELET {
        let path = sys.join(name);
        let Ok(found) = fs::read_to_string(&path).map(|found| found.trim().to_owned()) else { continue };
        if found == value {
            continue;
        }
        if wanted.protects_defaults {
            return Err(PrepareError::Protected { name, wanted: value, found });
        }
        if let Err(error) = set(&path, value) {
            warnings.push(format!("{} can't be set to {value}: {error}", name.replace('/', ".")));
        }
    }
    Ok(warnings)
}

/// Writes a setting, unless it is what it should be.
fn set(path: &Path, value: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == value { Ok(()) } else { fs::write(path, value) }
}

fn is_there(module: &str) -> bool {
    let name = module.replace('-', "_");
    let path: PathBuf = ["/sys/module", &name].iter().collect();
    path.exists()
}

fn modprobe(module: &str) -> bool {
    let tried = Command::new("modprobe").args(["--quiet", module]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_depends_on_families_and_bridges() {
        let both = Preparation { ipv4: true, ipv6: true, bridges: true, protects_defaults: false };
        assert_eq!((modules(&both).len(), sysctls(&both).len()), (10, 7));
        let one = Preparation { ipv6: false, bridges: false, ..both };
        assert_eq!(modules(&one).len(), 8);
        assert_eq!(sysctls(&one), ["net/ipv4/conf/all/forwarding", "net/ipv4/conf/default/forwarding"]);
    }

    #[test]
    fn settings_are_set_or_protected() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join("sys").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let read = |name: &str| fs::read_to_string(directory.path().join("sys").join(name)).unwrap();
        write("net/ipv4/conf/all/forwarding", "0\n");
        write("vm/overcommit_memory", "0\n");
        let wanted = Preparation { ipv4: true, protects_defaults: true, ..Preparation::default() };
        let refused = set_sysctls(&wanted, directory.path()).unwrap_err().to_string();
        assert_eq!(refused, "invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0");
        assert_eq!(read("vm/overcommit_memory"), "0\n");
        let wanted = Preparation { protects_defaults: false, ..wanted };
        let warnings = set_sysctls(&wanted, directory.path()).unwrap();
        assert_eq!((read("net/ipv4/conf/all/forwarding"), read("vm/overcommit_memory")), ("1".into(), "1".into()));
        let missing = warnings.iter().filter(|line| line.starts_with("net.ipv4.conf.default.forwarding can't be set"));
        assert_eq!(missing.count(), 1);
    }
}
