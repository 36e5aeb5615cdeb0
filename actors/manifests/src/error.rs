//! Why manifests can't be deployed at all.

use std::path::PathBuf;

use thiserror::Error;

/// What is wrong with the configuration. What is wrong with a file is said in Events about its AddOn.
#[derive(Debug, Error)]
pub enum ManifestsError {
    /// Packaged files go below the directory of manifests, and nowhere else.
    #[error("the packaged file {path:?} would be outside of the directory of manifests")]
    Outside {
        /// The path that was given.
        path: String,
    },
    /// Two packaged files with one name.
    #[error("there are two packaged files {path:?}")]
    Twice {
        /// The path that was given.
        path: String,
    },
    /// The directory has to be known whatever the working directory is.
    #[error("the directory of manifests {dir:?} is no absolute path")]
    Relative {
        /// As configured.
        dir: PathBuf,
    },
}
