//! Budgets, backoffs and the limits of starts and stops.

use std::time::Duration;

use k3sd_runtime::{Exit, Happened, Restart, Shutdown, Spec, Strategy};

use super::{LIMIT, STRATEGIES, WAITS, look, now, seconds, start, story};
use crate::support::{End, Plan, Stage, settle};

#[tokio::test(start_paused = true)]
async fn a_restart_exactly_as_old_as_the_period_still_counts() {
    const MOMENT: Duration = Duration::from_millis(1);
    for (gap, survives) in [(seconds(10), false), (seconds(10) + MOMENT, true)] {
        for strategy in STRATEGIES {
            let stage = Stage::new(1);
            let spec = Spec::new(strategy).budget(1, seconds(10)).child(stage.probe("a"));
            let _tree = start(&stage, spec).await;
            stage.end("a", End::Kill);
            tokio::time::sleep(gap).await;
            stage.end("a", End::Kill);
            settle().await;
            assert_eq!(stage.system.alive() > 0, survives, "{strategy:?} after {gap:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_nothing_bears_no_death_but_any_number_of_clean_ends() {
    let stage = Stage::new(1);
    let spec = Spec::new(Strategy::OneForOne)
        .budget(0, seconds(10))
        .child(stage.probe("a"))
        .child(stage.probe("b").restart(Restart::Transient))
        .child(stage.probe("c").restart(Restart::Temporary));
    let tree = start(&stage, spec).await;
    stage.end("b", End::Finish);
    stage.end("c", End::Panic);
    settle().await;
    assert_eq!(look(&stage.system, "/").await, "a:running b:down");
    stage.end("a", End::Finish);
    assert_eq!(tree.ended().await.word(), "escalated");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_at_boot_backs_off_like_any_death() {
    for (strategy, at_once, ready_at) in [
        (Strategy::OneForOne, "+a +b !b +c", 0),
        (Strategy::Dynamic, "+a +b !b +c", 0),
        (Strategy::RestForOne, "+a +b !b", 300),
        (Strategy::OneForAll, "+a +b !b -a", 300),
    ] {
        let stage = Stage::new(1);
        stage.journal.plan("b", Plan::FailStart, 2);
        let spec =
            Spec::new(strategy).child(stage.probe("a")).child(stage.probe("b").backoff(WAITS)).child(stage.probe("c"));
        let began = now(&stage);
        let tree = stage.system.start(spec);
        let ready = async {
            tree.ready().await.expect("it comes up in the end");
            now(&stage).since(began)
        };
        let first = async {
            settle().await;
            (story(&stage), look(&stage.system, "/").await)
        };
        let (took, (notes, states)) = tokio::join!(ready, first);
        assert_eq!(notes, at_once, "{strategy:?}");
        assert!(states.contains("b:backoff"), "{strategy:?}: {states}");
        assert_eq!(took, Duration::from_millis(ready_at), "{strategy:?}: waits of 100 and 200 ms");
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(look(&stage.system, "/").await, "a:running b:running c:running", "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_life_ends_the_row_of_deaths_also_when_the_group_ended_it() {
    let stage = Stage::new(1);
    let spec = Spec::new(Strategy::OneForAll).child(stage.probe("a")).child(stage.probe("b").backoff(WAITS));
    let _tree = start(&stage, spec).await;
    let mut events = stage.system.events();
    stage.end("b", End::Kill);
    tokio::time::sleep(seconds(100)).await;
    stage.end("a", End::Kill); // It takes `b` with it after a life of more than a minute.
    tokio::time::sleep(seconds(1)).await;
    stage.end("b", End::Kill);
    tokio::time::sleep(seconds(1)).await;
    let mut attempts = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Happened::Restarting { attempt, .. } = event.happened
            && *event.path == *"b"
        {
            attempts.push(attempt);
        }
    }
    assert_eq!(attempts, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_during_a_backoff_ends_at_once_and_starts_nobody() {
    for strategy in STRATEGIES {
        let stage = Stage::new(1);
        let slow = k3sd_runtime::Backoff { delay_min: seconds(100), delay_max: seconds(100), ..WAITS };
        let spec = Spec::new(strategy).child(stage.probe("a")).child(stage.probe("b").backoff(slow));
        let tree = start(&stage, spec).await;
        stage.end("b", End::Kill);
        settle().await;
        story(&stage);
        let asked = now(&stage);
        tree.stop();
        assert_eq!(tree.ended().await, Exit::Shutdown, "{strategy:?}");
        assert_eq!(now(&stage), asked, "{strategy:?}: it need not wait");
        tokio::time::sleep(seconds(200)).await;
        let expected = if strategy == Strategy::OneForAll { "" } else { "-a" };
        assert_eq!(story(&stage), expected, "{strategy:?}");
        assert_eq!(stage.system.alive(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_hangs_at_its_stop_is_killed_at_its_limit_and_the_others_stop_in_order() {
    for (strategy, expected) in [
        (Strategy::OneForOne, "-c !b -a"),
        (Strategy::RestForOne, "-c !b -a"),
        (Strategy::OneForAll, "-c !b -a"),
        (Strategy::Dynamic, "-a -c !b"),
    ] {
        let stage = Stage::new(1);
        stage.journal.plan("b", Plan::HangAtStop, 1);
        let spec = Spec::new(strategy)
            .child(stage.probe("a"))
            .child(stage.probe("b").shutdown(Shutdown::Within(seconds(3))))
            .child(stage.probe("c"));
        let tree = start(&stage, spec).await;
        story(&stage);
        let asked = now(&stage);
        tree.stop();
        assert_eq!(tree.ended().await, Exit::Shutdown, "{strategy:?}");
        assert_eq!(now(&stage).since(asked), seconds(3), "{strategy:?}");
        assert_eq!(story(&stage), expected, "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_hangs_at_its_stop_delays_the_restart_of_its_group() {
    let stage = Stage::new(1);
    stage.journal.plan("c", Plan::HangAtStop, 1);
    let spec = Spec::new(Strategy::RestForOne)
        .child(stage.probe("a"))
        .child(stage.probe("b"))
        .child(stage.probe("c").shutdown(Shutdown::Within(seconds(3))));
    let _tree = start(&stage, spec).await;
    story(&stage);
    stage.end("b", End::Kill);
    settle().await;
    assert_eq!(story(&stage), "!b");
    assert_eq!(look(&stage.system, "/").await, "a:running b:down c:stopping");
    stage.end("a", End::Kill); // The group that is about to stop becomes larger.
    tokio::time::sleep(seconds(3)).await;
    assert_eq!(story(&stage), "!a !c +a +b +c");
}

#[tokio::test(start_paused = true)]
async fn a_brutal_stop_kills_at_once_and_an_unlimited_one_never() {
    for (shutdown, expected) in [(Shutdown::Brutal, Some("!a")), (Shutdown::Unlimited, None)] {
        let stage = Stage::new(1);
        stage.journal.plan("a", Plan::HangAtStop, 1);
        let tree = start(&stage, Spec::new(Strategy::OneForOne).child(stage.probe("a").shutdown(shutdown))).await;
        story(&stage);
        tree.stop();
        let ended = tokio::time::timeout(LIMIT, tree.ended()).await;
        assert_eq!(ended.ok(), expected.map(|_| Exit::Shutdown), "{shutdown:?}");
        assert_eq!(story(&stage), expected.unwrap_or_default(), "{shutdown:?}");
        tree.kill();
        tree.ended().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_is_a_death_at_its_limit() {
    for (strategy, expected) in [
        (Strategy::OneForOne, "!b +b +c"),
        (Strategy::RestForOne, "!b +b +c"),
        (Strategy::OneForAll, "!b -a +a +b +c"),
        (Strategy::Dynamic, "!b +b"),
    ] {
        let stage = Stage::new(1);
        stage.journal.plan("b", Plan::HangInStart, 1);
        let spec = Spec::new(strategy)
            .budget(1, seconds(10))
            .child(stage.probe("a"))
            .child(stage.probe("b").start_within(Some(seconds(2))))
            .child(stage.probe("c"));
        let tree = start(&stage, spec).await;
        assert!(look(&stage.system, "/").await.contains("b:starting"));
        story(&stage);
        tokio::time::sleep(seconds(2)).await;
        assert_eq!(story(&stage), expected, "{strategy:?}");
        stage.end("a", End::Kill);
        assert_eq!(tree.ended().await.word(), "escalated", "{strategy:?}: it was counted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_is_stopped_while_it_starts_ends_in_order() {
    for strategy in STRATEGIES {
        let stage = Stage::new(1);
        stage.journal.plan("b", Plan::HangInStart, 1);
        let spec = Spec::new(strategy).child(stage.probe("a")).child(stage.probe("b")).child(stage.probe("c"));
        let tree = start(&stage, spec).await;
        story(&stage);
        let asked = stage.system.clock().now();
        tree.stop();
        assert_eq!(tree.ended().await, Exit::Shutdown, "{strategy:?}");
        assert_eq!(stage.system.clock().now(), asked, "{strategy:?}: a start that hangs holds nobody up");
        let expected = if strategy == Strategy::Dynamic { "-a !b -c" } else { "!b -a" };
        assert_eq!(story(&stage), expected, "{strategy:?}");
    }
}
