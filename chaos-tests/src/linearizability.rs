//! Whether there is an order of all operations on a key in which each answer is right, and in which nothing comes before
//! what was finished when it began. Keys are judged apart from each other: a history is linearizable exactly if each of
//! its keys is.
//!
//! The method is that of Wing and Gong with Lowe's memory. It tries every operation that may come next, goes back from
//! dead ends, and remembers each pair of "what was done" and "what the key then held", so that it tries none twice. A
//! write without an answer may come anywhere behind its call, or nowhere. What was done is remembered as a sum of random
//! numbers of 128 bits, one per operation, instead of as a set: a set takes memory with the square of the history.
//!
//! Of what watchers saw it takes nothing but the revisions of values. [`crate::log`] compares the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use crate::history::{Action, Expected, History, Key, Nanos, Operation, Outcome, Revision, Value, Version};
use crate::streams;

/// How many steps are tried for a key. Histories of the scenarios need a few per operation; one that needs more is one
/// that nobody can judge, and is as bad as a wrong one.
const STEPS_MAX: usize = 50_000_000;

/// Why a key's history is wrong, or can't be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The same value was seen at two revisions.
    TwoRevisions {
        /// The value.
        value: Value,
        /// Where it was seen.
        revisions: [Revision; 2],
    },
    /// A condition that held was said not to hold.
    NoConflict {
        /// The operation.
        operation: String,
    },
    /// There is no order.
    NoOrder {
        /// The key.
        key: Key,
        /// The longest order that was found, its last part.
        order: Vec<String>,
        /// What could come next, and contradicts it.
        stuck: Vec<String>,
    },
    /// Too many steps.
    Undecided {
        /// The key.
        key: Key,
        /// How many operations it has.
        operations: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoRevisions { value, revisions: [one, other] } => {
                write!(f, "{value:?} was seen at revision {one} and at {other}")
            }
            Self::NoConflict { operation } => write!(f, "refused though its condition holds: {operation}"),
            Self::NoOrder { key, order, stuck } => {
                write!(f, "key {key} is not linearizable; the longest order ends with\n  {}", order.join("\n  "))?;
                write!(f, "\nand none of these can follow\n  {}", stuck.join("\n  "))
            }
            Self::Undecided { key, operations } => {
                write!(f, "key {key} with {operations} operations is not decided after {STEPS_MAX} steps")
            }
        }
    }
}

/// Judges every key of a history.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    check_within(history, STEPS_MAX)
}

fn check_within(history: &History, steps_max: usize) -> Vec<Violation> {
    let mut violations: Vec<Violation> = history.operations.iter().filter_map(refused_wrongly).collect();
    let revisions = match revisions(history) {
        Ok(revisions) => revisions,
        Err(violation) => return vec![violation],
    };
    for (key, mut calls) in calls_by_key(history) {
        resolve(&mut calls, &revisions);
        let start = State::of(history.start.get(&key), history.start_revision);
        violations.extend(Search::new(&calls, start).run(key, steps_max).err());
    }
    violations
}

/// What an operation means for one key.
#[derive(Clone, Copy, Debug)]
enum Effect {
    /// It saw this.
    Saw(Option<Version>),
    /// It wrote, or may have.
    Wrote {
        expected: Expected,
        after: Option<Value>,
        /// Unless nobody knows.
        revision: Option<Revision>,
        /// What was there, if that is known.
        prev: Option<Option<Version>>,
    },
}

struct Call<'h> {
    operation: &'h Operation,
    called: Nanos,
    /// Never, for a write without an answer.
    returned: Option<Nanos>,
    effect: Effect,
}

impl Call<'_> {
    /// A delete without condition and without answer.
    fn is_vague_delete(&self) -> bool {
        let vague =
            matches!(self.effect, Effect::Wrote { expected: Expected::Anything, after: None, revision: None, .. });
        vague && self.returned.is_none()
    }
}

