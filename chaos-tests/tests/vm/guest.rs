//! A virtual machine of a test's own: QEMU with a disk that forgets what is written to it, and SSH as the way in. It and
//! everything around it ends with the test.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use chaos_tests::daemon::binary;
use k3sd_containerd::image::{BuiltImage, busybox};
use tempfile::TempDir;

/// The name of the machine, and of its node.
pub(crate) const NODE: &str = "vm";
/// Its address.
pub(crate) const ADDRESS: &str = "10.0.2.15";
/// What all containers are made of. Its tag is none that is always pulled.
pub(crate) const IMAGE: &str = "docker.io/library/busybox:1";
/// How long anything may take before the test calls it broken. Without help of the processor everything takes ten to thirty
/// times as long as outside.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// How long between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// Where the files that a test brings are.
const FILES: &str = "/files";
/// Of these, with some room for the file system: the binary is much the largest.
const FILES_SPARE_MIB: u64 = 32;
/// The kernel speaks to the console, and keeps nothing back for attacks that nobody makes here.
const KERNEL: &str = "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1 mitigations=off nokaslr audit=0";

/// See the module's page.
pub(crate) struct Guest {
    place: TempDir,
    qemu: Child,
    /// The connection that all commands go through.
    master: Option<Child>,
    port: u16,
    api_port: u16,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Guest {
    /// Boots a fresh machine, with the binary, `install.sh` and an image on it, and nothing installed. `None` where no machine
    /// was made; says so.
    pub(crate) fn boot() -> Option<Self> {
        let Some(machine) = std::env::var_os("K3SD_VM").map(PathBuf::from) else {
            println!("ignored: needs a virtual machine, which ./test.sh --vm makes");
            return None;
        };
        let began = Instant::now();
        let place = TempDir::with_prefix("k3sd-vm-").expect("a directory");
        let files = files(place.path());
        let (port, api_port) = (free_port(), free_port());
        let accelerator = if is_accelerated() { "kvm" } else { "tcg,thread=multi,tb-size=1024" };
        let file = |name: &str| machine.join(name).display().to_string();
        // It ends with this thread, which is the test's.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", accelerator, "-cpu", "max"]);
        command.args(["-smp", "2", "-m", "3072", "-nodefaults", "-display", "none", "-device", "virtio-rng-pci"]);
        command.args(["-kernel", &file("vmlinuz"), "-initrd", &file("initrd.img"), "-append", KERNEL]);
        command.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", file("disk")));
        command.arg("-drive").arg(format!("file={},format=raw,if=virtio,readonly=on", files.display()));
        // It reaches nobody, and nobody reaches it but through this port.
        command.arg("-netdev").arg(format!("user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"));
        command.args(["-device", "virtio-net-pci,netdev=n,romfile="]);
        command.arg("-serial").arg(format!("file:{}", place.path().join("console").display()));
        // Where the disk keeps what is written to it, without a name.
        command.env("TMPDIR", place.path());
        let log = fs::File::create(place.path().join("qemu.log")).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let qemu = command.spawn().expect("setpriv starts");
        let mut guest = Self { place, qemu, master: None, port, api_port };
        guest.connect();
        guest.told(&format!("mkdir {FILES} && mount -o ro /dev/vdb {FILES}"));
        // An early command may be there before a late service.
        guest.until("the machine is up", "systemctl is-system-running", |said| said.out.trim() == "running");
        println!("booted in {:?} with {accelerator}", began.elapsed());
        Some(guest)
    }

    /// Copies the binary and its installer to a folder of their own, as people do, and the image to where it is imported
    /// from. Then installs, with these flags. Returns what the installer said.
    pub(crate) fn install(&self, flags: &str) -> String {
        self.told(&format!(
            "mkdir -p /root/fresh /var/lib/rancher/k3s/agent/images && cp {FILES}/k3sd {FILES}/install.sh /root/fresh \
             && cp {FILES}/busybox.tar /var/lib/rancher/k3s/agent/images"
        ));
        self.install_again(flags)
    }

    /// Runs the installer where it was before.
    pub(crate) fn install_again(&self, flags: &str) -> String {
        let began = Instant::now();
        let said = self.told(&format!("cd /root/fresh && ./install.sh {flags} 2>&1"));
        println!("install.sh {flags}: {:?}", began.elapsed());
        self.write_kubeconfig();
        said
    }

    /// Where `kubectl` outside finds the API.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.place.path().join("kubeconfig")
    }

    fn write_kubeconfig(&self) {
        let inside = self.told("cat /etc/rancher/k3s/k3s.yaml");
        let outside = inside.replace("https://127.0.0.1:6443", &format!("https://127.0.0.1:{}", self.api_port));
        fs::write(self.kubeconfig(), outside).expect("a file");
    }

    /// Runs a shell command on the machine.
    pub(crate) fn run(&self, command: &str) -> Said {
        self.ssh(command).output().expect("ssh starts").into()
    }

    /// What it prints, when all is well.
    pub(crate) fn told(&self, command: &str) -> String {
        let said = self.run(command);
        assert_eq!(said.code, 0, "{command}: {}{}", said.out, said.err);
        said.out
    }

