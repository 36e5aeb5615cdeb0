//! Whatever dies and however slowly somebody reads: a client that follows the protocol has exactly the history.
//!
//! A seed decides what is written, who is killed, when feeds break and history is compacted, and how the clients read.
//! Beside it stands a plain model of what was written. Safety is checked at each event, liveness when the faults are over.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use k3sd_apiserver_store::{ListQuery, ObjectStore, ReadAt, Watch, WatchKind, WatchQuery};
use k3sd_client::storage::{Revision, Storage};
use k3sd_runtime::{Clock, Moment, Rng};

use crate::world::{World, labels, pod, since, update};

/// Runs of the test; each is a world of its own.
const SEEDS: u64 = 20;

const STEPS: usize = 120;

/// What the labels of a pod may say; clients select by it.
const APPS: &[&str] = &["x", "y"];

/// One change, as a client without selectors sees it.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    revision: u64,
    name: String,
    /// The label before and after; `None` is no object.
    before: Option<&'static str>,
    after: Option<&'static str>,
}

/// What was written.
#[derive(Default)]
struct Model {
    changes: Vec<Change>,
    /// Label and revision of what is there.
    now: BTreeMap<String, (&'static str, u64)>,
}

impl Model {
    fn record(&mut self, revision: u64, name: &str, after: Option<&'static str>) {
        let before = self.now.get(name).map(|(app, _)| *app);
        match after {
            Some(app) => self.now.insert(name.to_owned(), (app, revision)),
            None => self.now.remove(name),
        };
        self.changes.push(Change { revision, name: name.to_owned(), before, after });
    }

    /// What a client that selects `app` is told from a revision on.
    fn told(&self, app: Option<&str>, after: u64) -> VecDeque<(u64, &'static str, String)> {
        let wants = |label: Option<&'static str>| label.is_some_and(|label| app.is_none_or(|app| app == label));
        let changes = self.changes.iter().filter(|change| change.revision > after);
        let told = changes.filter_map(|change| {
            let word = match (wants(change.before), wants(change.after)) {
                (false, true) => "added",
                (true, true) => "modified",
                (true, false) => "deleted",
                (false, false) => return None,
            };
            Some((change.revision, word, change.name.clone()))
        });
        told.collect()
    }
}

/// A reflector: lists, watches from there, lists again when it is told to.
struct Client {
    app: Option<&'static str>,
    watch: Option<Watch>,
    objects: BTreeMap<String, u64>,
    /// It has everything up to here.
    seen: u64,
    relists: usize,
}

impl Client {
    fn new(app: Option<&'static str>) -> Self {
        Self { app, watch: None, objects: BTreeMap::new(), seen: 0, relists: 0 }
    }

    fn selector(&self) -> k3sd_objects::selector::LabelSelector {
        self.app.map_or_else(Default::default, |app| labels(&format!("app={app}")))
    }

    /// Lists and begins a watch, or goes on with one; nothing happens if the server can't now.
    async fn connect(&mut self, pods: &ObjectStore, model: &Model, resume: bool) {
        if !resume || self.seen == 0 {
            let query = ListQuery { labels: self.selector(), ..ListQuery::default() };
            let Ok(page) = pods.list(&query).await else { return };
            self.objects = page.objects.iter().map(|pod| (pod.name().to_owned(), pod.resource_version())).collect();
            self.seen = page.revision.get();
            self.relists += 1;
            let wants = |app: &&str| self.app.is_none_or(|wanted| wanted == *app);
            let there = model.now.iter().filter(|(_, (app, _))| wants(app));
            let wanted: BTreeMap<String, u64> = there.map(|(name, (_, at))| (name.clone(), *at)).collect();
            assert_eq!(self.objects, wanted, "a list has what was acknowledged before it, and nothing else");
        }
        let query = WatchQuery { labels: self.selector(), bookmarks: true, ..since(Revision::new(self.seen)) };
        match pods.watch(&query).await {
            Ok(watch) => self.watch = Some(watch),
            Err(status) => {
                assert!([410, 429, 503, 504].contains(&status.code), "{status:?}");
                if status.code == 410 {
                    self.seen = 0;
                }
            }
        }
    }

