//! Reading: what is there, how much, and how far history goes back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::Link;
use super::cluster::{CallError, Cluster, Repeat};
use super::convert;
use super::wire::kv_client::KvClient;
use super::wire::maintenance_client::MaintenanceClient;
use super::wire::{RangeRequest, RangeResponse, ResponseHeader, StatusRequest};
use crate::error::{Op, StoreError, check_readable};
use crate::request::{CountRequest, CountResponse, GetRequest, GetResponse, ListRequest, ListResponse, Status};
use crate::types::{Key, KeyRange, KeyValue, Revision};

/// How large an answer to a list should be. How many keys that is, is learnt from the answer before; it begins with a
/// number that is not far off for most, and stays between these bounds.
const PAGE_BYTES: usize = 4 << 20;
const PAGE_KEYS_FIRST: usize = 100;
const PAGE_KEYS_MIN: usize = 10;
const PAGE_KEYS_MAX: usize = 10_000;
/// The largest answer that is taken. A first page of the largest values is far above gRPC's usual 4 MiB.
pub(super) const ANSWER_BYTES_MAX: usize = 512 << 20;

/// The revision of an answer.
pub(super) fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    Revision::new(header.map_or(0, |header| header.revision))
}

/// What is asked about one range.
struct Page<'a> {
    op: Op,
    at: Option<Revision>,
    range: &'a KeyRange,
    limit: usize,
    keys_only: bool,
}

impl Link {
    /// Asks for a range. Fails with what the revision is the reason of, as [`CallError`] says.
    async fn range(&self, op: Op, request: &RangeRequest) -> Result<RangeResponse, CallError> {
        let ask = |line| {
            let request = request.clone();
            async move { KvClient::new(line).max_decoding_message_size(ANSWER_BYTES_MAX).range(request).await }
        };
        self.cluster.call(op, Repeat::Yes, ask).await
    }

    /// The store's revision, after every write that was acknowledged to anybody.
    pub(super) async fn revision(&self, op: Op) -> Result<Revision, StoreError> {
        let response = self.range(op, &revision_question()).await.map_err(|error| error.into_store(op))?;
        Ok(revision_of(response.header.as_ref()))
    }

    /// A range at a revision, if that can be read.
    async fn read(&self, op: Op, at: Option<Revision>, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let known = self.compacted_known();
        // To etcd 0 is now, and a negative revision no better.
        if let Some(requested) = at.filter(|at| *at <= Revision::ZERO) {
            let compacted = self.compacted(op).await?;
            check_readable(Some(requested), compacted, Revision::new(i64::MAX))?;
            let header = Some(ResponseHeader { revision: self.revision(op).await?.get(), ..ResponseHeader::default() });
            return Ok(RangeResponse { header, ..RangeResponse::default() });
        }
        if let Some(requested) = at.filter(|at| *at < known) {
            return Err(StoreError::Compacted { requested, compacted: self.compacted(op).await? });
        }
        let request = RangeRequest { revision: at.map_or(0, Revision::get), ..request };
        loop {
            match self.range(op, &request).await {
                Ok(response) => return Ok(response),
                Err(CallError::Compacted) => {
                    let compacted = self.compacted(op).await?;
                    return Err(StoreError::Compacted { requested: at.unwrap_or_default(), compacted });
                }
                Err(CallError::Future) => {
                    let (requested, current) = (at.unwrap_or_default(), self.revision(op).await?);
                    if requested > current {
                        return Err(StoreError::FutureRevision { requested, current });
                    }
                    // It has come in the meantime.
                }
                Err(other) => return Err(other.into_store(op)),
            }
        }
    }

    pub(super) async fn get(&self, request: GetRequest) -> Result<GetResponse, StoreError> {
        let GetRequest { key, at } = request;
        let nothing = key.as_bytes().is_empty();
        let key = if nothing { convert::everything().0 } else { Bytes::copy_from_slice(key.as_bytes()) };
        let question = RangeRequest { key, count_only: nothing, ..RangeRequest::default() };
        let mut response = self.read(Op::Get, at, question).await?;
        let kv = response.kvs.pop().map(convert::key_value);
        Ok(GetResponse { revision: revision_of(response.header.as_ref()), kv })
    }

