//! Who may work now, who waits and who is sent away: the seats of a server, divided among priority levels. Pure.
//!
//! Each level has a nominal share of all seats. What it lends, others may use while it doesn't; what it doesn't lend is
//! always there for it. Requests that find no seat wait in queues. A flow uses a few of the queues of its level, chosen by
//! its hash, so that one flow that asks a lot doesn't fill them for all; queues are served in turn.
//!
//! A request that is much work takes several seats, and keeps them for a while after its answer if others have work with
//! it then; see [`super::width`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k3sd_runtime::Moment;
use serde_json::Value;

use super::width::{Width, level_max};

/// The longest that all queues of one level may be together, whatever its configuration says: what waits is memory.
const QUEUED_MAX: usize = 10_000;

/// How requests of a level wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queuing {
    pub(crate) queues: usize,
    /// How many of them one flow uses.
    pub(crate) hand: usize,
    /// How long each may become.
    pub(crate) length: usize,
}

/// One PriorityLevelConfiguration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LevelSpec {
    pub(crate) name: Arc<str>,
    pub(crate) uid: String,
    /// Its requests wait for nobody.
    pub(crate) exempt: bool,
    pub(crate) shares: u64,
    pub(crate) lendable_percent: u64,
    /// How much it may borrow, in percent of its own; `None` is as much as there is.
    pub(crate) borrowing_percent: Option<u64>,
    /// `None` refuses who finds no seat.
    pub(crate) queuing: Option<Queuing>,
}

impl LevelSpec {
    /// Reads one that was stored, and so is valid and has its defaults.
    pub(crate) fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let exempt = spec["type"] == "Exempt";
        let kind = if exempt { &spec["exempt"] } else { &spec["limited"] };
        let number = |value: &Value, default: u64| value.as_u64().unwrap_or(default);
        let size = |value: &Value, default: u64| usize::try_from(number(value, default)).unwrap_or(usize::MAX);
        let response = &kind["limitResponse"];
        let queuing = (response["type"] == "Queue").then(|| Queuing {
            queues: size(&response["queuing"]["queues"], 64).clamp(1, QUEUED_MAX),
            hand: size(&response["queuing"]["handSize"], 8).max(1),
            length: size(&response["queuing"]["queueLengthLimit"], 50),
        });
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("name").into(),
            uid: text("uid"),
            exempt,
            shares: number(&kind["nominalConcurrencyShares"], if exempt { 0 } else { 30 }),
            lendable_percent: number(&kind["lendablePercent"], 0),
            borrowing_percent: kind["borrowingLimitPercent"].as_u64(),
            queuing,
        }
    }

    /// How many seats it gives to one request, if it says so.
    pub(crate) fn width_max(&self, limits: Limits) -> Option<usize> {
        self.queuing.map(|queuing| level_max(limits.nominal, queuing.hand))
    }

    /// A mandatory one, for as long as none is stored.
    pub(crate) fn mandatory(name: &str, exempt: bool, shares: u64) -> Self {
        let (borrowing_percent, queuing) = (None, None);
        Self { name: name.into(), uid: String::new(), exempt, shares, lendable_percent: 0, borrowing_percent, queuing }
    }
}

/// How many requests of a level may work at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Its share.
    pub(crate) nominal: usize,
    /// What it never lends.
    pub(crate) lower: usize,
    /// With all that it may borrow.
    pub(crate) upper: usize,
}

/// Divides so many seats, in upstream's way: shares are rounded up, percentages to the nearest.
pub(crate) fn divided(seats: usize, levels: &[LevelSpec]) -> Vec<Limits> {
    let (seats, sum) = (seats as u64, levels.iter().map(|level| level.shares).sum::<u64>().max(1));
    let percent = |of: u64, percent: u64| of.saturating_mul(percent).saturating_add(50) / 100;
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let limits = |level: &LevelSpec| {
        let nominal = seats.saturating_mul(level.shares).div_ceil(sum);
        let borrowed = level.borrowing_percent.map_or(seats, |borrowing| percent(nominal, borrowing));
        Limits {
            nominal: size(nominal),
            lower: size(nominal - percent(nominal, level.lendable_percent).min(nominal)),
            upper: size(nominal.saturating_add(borrowed)),
        }
    };
    levels.iter().map(limits).collect()
}

