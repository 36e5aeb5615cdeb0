//! Turning rows of the flag tables into clap arguments.

use clap::{Arg, ArgAction, Command};

use crate::cli::flag::{DefaultValue, Flag, Kind};
use crate::cli::flags::{REMOVED, Role};

/// What a command is built for. A switch is parsed as `--switch` or `--switch=BOOL`, but shown as `--switch` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Parse,
    Show,
}

/// The argument for a flag.
pub(crate) fn arg(flag: &'static Flag, purpose: Purpose) -> Arg {
    let mut arg = match flag.kind {
        Kind::Bool => switch(flag.name, purpose),
        Kind::OptionalText => switch(flag.name, purpose).value_name("FORMAT"),
        Kind::Text | Kind::Duration | Kind::Mode | Kind::Int | Kind::List => value(flag.name, value_name(flag.kind)),
    };
    if flag.name.len() > 1 {
        arg = arg.long(flag.name).aliases(flag.aliases);
    }
    if let Some(short) = flag.short {
        arg = arg.short(short);
    }
    arg.help(help(flag)).help_heading(flag.heading.title()).hide(flag.hidden)
}

/// An argument with a value, given as often as one likes. The value is whatever comes next, dashes or not.
pub(crate) fn value(id: &'static str, value_name: &'static str) -> Arg {
    Arg::new(id).action(ArgAction::Append).num_args(1).value_name(value_name).allow_hyphen_values(true)
}

/// An argument whose value may be left out, and is attached with `=` if not.
pub(crate) fn switch(id: &'static str, purpose: Purpose) -> Arg {
    match purpose {
        Purpose::Parse => Arg::new(id)
            .action(ArgAction::Append)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL"),
        Purpose::Show => Arg::new(id).action(ArgAction::SetTrue),
    }
}

const fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "BOOL",
        Kind::Text | Kind::OptionalText | Kind::List => "VALUE",
        Kind::Int => "NUMBER",
        Kind::Duration => "DURATION",
        Kind::Mode => "MODE",
    }
}

/// What the flag means, where else it can be set and what it is otherwise.
fn help(flag: &Flag) -> String {
    let mut help = flag.meaning.to_owned();
    if let Some(instead) = flag.deprecated {
        help.push_str(&format!(" (deprecated, use {instead})"));
    }
    for name in flag.env {
        help.push_str(&format!(" [env: {name}]"));
    }
    match flag.default {
        DefaultValue::Unset => {}
        DefaultValue::Text("false") if flag.kind == Kind::Bool => {}
        DefaultValue::Text(text) | DefaultValue::Derived(text) => help.push_str(&format!(" [default: {text}]")),
    }
    help
}

/// The command `server` or `agent`.
pub(crate) fn role_command(role: Role, purpose: Purpose) -> Command {
    let about = match role {
        Role::Server => "Run the control plane, and a node on the same machine",
        Role::Agent => "Run a node that joins a cluster",
    };
    // Removed flags are parsed so that the answer can name their successor.
    let removed = REMOVED.iter().map(|flag| Arg::new(flag.name).long(flag.name).num_args(0..=1).hide(true));
    Command::new(role.name())
        .about(about)
        .args(role.flags_by_heading().into_iter().map(|flag| arg(flag, purpose)))
        .args(removed)
        .arg(Arg::new("version").long("version").action(ArgAction::SetTrue).hide(true))
}