/// Splits a history. Reads of the past are left out: they say nothing about the moment they were made in.
fn calls_by_key(history: &History) -> BTreeMap<Key, Vec<Call<'_>>> {
    let mut calls: BTreeMap<Key, Vec<Call<'_>>> = BTreeMap::new();
    let all: BTreeSet<Key> = history.operations.iter().filter_map(|operation| key_of(&operation.action)).collect();
    for operation in &history.operations {
        let returned = (!matches!(operation.outcome, Outcome::Unknown { .. })).then_some(operation.returned);
        let mut add = |key: Key, effect: Effect| {
            let call = Call { operation, called: operation.called, returned, effect };
            calls.entry(key).or_default().push(call);
        };
        match (&operation.action, &operation.outcome) {
            (Action::List { at: None }, Outcome::Listed { found, .. }) => {
                for key in &all {
                    add(*key, Effect::Saw(found.get(key).copied()));
                }
            }
            (action, outcome) => {
                let (Some(key), Some(effect)) = (key_of(action), effect_of(action, outcome)) else { continue };
                add(key, effect);
            }
        }
    }
    calls
}

fn key_of(action: &Action) -> Option<Key> {
    match action {
        Action::Put { key, .. } | Action::Delete { key, .. } | Action::Read { key, .. } => Some(*key),
        Action::List { .. } => None,
    }
}

fn effect_of(action: &Action, outcome: &Outcome) -> Option<Effect> {
    let (expected, after) = match action {
        Action::Put { expected, value, .. } => (*expected, Some(*value)),
        Action::Delete { expected, .. } => (*expected, None),
        Action::Read { at: None, .. } => {
            let Outcome::Read { found, .. } = outcome else { return None };
            return Some(Effect::Saw(*found));
        }
        Action::Read { at: Some(_), .. } | Action::List { .. } => return None,
    };
    match outcome {
        Outcome::Written { revision, prev } => {
            Some(Effect::Wrote { expected, after, revision: Some(*revision), prev: Some(*prev) })
        }
        Outcome::Unchanged { found, .. } => Some(Effect::Saw(*found)),
        Outcome::Unknown { .. } => Some(Effect::Wrote { expected, after, revision: None, prev: None }),
        Outcome::Refused { .. } | Outcome::Read { .. } | Outcome::Listed { .. } => None,
    }
}

/// A write that was refused for its condition, though what it was shown fulfils it.
fn refused_wrongly(operation: &Operation) -> Option<Violation> {
    let Outcome::Unchanged { found, .. } = &operation.outcome else { return None };
    let holds = match operation.action {
        Action::Put { expected, .. } => expected.allows(found.as_ref()),
        // Deleting nothing changes nothing.
        Action::Delete { expected, .. } => found.is_some() && expected.allows(found.as_ref()),
        Action::Read { .. } | Action::List { .. } => false,
    };
    holds.then(|| Violation::NoConflict { operation: operation.to_string() })
}

/// At which revision each value was seen, by whomever.
fn revisions(history: &History) -> Result<HashMap<Value, Revision>, Violation> {
    let mut revisions = HashMap::new();
    let mut note = |version: Version| {
        let before = *revisions.entry(version.value).or_insert(version.revision);
        let revisions = [before, version.revision];
        if before == version.revision {
            Ok(())
        } else {
            Err(Violation::TwoRevisions { value: version.value, revisions })
        }
    };
    for operation in &history.operations {
        match &operation.outcome {
            Outcome::Written { revision, prev } => {
                if let Action::Put { value, .. } = operation.action {
                    note(Version { created: 0, revision: *revision, value })?;
                }
                prev.iter().copied().try_for_each(&mut note)?;
            }
            Outcome::Unchanged { found, .. } | Outcome::Read { found, .. } => {
                found.iter().copied().try_for_each(&mut note)?;
            }
            Outcome::Listed { found, .. } => found.values().copied().try_for_each(&mut note)?,
            Outcome::Refused { .. } | Outcome::Unknown { .. } => {}
        }
    }
    for (event, _) in history.watches.iter().flat_map(streams::events) {
        event.now.iter().chain(&event.prev).copied().try_for_each(&mut note)?;
    }
    Ok(revisions)
}

