//! Figures by disk: what fits, what is used, what came and went.

use k3sd_kubelet_cgroups::DiskStats;

use super::{Snapshot, Subject, metric, quoted, stamp};

/// What a container has to do with disks.
pub(super) fn write(text: &mut String, all: &[Subject], snapshot: &Snapshot) {
    layers(text, all, snapshot);
    disks(text, all, snapshot);
}

/// A label for a disk, which has no name where the machine doesn't say one.
fn device(snapshot: &Snapshot, number: (u32, u32)) -> String {
    format!("device=\"{}\"", quoted(snapshot.disk_names.get(&number).map_or("", String::as_str)))
}

/// Writable layers, on the disk of the images.
fn layers(text: &mut String, all: &[Subject], snapshot: &Snapshot) {
    type Of = fn(&Subject) -> Option<u64>;
    let device = device(snapshot, snapshot.images_disk);
    let columns: [(&str, &str, Of); 2] = [
        ("container_fs_limit_bytes", "What fits where the writable layer is, in bytes.", |one| one.layer_max),
        ("container_fs_usage_bytes", "Writable layer, in bytes.", |one| one.layer),
    ];
    for (name, help, of) in columns {
        let row = |one: &Subject| Some((format!("{device},{}", one.labels), stamp(of(one)?, one.time.as_ref())));
        metric(text, name, "gauge", help, all.iter().filter_map(row));
    }
}

/// What went to disks and came from them.
fn disks(text: &mut String, all: &[Subject], snapshot: &Snapshot) {
    type Of = fn(&DiskStats) -> Option<u64>;
    let columns: [(&str, &str, Of); 4] = [
        ("container_fs_reads_bytes_total", "Bytes read from disks.", |disk| disk.read_bytes),
        ("container_fs_reads_total", "Reads from disks.", |disk| disk.reads),
        ("container_fs_writes_bytes_total", "Bytes written to disks.", |disk| disk.write_bytes),
        ("container_fs_writes_total", "Writes to disks.", |disk| disk.writes),
    ];
    for (name, help, of) in columns {
        let mut rows = Vec::new();
        for one in all {
            for disk in one.cgroup.iter().flat_map(|stats| stats.disks.iter()) {
                let labels = format!("{},{}", device(snapshot, (disk.major, disk.minor)), one.labels);
                rows.extend(of(disk).map(|count| (labels, stamp(count, one.time.as_ref()))));
            }
        }
        metric(text, name, "counter", help, rows);
    }
}

#[cfg(test)]
mod tests {
    use k3sd_cri::v1;
    use k3sd_kubelet_cgroups::{CgroupStats, Disks};

    use super::super::cadvisor;
    use super::super::tests::snapshot;

    #[test]
    fn disks_are_told_apart() {
        let disks = Disks::v1("8:0 Read 4096\n8:16 Read 5\n", "8:0 Read 2\n");
        let mut snapshot = snapshot();
        snapshot.cgroups.insert("id".to_owned(), CgroupStats { disks, ..CgroupStats::default() });
        snapshot.disk_names = [((8, 0), "/dev/sda".to_owned())].into();
        snapshot.images_disk = (8, 0);
        let used = v1::FilesystemUsage { used_bytes: Some(v1::UInt64Value { value: 77 }), ..Default::default() };
        snapshot.containers.get_mut("id").unwrap().writable_layer = Some(used);
        let text = cadvisor(&snapshot);
        let of = "container=\"c\",id=\"/kubepods/podu/id\",image=\"image\",name=\"id\",namespace=\"n\",pod=\"p\"";
        for (name, device, value) in [
            ("container_fs_reads_bytes_total", "/dev/sda", 4096),
            ("container_fs_reads_bytes_total", "", 5),
            ("container_fs_reads_total", "/dev/sda", 2),
            ("container_fs_usage_bytes", "/dev/sda", 77),
        ] {
            let line = format!("{name}{{device=\"{device}\",{of}}} {value} 7000");
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
