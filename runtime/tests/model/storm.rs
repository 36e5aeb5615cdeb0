//! Plays a schedule on the runtime in a rush, without waiting for what follows from one event before the next. What
//! exactly happens then is not a rule; what must never happen, and the shape that must come back, are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k3sd_runtime::machine::Seen;
use k3sd_runtime::{Event, Happened, Moment, ROOT, Restart, Rng, Strategy};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::lockstep::{LIMIT, befall, on_paused_clock};
use super::schedule::{Act, Group, Schedule};
use super::{join, lines};
use crate::support::{End, Plan, Stage};
use k3sd_runtime::testkit::What;

/// Longer than all limits and backoffs in a row.
const QUIET: Duration = Duration::from_secs(300);

/// Plays the schedule, lets the tree recover, looks at it, and stops it.
pub(crate) fn survive(schedule: &Schedule) -> Result<bool, String> {
    on_paused_clock(play(schedule)).map(|()| true)
}

async fn play(schedule: &Schedule) -> Result<(), String> {
    let stage = Stage::new(schedule.seed);
    let mut rng = Rng::seeded(schedule.seed.wrapping_add(1));
    let mut watch =
        Watch { events: stage.system.events(), root: &schedule.root, spent: BTreeMap::new(), lagged: false };
    let tree = stage.system.start(schedule.root.spec(&stage));
    let below = schedule.root.below(ROOT);
    let probes: Vec<&String> = below.iter().filter(|(_, group)| group.is_none()).map(|(path, _)| path).collect();
    let mut meddled = BTreeSet::new();
    let mut answers = Vec::new();
    for step in schedule.steps.iter().filter(|step| !matches!(step.act, Act::ShutDown)) {
        if !probes.is_empty() && rng.below(3) == 0 {
            let path = probes[usize::try_from(rng.below(probes.len() as u64)).expect("an index")];
            let plan = if rng.below(2) == 0 { Plan::HangInStart } else { Plan::HangAtStop };
            stage.journal.plan(path, plan, 1);
        }
        if let Act::Stop { supervisor, name } | Act::Remove { supervisor, name } = &step.act {
            meddled.insert(join(supervisor, name));
        }
        answers.extend(befall(&stage, &tree, &in_a_storm(&step.act)));
        match rng.below(4) {
            0 => {}
            1 => tokio::task::yield_now().await,
            2 => tokio::time::sleep(Duration::from_millis(rng.below(step.after))).await,
            _ => {
                for _ in 0..rng.below(12) {
                    tokio::task::yield_now().await;
                }
            }
        }
        watch.look()?;
    }
    for path in probes.into_iter().map(String::as_str).chain(["x"]) {
        for plan in [Plan::FailStart, Plan::HangInStart, Plan::HangAtStop] {
            stage.journal.plan(path, plan, 0);
        }
    }
    tokio::time::sleep(QUIET).await;
    watch.look()?;
    if let Some(lost) = answers.iter().position(|answer| !answer.is_finished()) {
        return Err(format!("the command that was given as number {lost} never got its answer"));
    }
    stage.journal.take();
    if let Err(exit) = tree.ready().await {
        if exit.word() != "escalated" {
            return Err(format!("the tree ended as {exit}"));
        }
        return nothing_is_left(&stage);
    }
    let mut order = BTreeMap::new();
    let alive = shape(&stage, ROOT, &schedule.root, &meddled, &mut order).await?;
    if stage.system.alive() != alive {
        return Err(format!("{} actors live, the tree shows {alive}", stage.system.alive()));
    }
    tree.stop();
    let exit = tokio::time::timeout(LIMIT, tree.ended()).await.map_err(|_| "the tree does not stop")?;
    if exit.word() != "shutdown" {
        return Err(format!("the tree stopped as {exit}"));
    }
    check_stop_order(&stage, &order)?;
    nothing_is_left(&stage)
}

/// A probe that hangs in its stop stays so unless its supervisor asked for it, so nobody else does.
fn in_a_storm(act: &Act) -> Act {
    match act {
        Act::End { path, how: End::Stop } => Act::End { path: path.clone(), how: End::Finish },
        act => act.clone(),
    }
}

fn nothing_is_left(stage: &Stage) -> Result<(), String> {
    let (alive, probes) = (stage.system.alive(), stage.journal.alive());
    if alive == 0 && probes.is_empty() { Ok(()) } else { Err(format!("{alive} actors are left, probes: {probes:?}")) }
}

