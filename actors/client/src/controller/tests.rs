//! The loop over an informer whose changes the test makes up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use k3sd_runtime::{Clock, Spec, Strategy, System, Tree};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::{Controller, Failure, Loop, Turn};
use crate::api::Connect;
use crate::election::Leading;
use crate::informer::tests::{Script, line, list, map};
use crate::informer::{Informer, InformerArgs, ObjectKey, informer};

/// Reports each look, and does with it as the ConfigMap says.
struct Looker {
    maps: Informer<ConfigMap>,
    looks: mpsc::Sender<(String, u64)>,
    clock: Clock,
    /// What it last wrote, for keys that wait for it.
    written: u64,
    at_once: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
}

impl Controller for Looker {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.maps.snapshot().expect("a loop begins with a list");
        let Some(map) = shown.get(&key.namespace, &key.name) else { return Ok(()) };
        let seconds = self.clock.now().since(k3sd_runtime::Moment::START).as_secs();
        self.looks.try_send((key.name.clone(), seconds)).expect("the test listens");
        self.most.fetch_max(self.at_once.fetch_add(1, SeqCst) + 1, SeqCst);
        self.clock.sleep_until(self.clock.now() + Duration::from_millis(1)).await;
        self.at_once.fetch_sub(1, SeqCst);
        match map.data.as_ref().and_then(|data| data.get("color")).map_or("", String::as_str) {
            "panics" => panic!("poisoned"),
            "fails" => return Err(Failure::other("always")),
            "comes again" => turn.again(Duration::from_secs(60)),
            "writes" => {
                let mut written = (**map).clone();
                written.metadata.resource_version = Some(self.written.to_string());
                turn.wrote(&self.maps, &written);
            }
            _ => {}
        }
        Ok(())
    }
}

fn listed(version: u64, maps: &[(&str, &str)]) -> Value {
    let maps: Vec<Value> = maps.iter().map(|(name, color)| map(name, 1, color)).collect();
    list(version, &maps)
}

struct Bed {
    lists: watch::Sender<Value>,
    watches: mpsc::Receiver<mpsc::Sender<Bytes>>,
    events: Option<mpsc::Sender<Bytes>>,
    _place: watch::Sender<Option<mpsc::Sender<mpsc::Sender<Bytes>>>>,
    system: System,
    tree: Tree,
    looks: mpsc::Receiver<(String, u64)>,
    most: Arc<AtomicU32>,
    lead: watch::Sender<bool>,
}

impl Bed {
    /// With ConfigMaps of these names and colours.
    fn new(maps: &[(&str, &str)], leads: bool) -> Self {
        let (lists, list) = watch::channel(listed(5, maps));
        let (opened, watches) = mpsc::channel(4);
        let (_place, seen) = watch::channel(Some(opened));
        let args = InformerArgs::<ConfigMap>::all(Connect::over(Script { list, watches: seen }));
        let (child, informer) = informer("configmaps", args);
        let system = System::new(Clock::simulated(1));
        let (sender, looks) = mpsc::channel(1024);
        let (lead, leading) = Leading::when(leads);
        let most = Arc::new(AtomicU32::new(0));
        let looker = Looker {
            maps: informer.clone(),
            looks: sender,
            clock: system.clock().clone(),
            written: 100,
            at_once: Arc::default(),
            most: most.clone(),
        };
        let looker = Loop::new(looker, leading).workers(2).watch(&informer, |old, new, keys| {
            keys.extend(new.or(old).map(ObjectKey::of));
        });
        let spec = Spec::new(Strategy::OneForOne).child(child).child(looker.child("looker"));
        let tree = system.start(spec);
        Self { lists, watches, events: None, _place, system, tree, looks, most, lead }
    }

    /// A watch tells that a ConfigMap has another colour.
    async fn modify(&mut self, name: &str, version: u64, color: &str) {
        self.say(line("MODIFIED", &map(name, version, color))).await;
    }

    /// History is gone, and this is what there is.
    async fn relist(&mut self, maps: &[(&str, &str)]) {
        self.lists.send_replace(listed(200, maps));
        let expired = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": 410, "reason": "Expired", "message": "too old resource version"});
        self.say(line("ERROR", &expired)).await;
    }

