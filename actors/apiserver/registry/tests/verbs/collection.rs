//! Collections go many at a time, but not all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use k3sd_client::storage::memory::Memory;
use k3sd_client::storage::{
    BoxFuture, Change, Compacted, Feed, Got, List, Listed, Revision, Storage, StorageError, Write, Written,
};
use serde_json::json;

use crate::world::{MAPS, World, map};

/// Deletions that may be under way together.
const AT_ONCE: usize = 16;

#[derive(Debug, Default)]
struct Counts {
    under_way: AtomicUsize,
    /// The most that there ever were.
    most: AtomicUsize,
    begun: AtomicUsize,
}

/// A store that counts deletions, each of which takes a while.
#[derive(Debug)]
struct Counting {
    memory: Memory,
    counts: Arc<Counts>,
}

impl Storage for Counting {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, StorageError>> {
        if !matches!(write.change, Change::Delete) {
            return self.memory.write(write);
        }
        Box::pin(async move {
            let Counts { under_way, most, begun } = &*self.counts;
            begun.fetch_add(1, Relaxed);
            most.fetch_max(under_way.fetch_add(1, Relaxed) + 1, Relaxed);
            for _ in 0..AT_ONCE {
                tokio::task::yield_now().await;
            }
            under_way.fetch_sub(1, Relaxed);
            self.memory.write(write).await
        })
    }

    fn get(&self, key: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<Got, StorageError>> {
        self.memory.get(key, at)
    }

    fn list(&self, list: List) -> BoxFuture<'_, Result<Listed, StorageError>> {
        self.memory.list(list)
    }

    fn count(&self, prefix: Bytes, at: Option<Revision>) -> BoxFuture<'_, Result<u64, StorageError>> {
        self.memory.count(prefix, at)
    }

    fn watch(&self, prefix: Bytes, from: Option<Revision>) -> BoxFuture<'_, Result<Box<dyn Feed>, StorageError>> {
        self.memory.watch(prefix, from)
    }

    fn progress(&self) -> BoxFuture<'_, Result<Revision, StorageError>> {
        self.memory.progress()
    }

    fn latest(&self) -> Option<Revision> {
        self.memory.latest()
    }

    fn compact(&self, target: Revision) -> BoxFuture<'_, Result<Compacted, StorageError>> {
        self.memory.compact(target)
    }

    fn is_open(&self) -> bool {
        self.memory.is_open()
    }
}

/// A world with so many ConfigMaps.
async fn crowded(count: usize) -> (World, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let shared = counts.clone();
    let world = World::over(|memory| Arc::new(Counting { memory, counts: shared }), |resource| resource.served).await;
    for number in 0..count {
        world.make(MAPS, &map(&format!("m{number:03}"), json!({}))).await;
    }
    (world, counts)
}

#[tokio::test(start_paused = true)]
async fn many_go_together_and_never_more_than_the_bound() {
    let (world, counts) = crowded(100).await;
    let gone = world.delete(MAPS).await;
    assert_eq!((gone.code, gone.value["items"].as_array().map(Vec::len)), (200, Some(100)));
    assert_eq!((counts.begun.load(Relaxed), counts.most.load(Relaxed)), (100, AT_ONCE));
    assert_eq!(world.get(MAPS).await.value["items"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn when_one_can_not_go_those_under_way_end_and_no_others_begin() {
    let (world, counts) = crowded(100).await;
    // Objects that have to be marked need a write for which there is no space.
    let kept = json!({ "metadata": { "finalizers": ["a.b/c"] } });
    assert_eq!(world.patch(&format!("{MAPS}/m004"), "merge", &kept).await.code, 200);
    world.memory.set_full(true);
    let refused = world.delete(MAPS).await;
    assert_eq!(refused.code, 500, "{}", refused.value);
    let begun = counts.begun.load(Relaxed);
    assert!((1..=AT_ONCE).contains(&begun), "{begun} began");
    assert_eq!(counts.under_way.load(Relaxed), 0, "nobody was left in the middle");
    let left = world.get(MAPS).await.value["items"].as_array().map(Vec::len);
    assert_eq!(left, Some(100 - begun), "and all that began are gone");
}
