//! Transactions, as far as one compare-and-swap makes them exact.
//!
//! A transaction may write one key, and what it compares must be that key; it may read anything, before and after the
//! write, since the store can be read as of any revision. A transaction that writes nothing may compare any keys: all of
//! it is answered as of one revision. That covers what API servers, locks and elections send. The rest is refused.

use k3sd_datastore::{
    AnyBackend, Backend as _, Change, GetRequest, Key, KeyValue, Precondition, Revision, StoreError, WriteRequest,
    WriteResponse,
};
use tonic::Status;

use super::kv::{TRIES_MAX, one, put_change, put_key, range};
use crate::translate::{self, Target, header, status_of, unsupported_txn};
use crate::wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::etcdserverpb::request_op::Request as Op;
use crate::wire::etcdserverpb::response_op::Response as Answer;
use crate::wire::etcdserverpb::{
    Compare, DeleteRangeResponse, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest,
    TxnResponse,
};

/// Operations of one branch; etcd's limit.
const OPS_MAX: usize = 128;

/// A transaction that can be carried out.
#[derive(Debug)]
pub(crate) struct Plan {
    compare: Vec<Compare>,
    success: Vec<Op>,
    failure: Vec<Op>,
    /// The key that either branch writes.
    written: Option<Key>,
    /// Whether that key is kept with a version.
    marker: bool,
}

fn ops(ops: Vec<RequestOp>) -> Result<Vec<Op>, Status> {
    if ops.len() > OPS_MAX {
        return Err(Status::invalid_argument("etcdserver: too many operations in txn request"));
    }
    ops.into_iter().map(|op| op.request.ok_or_else(unsupported_txn)).collect()
}

/// The key that an operation writes, or nothing if it reads.
fn written_by(op: &Op) -> Result<Option<(Key, bool)>, Status> {
    match op {
        Op::RequestRange(request) => {
            Target::new(&request.key, &request.range_end)?;
            Ok(None)
        }
        Op::RequestPut(request) => Ok(Some((put_key(request)?, translate::is_marker(&request.key)))),
        Op::RequestDeleteRange(request) if request.range_end.is_empty() => {
            Ok(Some((translate::key(&request.key)?, translate::is_marker(&request.key))))
        }
        Op::RequestDeleteRange(_) | Op::RequestTxn(_) => Err(unsupported_txn()),
    }
}

impl Plan {
    /// Refuses what would not be exact.
    pub(crate) fn new(request: TxnRequest) -> Result<Self, Status> {
        let TxnRequest { compare, success, failure } = request;
        let (success, failure) = (ops(success)?, ops(failure)?);
        let (mut written, mut marker) = (None, false);
        for branch in [&success, &failure] {
            let mut writes = 0;
            for op in branch {
                let Some((key, is_marker)) = written_by(op)? else { continue };
                writes += 1;
                if writes > 1 || written.as_ref().is_some_and(|other| *other != key) {
                    return Err(unsupported_txn());
                }
                (written, marker) = (Some(key), is_marker);
            }
        }
        for check in &compare {
            let key = translate::key(&check.key)?;
            if !check.range_end.is_empty() || written.as_ref().is_some_and(|written| *written != key) {
                return Err(unsupported_txn());
            }
            holds(check, None)?; // Refuses what can't be compared.
        }
        Ok(Self { compare, success, failure, written, marker })
    }

    /// The key that is written, and the leases that it may be written with, to be replaced by how long it then lives. A
    /// key that is not written after all keeps its own time: the lease only matters when that is over.
    pub(crate) fn leases(&mut self) -> Option<(Key, impl Iterator<Item = &mut i64>)> {
        let puts = self.success.iter_mut().chain(&mut self.failure).filter_map(|op| match op {
            Op::RequestPut(request) if request.lease != 0 => Some(&mut request.lease),
            _ => None,
        });
        Some((self.written.clone()?, puts))
    }

    /// Does it.
    pub(crate) async fn carry_out(&self, backend: &AnyBackend) -> Result<TxnResponse, Status> {
        match &self.written {
            Some(key) => self.write(backend, key).await,
            None => self.read(backend).await,
        }
    }

