//! The servers under measurement, each a process of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::client::{Client, credentials};

/// How long a server may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often it is asked.
const START_LOOK: Duration = Duration::from_millis(5);

/// Linux tells times in hundredths of a second.
const MICROS_PER_TICK: u64 = 10_000;

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The release build of `k3sd`.
    pub(crate) binary: PathBuf,
    /// Where the directories of the servers are made.
    pub(crate) directory: PathBuf,
}

/// A running `k3sd server`. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    tls: PathBuf,
    log: PathBuf,
    /// From the start of the process to the first good answer of `/readyz`.
    pub(crate) took: Duration,
    /// Removed with the server, unless somebody else has it.
    _directory: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one over a fresh directory, and waits until it is ready.
    pub(crate) async fn start(setting: &Setting) -> Result<Self, Failure> {
        let directory = tempfile::tempdir_in(&setting.directory)?;
        let mut server = Self::start_in(setting, directory.path()).await?;
        server._directory = Some(directory);
        Ok(server)
    }

    /// Starts one over a directory of the caller's.
    pub(crate) async fn start_in(setting: &Setting, directory: &Path) -> Result<Self, Failure> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
        let (address, own) = (free()?, free()?);
        let (log, data) = (directory.join("log"), directory.join("data"));
        let mut command = Command::new(&setting.binary);
        command.args(["server", "--disable-agent", "--bind-address=127.0.0.1", "--advertise-address=192.0.2.2"]);
        command.arg(format!("--https-listen-port={}", address.port())).arg(format!("--apiserver-port={}", own.port()));
        // The bars are those of the API server; who acts on what is in it would have things of its own to do.
        command.args(["--disable-controller-manager", "--disable-cloud-controller", "--disable-scheduler"]);
        command.args(["--disable-helm-controller", "--disable=coredns,local-storage,metrics-server,servicelb"]);
        command.arg("--data-dir").arg(&data).arg("--write-kubeconfig").arg(directory.join("admin.yaml"));
        command.arg("--inspect-socket").arg(directory.join("inspect.sock"));
        let file = fs::File::create(&log)?;
        let begun = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        let tls = data.join("server/tls");
        let mut server = Self { child, address, tls, log, took: Duration::ZERO, _directory: None };
        while !server.is_ready().await {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server ended with {status}; it says: {}", server.says()).into());
            }
            if begun.elapsed() > START_LIMIT {
                return Err(format!("the server does not get ready; it says: {}", server.says()).into());
            }
            tokio::time::sleep(START_LOOK).await;
        }
        server.took = begun.elapsed();
        Ok(server)
    }

    async fn is_ready(&self) -> bool {
        let Ok(client) = self.connect(1).await else { return false };
        client.call(http::Method::GET, "/readyz", None).await.is_ok()
    }

    /// Opens connections to it, as the administrator.
    pub(crate) async fn connect(&self, connections: usize) -> Result<Client, Failure> {
        Client::connect(self.address, &credentials(&self.tls)?, connections).await
    }

    /// Starts a bare server that answers with `body`, and opens connections to it.
    pub(crate) async fn bare(&self, body: &[u8], connections: usize) -> Result<(Bare, Client), Failure> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), body)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare").arg(&self.tls).arg(file.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("piped")?).read_line(&mut address)?;
        let bare = Bare(child);
        let client = Client::connect(address.trim().parse()?, &credentials(&self.tls)?, connections).await?;
        Ok((bare, client))
    }

    /// Resident memory now, and the most there ever was.
    pub(crate) fn resident_bytes(&self) -> Result<(u64, u64), Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| -> Result<u64, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Forgets the most memory that there ever was.
    pub(crate) fn forget_peak(&self) -> Result<(), Failure> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    /// The processor time that all its threads have taken, in microseconds.
    pub(crate) fn cpu_micros(&self) -> Result<u64, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which may hold anything, fields 12 and 13 are ticks as a user and in the kernel.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(ticks * MICROS_PER_TICK)
    }

    fn says(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A running peer.
#[derive(Debug)]
pub(crate) struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        // It may be gone already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
