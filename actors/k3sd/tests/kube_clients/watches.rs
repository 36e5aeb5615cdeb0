//! Watches, and what is built on them: watchers, reflectors, controllers.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, Event as Finalized, finalizer};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::wait::delete::delete_and_finalize;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::{World, config_map, soon};

const FINALIZER: &str = "test.example.com/cleanup";

fn named(event: Event<ConfigMap>) -> String {
    match event {
        Event::Init => "init".to_owned(),
        Event::InitApply(map) => format!("has {}", map.name_any()),
        Event::InitDone => "done".to_owned(),
        Event::Apply(map) => format!("apply {}", map.name_any()),
        Event::Delete(map) => format!("delete {}", map.name_any()),
    }
}

type Watched = kube::Result<WatchEvent<ConfigMap>>;

async fn seen(watch: &mut (impl Stream<Item = Watched> + Unpin)) -> (String, String) {
    match soon(watch.next()).await.expect("it goes on").expect("an event") {
        WatchEvent::Added(map) => ("added".to_owned(), map.name_any()),
        WatchEvent::Modified(map) => ("modified".to_owned(), map.name_any()),
        WatchEvent::Deleted(map) => ("deleted".to_owned(), map.name_any()),
        other => panic!("unexpected: {other:?}"),
    }
}

#[tokio::test]
async fn a_watch_tells_what_its_selector_lets_through() {
    let world = World::start().await;
    let maps = world.config_maps();
    let mut watch = pin!(maps.watch(&WatchParams::default().labels("test=yes"), "0").await.expect("a watch"));
    world.make_config_maps(1).await;
    assert_eq!(seen(&mut watch).await, ("added".to_owned(), "m0".to_owned()));
    let patch = |value| Patch::Merge(json!({"metadata": {"labels": {"test": value}}, "data": {"text": value}}));
    maps.patch("m0", &PatchParams::default(), &Patch::Merge(json!({"data": {"text": "two"}}))).await.expect("it fits");
    assert_eq!(seen(&mut watch).await, ("modified".to_owned(), "m0".to_owned()));
    maps.patch("m0", &PatchParams::default(), &patch("no")).await.expect("it fits");
    assert_eq!(seen(&mut watch).await, ("deleted".to_owned(), "m0".to_owned()));
    maps.patch("m0", &PatchParams::default(), &patch("yes")).await.expect("it fits");
    assert_eq!(seen(&mut watch).await, ("added".to_owned(), "m0".to_owned()));
    maps.delete("m0", &DeleteParams::default()).await.expect("it can be deleted");
    assert_eq!(seen(&mut watch).await, ("deleted".to_owned(), "m0".to_owned()));
}

#[tokio::test]
async fn watchers_begin_with_pages_or_with_a_stream() {
    let world = World::start().await;
    world.make_config_maps(3).await;
    let maps = world.config_maps();
    let config = || watcher::Config::default().labels("test=yes");
    for (round, config) in [config().page_size(2), config().streaming_lists()].into_iter().enumerate() {
        let mut events = pin!(watcher(maps.clone(), config).map_ok(named));
        for wanted in ["init", "has m0", "has m1", "has m2", "done"] {
            assert_eq!(soon(events.try_next()).await.expect("no error").as_deref(), Some(wanted));
        }
        let late = format!("late{round}");
        maps.create(&PostParams::default(), &config_map(&late, "one")).await.expect("it can be made");
        assert_eq!(soon(events.try_next()).await.expect("no error"), Some(format!("apply {late}")));
        maps.delete(&late, &DeleteParams::default()).await.expect("it can be deleted");
        assert_eq!(soon(events.try_next()).await.expect("no error"), Some(format!("delete {late}")));
    }
}

#[tokio::test]
async fn a_reflector_holds_what_the_server_holds() {
    let world = World::start().await;
    world.make_config_maps(3).await;
    let maps = world.config_maps();
    let (reader, writer) = reflector::store::<ConfigMap>();
    let config = watcher::Config::default().labels("test=yes");
    let mut touched = pin!(watcher(maps.clone(), config).default_backoff().reflect(writer).touched_objects());
    for _ in 0..3 {
        soon(touched.try_next()).await.expect("no error");
    }
    tokio::select! {
        ready = soon(reader.wait_until_ready()) => ready.expect("the watcher lives"),
        touched = touched.try_next() => panic!("nothing was touched: {touched:?}"),
    }
    assert_eq!(reader.len(), 3);
    maps.delete("m1", &DeleteParams::default()).await.expect("it can be deleted");
    assert_eq!(soon(touched.try_next()).await.expect("no error").expect("one").name_any(), "m1");
    assert_eq!(reader.len(), 2);
    assert!(reader.get(&ObjectRef::new("m1").within("default")).is_none());
}

