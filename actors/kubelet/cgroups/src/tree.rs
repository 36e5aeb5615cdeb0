//! Carries out: makes, limits, lists and removes the cgroups of pods.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::CgroupError;
use crate::layout::{CgroupSources, Hierarchy, Layout, Version};
use crate::limits::{SHARES_MIN, cpu_shares, cpu_weight};
use crate::names::{Driver, Names, QosClass};
use crate::pod::PodLimits;
use crate::stats::{CgroupStats, read_v1, read_v2};
use crate::systemd::{INFINITY, Limit, SOCKET, Systemd};

/// The cgroups of this node's pods. Cheap to clone; keeps no state but where things are.
#[derive(Debug, Clone)]
pub struct Cgroups {
    layout: Layout,
    names: Names,
    /// Whom slices belong to, where pods have slices.
    systemd: Option<Systemd>,
}

/// What all pods together may take: the node's capacity less what is reserved for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeLimits {
    /// Thousandths of a CPU; they share this much when there is too little.
    pub cpu_milli: u64,
    /// Bytes. The threshold of eviction is not taken off, so that eviction comes before the kernel does.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes by size of page, as `2Mi`.
    pub hugepages: BTreeMap<String, u64>,
}

/// How far a removal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is left.
    Gone,
    /// What ran in it was killed and is still there. Ask again in a moment.
    Busy {
        /// How many processes were seen.
        processes: usize,
    },
}

/// How deep the tree below a pod is followed: containers may make cgroups of their own, and nobody needs more.
const DEPTH_MAX: usize = 64;

impl Cgroups {
    /// Finds out what the machine has. `root` is the node's `--cgroup-root`, empty or `/` as a rule.
    ///
    /// # Errors
    /// No hierarchy, controllers missing, a root that is none.
    pub fn detect(sources: &CgroupSources, driver: Driver, root: &str) -> Result<Self, CgroupError> {
        let layout = Layout::read(sources)?;
        layout.check()?;
        let systemd = (driver == Driver::Systemd).then(|| Systemd::at(Path::new(SOCKET)));
        Ok(Self { layout, names: Names::new(driver, root)?, systemd })
    }