/// Why a request is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its level has no queues.
    ConcurrencyLimit,
    /// They are full.
    QueueFull,
    /// It waited for too long.
    TimeOut,
    /// Its client is gone.
    Cancelled,
}

impl Refusal {
    /// All of them in their order, as metrics name them.
    pub(crate) const ALL: [&str; 4] = ["concurrency-limit", "queue-full", "time-out", "cancelled"];
}

/// What becomes of a request that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It works.
    Works,
    /// It waits, in this queue.
    Waits(usize),
    /// It is sent away.
    Refused(Refusal),
}

/// Somebody who waits, and how many seats he wants.
#[derive(Debug)]
struct Waiting<W> {
    waiter: W,
    seats: usize,
}

#[derive(Debug)]
struct Level<W> {
    spec: LevelSpec,
    limits: Limits,
    /// Seats that are taken.
    taken: usize,
    /// Those of them whose requests are answered, and until when they are kept; in no order.
    kept: Vec<(Moment, usize)>,
    waiting: usize,
    queues: Vec<VecDeque<Waiting<W>>>,
    /// The queue whose turn it is.
    turn: usize,
    /// It isn't configured any more, and goes when its last request does.
    leaving: bool,
}

/// All levels. `W` stands for somebody who waits.
#[derive(Debug)]
pub(crate) struct Levels<W> {
    seats: usize,
    /// All shares together: a little more than there are seats, for each is rounded up.
    nominal: usize,
    levels: BTreeMap<Arc<str>, Level<W>>,
}

impl<W> Levels<W> {
    /// No levels yet, which divide so many seats.
    pub(crate) fn new(seats: usize) -> Self {
        Self { seats, nominal: seats, levels: BTreeMap::new() }
    }

    /// Takes a new configuration over. Who works and who waits goes on. Returns who needs no longer wait.
    pub(crate) fn configure(&mut self, specs: Vec<LevelSpec>) -> Vec<W> {
        for level in self.levels.values_mut() {
            level.leaving = true;
        }
        let limits = divided(self.seats, &specs);
        self.nominal = limits.iter().map(|limits| limits.nominal).sum();
        for (spec, limits) in specs.into_iter().zip(limits) {
            let level = self.levels.entry(spec.name.clone()).or_insert_with(|| Level {
                spec: spec.clone(),
                limits,
                taken: 0,
                kept: Vec::new(),
                waiting: 0,
                queues: Vec::new(),
                turn: 0,
                leaving: false,
            });
            (level.spec, level.limits, level.leaving) = (spec, limits, false);
            level.arrange();
        }
        self.levels.retain(|_, level| !level.is_over());
        self.next()
    }

    /// Somebody comes who wants so many seats, of a flow with this hash. `waiter` is asked for only if he has to wait.
    pub(crate) fn arrive(&mut self, name: &str, flow: u64, seats: usize, waiter: impl FnOnce() -> W) -> Arrival {
        if self.has_seats(name, seats) {
            if let Some(level) = self.levels.get_mut(name) {
                level.taken += seats;
            }
            return Arrival::Works;
        }
        let Some(level) = self.levels.get_mut(name) else { return Arrival::Works };
        level.queue(flow, seats, waiter)
    }

