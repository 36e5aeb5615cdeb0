//! Errors as the CNI specification wants them.

use std::io;
use std::path::Path;

use k3sd_netlink::NetlinkError;
use serde::Serialize;

/// What a plugin prints when it fails. The codes are the specification's; those from 100 on are the plugin's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CniError {
    /// The kind of failure.
    pub(crate) code: u32,
    /// What failed, for people.
    pub(crate) msg: String,
    /// Why, if there is more to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) details: String,
}

/// The version of the configuration is not one of ours.
pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
/// A setting that is not supported.
pub(crate) const UNSUPPORTED_FIELD: u32 = 2;
/// The container, or its namespace, is not known.
pub(crate) const UNKNOWN_CONTAINER: u32 = 3;
/// The environment is not as it has to be.
pub(crate) const INVALID_ENVIRONMENT: u32 = 4;
/// Files.
pub(crate) const IO_FAILURE: u32 = 5;
/// The configuration is not JSON, or not of the right form.
pub(crate) const DECODING_FAILURE: u32 = 6;
/// The configuration makes no sense.
pub(crate) const INVALID_CONFIG: u32 = 7;
/// The plugin can't work now.
pub(crate) const UNAVAILABLE: u32 = 50;
/// Everything else.
pub(crate) const INTERNAL: u32 = 999;

impl CniError {
    pub(crate) fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// A configuration that makes no sense.
    pub(crate) fn config(msg: impl Into<String>) -> Self {
        Self::new(INVALID_CONFIG, msg)
    }

    /// A file that can't be used.
    pub(crate) fn file(what: &str, path: &Path, source: &io::Error) -> Self {
        Self { code: IO_FAILURE, msg: format!("failed to {what} {}", path.display()), details: source.to_string() }
    }
}

impl From<NetlinkError> for CniError {
    fn from(error: NetlinkError) -> Self {
        let code = if matches!(error, NetlinkError::Namespace { .. }) { UNKNOWN_CONTAINER } else { INTERNAL };
        let mut details = String::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            details.push_str(if details.is_empty() { "" } else { ": " });
            details.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { code, msg: error.to_string(), details }
    }
}
