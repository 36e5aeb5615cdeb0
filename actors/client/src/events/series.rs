//! Events of the newer kind: pure. The first is written, the second makes a series of it, and the next ones are only
//! counted; the series is written again when it is over, and now and then before.

use std::time::Duration;

use jiff::Timestamp;
use k3sd_runtime::Moment;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::correlate::{ENTRIES_MAX, Instant, Write, digest, event_name};
use super::lru::Lru;
use super::{Happened, namespace_of};

/// A series is over when nothing happened for so long.
pub(super) const OVER_AFTER: Duration = Duration::from_secs(6 * 60);
/// How often a series that goes on is written.
const WRITTEN_EVERY: Duration = Duration::from_secs(30 * 60);

#[derive(Debug)]
struct Entry {
    event: Event,
    last: Moment,
    written: Moment,
}

/// The series that go on.
#[derive(Debug)]
pub(super) struct Series(Lru<u128, Entry>);

impl Series {
    pub(super) fn new() -> Self {
        Self(Lru::new(ENTRIES_MAX))
    }

    /// Whether there is nothing to look after.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Takes note of what happened. `None`: it was counted, and is written later.
    pub(super) fn take(&mut self, happened: &Happened, at: Instant) -> Option<Write<Event>> {
        let Instant { now, wall } = at;
        let key = key_of(happened);
        if !self.0.contains(&key) {
            let event = event(happened, wall);
            self.0.entry(key, || Entry { event: event.clone(), last: now, written: now });
            return Some(Write { key, event, patch: None });
        }
        let entry = self.0.entry(key, || unreachable!("it is there"));
        entry.last = now;
        if let Some(series) = &mut entry.event.series {
            series.count = series.count.saturating_add(1);
            series.last_observed_time = MicroTime(wall);
            return None;
        }
        entry.event.series = Some(EventSeries { count: 2, last_observed_time: MicroTime(wall) });
        entry.written = now;
        Some(Write { key, event: entry.event.clone(), patch: patch(&entry.event) })
    }

    /// Forgets what is over; what has to be written of it, and of what goes on for long.
    pub(super) fn sweep(&mut self, now: Moment) -> Vec<Write<Event>> {
        let mut writes = Vec::new();
        self.0.retain(|key, entry| {
            let is_over = now.since(entry.last) >= OVER_AFTER;
            let is_due = is_over || now.since(entry.written) >= WRITTEN_EVERY;
            if is_due && entry.event.series.is_some() {
                entry.written = now;
                writes.push(Write { key: *key, event: entry.event.clone(), patch: patch(&entry.event) });
            }
            !is_over
        });
        writes
    }
}

fn patch(event: &Event) -> Option<Value> {
    event.series.as_ref().map(|series| json!({"series": series}))
}

fn event(happened: &Happened, wall: Timestamp) -> Event {
    let action = happened.action.as_ref();
    Event {
        metadata: ObjectMeta {
            name: Some(event_name(&happened.about, wall)),
            namespace: Some(namespace_of(&happened.about).to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(wall)),
        reporting_controller: Some(happened.component.to_owned()),
        reporting_instance: Some(format!("{}-{}", happened.component, happened.host)),
        action: action.map(|action| action.name.clone()),
        reason: Some(happened.reason.clone()),
        regarding: Some(happened.about.clone()),
        related: action.and_then(|action| action.related.clone()),
        note: Some(happened.message.clone()),
        type_: Some(happened.kind.to_owned()),
        ..Event::default()
    }
}

/// What makes two Events the same: everything but the text.
fn key_of(happened: &Happened) -> u128 {
    let action = happened.action.as_ref();
    let mut parts = vec![happened.kind, &happened.reason, happened.component, &happened.host];
    parts.push(action.map_or("", |action| &action.name));
    for object in [Some(&happened.about), action.and_then(|action| action.related.as_ref())] {
        let Some(object) = object else { continue };
        let ObjectReference { api_version, field_path, kind, name, namespace, resource_version, uid } = object;
        let of_object = [api_version, field_path, kind, name, namespace, resource_version, uid];
        parts.extend(of_object.map(|part| part.as_deref().unwrap_or_default()));
    }
    digest(&parts)
}