    /// Whether somebody of a level who wants so many seats may work now. Who wants more than there can be gets them when
    /// nobody else of his level works.
    fn has_seats(&self, name: &str, seats: usize) -> bool {
        let Some(level) = self.levels.get(name) else { return true };
        let (lower, upper) = (level.limits.lower, level.limits.upper);
        let taken = level.taken + seats;
        if level.spec.exempt || taken <= lower || (seats > upper && level.taken == 0) {
            return true;
        }
        let limited = || self.levels.values().filter(|level| !level.spec.exempt);
        let kept: usize = limited().map(|level| level.taken.max(level.limits.lower)).sum();
        taken <= upper && kept - level.taken.max(lower) + taken <= self.nominal
    }

    /// Somebody of a level is done. Returns who works instead. The time is asked for only if it matters.
    pub(crate) fn leave(&mut self, name: &str, width: Width, now: impl FnOnce() -> Moment) -> Vec<W> {
        let mut is_over = false;
        if let Some(level) = self.levels.get_mut(name) {
            if !width.lingers.is_zero() {
                let now = now();
                level.kept.push((now + width.lingers, width.seats));
                return self.pass(now);
            }
            level.taken = level.taken.saturating_sub(width.seats);
            is_over = level.is_over();
        }
        if is_over {
            self.levels.remove(name);
        }
        self.next()
    }

    /// Gives seats back that were kept up to now. Returns who works on them.
    pub(crate) fn pass(&mut self, now: Moment) -> Vec<W> {
        let mut is_over = false;
        for level in self.levels.values_mut() {
            let Level { kept, taken, .. } = level;
            kept.retain(|(until, seats)| {
                let is_kept = now < *until;
                if !is_kept {
                    *taken = taken.saturating_sub(*seats);
                }
                is_kept
            });
            is_over |= level.is_over();
        }
        if is_over {
            self.levels.retain(|_, level| !level.is_over());
        }
        self.next()
    }

    /// When the next seats are given back that are kept; whoever waits asks then.
    pub(crate) fn next_pass(&self) -> Option<Moment> {
        self.levels.values().flat_map(|level| &level.kept).map(|(until, _)| *until).min()
    }

    /// Somebody in a queue gave up, and perhaps others did: who `is_gone` goes. Returns who works now, because he wants
    /// fewer seats than one before him who is gone.
    pub(crate) fn give_up(&mut self, name: &str, queue: usize, is_gone: impl Fn(&W) -> bool) -> Vec<W> {
        let Some(level) = self.levels.get_mut(name) else { return Vec::new() };
        // After a new configuration he may wait elsewhere; then he goes when it is his turn.
        let Some(queue) = level.queues.get_mut(queue) else { return Vec::new() };
        let before = queue.len();
        queue.retain(|waiting| !is_gone(&waiting.waiter));
        level.waiting -= before - queue.len();
        self.next()
    }

    /// Who may work now: those first whose level has less than its share. A level whose next one finds no room waits.
    fn next(&mut self) -> Vec<W> {
        let mut called = Vec::new();
        loop {
            let waiting = self.levels.iter().filter(|(_, level)| level.waiting > 0);
            let mut order: Vec<(bool, Arc<str>, usize)> = waiting
                .filter_map(|(name, level)| {
                    let seats = level.queues[level.front()?].front()?.seats;
                    Some((level.taken >= level.limits.nominal, name.clone(), seats))
                })
                .collect();
            order.sort();
            let found = order.into_iter().find(|(_, name, seats)| self.has_seats(name, *seats));
            let Some((_, name, _)) = found else { return called };
            called.extend(self.levels.get_mut(&name).and_then(Level::call));
        }
    }

    /// Each level: its configuration, its limits, how many seats are taken, and how many wait.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&LevelSpec, Limits, usize, usize)> {
        self.levels.values().map(|level| (&level.spec, level.limits, level.taken, level.waiting))
    }
}

impl<W> Level<W> {
    /// Whether it isn't configured any more, and nobody is in it.
    fn is_over(&self) -> bool {
        self.leaving && self.taken == 0 && self.waiting == 0
    }

