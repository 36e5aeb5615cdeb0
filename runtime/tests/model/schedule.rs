//! A tree, and what befalls it: drawn from a seed, printed for people, made smaller by leaving things out.

use std::fmt;
use std::time::Duration;

use k3sd_runtime::{Backoff, ChildSpec, ROOT, Restart, Rng, Signal, Spec, Strategy, subtree};

use super::join;
use crate::support::{End, Stage};

/// Events happen at multiples of this many milliseconds.
const GRID: u64 = 64;

/// The first wait of a backoff. Waits doubled from it hardly ever end on the grid, so timers and events don't meet.
const WAIT_MIN: u64 = 66;

/// The longest wait.
const WAIT_MAX: u64 = 528;

/// Which waits a child's restarts have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// So many restarts in a row wait nothing; `None` is no backoff at all.
    pub(crate) free: Option<u32>,
    /// A life of so many milliseconds ends the row.
    pub(crate) reset: u64,
}

impl Waits {
    /// The wait before a restart, in milliseconds.
    pub(crate) fn before(self, attempt: u32) -> u64 {
        match self.free {
            Some(free) if attempt > free => (free + 1..attempt).fold(WAIT_MIN, |wait, _| wait * 2).min(WAIT_MAX),
            _ => 0,
        }
    }

    fn backoff(self) -> Backoff {
        let Some(free_attempts) = self.free else { return Backoff::OFF };
        Backoff {
            free_attempts,
            delay_min: Duration::from_millis(WAIT_MIN),
            delay_max: Duration::from_millis(WAIT_MAX),
            factor: 2.0,
            jitter: 0.0,
            reset_after: Duration::from_millis(self.reset),
        }
    }
}

/// One child.
#[derive(Clone, Debug)]
pub(crate) struct Kid {
    pub(crate) name: String,
    pub(crate) restart: Restart,
    pub(crate) waits: Waits,
    /// Its children, when it is a supervisor.
    pub(crate) group: Option<Group>,
}

/// One supervisor.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) strategy: Strategy,
    pub(crate) restarts: u32,
    pub(crate) period: u64,
    pub(crate) kids: Vec<Kid>,
}

impl Kid {
    /// The same for the runtime.
    pub(crate) fn spec(&self, stage: &Stage) -> ChildSpec {
        let child = match &self.group {
            None => stage.probe(&self.name),
            Some(group) => subtree(&self.name, group.spec(stage)),
        };
        child.restart(self.restart).backoff(self.waits.backoff())
    }
}

impl Group {
    /// The same for the runtime.
    pub(crate) fn spec(&self, stage: &Stage) -> Spec {
        let spec = Spec::new(self.strategy).budget(self.restarts, Duration::from_millis(self.period));
        self.kids.iter().fold(spec, |spec, kid| spec.child(kid.spec(stage)))
    }

    /// All paths below, each with its group when it is a supervisor.
    pub(crate) fn below(&self, path: &str) -> Vec<(String, Option<&Group>)> {
        let mut found = Vec::new();
        for kid in &self.kids {
            let child = join(path, &kid.name);
            found.push((child.clone(), kid.group.as_ref()));
            found.extend(kid.group.iter().flat_map(|group| group.below(&child)));
        }
        found
    }
}

/// What befalls the tree.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A probe ends.
    End {
        path: String,
        how: End,
    },
    /// A supervisor is signalled behind its supervisor's back.
    Signal {
        path: String,
        signal: Signal,
    },
    /// The next starts of a probe fail.
    FailStarts {
        path: String,
        times: u32,
    },
    /// Commands to a supervisor.
    Stop {
        supervisor: String,
        name: String,
    },
    Restart {
        supervisor: String,
        name: String,
    },
    Remove {
        supervisor: String,
        name: String,
    },
    Add {
        supervisor: String,
        kid: Kid,
    },
    /// The whole tree is asked to stop.
    ShutDown,
}

/// An act and its time.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Milliseconds since the step before.
    pub(crate) after: u64,
    pub(crate) act: Act,
}

/// All that one run needs.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) root: Group,
    /// Starts that fail at boot.
    pub(crate) failing: Vec<(String, u32)>,
    pub(crate) steps: Vec<Step>,
}

fn pick<T: Clone>(rng: &mut Rng, choices: &[T]) -> T {
    let at = rng.below(choices.len() as u64);
    choices[usize::try_from(at).expect("an index")].clone()
}

fn chance(rng: &mut Rng, percent: u64) -> bool {
    rng.below(100) < percent
}

fn random_kid(rng: &mut Rng, name: String, levels: u32) -> Kid {
    const RESTARTS: [Restart; 6] = [
        Restart::Permanent,
        Restart::Permanent,
        Restart::Permanent,
        Restart::Transient,
        Restart::Transient,
        Restart::Temporary,
    ];
    let group = (levels > 1 && chance(rng, 35)).then(|| random_group(rng, levels - 1));
    let waits =
        Waits { free: pick(rng, &[None, None, Some(0), Some(1)]), reset: pick(rng, &[GRID * 10, u64::MAX / 2]) };
    Kid { name, restart: pick(rng, &RESTARTS), waits, group }
}

fn random_group(rng: &mut Rng, levels: u32) -> Group {
    const STRATEGIES: [Strategy; 4] =
        [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll, Strategy::Dynamic];
    let strategy = pick(rng, &STRATEGIES);
    let restarts = pick(rng, &[0, 1, 1, 2, 2, 3, 4]);
    let period = pick(rng, &[GRID * 2, GRID * 10, GRID * 100]);
    let count = 1 + rng.below(5);
    let names = ["a", "b", "c", "d", "e"].iter().take(usize::try_from(count).expect("at most five"));
    let kids = names.map(|name| random_kid(rng, (*name).to_owned(), levels)).collect();
    Group { strategy, restarts, period, kids }
}

