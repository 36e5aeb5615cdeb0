//! Why the program can't start with the configuration it was given.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::cli::flag::Flag;
use crate::config::fetch::FetchError;
use crate::config::origin::{Origin, Place, dashed};
use crate::config::redact::quoted;
use crate::config::scalar::ScalarError;

/// Why a configuration is refused. Each message is one line that says where to look, what is wrong and what to do;
/// none holds a secret. Nothing has been written when one is returned.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The config file was asked for by name and is not there.
    #[error("config file {path} does not exist ({set_by}); create it, or leave the setting out")]
    Missing {
        /// The file.
        path: PathBuf,
        /// Who asked for it.
        set_by: String,
    },
    /// A config file or the directory of drop-ins is there and can't be read.
    #[error("config file {path} can't be read; check its type and permissions")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The config file is on a web server and could not be fetched from there.
    #[error("config file {url} can't be fetched ({set_by})")]
    NotFetched {
        /// What was given as file, user and password left out.
        url: String,
        /// Who asked for it.
        set_by: String,
        /// Why, and what to do.
        #[source]
        source: FetchError,
    },
    /// A config file is not YAML, or not a mapping.
    #[error("{path}:{line}:{column}: {problem}; correct the file")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: u64,
        /// What is wrong.
        problem: String,
    },
    /// A key of the config file names no flag of the command.
    #[error("{path}:{line}: {key}: `{command}` has no such flag; remove the key or correct its name")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The key as written.
        key: String,
        /// The command, `server` or `agent`.
        command: &'static str,
    },
    /// A flag that old releases of K3s had.
    #[error("{place} was removed; {instead}")]
    Removed {
        /// Where it was used.
        place: String,
        /// What to do.
        instead: &'static str,
    },
    /// A value is not what its flag takes, or does not go together with another one.
    #[error("{place}: {problem}")]
    Value {
        /// Where the value was set.
        place: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// Something other than one flag's value keeps the command from starting.
    #[error("{0}")]
    Refused(String),
    /// A flag was set whose part of the program does not exist yet.
    #[error("{flag} ({set_by}) is not available yet: {provider} is not part of this build")]
    Unavailable {
        /// The flag, with dashes.
        flag: String,
        /// Who set it.
        set_by: String,
        /// The part that would carry it out.
        provider: &'static str,
    },
}

impl ConfigError {
    /// A value that is not what its flag takes.
    pub(crate) fn scalar(flag: &Flag, origin: &Origin, text: &str, error: &ScalarError) -> Self {
        Self::value(flag, origin, format!("{} {error}", quoted(flag, text)))
    }

    /// Something wrong with one flag's value, said in `problem`.
    pub(crate) fn value(flag: &Flag, origin: &Origin, problem: impl Into<String>) -> Self {
        Self::Value { place: Place { flag, origin }.to_string(), problem: problem.into() }
    }

    /// A flag nobody carries out yet.
    pub(crate) fn unavailable(flag: &Flag, origin: &Origin) -> Self {
        Self::Unavailable { flag: dashed(flag), set_by: origin.set_by(), provider: flag.feature.provider() }
    }
}

/// An error and its causes in one line, whatever they hold.
#[must_use]
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}
