//! Processes: found in `/proc`, started, watched and ended by descriptors, so that a number that was used again is never
//! mistaken.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::core::{Found, Launch, MARK, is_engine, variable};
use crate::error::ContainerdError;

/// The engines that run with this configuration file.
pub(crate) fn find(config_file: &Path) -> Result<Vec<Found>, ContainerdError> {
    let listed = fs::read_dir("/proc").map_err(|error| ContainerdError::file("list", "/proc", error))?;
    let mut found = Vec::new();
    for entry in listed.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that ends meanwhile can't be read, and a zombie has no command line.
        let Ok(command_line) = fs::read(entry.path().join("cmdline")) else { continue };
        if !is_engine(&command_line, config_file) {
            continue;
        }
        let mark = fs::read(entry.path().join("environ")).ok().and_then(|environ| variable(&environ, MARK));
        let program = fs::read_link(entry.path().join("exe")).ok().filter(|program| program.exists());
        found.push(Found { pid, program, mark });
    }
    Ok(found)
}

/// A process that can be waited for.
#[derive(Debug)]
pub(crate) struct Process {
    pub pid: u32,
    fd: OwnedFd,
}

impl Process {
    /// The process of this number, if it is there.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, fd: pidfd_open(id, PidfdFlags::NONBLOCK)? })
    }

    /// A descriptor that becomes readable when the process has ended.
    pub(crate) fn watch(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Sends a signal; a process that has ended takes none, which is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.fd, signal).ok();
    }

    /// Waits for its end, at most so long. `true` when it has ended.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut polled = [PollFd::new(&self.fd, PollFlags::IN)];
        matches!(poll(&mut polled, Some(&limit)), Ok(ready) if ready > 0)
    }

    /// Takes the entry of a child that has ended out of the process table. Somebody else's child has no entry here.
    pub(crate) fn reap(&self) {
        waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
    }
}

/// Ends a process: asked first, then by force.
pub(crate) fn end(process: &Process, patience: Duration) {
    process.signal(Signal::TERM);
    if !process.wait(patience) {
        tracing::warn!(pid = process.pid, "containerd does not stop; it is killed");
        process.signal(Signal::KILL);
        process.wait(patience);
    }
    process.reap();
}

/// Starts an engine that outlives us: in a process group of its own, with a file and not a pipe for what it writes.
pub(crate) fn start(launch: &Launch, log_file: &Path) -> Result<Process, ContainerdError> {
    let opened = OpenOptions::new().create(true).append(true).open(log_file);
    let log = opened.map_err(|error| ContainerdError::file("open", log_file, error))?;
    let second = log.try_clone().map_err(|error| ContainerdError::file("open", log_file, error))?;
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).env_clear().envs(launch.environment.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(log).stderr(second).current_dir("/").process_group(0);
    let failed = |source| ContainerdError::Start { program: launch.program.clone(), source };
    let child = command.spawn().map_err(failed)?;
    // The child is our own and not reaped yet, so the number is still its.
    Process::open(child.id()).map_err(failed)
}
