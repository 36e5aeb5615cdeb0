//! Writing: one transaction on the revision of one key.

use bytes::Bytes;
use futures_util::stream;

use super::Link;
use super::cluster::{CallError, Repeat};
use super::convert;
use super::query::revision_of;
use super::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use super::wire::kv_client::KvClient;
use super::wire::lease_client::LeaseClient;
use super::wire::request_op::Request;
use super::wire::response_op::Response;
use super::wire::{
    self, CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use crate::error::{Conflict, Op, StoreError, check_compactable, check_writable};
use crate::request::{Change, CompactResponse, Precondition, WriteRequest, WriteResponse};
use crate::types::{Key, Revision, Ttl};

/// How often another lease is tried. Each draws a number that nobody should have.
const LEASES_MAX: u32 = 5;

/// The conditions under which etcd makes the change.
fn compares(key: &Bytes, precondition: Precondition) -> Vec<Compare> {
    let compare = |target: CompareTarget, result: CompareResult, value| Compare {
        result: result.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(value),
    };
    let created = |result, revision| compare(CompareTarget::Create, result, TargetUnion::CreateRevision(revision));
    let written = |revision: Revision| {
        compare(CompareTarget::Mod, CompareResult::Equal, TargetUnion::ModRevision(revision.get()))
    };
    match precondition {
        Precondition::None => vec![],
        Precondition::Absent => vec![created(CompareResult::Equal, 0)],
        // To etcd a key that is not there was last written at 0.
        Precondition::At(revision) => vec![written(revision), created(CompareResult::Greater, 0)],
    }
}

fn transaction(request: &WriteRequest, lease: i64) -> TxnRequest {
    let WriteRequest { key, change, precondition } = request;
    let key = Bytes::copy_from_slice(key.as_bytes());
    let make = match change {
        Change::Put { value, .. } => {
            Request::RequestPut(PutRequest { key: key.clone(), value: value.clone(), lease, prev_kv: true })
        }
        Change::Delete => Request::RequestDeleteRange(DeleteRangeRequest { key: key.clone(), prev_kv: true }),
    };
    let compare = compares(&key, *precondition);
    let look = Request::RequestRange(RangeRequest { key, ..RangeRequest::default() });
    let op = |request| vec![RequestOp { request: Some(request) }];
    TxnRequest { compare, success: op(make), failure: op(look) }
}

/// What became of the transaction.
fn outcome(request: WriteRequest, response: TxnResponse) -> Result<WriteResponse, StoreError> {
    let WriteRequest { key, precondition, .. } = request;
    let revision = revision_of(response.header.as_ref());
    let found = response.responses.into_iter().next().and_then(|op| op.response);
    let found: Option<wire::KeyValue> = match found {
        Some(Response::ResponseRange(mut range)) => range.kvs.pop(),
        Some(Response::ResponsePut(put)) => put.prev_kv,
        Some(Response::ResponseDeleteRange(mut delete)) => delete.prev_kvs.pop(),
        None => None,
    };
    let found = found.map(convert::key_value);
    if response.succeeded {
        return Ok(WriteResponse { revision, prev: found });
    }
    let conflict = Conflict { key, expected: precondition, current: found, revision };
    Err(StoreError::Conflict(Box::new(conflict)))
}

impl Link {
    /// Answers when etcd has written, and the watchers of this process were told.
    pub(super) async fn write(&self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        check_writable(&request.key)?;
        let ttl = match request.change {
            Change::Put { ttl, .. } => ttl,
            Change::Delete => Ttl::NONE,
        };
        let mut leases = 0;
        let response = loop {
            let lease = if ttl.is_none() { 0 } else { self.grant(ttl).await? };
            let transaction = transaction(&request, lease);
            let ask = |line| {
                let transaction = transaction.clone();
                async move { KvClient::new(line).txn(transaction).await }
            };
            match self.cluster.call(Op::Write, Repeat::No, ask).await {
                Ok(response) => break response,
                // A short lease can end before the cluster has found a leader to write with it.
                Err(CallError::Lease) if leases < LEASES_MAX => leases += 1,
                Err(error) => return Err(error.into_store(Op::Write)),
            }
        };
        let response = outcome(request, response)?;
        // It is durable whatever became of the watchers.
        self.live.reached(response.revision).await;
        Ok(response)
    }

    /// A lease for one write. If that write comes to nothing, the lease ends in its time and takes nothing with it.
    async fn grant(&self, ttl: Ttl) -> Result<i64, StoreError> {
        let op = Op::Write;
        let mut refused = None;
        for _ in 0..LEASES_MAX {
            let id = self.leases.draw(ttl);
            let request = LeaseGrantRequest { ttl: i64::from(ttl.as_seconds()), id };
            // A lease that may have been granted is as good as none: the next attempt draws another number.
            let ask = |line| async move { LeaseClient::new(line).lease_grant(request).await };
            match self.cluster.call(op, Repeat::Yes, ask).await {
                Ok(granted) => return Ok(granted.id),
                Err(error @ CallError::Lease) => refused = Some(error),
                Err(error) => return Err(error.into_store(op)),
            }
            self.leases.jump();
        }
        Err(refused.unwrap_or(CallError::Lease).into_store(op))
    }

    /// Renews the lease of a key's last write.
    pub(super) async fn renew(&self, key: &Key) -> Result<(), StoreError> {
        let op = Op::Write;
        let Some(id) = self.lease_of(op, key).await? else { return Ok(()) };
        let ask = |line| async move {
            let once = stream::iter([LeaseKeepAliveRequest { id }]);
            let mut answers = LeaseClient::new(line).lease_keep_alive(once).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(tonic::Response::new).ok_or_else(|| tonic::Status::unavailable("no answer"))
        };
        self.cluster.call(op, Repeat::Yes, ask).await.map(|_| ()).map_err(|error| error.into_store(op))
    }

    /// Drops history, and answers when etcd has.
    pub(super) async fn compact(&self, target: Revision) -> Result<CompactResponse, StoreError> {
        let op = Op::Compact;
        let current = self.revision(op).await?;
        let compacted = if target <= Revision::ZERO { self.compacted(op).await? } else { self.compacted_known() };
        check_compactable(target, compacted, current)?;
        // Watchers get what was there before a change from history that is about to go.
        self.live.reached(target).await;
        let request = CompactionRequest { revision: target.get(), physical: true };
        let ask = |line| async move { KvClient::new(line).compact(request).await };
        match self.cluster.call(op, Repeat::No, ask).await {
            Ok(response) => {
                self.note_compacted(target);
                Ok(CompactResponse { revision: revision_of(response.header.as_ref()), compacted: target })
            }
            Err(CallError::Compacted) => {
                let compacted = self.compacted(op).await?;
                Err(StoreError::Compacted { requested: target, compacted })
            }
            Err(error) => Err(error.into_store(op)),
        }
    }
}
