//! What a plugin is called with: the environment, and the configuration on standard input.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{self, CniError};
use super::result::CniResult;

/// Versions of the specification that are spoken, oldest first.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Delete,
    Check,
    Collect,
    Status,
    Version,
}

impl Command {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "ADD" => Self::Add,
            "DEL" => Self::Delete,
            "CHECK" => Self::Check,
            "GC" => Self::Collect,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Delete => "DEL",
            Self::Check => "CHECK",
            Self::Collect => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The first version of the specification that has it, as a place in [`VERSIONS`].
    fn since(self) -> usize {
        match self {
            Self::Check => 2,
            Self::Collect | Self::Status => 4,
            Self::Add | Self::Delete | Self::Version => 0,
        }
    }
}

/// The `CNI_*` variables, before anybody has looked at them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) command: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) arguments: Option<String>,
}

/// A call that makes sense.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) command: Command,
    /// The container; empty for commands that are about none.
    pub(crate) container: String,
    /// The file that stands for its network namespace; none when it is gone.
    pub(crate) namespace: Option<PathBuf>,
    /// The name of the interface inside.
    pub(crate) interface: String,
    /// `CNI_ARGS`, taken apart.
    pub(crate) arguments: BTreeMap<String, String>,
}

fn is_container_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_interface(text: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    !text.is_empty() && text.len() <= 15 && text != "." && text != ".." && !text.contains(bad)
}

impl Call {
    /// Looks at the environment.
    ///
    /// # Errors
    /// A variable is missing or makes no sense.
    pub(crate) fn new(environment: Environment) -> Result<Self, CniError> {
        let wrong = |text: String| CniError::new(error::INVALID_ENVIRONMENT, text);
        let word = environment.command.unwrap_or_default();
        let command = Command::of(&word).ok_or_else(|| wrong(format!("unknown CNI_COMMAND: {word}")))?;
        let about_container = matches!(command, Command::Add | Command::Delete | Command::Check);
        let needs_namespace = matches!(command, Command::Add | Command::Check);
        let given = |value: Option<String>, name: &str, needed: bool| match value.filter(|value| !value.is_empty()) {
            None if needed => Err(wrong(format!("required env variables [{name}] missing"))),
            value => Ok(value),
        };
        let container = given(environment.container, "CNI_CONTAINERID", about_container)?.unwrap_or_default();
        let interface = given(environment.interface, "CNI_IFNAME", about_container)?.unwrap_or_default();
        let namespace = given(environment.namespace, "CNI_NETNS", needs_namespace)?.map(PathBuf::from);
        if about_container && !is_container_id(&container) {
            return Err(wrong(format!("invalid characters in containerID: {container:?}")));
        }
        if about_container && !is_interface(&interface) {
            return Err(wrong(format!("invalid interface name: {interface:?}")));
        }
        let arguments = environment.arguments.unwrap_or_default();
        let arguments = arguments.split(';').filter(|part| !part.is_empty()).map(|part| {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(format!("CNI_ARGS: invalid pair {part:?}")))?;
            Ok((key.to_owned(), value.to_owned()))
        });
        Ok(Self { command, container, namespace, interface, arguments: arguments.collect::<Result<_, CniError>>()? })
    }

    /// Who holds something for this attachment, as a comment in the kernel.
    pub(crate) fn owner(&self) -> String {
        format!("{}/{}", self.container, self.interface)
    }
}

/// An attachment that still lives, as the runtime tells in `GC`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Attachment {
    #[serde(rename = "containerID")]
    pub(crate) container: String,
    #[serde(rename = "ifname")]
    pub(crate) interface: String,
}

/// What every configuration has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Common {
    /// The specification's version; the first one if it is not said.
    #[serde(default = "first_version")]
    pub(crate) cni_version: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(rename = "type", default)]
    pub(crate) plugin: String,
    #[serde(default)]
    pub(crate) prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    pub(crate) valid_attachments: Option<Vec<Attachment>>,
}

fn first_version() -> String {
    "0.1.0".to_owned()
}

/// A configuration, with the parts that every plugin needs already read.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) common: Common,
    pub(crate) json: Value,
}

impl Config {
    /// Reads standard input.
    ///
    /// # Errors
    /// It is no JSON object, or of another form.
    pub(crate) fn parse(input: &[u8]) -> Result<Self, CniError> {
        let json: Value = serde_json::from_slice(input).map_err(|source| undecodable(&source))?;
        Self::of(json)
    }

    /// The same of a value.
    ///
    /// # Errors
    /// It is of another form.
    pub(crate) fn of(json: Value) -> Result<Self, CniError> {
        // A list would do for serde.
        if !json.is_object() {
            return Err(CniError::new(error::DECODING_FAILURE, "the network configuration is no object"));
        }
        let common = Common::deserialize(&json).map_err(|source| undecodable(&source))?;
        Ok(Self { common, json })
    }

