//! The supervisor: carries out what its [`Machine`] decides.
//!
//! Owns:    its children's incarnations; when it dies, they die.
//! Needs:   nothing; a tree is self-contained.
//! Restart: as its parent's spec says. It starts again from its spec, so children added at run time are gone.
//! Fails:   when its children die more often than its budget bears.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::actor::{Actor, Context, Stop, TimerId};
use crate::address::{Address, ReplyPort};
use crate::cell::{AnyCell, Cell, Death, Kind, Signal, Supervising};
use crate::error::TreeError;
use crate::events::Happened;
use crate::exit::{ActorError, Exit};
use crate::launch::{Lifeline, Parent};
use crate::machine::{ChildId, Effect, Incarnation, Machine, Rules, Seen, Ticket};
use crate::message_kinds;
use crate::spec::{ChildSpec, Restart, Spec};
use crate::system::System;

type Reply = ReplyPort<Result<(), TreeError>>;

/// What a supervisor understands. The first two come from the runtime.
#[derive(Debug)]
pub(crate) enum SupervisorMsg {
    /// A child's incarnation is up.
    ChildStarted {
        /// Its place.
        child: ChildId,
        /// Which life.
        incarnation: Incarnation,
    },
    /// A child's incarnation is gone, with all that belonged to it.
    ChildExited {
        /// Its place.
        child: ChildId,
        /// Which life.
        incarnation: Incarnation,
        /// How it ended.
        exit: Exit,
    },
    /// A start limit, a stop limit or a backoff is over; `None` is the group's backoff.
    TimerTick {
        /// Whose timer.
        key: Option<ChildId>,
    },
    /// Add a child at the end and start it.
    Add {
        /// The child.
        child: Box<ChildSpec>,
        /// Answered when it is up.
        reply: Reply,
    },
    /// Stop a child and forget it.
    Remove {
        /// Its name.
        name: String,
        /// Answered when it is gone.
        reply: Reply,
    },
    /// Stop a child and keep its place.
    StopChild {
        /// Its name.
        name: String,
        /// Answered when it is gone.
        reply: Reply,
    },
    /// Start a stopped child, or restart a running one and those its strategy takes along.
    RestartChild {
        /// Its name.
        name: String,
        /// Answered when it is up again.
        reply: Reply,
    },
    /// Report the children.
    List {
        /// The answer.
        reply: ReplyPort<Vec<ChildLook>>,
    },
}

message_kinds!(SupervisorMsg { ChildStarted, ChildExited, TimerTick, Add, Remove, StopChild, RestartChild, List });

/// One child, as its supervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildLook {
    /// The last segment of its path.
    pub name: String,
    /// What it is doing.
    pub seen: Seen,
    /// Whether it comes back.
    pub restart: Restart,
}

/// The way to a supervisor: children are added, removed, stopped and restarted through it.
#[derive(Clone, Debug)]
pub struct SupervisorRef(Address<SupervisorMsg>);

impl SupervisorRef {
    pub(crate) fn new(address: Address<SupervisorMsg>) -> Self {
        Self(address)
    }

    /// The supervisor's path.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Adds a child and waits until it is up.
    ///
    /// # Errors
    /// When its first start fails it is not kept, and no budget is spent. After a missed deadline it may be there.
    pub async fn add(&self, limit: Duration, child: ChildSpec) -> Result<(), TreeError> {
        let child = Box::new(child);
        self.0.call(limit, |reply| SupervisorMsg::Add { child, reply }).await?
    }

    /// Stops a child, waits until it is gone, and forgets it.
    ///
    /// # Errors
    /// [`TreeError::NoSuchChild`], or no answer in time.
    pub async fn remove(&self, limit: Duration, name: &str) -> Result<(), TreeError> {
        let name = name.to_owned();
        self.0.call(limit, |reply| SupervisorMsg::Remove { name, reply }).await?
    }

