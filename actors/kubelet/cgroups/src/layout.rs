//! Where the hierarchies are, and what this process is in. Reading is here, deciding is pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::CgroupError;

/// Which kind of cgroups the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy per controller.
    V1,
    /// As v1, with a v2 hierarchy beside it that has few or no controllers.
    Hybrid,
    /// One hierarchy with everything.
    V2,
}

/// Which files say where the hierarchies are. The default is what the kernel shows of this process.
#[derive(Debug, Clone)]
pub struct CgroupSources {
    /// Mounts, in the form of `/proc/self/mountinfo`.
    pub mountinfo: PathBuf,
    /// The cgroups of this process, in the form of `/proc/self/cgroup`.
    pub own: PathBuf,
    /// The same of the first process.
    pub first: PathBuf,
}

impl Default for CgroupSources {
    fn default() -> Self {
        let path = PathBuf::from;
        Self { mountinfo: path("/proc/self/mountinfo"), own: path("/proc/self/cgroup"), first: path("/proc/1/cgroup") }
    }
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) at: PathBuf,
    /// Which part of it is mounted there; `/` as a rule, more in a container without a cgroup namespace.
    root: String,
    /// Its controllers; those of v2 are read from it.
    pub(crate) controllers: Vec<String>,
}

/// What the machine has, as one process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub(crate) version: Version,
    /// v1's, in the order of mounts.
    pub(crate) v1: Vec<Hierarchy>,
    pub(crate) unified: Option<Hierarchy>,
    /// The cgroup of this process by controller; `""` is v2's.
    own: BTreeMap<String, String>,
    /// The same of process 1.
    first: BTreeMap<String, String>,
}

/// What this process may take at most, as the cgroups around it say. A node in a container has no more to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnLimits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Controllers that pods need.
const NEEDED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// v1 without it still runs pods; K3s warns.
const WISHED_V1: &str = "cpuset";
/// Where K3s puts itself when it was started from a shell, or in a container.
const OWN_CGROUP: &str = "/k3s";
/// v1's way to say that there is no limit is the largest number of whole pages.
const UNLIMITED_V1: u64 = 1 << 62;

