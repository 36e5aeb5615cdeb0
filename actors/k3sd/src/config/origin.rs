//! Where a value comes from, kept with it from the file to the last error message.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::cli::flag::Flag;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// An environment variable of this name.
    Variable(&'static str),
    /// A config file.
    File {
        /// The file; its URL without secrets if it was fetched.
        path: Arc<Path>,
        /// The line of the key, or of the item in a list; from 1.
        line: u64,
        /// The key as written in the file.
        key: Arc<str>,
    },
    /// The command line.
    CommandLine,
}

impl Origin {
    /// Says who set a value; completes "--flag (...)".
    #[must_use]
    pub fn set_by(&self) -> String {
        match self {
            Self::Default => "its default".to_owned(),
            Self::Variable(name) => format!("set by the environment variable {name}"),
            Self::File { path, line, .. } => format!("set in {}:{line}", path.display()),
            Self::CommandLine => "set on the command line".to_owned(),
        }
    }
}

/// How `--print-config` names it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Variable(name) => write!(f, "env {name}"),
            Self::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// The place to go to for changing a value, with which each error about it begins.
pub(crate) struct Place<'a> {
    pub(crate) flag: &'a Flag,
    pub(crate) origin: &'a Origin,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::File { path, line, key } => write!(f, "{}:{line}: {key}", path.display()),
            Origin::Variable(name) => write!(f, "environment variable {name} (--{})", self.flag.name),
            Origin::CommandLine | Origin::Default => f.write_str(&dashed(self.flag)),
        }
    }
}

/// The flag's name as one writes it on the command line.
#[must_use]
pub fn dashed(flag: &Flag) -> String {
    let dashes = if flag.name.len() == 1 { "-" } else { "--" };
    format!("{dashes}{}", flag.name)
}
