//! Clients of the API server that write, read, watch and connect until they are told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use http::Method;
use k3sd_runtime::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::{Answer, Client, NoAnswer, Server};
use super::record::{Failure, Mark, Record, Scope, State, Trouble, Version, Watch, Who, Write, list, object};
use super::watcher;
use crate::daemon::PATIENCE;
use crate::history::Origin;

/// Where the objects are that are written.
pub const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
/// Writers, each with objects of its own.
const WRITERS: usize = 3;
/// Objects of each.
const OBJECTS: u64 = 4;
/// The longest pause of a writer between two writes. A hundred watchers see each of them.
const PAUSE_MAX_MS: u64 = 60;
/// The pause of the others between two requests, and of anybody after a failure.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// How far the run is.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Everybody works.
    Load,
    /// Only watchers do; there may be more to come.
    Quiet,
    /// Only watchers do, until they have this.
    Settle(Arc<State>),
    /// Nobody does.
    Over,
}

/// What everybody knows.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) origin: Origin,
    pub(super) phase: watch::Receiver<Phase>,
    /// The newest revision that was acknowledged to anybody.
    pub(super) acknowledged: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    marks: Arc<AtomicU64>,
}

impl Shared {
    pub(super) fn is_load(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Load)
    }
}

/// What one client noted.
#[derive(Debug, Default)]
pub(super) struct Notes {
    writes: Vec<Write>,
    believed: State,
    pub(super) failures: Vec<Failure>,
    pub(super) findings: Vec<String>,
    pub(super) watch: Option<Watch>,
}

/// A load that is running.
#[derive(Debug)]
pub struct Load {
    shared: Shared,
    phase: watch::Sender<Phase>,
    clients: JoinSet<Notes>,
    watchers: JoinSet<Notes>,
}

