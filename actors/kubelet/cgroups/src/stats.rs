//! What a cgroup uses.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::disks::Disks;
use crate::error::CgroupError;
use crate::layout::number;

/// What a cgroup and those below it have used, and use. Figures that the kernel doesn't give are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupStats {
    /// CPU time since the cgroup was made, in nanoseconds.
    pub cpu_usage_ns: Option<u64>,
    /// Of it in user mode, in nanoseconds.
    pub cpu_user_ns: Option<u64>,
    /// Of it in the kernel, in nanoseconds.
    pub cpu_system_ns: Option<u64>,
    /// Periods that passed while there was a quota.
    pub cpu_periods: Option<u64>,
    /// Of them those in which the quota was spent.
    pub cpu_throttled_periods: Option<u64>,
    /// How long it had to wait for that, in nanoseconds.
    pub cpu_throttled_ns: Option<u64>,
    /// Bytes in use, caches of files with them.
    pub memory_usage: Option<u64>,
    /// Bytes that can't be taken away without harm: in use, less the caches that nobody has touched for a while.
    pub memory_working_set: Option<u64>,
    /// Bytes that belong to no file.
    pub memory_rss: Option<u64>,
    /// Bytes of caches of files.
    pub memory_cache: Option<u64>,
    /// Bytes of files that are mapped.
    pub memory_mapped_file: Option<u64>,
    /// Bytes in swap.
    pub memory_swap: Option<u64>,
    /// Bytes that may be used; `None` without a limit.
    pub memory_limit: Option<u64>,
    /// The most bytes that were ever in use at once.
    pub memory_peak: Option<u64>,
    /// How often the limit of memory was met.
    pub memory_limit_hits: Option<u64>,
    /// Page faults since the cgroup was made.
    pub page_faults: Option<u64>,
    /// Of them those for which a disk was read.
    pub major_page_faults: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// What was read from disks, and written to them.
    pub disks: Disks,
    /// How often something was killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// v1 says "no limit" by a number of this order.
const UNLIMITED_V1: u64 = 1 << 62;
/// `cpuacct.stat` counts hundredths of a second on every architecture that there are containers for.
const NS_PER_TICK: u64 = 10_000_000;

