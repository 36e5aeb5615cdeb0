//! A machine of a test's own, as far as a node can tell: namespaces for mounts, network and processes, a `/run` in memory,
//! and directories of the test's own for everything that a node keeps on disk. All of it goes with its first process.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use chaos_tests::daemon::binary;
use k3sd_containerd::image::{BuiltImage, busybox};
use k3sd_cri::Cri;
use k3sd_runtime::inspect::Client;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::process::Child;

/// The name of the node.
pub(crate) const NODE: &str = "one";
/// Its address.
pub(crate) const ADDRESS: &str = "10.9.0.2";
/// What all containers are made of. Its tag is none that is always pulled.
pub(crate) const IMAGE: &str = "docker.io/library/busybox:1";
/// How long anything may take before the test calls it broken; far beyond what a slow machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the machine and stays, as its first process. `$1` is the directory of what it keeps on disk.
const BOOT: &str = r#"
set -eu
ip link set lo up
ip link add n0 type veth peer name n1
ip link set n0 up
ip link set n1 up
ip addr add 10.9.0.2/24 dev n0
ip route add default via 10.9.0.1 dev n0
if [ ! -e "$1/etc" ]; then
  mkdir "$1/lib" "$1/log" "$1/etc.new"
  cp -a /etc/. "$1/etc.new"
  rm -f "$1/etc.new/resolv.conf"
  echo 'nameserver 10.9.0.1' > "$1/etc.new/resolv.conf"
  mv "$1/etc.new" "$1/etc"
fi
mount --bind "$1/etc" /etc
mount --bind "$1/lib" /var/lib
mount --bind "$1/log" /var/log
mount -t tmpfs -o mode=755 tmpfs /run
mount --make-rshared /
: > "$1/booted"
while :; do sleep 1000 & wait; done
"#;

/// See the module's page.
pub(crate) struct Machine {
    place: TempDir,
    /// Above the cgroups of its pods, in the machine's own hierarchies.
    cgroup_root: String,
    outside: std::process::Child,
    /// Its first process, by its number here.
    init: u32,
    daemon: Option<Child>,
    /// What speaks to the daemon's inspection socket.
    pub(crate) inspect: Client,
}

/// Why there can be no machine here; nothing if there can.
fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let lacks = |program: &&str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let programs =
        ["containerd", "runc", "ctr", "kubectl", "nsenter", "unshare", "setpriv", "ip", "nft", "curl", "script"];
    if let Some(program) = programs.iter().find(|program| lacks(program)) {
        return Some(format!("it needs {program}"));
    }
    if !Path::new("/bin/busybox").exists() {
        return Some("it needs busybox-static".to_owned());
    }
    let unshared = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "true"]).status();
    (!unshared.is_ok_and(|status| status.success())).then(|| "it needs the right to make namespaces".to_owned())
}

impl Machine {
    /// Makes the machine, with an image to import and nothing else on it. `None` where there can be none; says why.
    pub(crate) fn new() -> Option<Self> {
        if let Some(why) = missing() {
            println!("ignored: {why}");
            return None;
        }
        let place = TempDir::with_prefix("k3sd-node-").expect("a directory");
        let at = |name: &str| place.path().join(name);
        for folder in ["disk", "bin", "disk/data/agent/images"] {
            fs::create_dir_all(at(folder)).expect("a directory");
        }
        // Somebody may build it anew meanwhile.
        let own = at("bin/k3sd");
        if fs::hard_link(binary(), &own).is_err() {
            fs::copy(binary(), &own).expect("a copy");
        }
        // A second runtime: runc, found under the name of another.
        let runc = std::env::split_paths(&path()).map(|folder| folder.join("runc")).find(|file| file.exists());
        symlink(runc.expect("it was found before"), at("bin/crun")).expect("a link");
        let image = busybox(Path::new("/bin/busybox")).expect("an image").renamed(IMAGE);
        fs::write(at("disk/data/agent/images/busybox.tar"), BuiltImage::docker_archive(&[image])).expect("a file");
        let cgroup_root = place.path().file_name().expect("it has a name").to_string_lossy().into_owned();
        let (outside, init) = boot(place.path());
        let inspect = Client::new(at("inspect.sock"));
        Some(Self { place, cgroup_root, outside, init, daemon: None, inspect })
    }

    /// Cuts the power, and boots again with what is on disk.
    pub(crate) fn reboot(&mut self) {
        self.power_off();
        (self.outside, self.init) = boot(self.place.path());
    }

