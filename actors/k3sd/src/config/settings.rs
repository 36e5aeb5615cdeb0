//! What each flag is set to, and by whom, once config files, command line, variables and defaults are put together.
//!
//! The order of precedence is K3s's: the config file counts as the start of the command line, so flags written there
//! come first and those on the real command line win over them, or add to them if they are lists. Variables count only
//! for flags that neither of the two has, and defaults only where no variable is set.

use std::collections::BTreeMap;

use crate::cli::flag::{DefaultValue, Flag, Kind};
use crate::cli::flags::{Role, removed};
use crate::config::error::ConfigError;
use crate::config::merge::{FileValue, MergedKey};
use crate::config::origin::{Origin, dashed};
use crate::config::scalar;
use crate::config::yaml::Node;

/// A flag as found on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// The flag.
    pub flag: &'static Flag,
    /// Its value; `true` for a bare switch.
    pub text: String,
}

/// One value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The value as written.
    pub text: String,
    /// Who wrote it.
    pub origin: Origin,
}

/// A flag and what counts for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The flag.
    pub flag: &'static Flag,
    /// The value that counts; several, in order, for a list. Empty when nobody set the flag.
    pub given: Vec<Given>,
}

impl Setting {
    /// Whether somebody set the flag.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.given.is_empty()
    }

    /// The text that counts, the default's included; empty text counts as not given. For a list, its last item.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let default = match self.flag.default {
            DefaultValue::Text(text) => Some(text),
            DefaultValue::Unset | DefaultValue::Derived(_) => None,
        };
        self.given.last().map(|given| given.text.as_str()).filter(|text| !text.is_empty()).or(default)
    }

    /// Who set the value that counts.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        self.given.last().map_or(&Origin::Default, |given| &given.origin)
    }

    /// Whether somebody set the flag to something else than its default.
    #[must_use]
    pub fn differs_from_default(&self) -> bool {
        let kind = self.flag.kind;
        let is_usual = |given: &Given| self.flag.usual.iter().any(|usual| scalar::same(kind, &given.text, usual));
        if self.given.iter().all(is_usual) {
            return false;
        }
        match (kind, self.flag.default) {
            (_, DefaultValue::Text(default)) => {
                self.text().is_some_and(|text| self.is_set() && !scalar::same(kind, text, default))
            }
            (Kind::List, _) => self.given.iter().any(|given| !given.text.is_empty()),
            // Zero is how K3s writes "work it out" for a port or a count.
            (Kind::Int, _) => self.text().is_some_and(|text| scalar::parse_int(text) != Ok(0)),
            _ => self.text().is_some(),
        }
    }
}

/// All flags of a command with what counts for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The command.
    pub role: Role,
    /// Group by group, as [`Role::flags_by_heading`] orders them.
    pub all: Vec<Setting>,
    /// What was strange but is no reason to stop, each in one line.
    pub warnings: Vec<String>,
}

impl Settings {
    /// The setting of a flag.
    ///
    /// # Panics
    /// When the command has no flag of this name, which is a mistake in the caller.
    #[must_use]
    pub fn get(&self, name: &str) -> &Setting {
        let setting = self.all.iter().find(|setting| setting.flag.name == name);
        setting.unwrap_or_else(|| panic!("`{}` has no flag --{name}", self.role.name()))
    }
}