pub(crate) fn read_v1(directory: impl Fn(&str) -> Option<PathBuf>) -> Result<Option<CgroupStats>, CgroupError> {
    let file = |controller: &str, name: &str| directory(controller).map(|path| path.join(name));
    let figure = |controller: &str, name: &str| file(controller, name).as_deref().and_then(number);
    let table = |controller: &str, name: &str| match file(controller, name) {
        Some(path) => Table::read(&path),
        None => Ok(Table::default()),
    };
    if !["memory", "cpu", "pids"].iter().filter_map(|name| directory(name)).any(|path| path.is_dir()) {
        return Ok(None);
    }
    let (memory, cpu) = (table("memory", "memory.stat")?, table("cpu", "cpu.stat")?);
    let times = table("cpuacct", "cpuacct.stat")?;
    let of_disks = |name: &str| {
        let path = file("blkio", &format!("blkio.throttle.{name}_recursive"));
        path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
    };
    let memory_usage = figure("memory", "memory.usage_in_bytes");
    let inactive = memory.get("total_inactive_file");
    Ok(Some(CgroupStats {
        cpu_usage_ns: figure("cpuacct", "cpuacct.usage"),
        cpu_user_ns: times.get("user").map(|ticks| ticks * NS_PER_TICK),
        cpu_system_ns: times.get("system").map(|ticks| ticks * NS_PER_TICK),
        cpu_periods: cpu.get("nr_periods"),
        cpu_throttled_periods: cpu.get("nr_throttled"),
        cpu_throttled_ns: cpu.get("throttled_time"),
        memory_usage,
        memory_working_set: memory_usage.map(|usage| usage.saturating_sub(inactive.unwrap_or(0))),
        memory_rss: memory.get("total_rss"),
        memory_cache: memory.get("total_cache"),
        memory_mapped_file: memory.get("total_mapped_file"),
        memory_swap: memory.get("total_swap"),
        memory_limit: figure("memory", "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED_V1),
        memory_peak: figure("memory", "memory.max_usage_in_bytes"),
        memory_limit_hits: figure("memory", "memory.failcnt"),
        page_faults: memory.get("total_pgfault"),
        major_page_faults: memory.get("total_pgmajfault"),
        pids: figure("pids", "pids.current"),
        disks: Disks::v1(&of_disks("io_service_bytes"), &of_disks("io_serviced")),
        oom_kills: table("memory", "memory.oom_control")?.get("oom_kill"),
    }))
}

pub(crate) fn read_v2(directory: &Path) -> Result<Option<CgroupStats>, CgroupError> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let figure = |name: &str| number(&directory.join(name));
    let table = |name: &str| Table::read(&directory.join(name));
    let (cpu, memory) = (table("cpu.stat")?, table("memory.stat")?);
    let nanos = |name: &str| cpu.get(name).map(|micros| micros.saturating_mul(1000));
    let events = table("memory.events")?;
    let memory_usage = figure("memory.current");
    let inactive = memory.get("inactive_file").unwrap_or(0);
    Ok(Some(CgroupStats {
        cpu_usage_ns: nanos("usage_usec"),
        cpu_user_ns: nanos("user_usec"),
        cpu_system_ns: nanos("system_usec"),
        cpu_periods: cpu.get("nr_periods"),
        cpu_throttled_periods: cpu.get("nr_throttled"),
        cpu_throttled_ns: nanos("throttled_usec"),
        memory_usage,
        memory_working_set: memory_usage.map(|usage| usage.saturating_sub(inactive)),
        memory_rss: memory.get("anon"),
        memory_cache: memory.get("file"),
        memory_mapped_file: memory.get("file_mapped"),
        memory_swap: figure("memory.swap.current"),
        memory_limit: figure("memory.max"),
        memory_peak: figure("memory.peak"),
        memory_limit_hits: events.get("max"),
        page_faults: memory.get("pgfault"),
        major_page_faults: memory.get("pgmajfault"),
        pids: figure("pids.current"),
        disks: Disks::v2(&fs::read_to_string(directory.join("io.stat")).unwrap_or_default()),
        oom_kills: events.get("oom_kill"),
    }))
}

/// A kernel file of names and numbers.
#[derive(Default)]
struct Table(String);

impl Table {
    /// A file that isn't there is empty: the controller may be off.
    fn read(path: &Path) -> Result<Self, CgroupError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => Ok(Self::default()),
            Err(source) => Err(CgroupError::Read { path: path.to_owned(), source }),
        }
    }

    fn get(&self, name: &str) -> Option<u64> {
        let found = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.and_then(|number| number.trim().parse().ok())
    }
}

/// A cgroup that is removed while one of its files is open answers this.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_cgroup_is_read() {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
            ),
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 300\nfile 600\nfile_mapped 50\ninactive_file 250\npgfault 9\npgmajfault 1\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nmax 6\noom 2\noom_kill 1\n"),
            ("memory.peak", "2000\n"),
            ("pids.current", "3\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=0 rios=1\n"),
        ] {
            fs::write(home.path().join(name), text).unwrap();
        }
        let stats = read_v2(home.path()).unwrap().unwrap();
        assert_eq!((stats.cpu_usage_ns, stats.cpu_throttled_ns), (Some(1_500_000), Some(7000)));
        assert_eq!(
            (stats.memory_usage, stats.memory_working_set, stats.memory_rss),
            (Some(1000), Some(750), Some(300))
        );
        assert_eq!((stats.memory_limit, stats.oom_kills, stats.pids), (None, Some(1), Some(3)));
        let disks: Vec<_> = stats.disks.iter().map(|disk| (disk.minor, disk.read_bytes, disk.reads)).collect();
        assert_eq!(disks, [(0, Some(10), Some(1)), (16, Some(5), Some(1))]);
        assert_eq!((stats.memory_peak, stats.memory_limit_hits), (Some(2000), Some(6)));
        assert_eq!(read_v2(&home.path().join("absent")).unwrap(), None);
    }
}