    /// The lease that a key has now, if it is one of a write of ours.
    pub(super) async fn lease_of(&self, op: Op, key: &Key) -> Result<Option<i64>, StoreError> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let question = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
        let mut response = self.range(op, &question).await.map_err(|error| error.into_store(op))?;
        Ok(response.kvs.pop().map(|kv| kv.lease).filter(|lease| !super::lease::ttl(*lease).is_none()))
    }

    pub(super) async fn count(&self, request: CountRequest) -> Result<CountResponse, StoreError> {
        let CountRequest { range, at } = request;
        let bounds = convert::range(&range);
        let empty = bounds.is_none();
        let (key, range_end) = bounds.unwrap_or((convert::everything().0, Bytes::new()));
        let question = RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() };
        let response = self.read(Op::Count, at, question).await?;
        let count = if empty { 0 } else { u64::try_from(response.count).unwrap_or_default() };
        Ok(CountResponse { revision: revision_of(response.header.as_ref()), count })
    }

    /// In pages at one revision, so that no answer is larger than it has to be.
    pub(super) async fn list(&self, request: ListRequest) -> Result<ListResponse, StoreError> {
        loop {
            match self.list_once(&request).await {
                // A list of the present that took longer than history lasts begins again.
                Err(StoreError::Compacted { .. }) if request.at.is_none() => {}
                other => return other,
            }
        }
    }

    async fn list_once(&self, request: &ListRequest) -> Result<ListResponse, StoreError> {
        let ListRequest { range, at, after, limit, keys_only, expiring_only } = request;
        let mut range = after.as_ref().map_or_else(|| range.clone(), |after| range.after(after));
        let wanted = limit.unwrap_or(usize::MAX);
        let (mut at, mut found, mut kvs) = (*at, None, Vec::new());
        let mut page_keys = PAGE_KEYS_FIRST;
        loop {
            // One more than is wanted tells whether there is more, also when some of them don't count.
            let left = wanted.saturating_add(1) - kvs.len();
            let limit = if *expiring_only { page_keys } else { left.min(page_keys) };
            let page = Page { op: Op::List, at, range: &range, limit, keys_only: *keys_only };
            let (revision, page, more) = self.page(page).await?;
            let revision = *found.get_or_insert(revision);
            at = at.or(Some(revision));
            page_keys = next_page_keys(&page);
            if let Some(last) = page.last() {
                range = range.after(&last.key);
            }
            kvs.extend(page.into_iter().filter(|kv| !expiring_only || !kv.ttl.is_none()));
            if kvs.len() > wanted || !more {
                let more = kvs.len() > wanted;
                kvs.truncate(wanted);
                return Ok(ListResponse { revision, kvs, more });
            }
        }
    }

    async fn page(&self, page: Page<'_>) -> Result<(Revision, Vec<KeyValue>, bool), StoreError> {
        let Page { op, at, range, limit, keys_only } = page;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let request = match convert::range(range) {
            Some((key, range_end)) => RangeRequest { key, range_end, limit, keys_only, ..RangeRequest::default() },
            // There is nothing to find, but the revision has to be looked at.
            None => revision_question(),
        };
        let response = self.read(op, at, request).await?;
        let kvs = response.kvs.into_iter().map(convert::key_value).collect();
        Ok((revision_of(response.header.as_ref()), kvs, response.more))
    }

    pub(super) async fn status(&self) -> Result<Status, StoreError> {
        let op = Op::Status;
        let ask = |line| async move { MaintenanceClient::new(line).status(StatusRequest {}).await };
        let size = self.cluster.call(op, Repeat::Yes, ask).await.map_err(|error| error.into_store(op))?;
        let bytes = |count: i64| u64::try_from(count).unwrap_or_default();
        Ok(Status {
            revision: self.revision(op).await?,
            compacted: self.compacted(op).await?,
            size_bytes: bytes(size.db_size),
            free_bytes: bytes(size.db_size.saturating_sub(size.db_size_in_use)),
            log_bytes: 0,
        })
    }

    /// How far history goes back, as far as it was asked for.
    pub(super) fn compacted_known(&self) -> Revision {
        Revision::new(self.compacted.load(Ordering::Relaxed))
    }

    /// Forgets how far history goes back, because it is another one now.
    pub(super) fn forget_compacted(&self) {
        self.compacted.store(Revision::ZERO.get(), Ordering::Relaxed);
    }

    /// Notes that history ends there.
    pub(super) fn note_compacted(&self, compacted: Revision) {
        self.compacted.fetch_max(compacted.get(), Ordering::Relaxed);
    }

    /// How far history goes back. etcd doesn't say, so the oldest revision that can be read is searched for: one
    /// question when nothing has changed, and a few more when others have compacted.
    pub(super) async fn compacted(&self, op: Op) -> Result<Revision, StoreError> {
        let known = self.compacted_known();
        let mut low = known.max(Revision::new(1));
        if self.is_readable(op, low).await? {
            return Ok(known);
        }
        let mut high = self.revision(op).await?;
        while high.get() - low.get() > 1 {
            let middle = Revision::new(low.get() + (high.get() - low.get()) / 2);
            if self.is_readable(op, middle).await? {
                high = middle;
            } else {
                low = middle;
            }
        }
        self.note_compacted(high);
        Ok(self.compacted_known())
    }

    async fn is_readable(&self, op: Op, at: Revision) -> Result<bool, StoreError> {
        let request = RangeRequest { revision: at.get(), ..revision_question() };
        match self.range(op, &request).await {
            Ok(_) => Ok(true),
            Err(CallError::Compacted) => Ok(false),
            // It is newer than the store: a store that was set back has no history to speak of.
            Err(CallError::Future) => Ok(true),
            Err(other) => Err(other.into_store(op)),
        }
    }
}

/// How many keys to ask for after a page like this one.
fn next_page_keys(page: &[KeyValue]) -> usize {
    let bytes: usize = page.iter().map(|kv| kv.key.as_bytes().len() + kv.value.len()).sum();
    let each = (bytes / page.len().max(1)).max(1);
    (PAGE_BYTES / each).clamp(PAGE_KEYS_MIN, PAGE_KEYS_MAX)
}

/// The store's revision, asking each member at most once.
pub(super) async fn first_revision(cluster: &Cluster) -> Result<Revision, StoreError> {
    let ask = |line| async move { KvClient::new(line).range(revision_question()).await };
    let response = cluster.call_within(Duration::ZERO, Op::Open, Repeat::Yes, ask).await;
    Ok(revision_of(response.map_err(|error| error.into_store(Op::Open))?.header.as_ref()))
}

/// The cheapest question whose answer has the store's revision.
fn revision_question() -> RangeRequest {
    RangeRequest { key: convert::everything().0, count_only: true, ..RangeRequest::default() }
}
