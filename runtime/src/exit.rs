//! Why an actor is no more.

use std::error::Error as StdError;
use std::fmt;

/// An error that ends an actor: its state can no longer be trusted. Wraps any error; prints the whole chain.
pub struct ActorError(Box<dyn StdError + Send + Sync>);

impl ActorError {
    /// An error that is only a sentence: lower case, no full stop, no secrets.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into().into())
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for ActorError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for ActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for ActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How one incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It finished by itself.
    Normal,
    /// It was asked to stop, and did.
    Shutdown,
    /// A handler returned an error. The text holds the chain of causes.
    Error(String),
    /// A handler panicked, with this message.
    Panic(String),
    /// It was killed: dropped at its next await, without its `terminate`.
    Killed,
    /// `init` failed, panicked, or was killed before it was done. Counts as a death.
    StartFailed(String),
    /// A supervisor gave up: its children died more often than its budget allows.
    Escalated(String),
}

/// Longest reason that is kept: a death is told in a line, and many may be remembered.
const REASON_BYTES_MAX: usize = 512;

/// Cuts `text` to [`REASON_BYTES_MAX`] at a character's edge.
pub(crate) fn clip(mut text: String) -> String {
    if text.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Exit {
    /// Whether nobody has to be worried: a transient child that ends like this is left alone.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown)
    }

    /// One word for tables and streams.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown => "shutdown",
            Self::Error(_) => "error",
            Self::Panic(_) => "panic",
            Self::Killed => "killed",
            Self::StartFailed(_) => "start-failed",
            Self::Escalated(_) => "escalated",
        }
    }

    /// What there is to say beyond [`Exit::word`].
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Normal | Self::Shutdown | Self::Killed => None,
            Self::Error(text) | Self::Panic(text) | Self::StartFailed(text) | Self::Escalated(text) => Some(text),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            Some(detail) => write!(f, "{}: {detail}", self.word()),
            None => f.write_str(self.word()),
        }
    }
}

/// The text of a panic's payload.
/// What a panic said, as `catch_unwind` hands it over; clipped like every reason.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    clip(text.unwrap_or_else(|| "a panic without a text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_its_causes_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("renewing the lease failed")]
        struct Outer(#[source] std::fmt::Error);
        let error = ActorError::from(Outer(std::fmt::Error));
        assert_eq!(error.to_string(), format!("renewing the lease failed: {}", std::fmt::Error));
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let cut = clip("ä".repeat(1000));
        assert!(cut.len() <= REASON_BYTES_MAX + '…'.len_utf8());
        assert!(cut.ends_with('…'));
        assert_eq!(clip("short".to_owned()), "short");
    }

    #[test]
    fn only_normal_and_shutdown_are_clean() {
        let abnormal = [Exit::Killed, Exit::Error(String::new()), Exit::Panic(String::new())];
        assert!(abnormal.iter().all(|exit| !exit.is_clean()));
        assert!(Exit::Normal.is_clean() && Exit::Shutdown.is_clean());
    }
}
