//! For tests and benches: a network namespace that goes away with its owner. Needs root, and iproute2 and util-linux.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::namespace::Namespace;

/// Where `ip netns` keeps them.
const FOLDER: &str = "/run/netns";

/// A namespace of a test's own.
#[derive(Debug)]
pub struct Space {
    name: String,
    namespace: Namespace,
}

impl Space {
    /// Makes an empty one; `word` is part of its name. `None`, and a line that says why, where none can be made.
    ///
    /// # Panics
    /// When it is gone at once.
    #[must_use]
    pub fn new(word: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("k3sd-{word}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(output) if output.status.success() => {}
            other => {
                println!("ignored: no network namespace can be made: {other:?}");
                return None;
            }
        }
        let path = PathBuf::from(FOLDER).join(&name);
        let namespace = Namespace::open(&path).expect("it was just made");
        Some(Self { name, namespace })
    }

    /// The same, with its loopback link up.
    #[must_use]
    pub fn with_loopback(word: &str) -> Option<Self> {
        let space = Self::new(word)?;
        space.run(&["ip", "link", "set", "lo", "up"]);
        Some(space)
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.namespace.path()
    }

    /// Runs a command inside, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, command: &[&str]) -> String {
        let net = format!("--net={}", self.path().display());
        let output = Command::new("nsenter").arg(net).args(command).output().expect("nsenter is there");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.name]).output().ok();
    }
}
