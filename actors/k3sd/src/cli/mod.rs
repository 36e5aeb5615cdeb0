//! The command line: which command is meant, and with which flags.
//!
//! [`parse`] is pure. It reads no file and starts nothing; what it returns says what to do.

pub mod actors;
mod arguments;
mod commands;
pub(crate) mod environment;
pub(crate) mod feature;
pub(crate) mod flag;
pub(crate) mod flags;
mod gostyle;
mod kine;
pub(crate) mod program;
pub mod version;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};
use k3sd_kine::StoreConfig;
use thiserror::Error;

use crate::config::Occurrence;

use self::actors::{ActorsCommand, ActorsOptions};
use self::commands::{Purpose, needs, root};
pub use self::environment::Environment;
pub use self::feature::Feature;
pub use self::flag::{DefaultValue, Flag, Heading, Kind, Secrecy, TurnsOff};
pub use self::flags::{REMOVED, RemovedFlag, Role};
use self::gostyle::{Normalised, normalise};
pub use self::kine::{KineOptions, MetricsOptions, for_server as kine_for_server};
pub use self::program::{Alias, Tool};

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Print this and be done: help or version.
    Print(String),
    /// Run until told to stop.
    Run {
        /// As what.
        role: Role,
        /// The flags in order, those before the sub-command first.
        command_line: Vec<Occurrence>,
    },
    /// Ask a running daemon about its actors.
    Actors {
        /// What all such commands share.
        options: ActorsOptions,
        /// The question.
        command: ActorsCommand,
    },
    /// Run the datastore alone.
    Kine(Box<KineOptions>),
    /// Print or install a completion script.
    Completion {
        /// For which shell.
        shell: CompletionShell,
        /// Install it rather than print it.
        install: bool,
    },
    /// Print a random token.
    TokenGenerate,
    /// Check the kernel's configuration.
    CheckConfig {
        /// The file to check; nothing for the running kernel's.
        file: Option<PathBuf>,
    },
    /// Become another program.
    External {
        /// Which one.
        tool: Tool,
        /// Its arguments, untouched.
        args: Vec<OsString>,
        /// The data directory, if one is named before the tool.
        data_dir: Option<String>,
    },
    /// A command whose part of the program does not exist yet.
    Unavailable {
        /// The command, with its sub-command.
        command: String,
        /// The part it needs.
        feature: Feature,
    },
}

impl Invocation {
    /// The command of a long-running process whose arguments hold what the process list must not show, if it is one.
    #[must_use]
    pub fn with_secrets(&self) -> Option<&'static str> {
        match self {
            Self::Run { role, command_line } => command_line.iter().any(holds_a_secret).then(|| role.name()),
            Self::Kine(options) => {
                let is_local = matches!(options.kine.store, StoreConfig::Sqlite(_) | StoreConfig::Memory);
                (!is_local).then_some("kine")
            }
            _ => None,
        }
    }

    /// Whether it runs until it is told to stop.
    #[must_use]
    pub const fn is_daemon(&self) -> bool {
        matches!(self, Self::Run { .. } | Self::Kine(_))
    }
}

/// Whether a flag was given something that only the process itself should know.
fn holds_a_secret(given: &Occurrence) -> bool {
    // A path is none, but the address of a config file may hold a password.
    let is_address = given.flag.name == "config" && given.text.contains("://");
    (given.flag.secrecy != Secrecy::Open || is_address) && !given.text.is_empty()
}

/// A shell that completions can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionShell {
    /// bash.
    Bash,
    /// zsh.
    Zsh,
}

/// The command line can't be understood. One line, without secrets that stand where a secret belongs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct UsageError(String);

/// All commands, for completion scripts.
#[must_use]
pub fn clap_command(program: &'static str) -> Command {
    root(program, Purpose::Show)
}

/// Understands the command line.
///
/// # Errors
/// When it names unknown commands or flags, lacks a value, or is not UTF-8 where we have to read it.
pub fn parse(environment: &Environment) -> Result<Invocation, UsageError> {
    let alias = Alias::of(&environment.argv0);
    let program = alias.program();
    let mut args = environment.args.clone();
    match alias {
        Alias::Tool(tool) => return Ok(Invocation::External { tool, args, data_dir: None }),
        Alias::SubCommand(command) => args.insert(0, command.into()),
        Alias::Program(_) => {}
    }
    let command = root(program, Purpose::Parse);
    if let Some(invocation) = external(&command, &args)? {
        return Ok(invocation);
    }
    let args = args.into_iter().map(utf8).collect::<Result<Vec<_>, _>>()?;
    let Normalised { args, path } = normalise(&command, args);
    let words = std::iter::once(program.to_owned()).chain(args.iter().cloned());
    match command.try_get_matches_from(words) {
        Ok(matches) => understand(program, &matches, environment),
        Err(error) => match error.kind() {
            // A version asked for before any sub-command is no reason to miss one.
            _ if path.is_empty() && args.iter().any(|arg| arg == "-v" || arg == "--version") => {
                Ok(Invocation::Print(version::text(program)))
            }
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::MissingSubcommand => Ok(Invocation::Print(help(program, &path, &args))),
            _ => Err(one_line(program, &path, &error)),
        },
    }
}

fn utf8(arg: OsString) -> Result<String, UsageError> {
    arg.into_string().map_err(|arg| UsageError(format!("argument {arg:?} is not UTF-8 text")))
}

