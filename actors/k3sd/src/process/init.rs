//! Being the first process, as in a container without an init of its own.
//!
//! The kernel hands every orphan to the first process, which has to wait for its end, or the dead fill the process
//! table. A program that does so for all its children takes the ends of those that it started for a purpose away from
//! whoever waits for them. So the first process does nothing else: it starts the program once more, as a child, passes
//! signals on to it, and goes when it goes.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};

use crate::cli::Environment;
use crate::process::hide;

/// What is passed on. All others the kernel keeps from a first process, or nobody sends.
const PASSED_ON: [Signal; 6] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
/// Added to the number of the signal that ended the program, as shells do.
const KILLED_BY: u8 = 128;

/// Whether this process is the first one of its machine or container.
#[must_use]
pub fn is_first(environment: &Environment) -> bool {
    environment.pid == 1
}

/// Starts the program as a child, and waits for it and for every orphan. `title` is the child's only visible argument,
/// if the others are to be hidden.
///
/// # Errors
/// When the child can't be started, or signals can't be waited for.
pub fn run(environment: &Environment, title: Option<&str>) -> io::Result<ExitCode> {
    let waits = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    waits.block_on(async {
        // Before the child is there, so that no signal is missed.
        let mut deaths = signal(SignalKind::child())?;
        let mut wishes = PASSED_ON.map(|passed| (passed, signal(SignalKind::from_raw(passed.as_raw()))));
        let child = start(environment, title)?;
        loop {
            if let Some(code) = reap(child)? {
                return Ok(code);
            }
            tokio::select! {
                _ = deaths.recv() => {}
                passed = next(&mut wishes) => {
                    // Gone already is as good: the next turn notices.
                    kill_process(child, passed).ok();
                }
            }
        }
    })
}

fn start(environment: &Environment, title: Option<&str>) -> io::Result<Pid> {
    let (mut command, _arguments) = match (title, &environment.exe) {
        (Some(title), _) => hide::again(environment, title).map(|(command, file)| (command, Some(file)))?,
        (None, Some(exe)) => {
            let mut command = Command::new(exe);
            command.arg0(&environment.argv0).args(&environment.args);
            (command, None)
        }
        (None, None) => return Err(io::Error::other("the program's own file is not known; is /proc there?")),
    };
    // In a group of its own: what a terminal sends to ours reaches it through us, and not twice.
    let child = command.process_group(0).spawn()?;
    Ok(Pid::from_child(&child))
}

/// Waits for the next signal that is to be passed on. One that can't be waited for never comes.
async fn next(wishes: &mut [(Signal, io::Result<Arrivals>); PASSED_ON.len()]) -> Signal {
    let arrivals = wishes.iter_mut().filter_map(|(passed, arrivals)| {
        let (passed, arrivals) = (*passed, arrivals.as_mut().ok()?);
        Some(async move { arrivals.recv().await.map(|()| passed) }.boxed_local())
    });
    match select_all(arrivals).await.0 {
        Some(passed) => passed,
        None => std::future::pending().await,
    }
}

/// Takes note of everybody who has died. Returns how the program ended, if it did.
fn reap(child: Pid) -> io::Result<Option<ExitCode>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((dead, status))) if dead == child => return Ok(Some(code(status))),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn code(status: WaitStatus) -> ExitCode {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    let killed = status.terminating_signal().map(|number| KILLED_BY.saturating_add(byte(number)));
    ExitCode::from(killed.or(status.exit_status().map(byte)).unwrap_or(u8::MAX))
}