impl Load {
    /// Begins, with so many watchers.
    #[must_use]
    pub fn begin(server: Server, watchers: usize, seed: u64) -> Self {
        let (sender, phase) = watch::channel(Phase::Load);
        let (acknowledged, writes, marks) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let shared = Shared { server, origin: Origin::default(), phase, acknowledged, writes, marks };
        let mut load = Self { shared, phase: sender, clients: JoinSet::new(), watchers: JoinSet::new() };
        for number in 0..WRITERS {
            let rng = Rng::seeded(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            load.clients.spawn(Writer::new(load.shared.clone(), number, rng).run());
        }
        load.clients.spawn(read(load.shared.clone(), Who::Reader));
        load.clients.spawn(read(load.shared.clone(), Who::Newcomer));
        for number in 0..watchers {
            let scope = match number % 4 {
                0 => Scope::All,
                1 => Scope::One(format!("default/chaos-{}-{}", number % WRITERS, number as u64 % OBJECTS)),
                _ => Scope::Namespace("default".to_owned()),
            };
            load.watchers.spawn(watcher::run(load.shared.clone(), scope, number % 2 == 0));
        }
        load
    }

    /// The time of all notes.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    /// Waits until so many more writes are acknowledged.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    pub async fn wait_for_writes(&self, more: u64, limit: Duration) {
        let wanted = self.shared.writes.load(SeqCst) + more;
        let written = async {
            while self.shared.writes.load(SeqCst) < wanted {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(limit, written).await.unwrap_or_else(|_| panic!("no write was acknowledged within {limit:?}"));
    }

    /// Stops the writers, waits until the watchers have seen what there is, and hands over all notes but the kills.
    ///
    /// # Panics
    /// When the server gives no list any more.
    pub async fn end(mut self, settle_within: Duration) -> Record {
        let mut record = Record::default();
        self.phase.send_replace(Phase::Quiet);
        while let Some(notes) = self.clients.join_next().await {
            take(&mut record, notes.expect("a client does not panic"));
        }
        let mut client = self.shared.server.client();
        let answer = timeout(PATIENCE, client.get("/api/v1/configmaps")).await.expect("in time").expect("an answer");
        record.end = list(&answer.body).unwrap_or_else(|| panic!("no list: {answer:?}")).1;
        self.phase.send_replace(Phase::Settle(Arc::new(record.end.clone())));
        let settle = async {
            while let Some(notes) = self.watchers.join_next().await {
                take(&mut record, notes.expect("a watcher does not panic"));
            }
        };
        if timeout(settle_within, settle).await.is_err() {
            record.findings.push(format!("{} watchers did not see the end", self.watchers.len()));
            self.phase.send_replace(Phase::Over);
            while let Some(notes) = self.watchers.join_next().await {
                take(&mut record, notes.expect("a watcher does not panic"));
            }
        }
        record
    }
}

fn take(record: &mut Record, notes: Notes) {
    record.writes.extend(notes.writes);
    record.believed.extend(notes.believed);
    record.failures.extend(notes.failures);
    record.findings.extend(notes.findings);
    record.watches.extend(notes.watch);
}

/// Reads from memory, on one connection or on a new one each time.
async fn read(shared: Shared, who: Who) -> Notes {
    let mut notes = Notes::default();
    let mut client = shared.server.client();
    let path = format!("{COLLECTION}?resourceVersion=0");
    while shared.is_load() {
        if who == Who::Newcomer {
            client = shared.server.client();
        }
        let called = shared.origin.now();
        let trouble = match client.get(&path).await {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(Trouble::Error(answer)),
            Err(why) => Some(Trouble::None(why)),
        };
        let returned = shared.origin.now();
        notes.failures.extend(trouble.map(|trouble| Failure {
            who,
            what: format!("GET {path}"),
            called,
            returned,
            trouble,
        }));
        sleep(PAUSE).await;
    }
    notes
}

/// Writes objects that nobody else writes, one request at a time, so that it knows what is there.
struct Writer {
    shared: Shared,
    client: Client,
    number: usize,
    rng: Rng,
    notes: Notes,
    /// Writes whose outcome nobody knows, by object. One may still be on its way when a read finds nothing of it; what
    /// shows that it came to nothing is a later write that was acknowledged, as each asks for the version before it.
    doubts: BTreeMap<String, Vec<Option<Mark>>>,
}

impl Writer {
    fn new(shared: Shared, number: usize, rng: Rng) -> Self {
        let client = shared.server.client();
        Self { shared, client, number, rng, notes: Notes::default(), doubts: BTreeMap::new() }
    }

    async fn run(mut self) -> Notes {
        while self.shared.is_load() {
            let name = format!("chaos-{}-{}", self.number, self.rng.below(OBJECTS));
            self.write(&name).await;
            sleep(Duration::from_millis(self.rng.below(PAUSE_MAX_MS))).await;
        }
        self.notes
    }

    /// Does something to an object, until it is known what became of it.
    async fn write(&mut self, name: &str) {
        let key = format!("default/{name}");
        let known = self.notes.believed.get(&key).copied();
        let is_deletion = known.is_some() && self.rng.below(4) == 0;
        let mark = (!is_deletion).then(|| self.shared.marks.fetch_add(1, SeqCst) + 1);
        let one = format!("{COLLECTION}/{name}");
        let (method, path, body) = match (known, mark) {
            (None, _) => (Method::POST, COLLECTION.to_owned(), map(name, mark, None)),
            (Some(known), Some(_)) => (Method::PUT, one, map(name, mark, Some(known))),
            (Some(known), None) => (Method::DELETE, one, preconditions(known)),
        };
        let called = self.shared.origin.now();
        let result = self.client.call(method.clone(), &path, Some(&body)).await;
        let answer = match result {
            Ok(answer) if matches!(answer.status, 200 | 201) => Some(answer),
            // One of those in doubt came first.
            Ok(answer) if answer.status == 409 && self.doubts.contains_key(&key) => {
                if !self.learn(&key, &path_of(name)).await {
                    self.notes.findings.push(format!("{key}: {} without a reason", answer.body));
                }
                return;
            }
            other => {
                self.failed(&method, &path, called, other);
                None
            }
        };
        let revision = answer.as_ref().and_then(|answer| object(&answer.body)).map(|(_, version)| version.revision);
        let is_acknowledged = answer.is_some();
        self.notes.writes.push(Write { name: key.clone(), mark, is_acknowledged, revision });
        if is_acknowledged {
            self.doubts.remove(&key);
        }
        match (is_acknowledged, mark, revision) {
            (false, ..) => {
                self.doubts.entry(key.clone()).or_default().push(mark);
                self.learn(&key, &path_of(name)).await;
                return;
            }
            (true, Some(mark), Some(revision)) => {
                let newest = self.shared.acknowledged.fetch_max(revision, SeqCst);
                if known.is_some_and(|known| known.revision >= revision) {
                    self.notes.findings.push(format!("{key}: {revision} was acknowledged after {known:?} ({newest})"));
                }
                self.notes.believed.insert(key, Version { revision, mark });
            }
            (true, Some(_), None) => self.notes.findings.push(format!("{key}: an answer without a revision")),
            (true, None, _) => drop(self.notes.believed.remove(&key)),
        }
        self.shared.writes.fetch_add(1, SeqCst);
    }

    fn failed(&mut self, method: &Method, path: &str, called: u64, result: Result<Answer, NoAnswer>) {
        let trouble = match result {
            Ok(answer) => Trouble::Error(answer),
            Err(why) => Trouble::None(why),
        };
        let what = format!("{method} {path}");
        self.notes.failures.push(Failure {
            who: Who::Writer,
            what,
            called,
            returned: self.shared.origin.now(),
            trouble,
        });
    }

    /// Reads until there is an answer, and believes it if it can be. Says whether it is news.
    async fn learn(&mut self, key: &str, path: &str) -> bool {
        loop {
            let called = self.shared.origin.now();
            match self.client.get(path).await {
                Ok(answer) if matches!(answer.status, 200 | 404) => {
                    let found = object(&answer.body).map(|(_, version)| version);
                    let before = self.notes.believed.get(key).copied();
                    let is_news = found != before;
                    let doubts = self.doubts.get(key).map(Vec::as_slice).unwrap_or_default();
                    if is_news && !doubts.contains(&found.map(|version| version.mark)) {
                        let what = format!("{key} is {found:?} after {before:?}, beside writes {doubts:?}");
                        self.notes.findings.push(what);
                    }
                    match found {
                        Some(version) => drop(self.notes.believed.insert(key.to_owned(), version)),
                        None => drop(self.notes.believed.remove(key)),
                    }
                    return is_news;
                }
                other => self.failed(&Method::GET, path, called, other),
            }
            sleep(PAUSE).await;
        }
    }
}

fn path_of(name: &str) -> String {
    format!("{COLLECTION}/{name}")
}

fn map(name: &str, mark: Option<Mark>, known: Option<Version>) -> Value {
    let mut metadata = json!({ "name": name, "namespace": "default" });
    if let Some(known) = known {
        metadata["resourceVersion"] = known.revision.to_string().into();
    }
    let mark = mark.unwrap_or_default().to_string();
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "mark": mark } })
}

fn preconditions(known: Version) -> Value {
    json!({ "apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": { "resourceVersion": known.revision.to_string() } })
}