impl Schedule {
    /// The schedule of this seed.
    pub(crate) fn random(seed: u64) -> Self {
        let rng = &mut Rng::seeded(seed);
        let levels = pick(rng, &[1, 2, 2, 3, 3]);
        let mut root = random_group(rng, levels);
        root.restarts += pick(rng, &[0, 2, 4]); // Or many a run would be over too soon.
        let below = root.below(ROOT);
        let mut probes: Vec<&str> =
            below.iter().filter(|(_, group)| group.is_none()).map(|(path, _)| &**path).collect();
        probes.push("x"); // It may be added.
        let supervisors: Vec<(&str, &Group)> =
            below.iter().filter_map(|(path, group)| group.map(|group| (&**path, group))).collect();
        let mut failing = Vec::new();
        while chance(rng, 20) {
            failing.push((pick(rng, &probes).to_owned(), 1 + u32::try_from(rng.below(3)).expect("small")));
        }
        let count = 4 + rng.below(14);
        let mut steps: Vec<Step> = (0..count)
            .map(|_| {
                let gap = pick(rng, &[1, 1, 1, 2, 2, 3, 8, 9, 10, 40]);
                Step { after: GRID * gap, act: random_act(rng, &root, &probes, &supervisors) }
            })
            .collect();
        steps.push(Step { after: GRID, act: Act::ShutDown });
        Self { seed, failing, steps, root }
    }

    /// The smallest schedule that still fails, by leaving out one step after the other.
    pub(crate) fn shrunk(self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut best = self;
        loop {
            let fewer_steps = (0..best.steps.len()).map(|at| {
                let mut smaller = best.clone();
                let gone = smaller.steps.remove(at);
                if let Some(next) = smaller.steps.get_mut(at) {
                    next.after += gone.after; // The others keep their times.
                }
                smaller
            });
            let fewer_failures = (0..best.failing.len()).map(|at| {
                let mut smaller = best.clone();
                smaller.failing.remove(at);
                smaller
            });
            let fewer_kids = (0..best.root.kids.len()).map(|at| {
                let mut smaller = best.clone();
                smaller.root.kids.remove(at);
                smaller
            });
            match fewer_steps.chain(fewer_failures).chain(fewer_kids).find(&fails) {
                Some(smaller) => best = smaller,
                None => return best,
            }
        }
    }
}

fn random_act(rng: &mut Rng, root: &Group, probes: &[&str], supervisors: &[(&str, &Group)]) -> Act {
    let dice = rng.below(100);
    let some_supervisor = !supervisors.is_empty();
    match dice {
        0..45 => Act::End { path: pick(rng, probes).to_owned(), how: pick(rng, &End::ALL) },
        45..60 => {
            let times = 1 + u32::try_from(rng.below(5)).expect("small");
            Act::FailStarts { path: pick(rng, probes).to_owned(), times }
        }
        60..72 if some_supervisor => {
            let signal = pick(rng, &[Signal::Kill, Signal::Panic, Signal::Stop]);
            Act::Signal { path: pick(rng, supervisors).0.to_owned(), signal }
        }
        _ => {
            let whole = (ROOT, root);
            let (path, group) = if some_supervisor && chance(rng, 60) { pick(rng, supervisors) } else { whole };
            let supervisor = path.to_owned();
            let mut names: Vec<&str> = group.kids.iter().map(|kid| &*kid.name).collect();
            names.push("x");
            let name = pick(rng, &names).to_owned();
            match rng.below(4) {
                0 => Act::Stop { supervisor, name },
                1 => Act::Restart { supervisor, name },
                2 => Act::Remove { supervisor, name },
                _ => {
                    // Not the name of a subtree: its path would belong to another kind of actor.
                    let name = pick(rng, &["x", "y", "z"]).to_owned();
                    Act::Add { supervisor, kid: random_kid(rng, name, 1) }
                }
            }
        }
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.restart.word())?;
        if let Some(free) = self.waits.free {
            write!(f, " waits {WAIT_MIN} ms after {free} restarts in a row")?;
            if self.waits.reset < u64::MAX / 2 {
                write!(f, " of lives below {} ms", self.waits.reset)?;
            }
        }
        match &self.group {
            None => Ok(()),
            Some(group) => write!(f, " = {group}"),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {} in {} ms", self.strategy.word(), self.restarts, self.period)?;
        let kids: String = self.kids.iter().map(|kid| format!("{kid}\n")).collect();
        let indented: Vec<String> = kids.lines().map(|line| format!("    {line}")).collect();
        f.write_str(&indented.join("\n"))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "/ = {}", self.root)?;
        for (path, times) in &self.failing {
            writeln!(f, "at boot {path} fails to start {times} times")?;
        }
        let mut at = 0;
        for Step { after, act } in &self.steps {
            at += after;
            writeln!(f, "{at:>6} ms {act}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End { path, how } => write!(f, "{path}: {how:?}"),
            Self::Signal { path, signal } => write!(f, "signal {signal:?} to {path}"),
            Self::FailStarts { path, times } => write!(f, "{path} will fail to start {times} times"),
            Self::Stop { supervisor, name } => write!(f, "{supervisor}: stop {name}"),
            Self::Restart { supervisor, name } => write!(f, "{supervisor}: restart {name}"),
            Self::Remove { supervisor, name } => write!(f, "{supervisor}: remove {name}"),
            Self::Add { supervisor, kid } => write!(f, "{supervisor}: add {kid}"),
            Self::ShutDown => f.write_str("shut down"),
        }
    }
}
