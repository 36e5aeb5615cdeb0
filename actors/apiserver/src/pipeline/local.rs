//! The same way for parts of this process: a service without a socket.

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use k3sd_apiserver_access::User;

use super::{Peer, Pipeline, method_word};
use crate::front::Body;

/// What those are called who don't say so, as owners of the fields that they write: K3s's own loops have the name of its
/// binary there.
const OWN_NAME: &str = "k3s";

/// A client of the server inside this process. It is known as one user, and may do what that user may.
#[derive(Clone)]
pub struct LocalService {
    pipeline: Pipeline,
    peer: Arc<Peer>,
    user_agent: Option<HeaderValue>,
}

impl fmt::Debug for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalService")
    }
}

impl LocalService {
    pub(super) fn new(pipeline: Pipeline, user: User) -> Self {
        let user_agent = HeaderValue::from_str(&format!("{OWN_NAME}/{}", pipeline.0.parts.config.version)).ok();
        Self { pipeline, peer: Arc::new(Peer::local(user)), user_agent }
    }
}

impl<B> tower_service::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if *self.pipeline.draining().borrow() {
            let status = k3sd_objects::status::Status::service_unavailable("apiserver is shutting down");
            return Box::pin(ready(Ok(super::answer::status(&Default::default(), &status))));
        }
        let Self { pipeline, peer, user_agent } = self.clone();
        if let Some(user_agent) = user_agent {
            request.headers_mut().entry(USER_AGENT).or_insert(user_agent);
        }
        Box::pin(async move {
            let (began, method) = (pipeline.clock().now(), method_word(request.method()));
            let answer = pipeline.answer(&peer, request).await;
            let took = pipeline.clock().now().since(began);
            pipeline.0.metrics.called(method, answer.status().as_u16(), took);
            Ok(answer)
        })
    }
}
