//! One supervisor by the rules, and all below it.

use std::collections::BTreeMap;

use k3sd_runtime::{ROOT, Restart, Strategy};

use super::join;
use super::reference::{Twist, World};
use super::schedule::{Group, Kid};
use k3sd_runtime::testkit::What;

/// What a supervisor's parent hears of an event below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Quiet,
    /// It has become ready.
    Ready,
    Gone {
        clean: bool,
    },
}

#[derive(Debug)]
pub(super) enum Life {
    Down,
    Waiting {
        due: u64,
    },
    /// A supervisor that is not ready.
    Starting(Box<Sup>),
    Up {
        since: u64,
        below: Option<Box<Sup>>,
    },
}

#[derive(Debug)]
pub(super) struct Child {
    serial: u32,
    kid: Kid,
    pub(super) life: Life,
    wanted: bool,
    added: bool,
    row: u32,
}

impl Child {
    fn end_row_if_it_lived_long(&mut self, w: &World) {
        let long = matches!(self.life, Life::Up { since, .. } if w.now - since >= self.kid.waits.reset);
        if long && self.kid.waits.free.is_some() && w.twist != Twist::RowOfDeathsNeverEnds {
            self.row = 0;
        }
    }

    fn is_alive(&self) -> bool {
        matches!(self.life, Life::Starting(_) | Life::Up { .. })
    }
}

/// Whether children are being started one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Over,
    Running,
    Waiting { from: u32, due: u64 },
}

#[derive(Debug)]
pub(super) struct Sup {
    path: String,
    strategy: Strategy,
    restarts: u32,
    period: u64,
    pub(super) children: Vec<Child>,
    serials: u32,
    spent: Vec<u64>,
    round: Round,
    ready: bool,
}

impl Sup {
    pub(super) fn boot(path: String, group: &Group, w: &mut World) -> (Self, Fate) {
        let mut this = Self {
            path,
            strategy: group.strategy,
            restarts: group.restarts,
            period: group.period,
            children: Vec::new(),
            serials: 0,
            spent: Vec::new(),
            round: Round::Running,
            ready: false,
        };
        let serials: Vec<u32> = group.kids.iter().map(|kid| this.place(kid.clone())).collect();
        if this.strategy == Strategy::Dynamic {
            this.round = Round::Over;
            let losses = w.losses;
            for serial in serials {
                if let Fate::Gone { clean } = this.start(serial, w) {
                    w.ambiguous = true; // It was ready first, and its parent may have gone on meanwhile.
                    return (this, Fate::Gone { clean });
                }
            }
            let slow = w.losses > losses || group.kids.iter().any(|kid| kid.group.is_some());
            if slow && this.path != ROOT {
                w.loose.push(this.path.clone());
            }
        }
        let fate = this.go_on(w);
        (this, fate)
    }

    fn place(&mut self, kid: Kid) -> u32 {
        let serial = self.serials;
        self.serials += 1;
        self.children.push(Child { serial, kid, life: Life::Down, wanted: true, added: false, row: 0 });
        serial
    }

    pub(super) fn at(&self, serial: u32) -> usize {
        self.children.iter().position(|child| child.serial == serial).expect("a child")
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.children.iter().find(|child| child.kid.name == name).map(|child| child.serial)
    }

    fn is_grouped(&self) -> bool {
        matches!(self.strategy, Strategy::RestForOne | Strategy::OneForAll)
    }

    fn start(&mut self, serial: u32, w: &mut World) -> Fate {
        let at = self.at(serial);
        let path = join(&self.path, &self.children[at].kid.name);
        let life = match self.children[at].kid.group.clone() {
            None => {
                w.note(path.clone(), What::Born);
                if w.fails(&path) {
                    w.note(path, What::Dropped);
                    return if w.twist == Twist::FailedStartIsFree {
                        let spent = self.spent.clone();
                        let fate = self.lost(serial, false, w);
                        self.spent = spent;
                        fate
                    } else {
                        self.lost(serial, false, w)
                    };
                }
                Life::Up { since: w.now, below: None }
            }
            Some(group) => match Self::boot(path, &group, w) {
                (_, Fate::Gone { clean }) => return self.lost(serial, clean, w),
                (below, Fate::Ready) => Life::Up { since: w.now, below: Some(Box::new(below)) },
                (below, Fate::Quiet) => Life::Starting(Box::new(below)),
            },
        };
        let child = &mut self.children[at];
        child.added &= matches!(life, Life::Starting(_));
        child.life = life;
        Fate::Quiet
    }