#[tokio::test]
async fn a_watcher_of_metadata_gets_nothing_else() {
    let world = World::start().await;
    world.make_config_maps(1).await;
    let maps = world.config_maps();
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(world.client.clone(), "default");
    let config = watcher::Config::default().labels("test=yes");
    let mut seen = pin!(watcher(metadata, config).touched_objects());
    let first = soon(seen.try_next()).await.expect("no error").expect("one");
    assert_eq!((first.name_any().as_str(), first.labels()["test"].as_str()), ("m0", "yes"));
    let kind = first.types.expect("a kind");
    assert_eq!((kind.api_version.as_str(), kind.kind.as_str()), ("meta.k8s.io/v1", "PartialObjectMetadata"));
    maps.delete("m0", &DeleteParams::default()).await.expect("it can be deleted");
    assert_eq!(soon(seen.try_next()).await.expect("no error").expect("one").name_any(), "m0");
}

#[tokio::test]
async fn who_was_away_for_too_long_lists_again() {
    let world = World::start().await;
    world.make_config_maps(1).await;
    let maps = world.config_maps();
    let config = watcher::Config::default().labels("test=yes").disable_bookmarks().timeout(1);
    let mut events = pin!(watcher(maps.clone(), config).map_ok(named));
    for wanted in ["init", "has m0", "done"] {
        assert_eq!(soon(events.try_next()).await.expect("no error").as_deref(), Some(wanted));
    }
    let old = maps.get("m0").await.expect("it is there").resource_version().expect("one");
    // More than the server remembers, and nothing of it for the watcher, whose watch ends meanwhile.
    let text = "x".repeat(100_000);
    let mut noise = config_map("noise", &text);
    noise.metadata.labels = None;
    maps.create(&PostParams::default(), &noise).await.expect("it can be made");
    for number in 0..150 {
        let patch = Patch::Merge(json!({"data": {"number": number.to_string()}}));
        maps.patch("noise", &PatchParams::default(), &patch).await.expect("it fits");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut watch = pin!(maps.watch(&WatchParams::default(), &old).await.expect("a watch"));
    let Ok(WatchEvent::Error(gone)) = soon(watch.next()).await.expect("an event") else { panic!("not refused") };
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    assert!(gone.message.starts_with(&format!("too old resource version: {old} (")), "{gone:?}");
    assert!(soon(watch.next()).await.is_none());
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("done") {
        match soon(events.next()).await.expect("it goes on") {
            Ok(event) => seen.push(event),
            Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) => {
                seen.push(format!("error {}", status.code))
            }
            Err(watcher::Error::WatchError(status)) => seen.push(format!("error {}", status.code)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(seen, ["error 410", "init", "has m0", "done"]);
}

/// What a controller of the test does: marks what there is, and is asked before it goes.
async fn reconcile(map: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>) -> Result<Action, finalizer::Error<kube::Error>> {
    let patched = maps.clone();
    finalizer(&maps, FINALIZER, map, |event| async move {
        let (map, word) = match &event {
            Finalized::Apply(map) => (map, "applied"),
            Finalized::Cleanup(map) => (map, "cleaned"),
        };
        let record = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {(word): "yes"}}));
        let name = format!("record-{}", map.name_any());
        patched.patch(&name, &PatchParams::apply(word), &record).await?;
        Ok(Action::await_change())
    })
    .await
}

#[tokio::test]
async fn a_controller_cleans_up_before_an_object_goes() {
    let world = World::start().await;
    let maps = world.config_maps();
    let controller = Controller::new(maps.clone(), watcher::Config::default().labels("test=yes"));
    let policy = |_: Arc<ConfigMap>, _: &_, _: Arc<_>| Action::requeue(Duration::from_millis(50));
    let mut running = pin!(controller.run(reconcile, policy, Arc::new(maps.clone())).for_each(async |_| {}));
    let story = async {
        world.make_config_maps(1).await;
        while maps.get_opt("record-m0").await.expect("an answer").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let held = maps.get("m0").await.expect("it is there");
        assert_eq!(held.finalizers(), [FINALIZER]);
        soon(delete_and_finalize(maps.clone(), "m0", &DeleteParams::default())).await.expect("it goes");
        assert!(maps.get_opt("m0").await.expect("an answer").is_none());
        let record = maps.get("record-m0").await.expect("it is there").data.expect("data");
        assert_eq!((record["applied"].as_str(), record["cleaned"].as_str()), ("yes", "yes"));
        Ok::<_, Infallible>(())
    };
    tokio::select! {
        () = &mut running => panic!("a controller has no end"),
        told = soon(story) => told.expect("it can't fail"),
    }
}
