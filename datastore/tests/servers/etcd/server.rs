//! An etcd member with a directory, ports and certificates of its own, and clusters of them.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use k3sd_datastore::EtcdTls;
use tempfile::TempDir;

use crate::process::run;

/// Memory, where the machine has it as files: these tests are not about the disk.
const FAST: &str = "/dev/shm";

/// Where to look for ports: below those that the kernel gives to outgoing connections, which would take the place of a
/// member while it is away.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
static PORTS_TRIED: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on, and that nobody is given by chance.
pub(crate) fn quiet_port() -> Result<u16, String> {
    let first = std::process::id().wrapping_mul(97);
    for _ in PORTS {
        let number = first.wrapping_add(u32::from(PORTS_TRIED.fetch_add(1, Ordering::Relaxed)));
        let port = PORTS.start + u16::try_from(number % u32::from(PORTS.end - PORTS.start)).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".to_owned())
}

/// The name of a socket, which etcd wants to look like a host and a port.
const SOCKET: &str = "client:1";

/// How the members of a cluster are to be.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup {
    pub(crate) members: usize,
    pub(crate) tls: bool,
    /// A socket beside the port.
    pub(crate) unix: bool,
    pub(crate) quota_bytes: Option<u64>,
}

impl Setup {
    pub(crate) fn single() -> Self {
        Self { members: 1, ..Self::default() }
    }
}

pub(crate) struct EtcdCluster {
    members: Vec<Member>,
    directory: TempDir,
    setup: Setup,
}

struct Member {
    child: Option<Child>,
    client: u16,
    peer: u16,
}

/// Whether there is anything to run, or why not.
pub(crate) fn available() -> Result<(), String> {
    let missing = |error| format!("no etcd is installed (package etcd-server): {error}");
    run(Command::new("etcd").arg("--version")).map_err(missing)?;
    run(Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3"))
        .map_err(|error| format!("no etcdctl is installed (package etcd-client): {error}"))
}

impl EtcdCluster {
    /// Starts all members. They may take a moment until they answer.
    pub(crate) fn start(setup: Setup) -> Result<Self, String> {
        let directory = if Path::new(FAST).is_dir() { TempDir::new_in(FAST) } else { TempDir::new() };
        let directory = directory.map_err(|error| format!("no directory: {error}"))?;
        let mut members = Vec::new();
        for _ in 0..setup.members {
            members.push(Member { child: None, client: quiet_port()?, peer: quiet_port()? });
        }
        let mut cluster = Self { members, directory, setup };
        if setup.tls {
            cluster.certify()?;
        }
        for member in 0..setup.members {
            cluster.resume(member);
        }
        Ok(cluster)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An authority, a certificate of it for this host and one for a client; and an authority of strangers.
    fn certify(&self) -> Result<(), String> {
        let path = |name: &str| self.path(name).display().to_string();
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        for authority in ["ca", "stranger"] {
            let (key, certificate) = (path(&format!("{authority}.key")), path(&format!("{authority}.crt")));
            let subject = format!("/CN={authority}");
            run(Command::new("openssl").args(new).args(["-subj", &subject, "-keyout", &key, "-out", &certificate]))?;
        }
        for (name, usage) in [("server", "serverAuth,clientAuth"), ("client", "clientAuth")] {
            let (key, certificate) = (path(&format!("{name}.key")), path(&format!("{name}.crt")));
            let mut leaf = Command::new("openssl");
            leaf.args(new).args(["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &certificate]);
            leaf.args(["-CA", &path("ca.crt"), "-CAkey", &path("ca.key")]);
            leaf.args([
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                &format!("extendedKeyUsage={usage}"),
            ]);
            run(leaf.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]))?;
        }
        Ok(())
    }

    /// What a client that is let in has.
    pub(crate) fn tls(&self) -> EtcdTls {
        if !self.setup.tls {
            return EtcdTls::default();
        }
        let file = |name| Some(self.path(name));
        EtcdTls { ca: file("ca.crt"), cert: file("client.crt"), key: file("client.key"), skip_verify: false }
    }

    fn scheme(&self) -> &'static str {
        if self.setup.tls { "https" } else { "http" }
    }

    pub(crate) fn endpoint(&self, member: usize) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.members[member].client)
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.endpoint(member)).collect()
    }

    /// Where the socket is.
    pub(crate) fn socket(&self) -> String {
        format!("unix://{}", self.path(SOCKET).display())
    }

    fn data(&self, member: usize) -> PathBuf {
        self.path(&format!("member-{member}"))
    }

    /// Starts a member on what is there.
    pub(crate) fn resume(&mut self, member: usize) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log file");
        let peer = |member: &Member| format!("http://127.0.0.1:{}", member.peer);
        let names = self.members.iter().enumerate().map(|(number, member)| format!("m{number}={}", peer(member)));
        let names = names.collect::<Vec<_>>().join(",");
        let (client, own) = (self.endpoint(member), peer(&self.members[member]));
        let mut listen = client.clone();
        if self.setup.unix {
            listen = format!("{listen},unix://{SOCKET}");
        }
        let mut command = Command::new("etcd");
        command
            .current_dir(self.directory.path())
            .arg("--data-dir")
            .arg(self.data(member))
            .args(["--name", &format!("m{member}")]);
        command.args(["--listen-client-urls", &listen, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &own, "--initial-advertise-peer-urls", &own, "--initial-cluster", &names]);
        // Alone, a member elects itself at once. Several need some time for each other on a busy machine.
        let (heartbeat, election) = if self.members.len() == 1 { ("10", "100") } else { ("50", "500") };
        command.args(["--heartbeat-interval", heartbeat, "--election-timeout", election, "--log-level", "error"]);
        if let Some(bytes) = self.setup.quota_bytes {
            command.arg(format!("--quota-backend-bytes={bytes}"));
        }
        if self.setup.tls {
            command.arg("--client-cert-auth");
            for (flag, file) in [("trusted-ca-file", "ca.crt"), ("cert-file", "server.crt"), ("key-file", "server.key")]
            {
                command.arg(format!("--{flag}={}", self.path(file).display()));
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.members[member].child = Some(command.spawn().expect("etcd starts"));
    }

    /// Ends a member at once: what it finds later is what it had written down.
    pub(crate) fn kill(&mut self, member: usize) {
        let Some(mut child) = self.members[member].child.take() else { return };
        if let Err(error) = child.kill().and_then(|()| child.wait()) {
            println!("etcd could not be ended: {error}");
        }
    }

    /// Stops a member where it is, or lets it go on. What talks to it notices nothing but silence.
    pub(crate) fn freeze(&self, member: usize, frozen: bool) {
        let child = self.members[member].child.as_ref().expect("it runs");
        let signal = if frozen { "-STOP" } else { "-CONT" };
        run(Command::new("kill").args([signal, &child.id().to_string()])).expect("a signal");
    }

    /// Takes from a member that does not run what it knows.
    pub(crate) fn wipe(&self, member: usize) {
        fs::remove_dir_all(self.data(member)).expect("the data of a member");
    }

    /// Runs etcd's own client. Answers with what it printed.
    pub(crate) fn etcdctl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoints().join(",")]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("etcdctl: {error}"))?;
        // Dropping the pipe ends the input.
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).map_err(|error| error.to_string())?;
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Which member leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        let status = self.etcdctl(&["endpoint", "status"], "").ok()?;
        status.lines().position(|line| line.split(", ").nth(4) == Some("true"))
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
        }
    }
}
