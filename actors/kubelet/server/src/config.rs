//! What the server is told by whoever read flags and files.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The node's name: what rights are asked for.
    pub node_name: String,
    /// How long answers about tokens and rights count.
    pub access: AccessLimits,
    /// Connections at once. Whoever comes then waits in the socket's queue.
    pub connections_max: usize,
    /// A connection to a container on which nothing is said for so long is closed:
    /// `streamingConnectionIdleTimeout`.
    pub stream_idle: Duration,
    /// The directory that `/logs/` shows, `/var/log`; nothing without `enableSystemLogHandler`.
    pub system_logs: Option<PathBuf>,
    /// Whether exec, attach, port-forward, run and logs are served: `enableDebuggingHandlers`.
    pub debugging: bool,
}

/// How long answers about tokens and rights count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLimits {
    /// Whose token it is: `authentication.webhook.cacheTTL`.
    pub token: Duration,
    /// That somebody may: `authorization.webhook.cacheAuthorizedTTL`.
    pub allowed: Duration,
    /// That somebody may not: `authorization.webhook.cacheUnauthorizedTTL`.
    pub denied: Duration,
}

impl Default for AccessLimits {
    fn default() -> Self {
        Self { token: Duration::from_secs(120), allowed: Duration::from_secs(300), denied: Duration::from_secs(30) }
    }
}

impl ServerConfig {
    /// As upstream's defaults have it, for a node of this name.
    #[must_use]
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            access: AccessLimits::default(),
            connections_max: 1000,
            stream_idle: Duration::from_secs(4 * 3600),
            system_logs: None,
            debugging: true,
        }
    }
}

/// Says how the node's loops are: name, and what is wrong. `ping` and `log` are the server's own.
#[derive(Clone)]
pub struct Checks(Arc<AskChecks>);

type AskChecks = dyn Fn() -> Vec<(String, Result<(), String>)> + Send + Sync;

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checks")
    }
}

impl Checks {
    /// Asks a function, which answers from memory; upstream's only check here is `syncloop`.
    pub fn new(ask: impl Fn() -> Vec<(String, Result<(), String>)> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn ask(&self) -> Vec<(String, Result<(), String>)> {
        (self.0)()
    }
}

/// Says what configuration is in effect, for `/configz`: a KubeletConfiguration.
#[derive(Clone)]
pub struct Configz(Arc<dyn Fn() -> Value + Send + Sync>);

impl fmt::Debug for Configz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Configz")
    }
}

impl Configz {
    /// Asks a function, which answers from memory.
    pub fn new(ask: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn ask(&self) -> Value {
        (self.0)()
    }
}
