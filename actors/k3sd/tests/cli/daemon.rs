//! Daemons that run while a test looks at them.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::ports::free_port;
use super::{Ran, Shell};

/// The least time a loaded machine may take to start or stop something. Only a failure waits that long.
const LIMIT: Duration = Duration::from_secs(60);
/// How long to wait before looking again, and how often to look.
const PAUSE: Duration = Duration::from_millis(50);
const LOOKS: u32 = 1200;

/// A running daemon, gone when the test ends.
pub(super) struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Shell {
    /// Starts `command` with a socket to look into it, and waits until it says that it is ready.
    #[track_caller]
    pub(super) fn start(&self, command: &[&str]) -> Daemon {
        self.start_by(&mut Command::new(env!("CARGO_BIN_EXE_k3sd")), command)
    }

    /// The same, when something else starts it: `by` is a command line that the daemon's is appended to.
    #[track_caller]
    pub(super) fn start_by(&self, by: &mut Command, command: &[&str]) -> Daemon {
        let notify = self.at("notify.sock");
        std::fs::remove_file(&notify).or_else(absent_is_fine).unwrap();
        let ready = UnixDatagram::bind(&notify).unwrap();
        ready.set_read_timeout(Some(LIMIT)).unwrap();
        let daemon = self.spawn_by(by, command);
        let mut state = [0; 256];
        let length = ready.recv(&mut state).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        assert!(state[..length].starts_with(b"READY=1"), "{}", self.log());
        daemon
    }

    /// Starts `command`, and waits for nothing.
    pub(super) fn spawn(&self, command: &[&str]) -> Daemon {
        self.spawn_by(&mut Command::new(env!("CARGO_BIN_EXE_k3sd")), command)
    }

    fn spawn_by(&self, by: &mut Command, command: &[&str]) -> Daemon {
        let socket = self.at("inspect.sock");
        let log = std::fs::File::create(self.at("log")).unwrap();
        by.args(command).arg("--inspect-socket").arg(&socket).arg("--debug-actor-control");
        if command.first() == Some(&"server") {
            // Tests run side by side.
            by.arg(format!("--https-listen-port={}", free_port())).arg(format!("--apiserver-port={}", free_port()));
        }
        by.env_clear().envs(&self.variables).env("NOTIFY_SOCKET", self.at("notify.sock"));
        by.current_dir(self.directory.path());
        let child = by.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Daemon { child, socket }
    }

    /// What the last daemon logged so far.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap()
    }
}

/// Waits until something is so.
#[track_caller]
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if is_so() {
            return;
        }
        Command::new("sleep").arg(PAUSE.as_secs_f64().to_string()).status().unwrap();
    }
    panic!("never came: {what}");
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

impl Daemon {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs `k3sd actors ...` against it.
    #[track_caller]
    pub(super) fn actors(&self, shell: &Shell, command: &[&str]) -> String {
        let socket = self.socket.display().to_string();
        let Ran { code, out, err } = shell.run(&[&["actors"], command, &["--inspect-socket", &socket]].concat());
        assert_eq!(code, 0, "{command:?}: {err}");
        out
    }

    /// Sends a signal to `pid`, which is its own or that of one it started, and waits for the end.
    pub(super) fn end_with(mut self, signal: Signal, pid: u32) -> ExitStatus {
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
