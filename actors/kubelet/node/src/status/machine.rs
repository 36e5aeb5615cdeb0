//! The machine, as the kernel and the distribution describe it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the machine describes itself; a test has a directory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/etc`.
    pub etc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), etc: "/etc".into() }
    }
}

/// What doesn't change while a machine runs, but for memory that is plugged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that run.
    pub cpus: u64,
    /// Bytes of memory; less if this is a container with a limit.
    pub memory_bytes: u64,
    /// Bytes of swap space.
    pub swap_bytes: u64,
    /// Bytes reserved in huge pages, by the bytes of a page.
    pub hugepages: BTreeMap<u64, u64>,
    /// The id of the installation.
    pub machine_id: String,
    /// The id of the hardware.
    pub system_uuid: String,
    /// Another one for each start.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// The name of the distribution.
    pub os_image: String,
}

impl Machine {
    /// Looks. What can't be read is empty or zero: it is for status, and for nothing that depends on it.
    #[must_use]
    pub fn read(roots: &Roots) -> Self {
        let memory = Memory::parse(&text(&roots.proc.join("meminfo")));
        let limit = memory_limit(&roots.sys).unwrap_or(u64::MAX);
        let machine_id = text(&roots.etc.join("machine-id"));
        let uuid = [roots.sys.join("class/dmi/id/product_uuid"), roots.proc.join("device-tree/system-id")];
        let uuid = uuid.iter().map(|path| text(path)).find(|found| !found.is_empty());
        Self {
            cpus: cpus(&text(&roots.sys.join("devices/system/cpu/online"))),
            memory_bytes: memory.total.min(limit),
            swap_bytes: memory.swap_total,
            hugepages: hugepages(&roots.sys.join("kernel/mm/hugepages")),
            system_uuid: uuid.unwrap_or_else(|| machine_id.clone()),
            machine_id,
            boot_id: text(&roots.proc.join("sys/kernel/random/boot_id")),
            kernel_version: text(&roots.proc.join("sys/kernel/osrelease")),
            os_image: os_image(&text(&roots.etc.join("os-release"))),
        }
    }
}

/// The architecture, as Go calls it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// A file without the white space around it; empty if it can't be read.
pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// `/proc/meminfo`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) inactive_file: u64,
    pub(crate) anonymous: u64,
    pub(crate) swap_total: u64,
    pub(crate) swap_free: u64,
}

impl Memory {
    pub(crate) fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines() {
            let Some((name, rest)) = line.split_once(':') else { continue };
            let kib: u64 = rest.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
            let place = match name {
                "MemTotal" => &mut all.total,
                "MemFree" => &mut all.free,
                "Inactive(file)" => &mut all.inactive_file,
                "AnonPages" => &mut all.anonymous,
                "SwapTotal" => &mut all.swap_total,
                "SwapFree" => &mut all.swap_free,
                _ => continue,
            };
            *place = kib.saturating_mul(1024);
        }
        all
    }

    /// What is in use, caches too.
    pub(crate) fn usage(self) -> u64 {
        self.total.saturating_sub(self.free)
    }

    /// What is in use and can't be dropped easily.
    pub(crate) fn working_set(self) -> u64 {
        self.usage().saturating_sub(self.inactive_file)
    }
}

/// Counts a list such as `0-3,6`.
pub(crate) fn cpus(list: &str) -> u64 {
    let count = |part: &str| -> Option<u64> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (last >= first).then(|| last - first + 1)
    };
    list.split(',').filter_map(count).sum::<u64>().max(1)
}

/// The limit of the topmost cgroup that can be seen: in a container that is the container's own.
pub(crate) fn memory_limit(sys: &Path) -> Option<u64> {
    let files = ["fs/cgroup/memory.max", "fs/cgroup/memory/memory.limit_in_bytes"];
    files.iter().find_map(|file| text(&sys.join(file)).parse::<u64>().ok())
}

fn hugepages(directory: &Path) -> BTreeMap<u64, u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let kib: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: u64 = text(&entry.path().join("nr_hugepages")).parse().ok()?;
        let bytes = kib.checked_mul(1024)?;
        Some((bytes, count.checked_mul(bytes)?))
    };
    entries.filter_map(one).collect()
}

/// `PRETTY_NAME` without its quotes.
fn os_image(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |name| name.trim().trim_matches(['"', '\'']).to_owned())
}

