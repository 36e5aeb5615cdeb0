//! The restart matrix: every restart type, by every way to end, under every strategy.

use k3sd_runtime::{Exit, Restart, Spec, Strategy};

use super::{RESTARTS, STRATEGIES, look, seconds, start, story};
use crate::support::{End, Plan, Stage, settle};

/// Restarts that each supervisor here bears.
const BORNE: u32 = 2;

/// How the child in the middle ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Runs(End),
    FailsToStart,
}

/// One row: `b`, between `a` and `c`, ends.
#[derive(Clone, Copy, Debug)]
struct Row {
    strategy: Strategy,
    restart: Restart,
    ending: Ending,
}

impl Row {
    fn comes_back(self) -> bool {
        let clean = matches!(self.ending, Ending::Runs(end) if end.is_clean());
        match self.restart {
            Restart::Permanent => true,
            Restart::Transient => !clean,
            Restart::Temporary => false,
        }
    }

    /// What is noted down from the end of `b` on.
    fn expected(self) -> String {
        let stays = match self.ending {
            Ending::FailsToStart => return self.expected_at_boot().to_owned(),
            Ending::Runs(end) if end.is_clean() => "-b",
            Ending::Runs(_) => "!b",
        };
        let then = match self.strategy {
            _ if !self.comes_back() => "",
            Strategy::OneForOne | Strategy::Dynamic => " +b",
            Strategy::RestForOne => " -c +b +c",
            Strategy::OneForAll => " -c -a +a +b +c",
        };
        format!("{stays}{then}")
    }

    fn expected_at_boot(self) -> &'static str {
        match (self.comes_back(), self.strategy) {
            (true, Strategy::OneForOne | Strategy::RestForOne) => "+a +b !b +b +c",
            (true, Strategy::OneForAll) => "+a +b !b -a +a +b +c",
            (true, Strategy::Dynamic) => "+a +b !b +c +b",
            (false, _) => "+a +b !b +c",
        }
    }

    /// Who is there afterwards.
    fn remaining(self) -> &'static str {
        match (self.comes_back(), self.restart) {
            (true, _) => "a:running b:running c:running",
            (false, Restart::Temporary) => "a:running c:running",
            (false, _) => "a:running b:down c:running",
        }
    }

    fn spec(self, stage: &Stage) -> Spec {
        Spec::new(self.strategy)
            .budget(BORNE, seconds(10))
            .child(stage.probe("a"))
            .child(stage.probe("b").restart(self.restart))
            .child(stage.probe("c"))
    }

    /// How all that live at the end of the budget are stopped.
    fn end_of_all(self, dead: &str, others: &str) -> String {
        let others: Vec<&str> = others.split(' ').collect();
        let stops: Vec<&str> = match self.strategy {
            Strategy::Dynamic => others.into_iter().rev().collect(),
            _ => others,
        };
        format!("{dead} {}", stops.join(" "))
    }
}

#[tokio::test(start_paused = true)]
async fn every_restart_type_by_every_end_under_every_strategy() {
    let endings = End::ALL.map(Ending::Runs).into_iter().chain([Ending::FailsToStart]);
    for ending in endings {
        for strategy in STRATEGIES {
            for restart in RESTARTS {
                check(Row { strategy, restart, ending }).await;
            }
        }
    }
}

async fn check(row: Row) {
    let stage = Stage::new(1);
    let tree = match row.ending {
        Ending::Runs(end) => {
            let tree = start(&stage, row.spec(&stage)).await;
            assert_eq!(story(&stage), "+a +b +c", "{row:?}");
            stage.end("b", end);
            settle().await;
            tree
        }
        Ending::FailsToStart => {
            stage.journal.plan("b", Plan::FailStart, 1);
            start(&stage, row.spec(&stage)).await
        }
    };
    assert_eq!(story(&stage), row.expected(), "{row:?}");
    assert_eq!(look(&stage.system, "/").await, row.remaining(), "{row:?}");
    assert_eq!(tree.ready().await, Ok(()), "{row:?}");

    // The budget: one restart is spent if it came back, and the one after the last ends the tree.
    let spent = u32::from(row.comes_back());
    for _ in spent..BORNE {
        stage.end("a", End::Kill);
        settle().await;
        assert!(story(&stage).starts_with("!a"), "{row:?}");
        assert_eq!(stage.system.alive(), alive_after_restart_of_a(row), "{row:?}");
    }
    stage.end("a", End::Kill);
    settle().await;
    let others = if alive_after_restart_of_a(row) == 4 { "-c -b" } else { "-c" };
    assert_eq!(story(&stage), row.end_of_all("!a", others), "{row:?}");
    let Exit::Escalated(reason) = tree.ended().await else { panic!("{row:?}: the root gives up") };
    assert_eq!(reason, "more than 2 restarts within 10s; the last to die was a (killed)");
    assert_eq!(stage.system.alive(), 0, "{row:?}");
}

/// The root, and its children: a restart that takes `b` along brings it back, unless its place is gone.
fn alive_after_restart_of_a(row: Row) -> usize {
    let revived = matches!(row.strategy, Strategy::RestForOne | Strategy::OneForAll);
    let there = row.comes_back() || (revived && row.restart != Restart::Temporary);
    3 + usize::from(there)
}

#[tokio::test(start_paused = true)]
async fn a_temporary_sibling_goes_when_its_group_restarts() {
    for (strategy, expected) in [
        (Strategy::RestForOne, "!b -d -c +b +d"),
        (Strategy::OneForAll, "!b -d -c -a +b +d"),
        (Strategy::OneForOne, "!b +b"),
        (Strategy::Dynamic, "!b +b"),
    ] {
        let stage = Stage::new(1);
        let spec = Spec::new(strategy)
            .child(stage.probe("a").restart(Restart::Temporary))
            .child(stage.probe("b"))
            .child(stage.probe("c").restart(Restart::Temporary))
            .child(stage.probe("d"));
        let _tree = start(&stage, spec).await;
        story(&stage);
        stage.end("b", End::Panic);
        settle().await;
        assert_eq!(story(&stage), expected, "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_restart_counts_each_time_it_fails() {
    for strategy in STRATEGIES {
        for (failures, survives) in [(1, true), (2, false)] {
            let stage = Stage::new(1);
            let spec = Spec::new(strategy).budget(BORNE, seconds(10)).child(stage.probe("a")).child(stage.probe("b"));
            let tree = start(&stage, spec).await;
            stage.journal.plan("a", Plan::FailStart, failures);
            stage.end("a", End::Kill);
            settle().await;
            let alive = stage.system.alive();
            assert_eq!(alive, if survives { 3 } else { 0 }, "{strategy:?}, {failures} failures");
            if !survives {
                assert_eq!(tree.ended().await.word(), "escalated");
            }
        }
    }
}
