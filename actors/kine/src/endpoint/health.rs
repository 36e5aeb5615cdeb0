//! gRPC's health service: whether the store is open.

use std::pin::Pin;

use futures_util::stream::{self, Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::desk::Desk;
use super::router::services;
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::health::health_server::Health;
use crate::wire::health::{HealthCheckRequest, HealthCheckResponse};

/// See the module's page.
pub(crate) struct HealthService {
    pub(crate) desk: Desk,
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn status(is_open: bool) -> ServingStatus {
    if is_open { ServingStatus::Serving } else { ServingStatus::NotServing }
}

/// No name stands for the server as a whole. All services fare alike.
fn is_known(service: &str) -> bool {
    service.is_empty() || services().any(|name| name == service)
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(response(status(self.desk.store().is_open()))))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !is_known(&request.get_ref().service) {
            // As the protocol wants it: the service might come yet.
            let unknown = stream::iter([Ok(response(ServingStatus::ServiceUnknown))]);
            return Ok(Response::new(Box::pin(unknown.chain(stream::pending()))));
        }
        let session = (self.desk.store().clone(), None);
        let told = stream::unfold(session, async |(mut store, told)| {
            let is_open = store.open_differs_from(told).await?;
            Some((Ok(response(status(is_open))), (store, Some(is_open))))
        });
        Ok(Response::new(Box::pin(told)))
    }
}
