//! What there is on the machine while nothing happens, and whether all of it and no more is there after faults: processes,
//! mounts, cgroups, links, rules, addresses, volumes, and what the daemon itself holds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use chaos_tests::checks::count;
use chaos_tests::daemon::Holdings;

use crate::machine::{Machine, PATIENCE};
use crate::traces::Traces;

/// How much more the daemon may hold of descriptors and threads: pools grow to what was needed at once.
const MORE_HELD: usize = 16;
/// How much its memory may grow: by half, for what lists of last deaths and the allocator keep, and by this.
const MORE_MEMORY: usize = 48 << 20;
/// How much the datastore's files may grow while the load writes.
const MORE_DISK: u64 = 64 << 20;
/// How often somebody looks.
const PAUSE: Duration = Duration::from_millis(200);

/// What there is.
pub(crate) struct Ground {
    traces: Traces,
    holdings: Holdings,
    disk: u64,
}

impl Ground {
    /// What there is once it no longer changes.
    ///
    /// # Panics
    /// When it changes for ever.
    pub(crate) async fn of(machine: &mut Machine) -> Self {
        let began = Instant::now();
        let mut before = Traces::of(machine).await;
        loop {
            tokio::time::sleep(PAUSE).await;
            let traces = Traces::of(machine).await;
            if traces == before {
                return Self { traces, holdings: holdings(machine).await, disk: disk(machine) };
            }
            assert!(began.elapsed() < PATIENCE, "it changes for ever");
            before = traces;
        }
    }

    /// Waits until no more is there, and no less.
    ///
    /// # Panics
    /// When something is left.
    pub(crate) async fn come_back(&self, machine: &mut Machine) {
        let took = self.traces.come_back(machine, PATIENCE).await;
        let began = Instant::now();
        let (now, wrong) = loop {
            let now = holdings(machine).await;
            let wrong = self.wrong(machine, now).await;
            if wrong.is_empty() || began.elapsed() > PATIENCE {
                break (now, wrong);
            }
            tokio::time::sleep(PAUSE).await;
        };
        let Self { holdings, disk, .. } = self;
        println!("nothing was left {took:?} later; held before {holdings:?} and {disk} bytes on disk, now {now:?}");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    async fn wrong(&self, machine: &Machine, now: Holdings) -> Vec<String> {
        let mut wrong = Vec::new();
        let Holdings { descriptors, threads, memory } = self.holdings;
        if now.descriptors > descriptors + MORE_HELD || now.threads > threads + MORE_HELD {
            wrong.push(format!("the daemon holds {now:?}, before {:?}", self.holdings));
        }
        if now.memory > memory + memory / 2 + MORE_MEMORY {
            wrong.push(format!("memory grew from {memory} to {} bytes", now.memory));
        }
        let disk = disk(machine);
        if disk > self.disk + MORE_DISK {
            wrong.push(format!("the datastore grew from {} to {disk} bytes", self.disk));
        }
        match machine.inspect.tree().await {
            Ok(tree) if tree.alive != count(&tree.root) => {
                wrong.push(format!("{} incarnations live, the tree has {}", tree.alive, count(&tree.root)));
            }
            Ok(_) => {}
            Err(error) => wrong.push(error.to_string()),
        }
        wrong
    }
}

async fn holdings(machine: &mut Machine) -> Holdings {
    let pid = machine.daemon_pid().await.as_raw_nonzero().get();
    Holdings::of(u32::try_from(pid).expect("a process"))
}

/// The size of the datastore's files.
fn disk(machine: &Machine) -> u64 {
    let folder = machine.seen(&machine.disk("data/server/db").display().to_string());
    size(&folder)
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}