    /// Reads it as one plugin's own.
    ///
    /// # Errors
    /// It is of another form.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CniError> {
        T::deserialize(&self.json).map_err(|source| undecodable(&source))
    }

    /// Whether this call can be served at all.
    ///
    /// # Errors
    /// The version is unknown, or too old for the command; or the network's name can't be one.
    pub(crate) fn check(&self, command: Command) -> Result<(), CniError> {
        let version = self.version()?;
        if command.since() > version {
            let text = format!("config version does not allow {}", command.word());
            return Err(CniError::new(error::INCOMPATIBLE_VERSION, text));
        }
        if command != Command::Version && !is_container_id(&self.common.name) {
            let name = &self.common.name;
            return Err(CniError::config(format!("invalid characters found in network name: {name:?}")));
        }
        Ok(())
    }

    /// Its version, as a place in [`VERSIONS`].
    ///
    /// # Errors
    /// It is none of ours.
    pub(crate) fn version(&self) -> Result<usize, CniError> {
        let version = &self.common.cni_version;
        VERSIONS.iter().position(|known| known == version).ok_or_else(|| CniError {
            code: error::INCOMPATIBLE_VERSION,
            msg: "incompatible CNI versions".to_owned(),
            details: format!("config is {version:?}, plugin supports {VERSIONS:?}"),
        })
    }

    /// The result of the plugin before, if there was one.
    ///
    /// # Errors
    /// It is not one.
    pub(crate) fn previous(&self) -> Result<Option<CniResult>, CniError> {
        let read = |value| CniResult::deserialize(value).map_err(|source| undecodable(&source));
        self.common.prev_result.as_ref().map(read).transpose()
    }

    /// The result of the plugin before, for those that don't work without.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn previous_needed(&self) -> Result<CniResult, CniError> {
        let plugin = &self.common.plugin;
        self.previous()?.ok_or_else(|| CniError::config(format!("{plugin} must be called as chained plugin")))
    }
}

pub(crate) fn undecodable(source: &serde_json::Error) -> CniError {
    CniError {
        code: error::DECODING_FAILURE,
        msg: "failed to parse network configuration".to_owned(),
        details: source.to_string(),
    }
}

/// The answer to `VERSION`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Versions {
    cni_version: &'static str,
    supported_versions: [&'static str; VERSIONS.len()],
}

impl Versions {
    pub(crate) const OURS: Self = Self { cni_version: VERSIONS[VERSIONS.len() - 1], supported_versions: VERSIONS };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(command: &str, container: &str, interface: &str, arguments: &str) -> Environment {
        Environment {
            command: Some(command.to_owned()),
            container: Some(container.to_owned()),
            namespace: Some("/proc/1/ns/net".to_owned()),
            interface: Some(interface.to_owned()),
            arguments: Some(arguments.to_owned()),
        }
    }

    #[test]
    fn calls_that_make_no_sense() {
        let code = |environment| Call::new(environment).map(drop).map_err(|error| error.code);
        assert_eq!(code(environment("ADD", "abc", "eth0", "K8S_POD_NAME=a;IP=10.0.0.1")), Ok(()));
        assert_eq!(code(environment("FETCH", "abc", "eth0", "")), Err(4));
        assert_eq!(code(environment("ADD", "../abc", "eth0", "")), Err(4));
        assert_eq!(code(environment("ADD", "", "eth0", "")), Err(4));
        assert_eq!(code(environment("DEL", "abc", "a/b", "")), Err(4));
        assert_eq!(code(environment("DEL", "abc", "eth0", "nonsense")), Err(4));
        let gone = Environment { namespace: None, ..environment("DEL", "abc", "eth0", "") };
        assert_eq!(code(gone.clone()), Ok(()));
        assert_eq!(code(Environment { command: Some("ADD".to_owned()), ..gone }), Err(4));
        assert_eq!(code(Environment { command: Some("STATUS".to_owned()), ..Environment::default() }), Ok(()));
    }

    #[test]
    fn versions_and_names() {
        let check = |version: &str, name: &str, command| {
            let text = format!(r#"{{"cniVersion":"{version}","name":"{name}","type":"bridge"}}"#);
            Config::parse(text.as_bytes()).and_then(|config| config.check(command)).map_err(|error| error.code)
        };
        assert_eq!(check("1.0.0", "cbr0", Command::Add), Ok(()));
        assert_eq!(check("0.3.1", "cbr0", Command::Check), Err(1));
        assert_eq!(check("1.0.0", "cbr0", Command::Collect), Err(1));
        assert_eq!(check("1.1.0", "cbr0", Command::Collect), Ok(()));
        assert_eq!(check("2.0.0", "cbr0", Command::Add), Err(1));
        assert_eq!(check("1.0.0", "../cbr0", Command::Add), Err(7));
        assert_eq!(Config::parse(b"{").map(drop).map_err(|error| error.code), Err(6));
        assert_eq!(Config::parse(b"[]").map(drop).map_err(|error| error.code), Err(6));
    }
}
