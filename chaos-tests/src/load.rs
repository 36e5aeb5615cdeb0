//! Clients that write and read a few keys as fast as they can, watchers that follow, and the history of all of it.
//!
//! The seed decides what each client asks for, one after the other; when, and what comes between, is up to the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use k3sd_runtime::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::daemon::PATIENCE;
use crate::etcd::{Changes, Client, Encoding, Endpoint, Message};
use crate::history::{
    Action, Expected, History, Key, Operation, Origin, Outcome, Revision, Seen, Value, Version, Watch,
};

/// The pause of a client that finds nobody.
const ABSENT_PAUSE: Duration = Duration::from_millis(2);
/// Time between two compactions.
const COMPACT_PAUSE: Duration = Duration::from_millis(150);
/// How many changes a watcher takes that begins anew somewhere in the past, again and again.
const ROAM_EVENTS_MAX: u64 = 200;
/// How long it waits for the next one, and between two of its lives.
const ROAM_PAUSE: Duration = Duration::from_millis(100);

/// How hard to press, and on what.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Keys; few, so that clients meet on them.
    pub keys: Key,
    /// Clients, each with one question at a time.
    pub clients: usize,
    /// The longest pause of a client between two questions.
    pub pause_max: Duration,
    /// How values look.
    pub encoding: Encoding,
    /// How many revisions a compaction leaves; `None` is no compaction.
    pub compact_keep: Option<Revision>,
    /// See [`History::is_dense`].
    pub is_dense: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            keys: 5,
            clients: 8,
            pause_max: Duration::from_millis(2),
            encoding: Encoding { value_bytes: 20 },
            compact_keep: Some(400),
            is_dense: true,
        }
    }
}

/// What all its parts know.
#[derive(Clone, Debug)]
struct Shared {
    endpoint: Endpoint,
    options: LoadOptions,
    origin: Origin,
    values: Arc<AtomicU64>,
    counts: Arc<Counts>,
    stop: watch::Receiver<bool>,
    /// The last change of each key, once there is one.
    last: watch::Receiver<Option<BTreeMap<Key, Revision>>>,
}

/// How far it is.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    read: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    /// The newest revision that anybody was told of.
    revision: AtomicU64,
}

/// How far a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Acknowledged writes.
    pub written: u64,
    /// Answered reads, and writes whose condition did not hold.
    pub read: u64,
    /// Questions that were answered with an error that is final.
    pub refused: u64,
    /// Questions without an answer.
    pub unknown: u64,
}

/// A load that is running.
#[derive(Debug)]
pub struct Load {
    shared: Shared,
    stop: watch::Sender<bool>,
    last: watch::Sender<Option<BTreeMap<Key, Revision>>>,
    clients: JoinSet<Vec<Operation>>,
    roamer: JoinSet<Vec<Watch>>,
    watchers: JoinSet<Watch>,
    history: History,
}

