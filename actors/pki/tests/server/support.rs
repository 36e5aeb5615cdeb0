//! A subtree over a directory of its own, and `openssl` of Debian's package.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k3sd_pki::{
    AdminKubeconfig, Certificates, NameFilter, PkiConfig, San, ServerNames, ServingHandle, TokenConfig, tree,
};
use k3sd_runtime::{Clock, Spec, Strategy, System, Tree, subtree};

/// A server that was started.
pub(crate) struct Server {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) tree: Tree,
    pub(crate) system: System,
    pub(crate) certificates: Certificates,
    pub(crate) serving: ServingHandle,
}

/// What the listener's certificate may learn here.
fn allowed(name: &San) -> bool {
    match name {
        San::Dns(name) => name.ends_with(".allowed.example"),
        San::Ip(address) => address.is_ipv4(),
    }
}

/// What a server in this directory is told.
pub(crate) fn config(folder: &Path) -> PkiConfig {
    PkiConfig {
        server_dir: folder.join("server"),
        names: ServerNames {
            node_name: "one.example".to_owned(),
            tls_sans: vec!["k3s.example".to_owned(), "*.wild.example".to_owned()],
            node_addresses: vec!["192.0.2.7".parse().expect("an address")],
            service_addresses: vec!["10.43.0.1".parse().expect("an address")],
            ..ServerNames::default()
        },
        etcd: true,
        api_url: "https://127.0.0.1:6444".to_owned(),
        admin: Some(AdminKubeconfig {
            default_path: folder.join("etc/k3s.yaml"),
            output: None,
            mode: 0o600,
            group: None,
            name: "default".to_owned(),
            url: "https://127.0.0.1:6443".to_owned(),
        }),
        tokens: TokenConfig::default(),
        node: None,
    }
}

impl Server {
    /// In an empty directory.
    pub(crate) async fn start(clock: Clock) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let config = config(folder.path());
        Self::with(folder, config, clock).await
    }

    /// In a directory in which something may be already.
    pub(crate) async fn with(folder: tempfile::TempDir, config: PkiConfig, clock: Clock) -> Self {
        let pki = tree(config, NameFilter::new(allowed));
        let system = System::new(clock);
        let tree = system.start(Spec::new(Strategy::OneForOne).child(subtree("pki", pki.spec)));
        tree.ready().await.expect("it starts");
        let serving = pki.serving.at(&system, "pki").expect("it is the one");
        Self { folder, tree, system, certificates: pki.certificates, serving }
    }

    /// Ends it. What it wrote is there until the directory is dropped.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.tree.stop();
        assert!(self.tree.ended().await.is_clean());
        self.folder
    }

    /// A file below `tls/`.
    pub(crate) fn tls(&self, name: &str) -> PathBuf {
        self.folder.path().join("server/tls").join(name)
    }

    /// A file below the server's directory, as text.
    pub(crate) fn text(&self, name: &str) -> String {
        let path = self.folder.path().join("server").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Keeps a paused clock from jumping ahead by itself, as long as it lives. The clock jumps when all tasks wait, and does
/// not know of the threads that write files.
pub(crate) struct HeldClock {
    _end: std::sync::mpsc::Sender<()>,
}

impl HeldClock {
    /// Holds it.
    #[expect(clippy::disallowed_methods, reason = "a job in tokio's own pool is what holds its clock")]
    pub(crate) fn hold() -> Self {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || ended.recv().is_err());
        Self { _end: end }
    }

    /// Lets time pass in small steps until something has happened: a supervisor has waited out its pause, and a thread,
    /// which takes real time, is done.
    pub(crate) async fn until<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                () = self.pass(Duration::from_millis(10)) => {}
            }
        }
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

/// What a command prints that succeeds.
pub(crate) fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().expect("openssl (Debian: openssl) is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "openssl {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}
