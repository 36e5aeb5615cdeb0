//! An API server as far as a DNS asks one: lists, watches, Events that are written.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use k3sd_client::api::Connect;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What there is, and what became of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    /// Path, version, and line.
    log: Vec<(String, u64, String)>,
    /// Messages of Events.
    pub(crate) events: Vec<String>,
}

/// The server. Clones share what there is.
#[derive(Clone, Debug)]
pub(crate) struct Api(Arc<watch::Sender<State>>);

impl Api {
    pub(crate) fn new() -> Self {
        let api = Self(Arc::new(watch::channel(State::default()).0));
        api.put("/api/v1/namespaces", json!({"metadata": {"name": "shop"}}));
        api
    }

    pub(crate) fn connect(&self) -> Connect {
        Connect::over(self.clone())
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, holds: impl Fn(&State) -> bool) {
        self.0.subscribe().wait_for(|state| holds(state)).await.expect("it is there");
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) {
        self.0.send_modify(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let key = (path.to_owned(), name(&object));
            let kind = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
            state.log.push((path.to_owned(), state.version, json!({"type": kind, "object": object}).to_string()));
            state.objects.insert(key, object.clone());
        });
    }

    pub(crate) fn delete(&self, path: &str, which: &str) {
        self.0.send_modify(|state| {
            state.version += 1;
            let found = state.objects.keys().find(|(of, name)| of == path && name.ends_with(which)).cloned();
            let Some(mut object) = found.and_then(|key| state.objects.remove(&key)) else { return };
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.log.push((path.to_owned(), state.version, json!({"type": "DELETED", "object": object}).to_string()));
        });
    }

    pub(crate) fn service(&self, name: &str, spec: Value) {
        self.put("/api/v1/services", json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}));
    }

    pub(crate) fn slice(&self, name: &str, service: &str, addresses: &[&str]) {
        let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        let labels = json!({"kubernetes.io/service-name": service});
        let object = json!({"metadata": {"name": name, "namespace": "shop", "labels": labels}, "addressType": "IPv4",
            "endpoints": endpoints, "ports": [{"name": "http", "protocol": "TCP", "port": 80}]});
        self.put("/apis/discovery.k8s.io/v1/endpointslices", object);
    }

    pub(crate) fn config_map(&self, name: &str, data: &[(&str, &str)]) {
        let data: BTreeMap<_, _> = data.iter().copied().collect();
        let object = json!({"metadata": {"name": name, "namespace": "kube-system", "uid": name}, "data": data});
        self.put("/api/v1/namespaces/kube-system/configmaps", object);
    }

    fn list(&self, path: &str, only: Option<&str>) -> Value {
        let state = self.0.borrow();
        let meant =
            state.objects.iter().filter(|((of, name), _)| of == path && only.is_none_or(|only| name.ends_with(only)));
        let items: Vec<&Value> = meant.map(|(_, object)| object).collect();
        json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items})
    }
}

fn name(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

type Answer = BoxBody<Bytes, Infallible>;

struct Lines(Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync>>);

impl futures_util::Stream for Lines {
    type Item = Result<Frame<Bytes>, Infallible>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// The changes of a path behind a version, as they come.
fn changes(api: &Api, path: String, only: Option<String>, version: u64) -> Lines {
    let receiver = api.0.subscribe();
    let lines = futures_util::stream::unfold((receiver, version), move |(mut receiver, seen)| {
        let (path, only) = (path.clone(), only.clone());
        async move {
            let is_meant = |(of, version, line): &&(String, u64, String)| {
                let quoted = |only: &String| line.contains(&format!("\"name\":\"{only}\""));
                *of == path && *version > seen && only.as_ref().is_none_or(quoted)
            };
            let state = receiver.wait_for(|state| state.log.iter().any(|entry| is_meant(&entry))).await.ok()?.clone();
            let (_, version, line) = state.log.iter().find(is_meant)?;
            Some((Ok(Frame::data(Bytes::from(format!("{line}\n")))), (receiver, *version)))
        }
    });
    Lines(Box::pin(lines))
}

impl tower_service::Service<Request<Body>> for Api {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let path = parts.uri.path().to_owned();
            let query = parts.uri.query().unwrap_or_default().to_owned();
            let field = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)).map(str::to_owned);
            let only = field("fieldSelector=metadata.name%3D").or_else(|| field("&fieldSelector=metadata.name="));
            if parts.method == Method::POST {
                let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let message = object["message"].as_str().unwrap_or_default().to_owned();
                api.0.send_modify(|state| state.events.push(message));
                return Ok(Response::new(Full::new(bytes).boxed()));
            }
            if query.contains("watch=true") {
                let version = field("resourceVersion=").and_then(|text| text.parse().ok()).unwrap_or_default();
                return Ok(Response::new(StreamBody::new(changes(&api, path, only, version)).boxed()));
            }
            let text = api.list(&path, only.as_deref()).to_string();
            Ok(Response::new(Full::new(Bytes::from(text)).boxed()))
        })
    }
}
