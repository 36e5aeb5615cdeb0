//! Made-up histories for the checkers' own tests: what a store that does everything right could have answered.

use std::collections::BTreeMap;

use k3sd_runtime::Rng;

use crate::history::{Action, Event, Expected, History, Key, Nanos, Operation, Outcome, Revision, Seen, Value};
use crate::history::{Version, Watch};

/// Time between two moments at which something happens.
const TICK: Nanos = 100;

/// A version that was created where it was last changed.
pub(crate) fn version(revision: Revision, value: u64) -> Version {
    Version { created: revision, revision, value: Value(value) }
}

/// An operation on key 0.
pub(crate) fn operation(client: usize, time: (Nanos, Nanos), action: Action, outcome: Outcome) -> Operation {
    Operation { client, action, called: time.0, returned: time.1, outcome }
}

/// Puts value `value` if `expected` holds.
pub(crate) fn put(expected: Expected, value: u64) -> Action {
    Action::Put { key: 0, expected, value: Value(value) }
}

/// Deletes if `expected` holds.
pub(crate) fn delete(expected: Expected) -> Action {
    Action::Delete { key: 0, expected }
}

/// Reads what is there now.
pub(crate) const READ: Action = Action::Read { key: 0, at: None };

/// Acknowledged at a revision.
pub(crate) fn written(revision: Revision, prev: Option<Version>) -> Outcome {
    Outcome::Written { revision, prev }
}

/// An answer to a read.
pub(crate) fn read(at: Revision, found: Option<Version>) -> Outcome {
    Outcome::Read { at, found }
}

/// No answer.
pub(crate) fn unknown() -> Outcome {
    Outcome::Unknown { reason: "cut off".to_owned() }
}

/// A store, its clock and its history.
pub(crate) struct Testbed {
    rng: Rng,
    now: Nanos,
    revision: Revision,
    keys: BTreeMap<Key, Version>,
    past: Vec<BTreeMap<Key, Version>>,
    value: u64,
    /// What comes of it.
    pub(crate) history: History,
}

impl Testbed {
    /// Lets clients do so many things at random. Each happens at one moment, and takes a while around it, so that calls
    /// overlap; a few have no answer.
    pub(crate) fn run(seed: u64, operations: usize) -> History {
        let history = History { is_dense: true, ..History::default() };
        let (rng, past) = (Rng::seeded(seed), vec![BTreeMap::new()]);
        let mut bed = Self { rng, now: TICK * 100, revision: 0, keys: BTreeMap::new(), past, value: 0, history };
        bed.history.watches = vec![
            Watch { name: "all".to_owned(), key: None, seen: vec![Seen::Asked { from: 1 }], to_the_end: true },
            Watch { name: "one".to_owned(), key: Some(0), seen: vec![Seen::Asked { from: 1 }], to_the_end: true },
        ];
        for _ in 0..operations {
            bed.step();
        }
        bed.history.end = bed.keys;
        bed.history.end_revision = bed.revision;
        bed.history
    }

    fn step(&mut self) {
        self.now += TICK;
        let action = self.action();
        let called = self.now - 1 - self.rng.below(5 * TICK);
        let returned = self.now + 1 + self.rng.below(5 * TICK);
        let client = self.history.operations.len();
        // One in ten has no answer, and half of those do nothing.
        let outcome = match self.rng.below(20) {
            0 if action.is_write() => unknown(),
            1 if action.is_write() => {
                self.carry_out(&action);
                unknown()
            }
            _ => self.carry_out(&action),
        };
        self.history.operations.push(Operation { client, action, called, returned, outcome });
        if self.rng.below(10) == 0 {
            let revision = self.revision;
            self.history.watches[0].seen.push(Seen::Progress(revision));
            self.history.watches[0].seen.push(Seen::Asked { from: revision + 1 });
        }
    }

    fn action(&mut self) -> Action {
        let key = Key::try_from(self.rng.below(2)).expect("a small number");
        let current = self.keys.get(&key).map_or(0, |version| version.revision);
        let expected = match self.rng.below(6) {
            0 => Expected::Anything,
            1 => Expected::Absent,
            2 => Expected::At(current - 1),
            _ => Expected::At(current),
        };
        let now = u64::try_from(self.revision).expect("it only grows");
        match self.rng.below(10) {
            0..=4 => {
                self.value += 1;
                Action::Put { key, expected, value: Value(self.value) }
            }
            5 | 6 => Action::Delete { key, expected },
            7 => Action::List { at: None },
            8 => Action::Read { key, at: i64::try_from(self.rng.below(now + 1)).ok() },
            _ => Action::Read { key, at: None },
        }
    }

    fn carry_out(&mut self, action: &Action) -> Outcome {
        let at = self.revision;
        let (key, expected, value) = match *action {
            Action::Put { key, expected, value } => (key, expected, Some(value)),
            Action::Delete { key, expected } => (key, expected, None),
            Action::Read { key, at: asked } => {
                let then = usize::try_from(asked.unwrap_or(at)).expect("it is not negative");
                return Outcome::Read { at, found: self.past[then].get(&key).copied() };
            }
            Action::List { .. } => return Outcome::Listed { at, found: self.keys.clone() },
        };
        let prev = self.keys.get(&key).copied();
        if !expected.allows(prev.as_ref()) || (value.is_none() && prev.is_none()) {
            return Outcome::Unchanged { at, found: prev };
        }
        self.revision += 1;
        let revision = self.revision;
        let now = value.map(|value| Version { created: prev.map_or(revision, |prev| prev.created), revision, value });
        match now {
            Some(version) => drop(self.keys.insert(key, version)),
            None => drop(self.keys.remove(&key)),
        }
        self.past.push(self.keys.clone());
        let event = Event { revision, key, now, prev };
        for watch in self.history.watches.iter_mut().filter(|watch| watch.follows(key)) {
            watch.seen.push(Seen::Event(event, self.now + TICK * 5));
        }
        Outcome::Written { revision, prev }
    }
}
