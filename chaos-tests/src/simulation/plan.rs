//! What goes wrong in a run, and when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use k3sd_runtime::Rng;

/// The shortest and the longest pause between two faults of a run, on average.
const PAUSE_MS: (u64, u64) = (150, 2500);
/// The longest that something is away, full or slow. Shorter than what makes a node count as lost.
const SPELL_MS_MAX: u64 = 6000;

/// Who is meant, by a number that is only useful together with those who are there.
pub type Draw = u64;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An actor is dropped at its next await.
    Kill(Draw),
    /// An actor panics.
    Panic(Draw),
    /// An actor returns an error from its next message.
    Error(Draw),
    /// An actor dies, and so many of its next starts fail.
    FailStarts(Draw, u32),
    /// The store is closed for so long.
    StoreAway(Duration),
    /// The store has no space for so long.
    StoreFull(Duration),
    /// So many writes happen without anybody being told.
    StoreLosesAnswers(u32),
    /// The store ends all its feeds.
    FeedsCut,
    /// The store forgets what was before now.
    Compact,
    /// Requests to the API take up to so many milliseconds each way, for so long, and so does each piece of what the
    /// API server and its node say to each other.
    WireSlow(u64, Duration),
    /// So many requests to the API are carried out, and their answers are lost.
    WireLosesAnswers(u32),
    /// All connections to the API end, and all of the API server to its node.
    WireCut,
    /// Nobody reaches the API for so long, and the API server doesn't reach its node.
    WireAway(Duration),
    /// Calls to the container runtime take up to so many milliseconds each way, for so long.
    CriSlow(u64, Duration),
    /// The runtime refuses so many calls.
    CriRefuses(u32),
    /// The runtime carries out so many calls, and its answers are lost.
    CriLosesAnswers(u32),
    /// The runtime is away for so long; what runs in it runs on.
    CriAway(Duration),
    /// A container's process dies.
    Crash(Draw),
    /// Somebody takes away what the kernel does with packets for Services.
    RulesLost,
    /// The wall clock is set by so many seconds.
    ClockJump(i64),
}

impl Fault {
    /// One word for it, for counts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Panic(_) => "panic",
            Self::Error(_) => "error",
            Self::FailStarts(..) => "failed-start",
            Self::StoreAway(_) => "store-away",
            Self::StoreFull(_) => "store-full",
            Self::StoreLosesAnswers(_) => "store-lost-answer",
            Self::FeedsCut => "feeds-cut",
            Self::Compact => "compaction",
            Self::WireSlow(..) => "wire-slow",
            Self::WireLosesAnswers(_) => "wire-lost-answer",
            Self::WireCut => "wire-cut",
            Self::WireAway(_) => "wire-away",
            Self::CriSlow(..) => "runtime-slow",
            Self::CriRefuses(_) => "runtime-error",
            Self::CriLosesAnswers(_) => "runtime-lost-answer",
            Self::CriAway(_) => "runtime-away",
            Self::Crash(_) => "crash",
            Self::RulesLost => "rules-lost",
            Self::ClockJump(_) => "clock-jump",
        }
    }
}

/// A fault at its moment, counted from the beginning of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} s  {:?}", self.at.as_secs_f64(), self.fault)
    }
}

/// How to draw each kind, and how likely it is next to the others where a run has it at all.
type Kind = (u64, fn(&mut Rng) -> Fault);

fn spell(rng: &mut Rng) -> Duration {
    Duration::from_millis(200 + rng.below(SPELL_MS_MAX - 200))
}

fn few(rng: &mut Rng) -> u32 {
    1 + u32::try_from(rng.below(4)).unwrap_or_default()
}

const KINDS: [Kind; 20] = [
    (12, |rng| Fault::Kill(rng.next_u64())),
    (6, |rng| Fault::Panic(rng.next_u64())),
    (4, |rng| Fault::Error(rng.next_u64())),
    (3, |rng| Fault::FailStarts(rng.next_u64(), few(rng))),
    (1, |rng| Fault::StoreAway(spell(rng))),
    (1, |rng| Fault::StoreFull(spell(rng))),
    (2, |rng| Fault::StoreLosesAnswers(few(rng))),
    (2, |_| Fault::FeedsCut),
    (1, |_| Fault::Compact),
    (1, |rng| Fault::WireSlow(1 + rng.below(400), spell(rng))),
    (3, |rng| Fault::WireLosesAnswers(few(rng))),
    (2, |_| Fault::WireCut),
    (1, |rng| Fault::WireAway(spell(rng))),
    (1, |rng| Fault::CriSlow(1 + rng.below(3000), spell(rng))),
    (3, |rng| Fault::CriRefuses(few(rng))),
    (3, |rng| Fault::CriLosesAnswers(few(rng))),
    (1, |rng| Fault::CriAway(spell(rng))),
    (2, |rng| Fault::Crash(rng.next_u64())),
    (1, |_| Fault::RulesLost),
    (1, |rng| Fault::ClockJump(jump(rng))),
];

/// Up to two minutes, forward or back.
fn jump(rng: &mut Rng) -> i64 {
    let seconds = 1 + i64::try_from(rng.below(120)).unwrap_or_default();
    if rng.below(2) == 0 { seconds } else { -seconds }
}

/// The faults of a run that lasts so long, in order. Each run has some of the kinds only, and its own density: a fault that
/// hides another one is then missing in many of them.
#[must_use]
pub fn plan(seed: u64, span: Duration) -> Vec<Planned> {
    let mut rng = Rng::seeded(seed ^ 0x9e37_79b9_7f4a_7c15);
    let mut kinds: Vec<Kind> = KINDS.iter().filter(|_| rng.below(5) < 3).copied().collect();
    if kinds.is_empty() {
        kinds.push(KINDS[0]);
    }
    let weight: u64 = kinds.iter().map(|(weight, _)| weight).sum();
    let pause = PAUSE_MS.0 + rng.below(PAUSE_MS.1 - PAUSE_MS.0);
    let (mut at, mut planned) = (Duration::ZERO, Vec::new());
    loop {
        at += Duration::from_micros(rng.below(2000 * pause));
        if at >= span {
            return planned;
        }
        let mut place = rng.below(weight);
        let chosen = kinds.iter().find(|(weight, _)| {
            let is_here = place < *weight;
            place = place.saturating_sub(*weight);
            is_here
        });
        if let Some((_, draw)) = chosen {
            planned.push(Planned { at, fault: draw(&mut rng) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SPAN: Duration = Duration::from_secs(60);

    #[test]
    fn a_seed_plans_the_same_each_time_and_another_one_something_else() {
        assert_eq!(plan(7, SPAN), plan(7, SPAN));
        assert_ne!(plan(7, SPAN), plan(8, SPAN));
        let planned = plan(7, SPAN);
        assert!(planned.windows(2).all(|pair| pair[0].at <= pair[1].at) && planned.iter().all(|one| one.at < SPAN));
    }

    #[test]
    fn every_kind_comes_up_in_some_run_and_none_in_all() {
        let words = |seed| plan(seed, SPAN).iter().map(|one| one.fault.word()).collect::<BTreeSet<_>>();
        let runs: Vec<_> = (0..40).map(words).collect();
        let all: BTreeSet<_> = runs.iter().flatten().copied().collect();
        assert_eq!(all.len(), KINDS.len(), "{all:?}");
        assert!(all.iter().all(|word| runs.iter().any(|run| !run.contains(word))));
    }
}
