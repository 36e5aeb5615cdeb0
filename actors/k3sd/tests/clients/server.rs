//! A server with a directory of its own, gone when the test ends.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::free_port;

/// Longer than a start takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Longer than a command of a transcript takes on a busy machine.
const COMMAND_LIMIT_SECONDS: &str = "100";

/// A running `k3sd server --disable-agent`.
pub(crate) struct Server {
    directory: TempDir,
    child: Child,
    port: u16,
}

impl Server {
    /// Starts one and waits until it says that it is ready.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let ready = UnixDatagram::bind(at("notify.sock")).expect("a socket");
        ready.set_read_timeout(Some(LIMIT)).expect("a limit");
        let (port, own) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_k3sd"));
        command.args(["server", "--disable-agent", "--data-dir=data", "--write-kubeconfig=admin.yaml"]);
        command.arg(format!("--https-listen-port={port}")).arg(format!("--apiserver-port={own}")).args(flags);
        // What deploys itself comes when it comes; transcripts show what clients do.
        command.args([
            "--disable=coredns,local-storage,metrics-server,runtimes,rolebindings",
            "--disable-helm-controller",
        ]);
        command.arg("--inspect-socket=inspect.sock").arg("--debug-actor-control").current_dir(directory.path());
        command.env_clear().env("NOTIFY_SOCKET", at("notify.sock")).env("HOME", directory.path());
        let log = File::create(at("log")).expect("a file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("the binary runs");
        let server = Self { directory, child, port };
        let mut state = [0; 256];
        let length = ready.recv(&mut state).unwrap_or_else(|error| panic!("{error}: {}", server.log()));
        assert!(state[..length].starts_with(b"READY=1"), "{}", server.log());
        // The first thing that a server brings along by itself; others are switched off.
        let began = Instant::now();
        while server.run("kubectl --namespace kube-system get addons.k3s.cattle.io ccm").0 != 0 {
            assert!(began.elapsed() < LIMIT, "{}", server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Runs a command in a shell, in the server's directory and with its kubeconfig. Answers its exit code and what it
    /// printed, both streams in the order of printing.
    pub(crate) fn run(&self, command: &str) -> (i32, String) {
        let mut shell = Command::new("timeout");
        shell
            .args([COMMAND_LIMIT_SECONDS, "sh", "-c"])
            .arg(format!("exec 2>&1\n{command}"))
            .current_dir(self.directory.path());
        shell.env("KUBECONFIG", self.directory.path().join("admin.yaml")).env("HOME", self.directory.path());
        shell.env("PORT", self.port.to_string()).env("K3SD", env!("CARGO_BIN_EXE_k3sd"));
        let output = shell.stdin(Stdio::null()).output().expect("a shell");
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the server logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
