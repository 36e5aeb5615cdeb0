//! What is wrong with a configuration.

use thiserror::Error;

/// Why a list of plugins makes no sense. The server doesn't start with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// There is no such plugin.
    #[error("{flag} plugin {name:?} is unknown")]
    Unknown {
        /// The argument.
        flag: &'static str,
        /// The name in it.
        name: String,
    },
    /// Kubernetes has it, this server hasn't.
    #[error("admission plugin {name:?} is not part of this server")]
    Absent {
        /// The name.
        name: String,
    },
    /// Enabled and disabled at once.
    #[error("admission plugin {name:?} is both in enable-admission-plugins and in disable-admission-plugins")]
    Both {
        /// The name.
        name: String,
    },
}