/// Puts everything together.
///
/// # Errors
/// On a value that is not of its flag's kind, whether or not another one overrides it; on a flag that K3s removed; and,
/// for `agent`, on a key that names no flag. For `server` such a key becomes a warning, because one file often serves
/// both commands.
pub(crate) fn resolve(
    role: Role,
    keys: &[MergedKey],
    command_line: &[Occurrence],
    variables: &BTreeMap<String, String>,
) -> Result<Settings, ConfigError> {
    let unset = |flag| Setting { flag, given: Vec::new() };
    let mut all: Vec<Setting> = role.flags_by_heading().into_iter().map(unset).collect();
    let mut warnings = Vec::new();
    for key in keys {
        let Some(flag) = flag_of(role, key, &mut warnings)? else { continue };
        let setting = setting_of(&mut all, flag);
        for value in &key.values {
            setting.given.extend(given(flag, value)?);
        }
    }
    for Occurrence { flag, text } in command_line {
        let given = Given { text: text.clone(), origin: Origin::CommandLine };
        setting_of(&mut all, flag).given.push(given);
    }
    for setting in &mut all {
        if setting.given.is_empty() {
            setting.given.extend(from_variable(setting.flag, variables));
        }
        for Given { text, origin } in &setting.given {
            scalar::check(setting.flag.kind, text)
                .map_err(|error| ConfigError::scalar(setting.flag, origin, text, &error))?;
        }
        if setting.flag.kind != Kind::List {
            let superseded = setting.given.len().saturating_sub(1);
            setting.given.drain(..superseded);
        }
        warnings.extend(deprecation(setting));
    }
    Ok(Settings { role, all, warnings })
}

fn setting_of<'a>(all: &'a mut [Setting], flag: &Flag) -> &'a mut Setting {
    all.iter_mut().find(|setting| setting.flag.name == flag.name).expect("the flag is one of the command's")
}

/// The flag a key of the config file stands for; nothing, and a warning, when it has no effect.
fn flag_of(role: Role, key: &MergedKey, warnings: &mut Vec<String>) -> Result<Option<&'static Flag>, ConfigError> {
    let MergedKey { key, path, line, .. } = key;
    if let Some(flag) = removed(key) {
        let place = format!("{}:{line}: {key}", path.display());
        return Err(ConfigError::Removed { place, instead: flag.instead });
    }
    match role.flag(key) {
        Some(flag) if flag.name == "config" => {
            warnings.push(format!("{}:{line}: {key}: a config file can't name another one, ignored", path.display()));
            Ok(None)
        }
        Some(flag) => Ok(Some(flag)),
        None if role == Role::Server => {
            warnings.push(format!("{}:{line}: {key}: `server` has no such flag, ignored", path.display()));
            Ok(None)
        }
        None => Err(ConfigError::UnknownKey {
            path: path.to_path_buf(),
            line: *line,
            key: key.clone(),
            command: role.name(),
        }),
    }
}

/// What a value of the config file means for its flag. `null` leaves a text or a list empty.
fn given(flag: &Flag, value: &FileValue) -> Result<Option<Given>, ConfigError> {
    let origin = Origin::File { path: value.path.clone(), line: value.line, key: value.key.clone() };
    let problem = |problem: &str| {
        let wanted = match flag.kind {
            Kind::Bool => "true or false",
            Kind::Int => "a whole number",
            Kind::Duration => "a duration such as 10m",
            Kind::Mode => "an octal mode such as \"0600\"",
            Kind::Text | Kind::OptionalText => "text",
            Kind::List => "text, or a list of texts",
        };
        ConfigError::value(flag, &origin, format!("{problem}; --{} takes {wanted}", flag.name))
    };
    let text = match &value.node {
        Node::Mapping => return Err(problem("is a mapping")),
        Node::List(_) => return Err(problem("is a list inside a list")),
        Node::Null => match flag.kind {
            Kind::List => return Ok(None),
            Kind::Text => String::new(),
            _ => return Err(problem("has no value")),
        },
        Node::Scalar(scalar) => match scalar.boolean {
            Some(boolean) if flag.kind == Kind::Bool => boolean.to_string(),
            _ => scalar.text.clone(),
        },
    };
    Ok(Some(Given { text, origin }))
}

/// The first of the flag's variables that holds something.
fn from_variable(flag: &Flag, variables: &BTreeMap<String, String>) -> Option<Given> {
    flag.env.iter().find_map(|name| {
        let text = variables.get(*name).filter(|text| !text.is_empty())?.clone();
        Some(Given { text, origin: Origin::Variable(name) })
    })
}

