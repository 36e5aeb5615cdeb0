//! `actors ...`: what can be asked of a running daemon's actor tree, as types.
//!
//! Only the words are understood here. Carrying them out is `crate::actors_command`'s business.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cli::environment::Environment;
use crate::cli::flags::{DEFAULT_INSPECT_SOCKET, INSPECT_SOCKET_VAR};
use crate::config::scalar;

/// How many messages `trace` shows unless told otherwise.
const TRACE_LIMIT_DEFAULT: &str = "100";
/// Most messages one `trace` may ask for; a trace costs the traced actor time.
const TRACE_LIMIT_MAX: i64 = 100_000;
/// How long `trace` watches unless told otherwise.
const TRACE_DURATION_DEFAULT: &str = "10s";
/// Longest time one `trace` may watch.
const TRACE_DURATION_MAX: Duration = Duration::from_secs(3600);
/// Time between two pictures of `top` unless told otherwise.
const TOP_INTERVAL_DEFAULT: &str = "2s";
/// Shortest time between two pictures of `top`; below it, looking costs more than what is looked at.
const TOP_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What all `actors` commands share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorsOptions {
    /// The daemon's inspection socket.
    pub socket: PathBuf,
    /// How the answer is written.
    pub output: ActorsOutput,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorsOutput {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is asked about the tree, or done to it. An actor is named by its path, such as `server/kine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActorsCommand {
    /// Show the tree.
    Tree {
        /// Only what stays the same while it runs.
        plain: bool,
    },
    /// Show the actors with their counters, over and over.
    Top {
        /// What the list is sorted by, largest first.
        sort: TopSort,
        /// Time between two pictures.
        interval: Duration,
    },
    /// Show everything known about one actor.
    Show {
        /// The actor.
        path: String,
    },
    /// Show the messages an actor handles, without their contents, until one of the limits is reached.
    Trace {
        /// The actor.
        path: String,
        /// Most messages to show, at least 1.
        limit: u32,
        /// Longest time to watch.
        duration: Duration,
    },
    /// Show what happens to actors, as it happens.
    Events(EventsWish),
    /// End one incarnation of an actor, so that its supervisor decides what happens.
    Kill {
        /// The actor.
        path: String,
        /// In which way it ends.
        how: KillHow,
    },
    /// Let an actor handle no further messages.
    Suspend {
        /// The actor.
        path: String,
    },
    /// Let a suspended actor go on.
    Resume {
        /// The actor.
        path: String,
    },
}

/// Which events, and for how long. Without a limit or a duration it goes on until the daemon ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventsWish {
    /// Only those of this actor and the ones below it.
    pub path: Option<String>,
    /// Most events to show, at least 1.
    pub limit: Option<u32>,
    /// Longest time to listen.
    pub duration: Option<Duration>,
}

/// What `top` sorts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopSort {
    /// Messages waiting.
    Mailbox,
    /// Messages handled per second.
    Messages,
    /// Share of the time spent in handlers.
    Busy,
    /// Restarts so far.
    Restarts,
    /// Age of the present life.
    Uptime,
    /// The path, in alphabetical order.
    Path,
}

/// In which way `kill` ends an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillHow {
    /// Drop it at its next await.
    Kill,
    /// Make its handler panic.
    Panic,
    /// Let it finish the message at hand.
    Stop,
}

const SORTS: [(&str, TopSort); 6] = [
    ("mailbox", TopSort::Mailbox),
    ("messages", TopSort::Messages),
    ("busy", TopSort::Busy),
    ("restarts", TopSort::Restarts),
    ("uptime", TopSort::Uptime),
    ("path", TopSort::Path),
];
const HOWS: [(&str, KillHow); 3] = [("kill", KillHow::Kill), ("panic", KillHow::Panic), ("stop", KillHow::Stop)];
const OUTPUTS: [(&str, ActorsOutput); 2] = [("text", ActorsOutput::Text), ("json", ActorsOutput::Json)];

/// An option that takes one of a few words.
fn choice<T>(id: &'static str, words: &[(&'static str, T)]) -> Arg {
    Arg::new(id).long(id).value_parser(PossibleValuesParser::new(words.iter().map(|(word, _)| *word)))
}

/// The value behind the word that was chosen.
fn chosen<T: Copy>(matches: &ArgMatches, id: &str, words: &[(&'static str, T)]) -> T {
    let word = matches.get_one::<String>(id).expect("the option has a default");
    words.iter().find(|(candidate, _)| candidate == word).expect("the parser knows these words only").1
}

/// The clap command `actors`.
pub(crate) fn command() -> Command {
    let path = || Arg::new("path").value_name("PATH").required(true).help("The actor, such as server/kine");
    let control = "; needs a daemon started with --debug-actor-control";
    Command::new("actors")
        .about("Look into the actor tree of a running daemon")
        .subcommand_required(true)
        .arg(Arg::new("inspect-socket").long("inspect-socket").value_name("SOCKET").global(true).help(format!(
            "The daemon's inspection socket [env: {INSPECT_SOCKET_VAR}] [default: {DEFAULT_INSPECT_SOCKET}]"
        )))
        .arg(choice("output", &OUTPUTS).short('o').global(true).default_value("text").help("How the answer is written"))
        .subcommand(
            Command::new("tree").about("Show the tree").arg(
                Arg::new("plain")
                    .long("plain")
                    .action(ArgAction::SetTrue)
                    .help("Only what stays the same while it runs: no counters, no children that come and go"),
            ),
        )
        .subcommand(
            Command::new("top")
                .about("Show the busiest actors, over and over")
                .arg(choice("sort", &SORTS).default_value("mailbox").help("What comes first"))
                .arg(duration("interval", TOP_INTERVAL_DEFAULT).help("Time between two pictures")),
        )
        .subcommand(Command::new("show").about("Show everything known about one actor").arg(path()))
        .subcommand(
            Command::new("trace")
                .about("Show which messages an actor handles, but not what is in them")
                .arg(path())
                .arg(
                    Arg::new("limit")
                        .long("limit")
                        .value_name("N")
                        .default_value(TRACE_LIMIT_DEFAULT)
                        .value_parser(clap::value_parser!(u32).range(1..=TRACE_LIMIT_MAX))
                        .help("Stop after this many messages"),
                )
                .arg(duration("for", TRACE_DURATION_DEFAULT).help("Stop after this time")),
        )
        .subcommand(
            Command::new("events")
                .about("Show starts, deaths and restarts as they happen, until interrupted")
                .arg(path().required(false).help("Only this actor and those below it"))
                .arg(
                    Arg::new("events-limit")
                        .long("limit")
                        .value_name("N")
                        .value_parser(clap::value_parser!(u32).range(1..))
                        .help("Stop after this many events"),
                )
                .arg(
                    Arg::new("events-for")
                        .long("for")
                        .value_name("DURATION")
                        .value_parser(|text: &str| scalar::parse_duration(text).map_err(|error| error.to_string()))
                        .help("Stop after this time"),
                ),
        )
        .subcommand(
            Command::new("kill")
                .about(format!("End an actor, so that its supervisor restarts it{control}"))
                .arg(path())
                .arg(choice("how", &HOWS).default_value("kill").help("In which way it ends")),
        )
        .subcommand(
            Command::new("suspend").about(format!("Let an actor handle no further messages{control}")).arg(path()),
        )
        .subcommand(Command::new("resume").about(format!("Let a suspended actor go on{control}")).arg(path()))
}

fn duration(id: &'static str, default: &'static str) -> Arg {
    Arg::new(id).long(id).value_name("DURATION").default_value(default).value_parser(move |text: &str| {
        let duration = scalar::parse_duration(text).map_err(|error| error.to_string())?;
        match id {
            "interval" if duration < TOP_INTERVAL_MIN => Err(format!("is shorter than {TOP_INTERVAL_MIN:?}")),
            "for" if duration.is_zero() || duration > TRACE_DURATION_MAX => {
                Err("is not between 1ns and 1h, the longest one trace may take".to_owned())
            }
            _ => Ok(duration),
        }
    })
}

/// Turns what clap found into types. `matches` are those of the command `actors`.
pub(crate) fn read(matches: &ArgMatches, environment: &Environment) -> (ActorsOptions, ActorsCommand) {
    let (name, matches) = matches.subcommand().expect("clap demands a sub-command");
    let socket = matches
        .get_one::<String>("inspect-socket")
        .map(String::as_str)
        .or_else(|| environment.var(INSPECT_SOCKET_VAR))
        .unwrap_or(DEFAULT_INSPECT_SOCKET);
    let options = ActorsOptions { socket: environment.absolute(socket), output: chosen(matches, "output", &OUTPUTS) };
    let path = || matches.get_one::<String>("path").cloned().expect("clap demands the path");
    let duration = |id| *matches.get_one::<Duration>(id).expect("the option has a default");
    let command = match name {
        "tree" => ActorsCommand::Tree { plain: matches.get_flag("plain") },
        "top" => ActorsCommand::Top { sort: chosen(matches, "sort", &SORTS), interval: duration("interval") },
        "show" => ActorsCommand::Show { path: path() },
        "trace" => ActorsCommand::Trace {
            path: path(),
            limit: *matches.get_one("limit").expect("the option has a default"),
            duration: duration("for"),
        },
        "events" => ActorsCommand::Events(EventsWish {
            path: matches.get_one("path").cloned(),
            limit: matches.get_one("events-limit").copied(),
            duration: matches.get_one("events-for").copied(),
        }),
        "kill" => ActorsCommand::Kill { path: path(), how: chosen(matches, "how", &HOWS) },
        "suspend" => ActorsCommand::Suspend { path: path() },
        "resume" => ActorsCommand::Resume { path: path() },
        other => unreachable!("clap found a command {other} that nobody defined"),
    };
    (options, command)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn parse(words: &[&str], socket_var: Option<&str>) -> Result<(ActorsOptions, ActorsCommand), String> {
        let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
        environment.vars.extend(socket_var.map(|value| (INSPECT_SOCKET_VAR.to_owned(), value.to_owned())));
        let words = ["actors"].iter().chain(words);
        let matches = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        Ok(read(&matches, &environment))
    }

    #[test]
    fn each_command_is_understood() {
        let path = || "server/kine".to_owned();
        let rows: [(&[&str], ActorsCommand); 12] = [
            (&["tree"], ActorsCommand::Tree { plain: false }),
            (&["tree", "--plain"], ActorsCommand::Tree { plain: true }),
            (&["top"], ActorsCommand::Top { sort: TopSort::Mailbox, interval: Duration::from_secs(2) }),
            (
                &["top", "--sort", "restarts", "--interval=500ms"],
                ActorsCommand::Top { sort: TopSort::Restarts, interval: Duration::from_millis(500) },
            ),
            (&["show", "server/kine"], ActorsCommand::Show { path: path() }),
            (
                &["trace", "server/kine"],
                ActorsCommand::Trace { path: path(), limit: 100, duration: Duration::from_secs(10) },
            ),
            (
                &["trace", "server/kine", "--limit", "3", "--for", "1m30s"],
                ActorsCommand::Trace { path: path(), limit: 3, duration: Duration::from_secs(90) },
            ),
            (&["events"], ActorsCommand::Events(EventsWish::default())),
            (
                &["events", "server/kine", "--limit=3", "--for=2h"],
                ActorsCommand::Events(EventsWish {
                    path: Some(path()),
                    limit: Some(3),
                    duration: Some(Duration::from_secs(7200)),
                }),
            ),
            (&["kill", "server/kine"], ActorsCommand::Kill { path: path(), how: KillHow::Kill }),
            (&["kill", "--how", "panic", "server/kine"], ActorsCommand::Kill { path: path(), how: KillHow::Panic }),
            (&["resume", "server/kine"], ActorsCommand::Resume { path: path() }),
        ];
        for (words, command) in rows {
            assert_eq!(parse(words, None).map(|(_, command)| command), Ok(command), "{words:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let rows: [&[&str]; 10] = [
            &[],
            &["events", "--limit", "0"],
            &["events", "--for", "soon"],
            &["show"],
            &["trace", "a", "--limit", "0"],
            &["trace", "a", "--for", "0"],
            &["trace", "a", "--for", "2h"],
            &["top", "--interval", "1ms"],
            &["kill", "a", "--how", "gently"],
            &["tree", "-o", "yaml"],
        ];
        for words in rows {
            assert!(parse(words, None).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_socket_comes_from_flag_then_variable_then_default() {
        let socket = |words: &[&str], var| parse(words, var).map(|(options, _)| options.socket);
        assert_eq!(socket(&["tree"], None), Ok(DEFAULT_INSPECT_SOCKET.into()));
        assert_eq!(socket(&["tree"], Some("/var.sock")), Ok("/var.sock".into()));
        assert_eq!(socket(&["tree", "--inspect-socket", "/flag.sock"], Some("/var.sock")), Ok("/flag.sock".into()));
        assert_eq!(socket(&["--inspect-socket=rel.sock", "tree"], None), Ok("/rel.sock".into()));
    }

    #[test]
    fn output_goes_before_or_after_the_command() {
        for words in [&["-o", "json", "tree"][..], &["tree", "-o", "json"], &["tree", "--output=json"]] {
            assert_eq!(parse(words, None).map(|(options, _)| options.output), Ok(ActorsOutput::Json), "{words:?}");
        }
    }
}