    /// Stops a child and keeps its place; a temporary one goes. A group restart revives it, as in OTP.
    ///
    /// # Errors
    /// [`TreeError::NoSuchChild`], or no answer in time.
    pub async fn stop(&self, limit: Duration, name: &str) -> Result<(), TreeError> {
        let name = name.to_owned();
        self.0.call(limit, |reply| SupervisorMsg::StopChild { name, reply }).await?
    }

    /// Starts a stopped child, or restarts a running one and those its strategy takes along, at no cost to the budget.
    ///
    /// # Errors
    /// [`TreeError::NoSuchChild`], a failed start, or no answer in time.
    pub async fn restart(&self, limit: Duration, name: &str) -> Result<(), TreeError> {
        let name = name.to_owned();
        self.0.call(limit, |reply| SupervisorMsg::RestartChild { name, reply }).await?
    }

    /// The children in start order.
    ///
    /// # Errors
    /// When the supervisor is not there or does not answer in time.
    pub async fn list(&self, limit: Duration) -> Result<Vec<ChildLook>, TreeError> {
        Ok(self.0.call(limit, |reply| SupervisorMsg::List { reply }).await?)
    }
}

struct Entry {
    spec: ChildSpec,
    cell: Arc<dyn AnyCell>,
    timer: Option<TimerId>,
}

/// The actor.
pub(crate) struct Supervisor {
    system: System,
    path: Arc<str>,
    myself: Arc<Cell<SupervisorMsg>>,
    machine: Machine,
    entries: BTreeMap<ChildId, Entry>,
    group_timer: Option<TimerId>,
    replies: HashMap<Ticket, Reply>,
    tickets: u64,
}

impl Actor for Supervisor {
    type Args = Spec;
    type Msg = SupervisorMsg;

    async fn init(ctx: &mut Context<SupervisorMsg>, spec: Spec) -> Result<Self, ActorError> {
        ctx.defer_ready();
        let machine = Machine::new(spec.strategy, spec.intensity, ctx.rng());
        let mut this = Self {
            system: ctx.system().clone(),
            path: ctx.path().clone(),
            myself: ctx.cell(),
            machine,
            entries: BTreeMap::new(),
            group_timer: None,
            replies: HashMap::new(),
            tickets: 0,
        };
        // The cells of a former life are kept until the same paths have asked for them, so their counters go on.
        let former = this.myself.node.meta().supervising.replace(Box::new(Supervising {
            strategy: Some(spec.strategy),
            intensity: spec.intensity,
            children: BTreeMap::new(),
        }));
        for child in spec.children {
            this.add(child)?;
        }
        drop(former);
        let now = ctx.clock().now();
        this.machine.boot(now);
        this.carry_out(ctx);
        Ok(this)
    }

    async fn handle(&mut self, ctx: &mut Context<SupervisorMsg>, message: SupervisorMsg) -> Result<(), ActorError> {
        let now = ctx.clock().now();
        match message {
            SupervisorMsg::ChildStarted { child, incarnation } => {
                self.machine.started(child, incarnation, now);
                self.child_is_up(child);
            }
            SupervisorMsg::ChildExited { child, incarnation, exit } => {
                self.child_is_gone(child, &exit);
                self.machine.exited(child, incarnation, &exit, now);
            }
            SupervisorMsg::TimerTick { key } => self.machine.timer(key, now),
            SupervisorMsg::Add { child, reply } => match self.add(*child) {
                Ok(id) => {
                    let ticket = self.ticket(reply);
                    self.machine.start_added(id, ticket, now);
                }
                Err(error) => reply.send(Err(error)),
            },
            SupervisorMsg::Remove { name, reply } => match self.find(&name, reply) {
                Some((id, ticket)) => self.machine.remove_child(id, ticket, now),
                None => return Ok(()),
            },
            SupervisorMsg::StopChild { name, reply } => match self.find(&name, reply) {
                Some((id, ticket)) => self.machine.stop_child(id, ticket, now),
                None => return Ok(()),
            },
            SupervisorMsg::RestartChild { name, reply } => match self.find(&name, reply) {
                Some((id, ticket)) => self.machine.restart_child(id, ticket, now),
                None => return Ok(()),
            },
            SupervisorMsg::List { reply } => reply.send(self.list()),
        }
        self.carry_out(ctx);
        Ok(())
    }