    /// Runs it until it says what is wanted.
    pub(crate) fn until(&self, what: &str, command: &str, is_so: impl Fn(&Said) -> bool) -> Said {
        let began = Instant::now();
        loop {
            let said = self.run(command);
            if is_so(&said) {
                return said;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {command}: {said:?}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Writes a file on the machine.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let mut command = self.ssh(&format!("mkdir -p $(dirname {path}) && cat >{path}"));
        let mut child = command.stdin(Stdio::piped()).spawn().expect("ssh starts");
        child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
        let said: Said = child.wait_with_output().expect("it is our child").into();
        assert_eq!(said.code, 0, "{path}: {said:?}");
    }

    /// Restarts the machine in good order. Returns when its next life answers.
    pub(crate) fn reboot(&mut self) {
        let life = |guest: &Self| guest.run("cat /proc/sys/kernel/random/boot_id");
        let before = life(self).out;
        let began = Instant::now();
        self.told("systemctl reboot");
        loop {
            let said = life(self);
            if said.code == 0 && said.out != before {
                break;
            }
            assert!(began.elapsed() < 2 * PATIENCE, "it does not come back: {said:?}\n{}", self.console());
            if said.code != 0 {
                self.connect();
            }
            std::thread::sleep(PAUSE);
        }
        self.told(&format!("mount -o ro /dev/vdb {FILES}"));
        println!("rebooted in {:?}", began.elapsed());
    }

    /// Connects, as soon as somebody answers. The API's port leads there, too.
    fn connect(&mut self) {
        let began = Instant::now();
        loop {
            self.disconnect();
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "ssh", "-N", "-M"]).args(self.options());
            command.arg("-L").arg(format!("127.0.0.1:{}:127.0.0.1:6443", self.api_port)).arg("root@127.0.0.1");
            let log = fs::File::create(self.place.path().join("ssh.log")).expect("a file");
            let master = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
            self.master = Some(master.expect("setpriv starts"));
            while self.master.as_mut().is_some_and(|master| master.try_wait().is_ok_and(|ended| ended.is_none())) {
                if self.run("true").code == 0 {
                    return;
                }
                self.still_runs(began);
                std::thread::sleep(PAUSE);
            }
            self.still_runs(began);
            std::thread::sleep(PAUSE);
        }
    }

    fn still_runs(&mut self, began: Instant) {
        let ended = self.qemu.try_wait().expect("it is our child");
        let log = |name: &str| fs::read_to_string(self.place.path().join(name)).unwrap_or_default();
        let is_late = began.elapsed() > PATIENCE;
        assert!(ended.is_none() && !is_late, "{ended:?}: {}{}{}", log("qemu.log"), log("ssh.log"), self.console());
    }

    fn disconnect(&mut self) {
        if let Some(mut master) = self.master.take() {
            master.kill().ok();
            master.wait().ok();
        }
        fs::remove_file(self.place.path().join("ssh")).ok();
    }

    /// What is common to all ends of the connection.
    fn options(&self) -> Vec<String> {
        let mut words: Vec<String> = ["-F", "none", "-p", &self.port.to_string(), "-i"].map(str::to_owned).into();
        words.push(self.place.path().join("key").display().to_string());
        words.extend(["-S".to_owned(), self.place.path().join("ssh").display().to_string()]);
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=60",
            "LogLevel=ERROR",
            // Each machine is the copy of one that was made here.
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            // A machine that was switched off says nothing any more.
            "ServerAliveInterval=10",
            "ServerAliveCountMax=6",
        ] {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words
    }

    fn ssh(&self, command: &str) -> Command {
        let mut ssh = Command::new("timeout");
        ssh.arg(PATIENCE.as_secs().to_string()).arg("ssh").args(self.options());
        // Only over the connection that is there.
        ssh.args(["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "root@127.0.0.1", command]);
        ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ssh
    }

    /// The end of what the kernel and the init system said.
    fn console(&self) -> String {
        let text = fs::read(self.place.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- console\n{}", self.console());
            eprintln!("--- log\n{}", self.run("journalctl --unit k3s --no-pager --lines 80").out);
        }
        self.disconnect();
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

/// Packs what the machine is given into the image of a disk, which is quicker to read than a connection: the binary under
/// test, its installer, and an image.
fn files(place: &Path) -> PathBuf {
    let folder = place.join("files");
    fs::create_dir(&folder).expect("a directory");
    let installer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../install.sh");
    for (from, name) in [(binary(), "k3sd"), (installer, "install.sh")] {
        fs::copy(&from, folder.join(name)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
    let image = busybox(Path::new("/bin/busybox")).expect("an image").renamed(IMAGE);
    fs::write(folder.join("busybox.tar"), BuiltImage::docker_archive(&[image])).expect("a file");
    // The client refuses a key that others may read, and whoever keeps the machine may have copied it.
    let key = Path::new(&std::env::var_os("K3SD_VM").expect("it was there before")).join("key");
    fs::copy(key, place.join("key")).expect("the machine has a key");
    fs::set_permissions(place.join("key"), fs::Permissions::from_mode(0o600)).expect("it is ours");

    let listed = fs::read_dir(&folder).expect("it is there").flatten();
    let bytes: u64 = listed.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum();
    let disk = place.join("files.img");
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(&folder).arg(&disk);
    let made = command.arg(format!("{}M", (bytes >> 20) * 11 / 10 + FILES_SPARE_MIB)).stdout(Stdio::null()).status();
    assert!(made.expect("mke2fs starts").success(), "no disk for {}", folder.display());
    fs::remove_dir_all(&folder).expect("it is ours");
    disk
}

/// Whether the processor helps. There is a `/dev/kvm` on machines without such processors, too: that runs only kernels that
/// were made for it, and this isn't one.
fn is_accelerated() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let helps = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    helps && fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("it is bound").port()
}
