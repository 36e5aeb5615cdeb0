//! Looking at a tree from outside.
//!
//! Nobody is asked: counters are read from the cells, so a stuck actor or a full mailbox can't hide the others. Each cell
//! is locked for a moment by itself, so what is seen is true for each actor, and only nearly at one instant for all.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::wire::{Actor, Death, Event, Handling, Intensity, Mailbox, Trace, VERSION, Word};
use crate::cell::{self, AnyCell, Kind, SUSPEND};
use crate::clock::{Clock, Moment};
use crate::events::{self, Happened};
use crate::machine::Seen;
use crate::system::{ROOT, System};

/// Actors in one answer. At about 600 bytes each, more would rather hurt the daemon than help whoever looks.
const ACTORS_MAX: usize = 50_000;

/// Levels in one answer: JSON readers give up at 128 nested values, and each level is two.
const LEVELS_MAX: usize = 48;

/// Milliseconds, as far as they fit.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// The whole tree; `None` before it is started.
pub(super) fn tree(system: &System) -> Option<Actor> {
    Some(descend(Lens::new(system.clock(), 1), system.find(ROOT)?, LEVELS_MAX))
}

/// One actor with its children.
pub(super) fn show(system: &System, cell: Arc<dyn AnyCell>) -> Actor {
    descend(Lens::new(system.clock(), usize::MAX), cell, 1)
}

/// The actor at `path`, if it has a place in the tree. An address that somebody holds doesn't make an actor.
pub(super) fn find(system: &System, path: &str) -> Option<Arc<dyn AnyCell>> {
    let mut found = system.find(ROOT)?;
    if path == ROOT {
        return Some(found);
    }
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        let next = system.find(&path[..end])?;
        let meta = found.node().meta();
        let children = &meta.supervising.as_ref()?.children;
        if !children.values().any(|child| Arc::ptr_eq(child, &next)) {
            return None;
        }
        drop(meta);
        found = next;
    }
    Some(found)
}

/// What an actor is doing, in a word.
pub(super) fn state(cell: &dyn AnyCell) -> &'static str {
    let seen = Seen::from_u8(cell.node().state.load(Relaxed));
    if seen == Seen::Running && cell.node().flags() & SUSPEND != 0 { "suspended" } else { seen.word() }
}

/// Turns moments of one clock into times for people, all by the same offset.
struct Lens {
    now: Moment,
    wall: Duration,
    deaths_max: usize,
}

impl Lens {
    fn new(clock: &Clock, deaths_max: usize) -> Self {
        Self { now: clock.now(), wall: clock.wall(), deaths_max }
    }

    fn unix_ms(&self, moment: Moment) -> u64 {
        millis(self.wall.saturating_sub(self.now.since(moment)))
    }

    /// An actor without its children, and those.
    fn look(&self, cell: &dyn AnyCell) -> (Actor, Vec<Arc<dyn AnyCell>>) {
        let node = cell.node();
        let mut actor = Actor {
            path: node.path.to_string(),
            name: node.path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(ROOT).to_owned(),
            state: state(cell).into(),
            incarnation: node.incarnation.load(Relaxed),
            restarts: node.restarts.load(Relaxed),
            uptime_ms: self.uptime_ms(node.started_at.load(Relaxed)),
            mailbox: mailbox(cell),
            notes: node.notes(),
            deaths: self.deaths(&node.deaths()),
            ..Actor::default()
        };
        let counters = node.counters();
        let age = |since| self.now.since(since);
        let current = counters.handling.map_or(Duration::ZERO, |(_, since)| age(since));
        actor.handled = counters.handled;
        actor.busy_us = micros(counters.busy + current);
        actor.handling = counters.handling.map(|(kind, since)| Handling {
            message: Cow::Borrowed(cell.kinds().get(kind).copied().unwrap_or("?")),
            age_us: micros(age(since)),
        });
        let meta = node.meta();
        actor.kind = kind_word(meta.kind).into();
        actor.restart = meta.restart.map(|restart| restart.word().into());
        let mut children = Vec::new();
        if let Some(supervising) = &meta.supervising {
            actor.strategy = supervising.strategy.map(|strategy| strategy.word().into());
            actor.intensity = Some(Intensity {
                restarts: supervising.intensity.restarts,
                period_ms: millis(supervising.intensity.period),
            });
            children.extend(supervising.children.values().cloned());
        }
        actor.children_total = children.len();
        (actor, children)
    }

