//! Reading and writing.

use k3sd_datastore::{
    AnyBackend, Backend as _, Change, CountRequest, GetRequest, Key, KeyRange, KeyValue, ListRequest, Precondition,
    Revision, StoreError, WriteRequest,
};
use tonic::{Request, Response, Status};

use super::desk::Desk;
use super::listing::Listing;
use super::txn;
use crate::translate::{self, Target, arrange, header, needs_all, status_of};
use crate::wire::etcdserverpb::kv_server::Kv;
use crate::wire::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

/// How often a write is tried against others who write the same key. Each try means that somebody else succeeded.
pub(crate) const TRIES_MAX: usize = 64;

/// See the module's page.
pub(crate) struct KvService {
    pub(crate) desk: Desk,
}

fn fault(error: StoreError) -> Status {
    status_of(&error)
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        let at = translate::at(request.revision);
        Ok(Response::new(range(&self.desk.backend().await?, &request, at).await?))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.write(request.into_inner()).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(delete_range(&self.desk.backend().await?, &request).await?))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.transact(request.into_inner()).await.map(Response::new)
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let target = Revision::new(request.into_inner().revision);
        let done = self.desk.backend().await?.compact(target).await.map_err(fault)?;
        Ok(Response::new(CompactionResponse { header: header(done.revision) }))
    }
}

