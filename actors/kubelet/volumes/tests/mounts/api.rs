//! An API as far as volumes ask: objects by path, lists and watches of single ones, and tokens.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use k3sd_client::api::Connect;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What there is, by path as in `/api/v1/namespaces/n/configmaps/c`. Each change gives the whole a higher version.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Tokens that were asked for.
    tokens: u64,
    /// How long they live, in seconds.
    token_seconds: i64,
}

/// A server of that world.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    world: Arc<watch::Sender<World>>,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self { world: Arc::new(watch::Sender::new(World { version: 1, token_seconds: 3600, ..World::default() })) }
    }

    pub(crate) fn connect(&self) -> Connect {
        Connect::over(self.clone())
    }

    /// Puts an object there, or another in its place.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        self.world.send_modify(|world| {
            world.version += 1;
            object["metadata"]["resourceVersion"] = json!(world.version.to_string());
            world.objects.insert(path.to_owned(), object);
        });
    }

    pub(crate) fn delete(&self, path: &str) {
        self.world.send_modify(|world| {
            world.version += 1;
            world.objects.remove(path);
        });
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.world.borrow().objects.get(path).cloned()
    }

    /// All Events that were written down.
    pub(crate) fn events(&self) -> Vec<Value> {
        let world = self.world.borrow();
        world.objects.iter().filter(|(path, _)| path.contains("/events/")).map(|(_, event)| event.clone()).collect()
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.world.borrow().tokens
    }

    pub(crate) fn token_seconds(&self, seconds: i64) {
        self.world.send_modify(|world| world.token_seconds = seconds);
    }

    async fn answer(self, request: Request<Body>) -> Response<BoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if path.ends_with("/token") {
            return self.token();
        }
        if let Some(name) = selected(&query) {
            let whole = format!("{path}/{name}");
            return if query.contains("watch=true") { self.watch(&whole, &query).await } else { self.list(&whole) };
        }
        match head.method {
            Method::GET => self.get(&path).map_or_else(|| missing(&path), |object| reply(StatusCode::OK, &object)),
            Method::POST | Method::PUT => {
                let object: Value = serde_json::from_slice(&body).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let whole = if head.method == Method::POST { format!("{path}/{name}") } else { path };
                self.put(&whole, object);
                reply(StatusCode::OK, &self.get(&whole).unwrap())
            }
            Method::PATCH => {
                let patch: Value = serde_json::from_slice(&body).unwrap();
                let path = path.trim_end_matches("/status").to_owned();
                let Some(mut object) = self.get(&path) else { return missing(&path) };
                merge(&mut object, &patch);
                self.put(&path, object);
                reply(StatusCode::OK, &self.get(&path).unwrap())
            }
            _ => missing(&path),
        }
    }

    fn token(&self) -> Response<BoxBody<Bytes, Infallible>> {
        let (mut count, mut seconds) = (0, 0);
        self.world.send_modify(|world| {
            world.tokens += 1;
            (count, seconds) = (world.tokens, world.token_seconds);
        });
        // A simulated wall clock begins here. Each token ends later than the one before, as if it was asked for when that ended.
        let lives = seconds * i64::try_from(count).unwrap();
        let expires = jiff::Timestamp::from_second(1_893_456_000 + lives).unwrap().to_string();
        let status = json!({"token": format!("token-{count}"), "expirationTimestamp": expires});
        let spec = json!({"audiences": []});
        let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec, "status": status});
        reply(StatusCode::CREATED, &answer)
    }

    fn list(&self, path: &str) -> Response<BoxBody<Bytes, Infallible>> {
        let world = self.world.borrow();
        let items: Vec<_> = world.objects.get(path).into_iter().collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": world.version.to_string()}, "items": items});
        reply(StatusCode::OK, &list)
    }

    /// Answers with one event and ends: the client comes again for the next.
    async fn watch(&self, path: &str, query: &str) -> Response<BoxBody<Bytes, Infallible>> {
        let since = parameter(query, "resourceVersion").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let newer = |object: Option<&Value>| {
            let version = object.and_then(|object| object["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok());
            version.is_some_and(|version| version > since)
        };
        let had = self.get(path);
        let mut world = self.world.subscribe();
        let world = world
            .wait_for(|world| newer(world.objects.get(path)) || had.is_some() && !world.objects.contains_key(path));
        let world = world.await.unwrap().clone();
        let event = match (world.objects.get(path), had) {
            (Some(object), _) => json!({"type": "MODIFIED", "object": object}),
            (None, Some(mut gone)) => {
                gone["metadata"]["resourceVersion"] = json!(world.version.to_string());
                json!({"type": "DELETED", "object": gone})
            }
            (None, None) => Value::Null,
        };
        reply(StatusCode::OK, &event)
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

fn selected(query: &str) -> Option<String> {
    let selector = parameter(query, "fieldSelector")?.replace("%3D", "=");
    selector.strip_prefix("metadata.name=").map(str::to_owned)
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    for (key, value) in fields {
        merge(&mut object[key.as_str()], value);
    }
}

fn reply(status: StatusCode, object: &Value) -> Response<BoxBody<Bytes, Infallible>> {
    let body = Full::new(Bytes::from(format!("{object}\n"))).boxed();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn missing(path: &str) -> Response<BoxBody<Bytes, Infallible>> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": format!("{name:?} not found"), "metadata": {}});
    reply(StatusCode::NOT_FOUND, &status)
}

impl tower_service::Service<Request<Body>> for Api {
    type Response = Response<BoxBody<Bytes, Infallible>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}
