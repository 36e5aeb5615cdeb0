//! Adding, removing, stopping, restarting and listing children, also in the middle of something else.

use k3sd_runtime::{AskError, Restart, Shutdown, Spec, Strategy, SupervisorRef, TreeError};
use tokio::task::JoinHandle;

use super::{LIMIT, STRATEGIES, WAITS, look, seconds, start, story};
use crate::support::{End, Plan, Stage, settle};

#[derive(Clone, Copy, Debug)]
enum Command {
    Stop,
    Restart,
    Remove,
}

use Command::{Remove, Restart as Again, Stop};

async fn give(supervisor: &SupervisorRef, command: Command, name: &str) -> Result<(), TreeError> {
    match command {
        Stop => supervisor.stop(LIMIT, name).await,
        Again => supervisor.restart(LIMIT, name).await,
        Remove => supervisor.remove(LIMIT, name).await,
    }
}

/// Gives a command and does not wait for its answer.
fn order(supervisor: &SupervisorRef, command: Command, name: &str) -> JoinHandle<Result<(), TreeError>> {
    let (supervisor, name) = (supervisor.clone(), name.to_owned());
    tokio::spawn(async move { give(&supervisor, command, &name).await })
}

fn three(stage: &Stage, strategy: Strategy) -> Spec {
    let spec = Spec::new(strategy).budget(0, LIMIT);
    spec.child(stage.probe("a")).child(stage.probe("b")).child(stage.probe("c"))
}

