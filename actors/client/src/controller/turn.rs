//! One look at a key: the time, and what is to be remembered of it.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_runtime::{Clock, Moment, Rng};

use crate::informer::{Informer, Kind, ObjectKey, version_number};

/// Says whether a copy shows by now what was written.
pub(super) type Seen = Box<dyn Fn() -> bool + Send + Sync>;

/// See the module's page.
pub struct Turn {
    clock: Clock,
    rng: Rng,
    pub(super) again: Option<Duration>,
    pub(super) awaited: Vec<Seen>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("again", &self.again).field("awaited", &self.awaited.len()).finish_non_exhaustive()
    }
}

impl Turn {
    /// A turn, to try a controller without its loop.
    pub fn new(clock: Clock, rng: Rng) -> Self {
        Self { clock, rng, again: None, awaited: Vec::new() }
    }

    /// The wall-clock time, to the nanosecond.
    pub fn now(&self) -> Timestamp {
        let wall = self.clock.wall();
        Timestamp::new(i64::try_from(wall.as_secs()).unwrap_or(i64::MAX), 0)
            .and_then(|seconds| seconds.checked_add(jiff::SignedDuration::from_nanos(i64::from(wall.subsec_nanos()))))
            .unwrap_or(Timestamp::MAX)
    }

    /// The monotonic time.
    pub fn moment(&self) -> Moment {
        self.clock.now()
    }

    /// Random numbers, for names and jitter.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Look again after a while even if nothing happens; of several whiles the shortest counts.
    pub fn again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |sooner| sooner.min(after)));
    }

    /// Look again at a moment of the wall clock.
    pub fn again_at(&mut self, due: Timestamp) {
        let wait = due.duration_since(self.now());
        self.again(Duration::try_from(wait).unwrap_or_default());
    }

    /// The object was written, and is what the API answered. The key rests until the informer shows that, or something
    /// newer. The informer has to see all objects of the kind.
    pub fn wrote<K: Kind>(&mut self, informer: &Informer<K>, object: &K) {
        let Some(written) = object.meta().resource_version.as_deref().and_then(version_number) else { return };
        let informer = informer.clone();
        self.awaited.push(Box::new(move || {
            informer
                .snapshot()
                .is_some_and(|shown| version_number(shown.version()).is_none_or(|shown| shown >= written))
        }));
    }

    /// The object's deletion was asked for. The key rests until the informer shows that it is gone or going.
    pub fn deleted<K: Kind>(&mut self, informer: &Informer<K>, object: &K) {
        let (informer, key, uid) = (informer.clone(), ObjectKey::of(object), object.meta().uid.clone());
        self.awaited.push(Box::new(move || {
            let Some(shown) = informer.snapshot() else { return false };
            let found = shown.get(&key.namespace, &key.name);
            found.is_none_or(|found| found.meta().uid != uid || found.meta().deletion_timestamp.is_some())
        }));
    }
}
