//! The rules of supervision once more, in the plainest way: nothing takes time but waits, and a child is up or it is
//! not. Shares no code with the runtime.
//!
//! The rules are those of OTP's `supervisor`, with what the runtime documents: a failed start is a death, also at boot;
//! giving up is an abnormal exit; restarts wait; an added child that fails to start is not kept.

use std::collections::BTreeMap;

use k3sd_runtime::{ROOT, Signal};

use super::rules::{Fate, Life, Sup};
use super::schedule::{Act, Schedule};
use k3sd_runtime::testkit::What;

/// A rule that is wrong on purpose, to see that the comparison notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twist {
    None,
    BudgetHoldsOneMore,
    OldestRestartLapsesEarly,
    RestForOneTakesAll,
    TransientAlwaysReturns,
    FailedStartIsFree,
    GivingUpIsClean,
    FinishedChildrenStayDown,
    StopsInStartOrder,
    RowOfDeathsNeverEnds,
    AddedChildIsKept,
}

impl Twist {
    /// All that are wrong.
    pub(crate) const WRONG: [Self; 10] = [
        Self::BudgetHoldsOneMore,
        Self::OldestRestartLapsesEarly,
        Self::RestForOneTakesAll,
        Self::TransientAlwaysReturns,
        Self::FailedStartIsFree,
        Self::GivingUpIsClean,
        Self::FinishedChildrenStayDown,
        Self::StopsInStartOrder,
        Self::RowOfDeathsNeverEnds,
        Self::AddedChildIsKept,
    ];
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) twist: Twist,
    pub(super) failing: BTreeMap<String, u32>,
    pub(super) notes: Vec<(String, What)>,
    pub(super) news: Vec<String>,
    /// Dynamic supervisors that were ready before their children in this event: those above have gone on meanwhile.
    pub(super) loose: Vec<String>,
    pub(super) losses: u32,
    /// A child was stopped before it was ready: those after it start while it stops.
    pub(super) unordered: bool,
    pub(super) ambiguous: bool,
}

impl World {
    pub(super) fn note(&mut self, path: String, what: What) {
        self.notes.push((path, what));
    }

    pub(super) fn fails(&mut self, path: &str) -> bool {
        let left = self.failing.get_mut(path).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }
}

/// A tree by the rules, and what happened in it since it was last asked.
#[derive(Debug)]
pub(crate) struct Reference {
    world: World,
    root: Option<Sup>,
    exit: Option<&'static str>,
}

impl Reference {
    /// The tree of a schedule after its boot.
    pub(crate) fn boot(schedule: &Schedule, twist: Twist) -> Self {
        let failing = schedule.failing.iter().cloned().collect();
        let (notes, news, loose) = (Vec::new(), Vec::new(), Vec::new());
        let mut world =
            World { now: 0, twist, failing, notes, news, loose, losses: 0, unordered: false, ambiguous: false };
        let (root, fate) = Sup::boot(ROOT.to_owned(), &schedule.root, &mut world);
        let mut this = Self { world, root: Some(root), exit: None };
        this.hear(fate);
        this
    }

    fn hear(&mut self, fate: Fate) {
        if fate != Fate::Quiet && fate != Fate::Ready {
            self.root = None;
            self.exit = Some("escalated");
        }
    }

    /// Lets time pass, and what is due happen.
    pub(crate) fn advance(&mut self, to: u64) {
        while let Some(root) = &mut self.root {
            let mut dues = Vec::new();
            root.dues(&mut dues);
            dues.sort_unstable();
            let Some(&due) = dues.first().filter(|due| **due <= to) else { break };
            // Which of two simultaneous things comes first is not a rule.
            self.world.ambiguous |= due == to || dues.get(1) == Some(&due);
            self.world.now = due;
            self.world.loose.clear();
            let fate = root.fire(due, &mut self.world);
            self.hear(fate);
        }
        self.world.now = to;
    }

