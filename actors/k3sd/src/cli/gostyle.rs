//! Accepting command lines the way Go's flag package does.
//!
//! Go makes no difference between `-debug` and `--debug`, or `-d` and `--d`. Scripts written for K3s rely on it, clap
//! reads `-debug` as a row of short flags. So the spelling is set right first, by the flags each command has.

use clap::{Arg, Command};

/// The command line with each known flag spelled as clap wants it, and the sub-commands on the way.
pub(crate) struct Normalised {
    pub(crate) args: Vec<String>,
    pub(crate) path: Vec<String>,
}

/// Sets the spelling right. Unknown flags stay as they are, for clap to complain about.
pub(crate) fn normalise(root: &Command, args: Vec<String>) -> Normalised {
    let mut commands = vec![root];
    let mut normalised = Normalised { args: Vec::with_capacity(args.len()), path: Vec::new() };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            normalised.args.push(arg);
            normalised.args.extend(args);
            break;
        }
        let Some(body) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|body| !body.is_empty())
        else {
            let command = commands.last().and_then(|command| command.find_subcommand(&arg));
            if let Some(command) = command {
                commands.push(command);
                normalised.path.push(command.get_name().to_owned());
            }
            normalised.args.push(arg);
            continue;
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some((spelled, found)) = commands.iter().rev().find_map(|command| find(command, name)) else {
            normalised.args.push(arg);
            continue;
        };
        normalised.args.push(match value {
            Some(value) => format!("{spelled}={value}"),
            None => spelled,
        });
        let takes_next = found.is_some_and(|found| found.get_action().takes_values() && !found.is_require_equals_set());
        if takes_next && value.is_none() {
            // Whatever it looks like, it is the value.
            normalised.args.extend(args.next());
        }
    }
    normalised
}

/// The spelling clap knows the flag under, and the flag. `help` belongs to every command and to none.
fn find<'a>(command: &'a Command, name: &str) -> Option<(String, Option<&'a Arg>)> {
    if name == "help" || name == "h" {
        return Some(("--help".to_owned(), None));
    }
    let mut letters = name.chars();
    let letter = letters.next().filter(|_| letters.next().is_none());
    let is_long = |arg: &&Arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    let is_short = |arg: &&Arg| {
        letter.is_some_and(|letter| {
            arg.get_short() == Some(letter) || arg.get_all_short_aliases().is_some_and(|all| all.contains(&letter))
        })
    };
    let long = command.get_arguments().find(is_long).map(|arg| (format!("--{name}"), Some(arg)));
    long.or_else(|| command.get_arguments().find(is_short).map(|arg| (format!("-{name}"), Some(arg))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands::{Purpose, root};

    #[test]
    fn spellings() {
        let rows: [(&[&str], &[&str]); 12] = [
            (&["server", "-debug"], &["server", "--debug"]),
            (&["server", "-debug=false"], &["server", "--debug=false"]),
            (&["server", "--d", "/x"], &["server", "-d", "/x"]),
            (&["server", "--v=2"], &["server", "-v=2"]),
            (&["-data-dir", "/x", "server"], &["--data-dir", "/x", "server"]),
            (&["server", "--node-name", "-debug"], &["server", "--node-name", "-debug"]),
            (&["server", "-kube-controller-arg=a=b"], &["server", "--kube-controller-arg=a=b"]),
            (&["server", "-unknown", "-x"], &["server", "-unknown", "-x"]),
            (&["server", "--debug", "-token", "-"], &["server", "--debug", "--token", "-"]),
            (&["server", "--", "-debug"], &["server", "--", "-debug"]),
            (&["server", "-help"], &["server", "--help"]),
            (&["actors", "tree", "-output", "json"], &["actors", "tree", "--output", "json"]),
        ];
        let root = root("k3sd", Purpose::Parse);
        for (args, expected) in rows {
            let normalised = normalise(&root, args.iter().map(|arg| (*arg).to_owned()).collect());
            assert_eq!(normalised.args, expected, "{args:?}");
        }
    }

    #[test]
    fn the_path_of_sub_commands() {
        let root = root("k3sd", Purpose::Parse);
        let args = ["--debug", "etcd-snapshot", "list", "--name", "save"].map(str::to_owned);
        assert_eq!(normalise(&root, args.to_vec()).path, ["etcd-snapshot", "ls"]);
    }
}