    async fn stopping(&mut self, ctx: &mut Context<SupervisorMsg>) -> Stop {
        self.machine.shut_down(ctx.clock().now());
        self.carry_out(ctx);
        Stop::Later
    }
}

impl Supervisor {
    fn ticket(&mut self, reply: Reply) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.replies.insert(ticket, reply);
        ticket
    }

    fn find(&mut self, name: &str, reply: Reply) -> Option<(ChildId, Ticket)> {
        match self.machine.find(name) {
            Some(id) => Some((id, self.ticket(reply))),
            None => {
                reply.send(Err(TreeError::NoSuchChild));
                None
            }
        }
    }

    fn list(&self) -> Vec<ChildLook> {
        let look = |(id, name, seen): (ChildId, &Arc<str>, Seen)| ChildLook {
            name: name.to_string(),
            seen,
            restart: self.entries.get(&id).map_or(Restart::Temporary, |entry| entry.spec.restart),
        };
        self.machine.list().map(look).collect()
    }

    fn add(&mut self, spec: ChildSpec) -> Result<ChildId, TreeError> {
        let path = match &*self.path {
            "/" => spec.name.clone(),
            parent => format!("{parent}/{}", spec.name).into(),
        };
        let cell = spec.factory.cell(&self.system, path)?;
        let rules = Rules {
            restart: spec.restart,
            shutdown: spec.shutdown,
            start_within: spec.start_within,
            backoff: spec.backoff,
        };
        let id = self.machine.add(spec.name.clone(), rules)?;
        cell.set_capacity(spec.mailbox);
        {
            let meta = &mut cell.node().meta();
            meta.kind = spec.factory.kind();
            meta.restart = Some(spec.restart);
            if meta.kind != Kind::Supervisor {
                meta.supervising = None;
            }
        }
        if let Some(supervising) = &mut self.myself.node.meta().supervising {
            supervising.children.insert(id, cell.clone());
        }
        self.entries.insert(id, Entry { spec, cell, timer: None });
        Ok(id)
    }

    fn child_is_up(&mut self, child: ChildId) {
        if self.machine.look(child) != Seen::Running {
            return;
        }
        if let Some(entry) = self.entries.get(&child) {
            entry.cell.node().state.store(Seen::Running as u8, Relaxed);
            self.system.happened(entry.cell.node(), || Happened::Started);
            tracing::debug!(child = &*entry.cell.node().path, "started");
        }
    }

    fn child_is_gone(&mut self, child: ChildId, exit: &Exit) {
        let asked = self.machine.look(child) == Seen::Stopping;
        let Some(entry) = self.entries.get(&child) else { return };
        let node = entry.cell.node();
        let incarnation = node.incarnation.load(Relaxed);
        node.started_at.store(0, Relaxed);
        node.state.store(Seen::Down as u8, Relaxed);
        node.record_death(Death { at: self.system.clock().now(), incarnation, exit: exit.clone(), asked });
        self.system.happened(node, || Happened::Ended { exit: exit.clone(), asked });
        if asked || exit.is_clean() {
            tracing::debug!(child = &*node.path, incarnation, %exit, "ended");
        } else {
            tracing::warn!(child = &*node.path, incarnation, %exit, "died");
        }
    }

    fn carry_out(&mut self, ctx: &mut Context<SupervisorMsg>) {
        for effect in self.machine.take_effects() {
            match effect {
                Effect::Spawn(id, incarnation) => self.spawn(ctx, id, incarnation),
                Effect::Stop(id) => self.signal(id, Signal::Stop),
                Effect::Kill(id) => self.signal(id, Signal::Kill),
                Effect::SetTimer(key, delay) => self.set_timer(ctx, key, delay),
                Effect::ClearTimer(key) => self.clear_timer(ctx, key),
                Effect::Reply(ticket, answer) => {
                    if let Some(reply) = self.replies.remove(&ticket) {
                        reply.send(answer);
                    }
                }
                Effect::Restarting(id, delay, attempt) => {
                    if let Some(entry) = self.entries.get(&id) {
                        let node = entry.cell.node();
                        node.state.store(self.machine.look(id) as u8, Relaxed);
                        self.system.happened(node, || Happened::Restarting { delay, attempt });
                    }
                }
                Effect::Escalating(reason) => {
                    tracing::error!(%reason, "giving up");
                    self.system.happened(&self.myself.node, || Happened::Escalated { reason });
                }
                Effect::Stuck(id) => {
                    if let Some(entry) = self.entries.get(&id) {
                        tracing::error!(child = &*entry.cell.node().path, "killed, but it reaches no await");
                        self.system.happened(entry.cell.node(), || Happened::Stuck);
                    }
                }
                Effect::Forget(id) => self.forget(id),
                Effect::Ready => ctx.ready(),
                Effect::Exit(exit) => ctx.finish_as(exit),
            }
        }
    }

    fn spawn(&mut self, ctx: &Context<SupervisorMsg>, id: ChildId, incarnation: Incarnation) {
        let Some(entry) = self.entries.get(&id) else { return };
        let node = entry.cell.node();
        if node.incarnation.fetch_add(1, Relaxed) > 0 {
            node.restarts.fetch_add(1, Relaxed);
        }
        node.started_at.store(self.system.clock().now().as_nanos().max(1), Relaxed);
        node.state.store(Seen::Starting as u8, Relaxed);
        let parent =
            Parent::Supervisor { cell: self.myself.clone(), child: id, incarnation, held: ctx.lifeline.clone() };
        entry.spec.factory.launch(entry.cell.clone(), Lifeline::new(parent));
    }

    fn signal(&self, id: ChildId, signal: Signal) {
        if let Some(entry) = self.entries.get(&id) {
            entry.cell.node().state.store(Seen::Stopping as u8, Relaxed);
            entry.cell.signal(signal);
        }
    }

    fn set_timer(&mut self, ctx: &mut Context<SupervisorMsg>, key: Option<ChildId>, delay: Duration) {
        self.clear_timer(ctx, key);
        let timer = Some(ctx.send_after(delay, SupervisorMsg::TimerTick { key }));
        match key {
            None => {
                self.group_timer = timer;
                for (id, entry) in &self.entries {
                    entry.cell.node().state.store(self.machine.look(*id) as u8, Relaxed);
                }
            }
            Some(id) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.timer = timer;
                }
            }
        }
    }

    fn clear_timer(&mut self, ctx: &mut Context<SupervisorMsg>, key: Option<ChildId>) {
        let timer = match key {
            None => self.group_timer.take(),
            Some(id) => self.entries.get_mut(&id).and_then(|entry| entry.timer.take()),
        };
        if let Some(timer) = timer {
            ctx.cancel(timer);
        }
    }

    fn forget(&mut self, id: ChildId) {
        if let Some(supervising) = &mut self.myself.node.meta().supervising {
            supervising.children.remove(&id);
        }
        if let Some(entry) = self.entries.remove(&id) {
            self.system.happened(entry.cell.node(), || Happened::Removed);
        }
    }
}

impl Drop for Supervisor {
    /// After an orderly end nobody is left. After a kill, an error or a panic the children go with it; its own exit is
    /// reported when the last of them is gone, as they hold its lifeline.
    fn drop(&mut self) {
        for (id, entry) in &self.entries {
            if matches!(self.machine.look(*id), Seen::Starting | Seen::Running | Seen::Stopping) {
                entry.cell.signal(Signal::Kill);
            }
            entry.cell.node().state.store(Seen::Down as u8, Relaxed);
        }
    }
}