    /// Does what befalls the tree. Returns the answer to a command if the rules tell it at once.
    pub(crate) fn suffer(&mut self, act: &Act) -> Option<&'static str> {
        let (world, mut answer) = (&mut self.world, None);
        world.loose.clear();
        world.unordered = false;
        let Some(root) = &mut self.root else {
            return match act {
                Act::Stop { .. } | Act::Restart { .. } | Act::Remove { .. } | Act::Add { .. } => Some("down"),
                _ => None,
            };
        };
        let fate = match act {
            Act::FailStarts { path, times } => {
                world.failing.insert(path.clone(), *times);
                None
            }
            Act::End { path, how } => {
                let what = if how.is_clean() { What::Left } else { What::Dropped };
                root.reach_parent(path, world, &mut |sup, serial, w| {
                    w.note(path.clone(), what);
                    sup.lost(serial, how.is_clean(), w)
                })
            }
            Act::Signal { path, signal } => root.reach_parent(path, world, &mut |sup, serial, w| {
                let clean = *signal == Signal::Stop;
                let at = sup.at(serial);
                if let Life::Up { below: Some(below), .. } | Life::Starting(below) = &mut sup.children[at].life {
                    if clean { below.stop_all(w) } else { below.drop_all(w) }
                }
                sup.lost(serial, clean, w)
            }),
            Act::ShutDown => {
                root.stop_all(world);
                self.root = None;
                self.exit = Some("shutdown");
                return None;
            }
            Act::Stop { supervisor, name } => root.reach(supervisor, world, &mut |sup, w| {
                answer = Some(sup.retire(name, false, w));
                Fate::Quiet
            }),
            Act::Remove { supervisor, name } => root.reach(supervisor, world, &mut |sup, w| {
                answer = Some(sup.retire(name, true, w));
                Fate::Quiet
            }),
            Act::Restart { supervisor, name } => root.reach(supervisor, world, &mut |sup, w| match sup.find(name) {
                Some(serial) => sup.restart(serial, w),
                None => {
                    answer = Some("no-such-child");
                    Fate::Quiet
                }
            }),
            Act::Add { supervisor, kid } => root.reach(supervisor, world, &mut |sup, w| {
                if sup.find(&kid.name).is_some() {
                    answer = Some("already-present");
                    return Fate::Quiet;
                }
                sup.add(kid.clone(), w)
            }),
        };
        let is_command = matches!(act, Act::Stop { .. } | Act::Restart { .. } | Act::Remove { .. } | Act::Add { .. });
        match fate {
            None if is_command => Some("down"),
            None => None,
            Some(fate) => {
                self.hear(fate);
                answer.or_else(|| self.answer_by_outcome(act))
            }
        }
    }

    /// A start that was asked for was answered if nothing failed on the way.
    fn answer_by_outcome(&mut self, act: &Act) -> Option<&'static str> {
        let (supervisor, name, added) = match act {
            Act::Add { supervisor, kid } => (supervisor, &kid.name, true),
            Act::Restart { supervisor, name } => (supervisor, name, false),
            _ => return None,
        };
        if !added && self.world.notes.iter().any(|(_, what)| *what == What::Dropped) {
            return None;
        }
        let mut found = None;
        self.root
            .as_mut()?
            .reach_quietly(supervisor, &mut |sup| found = Some(sup.find(name).map(|serial| sup.at(serial))));
        match found? {
            None => added.then_some("start-failed"),
            Some(at) => {
                let mut up = false;
                self.root.as_mut()?.reach_quietly(supervisor, &mut |sup| {
                    up = matches!(sup.children[at].life, Life::Up { .. });
                });
                up.then_some("ok")
            }
        }
    }

    /// Whether the rules leave open what happens; nothing after it can be compared.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.world.ambiguous
    }

    /// Whether the rules tell the order of births and ends after the last event.
    pub(crate) fn is_ordered(&self) -> bool {
        !self.world.unordered
    }

    /// Births and ends since the last call.
    pub(crate) fn take_notes(&mut self) -> Vec<(String, What)> {
        std::mem::take(&mut self.world.notes)
    }

    /// Restarts and escalations since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.world.news)
    }

    /// How the tree ended, once it has.
    pub(crate) fn exit(&self) -> Option<&'static str> {
        self.exit
    }

    /// All living supervisors with their children, and how many actors live.
    pub(crate) fn look(&self) -> (BTreeMap<String, Vec<String>>, usize) {
        let mut lists = BTreeMap::new();
        let alive = self.root.as_ref().map_or(0, |root| root.look(&mut lists));
        (lists, alive)
    }
}
