//! A supervisor's mind: what it knows of its children and what it wants done, with no actor, clock or IO in it.
//!
//! The shell ([`crate::supervisor`]) feeds it what happened and carries out the [`Effect`]s. One child's life:
//!
//! ```text
//!            Spawn            Started
//!   Down ───────────▶ Starting ─────▶ Running ◀─ unasked exit: verdict ─┐
//!    ▲  ▲                │ exit          │                              │
//!    │  └── Waiting ◀────┴───────────────┤                              │
//!    │     (backoff, one_for_one)        │ stop                         │
//!    └────────────── Stopping ◀──────────┘                              │
//!                                                                       │
//!   cycle (boot; grouped strategies): Stopping ─▶ Waiting ─▶ Starting ◀─┘
//!                                   last to first  backoff   first to last
//! ```
//!
//! Where this differs from OTP: a failing start counts as a death, at boot too; a supervisor that gave up exits
//! abnormally, so a transient one is restarted; there is a backoff. An exit of a child that a running cycle is about
//! to stop anyway costs nothing, as in OTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::{Moment, Rng};
use crate::error::TreeError;
use crate::exit::Exit;
pub use crate::seen::Seen;
use crate::spec::{Intensity, Restart, Shutdown, Strategy};
use crate::verdict::{Budget, Range, Verdict, verdict};

/// How long a killed actor may take to be gone before it is reported as stuck. It reaches no await by then.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// A child's place. Grows with each child added, so its order is the start order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

/// A life of a child, unique within one supervisor's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation(pub u64);

/// A command whose answer is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// The part of a child's spec that decisions need.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether it comes back.
    pub restart: Restart,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// How long it may take to start.
    pub start_within: Option<Duration>,
    /// The waits before its restarts.
    pub backoff: Backoff,
}

/// What the shell has to do, in this order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Start this child.
    Spawn(ChildId, Incarnation),
    /// Ask this incarnation to stop.
    Stop(ChildId),
    /// Drop this incarnation at its next await.
    Kill(ChildId),
    /// Call [`Machine::timer`] with the same key after this long; replaces a timer of the same key.
    SetTimer(Option<ChildId>, Duration),
    /// That timer is no longer wanted.
    ClearTimer(Option<ChildId>),
    /// The command is done, or refused.
    Reply(Ticket, Result<(), TreeError>),
    /// A counted death; the child (and its group) comes back after this long, for the nth time in a row.
    Restarting(ChildId, Duration, u32),
    /// The budget is spent, for this reason; the stops follow, and then [`Effect::Exit`].
    Escalating(String),
    /// A child was killed and is still there.
    Stuck(ChildId),
    /// The child's place is gone; nothing refers to it any more.
    Forget(ChildId),
    /// All children were up, or had their first try.
    Ready,
    /// All children are gone: the supervisor ends like this.
    Exit(Exit),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Waiting,
    Starting { incarnation: Incarnation, killed: bool },
    Running { incarnation: Incarnation, since: Moment },
    Stopping { incarnation: Incarnation, killed: bool },
}

impl State {
    fn incarnation(self) -> Option<Incarnation> {
        match self {
            Self::Down | Self::Waiting => None,
            Self::Starting { incarnation, .. }
            | Self::Running { incarnation, .. }
            | Self::Stopping { incarnation, .. } => Some(incarnation),
        }
    }
}

/// What a ticket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Started,
    Stopped,
}

#[derive(Debug)]
struct Child {
    name: Arc<str>,
    rules: Rules,
    state: State,
    /// It should run; the next opportunity starts it.
    wanted: bool,
    /// Its place goes with its incarnation.
    removing: bool,
    /// Added by a command and not up yet: if this first start fails, the asker is told and nothing remains.
    added: bool,
    attempts: u32,
    tickets: Vec<(Ticket, Awaits)>,
}