fn deprecation(setting: &Setting) -> Option<String> {
    let instead = setting.flag.deprecated.filter(|_| setting.is_set())?;
    Some(format!("{} ({}) is deprecated; use {instead}", dashed(setting.flag), setting.origin().set_by()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::merge::{ConfigFile, merge};
    use crate::config::yaml;

    fn resolve_texts(
        role: Role,
        files: &[&str],
        command_line: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> Result<Settings, ConfigError> {
        let file = |(index, text): (usize, &&str)| ConfigFile {
            path: Path::new(&format!("/{index}.yaml")).into(),
            entries: yaml::parse(text).unwrap(),
        };
        let files: Vec<_> = files.iter().enumerate().map(file).collect();
        let occurrence =
            |(name, text): &(&str, &str)| Occurrence { flag: role.flag(name).unwrap(), text: (*text).to_owned() };
        let command_line: Vec<_> = command_line.iter().map(occurrence).collect();
        let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        resolve(role, &merge(&files), &command_line, &variables)
    }

    /// `text (origin)` of each value that counts.
    fn show(settings: &Settings, name: &str) -> Vec<String> {
        settings.get(name).given.iter().map(|given| format!("{} ({})", given.text, given.origin)).collect()
    }

    #[test]
    fn the_nearest_to_the_user_wins() {
        let file = &["data-dir: /file"][..];
        let flag = &[("data-dir", "/flag")][..];
        let variable = &[("K3S_DATA_DIR", "/var")][..];
        let rows = [
            (&[][..], &[][..], &[][..], ""),
            (&[], &[], variable, "/var (env K3S_DATA_DIR)"),
            (file, &[], variable, "/file (/0.yaml:1)"),
            (file, flag, variable, "/flag (command line)"),
            (&[], flag, variable, "/flag (command line)"),
            (&["d: /short"], &[], &[], "/short (/0.yaml:1)"),
            (&["d: /short\ndata-dir: /long"], &[], &[], "/long (/0.yaml:2)"),
            // The key stays where it was first seen, so the other spelling still comes later.
            (&["d: /short\ndata-dir: /long", "d: /late"], &[], &[], "/long (/0.yaml:2)"),
            (&["data-dir: [/one, /two]"], &[], &[], "/two (/0.yaml:1)"),
            (&[], &[], &[("K3S_DATA_DIR", "")], ""),
        ];
        for (files, command_line, variables, expected) in rows {
            let settings = resolve_texts(Role::Server, files, command_line, variables).unwrap();
            assert_eq!(show(&settings, "data-dir").join(" "), expected, "{files:?} {command_line:?} {variables:?}");
        }
    }

    #[test]
    fn lists_add_up_from_file_to_command_line() {
        let settings = resolve_texts(
            Role::Server,
            &["tls-san: [a, b]", "tls-san+: c"],
            &[("tls-san", "d,e"), ("tls-san", "f")],
            &[],
        );
        let expected = ["a (/0.yaml:1)", "b (/0.yaml:1)", "c (/1.yaml:1)", "d,e (command line)", "f (command line)"];
        assert_eq!(show(&settings.unwrap(), "tls-san"), expected);
    }

    #[test]
    fn values_keep_their_spelling_and_booleans_their_meaning() {
        let text =
            "write-kubeconfig-mode: 0644\nnode-name: on\ncluster-init: yes\nselinux: \"T\"\ntoken: 12.50\nserver:\n";
        let settings = resolve_texts(Role::Server, &[text], &[], &[]).unwrap();
        let rows = [
            ("write-kubeconfig-mode", "0644"),
            ("node-name", "on"),
            ("cluster-init", "true"),
            ("selinux", "T"),
            ("token", "12.50"),
            ("server", ""),
        ];
        for (name, text) in rows {
            assert_eq!(settings.get(name).given[0].text, text, "{name}");
        }
    }

    #[test]
    fn wrong_types_are_located() {
        let rows: [(&str, &str); 10] = [
            ("\ndata-dir: {a: b}", "/0.yaml:2: data-dir: is a mapping; --data-dir takes text"),
            ("tls-san: [[a]]", "/0.yaml:1: tls-san: is a list inside a list; --tls-san takes text, or a list of texts"),
            ("debug: maybe", "/0.yaml:1: debug: \"maybe\" is not a boolean; write true or false"),
            ("debug: \"yes\"", "/0.yaml:1: debug: \"yes\" is not a boolean; write true or false"),
            ("debug:", "/0.yaml:1: debug: has no value; --debug takes true or false"),
            (
                "https-listen-port: many",
                "/0.yaml:1: https-listen-port: \"many\" is not a whole number; write one such as 5",
            ),
            ("v: 1.5", "/0.yaml:1: v: \"1.5\" is not a whole number; write one such as 5"),
            (
                "etcd-s3-timeout: 5",
                "/0.yaml:1: etcd-s3-timeout: \"5\" is not a duration; write one such as 1h30m, 10m or 30s",
            ),
            (
                "write-kubeconfig-mode: rw",
                "/0.yaml:1: write-kubeconfig-mode: \"rw\" is not an octal file mode; write one such as 0600",
            ),
            ("no-deploy: traefik", "/0.yaml:1: no-deploy was removed; use --disable with the same names"),
        ];
        for (text, expected) in rows {
            let error = resolve_texts(Role::Server, &[text], &[], &[]).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn wrong_values_elsewhere_name_flag_or_variable() {
        let error = resolve_texts(Role::Server, &[], &[("debug", "maybe")], &[]).unwrap_err();
        assert_eq!(error.to_string(), "--debug: \"maybe\" is not a boolean; write true or false");
        let error = resolve_texts(Role::Agent, &[], &[], &[("K3S_DEBUG", "maybe")]).unwrap_err();
        let expected = "environment variable K3S_DEBUG (--debug): \"maybe\" is not a boolean; write true or false";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_overridden_mistake_is_still_one() {
        let error = resolve_texts(Role::Server, &["debug: maybe"], &[("debug", "true")], &[]).unwrap_err();
        assert!(error.to_string().starts_with("/0.yaml:1: debug:"), "{error}");
    }

    #[test]
    fn unknown_keys_warn_a_server_and_stop_an_agent() {
        let text = "debug: true\ncluster-cidre: 10.0.0.0/8\nconfig: /other\n";
        let settings = resolve_texts(Role::Server, &[text], &[], &[]).unwrap();
        assert_eq!(
            settings.warnings,
            [
                "/0.yaml:2: cluster-cidre: `server` has no such flag, ignored",
                "/0.yaml:3: config: a config file can't name another one, ignored",
            ]
        );
        let error = resolve_texts(Role::Agent, &[text], &[], &[]).unwrap_err().to_string();
        assert!(error.starts_with("/0.yaml:2: cluster-cidre: `agent` has no such flag"), "{error}");
    }

    #[test]
    fn deprecated_flags_warn() {
        let settings = resolve_texts(Role::Server, &[], &[("helm-job-image", "x")], &[]).unwrap();
        assert_eq!(settings.warnings.len(), 1);
        assert!(settings.warnings[0].starts_with("--helm-job-image (set on the command line) is deprecated"));
    }

    #[test]
    fn defaults_written_out_are_still_defaults() {
        let rows = [
            ("https-listen-port", "6443", false),
            ("https-listen-port", "0x192b", false),
            ("https-listen-port", "443", true),
            ("write-kubeconfig-mode", "600", false),
            ("etcd-s3-timeout", "300s", false),
            ("cluster-domain", "cluster.local", false),
            ("cluster-domain", "", false),
            ("docker", "F", false),
            ("docker", "1", true),
            ("tls-san-security", "false", true),
            ("advertise-port", "0", false),
            ("advertise-port", "443", true),
            ("advertise-port", "6443", false),
            ("cluster-cidr", "10.42.0.0/16", false),
            ("cluster-cidr", "10.42.0.0/17", true),
            ("tls-san", "", false),
            ("tls-san", "a", true),
            ("token", "", false),
            ("token", "a", true),
        ];
        for (name, text, differs) in rows {
            let settings = resolve_texts(Role::Server, &[], &[(name, text)], &[]).unwrap();
            assert_eq!(settings.get(name).differs_from_default(), differs, "--{name}={text}");
            let untouched = resolve_texts(Role::Server, &[], &[], &[]).unwrap();
            assert!(!untouched.get(name).differs_from_default());
        }
    }
}
