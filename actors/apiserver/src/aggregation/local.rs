//! The server as its own client, for what it writes about APIServices.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use k3sd_apiserver_access::User;
use k3sd_objects::status::{Reason, Status};
use serde_json::Value;
use tower_service::Service as _;

use crate::pipeline::{LocalService, Pipeline};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Requests of the server to itself, as the user that upstream has for them.
#[derive(Clone, Debug)]
pub(crate) struct Inside(LocalService);

impl Inside {
    pub(crate) fn new(pipeline: &Pipeline) -> Self {
        Self(pipeline.local(User::new("system:apiserver", &["system:masters", "system:authenticated"])))
    }

    /// Sends an object, or nothing.
    ///
    /// # Errors
    /// The status that the server answered.
    pub(super) async fn send(&self, method: Method, path: &str, object: Option<&Value>) -> Result<(), Status> {
        let json = HeaderValue::from_static("application/json");
        let body = object.map(Value::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header(ACCEPT, &json).header(CONTENT_TYPE, json);
        let request = request.body(Full::new(Bytes::from(body))).map_err(Status::internal_error)?;
        let mut service = self.0.clone();
        let Ok(answer) = service.call(request).await;
        let code = answer.status().as_u16();
        if answer.status().is_success() {
            return Ok(());
        }
        let read = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = read.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let why = told["message"].as_str().unwrap_or("no reason was given").to_owned();
        Err(Status::failure(i32::from(code), Reason::Unknown, why))
    }
}
