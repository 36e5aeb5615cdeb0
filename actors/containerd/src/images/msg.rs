//! What the actor understands, and the handle for those who ask.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use k3sd_runtime::{Address, AskError, ReplyPort, message_kinds};

use super::core::Stamp;
use crate::error::ImportError;

/// What is known of the images on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesStatus {
    /// Files that were imported, since this actor began.
    pub imported: u64,
    /// Files that can't be, and why.
    pub failed: Vec<(PathBuf, String)>,
    /// Files that wait, or are being imported.
    pub waiting: usize,
    /// Whether the image of the sandbox is there.
    pub pause: bool,
}

/// See the variants.
#[derive(Debug)]
pub(crate) enum ImagesMsg {
    /// The engine began or ceased to answer.
    EngineTold,
    /// See to the sandbox's image.
    PauseTick,
    /// The sandbox's image was looked for, and imported if it was away.
    PauseDone {
        /// How that went.
        outcome: Result<(), ImportError>,
    },
    /// Look which files there are.
    ScanTick,
    /// Something happened to the directory.
    Changed {
        /// The descriptor that told it, which is done with.
        watch: Option<OwnedFd>,
    },
    /// The import of a file is over.
    Imported {
        /// The file.
        path: PathBuf,
        /// What it was then.
        stamp: Stamp,
        /// The names of its images.
        outcome: Result<Vec<String>, ImportError>,
    },
    /// The marks of images whose files are gone were taken off.
    Unpinned {
        /// How that went.
        outcome: Result<(), ImportError>,
    },
    /// Report. Answers from memory.
    Status {
        /// How it is.
        reply: ReplyPort<ImagesStatus>,
    },
}
message_kinds!(ImagesMsg { EngineTold, PauseTick, PauseDone, ScanTick, Changed, Imported, Unpinned, Status });

/// An answer from memory takes no time, but the actor may be reading a directory.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);

/// The way to the actor that imports.
#[derive(Clone, Debug)]
pub struct ImagesHandle(Address<ImagesMsg>);

impl ImagesHandle {
    pub(crate) fn new(address: Address<ImagesMsg>) -> Self {
        Self(address)
    }

    /// How the images are.
    ///
    /// # Errors
    /// The actor is away; asking again is safe.
    pub async fn status(&self) -> Result<ImagesStatus, AskError> {
        self.0.call(STATUS_DEADLINE, |reply| ImagesMsg::Status { reply }).await
    }
}
