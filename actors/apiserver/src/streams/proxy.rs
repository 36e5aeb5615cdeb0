//! Proxies: a request for a pod, a service or a node, sent there as it is, and the answer sent back.

use std::io;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use k3sd_client::streams::wants_upgrade;
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use serde_json::Value;

use super::html::{Links, Page};
use super::locate::{self, Location, Named};
use super::{Asked, Outcome, Security, Target, send};
use crate::front::Body;

/// Where a service's slices say whose they are.
const SERVICE_LABEL: &str = "/metadata/labels/kubernetes.io~1service-name";
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Splits a path behind `…/proxy`. What is behind is as the client wrote it.
fn split(path: &str, namespaced: bool) -> Option<(&str, &str)> {
    // Up to the subresource: /api/v1/namespaces/NS/pods/NAME/proxy, or /api/v1/nodes/NAME/proxy.
    let segments = if namespaced { 7 } else { 5 };
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(slash, _)| slash);
    path.split_at_checked(end)
}

/// Where an answer leads, as the client can follow it. `before` is the path up to `/proxy`.
fn led_back(location: &str, target: &Target, before: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let elsewhere = uri.authority().is_some_and(|authority| {
        authority.as_str() != target.authority() && authority.as_str() != target.host.as_str()
    });
    let path = uri.path();
    if elsewhere || !location.starts_with('/') && uri.authority().is_none() || path.starts_with(before) {
        return None;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{before}{path}{query}"))
}

impl Asked<'_> {
    async fn slices(&self, namespace: &str, service: &str) -> Result<Vec<Value>, Status> {
        let store = self.stores.get("discovery.k8s.io", "endpointslices");
        let store = store.ok_or_else(|| Status::service_unavailable("endpointslices are not served yet"))?;
        let snapshot = store.snapshot();
        let values = snapshot.in_namespace(namespace).map(Object::value);
        let is_its = |slice: &Value| slice.pointer(SERVICE_LABEL).and_then(Value::as_str) == Some(service);
        Ok(values.filter(is_its).collect())
    }

    /// Where the request goes.
    async fn proxied(&self, named: Named<'_>) -> Result<(Target, Security), Status> {
        let info = self.info;
        match info.resource.as_str() {
            "pods" => locate::pod(&self.object("pods", &info.namespace, named.name).await?, named),
            "nodes" => locate::node(&self.object("nodes", "", named.name).await?, named),
            _ => {
                let service = self.object("services", &info.namespace, named.name).await?;
                let slices = self.slices(&info.namespace, named.name).await?;
                let random = self.clock.rng("streams/proxy").next_u64();
                locate::service(&service, &slices, named, random)
            }
        }
    }
}

/// Sends a request where it belongs.
///
/// # Errors
/// There is no such object, it can't be reached, or nobody answers.
pub(super) async fn answer<B>(asked: Asked<'_>, body: B) -> Outcome
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (info, parts) = (asked.info, asked.parts);
    let kind = info.resource.trim_end_matches('s');
    let (target, security) = asked.proxied(locate::named(&info.name, kind)?).await?;
    let split = split(parts.uri.path(), info.resource != "nodes");
    let (before, behind) = split.ok_or_else(|| Status::bad_request("the path of a proxy ends in it"))?;
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if behind.is_empty() { format!("/{query}") } else { format!("{behind}{query}") };
    let location = Location { target, security, path };
    if wants_upgrade(&parts.headers) {
        return asked.led(&location).await;
    }
    if behind.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
        // Links in what is there are relative to a directory.
        let mut response = Response::new(Body::whole(Bytes::new()));
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let to = HeaderValue::from_str(&format!("{before}/{query}")).map_err(Status::internal_error)?;
        response.headers_mut().insert(LOCATION, to);
        return Ok(response);
    }
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = location.path.parse().map_err(|_| Status::bad_request("the path can't be passed on"))?;
    let mut headers = asked.headers_on(&location)?;
    if let Ok(uri) = HeaderValue::from_str(&format!("{before}{behind}")) {
        headers.insert(FORWARDED_URI, uri);
    }
    if let Some(host) = parts.headers.get(http::header::HOST) {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    *request.headers_mut() = headers;
    let unreachable = |error: io::Error| Status::service_unavailable(format!("error trying to reach service: {error}"));
    let answered = send(asked.link, &location, request).await.map_err(unreachable)?;
    let (code, mut headers) = (answered.status(), k3sd_client::streams::passed_on(answered.headers()));
    let to = headers.get(LOCATION).and_then(|to| to.to_str().ok());
    let to = to.and_then(|to| led_back(to, &location.target, before));
    if let Some(to) = to.and_then(|to| HeaderValue::from_str(&to).ok()) {
        headers.insert(LOCATION, to);
    }
    let is_page = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/html");
    let rewritten = headers.get(CONTENT_TYPE).is_some_and(is_page) && !headers.contains_key(CONTENT_ENCODING);
    let body = answered.into_body().map_err(io::Error::other);
    let body = if rewritten {
        headers.remove(CONTENT_LENGTH);
        let (target, before) = (location.target, before.to_owned());
        let links = Links::new(Box::new(move |link| led_back(link, &target, &before)));
        Body::passed(Page::new(body, links))
    } else {
        Body::passed(body)
    };
    let mut response = Response::new(body);
    (*response.status_mut(), *response.headers_mut()) = (code, headers);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_passed_on_as_they_were_written() {
        let pod = "/api/v1/namespaces/n/pods/p:80/proxy";
        assert_eq!(split(pod, true), Some((pod, "")));
        assert_eq!(split(&format!("{pod}/"), true), Some((pod, "/")));
        assert_eq!(split(&format!("{pod}/a%2Fb//c/"), true), Some((pod, "/a%2Fb//c/")));
        let node = "/api/v1/nodes/n/proxy";
        assert_eq!(split(&format!("{node}/metrics"), false), Some((node, "/metrics")));
    }

    #[test]
    fn redirects_lead_back_through_the_proxy() {
        let target = Target { host: "10.42.0.5".to_owned(), port: 8080, kubelet_of: None };
        let before = "/api/v1/namespaces/n/pods/p/proxy";
        for (location, wanted) in [
            ("/a/b?c=d", Some("/a/b?c=d")),
            ("http://10.42.0.5:8080/a/", Some("/a/")),
            ("http://10.42.0.5/", Some("/")),
            ("http://example.com/a", None),
            ("a/b", None),
            ("/api/v1/namespaces/n/pods/p/proxy/x", None),
        ] {
            let wanted = wanted.map(|path| format!("{before}{path}"));
            assert_eq!(led_back(location, &target, before), wanted, "{location}");
        }
    }
}
