//! The small services: the cluster of one, and the server's state.

use k3sd_datastore::{AnyBackend, Backend as _, KeyRange, ListRequest, Revision};
use tonic::{Request, Response, Status};

use super::desk::Desk;
use crate::translate::{self, header, status_of};
use crate::wire::etcdserverpb::cluster_server::Cluster;
use crate::wire::etcdserverpb::maintenance_server::Maintenance;
use crate::wire::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, HashKvRequest, HashKvResponse, Member,
    MemberListRequest, MemberListResponse, StatusRequest, StatusResponse,
};

pub(super) async fn status_of_store(desk: &Desk) -> Result<k3sd_datastore::Status, Status> {
    desk.backend().await?.status().await.map_err(|error| status_of(&error))
}

/// How many keys are read at once to make a number of them.
const HASH_PAGE_KEYS: usize = 1000;

/// One member: us, under the name that the client used.
pub(crate) struct ClusterService {
    pub(crate) desk: Desk,
    /// As the client sees us: scheme and authority.
    pub(crate) url: String,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(&self, _: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let revision = status_of_store(&self.desk).await?.revision;
        let url = vec![self.url.clone()];
        let member = Member { name: "kine".to_owned(), peer_urls: url.clone(), client_urls: url, ..Member::default() };
        Ok(Response::new(MemberListResponse { header: header(revision), members: vec![member] }))
    }
}

/// The server's state.
pub(crate) struct MaintenanceService {
    pub(crate) desk: Desk,
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn unsigned(revision: Revision) -> u64 {
    u64::try_from(revision.get()).unwrap_or(0)
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = status_of_store(&self.desk).await?;
        Ok(Response::new(StatusResponse {
            header: header(status.revision),
            version: self.desk.advertised().version.clone(),
            db_size: signed(status.size_bytes),
            db_size_in_use: signed(status.size_bytes.saturating_sub(status.free_bytes)),
            raft_index: unsigned(status.revision),
            raft_applied_index: unsigned(status.revision),
            raft_term: 1,
            ..StatusResponse::default()
        }))
    }

    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        if request.into_inner().action != 0 {
            return Err(Status::unimplemented("etcdserver: alarms can't be changed, there are none"));
        }
        let revision = status_of_store(&self.desk).await?.revision;
        Ok(Response::new(AlarmResponse { header: header(revision) }))
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        // Space is given back without being asked: by our own store after each compaction, by servers in their ways.
        let revision = status_of_store(&self.desk).await?.revision;
        Ok(Response::new(DefragmentResponse { header: header(revision) }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let backend = self.desk.backend().await?;
        let status = backend.status().await.map_err(|error| status_of(&error))?;
        let at = translate::at(request.into_inner().revision).unwrap_or(status.revision);
        let hash = hash_of_keys(&backend, at).await?;
        let compact_revision = status.compacted.get();
        Ok(Response::new(HashKvResponse { header: header(status.revision), hash, compact_revision }))
    }
}

/// A number that is the same wherever the same keys hold the same values of the same revisions, as of one revision. It
/// compares stores of ours; etcd's own numbers are made otherwise.
async fn hash_of_keys(backend: &AnyBackend, at: Revision) -> Result<u32, Status> {
    let mut hash = Hash::new();
    let mut listing = ListRequest { at: Some(at), limit: Some(HASH_PAGE_KEYS), ..ListRequest::new(KeyRange::all()) };
    loop {
        let page = backend.list(listing.clone()).await.map_err(|error| status_of(&error))?;
        for kv in &page.kvs {
            hash.add(kv.key.as_bytes());
            hash.add(&kv.value);
            hash.add(&kv.create_revision.get().to_be_bytes());
            hash.add(&kv.mod_revision.get().to_be_bytes());
            hash.add(&kv.ttl.as_seconds().to_be_bytes());
        }
        listing.after = page.kvs.last().map(|kv| kv.key.clone());
        if !page.more || listing.after.is_none() {
            return Ok(hash.get());
        }
    }
}

/// FNV-1a, with the length behind each part, so that parts can't flow into each other.
struct Hash(u32);

impl Hash {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn add(&mut self, part: &[u8]) {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes();
        for byte in part.iter().chain(&length) {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn get(&self) -> u32 {
        self.0
    }
}