    /// Starts what is to be started, in order, as far as that goes now.
    fn go_on(&mut self, w: &mut World) -> Fate {
        while self.round == Round::Running {
            let next = self.children.iter().find(|child| match child.life {
                Life::Down => child.wanted,
                Life::Starting(_) => true,
                Life::Waiting { .. } | Life::Up { .. } => false,
            });
            match next {
                None => self.round = Round::Over,
                Some(child) if child.is_alive() => return Fate::Quiet, // The next ones wait until it is ready.
                Some(child) => {
                    let serial = child.serial;
                    if let gone @ Fate::Gone { .. } = self.start(serial, w) {
                        return gone;
                    }
                }
            }
        }
        if self.round == Round::Over && !self.ready {
            self.ready = true;
            return Fate::Ready;
        }
        Fate::Quiet
    }

    /// A child ended, and nobody had asked it to.
    pub(super) fn lost(&mut self, serial: u32, clean: bool, w: &mut World) -> Fate {
        let (at, now) = (self.at(serial), w.now);
        w.losses += 1;
        w.ambiguous |= w.loose.iter().any(|loose| !self.path.starts_with(&**loose));
        let child = &mut self.children[at];
        child.end_row_if_it_lived_long(w);
        child.life = Life::Down;
        if child.added && w.twist != Twist::AddedChildIsKept {
            self.children.remove(at);
            return Fate::Quiet;
        }
        let restart = child.kid.restart;
        let returns = restart == Restart::Permanent
            || restart == Restart::Transient && (!clean || w.twist == Twist::TransientAlwaysReturns);
        if !returns {
            child.wanted = false;
            if restart == Restart::Temporary {
                self.children.remove(at);
            }
            return Fate::Quiet;
        }
        let (edge, extra) = match w.twist {
            Twist::OldestRestartLapsesEarly => (1, 0),
            Twist::BudgetHoldsOneMore => (0, 1),
            _ => (0, 0),
        };
        let period = self.period;
        self.spent.retain(|then| now - then + edge <= period);
        if self.spent.len() >= self.restarts as usize + extra {
            w.news.push(format!("{} gives up", self.path));
            self.stop_all(w);
            return Fate::Gone { clean: w.twist == Twist::GivingUpIsClean };
        }
        self.spent.push(now);
        let child = &mut self.children[at];
        child.row += 1;
        let wait = child.kid.waits.before(child.row);
        w.news.push(format!("{} restarts after {wait} ms, attempt {}", join(&self.path, &child.kid.name), child.row));
        match self.strategy {
            Strategy::OneForOne | Strategy::Dynamic if wait == 0 => return self.start(serial, w),
            Strategy::OneForOne | Strategy::Dynamic => child.life = Life::Waiting { due: now + wait },
            Strategy::RestForOne | Strategy::OneForAll => self.take_down(serial, wait, w),
        }
        Fate::Quiet
    }

    /// Stops a child and those whose fate it shares; they come back after the wait.
    fn take_down(&mut self, serial: u32, mut wait: u64, w: &mut World) {
        let all = self.strategy == Strategy::OneForAll || w.twist == Twist::RestForOneTakesAll;
        let mut from = if all { 0 } else { serial };
        if let Round::Waiting { from: other, due } = self.round {
            wait = wait.max(due - w.now);
            from = from.min(other);
        }
        let group: Vec<u32> = self.children.iter().map(|child| child.serial).filter(|serial| *serial >= from).collect();
        for serial in group.into_iter().rev() {
            let at = self.at(serial);
            let was_alive = self.children[at].is_alive();
            self.stop_child(at, w);
            let child = &mut self.children[at];
            if child.kid.restart == Restart::Temporary {
                if was_alive {
                    self.children.remove(at);
                }
            } else if w.twist != Twist::FinishedChildrenStayDown {
                child.wanted = true;
            }
        }
        self.round = if wait == 0 { Round::Running } else { Round::Waiting { from, due: w.now + wait } };
    }

