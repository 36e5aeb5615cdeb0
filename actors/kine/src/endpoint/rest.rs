//! The small services: the cluster of one, the server's state, health.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::{self, StreamExt as _};
use k3sd_datastore::{Backend as _, Revision};
use tonic::{Request, Response, Status};

use super::desk::Desk;
use crate::translate::{header, status_of};
use crate::wire::etcdserverpb::cluster_server::Cluster;
use crate::wire::etcdserverpb::maintenance_server::Maintenance;
use crate::wire::etcdserverpb::{
    AlarmRequest, AlarmResponse, Member, MemberListRequest, MemberListResponse, StatusRequest, StatusResponse,
};
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::health::health_server::Health;
use crate::wire::health::{HealthCheckRequest, HealthCheckResponse};

pub(super) async fn status_of_store(desk: &Desk) -> Result<k3sd_datastore::Status, Status> {
    desk.backend().await?.status().await.map_err(|error| status_of(&error))
}

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
            version: self.desk.advertised.version.clone(),
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
}

/// Serving, as long as anybody answers.
pub(crate) struct HealthService;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(serving()))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // The state never changes, so after the first answer there is only silence.
        Ok(Response::new(Box::pin(stream::iter([Ok(serving())]).chain(stream::pending()))))
    }
}
