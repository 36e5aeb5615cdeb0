//! What MySQL's errors mean.

use std::io;
use std::time::Duration;

use mysql_async::{DriverError, Error, IoError};
use thiserror::Error as ThisError;

use crate::table::Fault;

/// The server is leaving, not there yet, full of others, or no longer the one that is written to.
const LEAVING: [u16; 9] = [
    1040, // too many connections
    1047, // a node of a cluster that is not ready
    1053, // shutting down
    1080, // closed by force
    1203, // too many connections of this user
    1290, // read-only, after a failover
    1836, // read-only
    1927, // the connection was killed
    4031, // it was idle for too long
];
/// Deadlock, waited too long for a lock, a row that has changed or is there already, the counter of rows was locked.
const LOST_RACES: [u16; 6] = [1213, 1205, 1020, 1062, 1586, 1467];
/// As the answer to a commit: it was rolled back, or never begun.
const NOT_COMMITTED: [u16; 4] = [1213, 1205, 1290, 1836];
/// The disk, or the space of tables.
const FULL: [u16; 2] = [1021, 1114];
/// Errors of files, which name the system's error.
const FILE_ERRORS: [u16; 3] = [3, 1026, 1030];

/// How a connection fails.
#[derive(Debug, ThisError)]
pub(super) enum MySqlFault {
    /// What the driver says; its text has the cause in it.
    #[error("{0}")]
    Driver(Error),
    /// The server takes too long, so the connection was given up.
    #[error("the server has not answered within {} s", .0.as_secs())]
    Silent(Duration),
    /// An earlier question broke the connection.
    #[error("the connection was given up")]
    GivenUp,
    /// A row is not what the table holds.
    #[error("column {column} of a row of the table holds something else")]
    Malformed {
        /// Counted from 0.
        column: usize,
    },
}

impl From<Error> for MySqlFault {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl MySqlFault {
    /// The server's number of the error.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Driver(Error::Server(error)) => Some(error.code),
            _ => None,
        }
    }

    fn has_code(&self, codes: &[u16]) -> bool {
        self.code().is_some_and(|code| codes.contains(&code))
    }

    /// Whether the connection goes on.
    pub(super) fn spares_connection(&self) -> bool {
        match self {
            Self::Driver(Error::Server(_)) => !self.is_disconnect(),
            Self::Malformed { .. } => true,
            _ => false,
        }
    }

    /// Whether the server was asked for TLS and has none.
    pub(super) fn is_without_tls(&self) -> bool {
        matches!(self, Self::Driver(Error::Driver(DriverError::NoClientSslFlagFromServer)))
    }
}

impl Fault for MySqlFault {
    fn is_disconnect(&self) -> bool {
        match self {
            Self::Driver(Error::Io(IoError::Io(error))) => is_broken(error),
            Self::Driver(Error::Driver(DriverError::ConnectionClosed)) | Self::Silent(_) | Self::GivenUp => true,
            _ => self.has_code(&LEAVING),
        }
    }

    fn is_lost_race(&self) -> bool {
        self.has_code(&LOST_RACES)
    }

    fn is_full(&self) -> bool {
        let Self::Driver(Error::Server(error)) = self else { return false };
        // 28 is "no space left on device" in the numbers of Linux.
        FULL.contains(&error.code) || FILE_ERRORS.contains(&error.code) && error.message.contains(" 28 ")
    }

    fn leaves_commit_open(&self) -> bool {
        !self.has_code(&NOT_COMMITTED)
    }
}

/// Whether it is the connection that failed, and not what TLS demands of it, or a right that we have not.
fn is_broken(error: &io::Error) -> bool {
    let refused = error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>());
    !refused && !matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    fn server(code: u16, message: &str) -> MySqlFault {
        Error::Server(ServerError { code, message: message.to_owned(), state: "HY000".to_owned() }).into()
    }

    #[test]
    fn an_unknown_answer_to_a_commit_leaves_it_open() {
        assert!(server(1317, "Query execution was interrupted").leaves_commit_open());
        assert!(MySqlFault::Silent(Duration::from_secs(1)).leaves_commit_open());
        assert!(!server(1213, "Deadlock found").leaves_commit_open());
    }

    #[test]
    fn errors_are_told_apart() {
        assert!(server(1053, "Server shutdown in progress").is_disconnect());
        assert!(!server(1045, "Access denied").is_disconnect());
        assert!(server(1030, "Got error 28 \"No space left on device\" from storage engine").is_full());
        assert!(!server(1030, "Got error 22 \"Invalid argument\" from storage engine").is_full());
        let io = |error| MySqlFault::from(Error::Io(IoError::Io(error)));
        assert!(io(io::ErrorKind::ConnectionRefused.into()).is_disconnect());
        let unknown = tokio_rustls::rustls::Error::HandshakeNotComplete;
        assert!(!io(io::Error::new(io::ErrorKind::InvalidData, unknown)).is_disconnect());
        assert!(server(1064, "syntax").spares_connection() && !server(1927, "killed").spares_connection());
    }
}