/// Sizes of the file system that a path is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that others than root may still use.
    pub available: u64,
    /// Bytes in use.
    pub used: u64,
    /// Inodes in all; 0 where there is no such number.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
    /// Which file system it is.
    pub id: u64,
}

impl FileSystem {
    /// The number of the disk that it is on.
    #[must_use]
    pub fn disk(&self) -> (u32, u32) {
        (rustix::fs::major(self.id), rustix::fs::minor(self.id))
    }

    /// Asks the kernel.
    ///
    /// # Errors
    /// The path isn't there, or can't be reached.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        let block = if found.f_frsize == 0 { found.f_bsize } else { found.f_frsize };
        let bytes = |blocks: u64| blocks.saturating_mul(block);
        Ok(Self {
            capacity: bytes(found.f_blocks),
            available: bytes(found.f_bavail),
            used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
            inodes: found.f_files,
            inodes_free: found.f_ffree,
            id: rustix::fs::stat(path)?.st_dev,
        })
    }
}

/// The most process ids there can be, and how many are taken, threads too.
#[must_use]
pub fn processes(proc: &Path) -> Option<(u64, u64)> {
    let number = |name: &str| text(&proc.join(name)).parse::<u64>().ok();
    let most = number("sys/kernel/pid_max")?.min(number("sys/kernel/threads-max").unwrap_or(u64::MAX));
    // The fourth field: how many run, a slash, and how many there are.
    let load = text(&proc.join("loadavg"));
    let running = load.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some((most, running))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        for (list, expected) in [("0", 1), ("0-3", 4), ("0-1,4,6-7", 5), ("", 1), ("nonsense", 1), ("3-1", 1)] {
            assert_eq!(cpus(list), expected, "{list:?}");
        }
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text =
            "MemTotal:  1000 kB\nMemFree: 400 kB\nInactive(file):  100 kB\nSwapTotal: 8 kB\nOdd\nHugePages_Total: 0\n";
        let memory = Memory::parse(text);
        assert_eq!((memory.usage(), memory.working_set(), memory.swap_total), (600 << 10, 500 << 10, 8 << 10));
        assert_eq!(Memory::parse("").working_set(), 0);
    }

    #[test]
    fn a_machine_is_what_its_files_say() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal: 4096 kB\nSwapTotal: 4 kB\n");
        write("proc/sys/kernel/random/boot_id", "boot\n");
        write("proc/sys/kernel/osrelease", "6.1.0\n");
        write("proc/loadavg", "0.00 0.01 0.05 1/345 6789\n");
        write("proc/sys/kernel/pid_max", "1000\n");
        write("sys/devices/system/cpu/online", "0-1\n");
        write("sys/fs/cgroup/memory.max", "1048576\n");
        write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "3\n");
        write("etc/machine-id", "abc\n");
        write("etc/os-release", "NAME=x\nPRETTY_NAME=\"Some Linux 1\"\n");
        let root = directory.path();
        let roots = Roots { proc: root.join("proc"), sys: root.join("sys"), etc: root.join("etc") };
        let machine = Machine::read(&roots);
        let expected = Machine {
            cpus: 2,
            memory_bytes: 1 << 20,
            swap_bytes: 4096,
            hugepages: [(2 << 20, 6 << 20)].into(),
            machine_id: "abc".to_owned(),
            system_uuid: "abc".to_owned(),
            boot_id: "boot".to_owned(),
            kernel_version: "6.1.0".to_owned(),
            os_image: "Some Linux 1".to_owned(),
        };
        assert_eq!(machine, expected);
        assert_eq!(processes(&roots.proc), Some((1000, 345)));
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(Machine::read(&roots).memory_bytes, 4 << 20);
    }

    #[test]
    fn this_machine_has_what_every_machine_has() {
        let machine = Machine::read(&Roots::default());
        assert!(machine.memory_bytes > 1 << 20 && !machine.boot_id.is_empty() && !machine.kernel_version.is_empty());
        let fs = FileSystem::of(Path::new("/")).unwrap();
        assert!(fs.capacity > 0 && fs.available <= fs.capacity && fs.used <= fs.capacity);
        let (most, running) = processes(Path::new("/proc")).unwrap();
        assert!(running > 0 && running < most);
    }
}