#[tokio::test(start_paused = true)]
async fn commands_to_one_child_under_every_strategy() {
    // What `b` is told, one after the other: what happens, and who is there then. No budget is needed for any of it.
    let all = "a:running b:running c:running";
    let (stopped, removed) = ("a:running b:down c:running", "a:running c:running");
    for strategy in STRATEGIES {
        let again = match strategy {
            Strategy::OneForOne | Strategy::Dynamic => "-b +b",
            Strategy::RestForOne => "-c -b +b +c",
            Strategy::OneForAll => "-c -b -a +a +b +c",
        };
        let cases = [
            (Stop, "-b", stopped),
            (Stop, "", stopped),
            (Again, "+b", all),
            (Again, again, all),
            (Remove, "-b", removed),
        ];
        let stage = Stage::new(1);
        let tree = start(&stage, three(&stage, strategy)).await;
        story(&stage);
        for (command, expected, then) in cases {
            assert_eq!(give(&tree.root(), command, "b").await, Ok(()), "{strategy:?} {command:?}");
            settle().await;
            assert_eq!(story(&stage), expected, "{strategy:?} {command:?}");
            assert_eq!(look(&stage.system, "/").await, then, "{strategy:?} {command:?}");
        }
        for command in [Stop, Again, Remove] {
            assert_eq!(give(&tree.root(), command, "b").await, Err(TreeError::NoSuchChild), "{strategy:?}");
        }
        assert_eq!(tree.root().add(LIMIT, stage.probe("b")).await, Ok(()), "{strategy:?}: the name is free");
        assert_eq!(look(&stage.system, "/").await, "a:running c:running b:running", "{strategy:?}: at the end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_goes_when_stopped_and_comes_back_when_restarted_by_name() {
    for strategy in STRATEGIES {
        let stage = Stage::new(1);
        let spec = Spec::new(strategy)
            .child(stage.probe("a").restart(Restart::Temporary))
            .child(stage.probe("b").restart(Restart::Temporary));
        let tree = start(&stage, spec).await;
        assert_eq!(give(&tree.root(), Again, "a").await, Ok(()), "{strategy:?}");
        let grouped = matches!(strategy, Strategy::RestForOne | Strategy::OneForAll);
        let then = if grouped { "a:running" } else { "a:running b:running" };
        assert_eq!(look(&stage.system, "/").await, then, "{strategy:?}");
        assert_eq!(give(&tree.root(), Stop, "a").await, Ok(()), "{strategy:?}");
        assert!(!look(&stage.system, "/").await.contains("a:"), "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_child_stays_down_unless_its_group_restarts() {
    for (strategy, expected) in [
        (Strategy::OneForOne, "a:running b:down c:running"),
        (Strategy::Dynamic, "a:running b:down c:running"),
        (Strategy::RestForOne, "a:running b:running c:running"),
        (Strategy::OneForAll, "a:running b:running c:running"),
    ] {
        let stage = Stage::new(1);
        let tree = start(&stage, three(&stage, strategy).budget(1, LIMIT)).await;
        assert_eq!(give(&tree.root(), Stop, "b").await, Ok(()));
        stage.end("a", End::Kill);
        settle().await;
        assert_eq!(look(&stage.system, "/").await, expected, "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_added_child_whose_first_start_fails_is_not_kept_and_costs_nothing() {
    for strategy in STRATEGIES {
        let stage = Stage::new(1);
        let tree = start(&stage, three(&stage, strategy)).await;
        story(&stage);
        stage.journal.plan("x", Plan::FailStart, 1);
        let failed = tree.root().add(LIMIT, stage.probe("x")).await;
        assert!(matches!(failed, Err(TreeError::StartFailed { .. })), "{strategy:?}: {failed:?}");
        assert_eq!(look(&stage.system, "/").await, "a:running b:running c:running", "{strategy:?}");
        stage.journal.plan("x", Plan::HangInStart, 1);
        let late = tree.root().add(LIMIT, stage.probe("x").start_within(Some(seconds(1)))).await;
        assert!(matches!(late, Err(TreeError::StartFailed { .. })), "{strategy:?}: {late:?}");
        assert_eq!(tree.root().add(LIMIT, stage.probe("x")).await, Ok(()), "{strategy:?}: the name is free");
        assert_eq!(story(&stage), "+x !x +x !x +x", "{strategy:?}: the others notice nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_refused_whatever_its_owner_does() {
    for strategy in STRATEGIES {
        let stage = Stage::new(1);
        let tree = start(&stage, three(&stage, strategy)).await;
        let taken = Err(TreeError::AlreadyPresent { name: "b".to_owned() });
        assert_eq!(tree.root().add(LIMIT, stage.probe("b")).await, taken, "{strategy:?}");
        assert_eq!(give(&tree.root(), Stop, "b").await, Ok(()));
        assert_eq!(tree.root().add(LIMIT, stage.probe("b")).await, taken, "{strategy:?}: while it is down");
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_in_its_backoff_can_be_removed_or_restarted() {
    for strategy in STRATEGIES {
        for command in [Remove, Stop, Again] {
            let stage = Stage::new(1);
            let spec = Spec::new(strategy).child(stage.probe("a")).child(stage.probe("b").backoff(WAITS));
            let tree = start(&stage, spec).await;
            stage.end("b", End::Kill);
            settle().await;
            assert!(look(&stage.system, "/").await.contains("b:backoff"), "{strategy:?}");
            story(&stage);
            assert_eq!(give(&tree.root(), command, "b").await, Ok(()), "{strategy:?} {command:?}");
            tokio::time::sleep(seconds(1)).await;
            let back = matches!(command, Again);
            assert_eq!(story(&stage).contains("+b"), back, "{strategy:?} {command:?}");
            let then = match command {
                Remove => "a:running",
                Stop => "a:running b:down",
                Again => "a:running b:running",
            };
            assert_eq!(look(&stage.system, "/").await, then, "{strategy:?} {command:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_starting_can_be_removed_and_those_after_it_start() {
    for strategy in STRATEGIES {
        let stage = Stage::new(1);
        let tree = start(&stage, three(&stage, strategy).budget(1, LIMIT)).await;
        stage.journal.plan("b", Plan::HangInStart, 1);
        stage.end("b", End::Kill);
        settle().await;
        assert!(look(&stage.system, "/").await.contains("b:starting"), "{strategy:?}");
        let waiting = order(&tree.root(), Again, "b");
        settle().await;
        let removed = order(&tree.root(), Remove, "b");
        tokio::time::sleep(seconds(5)).await;
        settle().await;
        assert_eq!(removed.await.expect("no panic"), Ok(()), "{strategy:?}");
        assert_eq!(waiting.await.expect("no panic"), Err(TreeError::Stopped), "{strategy:?}");
        assert_eq!(look(&stage.system, "/").await, "a:running c:running", "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_stopping_can_be_removed_or_wanted_back() {
    for strategy in STRATEGIES {
        for (command, then) in [(Remove, "a:running c:running"), (Again, "a:running b:running c:running")] {
            let stage = Stage::new(1);
            let tree = start(&stage, three(&stage, strategy)).await;
            stage.journal.plan("b", Plan::HangAtStop, 1);
            let stopped = order(&tree.root(), Stop, "b");
            settle().await;
            assert!(look(&stage.system, "/").await.contains("b:stopping"), "{strategy:?}");
            assert_eq!(give(&tree.root(), command, "b").await, Ok(()), "{strategy:?} {command:?}");
            assert_eq!(stopped.await.expect("no panic"), Ok(()), "{strategy:?} {command:?}: it had stopped");
            assert_eq!(look(&stage.system, "/").await, then, "{strategy:?} {command:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_removed_while_its_group_restarts_does_not_come_back() {
    for strategy in [Strategy::RestForOne, Strategy::OneForAll] {
        let stage = Stage::new(1);
        let spec = Spec::new(strategy)
            .child(stage.probe("a"))
            .child(stage.probe("b"))
            .child(stage.probe("c").shutdown(Shutdown::Within(seconds(3))));
        let tree = start(&stage, spec).await;
        stage.journal.plan("c", Plan::HangAtStop, 1);
        stage.end("a", End::Kill);
        settle().await;
        let removed = [order(&tree.root(), Remove, "c"), order(&tree.root(), Remove, "b")];
        tokio::time::sleep(seconds(4)).await;
        for answer in removed {
            assert_eq!(answer.await.expect("no panic"), Ok(()), "{strategy:?}");
        }
        assert_eq!(look(&stage.system, "/").await, "a:running", "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_by_command_that_fails_says_so_and_goes_on_as_a_death() {
    for strategy in STRATEGIES {
        let stage = Stage::new(1);
        let tree = start(&stage, three(&stage, strategy).budget(1, LIMIT)).await;
        assert_eq!(give(&tree.root(), Stop, "b").await, Ok(()));
        stage.journal.plan("b", Plan::FailStart, 1);
        let failed = give(&tree.root(), Again, "b").await;
        assert!(matches!(failed, Err(TreeError::StartFailed { .. })), "{strategy:?}: {failed:?}");
        settle().await;
        assert_eq!(look(&stage.system, "/").await, "a:running b:running c:running", "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_ending_refuses_commands_and_answers_those_it_took() {
    for strategy in STRATEGIES {
        let stage = Stage::new(1);
        let tree = start(&stage, three(&stage, strategy)).await;
        stage.journal.plan("a", Plan::HangAtStop, 1);
        stage.journal.plan("x", Plan::HangInStart, 1);
        let root = tree.root();
        let child = stage.probe("x");
        let adding = tokio::spawn(async move { root.add(LIMIT, child).await });
        settle().await;
        tree.stop();
        settle().await;
        assert_eq!(tree.root().add(LIMIT, stage.probe("y")).await, Err(TreeError::ShuttingDown), "{strategy:?}");
        assert_eq!(give(&tree.root(), Again, "a").await, Err(TreeError::ShuttingDown), "{strategy:?}");
        tree.ended().await;
        assert_eq!(adding.await.expect("no panic"), Err(TreeError::Stopped), "{strategy:?}");
        let gone = Err(TreeError::Ask(AskError::Down));
        assert_eq!(tree.root().add(LIMIT, stage.probe("y")).await, gone, "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn children_added_at_run_time_are_gone_when_their_supervisor_restarts() {
    let stage = Stage::new(1);
    let inner = Spec::new(Strategy::Dynamic).child(stage.probe("a"));
    let child = k3sd_runtime::subtree("pods", inner);
    let _tree = start(&stage, Spec::new(Strategy::OneForOne).child(child)).await;
    let pods = stage.system.supervisor("pods").expect("a supervisor");
    assert_eq!(pods.add(LIMIT, stage.probe("x")).await, Ok(()));
    assert_eq!(look(&stage.system, "pods").await, "a:running x:running");
    stage.system.signal("pods", k3sd_runtime::Signal::Kill);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(look(&stage.system, "pods").await, "a:running");
    assert_eq!(stage.system.alive(), 3);
}
