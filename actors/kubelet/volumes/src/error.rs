//! Why a volume is not there. The texts are those that people know from the events of their pods.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a volume is not there, or didn't go.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// One volume of a pod; the source says why. [`VolumeError::event`] is how an Event says it.
    #[error("MountVolume.SetUp failed for volume {name:?}")]
    SetUp {
        /// The volume's name in the pod, or that of its persistent volume.
        name: String,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// A path of the host that isn't what the pod says it is, an object that doesn't fit, a kind that there isn't.
    #[error("{0}")]
    Refused(String),
    /// An object that isn't there (yet).
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// In small letters, as in `configmap`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object that couldn't be read in time.
    #[error("failed to sync {kind} cache: timed out waiting for the condition")]
    NotSynced {
        /// In small letters, as in `configmap`.
        kind: &'static str,
    },
    /// The API said no, or nothing.
    #[error("{what}: {reason}")]
    Api {
        /// What was asked for.
        what: String,
        /// What came back.
        reason: String,
    },
    /// The file system said no.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried, as in `make directory`.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something is still mounted below a directory that has to go, so that nothing of it was deleted.
    #[error("{} is still mounted", path.display())]
    StillMounted {
        /// Where.
        path: PathBuf,
    },
    /// A program of the host, such as `mount`, failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: String,
        /// What it said, clipped.
        output: String,
    },
    /// A storage driver failed, or isn't there.
    #[error("rpc error: code = {code} desc = {message}")]
    Driver {
        /// gRPC's word for it, as in `Internal`.
        code: &'static str,
        /// What the driver says.
        message: String,
    },
    /// The part of this crate that would do it is restarting; to be tried again.
    #[error("volumes are restarting")]
    Away,
}

impl VolumeError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn errno(what: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_owned();
        move |errno| Self::Io { what, path, source: errno.into() }
    }

    /// An answer of the API in its own words; the client's would show the whole answer, twice.
    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |error| Self::Api { what, reason: api_reason(&error) }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }

    pub(crate) fn of(self, name: &str) -> Self {
        Self::SetUp { name: name.to_owned(), source: Box::new(self) }
    }

    /// The whole chain in one line, as the message of a `FailedMount` Event has it.
    #[must_use]
    pub fn event(&self) -> String {
        let mut text = self.to_string();
        let mut separator = if matches!(self, Self::SetUp { .. }) { " : " } else { ": " };
        let mut next = self.source();
        while let Some(error) = next {
            text.push_str(separator);
            text.push_str(&error.to_string());
            separator = ": ";
            next = error.source();
        }
        text
    }
}

/// Why the API didn't do what it was asked for.
pub(crate) fn api_reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