/// Gives writes without an answer the revisions of their values, and drops those whose values nobody saw: every write
/// that is known to have happened tells what it replaced, so if one of them were needed for an order, somebody would
/// have seen it.
fn resolve(calls: &mut Vec<Call<'_>>, revisions: &HashMap<Value, Revision>) {
    calls.retain_mut(|call| match &mut call.effect {
        Effect::Wrote { after: Some(value), revision: revision @ None, .. } => {
            *revision = revisions.get(value).copied();
            revision.is_some()
        }
        _ => true,
    });
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    value: Option<(Value, Revision)>,
    /// The newest revision that anything in the order is known to have; the next write has a newer one.
    floor: Revision,
}

impl State {
    fn of(version: Option<&Version>, floor: Revision) -> Self {
        Self { value: version.map(|version| (version.value, version.revision)), floor }
    }

    fn shows(&self, found: Option<Version>) -> bool {
        self.value == found.map(|version| (version.value, version.revision))
    }

    /// The state after an operation, if its answer is right here.
    fn after(&self, effect: &Effect) -> Option<Self> {
        match *effect {
            Effect::Saw(found) => self.shows(found).then_some(*self),
            Effect::Wrote { expected, after, revision, prev } => {
                let allowed = match expected {
                    Expected::Anything => true,
                    Expected::Absent => self.value.is_none(),
                    Expected::At(wanted) => self.value.is_some_and(|(_, revision)| revision == wanted),
                };
                let told = prev.is_none_or(|prev| self.shows(prev));
                let newer = revision.is_none_or(|revision| revision > self.floor);
                // A delete of what is not there happens at no revision.
                let changes = after.is_some() || self.value.is_some();
                if !(allowed && told && newer && changes) {
                    return None;
                }
                let value = after.zip(revision);
                Some(Self { value, floor: revision.unwrap_or(self.floor) })
            }
        }
    }
}

/// A place in the list of calls and returns.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Head,
    Call(usize),
    Return(usize),
}

/// The list of calls and returns in the order of time, linked so that an operation can be taken out and put back.
struct Search<'c, 'h> {
    calls: &'c [Call<'h>],
    entries: Vec<Entry>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where each operation's call and return are.
    places: Vec<(usize, Option<usize>)>,
    state: State,
    done: u128,
    /// Operations with an answer that are not in the order yet.
    open: usize,
    /// The order: places of calls, and the state before each.
    order: Vec<(usize, State)>,
    known: HashSet<(u128, State)>,
    /// Deletes without condition and answer, by the time of their call. One does what any other does, so the earliest is
    /// taken first; to try all of them in each place would take time without end.
    alike: Vec<usize>,
    /// How many of those are in the order.
    alike_done: usize,
    longest: Vec<usize>,
}

/// The end of the list.
const END: usize = usize::MAX;

