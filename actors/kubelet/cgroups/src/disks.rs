//! What a cgroup has read from disks and written to them, disk by disk.

/// Disks that are told apart; machines have few, and what is beyond them is left out.
const DISKS_MAX: usize = 8;

/// What was read from one disk and written to it, since the cgroup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskStats {
    /// The disk's number.
    pub major: u32,
    /// The second half of it.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Reads.
    pub reads: Option<u64>,
    /// Writes.
    pub writes: Option<u64>,
}

/// All disks that were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disks([Option<DiskStats>; DISKS_MAX]);

impl Disks {
    /// One after the other, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = &DiskStats> {
        self.0.iter().flatten()
    }

    /// The place of a disk, made if there is room.
    fn of(&mut self, number: &str) -> Option<&mut DiskStats> {
        let (major, minor) = number.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let is_it = |one: &Option<DiskStats>| one.is_none_or(|one| (one.major, one.minor) == (major, minor));
        let place = self.0.iter_mut().find(|one| is_it(one))?;
        Some(place.get_or_insert(DiskStats { major, minor, ..DiskStats::default() }))
    }

    /// From two files of v1, with lines like `8:0 Read 4096`: bytes, and how often.
    #[must_use]
    pub fn v1(bytes: &str, operations: &str) -> Self {
        let mut disks = Self::default();
        for (text, is_bytes) in [(bytes, true), (operations, false)] {
            for line in text.lines() {
                let mut parts = line.split(' ');
                let (Some(number), Some(what), Some(count)) = (parts.next(), parts.next(), parts.next()) else {
                    continue;
                };
                let (Some(disk), Ok(count)) = (disks.of(number), count.parse()) else { continue };
                let place = match (what, is_bytes) {
                    ("Read", true) => &mut disk.read_bytes,
                    ("Write", true) => &mut disk.write_bytes,
                    ("Read", false) => &mut disk.reads,
                    ("Write", false) => &mut disk.writes,
                    _ => continue,
                };
                *place = Some(count);
            }
        }
        disks
    }

    /// From v2's `io.stat`, with lines like `8:0 rbytes=4096 wbytes=0 rios=1 wios=0`.
    #[must_use]
    pub fn v2(text: &str) -> Self {
        let mut disks = Self::default();
        for line in text.lines() {
            let mut parts = line.split(' ');
            let Some(disk) = parts.next().and_then(|number| disks.of(number)) else { continue };
            for (name, count) in parts.filter_map(|part| part.split_once('=')) {
                let place = match name {
                    "rbytes" => &mut disk.read_bytes,
                    "wbytes" => &mut disk.write_bytes,
                    "rios" => &mut disk.reads,
                    "wios" => &mut disk.writes,
                    _ => continue,
                };
                *place = count.parse().ok();
            }
        }
        disks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(minor: u32, figures: [Option<u64>; 4]) -> DiskStats {
        let [read_bytes, write_bytes, reads, writes] = figures;
        DiskStats { major: 8, minor, read_bytes, write_bytes, reads, writes }
    }

    #[test]
    fn each_disk_is_told_apart() {
        let all = |disks: Disks| disks.iter().copied().collect::<Vec<_>>();
        let bytes = "8:0 Read 4096\n8:0 Write 20\n8:0 Total 4116\n8:16 Read 5\nTotal 4121\n";
        let found = all(Disks::v1(bytes, "8:0 Read 2\n8:0 Write 1\n"));
        let expected = [disk(0, [Some(4096), Some(20), Some(2), Some(1)]), disk(16, [Some(5), None, None, None])];
        assert_eq!(found, expected);
        let found = all(Disks::v2("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0\n8:16 rbytes=5\nnonsense\n"));
        assert_eq!(found, [disk(0, [Some(10), Some(20), Some(1), Some(2)]), disk(16, [Some(5), None, None, None])]);
        let many: String = (0..20).map(|minor| format!("8:{minor} rbytes=1\n")).collect();
        assert_eq!(Disks::v2(&many).iter().count(), DISKS_MAX);
        assert_eq!(all(Disks::v1("", "")), []);
    }
}
