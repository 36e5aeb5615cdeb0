//! Supervisors as children: escalation, and ends that take a whole subtree along.

use std::sync::{Arc, Mutex};

use k3sd_runtime::{Backoff, Exit, Happened, Restart, Shutdown, Signal, Spec, Strategy, TaskHandle, subtree, task};

use super::{LIMIT, look, seconds, start, story};
use crate::support::{End, Plan, Stage, settle};

/// Three supervisors in a line, each bearing one restart, with a witness beside each.
fn tower(stage: &Stage) -> Spec {
    let one = |strategy| Spec::new(strategy).budget(1, LIMIT);
    let low = one(Strategy::OneForOne).child(stage.probe("leaf")).child(stage.probe("w"));
    let mid = one(Strategy::OneForOne).child(subtree("low", low).backoff(Backoff::OFF)).child(stage.probe("w"));
    one(Strategy::OneForOne).child(subtree("mid", mid).backoff(Backoff::OFF)).child(stage.probe("w"))
}

#[tokio::test(start_paused = true)]
async fn escalation_climbs_level_by_level_to_the_root() {
    let stage = Stage::new(1);
    let tree = start(&stage, tower(&stage)).await;
    let mut events = stage.system.events();
    story(&stage);
    let leaf = "!mid/low/leaf +mid/low/leaf";
    let low = "!mid/low/leaf -mid/low/w +mid/low/leaf +mid/low/w";
    let mid = "!mid/low/leaf -mid/low/w -mid/w +mid/low/leaf +mid/low/w +mid/w";
    let root = "!mid/low/leaf -mid/low/w -mid/w -w";
    for (nth, expected) in [leaf, low, leaf, mid, leaf, low, leaf, root].into_iter().enumerate() {
        stage.end("mid/low/leaf", End::Fail);
        settle().await;
        assert_eq!(story(&stage), expected, "death number {}", nth + 1);
    }
    assert_eq!(tree.ended().await.word(), "escalated");
    assert_eq!(tree.ready().await.map_err(|exit| exit.word()), Err("escalated"));
    let mut gave_up = Vec::new();
    while let Ok(event) = events.try_recv() {
        if matches!(event.happened, Happened::Escalated { .. }) {
            gave_up.push(event.path.to_string());
        }
    }
    assert_eq!(gave_up, ["mid/low", "mid/low", "mid", "mid/low", "mid/low", "mid", "/"]);
    assert_eq!(stage.system.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn giving_up_is_abnormal_so_a_transient_supervisor_returns_and_a_temporary_one_does_not() {
    for (restart, expected) in
        [(Restart::Permanent, "s:running"), (Restart::Transient, "s:running"), (Restart::Temporary, "")]
    {
        let stage = Stage::new(1);
        let inner = Spec::new(Strategy::OneForOne).budget(0, seconds(1)).child(stage.probe("a"));
        let _tree = start(&stage, Spec::new(Strategy::OneForOne).child(subtree("s", inner).restart(restart))).await;
        stage.end("s/a", End::Kill);
        settle().await;
        assert_eq!(look(&stage.system, "/").await, expected, "{restart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subtree_that_cannot_boot_escalates_through_its_parent() {
    let stage = Stage::new(1);
    stage.journal.plan("s/a", Plan::FailStart, u32::MAX);
    let inner = Spec::new(Strategy::OneForOne).budget(1, seconds(10)).child(stage.probe("a"));
    let child = subtree("s", inner).backoff(Backoff::OFF);
    let tree = start(&stage, Spec::new(Strategy::RestForOne).budget(2, seconds(10)).child(child)).await;
    assert_eq!(tree.ended().await.word(), "escalated");
    assert_eq!(story(&stage).matches("+s/a").count(), 6, "two tries in each of three lives");
}

/// What a supervisor can die of, and how its children then end.
const SUDDEN: [Signal; 2] = [Signal::Kill, Signal::Panic];

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_dies_takes_all_below_it_along() {
    for signal in SUDDEN {
        let stage = Stage::new(1);
        let _tree = start(&stage, tower(&stage)).await;
        story(&stage);
        assert!(stage.system.signal("mid", signal));
        settle().await;
        let found = story(&stage);
        let (ends, births) = found.split_at(found.find(" +").expect("a successor"));
        let mut ends: Vec<&str> = ends.split(' ').collect();
        ends.sort_unstable();
        assert_eq!(ends, ["!mid/low/leaf", "!mid/low/w", "!mid/w"], "{signal:?}");
        assert_eq!(births, " +mid/low/leaf +mid/low/w +mid/w", "{signal:?}");
        assert_eq!(stage.system.alive(), 7);
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_told_to_stop_stops_its_children_in_order_and_ends_cleanly() {
    for (restart, expected) in [
        (Restart::Permanent, "-s/b -s/a +s/a +s/b"),
        (Restart::Transient, "-s/b -s/a"),
        (Restart::Temporary, "-s/b -s/a"),
    ] {
        let stage = Stage::new(1);
        let inner = Spec::new(Strategy::OneForOne).child(stage.probe("a")).child(stage.probe("b"));
        let child = subtree("s", inner).restart(restart).backoff(Backoff::OFF);
        let _tree = start(&stage, Spec::new(Strategy::OneForOne).child(child)).await;
        story(&stage);
        assert!(stage.system.signal("s", Signal::Stop));
        settle().await;
        assert_eq!(story(&stage), expected, "{restart:?}");
    }
}

type Hold = Arc<Mutex<Option<TaskHandle>>>;

/// A task that is not wholly gone while the test holds on to its handle.
fn lingering(name: &str, hold: &Hold) -> k3sd_runtime::ChildSpec {
    let hold = hold.clone();
    let body = move |handle| {
        hold.lock().expect("no panic here").get_or_insert(handle);
        std::future::pending()
    };
    task(name, body).backoff(Backoff::OFF)
}

fn let_go(hold: &Hold) {
    drop(hold.lock().expect("no panic here").take());
}

#[tokio::test(start_paused = true)]
async fn a_successor_starts_only_when_the_last_of_its_predecessors_subtree_is_gone() {
    for signal in SUDDEN {
        let (stage, hold) = (Stage::new(1), Hold::default());
        let inner = Spec::new(Strategy::OneForOne).child(lingering("slow", &hold)).child(stage.probe("a"));
        let middle = Spec::new(Strategy::OneForOne).child(subtree("low", inner)).child(stage.probe("b"));
        let child = subtree("s", middle).backoff(Backoff::OFF);
        let _tree = start(&stage, Spec::new(Strategy::OneForOne).child(child)).await;
        story(&stage);
        assert!(stage.system.signal("s", signal));
        tokio::time::sleep(seconds(100)).await;
        let mut ends: Vec<String> = story(&stage).split(' ').map(str::to_owned).collect();
        ends.sort_unstable();
        assert_eq!(ends, ["!s/b", "!s/low/a"], "{signal:?}: all are gone but one, and nobody is there yet");
        let_go(&hold);
        settle().await;
        assert_eq!(story(&stage), "+s/low/a +s/b", "{signal:?}");
        let_go(&hold);
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_child_that_stays_is_reported_and_waited_for() {
    let (stage, hold) = (Stage::new(1), Hold::default());
    let spec = Spec::new(Strategy::OneForOne)
        .child(stage.probe("a"))
        .child(lingering("slow", &hold).shutdown(Shutdown::Within(seconds(1))));
    let tree = start(&stage, spec).await;
    let mut events = stage.system.events();
    story(&stage);
    tree.stop();
    tokio::time::sleep(seconds(100)).await;
    assert_eq!(story(&stage), "", "those before it wait");
    let mut stuck = Vec::new();
    while let Ok(event) = events.try_recv() {
        stuck.extend((event.happened == Happened::Stuck).then(|| event.path.to_string()));
    }
    assert_eq!(stuck, ["slow"], "reported once");
    let_go(&hold);
    assert_eq!(tree.ended().await, Exit::Shutdown);
    assert_eq!(story(&stage), "-a");
}

#[tokio::test(start_paused = true)]
async fn a_killed_tree_leaves_nobody() {
    let stage = Stage::new(1);
    let tree = start(&stage, tower(&stage)).await;
    tree.kill();
    assert_eq!(tree.ended().await, Exit::Killed);
    assert_eq!(stage.system.alive(), 0);
    assert!(stage.journal.alive().is_empty());
}