impl Child {
    /// A life that was long enough ends the row of deaths, however it ends itself.
    fn end_row_after_long_life(&mut self, now: Moment) {
        if let State::Running { since, .. } = self.state
            && now.since(since) >= self.rules.backoff.reset_after
        {
            self.attempts = 0;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cycle {
    /// Stopping all from this child on, last first; then wait so long.
    Stopping { from: ChildId, wait: Duration },
    /// The backoff before the starts.
    Waiting { from: ChildId, until: Moment },
    /// Starting what is wanted, first to last, one at a time.
    Starting,
}

#[derive(Debug, PartialEq)]
enum Phase {
    Serving,
    Terminating(Exit),
    Gone,
}

/// See the module's page.
#[derive(Debug)]
pub struct Machine {
    strategy: Strategy,
    budget: Budget,
    rng: Rng,
    children: BTreeMap<ChildId, Child>,
    names: HashMap<Arc<str>, ChildId>,
    next_child: u64,
    next_incarnation: u64,
    live: usize,
    cycle: Option<Cycle>,
    phase: Phase,
    ready: bool,
    effects: Vec<Effect>,
}

impl Machine {
    /// A supervisor without children; `rng` only feeds the backoff's jitter.
    pub fn new(strategy: Strategy, intensity: Intensity, rng: Rng) -> Self {
        Self {
            strategy,
            budget: Budget::new(intensity),
            rng,
            children: BTreeMap::new(),
            names: HashMap::new(),
            next_child: 0,
            next_incarnation: 0,
            live: 0,
            cycle: Some(Cycle::Starting),
            phase: Phase::Serving,
            ready: false,
            effects: Vec::new(),
        }
    }

    /// What has to be done since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Restarts that count at `now`.
    pub fn restarts_in_window(&mut self, now: Moment) -> usize {
        self.budget.spent(now)
    }

    /// The child of this name.
    pub fn find(&self, name: &str) -> Option<ChildId> {
        self.names.get(name).copied()
    }

    /// All children in start order, and what each looks like.
    pub fn list(&self) -> impl Iterator<Item = (ChildId, &Arc<str>, Seen)> {
        self.children.iter().map(|(&id, child)| (id, &child.name, self.seen(id, child)))
    }

    /// What one child looks like; [`Seen::Down`] when there is none.
    pub fn look(&self, id: ChildId) -> Seen {
        self.children.get(&id).map_or(Seen::Down, |child| self.seen(id, child))
    }

    fn seen(&self, id: ChildId, child: &Child) -> Seen {
        match child.state {
            State::Starting { .. } => Seen::Starting,
            State::Running { .. } => Seen::Running,
            State::Stopping { .. } => Seen::Stopping,
            State::Waiting => Seen::Backoff,
            State::Down => match self.cycle {
                Some(Cycle::Waiting { from, .. }) if id >= from && child.wanted => Seen::Backoff,
                _ => Seen::Down,
            },
        }
    }

    /// Adds a place at the end. Nothing starts before [`Machine::boot`] or [`Machine::start_added`].
    ///
    /// # Errors
    /// [`TreeError::AlreadyPresent`] when a child has that name, [`TreeError::ShuttingDown`] at the end.
    pub fn add(&mut self, name: Arc<str>, rules: Rules) -> Result<ChildId, TreeError> {
        if self.phase != Phase::Serving {
            return Err(TreeError::ShuttingDown);
        }
        if self.names.contains_key(&name) {
            return Err(TreeError::AlreadyPresent { name: name.to_string() });
        }
        let id = ChildId(self.next_child);
        self.next_child += 1;
        self.names.insert(name.clone(), id);
        let child = Child {
            name,
            rules,
            state: State::Down,
            wanted: true,
            removing: false,
            added: false,
            attempts: 0,
            tickets: Vec::new(),
        };
        self.children.insert(id, child);
        Ok(id)
    }

    /// Starts the children of the spec.
    pub fn boot(&mut self, now: Moment) {
        if self.strategy == Strategy::Dynamic {
            self.cycle = None;
            let ids: Vec<ChildId> = self.children.keys().copied().collect();
            ids.into_iter().for_each(|id| self.spawn(id));
        }
        self.advance(now);
    }

    /// Starts a child that a command added. The answer comes when it is up, or when its first start failed.
    pub fn start_added(&mut self, id: ChildId, ticket: Ticket, now: Moment) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.added = true;
        child.tickets.push((ticket, Awaits::Started));
        self.start_when_due(id);
        self.advance(now);
    }

    /// Stops a child and keeps its place.
    pub fn stop_child(&mut self, id: ChildId, ticket: Ticket, now: Moment) {
        self.retire(id, false, ticket, now);
    }

    /// Stops a child and gives up its place.
    pub fn remove_child(&mut self, id: ChildId, ticket: Ticket, now: Moment) {
        self.retire(id, true, ticket, now);
    }

    fn retire(&mut self, id: ChildId, removing: bool, ticket: Ticket, now: Moment) {
        if self.phase != Phase::Serving {
            return self.reply(ticket, Err(TreeError::ShuttingDown));
        }
        let Some(child) = self.children.get_mut(&id) else {
            return self.reply(ticket, Err(TreeError::NoSuchChild));
        };
        child.wanted = false;
        child.removing |= removing || child.rules.restart == Restart::Temporary;
        child.tickets.push((ticket, Awaits::Stopped));
        match child.state {
            State::Down | State::Waiting => self.settle_down(id),
            State::Starting { .. } | State::Running { .. } => self.stop(id, now),
            State::Stopping { .. } => {}
        }
        self.advance(now);
    }

    /// Starts a stopped child, or restarts a running one together with those its strategy takes along. Costs no budget.
    pub fn restart_child(&mut self, id: ChildId, ticket: Ticket, now: Moment) {
        if self.phase != Phase::Serving {
            return self.reply(ticket, Err(TreeError::ShuttingDown));
        }
        let Some(child) = self.children.get_mut(&id) else {
            return self.reply(ticket, Err(TreeError::NoSuchChild));
        };
        if child.removing {
            return self.reply(ticket, Err(TreeError::NoSuchChild));
        }
        child.wanted = true;
        child.tickets.push((ticket, Awaits::Started));
        match child.state {
            State::Starting { .. } => {}
            State::Running { .. } if self.strategy.is_grouped() => {
                self.begin_cycle(id, Duration::ZERO, now);
                if let Some(child) = self.children.get_mut(&id) {
                    child.removing = false; // A temporary one too: it was asked for by name.
                }
            }
            State::Running { .. } => self.stop(id, now),
            State::Stopping { .. } => {
                if self.strategy.is_grouped() && self.cycle.is_none() {
                    self.cycle = Some(Cycle::Starting);
                }
            }
            State::Down | State::Waiting => {
                self.effects.push(Effect::ClearTimer(Some(id)));
                if let Some(child) = self.children.get_mut(&id) {
                    child.state = State::Down;
                }
                self.start_when_due(id);
            }
        }
        self.advance(now);
    }

    /// Starts a wanted child now, or leaves it to the cycle that is under way.
    fn start_when_due(&mut self, id: ChildId) {
        if self.strategy.is_grouped() || self.cycle.is_some() {
            self.cycle.get_or_insert(Cycle::Starting);
        } else {
            self.spawn(id);
        }
    }

    /// Stops all children, last first (a dynamic supervisor's all at once), and then ends.
    pub fn shut_down(&mut self, now: Moment) {
        self.terminate(Exit::Shutdown, now);
    }

    fn terminate(&mut self, exit: Exit, now: Moment) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Terminating(exit);
        if self.cycle.take().is_some() {
            self.effects.push(Effect::ClearTimer(None));
        }
        let idle: Vec<ChildId> =
            self.children.iter().filter(|(_, c)| c.state.incarnation().is_none()).map(|(&id, _)| id).collect();
        for id in idle {
            self.effects.push(Effect::ClearTimer(Some(id)));
            self.forget(id);
        }
        if self.strategy == Strategy::Dynamic {
            let ids: Vec<ChildId> = self.children.keys().copied().collect();
            for id in ids {
                if !matches!(self.children[&id].state, State::Stopping { .. }) {
                    self.stop(id, now);
                }
            }
        }
        self.advance(now);
    }

    /// The incarnation is up.
    pub fn started(&mut self, id: ChildId, incarnation: Incarnation, now: Moment) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if !matches!(child.state, State::Starting { incarnation: current, killed: false } if current == incarnation) {
            return; // It is being stopped, or its time to start is over: the exit follows.
        }
        child.state = State::Running { incarnation, since: now };
        child.added = false;
        self.effects.push(Effect::ClearTimer(Some(id)));
        self.answer(id, Awaits::Started, Ok(()));
        self.advance(now);
    }