    fn stop_child(&mut self, at: usize, w: &mut World) {
        let child = &mut self.children[at];
        child.end_row_if_it_lived_long(w);
        match std::mem::replace(&mut child.life, Life::Down) {
            Life::Up { below: None, .. } => w.note(join(&self.path, &child.kid.name), What::Left),
            Life::Up { below: Some(mut below), .. } | Life::Starting(mut below) => below.stop_all(w),
            Life::Down | Life::Waiting { .. } => {}
        }
    }

    pub(super) fn stop_all(&mut self, w: &mut World) {
        let count = self.children.len();
        for nth in 0..count {
            let at = if w.twist == Twist::StopsInStartOrder { nth } else { count - 1 - nth };
            self.stop_child(at, w);
        }
    }

    pub(super) fn drop_all(&mut self, w: &mut World) {
        for child in &mut self.children {
            match std::mem::replace(&mut child.life, Life::Down) {
                Life::Up { below: None, .. } => w.note(join(&self.path, &child.kid.name), What::Dropped),
                Life::Up { below: Some(mut below), .. } | Life::Starting(mut below) => below.drop_all(w),
                Life::Down | Life::Waiting { .. } => {}
            }
        }
    }

    pub(super) fn retire(&mut self, name: &str, remove: bool, w: &mut World) -> &'static str {
        let Some(serial) = self.find(name) else { return "no-such-child" };
        let at = self.at(serial);
        self.children[at].wanted = false;
        w.unordered |= matches!(self.children[at].life, Life::Starting(_));
        self.stop_child(at, w);
        if remove || self.children[at].kid.restart == Restart::Temporary {
            self.children.remove(at);
        }
        "ok"
    }

    pub(super) fn restart(&mut self, serial: u32, w: &mut World) -> Fate {
        let at = self.at(serial);
        self.children[at].wanted = true;
        match self.children[at].life {
            Life::Starting(_) => Fate::Quiet,
            Life::Up { .. } if self.is_grouped() => {
                // Stopped before the group is, so that it comes back even if it is temporary.
                let later: Vec<u32> = self.children.iter().map(|child| child.serial).filter(|n| *n > serial).collect();
                if let Some(&next) = later.first() {
                    let strategy = std::mem::replace(&mut self.strategy, Strategy::RestForOne);
                    self.take_down(next, 0, w);
                    self.strategy = strategy;
                }
                self.stop_child(at, w);
                self.take_down(serial, 0, w);
                Fate::Quiet
            }
            Life::Up { .. } => {
                self.stop_child(at, w);
                self.start(serial, w)
            }
            Life::Down | Life::Waiting { .. } => {
                self.children[at].life = Life::Down;
                self.start_in_turn(serial, w)
            }
        }
    }

    pub(super) fn add(&mut self, kid: Kid, w: &mut World) -> Fate {
        let serial = self.place(kid);
        let at = self.at(serial);
        self.children[at].added = true;
        self.start_in_turn(serial, w)
    }

    fn start_in_turn(&mut self, serial: u32, w: &mut World) -> Fate {
        match self.round {
            Round::Over if !self.is_grouped() => return self.start(serial, w),
            Round::Over => self.round = Round::Running,
            Round::Running | Round::Waiting { .. } => {}
        }
        Fate::Quiet
    }

    /// Lets `act` happen at the supervisor of this path, and all above hear of it.
    pub(super) fn reach(
        &mut self,
        path: &str,
        w: &mut World,
        act: &mut dyn FnMut(&mut Self, &mut World) -> Fate,
    ) -> Option<Fate> {
        if self.path == path {
            let fate = act(self, w);
            return Some(self.then(fate, w));
        }
        for at in 0..self.children.len() {
            let child = &mut self.children[at];
            let serial = child.serial;
            if let Life::Up { below: Some(below), .. } | Life::Starting(below) = &mut child.life
                && let Some(fate) = below.reach(path, w, act)
            {
                return Some(self.heard(serial, fate, w));
            }
        }
        None
    }

    pub(super) fn reach_quietly(&mut self, path: &str, act: &mut dyn FnMut(&Self)) {
        if self.path == path {
            return act(self);
        }
        for child in &mut self.children {
            if let Life::Up { below: Some(below), .. } | Life::Starting(below) = &mut child.life {
                below.reach_quietly(path, act);
            }
        }
    }

    /// As [`Sup::reach`], at the supervisor of the living child of this path.
    pub(super) fn reach_parent(
        &mut self,
        path: &str,
        w: &mut World,
        act: &mut dyn FnMut(&mut Self, u32, &mut World) -> Fate,
    ) -> Option<Fate> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((ROOT, path));
        self.reach(parent, w, &mut |sup, w| match sup.find(name) {
            Some(serial) if sup.children[sup.at(serial)].is_alive() => act(sup, serial, w),
            _ => Fate::Quiet,
        })
    }

    fn then(&mut self, fate: Fate, w: &mut World) -> Fate {
        if matches!(fate, Fate::Gone { .. }) { fate } else { self.go_on(w) }
    }

    fn heard(&mut self, serial: u32, fate: Fate, w: &mut World) -> Fate {
        match fate {
            Fate::Quiet => Fate::Quiet,
            Fate::Ready => {
                let at = self.at(serial);
                let child = &mut self.children[at];
                child.added = false;
                if let Life::Starting(below) = std::mem::replace(&mut child.life, Life::Down) {
                    child.life = Life::Up { since: w.now, below: Some(below) };
                }
                self.go_on(w)
            }
            Fate::Gone { clean } => {
                let fate = self.lost(serial, clean, w);
                self.then(fate, w)
            }
        }
    }

    pub(super) fn dues(&self, into: &mut Vec<u64>) {
        if let Round::Waiting { due, .. } = self.round {
            into.push(due);
        }
        for child in &self.children {
            match &child.life {
                Life::Waiting { due } => into.push(*due),
                Life::Up { below: Some(below), .. } | Life::Starting(below) => below.dues(into),
                Life::Up { below: None, .. } | Life::Down => {}
            }
        }
    }

    pub(super) fn fire(&mut self, now: u64, w: &mut World) -> Fate {
        if matches!(self.round, Round::Waiting { due, .. } if due == now) {
            self.round = Round::Running;
            return self.go_on(w);
        }
        for at in 0..self.children.len() {
            let child = &mut self.children[at];
            let serial = child.serial;
            match &mut child.life {
                Life::Waiting { due } if *due == now => {
                    let fate = self.start(serial, w);
                    return self.then(fate, w);
                }
                Life::Up { below: Some(below), .. } | Life::Starting(below) => {
                    let mut dues = Vec::new();
                    below.dues(&mut dues);
                    if dues.contains(&now) {
                        let fate = below.fire(now, w);
                        return self.heard(serial, fate, w);
                    }
                }
                Life::Up { below: None, .. } | Life::Waiting { .. } | Life::Down => {}
            }
        }
        Fate::Quiet
    }

    pub(super) fn look(&self, lists: &mut BTreeMap<String, Vec<String>>) -> usize {
        let (mut alive, mut list) = (1, Vec::new());
        for child in &self.children {
            let in_waiting_group = matches!(self.round, Round::Waiting { from, .. } if child.serial >= from);
            let word = match &child.life {
                Life::Down if in_waiting_group && child.wanted => "backoff",
                Life::Down => "down",
                Life::Waiting { .. } => "backoff",
                Life::Starting(below) => {
                    alive += below.look(lists);
                    "starting"
                }
                Life::Up { below, .. } => {
                    alive += below.as_ref().map_or(1, |below| below.look(lists));
                    "running"
                }
            };
            list.push(format!("{} {word}", child.kid.name));
        }
        lists.insert(self.path.clone(), list);
        alive
    }
}
