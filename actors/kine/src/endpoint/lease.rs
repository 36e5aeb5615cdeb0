//! Leases, as far as times to live carry them; see `expiry/core.rs`.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use k3sd_datastore::{AnyBackend, Backend as _, GetRequest, Key, Remedy, Revision, Ttl};
use tonic::{Request, Response, Status, Streaming};

use super::desk::Desk;
use super::rest::status_of_store;
use crate::expiry::{ExpiryMsg, PLAIN_MAX, Refusal};
use crate::translate::{header, status_of};
use crate::wire::etcdserverpb::lease_server::Lease;
use crate::wire::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};

/// See the module's page.
pub(crate) struct LeaseService {
    pub(crate) desk: Desk,
}

fn not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Taken => Status::failed_precondition("etcdserver: lease already exists"),
        Refusal::Plain => Status::invalid_argument(format!(
            "etcdserver: the number of a lease must be greater than {PLAIN_MAX}; less is only a time to live here"
        )),
    }
}

fn seconds(ttl: Ttl) -> i64 {
    i64::from(ttl.as_seconds())
}

async fn revision(desk: &Desk) -> Result<Revision, Status> {
    Ok(status_of_store(desk).await?.revision)
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let ttl = u32::try_from(request.ttl).ok().filter(|seconds| *seconds > 0);
        let ttl = Ttl::seconds(ttl.ok_or_else(|| Status::out_of_range("etcdserver: too large lease TTL"))?);
        let id = match request.id {
            0 => {
                let drawn = self.desk.ask(|reply| ExpiryMsg::Grant { ttl, reply }).await?;
                drawn.ok_or_else(|| Status::resource_exhausted("etcdserver: no lease is left for so many seconds"))?
            }
            id => {
                let granted = self.desk.ask(|reply| ExpiryMsg::GrantAs { id, ttl, reply }).await?;
                granted.map(|()| id).map_err(refused)?
            }
        };
        let header = header(revision(&self.desk).await?);
        Ok(Response::new(LeaseGrantResponse { header, id, ttl: request.ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let lease = request.into_inner().id;
        let revoked = self.desk.ask(|reply| ExpiryMsg::Revoke { lease, reply }).await?.ok_or_else(not_found)?;
        let backend = self.desk.backend().await?;
        for key in revoked.keys {
            delete(&backend, key, revoked.ttl).await?;
        }
        Ok(Response::new(LeaseRevokeResponse { header: header(revision(&self.desk).await?) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let session = (request.into_inner(), self.desk.clone());
        let answers = stream::unfold(session, async |(mut requests, desk)| {
            let request = requests.next().await?;
            let answer = match request {
                Ok(request) => keep_alive(&desk, request.id).await,
                Err(status) => Err(status),
            };
            Some((answer, (requests, desk)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let found = self.desk.ask(|reply| ExpiryMsg::Look { lease: id, reply }).await?;
        let header = header(revision(&self.desk).await?);
        let Some((lease, left)) = found else {
            return Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() }));
        };
        let names = lease.keys.iter().filter(|_| keys).map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        let ttl = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let granted_ttl = seconds(lease.ttl);
        Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys: names }))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        let ids = self.desk.ask(|reply| ExpiryMsg::Leases { reply }).await?;
        let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: header(revision(&self.desk).await?), leases }))
    }
}

async fn keep_alive(desk: &Desk, lease: i64) -> Result<LeaseKeepAliveResponse, Status> {
    let kept = desk.ask(|reply| ExpiryMsg::KeepAlive { lease, reply }).await?;
    let (ttl, keys) = kept.unwrap_or_default();
    if !keys.is_empty() {
        let backend = desk.backend().await?;
        for key in keys {
            backend.renew(key).await.map_err(|error| status_of(&error))?;
        }
    }
    let header = header(revision(desk).await?);
    Ok(LeaseKeepAliveResponse { header, id: lease, ttl: seconds(ttl) })
}

/// Deletes a key of a revoked lease, unless it was written without that lease in the meantime.
async fn delete(backend: &AnyBackend, key: Key, ttl: Ttl) -> Result<(), Status> {
    let request = GetRequest { key: key.clone(), at: None };
    let found = backend.get(request).await.map_err(|error| status_of(&error))?.kv;
    let Some(kv) = found.filter(|kv| kv.ttl == ttl) else { return Ok(()) };
    match backend.delete(key, Some(kv.mod_revision)).await {
        Err(error) if error.remedy() != Remedy::Reread => Err(status_of(&error)),
        Ok(_) | Err(_) => Ok(()),
    }
}
