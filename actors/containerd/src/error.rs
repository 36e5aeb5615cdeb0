//! What can go wrong with the engine and its images.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::template::TemplateError;

/// Why the engine can't be configured or started. All of it is tried again.
#[derive(Debug, Error)]
pub enum ContainerdError {
    /// A file or directory could not be read or changed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no such program, neither bundled nor on the path.
    #[error("there is no program {name:?}, neither in {} nor in $PATH", bundled.display())]
    NoProgram {
        /// Which one.
        name: String,
        /// Where bundled ones would be.
        bundled: PathBuf,
    },
    /// The program could not be run, or made no sense.
    #[error("cannot find out the version of {}: {reason}", program.display())]
    Version {
        /// The program.
        program: PathBuf,
        /// What happened.
        reason: String,
    },
    /// `--default-runtime` names a runtime that was not found.
    #[error("the default runtime {wanted:?} is not among those found on this node: {found:?}")]
    DefaultRuntime {
        /// The flag.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// The snapshotter doesn't work on this machine.
    #[error("the snapshotter {name:?} cannot be used: {reason}")]
    Snapshotter {
        /// The flag.
        name: String,
        /// Why.
        reason: String,
    },
    /// A user's template is wrong.
    #[error("the template {} cannot be used", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TemplateError,
    },
    /// The file of private registries is wrong.
    #[error("{} cannot be used: {reason}", path.display())]
    Registries {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The program could not be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ContainerdError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }
}

/// Why an archive was not imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// It is of a kind that is not read.
    #[error("archives of the kind {kind:?} are not read")]
    Kind {
        /// The ending of its name.
        kind: String,
    },
    /// It could not be read, or is damaged.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// It can be read, but is no image.
    #[error("{0}")]
    Content(String),
    /// The engine refused, or is away.
    #[error("containerd refused to {action}: {message}")]
    Engine {
        /// What was asked.
        action: &'static str,
        /// Its words.
        message: String,
        /// Whether it is away, so that the same may work later.
        away: bool,
    },
}
