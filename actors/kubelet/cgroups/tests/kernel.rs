//! Pods' cgroups in the kernel of the machine, in a root of the test's own, and v2's files in a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use futures_util::FutureExt as _;
use k3sd_kubelet_cgroups::{
    CPU_PERIOD_US, CgroupError, CgroupSources, Cgroups, Driver, NodeLimits, PodLimits, QosClass, Removal, Version,
};

const UID: &str = "aaaaaaaa-0000-4000-8000-000000000001";

fn limits() -> PodLimits {
    PodLimits {
        cpu_shares: 512,
        cpu_quota: Some(50_000),
        cpu_period: CPU_PERIOD_US,
        memory_limit: Some(64 << 20),
        pids: Some(50),
        ..PodLimits::default()
    }
}

fn node() -> NodeLimits {
    NodeLimits { cpu_milli: 2000, memory: Some(1 << 30), pids: Some(1000), ..NodeLimits::default() }
}

/// The machine's hierarchies, with a root that is removed in the end.
struct Machine {
    cgroups: Cgroups,
    root: String,
}

impl Machine {
    async fn new(test: &str) -> Option<Self> {
        let root = format!("k3sd-test-{test}-{}", std::process::id());
        let found = Cgroups::detect(&CgroupSources::default(), Driver::Cgroupfs, &root);
        let cgroups = match found {
            Ok(cgroups) => cgroups,
            Err(error) => {
                println!("ignored: {error}");
                return None;
            }
        };
        match cgroups.ensure_qos(&node(), 1500).await {
            Ok(()) => Some(Self { cgroups, root }),
            Err(CgroupError::Make { source, .. } | CgroupError::Write { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                println!("ignored: no right to make cgroups");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A file of a cgroup, in whichever hierarchy has it.
    fn file(&self, path: &Path, name: &str) -> Option<PathBuf> {
        let base = Path::new("/sys/fs/cgroup");
        let places = fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()).chain([base.to_owned()]);
        places.map(|place| place.join(path).join(name)).find(|file| file.exists())
    }

    fn read(&self, path: &Path, name: &str) -> String {
        let file = self.file(path, name).unwrap_or_else(|| panic!("no {name} in {}", path.display()));
        fs::read_to_string(file).unwrap().trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for _ in 0..100 {
            // Nobody has to be waited for where systemd isn't asked.
            let removal = self.cgroups.remove_pod(UID).now_or_never();
            if !matches!(removal, Some(Ok(Removal::Busy { .. }))) {
                break;
            }
            std::thread::yield_now();
        }
        let base = Path::new("/sys/fs/cgroup");
        for place in fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()).chain([base.to_owned()]) {
            for below in ["kubepods/burstable", "kubepods/besteffort", "kubepods", ""] {
                fs::remove_dir(place.join(&self.root).join(below)).ok();
            }
        }
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_pod_is_limited_adopted_resized_and_listed() {
    let Some(machine) = Machine::new("limits").await else { return };
    let cgroups = &machine.cgroups;
    let is_v2 = cgroups.layout().version() == Version::V2;
    let path = cgroups.ensure_pod(UID, QosClass::Burstable, &limits()).await.unwrap();
    assert_eq!(cgroups.ensure_pod(UID, QosClass::Burstable, &limits()).await.unwrap(), path);
    let memory = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(machine.read(&path, memory), (64 << 20).to_string());
    assert_eq!(machine.read(&path, "pids.max"), "50");
    if is_v2 {
        assert_eq!(machine.read(&path, "cpu.max"), "50000 100000");
    } else {
        assert_eq!(machine.read(&path, "cpu.shares"), "512");
        assert_eq!(machine.read(&path, "cpu.cfs_quota_us"), "50000");
        assert!(!machine.read(&path, "cpuset.cpus").is_empty());
        let class = path.parent().unwrap();
        assert_eq!(machine.read(class, "cpu.shares"), "1536");
        assert_eq!(machine.read(class.parent().unwrap(), "cpu.shares"), "2048");
    }
    let more = PodLimits { memory_limit: Some(128 << 20), cpu_quota: None, ..limits() };
    cgroups.update_pod(UID, QosClass::Burstable, &more).await.unwrap();
    assert_eq!(machine.read(&path, memory), (128 << 20).to_string());
    assert_eq!(cgroups.list_pods().unwrap().get(UID), Some(&QosClass::Burstable));
    assert_eq!(cgroups.remove_pod(UID).await.unwrap(), Removal::Gone);
    assert!(cgroups.list_pods().unwrap().is_empty());
    assert_eq!(cgroups.remove_pod(UID).await.unwrap(), Removal::Gone);
    assert_eq!(cgroups.stats(&path).unwrap(), None);
}

#[tokio::test]
async fn what_runs_in_a_pod_is_counted_and_killed_with_it() {
    let Some(machine) = Machine::new("kill").await else { return };
    let cgroups = &machine.cgroups;
    let path = cgroups.ensure_pod(UID, QosClass::Guaranteed, &limits()).await.unwrap();
    let mut child = sleeper();
    let inner = path.join("container");
    let base = Path::new("/sys/fs/cgroup");
    for place in fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()).chain([base.to_owned()]) {
        if place.join(&path).is_dir() {
            fs::create_dir(place.join(&inner)).unwrap();
            if place.ends_with("cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    fs::write(place.join(&inner).join(file), fs::read(place.join(&path).join(file)).unwrap()).unwrap();
                }
            }
            fs::write(place.join(&inner).join("cgroup.procs"), child.id().to_string()).unwrap();
        }
    }
    let stats = cgroups.stats(&path).unwrap().unwrap();
    assert_eq!(stats.pids, Some(1));
    assert_eq!(stats.memory_limit, Some(64 << 20));
    assert_eq!(stats.oom_kills, Some(0));
    assert!(stats.cpu_usage_ns.is_some() && stats.memory_working_set <= stats.memory_usage);
    let removal = cgroups.remove_pod(UID).await.unwrap();
    assert!(matches!(removal, Removal::Gone | Removal::Busy { processes: 1 }), "{removal:?}");
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let mut rounds = 0;
    while cgroups.remove_pod(UID).await.unwrap() != Removal::Gone {
        rounds += 1;
        assert!(rounds < 100_000, "the cgroup of a dead process stays");
        std::thread::yield_now();
    }
}

/// A directory that looks like a v2 hierarchy: files don't come by themselves there, so they are made first.
#[tokio::test]
async fn a_v2_tree_is_told_the_same_in_its_own_words() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("cgroup");
    let uid = "b-1";
    let places = ["", "kubepods", "kubepods/burstable", "kubepods/besteffort", "kubepods/burstable/podb-1"];
    for place in places {
        let directory = root.join(place);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids\n").unwrap();
        for file in ["cgroup.subtree_control", "cpu.weight", "cpu.max", "memory.max", "pids.max", "hugetlb.2MB.max"] {
            fs::write(directory.join(file), "").unwrap();
        }
    }
    let mountinfo = home.path().join("mountinfo");
    fs::write(&mountinfo, format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", root.display())).unwrap();
    let (own, first) = (home.path().join("own"), home.path().join("first"));
    fs::write(&own, "0::/system.slice/k3s.service\n").unwrap();
    fs::write(&first, "0::/init.scope\n").unwrap();
    let cgroups = Cgroups::detect(&CgroupSources { mountinfo, own, first }, Driver::Cgroupfs, "/").unwrap();
    assert_eq!(cgroups.layout().version(), Version::V2);
    // The machine's own root has no type, and nothing has to leave it; that of a container has one.
    cgroups.leave_root().unwrap();
    assert!(!root.join("init").exists());
    fs::write(root.join("cgroup.type"), "domain\n").unwrap();
    fs::write(root.join("cgroup.procs"), "17\n").unwrap();
    fs::create_dir(root.join("init")).unwrap();
    fs::write(root.join("init/cgroup.procs"), "").unwrap();
    cgroups.leave_root().unwrap();
    assert_eq!(fs::read_to_string(root.join("init/cgroup.procs")).unwrap(), "17");
    cgroups.ensure_qos(&node(), 1000).await.unwrap();
    let mut asked = limits();
    asked.hugepages.insert("2Mi".to_owned(), 4 << 20);
    let path = cgroups.ensure_pod(uid, QosClass::Burstable, &asked).await.unwrap();
    let read = |file: &str| fs::read_to_string(root.join(&path).join(file)).unwrap();
    assert_eq!(read("cpu.weight"), "20");
    assert_eq!(read("cpu.max"), "50000 100000");
    assert_eq!(read("memory.max"), (64 << 20).to_string());
    assert_eq!(read("hugetlb.2MB.max"), (4 << 20).to_string());
    assert_eq!(fs::read_to_string(root.join("kubepods/besteffort/cpu.weight")).unwrap(), "1");
    assert_eq!(fs::read_to_string(root.join("kubepods/burstable/cpu.weight")).unwrap(), "39");
    assert_eq!(cgroups.list_pods().unwrap().get(uid), Some(&QosClass::Burstable));
}
