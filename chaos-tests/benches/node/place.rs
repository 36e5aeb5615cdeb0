//! Where a node runs: namespaces of its own, in which the directories that every node uses are those of the job.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::table::Spread;
use crate::{Failure, INSIDE, Scale};

/// Directories that a node writes to wherever its own are. Whoever removes something from the machine's must not reach into
/// a job, so that all that is below them is the job's, too.
const OWN: [&str; 3] = ["/run", "/var/lib", "/var/log"];
/// Volumes and logs, which have to be on a disk, and their names in the directory of the job.
const BOUND: [(&str, &str); 2] = [("/var/lib/kubelet", "kubelet"), ("/var/log/pods", "pods")];
/// A link that leads nowhere, with an address and a route, as a node has.
const LINKS: [&str; 6] = [
    "link set lo up",
    "link add n0 type veth peer name n1",
    "link set n0 up",
    "link set n1 up",
    "addr add 10.9.0.2/24 dev n0",
    "route add default via 10.9.0.1 dev n0",
];

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The release build of `k3sd`.
    pub(crate) binary: PathBuf,
    /// Where the directories of the jobs are made.
    pub(crate) directory: PathBuf,
}

/// What a job measured: numbers by name.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    /// Adds those of another job.
    pub(crate) fn add(&mut self, others: Self) {
        for (name, numbers) in others.0 {
            self.0.entry(name).or_default().extend(numbers);
        }
    }

    /// All numbers of this name.
    pub(crate) fn of(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The middle one and the spread.
    pub(crate) fn spread(&self, name: &str) -> Spread {
        Spread::of(self.of(name).to_vec())
    }

    /// Reads lines as [`tell`] writes them.
    fn read(text: &str) -> Self {
        let mut figures = Self::default();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        for (name, number) in pairs.filter_map(|(name, text)| Some((name, text.parse().ok()?))) {
            figures.0.entry(name.to_owned()).or_default().push(number);
        }
        figures
    }
}

/// Hands a number to the program that started this job.
pub(crate) fn tell(name: &str, number: f64) {
    println!("{name}={number}");
}

impl Setting {
    /// Does a job in namespaces of its own, and returns what it measured. Nothing of it is left.
    pub(crate) fn run(&self, job: &str, scale: &Scale) -> Result<Figures, Failure> {
        let directory = tempfile::Builder::new().prefix("node").tempdir_in(&self.directory)?;
        let cgroup = format!("k3sd-bench-{}", std::process::id());
        let mut command = Command::new("unshare");
        // The end of the first process of a process namespace is the end of all others.
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.arg(std::env::current_exe()?).args([INSIDE, job]).arg(directory.path()).arg(&self.binary).arg(&cgroup);
        let Scale { rounds, single, many, settle, idle } = *scale;
        for number in [rounds as u64, single as u64, many as u64, settle, idle] {
            command.arg(number.to_string());
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
            remove_below(&hierarchy.path().join(&cgroup));
        }
        if !output.status.success() {
            return Err(format!("{job}: {}", output.status).into());
        }
        Ok(Figures::read(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Removes a cgroup and those below it.
fn remove_below(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    // In most hierarchies there is none.
    fs::remove_dir(path).ok();
}

fn done(command: &mut Command) -> Result<(), Failure> {
    match command.status()?.success() {
        true => Ok(()),
        false => Err(format!("{command:?} failed").into()),
    }
}

/// Makes a machine of these namespaces.
pub(crate) fn furnish(directory: &Path) -> Result<(), Failure> {
    for words in LINKS {
        done(Command::new("ip").args(words.split(' ')))?;
    }
    for path in OWN {
        done(Command::new("mount").args(["-t", "tmpfs", "none", path]))?;
    }
    let own = |name: &str| -> Result<PathBuf, Failure> {
        let path = directory.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    };
    let layers = format!("lowerdir=/etc,upperdir={},workdir={}", own("etc")?.display(), own("work")?.display());
    done(Command::new("mount").args(["-t", "overlay", "-o", &layers, "none", "/etc"]))?;
    for (path, name) in BOUND {
        fs::create_dir_all(path)?;
        done(Command::new("mount").arg("--bind").arg(own(name)?).arg(path))?;
        // What is mounted here has to be seen in containers.
        done(Command::new("mount").args(["--make-rshared", path]))?;
    }
    Ok(())
}
