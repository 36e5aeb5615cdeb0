//! Plays a schedule on the runtime and on the reference, and compares whenever nobody has anything left to do.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use k3sd_runtime::{Event, Happened, ROOT, Strategy, System, Tree, TreeError};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::reference::{Reference, Twist};
use super::schedule::{Act, Group, Schedule};
use super::{join, lines};
use crate::support::{Plan, Stage, settle};
use k3sd_runtime::testkit::What;

/// Longer than any schedule.
pub(crate) const LIMIT: Duration = Duration::from_secs(3600);

/// A command's answer, on its way.
type Asked = JoinHandle<Result<(), TreeError>>;

/// Plays the schedule on a thread of its own time. `Ok(false)`: the rules leave open what happens from some point on.
pub(crate) fn compare(schedule: &Schedule, twist: Twist) -> Result<bool, String> {
    on_paused_clock(play(schedule, twist))
}

/// Runs a future on a runtime of its own, whose clock moves only while all wait.
pub(crate) fn on_paused_clock<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

async fn play(schedule: &Schedule, twist: Twist) -> Result<bool, String> {
    let (stage, began) = (Stage::new(schedule.seed), Instant::now());
    for (path, times) in &schedule.failing {
        stage.journal.plan(path, Plan::FailStart, *times);
    }
    let mut events = stage.system.events();
    let tree = stage.system.start(schedule.root.spec(&stage));
    let mut reference = Reference::boot(schedule, twist);
    let mut at = 0;
    settle().await;
    reference.advance(1);
    if reference.is_ambiguous() {
        return Ok(false);
    }
    check(schedule, &stage, &tree, &mut events, &mut reference).await.map_err(|error| format!("at boot: {error}"))?;
    for step in &schedule.steps {
        at += step.after;
        sleep_until(began + Duration::from_millis(at)).await;
        reference.advance(at);
        let asked = befall(&stage, &tree, &step.act);
        let expected = reference.suffer(&step.act);
        settle().await;
        reference.advance(at + 1);
        if reference.is_ambiguous() {
            return Ok(false);
        }
        let checked = check(schedule, &stage, &tree, &mut events, &mut reference).await;
        let answered = checked.and_then(|()| check_answer(asked, expected));
        answered.map_err(|error| format!("after {at} ms, {}: {error}", step.act))?;
    }
    Ok(true)
}

/// Lets an act befall the real tree.
pub(crate) fn befall(stage: &Stage, tree: &Tree, act: &Act) -> Option<Asked> {
    let supervisor = |path: &str| stage.system.supervisor(path).expect("a supervisor");
    match act {
        Act::End { path, how } => stage.end(path, *how),
        Act::Signal { path, signal } => drop(stage.system.signal(path, *signal)),
        Act::FailStarts { path, times } => stage.journal.plan(path, Plan::FailStart, *times),
        Act::ShutDown => tree.stop(),
        Act::Stop { supervisor: path, name } => {
            let (supervisor, name) = (supervisor(path), name.clone());
            return Some(tokio::spawn(async move { supervisor.stop(LIMIT, &name).await }));
        }
        Act::Restart { supervisor: path, name } => {
            let (supervisor, name) = (supervisor(path), name.clone());
            return Some(tokio::spawn(async move { supervisor.restart(LIMIT, &name).await }));
        }
        Act::Remove { supervisor: path, name } => {
            let (supervisor, name) = (supervisor(path), name.clone());
            return Some(tokio::spawn(async move { supervisor.remove(LIMIT, &name).await }));
        }
        Act::Add { supervisor: path, kid } => {
            let (supervisor, child) = (supervisor(path), kid.spec(stage));
            return Some(tokio::spawn(async move { supervisor.add(LIMIT, child).await }));
        }
    }
    None
}

fn check_answer(asked: Option<Asked>, expected: Option<&'static str>) -> Result<(), String> {
    let (Some(asked), Some(expected)) = (asked, expected) else { return Ok(()) };
    let answer = match asked.now_or_never() {
        None => "none yet",
        Some(Err(error)) => return Err(format!("the asker broke: {error}")),
        Some(Ok(Ok(()))) => "ok",
        Some(Ok(Err(TreeError::NoSuchChild))) => "no-such-child",
        Some(Ok(Err(TreeError::AlreadyPresent { .. }))) => "already-present",
        Some(Ok(Err(TreeError::StartFailed { .. }))) => "start-failed",
        Some(Ok(Err(TreeError::Ask(_)))) => "down",
        Some(Ok(Err(error))) => return Err(format!("the answer is {error}, expected {expected}")),
    };
    same("the answer", answer, expected)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what} is\n  {found:?}, by the reference\n  {expected:?}")) }
}

