//! The store's log as its watchers saw it, and everything that has to agree with it: that the watchers agree with each
//! other and missed nothing, that each acknowledged write is in it once and at its revision, that nothing is in it which
//! nobody wrote, that revisions grow with time, and that each read saw the store as it was at one revision.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::history::{Action, Event, Expected, History, Key, Nanos, Operation, Outcome, Revision, Value, Version};
use crate::streams;

/// Everything in a history that contradicts its log; a line each.
#[must_use]
pub fn check(history: &History) -> Vec<String> {
    let mut findings = Vec::new();
    let log = Log::new(history, &mut findings);
    log.check_chain(history, &mut findings);
    streams::check(history, &log.events, &mut findings);
    let news = News::of(history);
    let written = log.attribute(history, &news, &mut findings);
    log.check_time(history, &news, &written, &mut findings);
    for operation in &history.operations {
        log.check_answer(operation, &mut findings);
    }
    findings
}

/// The operation that each revision comes from.
type Written<'h> = BTreeMap<Revision, &'h Operation>;

/// Somebody learnt that the store had reached a revision.
#[derive(Clone, Copy)]
struct Item<'h> {
    time: Nanos,
    revision: Revision,
    source: Source<'h>,
}

/// How it was learnt.
#[derive(Clone, Copy)]
enum Source<'h> {
    Answer(&'h Operation),
    Watch(&'h str, &'h Event),
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(operation) => operation.fmt(f),
            Self::Watch(name, event) => write!(f, "watch {name} saw {event:?}"),
        }
    }
}

/// Who learnt what first.
struct News<'h> {
    /// How far the store was known to be, by the time at which that was known.
    known: BTreeMap<Nanos, Item<'h>>,
    /// Who knew of a revision first.
    first: BTreeMap<Revision, Item<'h>>,
}

impl<'h> News<'h> {
    /// All news of a history.
    fn of(history: &'h History) -> Self {
        let mut items = Vec::new();
        for operation in &history.operations {
            let (time, source) = (operation.returned, Source::Answer(operation));
            items.extend(operation.revision().map(|revision| Item { time, revision, source }));
        }
        for watch in &history.watches {
            items.extend(streams::events(watch).map(|(event, time)| {
                let source = Source::Watch(&watch.name, event);
                Item { time, revision: event.revision, source }
            }));
        }
        items.sort_by_key(|item| item.time);
        let mut news = Self { known: BTreeMap::new(), first: BTreeMap::new() };
        let mut most = history.start_revision;
        for item in items {
            if item.revision > most {
                most = item.revision;
                news.known.insert(item.time, item);
            }
            news.first.entry(item.revision).or_insert(item);
        }
        news
    }

    /// What was known at most before a moment.
    fn before(&self, time: Nanos) -> Option<&Item<'h>> {
        self.known.range(..time).next_back().map(|(_, item)| item)
    }

    /// Whether something that was called for then may have happened at a revision.
    fn allows(&self, called: Nanos, revision: Revision) -> bool {
        let late = self.before(called).is_some_and(|item| item.revision >= revision);
        let early = self.first.get(&revision).is_some_and(|item| item.time < called);
        !late && !early
    }
}

/// What happened, by revision.
struct Log {
    events: BTreeMap<Revision, Event>,
    /// What each key held from when on.
    keys: HashMap<Key, BTreeMap<Revision, Option<Version>>>,
    start: Revision,
    end: Revision,
}

impl Log {
    /// Puts together what all watchers saw.
    fn new(history: &History, findings: &mut Vec<String>) -> Self {
        let mut events: BTreeMap<Revision, Event> = BTreeMap::new();
        for watch in &history.watches {
            for (event, _) in streams::events(watch) {
                let known = events.entry(event.revision).or_insert(*event);
                if known != event {
                    findings.push(format!("{} saw {event:?}, where another saw {known:?}", watch.name));
                }
            }
        }
        let mut keys: HashMap<Key, BTreeMap<Revision, Option<Version>>> = HashMap::new();
        for (key, version) in &history.start {
            keys.entry(*key).or_default().insert(history.start_revision, Some(*version));
        }
        for event in events.values().filter(|event| event.revision > history.start_revision) {
            keys.entry(event.key).or_default().insert(event.revision, event.now);
        }
        Self { events, keys, start: history.start_revision, end: history.end_revision }
    }