    /// What the machine has.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Who names cgroups.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.names.driver()
    }

    /// Makes `kubepods` and the cgroups of the classes, and limits them. `burstable_milli` is what the Burstable pods
    /// request together; see [`crate::burstable_milli`]. To be repeated when that changes.
    ///
    /// # Errors
    /// What the kernel or systemd refuses.
    pub async fn ensure_qos(&self, node: &NodeLimits, burstable_milli: u64) -> Result<(), CgroupError> {
        let limits = PodLimits {
            cpu_shares: cpu_shares(node.cpu_milli),
            cpu_quota: None,
            cpu_period: crate::CPU_PERIOD_US,
            memory_limit: node.memory,
            pids: node.pids,
            hugepages: node.hugepages.clone(),
        };
        self.make(&self.names.node())?;
        self.limit(&self.names.node(), &limits, !node.hugepages.is_empty()).await?;
        for (class, shares) in [(QosClass::Burstable, cpu_shares(burstable_milli)), (QosClass::BestEffort, SHARES_MIN)]
        {
            let path = self.names.class(class);
            self.make(&path)?;
            self.tell_systemd(&path, shares, None).await?;
            self.write_shares(&path, shares)?;
        }
        Ok(())
    }

    /// Makes a pod's cgroup, or adopts it, and limits it. The pod's class must not have changed since.
    ///
    /// # Errors
    /// A uid that is none, and what the kernel or systemd refuses.
    pub async fn ensure_pod(&self, uid: &str, class: QosClass, limits: &PodLimits) -> Result<PathBuf, CgroupError> {
        let path = self.names.pod(uid, class)?;
        self.make(&path)?;
        self.limit(&path, limits, true).await?;
        Ok(path)
    }

    /// Limits a pod's cgroup otherwise, after a resize.
    ///
    /// # Errors
    /// A uid that is none, no such cgroup, a limit below what is used, and what systemd refuses.
    pub async fn update_pod(&self, uid: &str, class: QosClass, limits: &PodLimits) -> Result<(), CgroupError> {
        self.limit(&self.names.pod(uid, class)?, limits, true).await
    }

    /// A pod's cgroup, relative to the hierarchies.
    ///
    /// # Errors
    /// A uid that is none.
    pub fn pod_path(&self, uid: &str, class: QosClass) -> Result<PathBuf, CgroupError> {
        self.names.pod(uid, class)
    }

    /// A pod's cgroup, as the CRI's `cgroup_parent` wants it for this driver.
    ///
    /// # Errors
    /// A uid that is none.
    pub fn parent_for_cri(&self, uid: &str, class: QosClass) -> Result<String, CgroupError> {
        self.names.for_cri(uid, class)
    }

    /// Uids of the pods that have cgroups, in whichever hierarchy: to find those that nobody knows any more.
    ///
    /// # Errors
    /// A directory that can't be read.
    pub fn list_pods(&self) -> Result<BTreeMap<String, QosClass>, CgroupError> {
        let mut found = BTreeMap::new();
        for hierarchy in self.layout.used() {
            for class in QosClass::ALL {
                for name in directories(&hierarchy.at.join(self.names.class(class)))? {
                    if let Some(uid) = self.names.uid(&name) {
                        found.insert(uid, class);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Kills what is left in a pod's cgroup and removes it, whatever its class. Doesn't wait: see [`Removal::Busy`].
    ///
    /// # Errors
    /// A uid that is none, and what the kernel or systemd refuses.
    pub async fn remove_pod(&self, uid: &str) -> Result<Removal, CgroupError> {
        let mut processes = BTreeSet::new();
        let mut is_busy = false;
        for class in QosClass::ALL {
            let path = self.names.pod(uid, class)?;
            for hierarchy in self.layout.all() {
                let directory = hierarchy.at.join(&path);
                if !directory.is_dir() {
                    continue;
                }
                kill_all(&directory, &mut processes, 0);
                is_busy |= !remove(&directory, 0)?;
            }
            if let Some((systemd, slice)) = self.systemd.as_ref().zip(slice(&path)).filter(|_| !is_busy) {
                systemd.stop(slice).await?;
            }
        }
        Ok(if is_busy { Removal::Busy { processes: processes.len() } } else { Removal::Gone })
    }

    /// Moves this process to a cgroup, which is made; see [`Layout::kubelet_cgroup`].
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn join(&self, path: &str) -> Result<(), CgroupError> {
        let path = Names::new(Driver::Cgroupfs, path).map(|_| path.trim_matches('/'))?;
        self.make(Path::new(path))?;
        let own = std::process::id().to_string();
        for hierarchy in self.layout.used() {
            write(&hierarchy.at.join(path).join("cgroup.procs"), &own)?;
        }
        Ok(())
    }

    /// Moves whatever runs in the root of the tree one cgroup down, to `init`, so that the root can hand its controllers on:
    /// v2 forbids processes beside cgroups with limits. To be called before anything else by a node that is the first
    /// process of a container; elsewhere, and on v1, it does nothing.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn leave_root(&self) -> Result<(), CgroupError> {
        let Some(unified) = self.layout.unified.as_ref().filter(|_| self.layout.version() == Version::V2) else {
            return Ok(());
        };
        // Only the machine's own root has no type; that one may hold both.
        if !unified.at.join("cgroup.type").exists() {
            return Ok(());
        }
        let running = read(&unified.at.join("cgroup.procs"))?;
        if running.trim().is_empty() {
            return Ok(());
        }
        let init = unified.at.join("init");
        match fs::create_dir(&init) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::Make { path: init, source: error });
            }
            _ => {}
        }
        for pid in running.lines() {
            match write(&init.join("cgroup.procs"), pid) {
                // It ended meanwhile.
                Err(CgroupError::Write { source, .. })
                    if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// What a cgroup uses; `path` is relative to the hierarchies. `None` when there is no such cgroup.
    ///
    /// # Errors
    /// Files that are there and can't be read.
    pub fn stats(&self, path: &Path) -> Result<Option<CgroupStats>, CgroupError> {
        let relative: PathBuf =
            path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
        match self.layout.version() {
            Version::V2 => {
                self.layout.unified.as_ref().map_or(Ok(None), |unified| read_v2(&unified.at.join(&relative)))
            }
            Version::V1 | Version::Hybrid => {
                read_v1(|controller| self.layout.hierarchy(controller).map(|hierarchy| hierarchy.at.join(&relative)))
            }
        }
    }

    /// Whether the kernel limits swap: it may have been built or started without that.
    #[must_use]
    pub fn limits_swap(&self) -> bool {
        let Some(Hierarchy { at, .. }) = self.layout.hierarchy("memory") else { return false };
        match self.layout.version() {
            // The root has no such file.
            Version::V2 => {
                let names = directories(at).unwrap_or_default();
                names.iter().any(|name| at.join(name).join("memory.swap.max").exists())
            }
            Version::V1 | Version::Hybrid => at.join("memory.memsw.limit_in_bytes").exists(),
        }
    }

    /// How often the kernel has killed something in a cgroup for want of memory; `None` when that isn't known.
    #[must_use]
    pub fn oom_kills(&self, path: &Path) -> Option<u64> {
        self.stats(path).ok().flatten().and_then(|stats| stats.oom_kills)
    }

    fn make(&self, path: &Path) -> Result<(), CgroupError> {
        for hierarchy in self.layout.used() {
            make_in(hierarchy, path, self.layout.version() == Version::V2)?;
        }
        Ok(())
    }

    async fn limit(&self, path: &Path, limits: &PodLimits, pages: bool) -> Result<(), CgroupError> {
        self.tell_systemd(path, limits.cpu_shares, Some(limits)).await?;
        self.write_shares(path, limits.cpu_shares)?;
        let is_v2 = self.layout.version() == Version::V2;
        if is_v2 {
            let quota = limits.cpu_quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            self.tell("cpu", path, "cpu.max", &format!("{quota} {}", limits.cpu_period))?;
        } else {
            self.tell("cpu", path, "cpu.cfs_period_us", &limits.cpu_period.to_string())?;
            self.tell("cpu", path, "cpu.cfs_quota_us", &limits.cpu_quota.unwrap_or(-1).to_string())?;
        }
        let (file, none) = if is_v2 { ("memory.max", "max") } else { ("memory.limit_in_bytes", "-1") };
        let memory = limits.memory_limit.map_or_else(|| none.to_owned(), |bytes| bytes.to_string());
        self.tell("memory", path, file, &memory)?;
        if let Some(pids) = limits.pids {
            self.tell("pids", path, "pids.max", &pids.to_string())?;
        }
        if pages { self.limit_pages(path, &limits.hugepages) } else { Ok(()) }
    }

    /// Tells the owner of a slice what is written to its files, or it would be written over.
    async fn tell_systemd(&self, path: &Path, shares: u64, limits: Option<&PodLimits>) -> Result<(), CgroupError> {
        let Some((systemd, slice)) = self.systemd.as_ref().zip(slice(path)) else { return Ok(()) };
        systemd.limit(slice, &properties(self.layout.version() == Version::V2, shares, limits)).await
    }

    fn write_shares(&self, path: &Path, shares: u64) -> Result<(), CgroupError> {
        if self.layout.version() == Version::V2 {
            self.tell("cpu", path, "cpu.weight", &cpu_weight(shares).to_string())
        } else {
            self.tell("cpu", path, "cpu.shares", &shares.to_string())
        }
    }

    /// Pages of sizes that weren't asked for are forbidden.
    fn limit_pages(&self, path: &Path, asked: &BTreeMap<String, u64>) -> Result<(), CgroupError> {
        let Some(hierarchy) = self.layout.hierarchy("hugetlb") else { return Ok(()) };
        let last = if self.layout.version() == Version::V2 { ".max" } else { ".limit_in_bytes" };
        let directory = hierarchy.at.join(path);
        for name in files(&directory)? {
            let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(last));
            let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
            let bytes = asked.iter().find(|(page, _)| page_name(page) == *size);
            write(&directory.join(&name), &bytes.map_or(0, |(_, bytes)| *bytes).to_string())?;
        }
        Ok(())
    }

    /// Writes to a file of a controller, if the machine has it.
    fn tell(&self, controller: &str, path: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
        match self.layout.hierarchy(controller) {
            Some(hierarchy) => write(&hierarchy.at.join(path).join(file), value),
            None => Ok(()),
        }
    }
}

/// The unit that a slice's cgroup belongs to.
fn slice(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The limits of a cgroup, as systemd calls them.
fn properties(is_v2: bool, shares: u64, limits: Option<&PodLimits>) -> Vec<Limit> {
    let mut list = vec![if is_v2 { ("CPUWeight", cpu_weight(shares)) } else { ("CPUShares", shares) }];
    let Some(limits) = limits else { return list };
    let quota = limits.cpu_quota.and_then(|quota| u64::try_from(quota).ok());
    let per_second = quota.map(|quota| {
        let exact = u128::from(quota) * 1_000_000 / u128::from(limits.cpu_period.max(1));
        // It counts in hundredths of a CPU, and less than was asked for would be less than was promised.
        u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(INFINITY)
    });
    list.push(("CPUQuotaPeriodUSec", limits.cpu_period));
    list.push(("CPUQuotaPerSecUSec", per_second.unwrap_or(INFINITY)));
    let memory = if is_v2 { "MemoryMax" } else { "MemoryLimit" };
    list.push((memory, limits.memory_limit.unwrap_or(INFINITY)));
    list.push(("TasksMax", limits.pids.unwrap_or(INFINITY)));
    list
}

/// The kernel calls pages of `2Mi` `2MB`.
fn page_name(page: &str) -> String {
    page.replace('i', "B")
}

/// Makes a cgroup and those above it. On v2 each hands its controllers down; on v1 `cpuset` starts empty and copies.
fn make_in(hierarchy: &Hierarchy, path: &Path, is_v2: bool) -> Result<(), CgroupError> {
    let mut directory = hierarchy.at.clone();
    for part in path.components() {
        if is_v2 {
            hand_down(&directory)?;
        }
        let parent = directory.clone();
        directory.push(part);
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(CgroupError::Make { path: directory, source }),
        }
        if !is_v2 && hierarchy.controllers.iter().any(|name| name == "cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                inherit(&parent.join(file), &directory.join(file))?;
            }
        }
    }
    Ok(())
}

fn inherit(from: &Path, to: &Path) -> Result<(), CgroupError> {
    if !read(to)?.trim().is_empty() {
        return Ok(());
    }
    write(to, read(from)?.trim())
}

/// Lets the cgroups below this one use what it may use.
fn hand_down(directory: &Path) -> Result<(), CgroupError> {
    let (has, hands) = (read(&directory.join("cgroup.controllers"))?, read(&directory.join("cgroup.subtree_control"))?);
    let handed: BTreeSet<&str> = hands.split_whitespace().collect();
    for controller in has.split_whitespace().filter(|name| !handed.contains(name)) {
        let outcome = write(&directory.join("cgroup.subtree_control"), &format!("+{controller}"));
        // Some can't be handed down everywhere (`cpu` with real-time processes); pods need only the first four.
        if let Err(error) = outcome {
            if matches!(controller, "cpu" | "cpuset" | "memory" | "pids") {
                return Err(error);
            }
            tracing::debug!(controller, directory = %directory.display(), "a controller stays where it is");
        }
    }
    Ok(())
}

/// Kills every process in a cgroup and below it, except this one.
fn kill_all(directory: &Path, seen: &mut BTreeSet<i32>, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    for name in directories(directory).unwrap_or_default() {
        kill_all(&directory.join(name), seen, depth + 1);
    }
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid != own) {
        let Some(process) = Pid::from_raw(pid).filter(|_| pid > 0) else { continue };
        if seen.insert(pid)
            && let Err(error) = kill_process(process, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid, %error, "a process of a pod that is gone can't be killed");
        }
    }
}