    async fn read(&self, backend: &AnyBackend) -> Result<TxnResponse, Status> {
        let mut moment = None;
        let mut succeeded = true;
        for check in &self.compare {
            let request = GetRequest { key: translate::key(&check.key)?, at: moment };
            let got = backend.get(request).await.map_err(|error| status_of(&error))?;
            // The first answer fixes the moment for all that follows.
            moment = moment.or(Some(got.revision));
            succeeded &= holds(check, got.kv.as_ref())?;
        }
        let branch = if succeeded { &self.success } else { &self.failure };
        let mut responses = Vec::new();
        for op in branch {
            let Op::RequestRange(request) = op else { return Err(unsupported_txn()) };
            let at = translate::at(request.revision).or(moment);
            let response = range(backend, request, at).await?;
            moment = moment.or_else(|| response.header.as_ref().and_then(|header| translate::at(header.revision)));
            responses.push(ResponseOp { response: Some(Answer::ResponseRange(response)) });
        }
        let header = header(moment.unwrap_or_default());
        Ok(TxnResponse { header, succeeded, responses })
    }

    async fn write(&self, backend: &AnyBackend, key: &Key) -> Result<TxnResponse, Status> {
        let fault = |error: StoreError| status_of(&error);
        // The usual shape names the revision it expects, so the first try needs no reading.
        let mut guess = self.expected();
        let mut known = None;
        for _ in 0..TRIES_MAX {
            let (succeeded, precondition, current) = match guess.take() {
                Some(precondition) => (true, precondition, None),
                None => {
                    let (revision, current) = match known.take() {
                        Some(known) => known,
                        None => {
                            let request = GetRequest { key: key.clone(), at: None };
                            let got = backend.get(request).await.map_err(fault)?;
                            (got.revision, got.kv)
                        }
                    };
                    let mut succeeded = true;
                    for check in &self.compare {
                        succeeded &= holds(check, current.as_ref())?;
                    }
                    let branch = self.branch(succeeded);
                    if !branch.iter().any(is_write) {
                        return reads(backend, branch, succeeded, revision, key, current.as_ref()).await;
                    }
                    let at = current.as_ref().map_or(Precondition::Absent, |kv| Precondition::At(kv.mod_revision));
                    // Also for a delete of what is not there: somebody may create it just now.
                    (succeeded, if self.compare.is_empty() { Precondition::None } else { at }, current)
                }
            };
            let branch = self.branch(succeeded);
            let change = self.change(branch, current.as_ref())?;
            let write = WriteRequest { key: key.clone(), change, precondition };
            match backend.write(write).await {
                Ok(done) => return answer(backend, branch, succeeded, &done, key).await,
                Err(StoreError::Conflict(conflict)) => known = Some((conflict.revision, conflict.current)),
                Err(error) => return Err(fault(error)),
            }
        }
        Err(Status::unavailable("etcdserver: too many requests"))
    }

    fn branch(&self, succeeded: bool) -> &[Op] {
        if succeeded { &self.success } else { &self.failure }
    }

    /// The precondition that says the same as the compares, if there is one.
    fn expected(&self) -> Option<Precondition> {
        let [check] = self.compare.as_slice() else { return None };
        if self.marker || !self.success.iter().any(is_write) || check.result() != CompareResult::Equal {
            return None;
        }
        let deletes = self.success.iter().any(|op| matches!(op, Op::RequestDeleteRange(_)));
        match check.target_union {
            Some(TargetUnion::ModRevision(0) | TargetUnion::CreateRevision(0) | TargetUnion::Version(0)) => {
                // Deleting what must not be there is a question for the careful way.
                (!deletes).then_some(Precondition::Absent)
            }
            Some(TargetUnion::ModRevision(revision)) => Some(Precondition::At(Revision::new(revision))),
            _ => None,
        }
    }

    /// What a branch writes.
    fn change(&self, branch: &[Op], current: Option<&KeyValue>) -> Result<Change, Status> {
        for op in branch {
            match op {
                Op::RequestPut(request) => {
                    let mut change = put_change(request)?;
                    if let (true, Change::Put { value, .. }) = (self.marker, &mut change) {
                        let version = current.map_or(0, |kv| translate::split_marker(&kv.value).0);
                        *value = translate::join_marker(version + 1, value);
                    }
                    return Ok(change);
                }
                Op::RequestDeleteRange(_) => return Ok(Change::Delete),
                Op::RequestRange(_) | Op::RequestTxn(_) => {}
            }
        }
        Err(unsupported_txn())
    }
}

fn is_write(op: &Op) -> bool {
    matches!(op, Op::RequestPut(_) | Op::RequestDeleteRange(_))
}

