//! The cases, by what they are about.

mod commands;
mod limits;
mod messages;
mod rows;
mod subtrees;

use std::time::Duration;

use k3sd_runtime::{Backoff, Moment, Restart, Spec, Strategy, System, Tree};

use crate::support::{Stage, settle};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(3600);

const STRATEGIES: [Strategy; 4] = [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll, Strategy::Dynamic];

const RESTARTS: [Restart; 3] = [Restart::Permanent, Restart::Transient, Restart::Temporary];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Waits 100 ms before the first restart in a row, then twice as long each time.
const WAITS: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(100),
    delay_max: Duration::from_secs(10),
    factor: 2.0,
    jitter: 0.0,
    reset_after: Duration::from_secs(60),
};

/// Starts a tree and waits until nobody has anything left to do.
async fn start(stage: &Stage, spec: Spec) -> Tree {
    let tree = stage.system.start(spec);
    settle().await;
    tree
}

/// What happened since the last call, as `+born -left !dropped`.
fn story(stage: &Stage) -> String {
    let notes: Vec<String> = stage.journal.take().iter().map(ToString::to_string).collect();
    notes.join(" ")
}

/// The children of a supervisor, as `name:state`.
async fn look(system: &System, path: &str) -> String {
    let supervisor = system.supervisor(path).expect("a supervisor");
    let list = supervisor.list(LIMIT).await.expect("it answers");
    let words: Vec<String> = list.iter().map(|child| format!("{}:{}", child.name, child.seen.word())).collect();
    words.join(" ")
}

fn now(stage: &Stage) -> Moment {
    stage.system.clock().now()
}
