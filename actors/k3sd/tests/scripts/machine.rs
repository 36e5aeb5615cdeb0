//! A machine to install on: namespaces of its own, in which what a script writes to the machine's directories is gone with
//! the machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Directories that scripts write to: what is in them is seen, and what is written to them stays in the machine.
const LAYERED: [&str; 4] = ["/etc", "/usr", "/var", "/opt"];

/// What stands for an init system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// A `systemctl` that starts and stops what the unit says, and keeps its calls in `/run/calls`.
    Systemd,
    /// An `rc-update` that keeps its calls, and an `openrc-run` that does for a service what is asked of it.
    OpenRc,
    /// OpenRC itself, from packages that `test.sh` fetches.
    RealOpenRc,
    /// Neither.
    None,
}

/// Does what systemd would do with one simple service: enough for a script that installs one.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "systemctl $*" >>/run/calls
command=$1
for last; do :; done
last=${last%.service}
pid=$(cat "/run/$last.main" 2>/dev/null)
# Who has ended has no program any more, if it is still to be buried.
lives() { readlink "/proc/${pid:-none}/exe" >/dev/null; }
end() { if lives; then kill "$pid"; fi; while lives; do sleep 0.05; done; rm -f "/run/$last.main"; }
case $command in
  restart)
    end
    unit=/etc/systemd/system/$last.service
    (
      . "$unit.env"
      export $(sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' "$unit.env")
      eval "exec $(sed -n 's/^ExecStart=//p' "$unit")"
    ) >"/run/$last.out" 2>&1 </dev/null &
    echo $! >"/run/$last.main"
    ;;
  stop | disable) end ;;
  show) echo "${pid:-0}" ;;
  is-active) lives ;;
esac
"#;

/// Stands for the interpreter of OpenRC's scripts.
const OPENRC_RUN: &str = r#"#!/bin/sh
echo "$*" >>/run/calls
"#;

/// Where `test.sh` puts OpenRC's packages.
const OPENRC_PACKAGES: &str = "K3SD_TEST_OPENRC";

/// Unpacks the packages in "$1" and boots. A directory of theirs may be a link here, as `/lib` is, and stays one. Two
/// services of the machine go: they need others that Debian has under other names.
const OPENRC_BOOT: &str = r#"set -e
for package in "$1"/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C /; done
ldconfig
rm -f /etc/init.d/hwclock.sh /etc/init.d/procps
openrc sysinit
openrc default
"#;

/// A running machine. Its end is the end of all that was started on it.
#[derive(Debug)]
pub(crate) struct Machine {
    holder: Child,
    /// The first process inside, seen from outside.
    first: u32,
    _place: tempfile::TempDir,
}

impl Machine {
    /// Makes one. Nothing where none can be made, and then says why.
    pub(crate) fn new(init: Init) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("ignored: only root can make a machine to install on");
            return None;
        }
        if init == Init::RealOpenRc && openrc_packages().is_none() {
            println!("ignored: OpenRC's packages are not in ${OPENRC_PACKAGES}; ./test.sh fetches them");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let mut prepare = "set -e\nmount --make-rprivate /\nmount -t tmpfs none \"$1\"\nip link set lo up\n".to_owned();
        for (number, directory) in LAYERED.iter().enumerate() {
            prepare += &format!(
                "mkdir -p \"$1/{number}/upper\" \"$1/{number}/work\"\nmount -t overlay -o \
                 lowerdir={directory},upperdir=$1/{number}/upper,workdir=$1/{number}/work none {directory}\n"
            );
        }
        // What stands there by chance, such as a systemd that doesn't run, must not decide.
        prepare += "mount -t tmpfs none /run\nrm -f /usr/local/bin/*\n";
        prepare += "rm -f /usr/bin/systemctl /usr/bin/kubectl /usr/bin/crictl /usr/bin/ctr\n";
        // The shell stays, and buries what nobody else does.
        prepare += "echo ready\ncat >/dev/null\nexit\n";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &prepare, "sh"])
            .arg(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said != "ready\n" {
            holder.wait().unwrap();
            println!("ignored: no machine can be made here: its namespaces or its layered directories are refused");
            return None;
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id())).unwrap();
        let first = children.split_whitespace().next().unwrap().parse().unwrap();
        let machine = Self { holder, first, _place: place };
        machine.put(init);
        Some(machine)
    }

    fn put(&self, init: Init) {
        match init {
            Init::Systemd => {
                fs::create_dir_all(self.at("/run/systemd/system")).unwrap();
                self.program("/usr/bin/systemctl", SYSTEMCTL);
            }
            Init::OpenRc => {
                fs::create_dir_all(self.at("/run/openrc")).unwrap();
                self.program("/usr/sbin/openrc-run", OPENRC_RUN);
                self.program("/usr/sbin/rc-update", "#!/bin/sh\necho \"rc-update $*\" >>/run/calls\n");
            }
            Init::RealOpenRc => {
                let packages = openrc_packages().expect("looked for before");
                self.run("sh", &["-c", OPENRC_BOOT, "sh", &packages.display().to_string()]);
            }
            Init::None => {}
        }
    }

    /// Writes a script that may be run.
    pub(crate) fn program(&self, path: &str, text: &str) {
        let script = format!("mkdir -p \"$(dirname {path})\"; cat >{path}; chmod 755 {path}");
        let mut writer = self.enter("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
    }

    /// Where a file of the machine is, seen from outside.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.first)).join(path.trim_start_matches('/'))
    }

    /// A file of the machine.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Whether there is such a file, if only as a link.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// A program on the machine, with an environment of its own.
    pub(crate) fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first)).args(["--mount", "--net", "--pid", program]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin").env("HOME", "/root");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program, which has to end well.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        text(&self.enter(program).args(args).output().unwrap(), true)
    }
}

/// The directory with OpenRC's packages, if there is any.
fn openrc_packages() -> Option<PathBuf> {
    std::env::var_os(OPENRC_PACKAGES).map(PathBuf::from).filter(|place| place.is_dir())
}

/// All that a program has said, which ended as was expected.
pub(crate) fn text(output: &Output, is_success: bool) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all).into_owned();
    assert_eq!(output.status.success(), is_success, "{all}");
    all
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be gone already.
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
