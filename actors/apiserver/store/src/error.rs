//! What goes wrong with the store, and how clients are told.

use k3sd_client::storage::StorageError;
use k3sd_objects::object::Object;
use k3sd_objects::status::{Reason, Status};
use thiserror::Error;

/// Seconds after which a client may ask for a revision again that was not there yet.
pub(crate) const TOO_LARGE_RETRY_SECONDS: i32 = 1;

/// Seconds after which a client may try again what the store could not do.
const UNAVAILABLE_RETRY_SECONDS: i32 = 1;

/// What clients are told about a list that can't be had any more.
pub(crate) const LIST_EXPIRED: &str = "The resourceVersion for the provided list is too old.";

/// Why a write did not take effect, or may not have.
#[derive(Clone, Debug, Error)]
pub enum WriteError {
    /// Create: an object of this name is there.
    #[error("the object exists already")]
    Exists,
    /// Update and delete: somebody was faster.
    #[error("the object was changed by somebody else")]
    Conflict {
        /// What is there now, if anything.
        current: Option<Object>,
    },
    /// Everything else, as the client is told. Only with reason `Timeout` may the write have happened.
    #[error("the store failed: {}", .0.message)]
    Failed(Status),
}

/// What a client is told when the store fails to read or to write.
pub(crate) fn status(error: &StorageError) -> Status {
    match error {
        StorageError::Compacted { .. } => Status::expired(LIST_EXPIRED),
        StorageError::Future { requested, current } => {
            Status::too_large_resource_version(requested.get(), current.get(), TOO_LARGE_RETRY_SECONDS)
        }
        StorageError::Invalid(_) => Status::bad_request(error.to_string()),
        StorageError::Unknown(_) => Status::timeout(error, UNAVAILABLE_RETRY_SECONDS),
        StorageError::Unavailable(_) => {
            Status::service_unavailable(error.to_string()).with_retry_after(UNAVAILABLE_RETRY_SECONDS)
        }
        StorageError::Full | StorageError::Conflict { .. } => Status::internal_error(error),
    }
}

/// What a client of a single object is told when it asked for one that can't be read.
pub(crate) fn malformed(why: &impl std::fmt::Display) -> Status {
    Status::failure(500, Reason::InternalError, format!("Internal error occurred: {why}"))
}
