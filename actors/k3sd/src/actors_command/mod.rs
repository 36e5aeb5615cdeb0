//! `k3sd actors ..`: asks a running daemon about its tree, and shows the answer to a person or to a program.

mod control;
mod events;
mod rates;
mod show;
mod text;
mod top;
mod trace;
mod tree;
mod view;

use std::io::{self, ErrorKind, Write};

use k3sd_runtime::Clock;
use k3sd_runtime::inspect::{Client, ClientError};
use serde::Serialize;
use thiserror::Error;

use crate::cli::actors::{ActorsCommand, ActorsOptions, ActorsOutput};

/// Why a question was not answered.
#[derive(Debug, Error)]
pub enum ActorsError {
    /// See [`ClientError`].
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The program itself did not get going.
    #[error("could not wait for sockets and signals")]
    Runtime(#[source] io::Error),
    /// The answer could not be written.
    #[error("could not write the answer")]
    Output(#[source] io::Error),
    /// The answer does not fit into JSON.
    #[error("could not write the answer as JSON")]
    Json(#[from] serde_json::Error),
    /// The terminal does not do what a live view needs.
    #[error("could not use the terminal")]
    Terminal(#[source] io::Error),
}

/// Carries out one command and writes its answer to standard output. A reader that left early is no failure.
///
/// # Errors
/// See [`ActorsError`]; what was written up to there stays written.
pub fn run(options: &ActorsOptions, command: &ActorsCommand) -> Result<(), ActorsError> {
    let waits = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ActorsError::Runtime)?;
    let client = Client::new(&options.socket);
    let mut out = io::stdout();
    let outcome = waits.block_on(carry_out(&client, options.output, command, &mut out));
    match outcome {
        Err(ActorsError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

async fn carry_out(
    client: &Client,
    output: ActorsOutput,
    command: &ActorsCommand,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    match command {
        ActorsCommand::Tree { plain } => tree::run(client, output, *plain, out).await,
        ActorsCommand::Top { sort, interval } => {
            top::run(client, &Clock::system(), output, *sort, *interval, out).await
        }
        ActorsCommand::Show { path } => show::run(client, output, path, out).await,
        ActorsCommand::Trace { path, limit, duration } => {
            trace::run(client, output, path, *limit, *duration, out).await
        }
        ActorsCommand::Events(wish) => events::run(client, output, wish, out).await,
        ActorsCommand::Kill { path, how } => control::kill(client, output, path, *how, out).await,
        ActorsCommand::Suspend { path } => control::suspend(client, output, path, out).await,
        ActorsCommand::Resume { path } => control::resume(client, output, path, out).await,
    }
}

fn write(out: &mut dyn Write, text: &str) -> Result<(), ActorsError> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ActorsError::Output)
}

/// An answer as one JSON document.
fn write_json(out: &mut dyn Write, answer: &impl Serialize) -> Result<(), ActorsError> {
    write(out, &(serde_json::to_string_pretty(answer)? + "\n"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k3sd_runtime::inspect::{self, InspectorArgs};
    use k3sd_runtime::lend::Lend;
    use k3sd_runtime::{Spec, Strategy, System, subtree, task};

    use super::*;
    use crate::cli::actors::{EventsWish, KillHow, TopSort};

    async fn ask(client: &Client, output: ActorsOutput, command: &ActorsCommand) -> Result<String, String> {
        let mut out = Vec::new();
        carry_out(client, output, command, &mut out).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).expect("text"))
    }

    /// Each command once, against a real inspector.
    #[tokio::test]
    async fn commands_reach_a_daemon_and_show_its_answers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("i.sock");
        let client = Client::new(&path);
        let tree = ActorsCommand::Tree { plain: false };
        let error = ask(&client, ActorsOutput::Text, &tree).await.expect_err("nobody is there");
        assert!(error.ends_with("i.sock; is k3sd running?"), "{error}");

        let listener = Lend::new(inspect::bind(&path).expect("a socket"));
        let root = Spec::new(Strategy::OneForOne)
            .budget(1000, Duration::from_secs(1))
            .child(subtree("inspector", inspect::tree(InspectorArgs { listener, control: true })))
            .child(task("idle", |_| std::future::pending()));
        let running = System::new(Clock::system()).start(root);
        running.ready().await.expect("it starts");

        let text = ask(&client, ActorsOutput::Text, &tree).await.expect("an answer");
        assert!(text.lines().any(|line| line.starts_with("└─ idle")), "{text}");
        let json = ask(&client, ActorsOutput::Json, &tree).await.expect("an answer");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&json["version"], &json["path"]), (&1.into(), &"/".into()));
        let child = &json["children"][0];
        for key in ["path", "kind", "strategy", "state", "restarts", "mailbox", "children"] {
            assert!(!child[key].is_null(), "{key}: {child}");
        }
        let show = ActorsCommand::Show { path: "idle".to_owned() };
        let text = ask(&client, ActorsOutput::Text, &show).await.expect("an answer");
        assert!(text.contains("task, permanent"), "{text}");
        let json = ask(&client, ActorsOutput::Json, &show).await.expect("an answer");
        assert!(json.contains(r#""path": "idle""#), "{json}");
        let trace = ActorsCommand::Trace { path: "/".to_owned(), limit: 1, duration: Duration::from_millis(1) };
        let text = ask(&client, ActorsOutput::Text, &trace).await.expect("an answer");
        assert_eq!(text, "0 messages\n");
        let top = ActorsCommand::Top { sort: TopSort::Path, interval: Duration::from_millis(1) };
        let text = ask(&client, ActorsOutput::Text, &top).await.expect("an answer");
        assert!(text.starts_with("PATH") && text.contains("inspector/listener"), "{text}");
        let json = ask(&client, ActorsOutput::Json, &top).await.expect("an answer");
        assert!(json.contains(r#""handled_per_second": "#), "{json}");
        let kill = ActorsCommand::Kill { path: "idle".to_owned(), how: KillHow::Panic };
        assert_eq!(
            ask(&client, ActorsOutput::Text, &kill).await,
            Ok("idle: asked to panic in its life 1\n".to_owned())
        );
        let wish = EventsWish { path: Some("idle".to_owned()), limit: Some(3), duration: None };
        let events = ActorsCommand::Events(wish);
        let listen = async {
            let (text, json) = (ask(&client, ActorsOutput::Text, &events), ask(&client, ActorsOutput::Json, &events));
            tokio::join!(text, json)
        };
        let kill_again = async {
            let mut heard = client.events().await.expect("a stream");
            loop {
                ask(&client, ActorsOutput::Text, &kill).await.ok();
                while heard.next().await.expect("a line").expect("no end").event != "started" {}
            }
        };
        let (text, json) = tokio::select! {
            told = listen => told,
            () = kill_again => unreachable!("it kills for ever"),
        };
        let (text, json) = (text.expect("an answer"), json.expect("an answer"));
        assert_eq!((text.lines().count(), json.lines().count()), (4, 4), "{text}{json}");
        assert!(text.contains("died        idle") && text.contains("panic: "), "{text}");
        for line in json.lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
            assert!(event["event"] == "listening" || event["path"] == "idle", "{line}");
        }
        let events =
            ActorsCommand::Events(EventsWish { duration: Some(Duration::from_millis(1)), ..EventsWish::default() });
        assert!(ask(&client, ActorsOutput::Text, &events).await.is_ok(), "the time is over, which is fine");

        let suspend = ActorsCommand::Suspend { path: "/".to_owned() };
        let error = ask(&client, ActorsOutput::Text, &suspend).await.expect_err("it is the root");
        assert!(error.starts_with("suspend is refused for the root"), "{error}");
        running.stop();
        running.ended().await;
    }
}
