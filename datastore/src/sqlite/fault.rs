//! From SQLite's errors to ours.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

use crate::error::{Op, StoreError};

/// What an error means for an operation that has changed nothing.
pub(super) fn store_error(op: Op, path: &Path, error: rusqlite::Error) -> StoreError {
    // The index of the log lives in a file of its own; when that can't grow, SQLite calls it an I/O error.
    let no_room_for_index = error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE);
    match error.sqlite_error_code() {
        _ if no_room_for_index => StoreError::Full { op, source: Arc::new(error) },
        Some(ErrorCode::DiskFull) => StoreError::Full { op, source: Arc::new(error) },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { op, source: Arc::new(error) },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path: path.to_owned(), detail: error.to_string() }
        }
        _ => StoreError::Database { op, source: Arc::new(error) },
    }
}

/// What an error of a commit means. When the disk was full, the commit mark was not written; after any other I/O error
/// nobody knows what a restart will find.
pub(super) fn commit_error(op: Op, path: &Path, error: rusqlite::Error) -> StoreError {
    let reason = error.to_string();
    match store_error(op, path, error) {
        StoreError::Database { op, .. } => StoreError::Unknown { op, reason },
        certain => certain,
    }
}
