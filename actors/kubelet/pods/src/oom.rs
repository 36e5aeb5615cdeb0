//! Which containers the kernel killed for want of memory, from the kernel's own log.
//!
//! Their runtime is to say so (`OOMKilled`). containerd 1.x can't on hosts with a hierarchy of cgroups that a process is in
//! and that isn't mounted: its watcher finds none of them then, and reports an ordinary error.
//!
//! Owns:    the ids of those containers.
//! Needs:   `/dev/kmsg`; without it, what the runtime says is all there is.
//! Restart: permanent. It reads the whole log again: an id is never used twice.
//! Fails:   never.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use k3sd_runtime::{ActorError, TaskHandle};
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;

use crate::manager::Table;
use crate::pod::Shared;
use crate::runtime::{Runtime, State};

/// The reason of a container that was killed so.
const REASON: &str = "OOMKilled";
/// The reason that a runtime gives which doesn't know better.
const ERROR: &str = "Error";
/// Containers that are remembered; a runtime keeps few of each pod.
const KILLED_MAX: usize = 1000;
/// The longest record that the kernel hands out.
const RECORD_BYTES_MAX: usize = 8192;
/// Records of the kernel itself have a facility of 0, which no process can write.
const KERNEL_BELOW: u32 = 8;

/// Containers that the kernel killed, the latest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Killed(VecDeque<String>);

impl Killed {
    /// Whether it is news.
    fn add(&mut self, id: &str) -> bool {
        if self.0.iter().any(|known| known == id) {
            return false;
        }
        if self.0.len() == KILLED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(id.to_owned());
        true
    }

    /// Says so of those that failed.
    pub(crate) fn tell(&self, runtime: &mut Runtime) {
        let failed = runtime.containers.iter_mut().filter(|one| one.state == State::Exited && one.reason == ERROR);
        failed.filter(|one| self.0.contains(&one.id)).for_each(|one| one.reason = REASON.to_owned());
    }
}

/// What the reader is started with.
#[derive(Clone)]
pub(crate) struct OomArgs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) table: Arc<Table>,
}

/// Reads what there is, and then what comes.
pub(crate) async fn run(_: TaskHandle, args: OomArgs) -> Result<(), ActorError> {
    let Err(error) = follow(&args).await;
    tracing::info!(%error, "the kernel's log can't be read: only the runtime says who ran out of memory");
    std::future::pending().await
}

fn open(path: &Path) -> io::Result<AsyncFd<File>> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    #[expect(deprecated, reason = "its successor is unsafe; the descriptor is owned and stays open for as long")]
    AsyncFd::new(file)
}

async fn follow(args: &OomArgs) -> io::Result<std::convert::Infallible> {
    let log = open(&args.shared.config.kernel_log)?;
    let mut record = vec![0; RECORD_BYTES_MAX];
    loop {
        let mut guard = log.readable().await?;
        match guard.try_io(|log| log.get_ref().read(&mut record)) {
            // Nothing more for now.
            Err(_) => {}
            Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(count)) => heard(args, &String::from_utf8_lossy(&record[..count])),
            // The kernel has overwritten what was next; there is more.
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

fn heard(args: &OomArgs, record: &str) {
    let Some(id) = victim(record).and_then(container) else { return };
    if !args.shared.killed.send_if_modified(|killed| killed.add(id)) {
        return;
    }
    // It may have been looked at a moment too early.
    for entry in args.table.borrow().values() {
        if entry.view.borrow().runtime.containers.iter().any(|one| one.id == id) {
            entry.nudge.send_modify(|count| *count += 1);
        }
    }
}

/// The cgroup of a process that a record says was killed.
fn victim(record: &str) -> Option<&str> {
    let (prefix, message) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let message = message.lines().next().filter(|_| priority < KERNEL_BELOW)?;
    match message.strip_prefix("oom-kill:") {
        Some(facts) => facts.split(',').find_map(|fact| fact.strip_prefix("task_memcg=")),
        // So did kernels before 5.0.
        None => message.strip_prefix("Task in ")?.split_once(" killed as a result of limit of ").map(|(task, _)| task),
    }
}

/// The container's id in the name of its cgroup, which cgroupfs and systemd write in two ways.
fn container(cgroup: &str) -> Option<&str> {
    let name = cgroup.rsplit('/').next()?;
    let name = name.strip_suffix(".scope").map_or(name, |name| name.rsplit('-').next().unwrap_or(name));
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn the_victim_is_in_the_record() {
        let id = "85bef7e03a8402746c21d5e4b07b2fb470f8d1de848c51f32ac5cb271168b4f1";
        let of = |record: &str| victim(record).and_then(container).map(str::to_owned);
        let start =
            "6,74926,84135706006,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0";
        for (record, expected) in [
            (
                format!("{start},oom_memcg=/k/pod1,task_memcg=/kubepods/burstable/pod1/{id},task=sh,pid=7,uid=0\n"),
                Some(id),
            ),
            (
                format!("{start},oom_memcg=/k,task_memcg=/k.slice/k-pod1.slice/cri-containerd-{id}.scope,task=sh\n"),
                Some(id),
            ),
            (format!("3,1,2,-;Task in /kubepods/pod1/{id} killed as a result of limit of /kubepods/pod1\n"), Some(id)),
            // Somebody wrote it into the log.
            (format!("12,1,2,-;oom-kill:constraint=x,task_memcg=/kubepods/pod1/{id},task=sh\n"), None),
            (format!("{start},oom_memcg=/,task_memcg=/,task=sh\n"), None),
            ("6,1,2,-;cni0: port 1(veth1) entered disabled state\n SUBSYSTEM=net\n".to_owned(), None),
            ("nonsense".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(of(&record).as_deref(), expected, "{record}");
        }
    }

    #[test]
    fn those_that_failed_are_told_apart() {
        let mut killed = Killed::default();
        assert!(killed.add("a") && !killed.add("a"));
        for number in 0..KILLED_MAX {
            killed.add(&number.to_string());
        }
        assert_eq!(killed.0.len(), KILLED_MAX, "the oldest goes");
        let mut runtime = crate::testing::runtime(&Pod::default(), "s c=137 d=137 e=0 f=r");
        for name in ["c", "e", "f"] {
            killed.add(&runtime.newest(name).unwrap().id);
        }
        killed.tell(&mut runtime);
        let reasons = ["c", "d", "e", "f"].map(|name| runtime.newest(name).unwrap().reason.as_str());
        assert_eq!(reasons, [REASON, ERROR, "Completed", ""]);
    }
}
