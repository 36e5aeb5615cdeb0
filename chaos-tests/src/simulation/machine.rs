//! The machine under a simulated node: a directory with its own `/proc`, `/sys`, `/etc` and a cgroup hierarchy that is
//! nothing but files, what the node mounts below it, and a network namespace for the rules of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k3sd_netlink::nft::{Family, Netfilter};
use k3sd_netlink::testkit::Space;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use tempfile::TempDir;

use crate::checkers::rules::{Rules, TABLE};

/// Where the node's own directory is, where its volumes are, and how those of one kind are called in a pod.
const KUBELET: &str = "kubelet";
const STORAGE: &str = "storage";
const LOCAL: &str = "volumes/kubernetes.io~local-volume";
/// What is mounted where, as the kernel says.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A mount in a pod: the pod's uid, and the volume's name.
pub type Place = (String, String);

/// The machine; its files are gone with it, and nothing stays mounted.
#[derive(Debug)]
pub struct Machine {
    directory: TempDir,
    mounts: bool,
    network: Option<Network>,
}

/// Its network: empty, but for the loopback link.
#[derive(Debug)]
struct Network {
    space: Space,
    netfilter: Mutex<Netfilter>,
}

impl Network {
    fn make() -> Option<Self> {
        let space = Space::with_loopback("world")?;
        let netfilter = Netfilter::open_in(space.namespace()).ok()?;
        Some(Self { space, netfilter: Mutex::new(netfilter) })
    }
}

impl Machine {
    /// Makes it.
    ///
    /// # Panics
    /// When there is no room for its files.
    pub(super) fn make() -> Self {
        // The kernel tells of mounts by paths without links.
        let parent = fs::canonicalize(std::env::temp_dir()).expect("a place for temporary files");
        let directory = tempfile::tempdir_in(parent).expect("a directory");
        make_files(directory.path());
        let storage = directory.path().join(STORAGE);
        fs::create_dir_all(&storage).expect("a directory");
        let mounts = mount_bind(&storage, &storage).is_ok();
        if mounts {
            unmount(&storage, UnmountFlags::DETACH).expect("it was just mounted");
        }
        Self { directory, mounts, network: Network::make() }
    }

    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where volumes in directories are.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.path().join(STORAGE)
    }

    /// Whether this process may mount anything.
    #[must_use]
    pub fn mounts_volumes(&self) -> bool {
        self.mounts
    }

    /// The file of its network namespace; `None` where there can't be one.
    #[must_use]
    pub fn network(&self) -> Option<&Path> {
        self.network.as_ref().map(|network| network.space.path())
    }

    /// What its kernel does with packets for Services; `None` where there is no network.
    ///
    /// # Panics
    /// When the kernel doesn't tell.
    #[must_use]
    pub fn rules(&self) -> Option<Rules> {
        let netfilter = &self.network.as_ref()?.netfilter;
        let read = Rules::read(&mut netfilter.lock().unwrap_or_else(PoisonError::into_inner));
        Some(read.expect("the kernel tells of its tables"))
    }

    /// Takes away the table of the proxy, as somebody does who flushes all tables. Says whether there was one.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn lose_rules(&self) -> bool {
        let Some(network) = &self.network else { return false };
        let mut netfilter = network.netfilter.lock().unwrap_or_else(PoisonError::into_inner);
        netfilter.delete_table(Family::Ip, TABLE).expect("nobody keeps a table")
    }

    /// The paths of the directories of volumes.
    #[must_use]
    pub fn volumes(&self) -> BTreeSet<PathBuf> {
        let found = fs::read_dir(self.storage()).into_iter().flatten().flatten();
        found.map(|entry| entry.path()).collect()
    }

    /// The volumes that are mounted in pods, each with the last part of the path that it comes from; `None` where
    /// nothing may be mounted.
    #[must_use]
    pub fn mounted(&self) -> Option<BTreeMap<Place, String>> {
        self.mounts.then(|| mounted(&mountinfo(), &self.path().join(KUBELET).join("pods")))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for place in places(&mountinfo(), self.path()) {
            if let Err(error) = unmount(&place, UnmountFlags::DETACH) {
                eprintln!("{} stays mounted: {error}", place.display());
            }
        }
    }
}