    /// Makes as many queues as there should be. Who waited in one too many waits on in another one.
    fn arrange(&mut self) {
        let count = self.spec.queuing.map_or(0, |queuing| queuing.queues);
        let surplus = if count < self.queues.len() { self.queues.split_off(count) } else { Vec::new() };
        self.queues.resize_with(count.max(usize::from(self.waiting > 0)), VecDeque::new);
        let places = self.queues.len();
        for (index, waiter) in surplus.into_iter().flatten().enumerate() {
            self.queues[index % places].push_back(waiter);
        }
    }

    fn queue(&mut self, flow: u64, seats: usize, waiter: impl FnOnce() -> W) -> Arrival {
        let Some(queuing) = self.spec.queuing else { return Arrival::Refused(Refusal::ConcurrencyLimit) };
        let shortest = hand(flow, self.queues.len(), queuing.hand).into_iter().min_by_key(|at| self.queues[*at].len());
        let Some(at) = shortest else { return Arrival::Refused(Refusal::QueueFull) };
        if self.queues[at].len() >= queuing.length || self.waiting >= QUEUED_MAX {
            return Arrival::Refused(Refusal::QueueFull);
        }
        self.queues[at].push_back(Waiting { waiter: waiter(), seats });
        self.waiting += 1;
        Arrival::Waits(at)
    }

    /// The queue whose first one is next.
    fn front(&self) -> Option<usize> {
        let count = self.queues.len();
        (0..count).map(|step| (self.turn + step) % count).find(|at| !self.queues[*at].is_empty())
    }

    /// Lets the next one work who waits.
    fn call(&mut self) -> Option<W> {
        let at = self.front()?;
        let Waiting { waiter, seats } = self.queues[at].pop_front()?;
        self.turn = at + 1;
        self.waiting -= 1;
        self.taken += seats;
        Some(waiter)
    }
}

