//! The two servers, each a process of its own over a fresh directory on the same file system.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Failure;
use crate::client::{Client, RANGE};
use crate::wire::{Range, framed};

/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(30);
const START_LOOK: Duration = Duration::from_millis(20);
/// How much etcd may store: its usual 2 GiB would end the longer measurements.
const ETCD_QUOTA_BYTES: u64 = 8 << 30;

/// Linux tells times in hundredths of a second.
const MICROS_PER_TICK: u64 = 10_000;

/// What a process has spent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) cpu_micros: u64,
    pub(crate) written_bytes: u64,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Etcd,
}

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The release build of `k3sd`.
    pub(crate) binary: PathBuf,
    /// Where the directories of the servers are made.
    pub(crate) directory: PathBuf,
}

/// A running server. Dropping it kills the process and removes what it stored.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(kind: Kind, setting: &Setting) -> Result<Self, Failure> {
        let directory = tempfile::tempdir_in(&setting.directory)?;
        let (address, peer) = (free_address()?, free_address()?);
        let mut command = match kind {
            Kind::Ours => ours(&setting.binary, directory.path(), address),
            Kind::Etcd => etcd(directory.path(), address, peer),
        };
        let log = fs::File::create(directory.path().join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.map_err(|error| format!("failed to start {:?}: {error}", command.get_program()))?;
        let mut server = Self { kind, child, address, directory };
        let answered = tokio::time::timeout(START_LIMIT, server.answers()).await;
        match answered {
            Ok(Ok(())) => Ok(server),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(format!("{kind:?} does not answer; it says: {}", server.log()).into()),
        }
    }

    /// Both of them, ours first.
    pub(crate) async fn both(setting: &Setting) -> Result<[Self; 2], Failure> {
        Ok([Self::start(Kind::Ours, setting).await?, Self::start(Kind::Etcd, setting).await?])
    }

    async fn answers(&mut self) -> Result<(), Failure> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{:?} ended with {status}; it says: {}", self.kind, self.log()).into());
            }
            if let Ok(mut client) = self.connect().await {
                let question = framed(&Range { key: "/".into(), ..Range::default() });
                if client.call(RANGE, question, |_| ()).await.is_ok() {
                    return Ok(());
                }
            }
            tokio::time::sleep(START_LOOK).await;
        }
    }

    /// Opens a connection to it.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.address).await?)
    }

    /// Opens so many.
    pub(crate) async fn connect_many(&self, connections: usize) -> Result<Vec<Client>, Failure> {
        let mut opened = Vec::new();
        for _ in 0..connections {
            opened.push(self.connect().await?);
        }
        Ok(opened)
    }

    /// What the process has in memory, files that it has mapped included.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// What the process has spent: time of all its threads, and bytes that it has had written to the disk.
    pub(crate) fn spent(&self) -> Result<Spent, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which may hold anything, fields 12 and 13 are ticks as a user and in the kernel.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let io = fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap_or_default();
        Ok(Spent { cpu_micros: ticks * MICROS_PER_TICK, written_bytes: written.parse()? })
    }

    /// How long our database file and its log are.
    pub(crate) fn file_bytes(&self) -> (u64, u64) {
        let length = |name| fs::metadata(self.directory.path().join(name)).map_or(0, |meta| meta.len());
        (length("state.db"), length("state.db-wal"))
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already; its directory goes next.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn ours(binary: &Path, directory: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(binary);
    command
        .arg("kine")
        .arg("--endpoint")
        .arg(format!("sqlite://{}", directory.join("state.db").display()))
        .arg("--listen-address")
        .arg(format!("tcp://{address}"))
        .arg("--inspect-socket")
        .arg(directory.join("inspect.sock"));
    command
}

fn etcd(directory: &Path, address: SocketAddr, peer: SocketAddr) -> Command {
    let mut command = Command::new("etcd");
    command
        .args(["--name", "bench", "--log-level", "error"])
        .arg("--data-dir")
        .arg(directory.join("data"))
        .arg("--quota-backend-bytes")
        .arg(ETCD_QUOTA_BYTES.to_string())
        .arg("--listen-client-urls")
        .arg(format!("http://{address}"))
        .arg("--advertise-client-urls")
        .arg(format!("http://{address}"))
        .arg("--listen-peer-urls")
        .arg(format!("http://{peer}"))
        .arg("--initial-advertise-peer-urls")
        .arg(format!("http://{peer}"))
        .arg("--initial-cluster")
        .arg(format!("bench=http://{peer}"));
    command
}

/// A port that nobody has this moment.
fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