impl Layout {
    /// Reads what there is.
    ///
    /// # Errors
    /// Files that can't be read, and [`CgroupError::NotMounted`].
    pub fn read(sources: &CgroupSources) -> Result<Self, CgroupError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
        };
        let (mountinfo, own) = (read(&sources.mountinfo)?, read(&sources.own)?);
        // Hidden in some containers; then nothing is known of it.
        let first = fs::read_to_string(&sources.first).unwrap_or_default();
        Self::decide(&mountinfo, &own, &first, |at| fs::read_to_string(at.join("cgroup.controllers")))
    }

    fn decide(
        mountinfo: &str,
        own: &str,
        first: &str,
        controllers: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, CgroupError> {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for mount in mountinfo.lines().filter_map(mount) {
            match mount {
                (true, hierarchy) if unified.is_none() => unified = Some(hierarchy),
                (true, _) => {}
                (false, hierarchy) => {
                    // The same hierarchy may be mounted twice; the first place is the usual one.
                    let is_new = |known: &Hierarchy| known.controllers != hierarchy.controllers;
                    if !hierarchy.controllers.is_empty() && v1.iter().all(is_new) {
                        v1.push(hierarchy);
                    }
                }
            }
        }
        if let Some(hierarchy) = &mut unified {
            let found = controllers(&hierarchy.at).unwrap_or_default();
            hierarchy.controllers = found.split_whitespace().map(str::to_owned).collect();
        }
        let has_v1 = v1.iter().any(|hierarchy| hierarchy.controllers.iter().any(|name| !name.starts_with("name=")));
        let version = match (has_v1, &unified) {
            (true, None) => Version::V1,
            (true, Some(_)) => Version::Hybrid,
            (false, Some(_)) => Version::V2,
            (false, None) => return Err(CgroupError::NotMounted),
        };
        Ok(Self { version, v1, unified, own: memberships(own), first: memberships(first) })
    }

    /// Which kind of cgroups this is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The controllers that can be used for pods.
    #[must_use]
    pub fn controllers(&self) -> Vec<&str> {
        let used = self.used();
        used.iter().flat_map(|hierarchy| &hierarchy.controllers).map(String::as_str).collect()
    }

    /// Whether all controllers are there that pods need; of v1, `cpuset` may be missing, which is to be warned of.
    ///
    /// # Errors
    /// [`CgroupError::MissingControllers`].
    pub fn check(&self) -> Result<(), CgroupError> {
        let found = self.controllers();
        let is_missing = |name: &&str| !found.contains(name) && (self.version == Version::V2 || *name != WISHED_V1);
        let missing: Vec<_> = NEEDED.into_iter().filter(|name| is_missing(name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(CgroupError::MissingControllers { missing }) }
    }

    /// The cgroup that the node's own process should move to, if it should: one that was started from a shell is in a
    /// scope where nothing is accounted, and one in a container shares its cgroup with whatever else is in there.
    #[must_use]
    pub fn kubelet_cgroup(&self) -> Option<&'static str> {
        let in_scope = self.systemds(&self.own).is_some_and(|path| path.contains(".scope"));
        if in_scope { Some(OWN_CGROUP) } else { self.runtime_cgroup() }
    }

    /// The same for the container runtime: only in a container.
    #[must_use]
    pub fn runtime_cgroup(&self) -> Option<&'static str> {
        let path = self.systemds(&self.own).filter(|path| path.contains(".scope"));
        let first = self.systemds(&self.first).unwrap_or("/");
        (path.is_none() && !matches!(first, "/" | "/init.scope")).then_some(OWN_CGROUP)
    }

    fn systemds<'a>(&self, of: &'a BTreeMap<String, String>) -> Option<&'a str> {
        let key = if self.version == Version::V2 { "" } else { "name=systemd" };
        of.get(key).map(String::as_str)
    }

    /// Where this process is, in the hierarchy that has a controller.
    pub(crate) fn own_directory(&self, controller: &str) -> Option<PathBuf> {
        let hierarchy = self.hierarchy(controller)?;
        let key = if self.version == Version::V2 { "" } else { controller };
        let path = self.own.get(key)?;
        let below = path.strip_prefix(hierarchy.root.trim_end_matches('/')).unwrap_or(path);
        Some(hierarchy.at.join(below.trim_start_matches('/')))
    }

    /// The hierarchy that has a controller.
    pub(crate) fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.used().into_iter().find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }

    /// The hierarchies in which pods have cgroups.
    pub(crate) fn used(&self) -> Vec<&Hierarchy> {
        match self.version {
            Version::V2 => self.unified.iter().collect(),
            Version::V1 | Version::Hybrid => self.v1.iter().collect(),
        }
    }

    /// The hierarchies in which something of a pod may be: on a hybrid machine the runtime makes cgroups in v2's, too.
    pub(crate) fn all(&self) -> Vec<&Hierarchy> {
        self.v1.iter().chain(&self.unified).collect()
    }

    /// What this process may take at most, by its cgroup and those above it that can be seen.
    #[must_use]
    pub fn own_limits(&self) -> OwnLimits {
        let least = |controller: &str, of: &dyn Fn(&Path) -> Option<u64>| {
            let hierarchy = self.hierarchy(controller)?;
            let own = self.own_directory(controller)?;
            own.ancestors().take_while(|path| path.starts_with(&hierarchy.at)).filter_map(of).min()
        };
        let is_v2 = self.version == Version::V2;
        let memory = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        OwnLimits {
            memory: least("memory", &|path| number(&path.join(memory)).filter(|limit| *limit < UNLIMITED_V1)),
            cpu_milli: least("cpu", &|path| if is_v2 { milli_v2(path) } else { milli_v1(path) }),
            pids: least("pids", &|path| number(&path.join("pids.max"))),
        }
    }
}

/// A number in a kernel file; `None` for `max`, for a negative one and for no file.
pub(crate) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn milli_v1(path: &Path) -> Option<u64> {
    let (quota, period) = (number(&path.join("cpu.cfs_quota_us"))?, number(&path.join("cpu.cfs_period_us"))?);
    quota.checked_mul(1000)?.checked_div(period)
}

