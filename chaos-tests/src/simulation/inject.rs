//! Carries out a plan of faults.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_client::storage::{Revision, Storage as _};
use k3sd_runtime::{Moment, Signal};

use super::plan::{Fault, Planned};
use super::trace::Trace;
use super::world::World;
use crate::checkers::shape;

/// Code of a process that dies.
const CRASH_CODE: i32 = 139;

/// What ends by itself after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Spell {
    StoreAway,
    StoreFull,
    WireSlow,
    WireAway,
    CriSlow,
    CriAway,
}

/// Does what is planned, each thing at its moment, and counts what was done.
#[derive(Debug)]
pub struct Injector<'w> {
    world: &'w World,
    trace: Trace,
    spells: BTreeMap<Spell, Moment>,
    done: BTreeMap<&'static str, u64>,
}

impl<'w> Injector<'w> {
    /// Of this world.
    #[must_use]
    pub fn new(world: &'w World, trace: Trace) -> Self {
        Self { world, trace, spells: BTreeMap::new(), done: BTreeMap::new() }
    }

    /// Carries out the plan, and then heals everything. How often what was done, by its word.
    pub async fn run(mut self, plan: &[Planned]) -> BTreeMap<&'static str, u64> {
        let clock = self.world.cluster.clock().clone();
        let began = clock.now();
        for planned in plan {
            let due = began + planned.at;
            while let Some((spell, over)) = self.next_end().filter(|(_, over)| *over <= due) {
                clock.sleep_until(over).await;
                self.end(spell);
            }
            clock.sleep_until(due).await;
            let told = self.carry_out(planned.fault).await;
            *self.done.entry(planned.fault.word()).or_default() += 1;
            self.trace.line(&format!("fault {:?}: {told}", planned.fault));
        }
        while let Some((spell, over)) = self.next_end() {
            clock.sleep_until(over).await;
            self.end(spell);
        }
        self.world.heal();
        self.done
    }

    fn next_end(&self) -> Option<(Spell, Moment)> {
        self.spells.iter().map(|(spell, over)| (*spell, *over)).min_by_key(|(_, over)| *over)
    }

    fn begin(&mut self, spell: Spell, lasts: Duration) -> String {
        let over = self.world.cluster.clock().now() + lasts;
        self.spells.insert(spell, over);
        "begun".to_owned()
    }

    fn end(&mut self, spell: Spell) {
        self.spells.remove(&spell);
        let World { cluster, cri, wire, .. } = self.world;
        match spell {
            Spell::StoreAway => cluster.storage.set_open(true),
            Spell::StoreFull => cluster.storage.set_full(false),
            Spell::WireAway => wire.set_away(false),
            Spell::CriAway => cri.set_away(false),
            Spell::WireSlow | Spell::CriSlow => self.world.set_usual_delays(),
        }
        self.trace.line(&format!("{spell:?} is over"));
    }

    async fn carry_out(&mut self, fault: Fault) -> String {
        let World { cluster, cri, wire, .. } = self.world;
        let done = || "done".to_owned();
        match fault {
            Fault::Kill(draw) => self.strike(draw, Some(Signal::Kill), |_| {}).await,
            Fault::Panic(draw) => self.strike(draw, Some(Signal::Panic), |_| {}).await,
            Fault::Error(draw) => self.strike(draw, None, |path| cluster.system().faults().fail_message(path)).await,
            Fault::FailStarts(draw, times) => {
                let doom = |path: &str| cluster.system().faults().fail_starts(path, times);
                self.strike(draw, Some(Signal::Kill), doom).await
            }
            Fault::StoreAway(lasts) => {
                cluster.storage.set_open(false);
                self.begin(Spell::StoreAway, lasts)
            }
            Fault::StoreFull(lasts) => {
                cluster.storage.set_full(true);
                self.begin(Spell::StoreFull, lasts)
            }
            Fault::StoreLosesAnswers(count) => {
                cluster.storage.lose_answers(usize::try_from(count).unwrap_or_default());
                done()
            }
            Fault::FeedsCut => {
                cluster.storage.cut_feeds();
                done()
            }
            Fault::Compact => {
                let newest = cluster.storage.latest().unwrap_or(Revision::ZERO);
                format!("{:?}", cluster.storage.compact(newest).await)
            }
            Fault::WireSlow(ms_max, lasts) => {
                wire.set_delay(ms_max);
                self.begin(Spell::WireSlow, lasts)
            }
            Fault::WireLosesAnswers(count) => {
                wire.lose_answers(count);
                done()
            }
            Fault::WireCut => {
                wire.cut();
                done()
            }
            Fault::WireAway(lasts) => {
                wire.set_away(true);
                self.begin(Spell::WireAway, lasts)
            }
            Fault::CriSlow(ms_max, lasts) => {
                cri.set_delay(ms_max);
                self.begin(Spell::CriSlow, lasts)
            }
            Fault::CriRefuses(count) => {
                cri.refuse(count);
                done()
            }
            Fault::CriLosesAnswers(count) => {
                cri.lose_answers(count);
                done()
            }
            Fault::CriAway(lasts) => {
                cri.set_away(true);
                self.begin(Spell::CriAway, lasts)
            }
            Fault::Crash(draw) => format!("{:?}", cri.crash(draw, CRASH_CODE)),
            Fault::RulesLost => format!("{:?}", self.world.machine.lose_rules()),
            Fault::ClockJump(seconds) => {
                cluster.clock().jump_wall(seconds);
                done()
            }
        }
    }

    /// Chooses somebody of those who are there, and does it to them.
    async fn strike(&self, draw: u64, signal: Option<Signal>, before: impl Fn(&str)) -> String {
        let cluster = &self.world.cluster;
        let paths: Vec<String> = shape::look(cluster).await.into_keys().collect();
        let place = usize::try_from(draw % (paths.len().max(1) as u64)).unwrap_or_default();
        let Some(path) = paths.get(place) else { return "nobody is there".to_owned() };
        before(path);
        let found = signal.is_none_or(|signal| cluster.system().signal(path, signal));
        format!("{path}{}", if found { "" } else { ", who was between two lives" })
    }
}
