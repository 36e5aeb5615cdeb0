//! Versions that others answer for: another server, or another part of this process.

use bytes::Bytes;
use http::{Request, Response};
use k3sd_apiserver_access::{RequestInfo, User};
use k3sd_objects::status::{Qualified, Status};

use super::{Asked, Outcome, Pipeline, answer};
use crate::aggregation::{Passed, Route, pass};
use crate::front::Body;

impl Pipeline {
    /// Has somebody else answer.
    pub(super) async fn elsewhere<B>(
        &self,
        user: &User,
        asked: &Asked<'_>,
        info: &RequestInfo,
        route: Route,
        body: B,
    ) -> Outcome
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (config, stores, clock) = (&self.0.parts.config.aggregation, self.0.parts.api.stores(), self.clock());
        let local = match route {
            Route::Elsewhere(to) => {
                return Ok(pass(Passed { config, stores, clock, user, parts: asked.parts }, &to, body).await);
            }
            Route::Local(local) => local,
        };
        if info.verb == "watch" {
            return Err(Status::method_not_allowed(Qualified::new(&info.group, &info.resource), "watch"));
        }
        let body = self.read(&asked.parts.headers, body).await?;
        let mut request = Request::new(body);
        *request.method_mut() = asked.parts.method.clone();
        *request.uri_mut() = asked.parts.uri.clone();
        *request.headers_mut() = asked.parts.headers.clone();
        let (parts, body) = local.ask(request).await.into_parts();
        let (body, zipped) = Body::whole_or_zipped(body, answer::takes_gzip(&asked.parts.headers));
        Ok(answer::encoded(Response::from_parts(parts, body), zipped))
    }
}
