//! The invariants, written against what a client can see.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k3sd_runtime::Strategy;
use k3sd_runtime::inspect::Client;
use k3sd_runtime::inspect::wire::{Actor, Event};

use crate::daemon::PATIENCE;

/// What stays the same about an actor over all its lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    kind: String,
    strategy: Option<String>,
    restart: Option<String>,
}

/// The shape of a tree: every place in it. Connections come and go with whoever asks, so they don't belong to it.
pub type Shape = BTreeMap<String, Place>;

fn visit<'a>(actor: &'a Actor, see: &mut impl FnMut(&'a Actor)) {
    see(actor);
    for child in &actor.children {
        if !actor.path.ends_with("/connections") {
            visit(child, see);
        }
    }
}

/// The shape of the tree under `root`.
#[must_use]
pub fn shape(root: &Actor) -> Shape {
    let mut shape = Shape::new();
    visit(root, &mut |actor| {
        let place = Place {
            kind: actor.kind.to_string(),
            strategy: actor.strategy.as_deref().map(str::to_owned),
            restart: actor.restart.as_deref().map(str::to_owned),
        };
        let before = shape.insert(actor.path.clone(), place);
        assert!(before.is_none(), "two actors at {}", actor.path);
    });
    shape
}

/// The places that are always there: none below a dynamic supervisor, whose children go by numbers or by what they are about.
#[must_use]
pub fn fixed(shape: &Shape) -> Shape {
    let kept = shape.iter().filter(|(path, _)| !is_dynamic(shape, path));
    kept.map(|(path, place)| (path.clone(), place.clone())).collect()
}

/// What differs between two shapes, for people. A dynamic supervisor may have got more children since.
#[must_use]
pub fn difference(wanted: &Shape, found: &Shape) -> Vec<String> {
    let missing =
        wanted.iter().filter(|(path, _)| !found.contains_key(*path)).map(|(path, _)| format!("{path} is missing"));
    let other = found.iter().filter(|(path, place)| match wanted.get(*path) {
        Some(wanted) => wanted != *place,
        None => !is_dynamic(wanted, path),
    });
    missing.chain(other.map(|(path, place)| format!("{path} is {place:?}"))).collect()
}

/// Whether this belongs to what a dynamic supervisor of that shape started, or to something below.
fn is_dynamic(shape: &Shape, path: &str) -> bool {
    let mut above = path;
    while let Some((parent, _)) = above.rsplit_once('/') {
        if shape.get(parent).is_some_and(|place| place.strategy.as_deref() == Some(Strategy::Dynamic.word())) {
            return true;
        }
        above = parent;
    }
    false
}

/// How many of the tree exist, connections to the inspector included.
#[must_use]
pub fn count(root: &Actor) -> usize {
    1 + root.children.iter().map(count).sum::<usize>()
}

/// Those of the tree that are not running.
#[must_use]
pub fn not_running(root: &Actor) -> Vec<String> {
    let mut found = Vec::new();
    visit(root, &mut |actor| {
        if actor.state != "running" {
            found.push(format!("{} is {}", actor.path, actor.state));
        }
    });
    found
}

/// Waits until a tree has its shape again and all of it runs. Returns how long that took.
///
/// # Panics
/// When it takes longer than [`PATIENCE`].
pub async fn healed(client: &Client, wanted: &Shape) -> Duration {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < PATIENCE {
        match client.tree().await {
            Ok(tree) => {
                let mut wrong = not_running(&tree.root);
                wrong.extend(difference(wanted, &shape(&tree.root)));
                if wrong.is_empty() {
                    return began.elapsed();
                }
                last = wrong.join(", ");
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not healed after {PATIENCE:?}: {last}");
}

/// Follows the event stream: numbers without a gap, and per path never two lives at once.
#[derive(Debug, Default)]
pub struct History {
    last: Option<u64>,
    life: BTreeMap<String, u64>,
    /// Deaths that nobody above had asked for.
    pub died: u64,
    /// Starts.
    pub started: u64,
    /// Supervisors that gave up.
    pub escalated: u64,
}

impl History {
    /// Takes the next event in.
    ///
    /// # Panics
    /// When it contradicts those before.
    pub fn take(&mut self, event: &Event) {
        assert_ne!(event.event, "missed", "the stream lost {:?} events", event.count);
        let (Some(sequence), Some(path)) = (event.sequence, &event.path) else { return };
        if let Some(last) = self.last {
            assert_eq!(sequence, last + 1, "a gap in the stream before {event:?}");
        }
        self.last = Some(sequence);
        let incarnation = event.incarnation.unwrap_or_default();
        if matches!(&*event.event, "died" | "stopped" | "removed") {
            // Its children went with it; the lives of those that its successor starts may be counted anew.
            let below = format!("{path}/");
            self.life.retain(|known, _| !known.starts_with(&below));
        }
        match &*event.event {
            "started" => {
                self.started += 1;
                let before = self.life.insert(path.clone(), incarnation);
                assert!(
                    before.is_none_or(|life| life < incarnation),
                    "{path} started life {incarnation} after {before:?}"
                );
            }
            "died" => self.died += 1,
            "escalated" => self.escalated += 1,
            _ => {}
        }
    }
}