/// Answers a branch that only reads, as of the moment when the key was looked at.
async fn reads(
    backend: &AnyBackend,
    branch: &[Op],
    succeeded: bool,
    revision: Revision,
    key: &Key,
    current: Option<&KeyValue>,
) -> Result<TxnResponse, Status> {
    let mut responses = Vec::new();
    for op in branch {
        let Op::RequestRange(request) = op else { return Err(unsupported_txn()) };
        let response = read_at(backend, request, revision, Some((key, current))).await?;
        responses.push(ResponseOp { response: Some(Answer::ResponseRange(response)) });
    }
    Ok(TxnResponse { header: header(revision), succeeded, responses })
}

/// Reads as of a moment; what is known of one key need not be read.
async fn read_at(
    backend: &AnyBackend,
    request: &RangeRequest,
    moment: Revision,
    known: Option<(&Key, Option<&KeyValue>)>,
) -> Result<RangeResponse, Status> {
    if let (Some((key, current)), 0, Target::One(asked)) =
        (known, request.revision, Target::new(&request.key, &request.range_end)?)
        && asked == *key
    {
        return Ok(one(request, moment, current));
    }
    range(backend, request, translate::at(request.revision).or(Some(moment))).await
}

/// Answers a branch whose write was carried out: reads before it see the store without it, those behind it with it.
async fn answer(
    backend: &AnyBackend,
    branch: &[Op],
    succeeded: bool,
    done: &WriteResponse,
    key: &Key,
) -> Result<TxnResponse, Status> {
    let mut responses = Vec::new();
    let mut behind = false;
    let deletes_nothing = done.prev.is_none() && branch.iter().any(|op| matches!(op, Op::RequestDeleteRange(_)));
    let before = if deletes_nothing { done.revision } else { done.revision.previous() };
    for op in branch {
        let response = match op {
            Op::RequestRange(request) if behind => {
                Answer::ResponseRange(read_at(backend, request, done.revision, None).await?)
            }
            Op::RequestRange(request) => {
                let known = Some((key, done.prev.as_ref()));
                Answer::ResponseRange(read_at(backend, request, before, known).await?)
            }
            Op::RequestPut(request) => {
                behind = true;
                let prev_kv = done.prev.as_ref().filter(|_| request.prev_kv).map(translate::kv);
                Answer::ResponsePut(PutResponse { header: header(done.revision), prev_kv })
            }
            Op::RequestDeleteRange(request) => {
                behind = true;
                let prev_kvs = done.prev.as_ref().filter(|_| request.prev_kv).map(translate::kv);
                Answer::ResponseDeleteRange(DeleteRangeResponse {
                    header: header(done.revision),
                    deleted: i64::from(done.prev.is_some()),
                    prev_kvs: prev_kvs.into_iter().collect(),
                })
            }
            Op::RequestTxn(_) => return Err(unsupported_txn()),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok(TxnResponse { header: header(done.revision), succeeded, responses })
}

/// Whether a compare holds for what a key holds.
fn holds(check: &Compare, current: Option<&KeyValue>) -> Result<bool, Status> {
    let number = |revision: fn(&KeyValue) -> i64| current.map_or(0, revision);
    let marker = translate::is_marker(&check.key);
    let ordering = match (check.target(), &check.target_union) {
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(wanted))) => {
            number(|kv| kv.create_revision.get()).cmp(wanted)
        }
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(wanted))) => number(|kv| kv.mod_revision.get()).cmp(wanted),
        (CompareTarget::Lease, Some(TargetUnion::Lease(wanted))) => {
            number(|kv| i64::from(kv.ttl.as_seconds())).cmp(wanted)
        }
        (CompareTarget::Version, Some(TargetUnion::Version(wanted))) if marker => {
            number(|kv| translate::split_marker(&kv.value).0).cmp(wanted)
        }
        // Versions are not counted; all that is known is whether it is none, the first, or a later one.
        (CompareTarget::Version, Some(TargetUnion::Version(wanted @ ..=1))) => {
            number(|kv| if kv.create_revision == kv.mod_revision { 1 } else { 2 }).cmp(wanted)
        }
        (CompareTarget::Version, None) if !marker => number(|_| 1).cmp(&0),
        (CompareTarget::Create | CompareTarget::Mod | CompareTarget::Lease, None) => number(|_| 1).cmp(&0),
        (CompareTarget::Value, Some(TargetUnion::Value(wanted))) => {
            let Some(current) = current else { return Ok(false) };
            current.value.as_ref().cmp(wanted.as_ref())
        }
        _ => return Err(unsupported_txn()),
    };
    Ok(match check.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    })
}

#[cfg(test)]
#[path = "txn_tests.rs"]
mod tests;
