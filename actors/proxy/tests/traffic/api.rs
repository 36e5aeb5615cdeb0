//! As much of an API as informers ask for: objects that are listed and watched. The real one is in a crate that this one
//! must not know.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use k3sd_client::api::Connect;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Everything there is, and everything that ever happened: plural, kind of event, object.
#[derive(Default)]
struct History {
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(String, &'static str, Value)>,
}

/// The API; clones are the same one.
#[derive(Clone)]
pub(crate) struct Api(Arc<watch::Sender<History>>);

fn plural(object: &Value) -> String {
    object["kind"].as_str().unwrap().to_lowercase() + "s"
}

fn key(object: &Value) -> (String, String) {
    let meta = &object["metadata"];
    let part = |name: &str| meta[name].as_str().unwrap_or_default();
    (plural(object), format!("{}/{}", part("namespace"), part("name")))
}

impl Api {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(History::default())))
    }

    pub(crate) fn connect(&self) -> Connect {
        Connect::over(self.clone())
    }

    /// These are there now, or are like this.
    pub(crate) fn put(&self, objects: &[Value]) {
        self.0.send_modify(|history| {
            for object in objects {
                let mut object = object.clone();
                object["metadata"]["resourceVersion"] = json!((history.events.len() + 1).to_string());
                let known = history.objects.insert(key(&object), object.clone());
                let what = if known.is_some() { "MODIFIED" } else { "ADDED" };
                history.events.push((plural(&object), what, object));
            }
        });
    }

    /// This is gone.
    pub(crate) fn delete(&self, object: &Value) {
        self.0.send_modify(|history| {
            let Some(mut last) = history.objects.remove(&key(object)) else { return };
            last["metadata"]["resourceVersion"] = json!((history.events.len() + 1).to_string());
            history.events.push((plural(&last), "DELETED", last));
        });
    }
}

type Answer = BoxBody<Bytes, Infallible>;

impl tower_service::Service<Request<Body>> for Api {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let plural = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let query: BTreeMap<_, _> =
            request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let from = query.get("resourceVersion").and_then(|version| version.parse::<usize>().ok()).unwrap_or(0);
        let without = excluded(query.get("labelSelector").copied().unwrap_or_default());
        let is_watch = query.contains_key("watch");
        let history = self.0.subscribe();
        Box::pin(async move {
            Ok(Response::new(if is_watch {
                watch(history, plural, without, from)
            } else {
                list(&history, &plural, &without)
            }))
        })
    }
}

/// The labels that objects must not have; the proxy asks for nothing else.
fn excluded(selector: &str) -> Vec<String> {
    let plain = selector.replace("%2C", ",").replace("%2F", "/").replace("%21", "!");
    let names = plain.split(',').filter(|part| !part.is_empty());
    names.map(|part| part.strip_prefix('!').expect("a label that must not be there").to_owned()).collect()
}

fn is_selected(object: &Value, without: &[String]) -> bool {
    !without.iter().any(|label| object["metadata"]["labels"].get(label).is_some())
}

fn list(history: &watch::Receiver<History>, wanted: &str, without: &[String]) -> Answer {
    let history = history.borrow();
    let ours = history.objects.values().filter(|object| plural(object) == wanted);
    let items: Vec<_> = ours.filter(|object| is_selected(object, without)).collect();
    let version = history.events.len().to_string();
    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
    Full::new(Bytes::from(list.to_string())).boxed()
}

fn watch(history: watch::Receiver<History>, wanted: String, without: Vec<String>, from: usize) -> Answer {
    let lines = futures_util::stream::unfold((history, from), move |(mut history, mut at)| {
        let (wanted, without) = (wanted.clone(), without.clone());
        async move {
            loop {
                let lines: String = {
                    let known = history.borrow_and_update();
                    let new = &known.events[at..];
                    at = known.events.len();
                    let ours = new.iter().filter(|(of, ..)| *of == wanted);
                    let event = |(_, what, object): &(String, &str, Value)| {
                        // What isn't selected any more is gone for those who selected.
                        let what = if is_selected(object, &without) { what } else { "DELETED" };
                        format!("{}\n", json!({"type": what, "object": object}))
                    };
                    ours.map(event).collect()
                };
                if !lines.is_empty() {
                    return Some((Ok(Frame::data(Bytes::from(lines))), (history, at)));
                }
                history.changed().await.ok()?;
            }
        }
    });
    StreamBody::new(Shared(Box::pin(lines))).boxed()
}

type Frames = dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync;

/// Bodies have to be `Sync`, though nobody shares them.
struct Shared(Pin<Box<Frames>>);

impl Stream for Shared {
    type Item = Result<Frame<Bytes>, Infallible>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