/// Refuses a put that brings what it wants to keep.
fn check_kept(request: &PutRequest) -> Result<(), Status> {
    if request.ignore_value && !request.value.is_empty() {
        return Err(Status::invalid_argument("etcdserver: value is provided"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Status::invalid_argument("etcdserver: lease is provided"));
    }
    Ok(())
}

/// Writes a key that keeps its value, or its time to live: what it has when it is written.
async fn put_partly(backend: &AnyBackend, request: &PutRequest, key: Key) -> Result<PutResponse, Status> {
    let mut current = backend.get(GetRequest { key: key.clone(), at: None }).await.map_err(fault)?.kv;
    for _ in 0..TRIES_MAX {
        let kept = current.ok_or_else(|| Status::invalid_argument("etcdserver: key not found"))?;
        let value = if request.ignore_value { kept.value } else { request.value.clone() };
        let ttl = if request.ignore_lease { kept.ttl } else { translate::ttl(request.lease)? };
        let (change, precondition) = (Change::Put { value, ttl }, Precondition::At(kept.mod_revision));
        match backend.write(WriteRequest { key: key.clone(), change, precondition }).await {
            Ok(written) => {
                let prev_kv = written.prev.as_ref().filter(|_| request.prev_kv).map(translate::kv);
                return Ok(PutResponse { header: header(written.revision), prev_kv });
            }
            Err(StoreError::Conflict(conflict)) => current = conflict.current,
            Err(error) => return Err(fault(error)),
        }
    }
    Err(Status::unavailable("etcdserver: too many requests"))
}

/// The key of a put that can be carried out in a transaction.
pub(crate) fn put_key(request: &PutRequest) -> Result<Key, Status> {
    if request.ignore_value || request.ignore_lease {
        return Err(Status::invalid_argument("etcdserver: ignore_value and ignore_lease are not supported in txn"));
    }
    translate::key(&request.key)
}

/// The change of a put whose lease has become a number of seconds.
pub(crate) fn put_change(request: &PutRequest) -> Result<Change, Status> {
    Ok(Change::Put { value: request.value.clone(), ttl: translate::ttl(request.lease)? })
}

impl KvService {
    /// Reads one key or a range, for an answer that need not be one message.
    pub(crate) async fn find(&self, request: &RangeRequest) -> Result<Found, Status> {
        find(&self.desk.backend().await?, request, translate::at(request.revision)).await
    }

    /// Writes one key.
    pub(crate) async fn write(&self, mut request: PutRequest) -> Result<PutResponse, Status> {
        let key = translate::key(&request.key)?;
        if translate::is_marker(&request.key) {
            return Err(Status::invalid_argument("etcdserver: this key is only written in a txn"));
        }
        check_kept(&request)?;
        if request.lease != 0 {
            request.lease = i64::from(self.desk.attach(request.lease, &key).await?.as_seconds());
        }
        let backend = self.desk.backend().await?;
        if request.ignore_value || request.ignore_lease {
            return Box::pin(put_partly(&backend, &request, key)).await;
        }
        let write = WriteRequest { key, change: put_change(&request)?, precondition: Precondition::None };
        let written = backend.write(write).await.map_err(fault)?;
        let prev_kv = written.prev.as_ref().filter(|_| request.prev_kv).map(translate::kv);
        Ok(PutResponse { header: header(written.revision), prev_kv })
    }

    /// Carries out a transaction.
    pub(crate) async fn transact(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let mut plan = txn::Plan::new(request)?;
        if let Some((key, leases)) = plan.leases() {
            for lease in leases {
                *lease = i64::from(self.desk.attach(*lease, &key).await?.as_seconds());
            }
        }
        plan.carry_out(&self.desk.backend().await?).await
    }
}

/// What was read.
pub(crate) enum Found {
    /// The whole answer.
    Message(RangeResponse),
    /// Keys, not yet in the form of the answer.
    Keys(Listing),
}

/// Reads one key or a range, as of `at` or now.
pub(crate) async fn range(
    backend: &AnyBackend,
    request: &RangeRequest,
    at: Option<Revision>,
) -> Result<RangeResponse, Status> {
    Ok(match find(backend, request, at).await? {
        Found::Message(response) => response,
        Found::Keys(listing) => listing.into_response(),
    })
}

async fn find(backend: &AnyBackend, request: &RangeRequest, at: Option<Revision>) -> Result<Found, Status> {
    match Target::new(&request.key, &request.range_end)? {
        Target::One(key) => {
            let got = backend.get(GetRequest { key, at }).await.map_err(fault)?;
            Ok(Found::Message(one(request, got.revision, got.kv.as_ref())))
        }
        Target::Range(range) if request.count_only => {
            let counted = backend.count(CountRequest { range, at }).await.map_err(fault)?;
            let count = i64::try_from(counted.count).unwrap_or(i64::MAX);
            let header = header(counted.revision);
            Ok(Found::Message(RangeResponse { header, count, ..RangeResponse::default() }))
        }
        Target::Range(range) => many(backend, request, range, at).await.map(Found::Keys),
    }
}

/// The answer about one key.
pub(crate) fn one(request: &RangeRequest, revision: Revision, found: Option<&KeyValue>) -> RangeResponse {
    let mut kvs: Vec<_> = found.cloned().into_iter().collect();
    let count = i64::from(found.is_some());
    arrange(request, &mut kvs);
    let mut kvs: Vec<_> = kvs.iter().map(translate::kv).collect();
    if request.count_only {
        kvs.clear();
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    RangeResponse { header: header(revision), kvs, more: false, count }
}

async fn many(
    backend: &AnyBackend,
    request: &RangeRequest,
    range: KeyRange,
    at: Option<Revision>,
) -> Result<Listing, Status> {
    let whole = needs_all(request);
    let by_value = request.sort_target() == crate::wire::etcdserverpb::range_request::SortTarget::Value;
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0 && !whole);
    let keys_only = request.keys_only && !by_value;
    let listing = ListRequest { at, limit, keys_only, ..ListRequest::new(range.clone()) };
    let listed = backend.list(listing).await.map_err(fault)?;
    let (mut kvs, mut more) = (listed.kvs, listed.more);
    let count = if more {
        // Of the same moment, so that pages and their count agree.
        let moment = Some(at.unwrap_or(listed.revision));
        backend.count(CountRequest { range, at: moment }).await.map_err(fault)?.count
    } else {
        kvs.len() as u64
    };
    if whole {
        more = arrange(request, &mut kvs);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    Ok(Listing { revision: listed.revision, kvs, more, count })
}

/// Deletes one key, or those of a range one after another: each delete has a revision of its own, and a key that is
/// written meanwhile may stay or go.
async fn delete_range(backend: &AnyBackend, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
    let (keys, mut revision) = match Target::new(&request.key, &request.range_end)? {
        Target::One(key) => (vec![key], Revision::ZERO),
        Target::Range(range) => {
            let listing = ListRequest { keys_only: true, ..ListRequest::new(range) };
            let listed = backend.list(listing).await.map_err(fault)?;
            (listed.kvs.into_iter().map(|kv| kv.key).collect(), listed.revision)
        }
    };
    let (mut deleted, mut prev_kvs) = (0, Vec::new());
    for key in keys {
        let written = backend.delete(key, None).await.map_err(fault)?;
        revision = revision.max(written.revision);
        if let Some(prev) = &written.prev {
            deleted += 1;
            prev_kvs.extend(request.prev_kv.then(|| translate::kv(prev)));
        }
    }
    Ok(DeleteRangeResponse { header: header(revision), deleted, prev_kvs })
}
