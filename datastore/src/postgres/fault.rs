//! What PostgreSQL's errors mean.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::table::Fault;

/// The server is leaving, or not there yet.
const LEAVING: [SqlState; 4] =
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS];
const LOST_RACES: [SqlState; 3] =
    [SqlState::UNIQUE_VIOLATION, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];

impl Fault for Error {
    fn is_disconnect(&self) -> bool {
        match self.code() {
            Some(code) => LEAVING.contains(code),
            None => self.is_closed() || self.source().is_some_and(is_broken),
        }
    }

    fn is_lost_race(&self) -> bool {
        self.code().is_some_and(|code| LOST_RACES.contains(code))
    }

    fn is_full(&self) -> bool {
        self.code() == Some(&SqlState::DISK_FULL)
    }

    fn leaves_commit_open(&self) -> bool {
        self.is_disconnect()
    }
}

/// Whether it is the connection that failed, and not what TLS demands of it: that stays as it is.
fn is_broken(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<io::Error>() else { return false };
    !error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>())
}
