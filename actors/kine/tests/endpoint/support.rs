//! A server to test, and `etcdctl` of Debian's `etcd-client`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use k3sd_kine::{KineConfig, ListenAddress, Socket, SqliteOptions, StoreConfig, bind, metrics_tree, tree};
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Clock, Spec, Strategy, System, Tree, subtree};

/// Longer than anything takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A subtree that serves on a port of its own, and a directory for whatever it needs.
pub(crate) struct Server {
    threads: tokio::runtime::Runtime,
    pub(crate) tree: Tree,
    pub(crate) endpoint: String,
    /// The same over a unix socket.
    pub(crate) local: String,
    /// Where its numbers are.
    pub(crate) metrics: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Server {
    /// Over a file in its directory.
    pub(crate) fn start() -> Self {
        Self::over(file)
    }

    /// The same, on a socket that is prepared.
    pub(crate) fn with_socket(prepare: impl FnOnce(Socket) -> Socket) -> Self {
        Self::new(file, prepare, |socket| socket)
    }

    /// The same, with its numbers on a socket that is prepared.
    pub(crate) fn with_metrics(prepare: impl FnOnce(Socket) -> Socket) -> Self {
        Self::new(file, |socket| socket, prepare)
    }

    /// Over any store.
    pub(crate) fn over(store: impl FnOnce(&Path) -> StoreConfig) -> Self {
        Self::new(store, |socket| socket, |socket| socket)
    }

    fn new(
        store: impl FnOnce(&Path) -> StoreConfig,
        prepare: impl FnOnce(Socket) -> Socket,
        prepare_metrics: impl FnOnce(Socket) -> Socket,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let config = KineConfig::new(store(folder.path()));
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let threads = threads.expect("threads");
        let local = folder.path().join("kine.sock");
        let (tree, endpoint, metrics) = threads.block_on(async {
            let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
            let listening = bind(&address).await.expect("it listens");
            let numbers = bind(&address).await.expect("it listens");
            let name = |socket: &Socket| match socket {
                Socket::Tcp(socket) => socket.local_addr().expect("it has a name").to_string(),
                other => panic!("not what was asked for: {other:?}"),
            };
            let (endpoint, metrics) = (name(&listening), name(&numbers));
            let beside = bind(&ListenAddress::Unix(local.clone())).await.expect("it listens");
            let kine = tree(config, vec![Lend::new(prepare(listening)), Lend::new(beside)]);
            let root = Spec::new(Strategy::OneForOne)
                .child(subtree("metrics", metrics_tree(kine.metrics, Lend::new(prepare_metrics(numbers)))))
                .child(subtree("kine", kine.spec.budget(1000, LIMIT)));
            let tree = System::new(Clock::system()).start(root);
            tree.ready().await.expect("it starts");
            (tree, endpoint, metrics)
        });
        let local = format!("unix://{}", local.display());
        Self { threads, tree, endpoint, local, metrics, folder }
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.threads.block_on(work)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        etcdctl(&self.endpoint, args)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("etcdctl (Debian: etcd-client) is installed")
    }

    /// The lines of a command that succeeds.
    pub(crate) fn ok(&self, args: &[&str]) -> Vec<String> {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "etcdctl {args:?}: {said}");
        lines(&output.stdout)
    }

    /// What a command says that fails.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "etcdctl {args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The revision in the header of an answer.
    pub(crate) fn revision(&self) -> i64 {
        let json = self.ok(&["get", "nothing", "-w", "json"]).join("");
        let number = json.split("\"revision\":").nth(1).expect("a header");
        number.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
    }

    pub(crate) fn stdin(&self, args: &[&str], input: &str) -> Vec<String> {
        use std::io::Write as _;
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("etcdctl runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "etcdctl {args:?}");
        lines(&output.stdout)
    }

    /// Runs a watch in the background, with its output in a file.
    pub(crate) fn watch(&self, name: &str, args: &[&str]) -> (std::process::Child, PathBuf) {
        let path = self.folder.path().join(name);
        let file = std::fs::File::create(&path).expect("a file");
        let child = self.command(args).stdout(file).spawn().expect("etcdctl runs");
        (child, path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tree.stop();
        self.threads.block_on(self.tree.ended());
    }
}

fn file(folder: &Path) -> StoreConfig {
    let path = folder.join("state.db");
    StoreConfig::Sqlite(SqliteOptions { retained_revisions_min: 0, ..SqliteOptions::new(path) })
}

pub(crate) fn etcdctl(endpoint: &str, args: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoint}")).args(args);
    command
}

pub(crate) fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test lets a time to live pass")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