    fn uptime_ms(&self, started_at: u64) -> u64 {
        if started_at == 0 { 0 } else { millis(self.now.since(Moment::from_nanos(started_at))) }
    }

    fn deaths(&self, deaths: &[cell::Death]) -> Vec<Death> {
        let shown = deaths.len().saturating_sub(self.deaths_max);
        let show = |death: &cell::Death| Death {
            at_unix_ms: self.unix_ms(death.at),
            incarnation: death.incarnation,
            exit: death.exit.word().into(),
            detail: death.exit.detail().map(str::to_owned),
            asked: death.asked,
        };
        deaths[shown..].iter().map(show).collect()
    }
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Worker => "worker",
        Kind::Task => "task",
        Kind::Supervisor => "supervisor",
    }
}

fn mailbox(cell: &dyn AnyCell) -> Mailbox {
    let look = cell.mailbox();
    Mailbox {
        depth: look.depth,
        high_water: look.high_water,
        capacity: look.capacity,
        received: look.received,
        refused: look.refused,
    }
}

/// An actor and those below it, level by level, so that a bound cuts the deepest first.
fn descend(lens: Lens, top: Arc<dyn AnyCell>, levels: usize) -> Actor {
    let mut seen: Vec<(usize, Actor)> = Vec::new();
    let mut waiting = VecDeque::from([(0, 0, top)]);
    while let Some((parent, level, cell)) = waiting.pop_front() {
        if seen.len() == ACTORS_MAX {
            break;
        }
        let (actor, children) = lens.look(&*cell);
        if level < levels {
            let here = seen.len();
            waiting.extend(children.into_iter().map(|child| (here, level + 1, child)));
        }
        seen.push((parent, actor));
    }
    assemble(seen)
}

/// Puts children into their parents. Parents stand before their children in `seen`, so the last has all of its own.
fn assemble(mut seen: Vec<(usize, Actor)>) -> Actor {
    loop {
        let Some((parent, mut actor)) = seen.pop() else { return Actor::default() };
        actor.children.reverse();
        match seen.get_mut(parent) {
            Some((_, parent)) => parent.children.push(actor),
            None => return actor,
        }
    }
}

/// A blank line of the event stream.
pub(super) fn line(clock: &Clock, event: &'static str) -> Event {
    Event { version: VERSION, at_unix_ms: millis(clock.wall()), event: Word::Borrowed(event), ..Event::default() }
}

/// An event, for the stream.
pub(super) fn event(clock: &Clock, event: &events::Event) -> Event {
    let mut told = Event {
        version: VERSION,
        sequence: Some(event.sequence),
        at_unix_ms: millis(clock.wall_at(event.at)),
        event: event.happened.word().into(),
        path: Some(event.path.to_string()),
        incarnation: Some(event.incarnation),
        ..Event::default()
    };
    match &event.happened {
        Happened::Ended { exit, .. } => {
            told.exit = Some(exit.word().into());
            told.detail = exit.detail().map(str::to_owned);
        }
        Happened::Restarting { delay, attempt } => {
            told.delay_ms = Some(millis(*delay));
            told.attempt = Some(*attempt);
        }
        Happened::Escalated { reason } => told.detail = Some(reason.clone()),
        _ => {}
    }
    told
}

/// A trace record, for the stream.
pub(super) fn trace(clock: &Clock, record: &cell::TraceRecord) -> Trace {
    Trace {
        at_unix_ms: millis(clock.wall_at(record.at)),
        message: record.message.into(),
        took_us: micros(record.took),
        waiting: record.waiting,
        failed: record.failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Actor {
        Actor { name: name.to_owned(), ..Actor::default() }
    }

    #[test]
    fn children_come_back_to_their_parents_in_order() {
        let seen = vec![
            (0, named("root")),
            (0, named("a")),
            (0, named("b")),
            (1, named("a1")),
            (1, named("a2")),
            (2, named("b1")),
            (4, named("a2x")),
        ];
        fn print(actor: &Actor) -> String {
            let children: Vec<String> = actor.children.iter().map(print).collect();
            format!("{}({})", actor.name, children.join(" "))
        }
        assert_eq!(print(&assemble(seen)), "root(a(a1() a2(a2x())) b(b1()))");
    }
}