fn milli_v2(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    quota.parse::<u64>().ok()?.checked_mul(1000)?.checked_div(period.parse().ok()?)
}

/// One line of mountinfo, if it is a cgroup hierarchy: whether it is v2, and what it is.
fn mount(line: &str) -> Option<(bool, Hierarchy)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, at) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let (fstype, options) = (kind.next()?, kind.nth(1)?);
    let (root, at) = (unescape(root), PathBuf::from(unescape(at)));
    match fstype {
        "cgroup2" => Some((true, Hierarchy { at, root, controllers: Vec::new() })),
        "cgroup" => {
            let is_flag = |name: &&str| !matches!(*name, "rw" | "ro" | "xattr" | "clone_children" | "noprefix");
            let names = options.split(',').filter(is_flag).filter(|name| !name.starts_with("release_agent="));
            Some((false, Hierarchy { at, root, controllers: names.map(str::to_owned).collect() }))
        }
        _ => None,
    }
}

/// Paths in mountinfo have blanks as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// `/proc/<pid>/cgroup` by controller.
fn memberships(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        found.extend(controllers.split(',').map(|name| (name.to_owned(), path.to_owned())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
99 31 0:32 / /mnt/again rw - cgroup cgroup rw,memory
";
    const HYBRID: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
    const V2: &str = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";

    fn decide(mounts: &str, own: &str, first: &str, controllers: &str) -> Result<Layout, CgroupError> {
        Layout::decide(mounts, own, first, |_| Ok(controllers.to_owned()))
    }

    #[test]
    fn versions_are_told_apart() {
        let both = format!("{V1}{HYBRID}");
        for (mounts, controllers, version) in
            [(V1, "", Version::V1), (&both, "hugetlb", Version::Hybrid), (V2, "cpuset cpu io memory pids", Version::V2)]
        {
            let layout = decide(mounts, "", "", controllers).unwrap();
            assert_eq!(layout.version(), version);
            layout.check().unwrap();
        }
        assert!(matches!(decide("", "", "", ""), Err(CgroupError::NotMounted)));
        let poor = decide(V2, "", "", "cpu memory").unwrap().check().unwrap_err();
        assert_eq!(poor.to_string(), "failed to find cpuset, pids cgroup");
        let memory = decide(V1, "", "", "").unwrap();
        assert_eq!(memory.hierarchy("memory").unwrap().at, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(memory.hierarchy("cpuacct").unwrap().at, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    }

    #[test]
    fn who_was_started_from_a_shell_or_in_a_container_moves() {
        let shell = "1:name=systemd:/user.slice/user-0.slice/session-1.scope\n";
        let (unit, root, init) =
            ("1:name=systemd:/system.slice/k3s.service\n", "1:name=systemd:/\n", "1:name=systemd:/init.scope\n");
        let container = "1:name=systemd:/docker/abc\n";
        for (own, first, kubelet, runtime) in [
            (shell, init, Some("/k3s"), None),
            (unit, init, None, None),
            (root, root, None, None),
            (container, container, Some("/k3s"), Some("/k3s")),
            ("", "", None, None),
        ] {
            let layout = decide(V1, own, first, "").unwrap();
            assert_eq!((layout.kubelet_cgroup(), layout.runtime_cgroup()), (kubelet, runtime), "{own:?} {first:?}");
        }
        let layout = decide(V2, "0::/user.slice/session-2.scope\n", "0::/init.scope\n", "").unwrap();
        assert_eq!(layout.kubelet_cgroup(), Some("/k3s"));
    }

    #[test]
    fn a_container_finds_itself_below_its_mount() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory\\040x rw - cgroup cgroup rw,memory\n";
        let layout = decide(mounts, "4:memory:/docker/abc/inner\n", "", "").unwrap();
        assert_eq!(layout.own_directory("memory").unwrap(), Path::new("/sys/fs/cgroup/memory x/inner"));
    }
}
