//! What a runtime's refusal means.

use std::error::Error as StdError;
use std::time::Duration;

use thiserror::Error;
pub use tonic::Code;
use tonic::Status;

/// Why a call to the runtime has no result.
#[derive(Clone, Debug, Error)]
pub enum CriError {
    /// The runtime refused, with gRPC's code and its own words.
    #[error("{message}")]
    Refused {
        /// The call, as `RunPodSandbox`.
        call: &'static str,
        /// gRPC's code.
        code: Code,
        /// What the runtime said. Users see it in events, so it is passed on as it is.
        message: String,
    },
    /// The runtime is not there, or went away during the call, which may have had its effect.
    #[error("the container runtime is not available for {call}: {message}")]
    Away {
        /// The call.
        call: &'static str,
        /// What the connection ended with.
        message: String,
    },
    /// The runtime said nothing in time. The call may have its effect yet.
    #[error("the container runtime gave no answer to {call} within {limit:?}")]
    Late {
        /// The call.
        call: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl CriError {
    /// From what tonic says. Errors of the connection come in many codes, but always with a source.
    pub(crate) fn from_status(call: &'static str, status: &Status) -> Self {
        match StdError::source(status) {
            Some(source) => Self::Away { call, message: chain(source) },
            None if is_broken_stream(status) => Self::Away { call, message: status.message().to_owned() },
            None => Self::Refused { call, code: status.code(), message: status.message().to_owned() },
        }
    }

    /// gRPC's code: that of the runtime, or the one that stands for the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Away { .. } => Code::Unavailable,
            Self::Late { .. } => Code::DeadlineExceeded,
        }
    }

    /// The runtime's own words, or ours where it said nothing.
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// Whether there is no such sandbox, container or image.
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// Whether the runtime doesn't know the call, being older than it.
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Code::Unimplemented
    }

    /// Whether the runtime is away, so that the same call may succeed when it is back.
    pub fn is_unavailable(&self) -> bool {
        self.code() == Code::Unavailable
    }
}

/// Whether the connection broke within an answer; tonic then keeps only a text.
fn is_broken_stream(status: &Status) -> bool {
    let words = status.message();
    matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled)
        && (words.starts_with("h2 protocol error") || words.starts_with("transport error"))
}

/// An error and its causes in one line, each once.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_code_and_words() {
        let error = CriError::from_status("ContainerStatus", &Status::not_found("no container \"a\""));
        assert!(error.is_not_found() && !error.is_unavailable() && !error.is_unimplemented());
        assert_eq!(error.message(), "no container \"a\"");
    }

    #[test]
    fn a_broken_connection_is_an_absent_runtime() {
        let status = Status::from_error(Box::new(std::io::Error::other("broken pipe")));
        let error = CriError::from_status("Version", &status);
        assert!(error.is_unavailable(), "{error:?}");
        assert!(error.to_string().contains("broken pipe"));
        let status = Status::internal("h2 protocol error: error reading a body from connection");
        assert!(CriError::from_status("Version", &status).is_unavailable());
        assert!(!CriError::from_status("Version", &Status::internal("disk full")).is_unavailable());
    }
}
