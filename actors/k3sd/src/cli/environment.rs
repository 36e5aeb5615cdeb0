//! Everything the program takes from the process that started it, read once in `main`.
//!
//! Nothing below `main` asks the process for arguments, variables, the working directory or the time: it gets this
//! struct. So a test describes an environment instead of changing its own, and several can run at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the process was started with.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The name the program was started under, with or without a directory.
    pub argv0: String,
    /// The arguments after the name. Kept raw, because `kubectl` and friends get theirs untouched.
    pub args: Vec<OsString>,
    /// The environment variables. Those that are not UTF-8 are left out; none of ours may be.
    pub vars: BTreeMap<String, String>,
    /// The working directory; relative paths in flags are relative to it.
    pub cwd: PathBuf,
    /// The home directory, from `HOME`.
    pub home: Option<PathBuf>,
    /// Whether the real user id is 0.
    pub is_root: bool,
    /// The wall clock at start.
    pub now: SystemTime,
    /// The process id, which survives `exec`.
    pub pid: u32,
    /// The running program's own file, links resolved.
    pub exe: Option<PathBuf>,
    /// What absolute well-known paths (`/etc/...`, `/proc/...`) are below; `/` outside tests.
    pub root: PathBuf,
}

impl Environment {
    /// An environment that holds nothing: no arguments, no variables, user root, working directory and root `/`.
    /// The starting point of tests.
    #[must_use]
    pub fn empty(now: SystemTime) -> Self {
        Self {
            argv0: "k3sd".to_owned(),
            args: Vec::new(),
            vars: BTreeMap::new(),
            cwd: PathBuf::from("/"),
            home: None,
            is_root: true,
            now,
            pid: 1,
            exe: None,
            root: PathBuf::from("/"),
        }
    }

    /// A variable's value, if it is set and not empty. Empty counts as unset, as it does in K3s.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where a well-known absolute path really is: below [`Environment::root`].
    #[must_use]
    pub fn well_known(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A path somebody wrote, made absolute against the working directory.
    #[must_use]
    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        self.cwd.join(path)
    }
}
