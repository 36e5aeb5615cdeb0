//! What this machine lets the engine do.

use std::fs;
use std::path::Path;

/// The bit of `CAP_SYS_RESOURCE`, which lowering `oom_score_adj` takes.
const CAP_SYS_RESOURCE: u32 = 24;

/// See the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// Within a user namespace, where less is allowed than root would think.
    pub user_namespace: bool,
    /// Not even root may lower `oom_score_adj` here.
    pub oom_score_is_restricted: bool,
    /// The cgroups that containers need can't be used: a user namespace to which nobody delegated them.
    pub no_cgroups: bool,
    /// systemd started us and can be asked for cgroups.
    pub systemd_cgroups: bool,
    /// Unprivileged ports and pings can be allowed per network namespace: since Linux 4.11.
    pub unprivileged: bool,
}

impl Host {
    /// Looks at this machine. `invocation` says whether systemd started us.
    pub(crate) fn look(invocation: bool) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let user_namespace = is_user_namespace(&read("/proc/self/uid_map"));
        let controllers = controllers(&read("/proc/self/cgroup"));
        let release = read("/proc/sys/kernel/osrelease");
        Self {
            user_namespace,
            oom_score_is_restricted: user_namespace || !has_capability(&read("/proc/self/status"), CAP_SYS_RESOURCE),
            no_cgroups: user_namespace && !["cpu", "pids"].iter().all(|name| controllers.iter().any(|has| has == name)),
            systemd_cgroups: invocation && !user_namespace && controllers.iter().any(|name| name == "cpuset"),
            unprivileged: at_least(&release, (4, 11)),
        }
    }
}

/// Whether `/proc/self/uid_map` is not that of the machine itself.
fn is_user_namespace(map: &str) -> bool {
    let mut words = map.split_whitespace();
    !map.is_empty() && (words.next(), words.next(), words.next()) != (Some("0"), Some("0"), Some("4294967295"))
}

/// Whether `/proc/self/status` has an effective capability. Unreadable counts as yes: the engine then says what is wrong.
fn has_capability(status: &str, bit: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_none_or(|set| set >> bit & 1 == 1)
}

/// The controllers that `/proc/self/cgroup` speaks of: v1's by name, v2's from its directory.
fn controllers(own: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        found.extend(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
        if number == "0" && names.is_empty() {
            let root = Path::new("/sys/fs/cgroup");
            let file = root.join(path.trim_start_matches('/')).join("cgroup.controllers");
            let text = fs::read_to_string(file).unwrap_or_default();
            found.extend(text.split_whitespace().map(str::to_owned));
        }
    }
    found
}

/// Whether a kernel's release is this or a later one.
fn at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_proc() {
        assert!(!is_user_namespace("         0          0 4294967295\n"));
        assert!(is_user_namespace("         0       1000          1\n"));
        assert!(has_capability("Name:\tx\nCapEff:\t000001ffffffffff\n", CAP_SYS_RESOURCE));
        assert!(!has_capability("CapEff:\t000001fffeffffff\n", CAP_SYS_RESOURCE));
        let found = controllers("4:cpu,cpuacct:/a\n3:pids:/\n1:name=systemd:/\n");
        assert_eq!(found, ["cpu", "cpuacct", "pids", "name=systemd"]);
        assert!(at_least("6.18.5-cloud", (4, 11)) && at_least("4.11.0", (4, 11)));
        assert!(!at_least("4.9.1", (4, 11)) && !at_least("", (4, 11)));
    }
}
