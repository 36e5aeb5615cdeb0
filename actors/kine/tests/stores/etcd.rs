//! An etcd with a directory and ports of its own.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process::free_port;

pub(crate) struct EtcdServer {
    child: Child,
    _directory: TempDir,
    pub(crate) endpoint: String,
}

impl EtcdServer {
    /// Starts one, or says why it can't.
    pub(crate) fn start() -> Result<Self, String> {
        let directory = TempDir::new().map_err(|error| format!("no directory: {error}"))?;
        let [endpoint, peer] = [free_port()?, free_port()?].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(directory.path().join("data"));
        for flag in ["--listen-client-urls", "--advertise-client-urls"] {
            command.args([flag, &endpoint]);
        }
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            command.args([flag, &peer]);
        }
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("etcd (package etcd-server): {error}"))?;
        Ok(Self { child, _directory: directory, endpoint })
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}
