//! Why a look at a key has to be repeated.

use thiserror::Error;

/// See the variants. Conflicts and the like are everyday matters: the next look sees what is there by then.
#[derive(Debug, Error)]
pub enum Failure {
    /// The API refused, or couldn't be asked.
    #[error("ask the API")]
    Api(#[from] kube::Error),
    /// Something else is in the way.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Anything that says what is in the way.
    pub fn other(reason: impl std::fmt::Display) -> Self {
        Self::Other(reason.to_string())
    }

    /// The status code of the API's answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether the object was gone, or was another than the one that was read.
    pub fn is_stale(&self) -> bool {
        matches!(self.code(), Some(404 | 409))
    }

    /// With the causes, for a log line or an Event.
    pub fn chain(&self) -> String {
        match self {
            Self::Api(kube::Error::Api(status)) => format!("{self}: {} ({})", status.message, status.reason),
            Self::Api(error) => {
                let mut text = format!("{self}: {error}");
                let mut source = std::error::Error::source(error);
                while let Some(error) = source {
                    text += &format!(": {error}");
                    source = error.source();
                }
                text
            }
            Self::Other(_) => self.to_string(),
        }
    }
}