    fn at(&self, key: Key, revision: Revision) -> Option<Version> {
        self.keys.get(&key)?.range(..=revision).next_back().and_then(|(_, version)| *version)
    }

    /// The events of the history itself.
    fn own(&self) -> impl Iterator<Item = &Event> {
        self.events.range(self.start + 1..).map(|(_, event)| event)
    }

    /// That each event says what was there before, that none is missing as far as that can be seen, and that they lead to
    /// what is there in the end.
    fn check_chain(&self, history: &History, findings: &mut Vec<String>) {
        for event in self.own() {
            let Event { revision, key, now, prev } = event;
            let before = self.at(*key, revision - 1);
            if *prev != before {
                findings.push(format!("before {event:?} the log has {before:?}"));
            }
            if let Some(now) = now {
                let created = prev.map_or(*revision, |prev| prev.created);
                if now.revision != *revision || now.created != created {
                    findings.push(format!("{event:?} has other revisions in it"));
                }
            } else if prev.is_none() {
                findings.push(format!("{event:?} deletes nothing"));
            }
        }
        let end: BTreeMap<Key, Version> =
            self.keys.keys().filter_map(|key| Some((*key, self.at(*key, Revision::MAX)?))).collect();
        if end != history.end {
            findings.push(format!("the log ends with {end:?}, the store with {:?}", history.end));
        }
        let last = self.events.keys().next_back().copied().unwrap_or(self.start);
        if last > self.end {
            findings.push(format!("the store ends at revision {}, its log at {last}", self.end));
        }
        if history.is_dense {
            let absent = (self.start + 1..=self.end).find(|revision| !self.events.contains_key(revision));
            findings.extend(absent.map(|revision| format!("nobody was told of revision {revision}")));
        }
    }

    /// Finds for each event the operation that did it. Returns the operation of each revision.
    fn attribute<'h>(&self, history: &'h History, news: &News<'_>, findings: &mut Vec<String>) -> Written<'h> {
        let mut written = BTreeMap::new();
        let mut puts: HashMap<Value, &Operation> = HashMap::new();
        let mut acknowledged: BTreeMap<Revision, &Operation> = BTreeMap::new();
        let mut vague: Vec<&Operation> = Vec::new();
        for operation in history.operations.iter().filter(|operation| operation.action.is_write()) {
            if let Action::Put { value, .. } = operation.action {
                puts.insert(value, operation);
            }
            match &operation.outcome {
                Outcome::Written { revision, .. } => {
                    if let Some(other) = acknowledged.insert(*revision, operation) {
                        findings.push(format!("revision {revision} was given twice:\n  {other}\n  {operation}"));
                    }
                }
                Outcome::Unknown { .. } if matches!(operation.action, Action::Delete { .. }) => vague.push(operation),
                _ => {}
            }
        }
        vague.sort_by_key(|operation| operation.called);
        let mut seen: HashMap<Value, Revision> = HashMap::new();
        for event in self.own() {
            let author = match (acknowledged.get(&event.revision), event.now) {
                (Some(operation), _) => Some(*operation),
                (None, Some(now)) => puts.get(&now.value).copied(),
                (None, None) => take_delete(&mut vague, event, news),
            };
            let Some(author) = author else {
                findings.push(format!("nobody asked for {event:?}"));
                continue;
            };
            written.insert(event.revision, author);
            if let Some(now) = event.now
                && let Some(before) = seen.insert(now.value, event.revision)
            {
                findings.push(format!("{:?} was written at {before} and again at {}", now.value, event.revision));
            }
            findings.extend(contradiction(author, event).map(|why| format!("{event:?}: {why}: {author}")));
        }
        for (revision, operation) in acknowledged {
            if revision > self.start && !self.events.contains_key(&revision) {
                findings.push(format!("acknowledged, and no watcher was told: {operation}"));
            }
        }
        written
    }