    /// Reads what there is, at most so many events, and compares each with the model.
    async fn read(&mut self, model: &Model, most: usize) {
        let mut wanted = model.told(self.app, self.seen);
        for _ in 0..most {
            let Some(watch) = &mut self.watch else { return };
            let Ok(item) = tokio::time::timeout(Duration::from_millis(1), watch.next()).await else { return };
            let Some(item) = item else {
                self.watch = None;
                return;
            };
            let revision = item.object.resource_version();
            let word = match &item.kind {
                WatchKind::Added => "added",
                WatchKind::Modified => "modified",
                WatchKind::Deleted => "deleted",
                WatchKind::Bookmark { .. } => {
                    let missing = wanted.front().filter(|(at, ..)| *at <= revision);
                    assert_eq!(missing, None, "a bookmark at {revision} is behind everything that was sent");
                    self.seen = self.seen.max(revision);
                    continue;
                }
                WatchKind::Error(status) => {
                    assert_eq!(status.code, 410);
                    (self.watch, self.seen) = (None, 0);
                    return;
                }
            };
            let name = item.object.name().to_owned();
            assert_eq!(Some((revision, word, name.clone())), wanted.pop_front(), "nothing missing, nothing twice");
            self.seen = revision;
            if word == "deleted" {
                self.objects.remove(&name)
            } else {
                self.objects.insert(name, revision)
            };
        }
    }
}

/// Creates, changes or deletes one of a few pods.
async fn write(pods: &ObjectStore, model: &mut Model, rng: &mut Rng, mark: u64) {
    let name = format!("p{}", rng.below(12));
    let app = APPS[usize::try_from(rng.below(2)).unwrap_or_default()];
    match pods.get("a", &name, ReadAt::Latest).await.expect("the store is open") {
        None => {
            let made = pods.create("a", &name, pod("a", &name, app, mark), None).await.expect("nobody else writes");
            model.record(made.resource_version(), &name, Some(app));
        }
        Some(old) if rng.below(3) == 0 => {
            let gone = pods.delete(&old).await.expect("nobody else writes");
            model.record(gone.resource_version(), &name, None);
        }
        Some(old) => {
            let new = update(pods, &old, app, mark).await.expect("nobody else writes");
            model.record(new.resource_version(), &name, Some(app));
        }
    }
}

/// The supervisors bear twenty deaths in a minute; so often a part may die here.
const KILL_INTERVAL: Duration = Duration::from_secs(4);

async fn fault(world: &World, rng: &mut Rng, killed: &mut Moment) {
    let now = world.clock.now();
    let choice = rng.below(8);
    if choice < 5 && std::mem::replace(killed, now) + KILL_INTERVAL > now {
        return;
    }
    match choice {
        0 | 1 => {
            world.try_kill("resources/pods");
        }
        2 | 3 => {
            world.try_kill("log");
        }
        4 => {
            world.try_kill("keeper");
        }
        5 => world.memory.cut_feeds(),
        6 => {
            let latest = world.memory.progress().await.expect("the store is open");
            world.memory.compact(Revision::new(latest.get() - rng.below(20).min(latest.get()))).await.ok();
        }
        _ => world.memory.set_tells_latest(rng.below(2) == 0),
    }
}

async fn run(seed: u64) -> usize {
    let world = World::new().await;
    let pods = world.pods();
    let mut rng = Clock::simulated(seed).rng("history");
    let (mut model, mut killed) = (Model::default(), Moment::START);
    let mut clients = [Client::new(None), Client::new(Some("x")), Client::new(Some("y"))];
    // Which of the faults this run has at all, and how slowly its clients read.
    let faults = rng.below(4);
    let most = usize::try_from(rng.below(2000)).unwrap_or_default();
    for step in 0..STEPS {
        let burst = if rng.below(20) == 0 { 1500 } else { rng.below(6) };
        for number in 0..burst {
            write(&pods, &mut model, &mut rng, step as u64 * 10_000 + number).await;
        }
        if rng.below(4) < faults {
            fault(&world, &mut rng, &mut killed).await;
        }
        for client in &mut clients {
            if client.watch.is_none() {
                let resume = rng.below(2) == 0;
                client.connect(&pods, &model, resume).await;
            } else if rng.below(16) == 0 {
                client.watch = None;
            }
            client.read(&model, if rng.below(3) == 0 { most } else { 3 }).await;
        }
        if rng.below(3) == 0 {
            world.pass(Duration::from_secs(rng.below(30))).await;
        }
    }
    for client in &mut clients {
        for _ in 0..10 {
            world.pass(Duration::from_secs(30)).await;
            if client.watch.is_none() {
                client.connect(&pods, &model, true).await;
            }
            client.read(&model, usize::MAX).await;
        }
        let wants = |app: &str| client.app.is_none_or(|wanted| wanted == app);
        let there = model.now.iter().filter(|(_, (app, _))| wants(app));
        let wanted: BTreeMap<String, u64> = there.map(|(name, (_, at))| (name.clone(), *at)).collect();
        assert_eq!(client.objects, wanted, "in the end each client has what is there");
        assert!(model.told(client.app, client.seen).is_empty());
    }
    clients.iter().map(|client| client.relists).sum()
}

#[test]
fn a_client_that_follows_the_protocol_has_exactly_the_history() {
    let mut relists = 0;
    for seed in 1..=SEEDS {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(seed))));
        relists += ran.unwrap_or_else(|_| panic!("with seed {seed}"));
    }
    assert!(relists as u64 > 3 * SEEDS, "somebody had to list again");
}
