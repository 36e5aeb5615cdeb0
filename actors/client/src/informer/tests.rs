//! The local copy, and the actor over a small server that speaks the protocol.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use http_body_util::{Full, StreamBody, combinators::BoxBody};
use k3sd_runtime::{Clock, Signal, Spec, Strategy, System};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::reflector::fold;
use super::store::Snapshot;
use super::{Change, Index, InformerArgs, informer};
use crate::api::Connect;

pub(crate) fn map(name: &str, version: u64, color: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"color": color},
        "metadata": {"namespace": "a", "name": name, "uid": name, "resourceVersion": version.to_string()}})
}

fn typed(value: Value) -> ConfigMap {
    serde_json::from_value(value).expect("a ConfigMap")
}

fn by_color() -> Index<ConfigMap> {
    Index { name: "color", texts: |map| map.data.iter().flat_map(|data| data.get("color").cloned()).collect() }
}

fn names<'a>(found: impl Iterator<Item = &'a Arc<ConfigMap>>) -> Vec<&'a str> {
    found.filter_map(|map| map.metadata.name.as_deref()).collect()
}

#[test]
fn indexes_follow_every_change_and_old_snapshots_keep_what_they_showed() {
    let mut store = Snapshot::new(Arc::new([by_color()]));
    for (name, color) in [("x", "red"), ("y", "red"), ("z", "blue")] {
        assert!(store.apply(typed(map(name, 1, color))).is_some());
    }
    let old = store.clone();
    assert!(store.apply(typed(map("x", 1, "red"))).is_none(), "the very same is no change");
    let event = serde_json::from_value(json!({"type": "MODIFIED", "object": map("x", 2, "blue")})).expect("an event");
    assert!(matches!(fold(&mut store, event), Some(Change::Applied { old: Some(_), .. })));
    let event = serde_json::from_value(json!({"type": "DELETED", "object": map("y", 3, "red")})).expect("an event");
    assert!(matches!(fold(&mut store, event), Some(Change::Deleted(_))));
    let mark = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "9"}});
    let event = serde_json::from_value(json!({"type": "BOOKMARK", "object": mark})).expect("an event");
    assert!(fold(&mut store, event).is_none());
    assert_eq!(store.version(), "9");
    assert_eq!((names(store.by("color", "red")), names(store.by("color", "blue"))), (vec![], vec!["x", "z"]));
    assert_eq!((names(old.by("color", "red")), names(old.by("color", "blue"))), (vec!["x", "y"], vec!["z"]));
    assert_eq!((names(store.by("shape", "red")), store.len()), (vec![], 2));
}

/// A server of ConfigMaps, as far as informers ask: what it lists, and what its watches say next.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) list: watch::Receiver<Value>,
    pub(crate) watches: watch::Receiver<Option<mpsc::Sender<mpsc::Sender<Bytes>>>>,
}

pub(crate) type Answer = BoxBody<Bytes, Infallible>;

impl tower_service::Service<Request<Body>> for Script {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let (list, opened) = (self.list.borrow().clone(), self.watches.borrow().clone());
        Box::pin(async move {
            if !is_watch {
                return Ok(Response::new(Full::new(Bytes::from(list.to_string())).boxed()));
            }
            let (events, lines) = mpsc::channel(16);
            opened.expect("the test listens").send(events).await.expect("the test listens");
            let lines = futures_util::stream::unfold(lines, |mut lines| async move {
                let line: Bytes = lines.recv().await?;
                Some((Ok(Frame::data(line)), lines))
            });
            Ok(Response::new(StreamBody::new(SyncStream(Box::pin(lines))).boxed()))
        })
    }
}

/// Bodies have to be `Sync`, though nobody shares them.
struct SyncStream(Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync>>);

impl futures_util::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, Infallible>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

pub(crate) fn list(version: u64, items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": version.to_string()}, "items": items})
}

pub(crate) fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_informer_lists_watches_lists_again_and_survives_its_own_death() {
    let (lists, list_seen) = watch::channel(list(5, &[map("x", 3, "red")]));
    let (opened, mut watches) = mpsc::channel(4);
    let (_place, watch_seen) = watch::channel(Some(opened));
    let script = Script { list: list_seen, watches: watch_seen };
    let args = InformerArgs::<ConfigMap>::all(Connect::over(script)).indexes(vec![by_color()]);
    let (child, mut informer) = informer("configmaps", args);
    let system = System::new(Clock::simulated(1));
    let tree = system.start(Spec::new(Strategy::OneForOne).child(child));
    tree.ready().await.expect("it starts");

    let mut changes = informer.subscribe(2).await.expect("it is there");
    let mut next = async || tokio::time::timeout(LIMIT, changes.next()).await.expect("in time").expect("a change");
    assert!(matches!(next().await, Change::Replaced(all) if names(all.iter()) == ["x"]));
    let mut watching = async || tokio::time::timeout(LIMIT, watches.recv()).await.expect("in time").expect("a watch");
    let events = watching().await;
    events.send(line("ADDED", &map("y", 6, "red"))).await.expect("it is read");
    assert!(matches!(next().await, Change::Applied { new: map, .. } if map.metadata.name.as_deref() == Some("y")));
    assert_eq!(names(informer.snapshot().expect("listed").by("color", "red")), ["x", "y"]);

    // The watch ends in peace, and goes on behind what was seen.
    drop(events);
    let events = watching().await;
    events.send(line("DELETED", &map("x", 7, "red"))).await.expect("it is read");
    assert!(matches!(next().await, Change::Deleted(map) if map.metadata.name.as_deref() == Some("x")));

    // History is gone: what there is now is listed, and what isn't in it is gone.
    lists.send_replace(list(20, &[map("z", 19, "blue")]));
    let expired = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version: 7 (19)"});
    events.send(line("ERROR", &expired)).await.expect("it is read");
    assert!(matches!(next().await, Change::Replaced(all) if names(all.iter()) == ["z"]));

    // A subscriber that doesn't read loses changes and gets all there is.
    let events = watching().await;
    for number in 0..10_u64 {
        events.send(line("ADDED", &map(&format!("m{number}"), 21 + number, "red"))).await.expect("it is read");
    }
    system.clock().sleep_until(system.clock().now() + Duration::from_secs(1)).await;
    let mut last = next().await;
    while !matches!(&last, Change::Replaced(all) if all.len() == 11) {
        last = next().await;
    }

    // The actor dies: the subscription stays, and hears of everything again.
    lists.send_replace(list(40, &[]));
    assert!(system.signal("configmaps", Signal::Kill), "it is there");
    assert!(matches!(next().await, Change::Replaced(all) if all.is_empty()));
    assert!(informer.synced().await.is_some_and(|all| all.version() == "40"));
}