    /// That what began after an answer has seen at least what that answer had seen, and that no answer knows of what
    /// nobody had asked for yet.
    fn check_time(&self, history: &History, news: &News<'_>, written: &Written<'_>, findings: &mut Vec<String>) {
        let late = |called: Nanos, revision: Revision, is_write: bool| {
            let item = news.before(called)?;
            let wrong = item.revision > revision || (is_write && item.revision == revision);
            wrong.then(|| format!("revision {revision} came after {} was known: {}", item.revision, item.source))
        };
        for operation in &history.operations {
            let Some(revision) = operation.revision() else { continue };
            let is_write = matches!(operation.outcome, Outcome::Written { .. });
            findings.extend(late(operation.called, revision, is_write).map(|why| format!("{why}\n  {operation}")));
        }
        for (revision, author) in written.iter().filter(|(_, author)| author.revision().is_none()) {
            findings.extend(late(author.called, *revision, true).map(|why| format!("{why}\n  {author}")));
        }
        // The other way round. A revision that is no event of ours is nobody's news.
        for (revision, author) in written {
            let Some(item) = news.first.get(revision).filter(|item| item.time < author.called) else { continue };
            findings.push(format!("revision {revision} was told before it was asked for: {}\n  {author}", item.source));
        }
    }

    /// That an answer fits the log at the revision it was given at.
    fn check_answer(&self, operation: &Operation, findings: &mut Vec<String>) {
        let mut compare = |key: Key, revision: Revision, found: Option<Version>| {
            let there = self.at(key, revision);
            if revision >= self.start && there != found {
                findings.push(format!("key {key} was {there:?} at revision {revision}: {operation}"));
            }
        };
        match (&operation.action, &operation.outcome) {
            (Action::Put { key, .. } | Action::Delete { key, .. }, Outcome::Unchanged { at, found }) => {
                compare(*key, *at, *found);
            }
            (Action::Put { key, .. } | Action::Delete { key, .. }, Outcome::Written { revision, prev }) => {
                compare(*key, revision - 1, *prev);
            }
            (Action::Read { key, at: asked }, Outcome::Read { at, found }) => {
                compare(*key, asked.unwrap_or(*at), *found);
            }
            (Action::List { at: asked }, Outcome::Listed { at, found }) => {
                for key in self.keys.keys().chain(found.keys()) {
                    compare(*key, asked.unwrap_or(*at), found.get(key).copied());
                }
            }
            _ => {}
        }
    }
}

/// The delete without an answer that an event may come from. One with the right condition fits no other event.
fn take_delete<'h>(vague: &mut Vec<&'h Operation>, event: &Event, news: &News<'_>) -> Option<&'h Operation> {
    let fits = |wanted: Expected| {
        move |operation: &&Operation| {
            matches!(operation.action, Action::Delete { key, expected } if key == event.key && expected == wanted)
                && news.allows(operation.called, event.revision)
        }
    };
    let exact = event.prev.map_or(Expected::Absent, |prev| Expected::At(prev.revision));
    let found = vague.iter().position(fits(exact)).or_else(|| vague.iter().position(fits(Expected::Anything)));
    found.map(|place| vague.remove(place))
}

/// Why an event can't come from an operation.
fn contradiction(author: &Operation, event: &Event) -> Option<&'static str> {
    let (key, expected, value) = match author.action {
        Action::Put { key, expected, value } => (key, expected, Some(value)),
        Action::Delete { key, expected } => (key, expected, None),
        Action::Read { .. } | Action::List { .. } => return Some("a read wrote"),
    };
    if key != event.key || value != event.now.map(|now| now.value) {
        return Some("its author asked for something else");
    }
    if !expected.allows(event.prev.as_ref()) {
        return Some("its condition did not hold");
    }
    match &author.outcome {
        Outcome::Written { revision, .. } if *revision != event.revision => Some("it was told of another revision"),
        Outcome::Unchanged { .. } | Outcome::Refused { .. } => Some("it was told that nothing was changed"),
        _ => None,
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