impl Load {
    /// Begins. The keys may hold something already.
    ///
    /// # Panics
    /// When the store does not answer.
    pub async fn begin(endpoint: Endpoint, options: LoadOptions, first_value: u64, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (last, last_known) = watch::channel(None);
        let shared = Shared {
            endpoint,
            options,
            origin: Origin::default(),
            values: Arc::new(AtomicU64::new(first_value)),
            counts: Arc::default(),
            stop: stopped,
            last: last_known,
        };
        let (start_revision, start) = shared.list_patiently().await;
        shared.counts.saw(start_revision);
        let is_dense = shared.options.is_dense;
        let history = History { start, start_revision, is_dense, ..History::default() };
        let (mut clients, mut roamer, mut watchers) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        for number in 0..shared.options.clients {
            let rng = Rng::seeded(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            clients.spawn(shared.clone().ask(number, rng, history.start.clone()));
        }
        for (name, key) in [("all", None), ("all again", None), ("one key", Some(0))] {
            let watch = Watch { name: name.to_owned(), key, ..Watch::default() };
            watchers.spawn(shared.clone().follow(watch, start_revision + 1));
        }
        roamer.spawn(shared.clone().roam(Rng::seeded(seed), start_revision + 1));
        if let Some(keep) = shared.options.compact_keep {
            clients.spawn(shared.clone().compact(keep, start_revision));
        }
        Self { shared, stop, last, clients, roamer, watchers, history }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let counts = &self.shared.counts;
        Progress {
            written: counts.written.load(Relaxed),
            read: counts.read.load(Relaxed),
            refused: counts.refused.load(Relaxed),
            unknown: counts.unknown.load(Relaxed),
        }
    }

    /// A number that no value of it has: where the next load begins.
    #[must_use]
    pub fn next_value(&self) -> u64 {
        self.shared.values.load(Relaxed)
    }

    /// Waits until so many more writes were acknowledged.
    ///
    /// # Errors
    /// When that takes longer than [`PATIENCE`]: how far it is.
    pub async fn wait_for_writes(&self, more: u64) -> Result<(), Progress> {
        let target = self.progress().written + more;
        let waiting = async {
            while self.progress().written < target {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| self.progress())
    }

    /// Stops the clients, lets the watchers catch up, and hands over what happened. The store has to answer.
    ///
    /// # Panics
    /// When the store does not answer, a watcher does not catch up, or somebody was told what can't be.
    pub async fn end(mut self) -> History {
        self.stop.send_replace(true);
        for operations in self.clients.join_all().await {
            self.history.operations.extend(operations);
        }
        for watches in self.roamer.join_all().await {
            self.history.watches.extend(watches);
        }
        // A last change of each key, for which the watchers wait.
        let mut client = Client::new(self.shared.endpoint.clone(), self.shared.options.encoding);
        let mut last = BTreeMap::new();
        for key in 0..self.shared.options.keys {
            while !last.contains_key(&key) {
                let action = Action::Put { key, expected: Expected::Anything, value: self.shared.value() };
                let operation = self.shared.carry_out(&mut client, usize::MAX, action).await;
                let Some(operation) = operation else { continue };
                if let Outcome::Written { revision, .. } = operation.outcome {
                    last.insert(key, revision);
                }
                self.history.operations.push(operation);
            }
        }
        self.last.send_replace(Some(last));
        let watching = tokio::time::timeout(PATIENCE, self.watchers.join_all()).await;
        self.history.watches.extend(watching.expect("all watchers are told of the last change"));
        let (end_revision, end) = self.shared.list_patiently().await;
        (self.history.end_revision, self.history.end) = (end_revision, end);
        self.history
    }
}

impl Counts {
    fn saw(&self, revision: Revision) {
        self.revision.fetch_max(u64::try_from(revision).unwrap_or(0), Relaxed);
    }

    fn revision(&self) -> Revision {
        i64::try_from(self.revision.load(Relaxed)).unwrap_or(i64::MAX)
    }

    fn note(&self, operation: &Operation) {
        let count = match operation.outcome {
            Outcome::Written { .. } => &self.written,
            Outcome::Refused { .. } => &self.refused,
            Outcome::Unknown { .. } => &self.unknown,
            Outcome::Unchanged { .. } | Outcome::Read { .. } | Outcome::Listed { .. } => &self.read,
        };
        count.fetch_add(1, Relaxed);
        self.saw(operation.revision().unwrap_or(0));
    }
}

impl Shared {
    fn value(&self) -> Value {
        Value(self.values.fetch_add(1, Relaxed))
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    async fn list_patiently(&self) -> (Revision, BTreeMap<Key, Version>) {
        let mut client = Client::new(self.endpoint.clone(), self.options.encoding);
        let listing = async {
            loop {
                match client.list(None).await {
                    Ok(listed) => return listed,
                    Err(_) => tokio::time::sleep(ABSENT_PAUSE).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, listing).await.expect("the store answers")
    }

    /// Does something, with the times at which it began and ended.
    async fn carry_out(&self, client: &mut Client, number: usize, action: Action) -> Option<Operation> {
        let called = self.origin.now();
        let Some(outcome) = client.carry_out(&action).await else {
            tokio::time::sleep(ABSENT_PAUSE).await;
            return None;
        };
        let operation = Operation { client: number, action, called, returned: self.origin.now(), outcome };
        self.counts.note(&operation);
        Some(operation)
    }

    /// A client.
    async fn ask(self, number: usize, mut rng: Rng, mut keys: BTreeMap<Key, Version>) -> Vec<Operation> {
        let mut client = Client::new(self.endpoint.clone(), self.options.encoding);
        let mut operations = Vec::new();
        let pause_max = u64::try_from(self.options.pause_max.as_micros()).expect("it is short");
        while !self.is_stopped() {
            let action = self.choose(&mut rng, &keys);
            let Some(operation) = self.carry_out(&mut client, number, action).await else { continue };
            learn(&mut keys, &operation);
            let failed = matches!(operation.outcome, Outcome::Refused { .. } | Outcome::Unknown { .. });
            operations.push(operation);
            let pause = if failed { ABSENT_PAUSE } else { Duration::from_micros(rng.below(pause_max + 1)) };
            tokio::time::sleep(pause).await;
        }
        operations
    }

    /// What to ask for next. Conditions mostly name what the client knows last of the key, which others have often
    /// changed since.
    fn choose(&self, rng: &mut Rng, keys: &BTreeMap<Key, Version>) -> Action {
        let key = Key::try_from(rng.below(self.options.keys.into())).expect("it is below a key");
        let current = keys.get(&key).map(|version| version.revision);
        let expected = current.map_or(Expected::Absent, Expected::At);
        let past = |rng: &mut Rng| {
            let now = self.counts.revision();
            now - i64::try_from(rng.below(200)).expect("a small number").min(now - 1)
        };
        match rng.below(100) {
            0..20 => Action::Read { key, at: None },
            20..25 => Action::Read { key, at: Some(past(rng)) },
            25..29 => Action::List { at: None },
            29..31 => Action::List { at: Some(past(rng)) },
            31..36 => Action::Put { key, expected: Expected::Anything, value: self.value() },
            36..38 => Action::Delete { key, expected: Expected::Anything },
            38..45 => Action::Put { key, expected: Expected::Absent, value: self.value() },
            45..55 => Action::Delete { key, expected },
            _ => Action::Put { key, expected, value: self.value() },
        }
    }

    /// Follows changes from a revision on, over as many streams as it takes, until the end of the load.
    async fn follow(mut self, mut watch: Watch, from: Revision) -> Watch {
        let mut next = from;
        let mut last: Option<Revision> = None;
        while last.is_none_or(|last| next <= last) {
            watch.seen.push(Seen::Asked { from: next });
            let encoding = self.options.encoding;
            let Ok(mut changes) = Changes::follow(&self.endpoint, encoding, watch.key, next).await else {
                watch.seen.pop();
                tokio::time::sleep(ABSENT_PAUSE).await;
                continue;
            };
            while last.is_none_or(|last| next <= last) {
                let message = tokio::select! {
                    message = changes.next() => message,
                    Ok(_) = self.last.changed() => {
                        let known = self.last.borrow();
                        let mine = known.iter().flatten().filter(|(key, _)| watch.follows(**key));
                        last = mine.map(|(_, revision)| *revision).max();
                        continue;
                    }
                };
                match message {
                    Ok(message) => next = self.note(&mut watch, next, message).await,
                    Err(_) => break,
                }
            }
        }
        watch.to_the_end = true;
        watch
    }

    /// Takes a message in. Returns the first revision that the watcher does not know of then.
    async fn note(&self, watch: &mut Watch, next: Revision, message: Message) -> Revision {
        match message {
            Message::Events(events) => {
                let time = self.origin.now();
                watch.seen.extend(events.iter().map(|event| Seen::Event(*event, time)));
                events.last().map_or(next, |event| next.max(event.revision + 1))
            }
            Message::Progress(revision) => {
                watch.seen.push(Seen::Progress(revision));
                next.max(revision + 1)
            }
            Message::Compacted(compacted) => {
                let (to, _) = self.list_patiently().await;
                watch.seen.push(Seen::Skipped { compacted, to });
                watch.seen.push(Seen::Asked { from: to + 1 });
                to + 1
            }
        }
    }

    /// A watcher that begins anew somewhere in the past, again and again: what is read from the log has to be what was
    /// told when it happened.
    async fn roam(self, mut rng: Rng, first: Revision) -> Vec<Watch> {
        let mut watches = Vec::new();
        while !self.is_stopped() {
            let span = u64::try_from(self.counts.revision() + 2 - first).unwrap_or(1).min(1_000);
            let mut next = first.max(self.counts.revision() + 1 - i64::try_from(rng.below(span)).expect("it is small"));
            let mut left = 1 + rng.below(ROAM_EVENTS_MAX);
            let mut watch = Watch { name: format!("from {next}"), ..Watch::default() };
            watch.seen.push(Seen::Asked { from: next });
            if let Ok(mut changes) = Changes::follow(&self.endpoint, self.options.encoding, None, next).await {
                while left > 0
                    && let Ok(Ok(message)) = tokio::time::timeout(ROAM_PAUSE, changes.next()).await
                    && !matches!(message, Message::Compacted(_))
                {
                    next = self.note(&mut watch, next, message).await;
                    left -= 1;
                }
            }
            watches.push(watch);
            tokio::time::sleep(ROAM_PAUSE).await;
        }
        watches
    }

    /// Drops old history now and then.
    async fn compact(self, keep: Revision, start: Revision) -> Vec<Operation> {
        let mut client = Client::new(self.endpoint.clone(), self.options.encoding);
        while !self.is_stopped() {
            tokio::time::sleep(COMPACT_PAUSE).await;
            let target = self.counts.revision() - keep;
            if target > start {
                // Others may have been faster, or nobody may be there; the next time comes soon.
                client.compact(target).await.unwrap_or_default();
            }
        }
        Vec::new()
    }
}

/// What a client then knows of a key.
fn learn(keys: &mut BTreeMap<Key, Version>, operation: &Operation) {
    let (key, found) = match (&operation.action, &operation.outcome) {
        (Action::Put { key, value, .. }, Outcome::Written { revision, prev }) => {
            let created = prev.map_or(*revision, |prev| prev.created);
            (*key, Some(Version { created, revision: *revision, value: *value }))
        }
        (Action::Delete { key, .. }, Outcome::Written { .. }) => (*key, None),
        (Action::Put { key, .. } | Action::Delete { key, .. }, Outcome::Unchanged { found, .. })
        | (Action::Read { key, .. }, Outcome::Read { found, .. }) => (*key, *found),
        _ => return,
    };
    match found {
        Some(version) => drop(keys.insert(key, version)),
        None => drop(keys.remove(&key)),
    }
}
