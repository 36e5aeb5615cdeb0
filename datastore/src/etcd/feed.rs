//! Events as etcd sends them on one stream, for every key, from a revision on: whole revisions, in order.
//!
//! Every key, because then no revision is missing: each is a change of some key. So a gap is noticed for what it is,
//! and the revision of the last event tells how far the stream is. etcd's own progress messages don't: before 3.4.25 and
//! 3.5.8 they may overtake events.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use thiserror::Error;
use tonic::{Code, Status, Streaming};

use super::cluster::{Cluster, Place};
use super::convert;
use super::fault::Late;
use super::line::ConnectError;
use super::query::ANSWER_BYTES_MAX;
use super::wire::watch_client::WatchClient;
use super::wire::watch_request::RequestUnion;
use super::wire::{self, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::error::Source;
use crate::types::{Event, Revision};

/// How many changes of one transaction are waited for when they come in parts. Whoever would need more lists anew.
const HELD_EVENTS_MAX: usize = 1_000_000;
/// How long a member may take to begin.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// Events, in order and without a gap.
pub(super) struct Feed {
    place: Place,
    stream: Streaming<WatchResponse>,
    /// The number of the cluster, which is drawn when it is made.
    cluster: u64,
    revisions: Revisions,
}

/// Puts whole revisions together from the parts in which they come.
struct Revisions {
    /// The one that comes next.
    next: Revision,
    /// Parts of an answer whose last revision may go on in the next part.
    held: Vec<wire::Event>,
}

/// Why a feed ends.
#[derive(Clone, Debug, Error)]
pub(super) enum FeedEnd {
    /// The line broke, the member has lost its leader, or it was never there. Another member may go on.
    #[error("the stream of events broke")]
    Broken(#[source] Source),
    /// Whoever logged in may not read every key, or the member does not know the question.
    #[error("the stream of events was refused")]
    Denied(#[source] Source),
    /// What comes next is compacted, or what was there before it.
    #[error("the next event is compacted")]
    Compacted,
    /// The store has ended.
    #[error("the store is closed")]
    Closed,
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> FeedEnd {
    FeedEnd::Broken(Arc::new(error))
}

impl Feed {
    /// Begins at a revision, which may lie in the future, at some member.
    pub(super) async fn open(cluster: &Cluster, from: Revision) -> Result<Self, FeedEnd> {
        let place = cluster.place().await.map_err(|error| match error {
            ConnectError::Away(error) | ConnectError::Refused(error) => broken(error),
            ConnectError::Closed => FeedEnd::Closed,
        })?;
        cluster.log_in_once(&place).await.map_err(FeedEnd::Broken)?;
        let (key, range_end) = convert::everything();
        let start_revision = from.get();
        let create = WatchCreateRequest { key, range_end, start_revision, prev_kv: true, fragment: true };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream ends with the requests, so there is another one that never comes.
        let requests = stream::once(std::future::ready(request)).chain(stream::pending());
        let mut client = WatchClient::new(place.line.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let begin = async {
            let mut stream = client.watch(requests).await?.into_inner();
            // The first answer has no events. It says that the watch began, or why not.
            let begun = stream.message().await?.ok_or_else(|| Status::unavailable("the stream is over"))?;
            if begun.canceled && begun.compact_revision == 0 {
                return Err(Status::permission_denied(begun.cancel_reason));
            }
            let cluster = begun.header.map_or(0, |header| header.cluster_id);
            Ok((stream, cluster, begun.compact_revision != 0))
        };
        let end = match tokio::time::timeout(OPEN_LIMIT, begin).await {
            Ok(Ok((stream, cluster, false))) => {
                let revisions = Revisions { next: from, held: Vec::new() };
                return Ok(Self { place, stream, cluster, revisions });
            }
            Ok(Ok((.., true))) => return Err(FeedEnd::Compacted),
            Ok(Err(status)) if matches!(status.code(), Code::PermissionDenied | Code::Unimplemented) => {
                return Err(FeedEnd::Denied(Arc::new(status)));
            }
            Ok(Err(status)) => broken(status),
            Err(_) => broken(Late),
        };
        cluster.leave(&place, true).await;
        Err(end)
    }

    /// At whom it is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Of which cluster it is.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster
    }

    /// The revision that comes next.
    pub(super) fn next_revision(&self) -> Revision {
        self.revisions.next
    }

    /// Waits for the next events. May be dropped while it waits; nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Vec<Arc<Event>>, FeedEnd> {
        loop {
            let response = self.stream.message().await.map_err(broken)?;
            let response = response.ok_or_else(|| broken(Status::unavailable("the stream is over")))?;
            if response.compact_revision != 0 {
                return Err(FeedEnd::Compacted);
            }
            if response.canceled {
                return Err(broken(Status::cancelled(response.cancel_reason)));
            }
            let events = self.revisions.take(response.events, response.fragment)?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

impl Revisions {
    /// What is complete after another part, of an answer that ends with it or goes on.
    fn take(&mut self, part: Vec<wire::Event>, goes_on: bool) -> Result<Vec<Arc<Event>>, FeedEnd> {
        self.held.extend(part);
        if self.held.len() > HELD_EVENTS_MAX {
            return Err(FeedEnd::Compacted);
        }
        let revision = |event: &wire::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let complete = match self.held.last().map(revision) {
            Some(last) if goes_on => self.held.partition_point(|event| revision(event) < last),
            _ => self.held.len(),
        };
        let mut events = Vec::with_capacity(complete);
        for event in self.held.drain(..complete) {
            let event = convert::event(event).ok_or(FeedEnd::Compacted)?;
            let at = event.revision();
            // Several changes of one transaction of somebody else's share a revision.
            let again = events.last().is_some_and(|last: &Arc<Event>| last.revision() == at);
            if !again {
                if at < self.next {
                    continue; // From before the start.
                }
                if at != self.next {
                    return Err(FeedEnd::Compacted);
                }
                self.next = at.next();
            }
            events.push(event);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The creation of a key at a revision.
    fn created(revision: i64) -> wire::Event {
        let key = b"k".to_vec();
        let kv = wire::KeyValue { key, create_revision: revision, mod_revision: revision, ..Default::default() };
        wire::Event { kv: Some(kv), ..Default::default() }
    }

    fn part(revisions: &[i64]) -> Vec<wire::Event> {
        revisions.iter().copied().map(created).collect()
    }

    /// What comes out of parts, each with whether it goes on; nothing after something is missing.
    fn taken(from: i64, parts: &[(&[i64], bool)]) -> Vec<Option<Vec<i64>>> {
        let mut revisions = Revisions { next: Revision::new(from), held: Vec::new() };
        let mut take = |(numbers, goes_on): &(&[i64], bool)| {
            let events = revisions.take(part(numbers), *goes_on).ok()?;
            Some(events.iter().map(|event| event.revision().get()).collect())
        };
        parts.iter().map(&mut take).collect()
    }

    #[test]
    fn a_revision_in_parts_comes_whole() {
        let parts: &[(&[i64], bool)] =
            &[(&[5, 6, 6], true), (&[6], true), (&[6, 7], true), (&[7], false), (&[8], false)];
        let whole = [vec![5], vec![], vec![6, 6, 6, 6], vec![7, 7], vec![8]];
        assert_eq!(taken(5, parts), whole.map(Some));
    }

    #[test]
    fn what_was_before_the_start_is_left_out_and_what_is_missing_is_noticed() {
        assert_eq!(taken(5, &[(&[3, 4, 4, 5], false), (&[6], false)]), [Some(vec![5]), Some(vec![6])]);
        assert_eq!(taken(5, &[(&[6], false)]), [None]);
        assert_eq!(taken(5, &[(&[5], false), (&[7], false)]), [Some(vec![5]), None]);
    }

    #[test]
    fn an_event_without_its_past_is_compacted() {
        let mut revisions = Revisions { next: Revision::new(5), held: Vec::new() };
        let mut updated = created(5);
        if let Some(kv) = &mut updated.kv {
            kv.create_revision = 4;
        }
        assert!(matches!(revisions.take(vec![updated], false), Err(FeedEnd::Compacted)));
    }
}