/// Checks that who is wanted is up, and returns how many actors there are.
async fn shape(
    stage: &Stage,
    path: &str,
    group: &Group,
    meddled: &BTreeSet<String>,
    order: &mut BTreeMap<String, (Strategy, Vec<String>)>,
) -> Result<usize, String> {
    let supervisor = stage.system.supervisor(path).map_err(|error| error.to_string())?;
    let list = supervisor.list(LIMIT).await.map_err(|error| format!("{path}: {error}"))?;
    let (mut alive, probes) = (1, stage.journal.alive());
    for child in &list {
        let below = join(path, &child.name);
        let subtree = group.kids.iter().find(|kid| kid.name == child.name).and_then(|kid| kid.group.as_ref());
        match child.seen {
            Seen::Running => match subtree {
                Some(group) => alive += Box::pin(shape(stage, &below, group, meddled, order)).await?,
                None if probes.contains(&*below) => alive += 1,
                None => return Err(format!("{below} is said to run, and does not")),
            },
            Seen::Down if child.restart == Restart::Transient || meddled.contains(&below) => {}
            seen => return Err(format!("{below} is {} in the end", seen.word())),
        }
    }
    for kid in &group.kids {
        let below = join(path, &kid.name);
        let may_be_gone = kid.restart == Restart::Temporary || meddled.contains(&below);
        if !may_be_gone && !list.iter().any(|child| child.name == kid.name) {
            return Err(format!("{below} has lost its place"));
        }
    }
    order.insert(path.to_owned(), (group.strategy, list.into_iter().map(|child| child.name).collect()));
    Ok(alive)
}

/// Within each supervisor that orders its children, the last stopped first, in order and whole.
fn check_stop_order(stage: &Stage, order: &BTreeMap<String, (Strategy, Vec<String>)>) -> Result<(), String> {
    let notes = stage.journal.take();
    if let Some(note) = notes.iter().find(|note| note.what != What::Left) {
        return Err(format!("{note} while the tree stopped"));
    }
    for (path, (strategy, names)) in order.iter().filter(|(_, (strategy, _))| *strategy != Strategy::Dynamic) {
        let prefix = if path == ROOT { String::new() } else { format!("{path}/") };
        let place = |note: &str| {
            let child = note.strip_prefix(&prefix)?.split('/').next()?;
            names.iter().position(|name| name == child)
        };
        let places: Vec<usize> = notes.iter().filter_map(|note| place(&note.path)).collect();
        if !places.is_sorted_by(|left, right| left >= right) {
            return Err(format!("{path} ({}) of {names:?} stopped like this:\n{}", strategy.word(), lines(&notes)));
        }
    }
    Ok(())
}

/// Checks from the events that no supervisor bears more than its budget, nor gives up before it is spent.
struct Watch<'a> {
    events: Receiver<Event>,
    root: &'a Group,
    spent: BTreeMap<String, Vec<Moment>>,
    /// Events were missed, so nothing more can be said.
    lagged: bool,
}

impl Watch<'_> {
    fn look(&mut self) -> Result<(), String> {
        loop {
            match self.events.try_recv() {
                Ok(event) if !self.lagged => self.count(&event)?,
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => self.lagged = true,
                Err(_) => return Ok(()),
            }
        }
    }

    fn count(&mut self, event: &Event) -> Result<(), String> {
        match &event.happened {
            Happened::Restarting { .. } => {
                let parent = event.path.rsplit_once('/').map_or(ROOT, |(parent, _)| parent);
                let (count, borne) = self.in_window(parent, event.at, true);
                if count > borne {
                    return Err(format!("{parent} bears {borne} restarts and made {count}"));
                }
            }
            Happened::Escalated { .. } => {
                let (count, borne) = self.in_window(&event.path, event.at, false);
                if count != borne {
                    return Err(format!("{} gave up after {count} restarts of {borne}", event.path));
                }
            }
            Happened::Ended { .. } => {
                let below = format!("{}/", event.path);
                self.spent.retain(|path, _| **path != *event.path && !path.starts_with(&below));
            }
            _ => {}
        }
        Ok(())
    }

    fn in_window(&mut self, path: &str, at: Moment, one_more: bool) -> (usize, usize) {
        let below = self.root.below(ROOT);
        let found = below.iter().find(|(other, _)| other == path).and_then(|(_, group)| *group);
        let group = if path == ROOT { self.root } else { found.expect("a supervisor") };
        let spent = self.spent.entry(path.to_owned()).or_default();
        spent.retain(|then| at.since(*then) <= Duration::from_millis(group.period));
        spent.extend(one_more.then_some(at));
        (spent.len(), group.restarts as usize)
    }
}
