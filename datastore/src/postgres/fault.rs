//! From PostgreSQL's errors to ours.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::error::{Op, StoreError};

/// What an error means for an operation that has changed nothing.
pub(super) fn store_error(op: Op, error: Error) -> StoreError {
    if error.code() == Some(&SqlState::DISK_FULL) {
        return StoreError::Full { op, source: Arc::new(error) };
    }
    if is_disconnect(&error) {
        return StoreError::Unreachable { op, source: Arc::new(error) };
    }
    StoreError::Database { op, source: Arc::new(error) }
}

/// Whether the connection is gone, and another one may help.
pub(super) fn is_disconnect(error: &Error) -> bool {
    let leaving = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
    ];
    match error.code() {
        Some(code) => leaving.contains(code),
        None => error.is_closed() || error.source().is_some_and(is_broken),
    }
}

/// Whether it is the connection that failed, and not what TLS demands of it: that stays as it is.
fn is_broken(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<io::Error>() else { return false };
    !error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>())
}

/// Whether a transaction lost against another one, and would do better now.
pub(super) fn is_lost_race(error: &Error) -> bool {
    let codes = [SqlState::UNIQUE_VIOLATION, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];
    error.code().is_some_and(|code| codes.contains(code))
}
