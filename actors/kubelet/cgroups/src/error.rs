//! Why something about cgroups did not work.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why something about cgroups did not work.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// No hierarchy is mounted where this process looks.
    #[error("no cgroup hierarchy is mounted")]
    NotMounted,
    /// The kernel, or whoever started this process, left controllers out that pods need.
    #[error("failed to find {} cgroup", missing.join(", "))]
    MissingControllers {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// A uid or path that would lead out of the tree.
    #[error("{name:?} is no name of a cgroup")]
    Name {
        /// What was given.
        name: String,
    },
    /// A kernel file couldn't be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a value.
    #[error("write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cgroup couldn't be made.
    #[error("make cgroup {}", path.display())]
    Make {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cgroup couldn't be removed, for another reason than that somebody is in it.
    #[error("remove cgroup {}", path.display())]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// systemd, whose slices pods are in, can't be asked or refuses.
    #[error("systemd's {slice}")]
    Systemd {
        /// The slice.
        slice: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
