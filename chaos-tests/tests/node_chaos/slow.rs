//! The datastore's disk becomes slow, so that every write waits for long: clients wait a little longer, and nobody is turned
//! away.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chaos_tests::{Replay, seed};
use k3sd_runtime::Rng;
use rustix::fs::{major, minor};

use crate::drill::Drill;
use crate::kubectl::{holds, ran};
use crate::machine::{Machine, NODE, PATIENCE};

/// Writes per second that the disk does when it is slow: an old disk that others use, too.
const WRITES_PER_SECOND: u32 = 8;
/// How long it is slow, at least; renewals of the node's lease come every ten seconds.
const SLOW: Duration = Duration::from_secs(11);
/// How many writes have to be acknowledged in that time.
const WRITES: u64 = 20;
/// The size of the disk.
const DISK: &str = "200M";
/// Where the kernel throttles block devices.
const THROTTLES: &str = "/sys/fs/cgroup/blkio";

pub(crate) async fn slow(machine: &mut Machine) {
    let seed = seed();
    let _replay = Replay { seed, test: "a_slow_disk_only_slows" };
    let mut rng = Rng::seeded(seed);
    if !Path::new(THROTTLES).join("cgroup.procs").exists() {
        println!("ignored: it needs cgroups that throttle block devices (blkio, v1)");
        return;
    }
    if let Err(why) = mount(machine).await {
        println!("ignored: it needs loop devices: {why}");
        return;
    }
    let drill = Drill::begin(machine, &mut rng).await;
    let quick = writes_take(&drill).await;
    let throttle = Throttle::begin(drill.machine).await;
    let began = Instant::now();
    let slow = writes_take(&drill).await;
    println!("a write took {quick:?}, and then {slow:?}");
    assert!(slow > quick, "it isn't slow");
    drill.load.wait_for_writes(WRITES, PATIENCE).await;
    while began.elapsed() < SLOW {
        drill.traffic.round().await;
        assert!(holds(&drill.machine.get(&["node", NODE]).await, "Ready"));
    }
    drop(throttle);
    println!("and {:?} when that was over", writes_take(&drill).await);
    drill.end().await;
}

/// Puts the datastore on a block device of its own.
async fn mount(machine: &Machine) -> Result<(), String> {
    let (folder, image) = (machine.disk("data/server/db"), machine.disk("db.img"));
    let (folder, image) = (folder.display(), image.display());
    let script = format!(
        "truncate -s {DISK} {image} && mkfs.ext4 -q {image} && mkdir -p {folder} && mount -o loop {image} {folder} && \
         rmdir {folder}/lost+found && chmod 700 {folder}"
    );
    let said = ran(machine.command(&["sh", "-c", &script])).await;
    if said.code == 0 { Ok(()) } else { Err(said.err.trim().replace('\n', "; ")) }
}

/// How long a write takes, over some of several writers.
async fn writes_take(drill: &Drill<'_>) -> Duration {
    const SOME: u32 = 8;
    let began = Instant::now();
    drill.load.wait_for_writes(u64::from(SOME), PATIENCE).await;
    began.elapsed() / SOME
}

/// The daemon among processes for which the datastore's device is slow; no longer, once this is dropped.
struct Throttle {
    folder: PathBuf,
}

impl Throttle {
    async fn begin(machine: &mut Machine) -> Self {
        let folder = Path::new(THROTTLES).join(format!("k3sd-slow-{}", std::process::id()));
        fs::create_dir(&folder).expect("a cgroup");
        let throttle = Self { folder };
        let disk = machine.seen(&machine.disk("data/server/db").display().to_string());
        let device = fs::metadata(disk).expect("it is mounted").dev();
        let limit = format!("{}:{} {WRITES_PER_SECOND}", major(device), minor(device));
        fs::write(throttle.folder.join("blkio.throttle.write_iops_device"), limit).expect("the kernel throttles");
        let daemon = machine.daemon_pid().await.as_raw_nonzero().to_string();
        fs::write(throttle.folder.join("cgroup.procs"), daemon).expect("it runs");
        throttle
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // What the daemon started since is here, too; and anybody may have ended.
        for pid in fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default().lines() {
            fs::write(Path::new(THROTTLES).join("cgroup.procs"), pid).ok();
        }
        if let Err(error) = fs::remove_dir(&self.folder) {
            println!("{} stays: {error}", self.folder.display());
        }
    }
}