    async fn say(&mut self, line: Bytes) {
        if self.events.is_none() {
            self.events = self.watches.recv().await;
        }
        self.events.as_ref().expect("a watch").send(line).await.expect("it is read");
    }

    async fn look(&mut self) -> (String, u64) {
        tokio::time::timeout(Duration::from_secs(3600), self.looks.recv())
            .await
            .expect("a look")
            .expect("the loop lives")
    }

    /// The names of the next looks, in order of the alphabet.
    async fn names<const N: usize>(&mut self) -> [String; N] {
        let mut names = Vec::new();
        for _ in 0..N {
            names.push(self.look().await.0);
        }
        names.sort();
        names.try_into().expect("so many")
    }

    /// Whether nobody looks for so long.
    async fn is_quiet(&mut self, span: Duration) -> bool {
        tokio::time::timeout(span, self.looks.recv()).await.is_err()
    }

    fn notes(&self) -> Vec<String> {
        k3sd_runtime::testkit::notes(&self.system, "looker")
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_is_looked_at_once_and_again_when_it_changes() {
    let mut bed = Bed::new(&[("a", "red"), ("b", "red"), ("c", "red")], true);
    assert_eq!(bed.names().await, ["a", "b", "c"]);
    assert_eq!(bed.most.load(SeqCst), 2, "two workers");
    bed.modify("b", 10, "blue").await;
    assert_eq!(bed.names().await, ["b"]);
    assert!(bed.is_quiet(Duration::from_secs(100)).await);
    bed.tree.stop();
}

#[tokio::test(start_paused = true)]
async fn nobody_looks_before_this_process_leads() {
    let mut bed = Bed::new(&[("a", "red")], false);
    assert!(bed.is_quiet(Duration::from_secs(100)).await);
    bed.lead.send_replace(true);
    assert_eq!(bed.names().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_object_is_in_quarantine_and_the_others_go_on() {
    for color in ["panics", "fails"] {
        let mut bed = Bed::new(&[("bad", color), ("good", "comes again")], true);
        let (mut bad, mut good) = (0, 0);
        let mut last = 0;
        while good < 5 {
            let (name, at) = bed.look().await;
            *if name == "bad" { &mut bad } else { &mut good } += 1;
            last = at;
        }
        assert!((240..=300).contains(&last), "looked again after each minute, not {last} s");
        assert!((8..20).contains(&bad), "waits grow: {bad} looks");
        let why = if color == "panics" { "quarantined a/bad: panicked: poisoned" } else { "quarantined a/bad: always" };
        assert_eq!(bed.notes(), [why]);
        bed.modify("bad", 20, "red").await;
        while bed.look().await.0 != "bad" {}
        let clock = bed.system.clock();
        clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
        assert_eq!(bed.notes(), Vec::<String>::new());
        bed.tree.stop();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_rests_until_the_copy_shows_what_was_written() {
    let mut bed = Bed::new(&[("a", "writes"), ("b", "red")], true);
    assert_eq!(bed.names().await, ["a", "b"]);
    bed.modify("a", 50, "writes").await;
    assert!(bed.is_quiet(Duration::from_secs(5)).await, "50 was written before 100, which isn't shown yet");
    bed.modify("b", 60, "blue").await;
    assert_eq!(bed.names().await, ["b"]);
    bed.modify("a", 100, "red").await;
    assert_eq!(bed.names().await, ["a"]);
    assert!(bed.is_quiet(Duration::from_secs(100)).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_does_not_rest_for_ever() {
    let mut bed = Bed::new(&[("a", "writes")], true);
    assert_eq!(bed.names().await, ["a"]);
    bed.modify("a", 50, "writes").await;
    let (_, at) = bed.look().await;
    assert!((30..33).contains(&at), "looked at {at} s");
}

#[tokio::test(start_paused = true)]
async fn a_killed_loop_looks_at_everything_again() {
    let mut bed = Bed::new(&[("a", "red"), ("b", "red")], true);
    assert_eq!(bed.names().await, ["a", "b"]);
    bed.system.signal("looker", k3sd_runtime::Signal::Kill);
    assert_eq!(bed.names().await, ["a", "b"]);
    // A list may hide what is gone; nothing is lost by looking at all that is there.
    bed.relist(&[("b", "red"), ("c", "red")]).await;
    assert_eq!(bed.names().await, ["b", "c"]);
}
