//! A `k3sd` process of a test's own: own data directory, own socket, gone when the test ends.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k3sd_runtime::inspect::Client;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::etcd::Endpoint;
use crate::ports::free_port;

/// How long anything may take before the test calls it broken; far beyond what a slow machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

const METRICS_FLAG: &str = "--metrics-bind-address=";

/// See the module's page.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    directory: TempDir,
    /// Everything on its command line.
    arguments: Vec<OsString>,
    /// What speaks to its inspection socket.
    pub client: Client,
}

/// What the process holds, by the kernel's own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory that is not backed by files, in bytes.
    pub memory: usize,
}

impl Holdings {
    /// What a process holds now.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let count = |name| fs::read_dir(process.join(name)).expect("it runs").count();
        let status = fs::read_to_string(process.join("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel tells");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        Self { descriptors: count("fd"), threads: count("task"), memory: kib * 1024 }
    }
}

/// The binary under test: `K3SD_BINARY`, or one that cargo builds now, so that it is never an old one.
///
/// # Panics
/// When there is none: a scenario without its subject must not pass.
#[must_use]
pub fn binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = std::env::var_os("K3SD_BINARY") {
        return path.into();
    }
    BUILT.get_or_init(build).clone()
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = std::process::Command::new(cargo).args(["build", "--quiet", "-p", "k3sd"]).status();
    assert!(built.expect("cargo runs").success(), "k3sd does not build");
    let mut path = std::env::current_exe().expect("a running test has a path");
    path.pop(); // deps
    path.pop();
    path.push("k3sd");
    assert!(path.exists(), "{} is missing; set K3SD_BINARY", path.display());
    path
}

impl Daemon {
    /// Starts `k3sd server --disable-agent` with these arguments, and waits until its tree is up.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let own = ["server", "--disable-agent", "--config", "/dev/null", "--data-dir"];
        let mut words: Vec<OsString> = own.map(OsString::from).into();
        words.push(data(directory.path()).into());
        // Tests run side by side.
        words.push(format!("--https-listen-port={}", free_port()).into());
        words.push(format!("--apiserver-port={}", free_port()).into());
        words.extend(arguments.iter().map(OsString::from));
        Self::start_in(directory, words).await
    }

    /// Starts `k3sd kine` for clients on [`Daemon::endpoint`], and waits until its tree is up. The database is the one
    /// of this name, or a file in its directory.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_kine(directory: TempDir, database: Option<&str>, arguments: &[&str]) -> Self {
        let own = format!("sqlite://{}", database_file(directory.path()).display());
        let listen = format!("unix://{}", kine_socket(directory.path()).display());
        let mut words: Vec<OsString> = vec!["kine".into(), "--endpoint".into(), database.unwrap_or(&own).into()];
        words.extend(["--listen-address".into(), listen.into(), "--debug-actor-control".into()]);
        // The usual port belongs to whoever comes first, and who finds it taken does without.
        words.push(format!("{METRICS_FLAG}127.0.0.1:{}", free_port()).into());
        words.extend(arguments.iter().map(OsString::from));
        Self::start_in(directory, words).await
    }

    /// Starts again where it has ended, with what it left behind and the same arguments. What it had logged is gone then.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_again(&mut self) {
        self.child = spawn(self.directory.path(), &self.arguments);
        self.wait_until_ready().await;
    }

    async fn start_in(directory: TempDir, arguments: Vec<OsString>) -> Self {
        let child = spawn(directory.path(), &arguments);
        let client = Client::new(inspect_socket(directory.path()));
        let mut daemon = Self { child, directory, arguments, client };
        daemon.wait_until_ready().await;
        daemon
    }

    async fn wait_until_ready(&mut self) {
        let began = Instant::now();
        while !self.is_ready().await {
            if let Some(status) = self.has_ended() {
                panic!("it ended with {status}: {}", self.log());
            }
            assert!(began.elapsed() < PATIENCE, "it does not come up: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts again where it has ended, and waits until it ends by itself: it can't do its work. Returns what it logged.
    ///
    /// # Panics
    /// When it goes on, or ends as if all were well.
    pub async fn start_in_vain(&mut self) -> String {
        self.child = spawn(self.directory.path(), &self.arguments);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it goes on: {}", self.log())).expect("it is our child");
        assert!(!status.success(), "it ended with {status}: {}", self.log());
        self.log()
    }

    /// How it ended, if it did.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Where the clients of its datastore find it.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(kine_socket(self.directory.path()))
    }

    /// Where `k3sd kine` shows its numbers.
    ///
    /// # Panics
    /// When it is a server.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        let given = self.arguments.iter().find_map(|word| word.to_str()?.strip_prefix(METRICS_FLAG)?.parse().ok());
        given.expect("an address for metrics")
    }

    /// Where a server keeps its certificates and keys.
    #[must_use]
    pub fn tls_directory(&self) -> PathBuf {
        data(self.directory.path()).join("server/tls")
    }

    /// The file of its datastore, when that is a file.
    #[must_use]
    pub fn database_file(&self) -> PathBuf {
        database_file(self.directory.path())
    }

    /// Whether every actor of its tree is up.
    async fn is_ready(&self) -> bool {
        // The log says it, once; before that a tree that answers may still be growing.
        self.log().contains(" ready ") && self.client.tree().await.is_ok()
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(log_file(self.directory.path())).unwrap_or_default()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it has ended and was waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Where its inspection socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.client.path().to_owned()
    }

    /// What it holds now.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        Holdings::of(self.pid())
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it has ended and was waited for.
    pub fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a pid fits");
        kill_process(pid, signal).expect("it runs");
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Panics
    /// When it outlives [`PATIENCE`].
    pub async fn end_with(&mut self, signal: Signal) -> ExitStatus {
        self.send(signal);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it does not end: {}", self.log())).expect("it is our child")
    }
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn kine_socket(directory: &Path) -> PathBuf {
    directory.join("kine.sock")
}

fn database_file(directory: &Path) -> PathBuf {
    directory.join("db/state.db")
}

fn inspect_socket(directory: &Path) -> PathBuf {
    directory.join("inspect.sock")
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("log")
}

fn spawn(directory: &Path, arguments: &[OsString]) -> Child {
    let log = fs::File::create(log_file(directory)).expect("there is room for a log");
    Command::new(binary())
        .args(arguments)
        .arg("--inspect-socket")
        .arg(inspect_socket(directory))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts")
}
