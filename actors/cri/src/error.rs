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

    /// The runtime's own words, or ours where it said nothing. The statuses of containers have them like this.
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The error as gRPC's Go library prints a status, code and words, which is how the kubelet's events have it.
    pub fn status(&self) -> String {
        let words = match self {
            Self::Late { .. } => "context deadline exceeded".to_owned(),
            Self::Refused { .. } | Self::Away { .. } => self.to_string(),
        };
        format!("rpc error: code = {} desc = {words}", name(self.code()))
    }

    /// The same, but words alone where the code says nothing: what the kubelet makes of images that can't be pulled.
    pub fn status_or_message(&self) -> String {
        if self.code() == Code::Unknown { self.message() } else { self.status() }
    }

    /// Whether there is no such sandbox, container or image.
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
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

/// A code as Go has it, which spells two of them in another way.
fn name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
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
        assert!(error.is_not_found() && !error.is_unavailable());
        assert_eq!(error.message(), "no container \"a\"");
    }

    #[test]
    fn events_have_code_and_words() {
        let of = |status| CriError::from_status("RunPodSandbox", &status);
        let plain = of(Status::unknown("no network"));
        assert_eq!(plain.status(), "rpc error: code = Unknown desc = no network");
        assert_eq!(plain.status_or_message(), "no network");
        let absent = of(Status::not_found("no image"));
        assert_eq!(absent.status_or_message(), "rpc error: code = NotFound desc = no image");
        assert_eq!(of(Status::cancelled("gone")).status(), "rpc error: code = Canceled desc = gone");
        let late = CriError::Late { call: "RunPodSandbox", limit: Duration::from_secs(240) };
        assert_eq!(late.status(), "rpc error: code = DeadlineExceeded desc = context deadline exceeded");
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