/// Finds a tool's name behind nothing but flags of our own. What follows it is not ours to look at.
fn external(command: &Command, args: &[OsString]) -> Result<Option<Invocation>, UsageError> {
    let globals = command.clone().subcommand_required(false).arg_required_else_help(false).no_binary_name(true);
    for (position, arg) in args.iter().enumerate() {
        let Some(tool) = arg.to_str().and_then(Tool::named) else { continue };
        let before = args[..position].iter().cloned().map(utf8).collect::<Result<Vec<_>, _>>()?;
        // Anything else before the name makes it a value or an argument: `-d kubectl`, `completion kubectl`.
        let Ok(matches) = globals.clone().try_get_matches_from(normalise(command, before).args) else { continue };
        if matches.subcommand().is_none() && !matches.get_flag("version") {
            let data_dir = matches.get_many::<String>("data-dir").and_then(|mut values| values.next_back().cloned());
            return Ok(Some(Invocation::External { tool, args: args[position + 1..].to_vec(), data_dir }));
        }
    }
    Ok(None)
}

fn understand(
    program: &'static str,
    matches: &ArgMatches,
    environment: &Environment,
) -> Result<Invocation, UsageError> {
    let (name, sub_matches) = matches.subcommand().expect("clap demands a sub-command");
    let sub_command = sub_matches.subcommand_name();
    if let Some(feature) = needs(name, sub_command) {
        let command = sub_command.map_or_else(|| name.to_owned(), |sub_command| format!("{name} {sub_command}"));
        return Ok(Invocation::Unavailable { command, feature });
    }
    match name {
        "server" => run(program, Role::Server, matches, sub_matches),
        "agent" => run(program, Role::Agent, matches, sub_matches),
        "actors" => {
            let (options, command) = actors::read(sub_matches, environment);
            Ok(Invocation::Actors { options, command })
        }
        "kine" => {
            let debug = switch_is_on("--debug", matches, "debug")?;
            Ok(Invocation::Kine(Box::new(kine::read(sub_matches, environment, debug)?)))
        }
        "completion" => {
            let is_zsh = sub_matches.get_one::<String>("shell").is_some_and(|shell| shell == "zsh");
            let shell = if is_zsh { CompletionShell::Zsh } else { CompletionShell::Bash };
            Ok(Invocation::Completion { shell, install: switch_is_on("-i", sub_matches, "i")? })
        }
        "token" => Ok(Invocation::TokenGenerate),
        "check-config" => {
            let file = sub_matches.get_one::<String>("file").map(|file| environment.absolute(file));
            Ok(Invocation::CheckConfig { file })
        }
        other => unreachable!("clap found a command {other} that nobody handles"),
    }
}

/// The last value of a switch.
fn switch_is_on(spelled: &str, matches: &ArgMatches, id: &str) -> Result<bool, UsageError> {
    let value = matches.get_many::<String>(id).and_then(|mut values| values.next_back());
    let parse = |text: &String| crate::config::scalar::parse_bool(text);
    value.map_or(Ok(false), parse).map_err(|error| UsageError(format!("{spelled}: its value {error}")))
}

/// The flags of `server` and `agent`. Values are looked at later, together with those of the config file.
fn run(program: &'static str, role: Role, global: &ArgMatches, matches: &ArgMatches) -> Result<Invocation, UsageError> {
    if matches.get_flag("version") || global.get_flag("version") {
        return Ok(Invocation::Print(version::text(program)));
    }
    if let Some(removed) = REMOVED.iter().find(|removed| matches.contains_id(removed.name)) {
        return Err(UsageError(format!("--{} was removed; {}", removed.name, removed.instead)));
    }
    let mut command_line = Vec::new();
    for flag in role.flags() {
        let before = global.try_get_many::<String>(flag.name).ok().flatten().unwrap_or_default();
        let after = matches.get_many::<String>(flag.name).unwrap_or_default();
        command_line.extend(before.chain(after).map(|text| Occurrence { flag, text: text.clone() }));
    }
    Ok(Invocation::Run { role, command_line })
}

/// The help of the command that was reached, with switches shown as plain flags.
fn help(program: &'static str, path: &[String], args: &[String]) -> String {
    // `help server` reaches the command `help`, and means the words behind it.
    let words: Vec<String> = match path {
        [help, ..] if help == "help" => args.iter().skip_while(|arg| *arg != "help").skip(1).cloned().collect(),
        _ if args.first().is_some_and(|arg| arg == "help") => args[1..].to_vec(),
        path => path.to_vec(),
    };
    let words = std::iter::once(program.to_owned()).chain(words).chain(["--help".to_owned()]);
    match root(program, Purpose::Show).try_get_matches_from(words) {
        Err(error) => error.to_string(),
        Ok(_) => unreachable!("clap answers --help with a help text"),
    }
}

/// clap's complaint without the usage that follows it, and where to look instead.
fn one_line(program: &str, path: &[String], error: &clap::Error) -> UsageError {
    let text = error.to_string();
    let complaint = text.split("\n\nUsage:").next().unwrap_or_default();
    let complaint = complaint.split("\n\nFor more information").next().unwrap_or_default();
    let lines = complaint.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = lines.collect::<Vec<_>>().join("; ").replace(":; ", ": ");
    if let Some(stripped) = line.strip_prefix("error: ") {
        line = stripped.to_owned();
    }
    let is_boolean = ["'true' found", "'false' found"].iter().any(|word| line.contains(word));
    let hint = if is_boolean { "; a switch takes its value after =, as in --debug=false" } else { "" };
    let path: String = path.iter().map(|command| format!(" {command}")).collect();
    UsageError(format!("{line}{hint}; see `{program}{path} --help`"))
}

#[cfg(test)]
mod tests;
