//! Which Event is written when something happened, if any: pure. The numbers are client-go's, and so is the order: alike
//! ones are combined, the same ones counted, and then there is a limit for each object.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use k3sd_runtime::Moment;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::lru::Lru;
use super::{Happened, clip, namespace_of};

/// Entries of each of the memories.
pub(super) const ENTRIES_MAX: usize = 4096;
/// So many different messages of one kind, and from the last on they are combined.
const ALIKE_MAX: usize = 10;
/// After so long without another they are told one by one again.
const ALIKE_FOR: Duration = Duration::from_secs(600);
/// Goes before the last of the messages that were combined.
const COMBINED: &str = "(combined from similar events): ";
/// So many Events one source may write about one object at once, and then one in each of these times.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

/// When something happened, on both axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instant {
    pub(super) now: Moment,
    pub(super) wall: Timestamp,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write<E> {
    /// Writes of one key go one after the other.
    pub(super) key: u128,
    /// The whole Event, for when there is none yet.
    pub(super) event: E,
    /// What changes in the one that there is.
    pub(super) patch: Option<Value>,
}

/// What was written about the same thing before.
#[derive(Debug, Default)]
struct Log {
    count: i32,
    first: Option<Timestamp>,
    name: String,
}

#[derive(Debug)]
struct Alike {
    messages: BTreeSet<u64>,
    last: Moment,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Moment,
}

/// The memory.
#[derive(Debug)]
pub(super) struct Correlator {
    alike: Lru<u128, Alike>,
    log: Lru<u128, Log>,
    buckets: Lru<u128, Bucket>,
}

impl Correlator {
    pub(super) fn new() -> Self {
        Self { alike: Lru::new(ENTRIES_MAX), log: Lru::new(ENTRIES_MAX), buckets: Lru::new(ENTRIES_MAX) }
    }

    /// Takes note of what happened. `None`: there was too much about this object lately.
    pub(super) fn correlate(&mut self, mut happened: Happened, at: Instant) -> Option<Write<Event>> {
        let key = match self.combine(&happened, at.now) {
            Some(key) => {
                happened.message = clip(format!("{COMBINED}{}", happened.message));
                key
            }
            None => same_key(&happened),
        };
        let allowed = self.allow(&happened, at.now);
        let log = self.log.entry(key, Log::default);
        if log.count == 0 {
            (log.first, log.name) = (Some(at.wall), event_name(&happened.about, at.wall));
        }
        log.count = log.count.saturating_add(1);
        if !allowed {
            return None;
        }
        let event = event(&happened, log, at.wall);
        let patch = (log.count > 1)
            .then(|| json!({"count": log.count, "lastTimestamp": event.last_timestamp, "message": event.message}));
        Some(Write { key, event, patch })
    }

    /// The key of the Event that stands for all that are like this one, if there are so many.
    fn combine(&mut self, happened: &Happened, now: Moment) -> Option<u128> {
        let key = alike_key(happened);
        let alike = self.alike.entry(key, || Alike { messages: BTreeSet::new(), last: now });
        if now.since(alike.last) > ALIKE_FOR {
            alike.messages.clear();
        }
        alike.last = now;
        alike.messages.insert(hash(&happened.message, 0));
        if alike.messages.len() < ALIKE_MAX {
            return None;
        }
        // One less, so that another message is again one too many, and a repetition of any of them isn't.
        alike.messages.pop_first();
        Some(key)
    }

    fn allow(&mut self, happened: &Happened, now: Moment) -> bool {
        let bucket = self.buckets.entry(object_key(happened), || Bucket { tokens: BURST, filled: now });
        let refilled = now.since(bucket.filled).as_secs_f64() / REFILL.as_secs_f64();
        (bucket.tokens, bucket.filled) = ((bucket.tokens + refilled).min(BURST), now);
        let allowed = bucket.tokens >= 1.0;
        bucket.tokens -= if allowed { 1.0 } else { 0.0 };
        allowed
    }
}

fn event(happened: &Happened, log: &Log, wall: Timestamp) -> Event {
    let host = (!happened.host.is_empty()).then(|| happened.host.to_string());
    Event {
        metadata: ObjectMeta {
            name: Some(log.name.clone()),
            namespace: Some(namespace_of(&happened.about).to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: happened.about.clone(),
        reason: Some(happened.reason.clone()),
        message: Some(happened.message.clone()),
        type_: Some(happened.kind.to_owned()),
        source: Some(EventSource { component: Some(happened.component.to_owned()), host: host.clone() }),
        reporting_component: Some(happened.component.to_owned()),
        reporting_instance: Some(host.unwrap_or_default()),
        count: Some(log.count),
        first_timestamp: log.first.map(Time),
        last_timestamp: Some(Time(wall)),
        ..Event::default()
    }
}

/// The name of an Event: the object's, and the time, in hexadecimal nanoseconds. If that is no name, such as of an object
/// with a very long one, the time alone.
pub(super) fn event_name(about: &ObjectReference, wall: Timestamp) -> String {
    let (name, nanos) = (about.name.as_deref().unwrap_or_default(), wall.as_nanosecond());
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let full = format!("{name}.{nanos:x}");
    let starts_well =
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if full.len() <= 253 && starts_well && full.chars().all(is_name) { full } else { format!("event.{nanos:x}") }
}

/// 128 bits that stand for some texts: memories of thousands of messages would be large.
pub(super) fn digest(parts: &[&str]) -> u128 {
    u128::from(hash(parts, 1)) << 64 | u128::from(hash(parts, 2))
}

fn hash<T: Hash + ?Sized>(parts: &T, salt: u8) -> u64 {
    let mut hasher = DefaultHasher::new();
    salt.hash(&mut hasher);
    parts.hash(&mut hasher);
    hasher.finish()
}

/// Component, host and the object, as the parts of all keys begin.
fn parts(happened: &Happened) -> Vec<&str> {
    let about = &happened.about;
    let mut parts = vec![happened.component, &happened.host];
    let of_object = [&about.kind, &about.namespace, &about.name, &about.uid, &about.api_version];
    parts.extend(of_object.map(|part| part.as_deref().unwrap_or_default()));
    parts
}

fn object_key(happened: &Happened) -> u128 {
    digest(&parts(happened))
}

fn alike_key(happened: &Happened) -> u128 {
    let mut parts = parts(happened);
    parts.extend([happened.kind, &happened.reason]);
    digest(&parts)
}

fn same_key(happened: &Happened) -> u128 {
    let mut parts = parts(happened);
    let path = happened.about.field_path.as_deref().unwrap_or_default();
    parts.extend([path, happened.kind, &happened.reason, &happened.message]);
    digest(&parts)
}