impl<'c, 'h> Search<'c, 'h> {
    fn new(calls: &'c [Call<'h>], state: State) -> Self {
        let mut timed = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            // At the same moment calls come first: then they overlap, which is the weaker claim.
            timed.push((call.called, 0, Entry::Call(number)));
            timed.extend(call.returned.map(|returned| (returned, 1, Entry::Return(number))));
        }
        timed.sort_by_key(|(time, kind, _)| (*time, *kind));
        let mut entries = vec![Entry::Head];
        entries.extend(timed.into_iter().map(|(_, _, entry)| entry));
        let mut places = vec![(0, None); calls.len()];
        for (place, entry) in entries.iter().enumerate() {
            match entry {
                Entry::Head => {}
                Entry::Call(number) => places[*number].0 = place,
                Entry::Return(number) => places[*number].1 = Some(place),
            }
        }
        let count = entries.len();
        let mut alike: Vec<usize> = (0..calls.len()).filter(|number| calls[*number].is_vague_delete()).collect();
        alike.sort_by_key(|number| places[*number].0);
        Self {
            calls,
            entries,
            next: (1..=count).map(|place| if place == count { END } else { place }).collect(),
            previous: (0..count).map(|place| place.saturating_sub(1)).collect(),
            places,
            state,
            done: 0,
            open: calls.iter().filter(|call| call.returned.is_some()).count(),
            order: Vec::new(),
            known: HashSet::new(),
            alike,
            alike_done: 0,
            longest: Vec::new(),
        }
    }

    fn unlink(&mut self, place: usize) {
        let (before, behind) = (self.previous[place], self.next[place]);
        self.next[before] = behind;
        if behind != END {
            self.previous[behind] = before;
        }
    }

    fn link(&mut self, place: usize) {
        let (before, behind) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        if behind != END {
            self.previous[behind] = place;
        }
    }

    /// Puts an operation at the end of the order.
    fn take(&mut self, number: usize, state: State) {
        let (call, back) = self.places[number];
        self.order.push((number, self.state));
        self.state = state;
        self.done ^= mark(number);
        self.unlink(call);
        if let Some(back) = back {
            self.unlink(back);
            self.open -= 1;
        }
        self.alike_done += usize::from(self.calls[number].is_vague_delete());
    }

    /// Takes the last one out of the order, and returns what comes behind its call.
    fn give_back(&mut self) -> Option<usize> {
        let (number, state) = self.order.pop()?;
        let (call, back) = self.places[number];
        if let Some(back) = back {
            self.link(back);
            self.open += 1;
        }
        self.link(call);
        self.done ^= mark(number);
        self.state = state;
        self.alike_done -= usize::from(self.calls[number].is_vague_delete());
        Some(self.next[call])
    }

    fn run(mut self, key: Key, steps_max: usize) -> Result<(), Violation> {
        let mut place = self.next[0];
        for _ in 0..steps_max {
            if self.open == 0 {
                return Ok(()); // The rest has no answer, and need not happen.
            }
            let entry = if place == END { Entry::Head } else { self.entries[place] };
            match entry {
                Entry::Call(number) => {
                    let call = &self.calls[number];
                    let turn = !call.is_vague_delete() || self.alike.get(self.alike_done) == Some(&number);
                    let after = if turn { self.state.after(&call.effect) } else { None };
                    let fresh = after.filter(|state| self.known.insert((self.done ^ mark(number), *state)));
                    if let Some(state) = fresh {
                        self.take(number, state);
                        place = self.next[0];
                    } else {
                        place = self.next[place];
                    }
                }
                // Somebody had an answer before any of the rest was asked for: it has to come first, and can't.
                Entry::Return(_) | Entry::Head => {
                    if self.order.len() >= self.longest.len() {
                        self.longest = self.order.iter().map(|(number, _)| *number).collect();
                    }
                    match self.give_back() {
                        Some(behind) => place = behind,
                        None => return Err(self.no_order(key)),
                    }
                }
            }
        }
        Err(Violation::Undecided { key, operations: self.calls.len() })
    }

    fn no_order(&self, key: Key) -> Violation {
        let text = |number: &usize| self.calls[*number].operation.to_string();
        let done: HashSet<usize> = self.longest.iter().copied().collect();
        let rest = || (0..self.calls.len()).filter(|number| !done.contains(number));
        let first_return = rest().filter_map(|number| self.calls[number].returned).min().unwrap_or(Nanos::MAX);
        let stuck = rest().filter(|number| self.calls[*number].called <= first_return);
        let order = self.longest.iter().rev().take(12).rev().map(text).collect();
        Violation::NoOrder { key, order, stuck: stuck.take(24).map(|number| text(&number)).collect() }
    }
}

/// The random number of an operation. Two sets of operations have the same sum with a chance of 2^-128.
fn mark(number: usize) -> u128 {
    let mix = |salt: u64| {
        let mut mixed = (number as u64 ^ salt).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (u128::from(mix(0x5bd1_e995_7b93_4c11)) << 64) | u128::from(mix(0xc2b2_ae3d_27d4_eb4f))
}

#[cfg(test)]
#[path = "linearizability_tests.rs"]
mod tests;