    /// The incarnation is gone, with everything that belonged to it.
    pub fn exited(&mut self, id: ChildId, incarnation: Incarnation, exit: &Exit, now: Moment) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.state.incarnation() != Some(incarnation) {
            return;
        }
        child.end_row_after_long_life(now);
        let state = std::mem::replace(&mut child.state, State::Down);
        self.live -= 1;
        self.effects.push(Effect::ClearTimer(Some(id)));
        let doomed = matches!(self.cycle, Some(Cycle::Stopping { from, .. }) if id >= from);
        if self.phase != Phase::Serving {
            self.forget(id);
        } else if matches!(state, State::Stopping { .. }) {
            self.stopped_as_asked(id);
        } else if doomed {
            self.mark_for_cycle(id);
            self.settle_down(id);
        } else {
            self.died(id, exit, now);
        }
        self.advance(now);
    }

    fn stopped_as_asked(&mut self, id: ChildId) {
        let child = &self.children[&id];
        if child.wanted && !child.removing {
            self.answer(id, Awaits::Stopped, Ok(()));
            if !self.strategy.is_grouped() {
                self.spawn(id); // Grouped ones are started by their cycle, in order.
            }
        } else {
            self.settle_down(id);
        }
    }

    /// An exit that nobody asked for.
    fn died(&mut self, id: ChildId, exit: &Exit, now: Moment) {
        let child = &self.children[&id];
        if child.added {
            let error = TreeError::StartFailed { name: child.name.to_string(), reason: exit.to_string() };
            self.answer(id, Awaits::Started, Err(error));
            if let Some(child) = self.children.get_mut(&id) {
                child.removing = true;
            }
            return self.settle_down(id);
        }
        if !child.tickets.is_empty() {
            let error = TreeError::StartFailed { name: child.name.to_string(), reason: exit.to_string() };
            self.answer(id, Awaits::Started, Err(error));
        }
        let restart = self.children[&id].rules.restart;
        match verdict(self.strategy, restart, exit, &mut self.budget, now) {
            Verdict::Leave => {
                if let Some(child) = self.children.get_mut(&id) {
                    child.wanted = false;
                    child.removing |= restart == Restart::Temporary;
                }
                self.settle_down(id);
            }
            Verdict::Escalate => {
                let Intensity { restarts, period } = self.budget.intensity();
                let name = self.children[&id].name.clone();
                let reason =
                    format!("more than {restarts} restarts within {period:?}; the last to die was {name} ({exit})");
                self.effects.push(Effect::Escalating(reason.clone()));
                self.terminate(Exit::Escalated(reason), now);
            }
            Verdict::Restart(range) => self.plan_restart(id, range, now),
        }
    }

    fn plan_restart(&mut self, id: ChildId, range: Range, now: Moment) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.wanted = true;
        child.attempts = child.attempts.saturating_add(1);
        let attempts = child.attempts;
        let delay = child.rules.backoff.delay(attempts, &mut self.rng);
        self.effects.push(Effect::Restarting(id, delay, attempts));
        match range {
            Range::Itself if delay.is_zero() => self.spawn(id),
            Range::Itself => {
                if let Some(child) = self.children.get_mut(&id) {
                    child.state = State::Waiting;
                }
                self.effects.push(Effect::SetTimer(Some(id), delay));
            }
            Range::FromItself | Range::All => self.begin_cycle(id, delay, now),
        }
    }

    /// Starts a cycle over the group of `id`, or widens the one under way.
    fn begin_cycle(&mut self, id: ChildId, wait: Duration, now: Moment) {
        let first = self.children.keys().next().copied().unwrap_or(id);
        let mut from = if self.strategy == Strategy::OneForAll { first } else { id };
        let mut wait = wait;
        match self.cycle {
            Some(Cycle::Stopping { from: other, wait: longer }) => {
                from = from.min(other);
                wait = wait.max(longer);
            }
            Some(Cycle::Waiting { from: other, until }) => {
                from = from.min(other);
                wait = wait.max(until.since(now)); // A quick death doesn't call off a slow one's wait.
            }
            Some(Cycle::Starting) | None => {}
        }
        self.effects.push(Effect::ClearTimer(None));
        self.cycle = Some(Cycle::Stopping { from, wait });
        let group: Vec<ChildId> = self.children.range(from..).map(|(&id, _)| id).collect();
        for id in group {
            self.mark_for_cycle(id);
        }
    }

    /// All of a group come back, as in OTP: also those that had ended or were stopped; temporary ones go.
    fn mark_for_cycle(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.rules.restart == Restart::Temporary {
            child.removing |= child.state.incarnation().is_some() || !child.wanted;
        } else if !child.removing {
            child.wanted = true;
        }
    }

    /// A timer of [`Effect::SetTimer`] is due.
    pub fn timer(&mut self, key: Option<ChildId>, now: Moment) {
        match key {
            None => {
                if matches!(self.cycle, Some(Cycle::Waiting { .. })) {
                    self.cycle = Some(Cycle::Starting);
                }
            }
            Some(id) => self.child_timer(id),
        }
        self.advance(now);
    }

    fn child_timer(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        match &mut child.state {
            State::Waiting => self.spawn(id),
            State::Starting { killed, .. } | State::Stopping { killed, .. } if !*killed => {
                *killed = true;
                self.effects.extend([Effect::Kill(id), Effect::SetTimer(Some(id), STUCK_AFTER)]);
            }
            State::Starting { .. } | State::Stopping { .. } => self.effects.push(Effect::Stuck(id)),
            State::Down | State::Running { .. } => {}
        }
    }

    /// Takes the next step of what is under way.
    fn advance(&mut self, now: Moment) {
        match &self.phase {
            Phase::Gone => return,
            Phase::Terminating(exit) => {
                if self.live == 0 {
                    self.effects.push(Effect::Exit(exit.clone()));
                    self.phase = Phase::Gone;
                } else if self.strategy != Strategy::Dynamic {
                    self.stop_last(ChildId(0), now);
                }
                return;
            }
            Phase::Serving => {}
        }
        self.advance_cycle(now);
        if self.cycle.is_none() && !self.ready {
            self.ready = true;
            self.effects.push(Effect::Ready);
        }
    }

    fn advance_cycle(&mut self, now: Moment) {
        match self.cycle {
            Some(Cycle::Stopping { from, wait }) => {
                if self.stop_last(from, now) {
                    return;
                }
                if wait.is_zero() {
                    self.cycle = Some(Cycle::Starting);
                    return self.advance_cycle(now);
                }
                self.cycle = Some(Cycle::Waiting { from, until: now + wait });
                self.effects.push(Effect::SetTimer(None, wait));
            }
            Some(Cycle::Starting) => {
                let pending = self.children.iter().find(|(_, child)| match child.state {
                    State::Down => child.wanted,
                    State::Starting { .. } => true,
                    State::Stopping { .. } => child.wanted,
                    State::Waiting | State::Running { .. } => false,
                });
                match pending.map(|(&id, child)| (id, child.state)) {
                    None => self.cycle = None,
                    Some((id, State::Down)) => self.spawn(id),
                    Some(_) => {} // One at a time: its start, or its end, is the next step.
                }
            }
            Some(Cycle::Waiting { .. }) | None => {}
        }
    }

    /// Asks the last live child from `from` on to stop. `false` when there is none.
    fn stop_last(&mut self, from: ChildId, now: Moment) -> bool {
        let last = self.children.range(from..).rev().find(|(_, child)| child.state.incarnation().is_some());
        match last.map(|(&id, child)| (id, child.state)) {
            None => false,
            Some((_, State::Stopping { .. })) => true,
            Some((id, _)) => {
                self.stop(id, now);
                true
            }
        }
    }

    fn spawn(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let incarnation = Incarnation(self.next_incarnation);
        self.next_incarnation += 1;
        self.live += 1;
        child.state = State::Starting { incarnation, killed: false };
        self.effects.push(Effect::Spawn(id, incarnation));
        if let Some(limit) = child.rules.start_within {
            self.effects.push(Effect::SetTimer(Some(id), limit));
        }
    }

    fn stop(&mut self, id: ChildId, now: Moment) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.end_row_after_long_life(now);
        let Some(incarnation) = child.state.incarnation() else { return };
        let brutal = child.rules.shutdown == Shutdown::Brutal;
        child.state = State::Stopping { incarnation, killed: brutal };
        self.effects.push(Effect::ClearTimer(Some(id)));
        match child.rules.shutdown {
            Shutdown::Brutal => self.effects.extend([Effect::Kill(id), Effect::SetTimer(Some(id), STUCK_AFTER)]),
            Shutdown::Within(limit) => self.effects.extend([Effect::Stop(id), Effect::SetTimer(Some(id), limit)]),
            Shutdown::Unlimited => self.effects.push(Effect::Stop(id)),
        }
    }

    /// The child is down and stays so for now; whoever waited for that is told.
    fn settle_down(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.state = State::Down;
        self.effects.push(Effect::ClearTimer(Some(id)));
        self.answer(id, Awaits::Stopped, Ok(()));
        if self.children[&id].removing {
            self.forget(id);
        } else if !self.children[&id].wanted {
            self.answer(id, Awaits::Started, Err(TreeError::Stopped));
        }
    }

    /// Removes the place, and tells whoever still waits for it.
    fn forget(&mut self, id: ChildId) {
        let Some(child) = self.children.remove(&id) else { return };
        self.names.remove(&child.name);
        for (ticket, awaits) in child.tickets {
            let answer = if awaits == Awaits::Stopped { Ok(()) } else { Err(TreeError::Stopped) };
            self.effects.push(Effect::Reply(ticket, answer));
        }
        self.effects.push(Effect::Forget(id));
    }

    fn answer(&mut self, id: ChildId, about: Awaits, answer: Result<(), TreeError>) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.tickets.is_empty() {
            return;
        }
        let (due, rest) = std::mem::take(&mut child.tickets).into_iter().partition(|(_, awaits)| *awaits == about);
        child.tickets = rest;
        let due: Vec<(Ticket, Awaits)> = due;
        self.effects.extend(due.into_iter().map(|(ticket, _)| Effect::Reply(ticket, answer.clone())));
    }

    fn reply(&mut self, ticket: Ticket, answer: Result<(), TreeError>) {
        self.effects.push(Effect::Reply(ticket, answer));
    }
}