fn mountinfo() -> String {
    fs::read_to_string(MOUNTINFO).unwrap_or_default()
}

/// What each mount shows of its file system, and where, in order. Names with blanks, which the kernel writes another
/// way, are not among ours.
fn rows(mountinfo: &str) -> impl Iterator<Item = (&str, &Path)> {
    mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        Some((fields.next()?, Path::new(fields.next()?)))
    })
}

/// Where something is mounted below a directory, the last one first.
fn places(mountinfo: &str, below: &Path) -> Vec<PathBuf> {
    let found = rows(mountinfo).map(|(_, at)| at).filter(|at| at.starts_with(below));
    let mut found: Vec<PathBuf> = found.map(Path::to_owned).collect();
    found.reverse();
    found
}

fn mounted(mountinfo: &str, pods: &Path) -> BTreeMap<Place, String> {
    let found = rows(mountinfo).filter_map(|(from, at)| {
        let (uid, rest) = at.strip_prefix(pods).ok()?.to_str()?.split_once('/')?;
        let volume = rest.strip_prefix(LOCAL)?.strip_prefix('/')?;
        let (_, name) = from.rsplit_once(&format!("/{STORAGE}/"))?;
        Some(((uid.to_owned(), volume.to_owned()), name.to_owned()))
    });
    found.collect()
}

/// What a machine shows of itself, in files.
fn make_files(root: &Path) {
    let hierarchy = root.join("cgroup");
    let mounts = format!("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", hierarchy.display());
    let files = [
        ("proc/meminfo", "MemTotal: 33554432 kB\nMemFree: 25165824 kB\nInactive(file): 4194304 kB\n"),
        ("proc/sys/kernel/random/boot_id", "6d0c1d3e-0000-4000-8000-000000000001\n"),
        ("proc/sys/kernel/osrelease", "6.1.0-simulated\n"),
        ("proc/net/fib_trie", "  |-- 192.0.2.10\n     /32 host LOCAL\n"),
        ("proc/mountinfo", &mounts),
        ("proc/cgroup", "0::/\n"),
        ("sys/devices/system/cpu/online", "0-7\n"),
        ("etc/machine-id", "00000000000040008000000000000001\n"),
        ("etc/os-release", "PRETTY_NAME=\"Simulated\"\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n"),
    ];
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    fs::create_dir_all(root.join(KUBELET)).expect("a directory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_as_the_kernel_tells_of_them() {
        let mountinfo = "29 1 254:0 / / rw - ext4 /dev/root rw\n\
            44 29 254:0 /tmp/m/storage/pvc-1_default_a /tmp/m/kubelet/pods/u/volumes/kubernetes.io~local-volume/pvc-1 rw - ext4 x rw\n\
            45 29 254:0 /m/storage/pvc-2_default_b//deleted /tmp/m/kubelet/pods/v/volumes/kubernetes.io~local-volume/pvc-2 rw - ext4 x rw\n\
            46 29 0:50 / /tmp/m/kubelet/pods/v/volumes/kubernetes.io~projected/t rw - tmpfs tmpfs rw\nbroken\n";
        let found = mounted(mountinfo, Path::new("/tmp/m/kubelet/pods"));
        let row = |uid: &str, volume: &str, from: &str| ((uid.to_owned(), volume.to_owned()), from.to_owned());
        let wanted = [row("u", "pvc-1", "pvc-1_default_a"), row("v", "pvc-2", "pvc-2_default_b//deleted")];
        assert_eq!(found, wanted.into());
        let places = places(mountinfo, Path::new("/tmp/m"));
        assert_eq!(places.len(), 3);
        assert!(places[0].ends_with("kubernetes.io~projected/t"), "the last one first");
    }
}