    fn power_off(&mut self) {
        self.daemon = None;
        if let Some(init) = i32::try_from(self.init).ok().and_then(Pid::from_raw) {
            kill_process(init, Signal::KILL).ok();
        }
        self.outside.wait().ok();
        for hierarchy in self.hierarchies() {
            let began = Instant::now();
            // The kernel needs a moment until the last process is gone from it.
            while hierarchy.exists() && began.elapsed() < PATIENCE {
                remove_cgroups(&hierarchy);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// A path on the machine's disk.
    pub(crate) fn disk(&self, path: &str) -> PathBuf {
        self.place.path().join("disk").join(path)
    }

    /// A path as the machine sees it.
    pub(crate) fn seen(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init)).join(path.trim_start_matches('/'))
    }

    /// Its network namespace.
    pub(crate) fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.init).into()
    }

    /// Where the cgroups of the node are, in each hierarchy; they need not be there.
    pub(crate) fn hierarchies(&self) -> Vec<PathBuf> {
        let listed = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = listed.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        folders.push("/sys/fs/cgroup".into());
        folders.into_iter().map(|folder| folder.join(&self.cgroup_root)).collect()
    }

    /// The container runtime.
    pub(crate) fn cri(&self) -> Cri {
        Cri::new(self.seen("/run/k3s/containerd/containerd.sock"))
    }

    /// Runs something on the machine.
    pub(crate) fn command(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("nsenter");
        let network = format!("--net={}", self.network().display());
        command.args(["--target", &self.init.to_string(), "--mount", &network, "--pid", "--"]).args(words);
        command.env_clear().env("PATH", path()).env("HOME", self.place.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts the daemon.
    pub(crate) fn start(&mut self) {
        let place = |name: &str| self.place.path().join(name).display().to_string();
        let log = fs::OpenOptions::new().create(true).append(true).open(place("log")).expect("a file");
        let cgroups = format!("--kubelet-arg=cgroup-root=/{}", self.cgroup_root);
        let (data, socket) = (self.disk("data").display().to_string(), place("inspect.sock"));
        let mut command = self.command(&[&place("bin/k3sd"), "server", "--config", "/dev/null", "--data-dir", &data]);
        command.args(["--inspect-socket", &socket, "--debug-actor-control", "--node-name", NODE, &cgroups]);
        // A disk that others have filled is another test.
        command.args(["--kubelet-arg=eviction-hard=memory.available<1Mi", "--kubelet-arg=image-gc-high-threshold=100"]);
        // The second runtime is found there.
        command.env("PATH", format!("{}:{}", place("bin"), path()));
        command.stdout(Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().expect("it starts"));
    }

    /// The daemon's process, by its number here.
    pub(crate) async fn daemon_pid(&mut self) -> Pid {
        let outer = self.daemon.as_ref().and_then(Child::id).expect("it was started");
        let began = Instant::now();
        loop {
            if let Some(pid) = children(outer).first().and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
                return pid;
            }
            assert!(began.elapsed() < PATIENCE, "it does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sends the daemon a signal, and waits for its end.
    pub(crate) async fn end_daemon(&mut self, signal: Signal) -> ExitStatus {
        let pid = self.daemon_pid().await;
        kill_process(pid, signal).expect("it runs");
        let mut daemon = self.daemon.take().expect("it runs");
        let ended = tokio::time::timeout(PATIENCE, daemon.wait()).await;
        ended.unwrap_or_else(|_| panic!("it does not end: {}", self.log())).expect("it is our child")
    }

    /// How the daemon ended, if it did.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut()?.try_wait().ok().flatten()
    }

    /// The processes of the machine, but those that a test runs on it: numbers here, and command lines.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        // The daemon came in from outside, and what it starts is its child until it ends.
        let mut waiting = self.daemon.as_ref().and_then(Child::id).map(children).unwrap_or_default();
        waiting.push(self.init);
        while let Some(pid) = waiting.pop() {
            waiting.extend(children(pid));
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
        }
        found
    }

    /// Those of a program, whatever folder it is in.
    pub(crate) fn running(&self, program: &str) -> Vec<u32> {
        let is_it = |line: &str| line.split(' ').next().and_then(|word| word.rsplit('/').next()) == Some(program);
        self.processes().into_iter().filter(|(_, line)| is_it(line)).map(|(pid, _)| pid).collect()
    }

    /// What daemon and engine logged last.
    pub(crate) fn log(&self) -> String {
        let last = |path: PathBuf, count: usize| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(count)..].join("\n")
        };
        let engine = last(self.disk("data/agent/containerd/containerd.log"), 20);
        format!("{}\n--- containerd\n{engine}", last(self.place.path().join("log"), 60))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.power_off();
    }
}

/// Where programs are, for everything on the machine.
fn path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())
}

/// Returns what waits for the machine, and its first process.
fn boot(place: &Path) -> (std::process::Child, u32) {
    let disk = place.join("disk");
    let marker = disk.join("booted");
    fs::remove_file(&marker).ok();
    let log = fs::File::create(place.join("boot.log")).expect("a file");
    let mut command = Command::new("setpriv");
    // It ends with this process, however this one ends.
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["sh", "-c", BOOT, "sh"]).arg(&disk).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut outside = command.spawn().expect("setpriv was found before");
    let began = Instant::now();
    loop {
        if let ([init, ..], true) = (children(outside.id()).as_slice(), marker.exists()) {
            return (outside, *init);
        }
        let is_over = began.elapsed() > PATIENCE || outside.try_wait().is_ok_and(|ended| ended.is_some());
        assert!(!is_over, "no machine: {}", fs::read_to_string(place.join("boot.log")).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The children of a process, whichever of its threads started them.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Kills what is in a cgroup and those below it, and removes them.
fn remove_cgroups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
    fs::remove_dir(path).ok();
}