/// The queues of a flow: so many different ones out of all, each choice as likely as any other.
fn hand(flow: u64, queues: usize, size: usize) -> Vec<usize> {
    let mut hand: Vec<usize> = Vec::with_capacity(size.min(queues));
    let mut rest = flow;
    for dealt in 0..size.min(queues) {
        let left = (queues - dealt) as u64;
        let mut card = usize::try_from(rest % left).unwrap_or_default();
        rest /= left;
        // The card-th of those that aren't dealt yet.
        let mut sorted = hand.clone();
        sorted.sort_unstable();
        for taken in sorted {
            card += usize::from(taken <= card);
        }
        hand.push(card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spec(name: &str, shares: u64, lendable_percent: u64, queuing: Option<Queuing>) -> LevelSpec {
        LevelSpec { lendable_percent, queuing, ..LevelSpec::mandatory(name, false, shares) }
    }

    const QUEUES: Queuing = Queuing { queues: 4, hand: 2, length: 2 };

    #[test]
    fn seats_are_divided_as_upstream_divides_them() {
        let specs = [
            LevelSpec::mandatory("exempt", true, 0),
            spec("catch-all", 5, 0, None),
            spec("workload-low", 100, 90, Some(QUEUES)),
            LevelSpec { borrowing_percent: Some(50), ..spec("system", 30, 33, Some(QUEUES)) },
        ];
        let limits = divided(600, &specs);
        let rows: Vec<_> = limits.iter().map(|limits| (limits.nominal, limits.lower, limits.upper)).collect();
        // 600 * 5 / 135 = 22.2, 600 * 100 / 135 = 444.4, 600 * 30 / 135 = 133.3; 33 % of 134 are 44.2.
        assert_eq!(rows, [(0, 0, 600), (23, 23, 623), (445, 44, 1045), (134, 90, 201)]);
        assert_eq!(divided(600, &[]), []);
    }

    /// Two levels of five seats, of which the second lends four.
    fn levels() -> Levels<u32> {
        let mut levels = Levels::new(10);
        levels.configure(vec![spec("a", 50, 0, Some(QUEUES)), spec("b", 50, 80, None)]);
        levels
    }

    fn come<W>(levels: &mut Levels<W>, name: &str, waiter: W) -> Arrival {
        levels.arrive(name, 7, 1, || waiter)
    }

    fn go<W>(levels: &mut Levels<W>, name: &str) -> Vec<W> {
        levels.leave(name, Width::ONE, || Moment::START)
    }

    #[test]
    fn a_level_uses_what_others_lend_and_no_more() {
        let mut levels = levels();
        // Five of its own, four that are lent; one is kept for `b`.
        for number in 0..9 {
            assert_eq!(come(&mut levels, "a", number), Arrival::Works, "{number}");
        }
        assert!(matches!(come(&mut levels, "a", 9), Arrival::Waits(_)));
        assert_eq!(come(&mut levels, "b", 10), Arrival::Works, "its own");
        assert_eq!(come(&mut levels, "b", 11), Arrival::Refused(Refusal::ConcurrencyLimit), "the others are lent");
        // One that is given back goes to whom it belongs, or else to who waits.
        assert_eq!(go(&mut levels, "a"), [9]);
        assert_eq!(go(&mut levels, "a"), Vec::<u32>::new());
        assert_eq!(come(&mut levels, "b", 12), Arrival::Works);
    }

    #[test]
    fn each_level_gets_its_turn_however_few_seats_there_are() {
        let mut levels = Levels::new(1);
        let shares = [("a", 0), ("b", 0), ("c", 90)];
        levels.configure(shares.iter().map(|(name, lends)| spec(name, 10, *lends, None)).collect());
        for (name, _) in shares {
            assert_eq!(come(&mut levels, name, 0), Arrival::Works, "{name}");
            assert_eq!(go(&mut levels, name), Vec::<u32>::new());
        }
    }

    #[test]
    fn queues_have_an_end_and_are_served_in_turn() {
        let mut levels = Levels::new(1);
        levels.configure(vec![spec("a", 1, 0, Some(QUEUES))]);
        assert_eq!(levels.arrive("a", 0, 1, || 0), Arrival::Works);
        // One flow has two queues of two places each.
        let loud: Vec<Arrival> = (1..=5).map(|number| levels.arrive("a", 0, 1, || number)).collect();
        assert_eq!(loud.last(), Some(&Arrival::Refused(Refusal::QueueFull)));
        assert!(loud[..4].iter().all(|arrival| matches!(arrival, Arrival::Waits(_))));
        // A flow with another queue comes before most of them.
        let quiet = (1..100).find(|flow| !hand(*flow, 4, 2).iter().all(|queue| hand(0, 4, 2).contains(queue)));
        assert!(matches!(levels.arrive("a", quiet.expect("there are six hands"), 1, || 100), Arrival::Waits(_)));
        let mut order = Vec::new();
        for _ in 0..5 {
            order.extend(go(&mut levels, "a"));
        }
        let place = order.iter().position(|waiter| *waiter == 100).expect("it was served");
        assert!(order.len() == 5 && place <= 2, "{order:?}");
        assert_eq!(go(&mut levels, "a"), Vec::<u32>::new());
    }

    #[test]
    fn who_wants_more_seats_waits_for_all_of_them() {
        let mut levels = levels();
        let one_queue = Queuing { queues: 1, hand: 1, length: 9 };
        levels.configure(vec![spec("a", 50, 0, Some(one_queue)), spec("b", 50, 80, None)]);
        assert_eq!(levels.arrive("a", 7, 6, || 0), Arrival::Works, "five of its own and one that is lent");
        assert!(matches!(levels.arrive("a", 7, 4, || 1), Arrival::Waits(_)), "there are only three");
        // Whoever comes later finds a seat; as upstream those who wait don't keep it free.
        assert_eq!(come(&mut levels, "a", 2), Arrival::Works);
        assert_eq!(levels.leave("a", Width { seats: 6, ..Width::ONE }, || Moment::START), [1]);
        assert_eq!(levels.all().map(|(_, _, taken, _)| taken).collect::<Vec<_>>(), [5, 0]);
        // More than there are at all: alone.
        assert!(matches!(levels.arrive("a", 7, 100, || 3), Arrival::Waits(_)));
        assert_eq!(levels.leave("a", Width { seats: 4, ..Width::ONE }, || Moment::START), Vec::<u32>::new());
        assert_eq!(go(&mut levels, "a"), [3]);
        assert_eq!(levels.arrive("b", 7, 1, || 4), Arrival::Works, "what isn't lent is there all the same");
    }

    #[test]
    fn seats_may_be_kept_for_a_while_after_the_answer() {
        let mut levels = Levels::new(2);
        levels.configure(vec![spec("a", 1, 0, Some(QUEUES))]);
        let at = |millis| Moment::START + Duration::from_millis(millis);
        let width = Width { seats: 2, lingers: Duration::from_millis(5) };
        assert_eq!(levels.arrive("a", 0, width.seats, || 0), Arrival::Works);
        assert!(matches!(levels.arrive("a", 0, 1, || 1), Arrival::Waits(_)));
        assert_eq!(levels.leave("a", width, || at(10)), Vec::<u32>::new());
        assert_eq!(levels.next_pass(), Some(at(15)));
        assert_eq!(levels.pass(at(14)), Vec::<u32>::new());
        assert_eq!(levels.pass(at(15)), [1]);
        assert_eq!(levels.next_pass(), None);
    }

    #[test]
    fn who_gives_up_makes_room() {
        let mut levels = Levels::new(1);
        levels.configure(vec![spec("a", 1, 0, Some(Queuing { queues: 1, hand: 1, length: 1 }))]);
        come(&mut levels, "a", 0);
        let Arrival::Waits(queue) = come(&mut levels, "a", 1) else { panic!("there is a place") };
        assert_eq!(come(&mut levels, "a", 2), Arrival::Refused(Refusal::QueueFull));
        assert_eq!(levels.give_up("a", queue, |waiter| *waiter == 1), Vec::<u32>::new());
        assert!(matches!(come(&mut levels, "a", 3), Arrival::Waits(_)));
        assert_eq!(go(&mut levels, "a"), [3]);
    }

    #[test]
    fn a_new_configuration_loses_nobody() {
        let mut levels = Levels::new(1);
        levels.configure(vec![spec("a", 1, 0, Some(QUEUES))]);
        come(&mut levels, "a", 0);
        for flow in 0..3 {
            assert!(matches!(levels.arrive("a", flow, 1, || flow as u32 + 1), Arrival::Waits(_)));
        }
        // Its queues are gone, and the level with them; who waits is served all the same.
        levels.configure(vec![spec("a", 1, 0, None)]);
        levels.configure(vec![spec("b", 1, 0, None)]);
        assert_eq!(
            levels.all().map(|(spec, _, working, waiting)| (&*spec.name, working, waiting)).collect::<Vec<_>>(),
            [("a", 1, 3), ("b", 0, 0)]
        );
        let mut served: Vec<u32> = (0..4).flat_map(|_| go(&mut levels, "a")).collect();
        served.sort_unstable();
        assert_eq!(served, [1, 2, 3]);
        assert_eq!(levels.all().map(|(spec, ..)| &*spec.name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_hand_has_different_queues() {
        for flow in 0..1000 {
            let mut hand = hand(flow * 7919, 16, 4);
            hand.sort_unstable();
            hand.dedup();
            assert!(hand.len() == 4 && hand[3] < 16, "{hand:?}");
        }
        let first: std::collections::BTreeSet<usize> = (0..100).map(|flow| hand(flow, 16, 4)[0]).collect();
        assert_eq!(first.len(), 16);
        assert_eq!(hand(5, 2, 9).len(), 2);
    }
}