async fn check(
    schedule: &Schedule,
    stage: &Stage,
    tree: &Tree,
    events: &mut Receiver<Event>,
    reference: &mut Reference,
) -> Result<(), String> {
    let found: Vec<(String, What)> =
        stage.journal.take().into_iter().map(|note| (note.path.to_string(), note.what)).collect();
    let expected = reference.take_notes();
    let story = || {
        let print = |notes: &[(String, What)]| lines(notes.iter().map(|(path, what)| format!("{what:?} {path}")));
        format!("births and ends:\n{}by the reference:\n{}", print(&found), print(&expected))
    };
    let in_full = async {
        let sorted = |notes: &[(String, What)]| {
            let mut notes = notes.to_vec();
            notes.sort();
            notes
        };
        if sorted(&found) != sorted(&expected) {
            return Err("births and ends differ".to_owned());
        }
        if reference.is_ordered() {
            check_order(ROOT, &schedule.root, &found, &expected)?;
        }
        let mut expected = reference.take_news();
        if let Some(mut found) = news(events) {
            found.sort();
            expected.sort();
            same("the news", found, expected)?;
        }
        let (lists, alive) = reference.look();
        same("the tree", look(&stage.system, lists.keys()).await?, lists)?;
        same("the number alive", stage.system.alive(), alive)?;
        let exit = tree.ended().now_or_never();
        same("the tree's exit", exit.as_ref().map(|exit| exit.word()), reference.exit())
    };
    in_full.await.map_err(|error| format!("{error}\n{}", story()))
}

/// Compares, for each supervisor that orders its children, which of them started and stopped in which order.
fn check_order(path: &str, group: &Group, found: &[(String, What)], expected: &[(String, What)]) -> Result<(), String> {
    if group.strategy != Strategy::Dynamic {
        let (found, expected) = (order(path, group, found), order(path, group, expected));
        same(&format!("the order below {path}"), found, expected)?;
    }
    for kid in &group.kids {
        if let Some(below) = &kid.group {
            check_order(&join(path, &kid.name), below, found, expected)?;
        }
    }
    Ok(())
}

fn order(path: &str, group: &Group, notes: &[(String, What)]) -> Vec<(String, What)> {
    let prefix = if path == ROOT { String::new() } else { format!("{path}/") };
    let child_of = |note: &(String, What)| Some(note.0.strip_prefix(&prefix)?.split('/').next()?.to_owned());
    let by_child: Vec<(String, What)> = notes.iter().filter_map(|note| Some((child_of(note)?, note.1))).collect();
    // A dynamic supervisor is ready before its children are, so what starts after it does so in between.
    let loose = |name: &str| {
        let kid = group.kids.iter().find(|kid| kid.name == name).and_then(|kid| kid.group.as_ref());
        kid.is_some_and(has_dynamic) && by_child.iter().any(|(child, what)| child == name && *what == What::Born)
    };
    by_child.iter().filter(|(child, what)| *what != What::Dropped && !loose(child)).cloned().collect()
}

fn has_dynamic(group: &Group) -> bool {
    group.strategy == Strategy::Dynamic || group.kids.iter().any(|kid| kid.group.as_ref().is_some_and(has_dynamic))
}

/// What the events since the last call tell; `None` when some were missed.
fn news(events: &mut Receiver<Event>) -> Option<Vec<String>> {
    let (mut news, mut whole) = (Vec::new(), true);
    loop {
        match events.try_recv() {
            Ok(Event { path, happened: Happened::Restarting { delay, attempt }, .. }) => {
                news.push(format!("{path} restarts after {} ms, attempt {attempt}", delay.as_millis()));
            }
            Ok(Event { path, happened: Happened::Escalated { .. }, .. }) => news.push(format!("{path} gives up")),
            Ok(_) => {}
            Err(TryRecvError::Lagged(_)) => whole = false,
            Err(_) => return whole.then_some(news),
        }
    }
}

/// The children of these supervisors, as they tell themselves.
async fn look(
    system: &System,
    supervisors: impl Iterator<Item = &String>,
) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut lists = BTreeMap::new();
    for path in supervisors {
        let supervisor = system.supervisor(path).map_err(|error| error.to_string())?;
        let list = supervisor.list(LIMIT).await.map_err(|error| format!("{path} should be there, but: {error}"))?;
        lists.insert(path.clone(), list.iter().map(|child| format!("{} {}", child.name, child.seen.word())).collect());
    }
    Ok(lists)
}