/// Removes a cgroup and those below it. `false` when somebody is still in it.
fn remove(directory: &Path, depth: usize) -> Result<bool, CgroupError> {
    if depth > DEPTH_MAX {
        return Ok(false);
    }
    let mut is_empty = true;
    for name in directories(directory)? {
        is_empty &= remove(&directory.join(name), depth + 1)?;
    }
    if !is_empty {
        return Ok(false);
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(source) => Err(CgroupError::Remove { path: directory.to_owned(), source }),
    }
}

fn entries(directory: &Path, wanted: fn(&fs::FileType) -> bool) -> Result<Vec<String>, CgroupError> {
    let wrap = |source| CgroupError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(wrap(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(wrap)?;
        if entry.file_type().is_ok_and(|kind| wanted(&kind)) {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

fn directories(directory: &Path) -> Result<Vec<String>, CgroupError> {
    entries(directory, fs::FileType::is_dir)
}

fn files(directory: &Path) -> Result<Vec<String>, CgroupError> {
    entries(directory, fs::FileType::is_file)
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let outcome = fs::OpenOptions::new().write(true).truncate(true).open(path);
    let outcome = outcome.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    outcome.map_err(|source| CgroupError::Write { path: path.to_owned(), value: value.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_what_the_kernel_is_told() {
        let limits = PodLimits {
            cpu_shares: 512,
            cpu_quota: Some(20_500),
            cpu_period: 100_000,
            memory_limit: Some(64 << 20),
            pids: None,
            ..PodLimits::default()
        };
        let told = |is_v2| properties(is_v2, 512, Some(&limits));
        for (is_v2, cpu, weight, memory) in
            [(true, "CPUWeight", 20, "MemoryMax"), (false, "CPUShares", 512, "MemoryLimit")]
        {
            let wanted = [
                (cpu, weight),
                ("CPUQuotaPeriodUSec", 100_000),
                ("CPUQuotaPerSecUSec", 210_000),
                (memory, 64 << 20),
                ("TasksMax", INFINITY),
            ];
            assert_eq!(told(is_v2), wanted);
            assert_eq!(properties(is_v2, 512, None), wanted[..1]);
        }
        let none = PodLimits { cpu_quota: None, memory_limit: None, ..limits };
        let told = properties(true, 2, Some(&none));
        assert_eq!(told[2..4], [("CPUQuotaPerSecUSec", INFINITY), ("MemoryMax", INFINITY)]);
        assert_eq!(slice(Path::new("kubepods.slice/kubepods-podx.slice")), Some("kubepods-podx.slice"));
    }
}
