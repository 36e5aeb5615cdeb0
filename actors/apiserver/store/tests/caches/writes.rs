//! Writes, and what reads find after them.

use std::time::Duration;

use k3sd_apiserver_store::{ReadAt, WriteError};
use k3sd_client::storage::{Revision, Storage};
use k3sd_objects::status::Reason;
use serde_json::json;

use crate::world::{World, create, list, list_at, names, pod, update};

#[tokio::test(start_paused = true)]
async fn writes_are_conditional_and_say_what_stands_in_the_way() {
    let world = World::new().await;
    let pods = world.pods();
    let first = create(&pods, "a", "x").await;
    let again = pods.create("a", "x", pod("a", "x", "y", 1), None).await;
    assert!(matches!(again, Err(WriteError::Exists)));
    let second = update(&pods, &first, "y", 1).await.expect("it is updated");
    assert!(second.resource_version() > first.resource_version());
    assert_eq!(second.value()["spec"]["priority"], 1);
    match update(&pods, &first, "z", 2).await {
        Err(WriteError::Conflict { current: Some(current) }) => assert_eq!(current.bytes(), second.bytes()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(pods.delete(&first).await, Err(WriteError::Conflict { current: Some(_) })));
    let gone = pods.delete(&second).await.expect("it is deleted");
    assert!(gone.resource_version() > second.resource_version());
    assert_eq!(gone.label("app"), Some("y"));
    assert!(matches!(pods.delete(&second).await, Err(WriteError::Conflict { current: None })));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_is_not_made() {
    let world = World::new().await;
    let pods = world.pods();
    let first = create(&pods, "a", "x").await;
    let before = world.memory.latest();
    let mut same = first.value();
    let answer = pods.update(&first, same.clone(), None).await.expect("it is as it was");
    assert_eq!((answer.bytes(), world.memory.latest()), (first.bytes(), before));
    same["spec"]["priority"] = json!(1);
    pods.update(&first, same, None).await.expect("it is changed");
    assert!(world.memory.latest() > before);
}

#[tokio::test(start_paused = true)]
async fn whoever_wrote_reads_it_whether_the_store_tells_its_revision_or_not() {
    let world = World::new().await;
    let pods = world.pods();
    for tells in [true, false] {
        world.memory.set_tells_latest(tells);
        for number in 0..20 {
            let name = format!("x{number}-{tells}");
            let made = create(&pods, "a", &name).await;
            let found = pods.get("a", &name, ReadAt::Latest).await.expect("a read").expect("it is there");
            assert_eq!(found.bytes(), made.bytes());
            let listed = pods.list(&list()).await.expect("a list");
            assert!(names(&listed).contains(&format!("a/{name}")));
            assert!(listed.revision.get() >= made.resource_version());
            let at = ReadAt::NotOlderThan(Revision::new(made.resource_version()));
            assert!(pods.get("a", &name, at).await.expect("a read").is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revision_without_an_event_holds_no_read_up() {
    let world = World::new().await;
    let pods = world.pods();
    create(&pods, "a", "x").await;
    world.memory.skip_revision();
    let begin = world.clock.now();
    let listed = pods.list(&list()).await.expect("a list");
    assert_eq!((listed.revision, names(&listed)), (Revision::new(3), vec!["a/x".to_owned()]));
    assert!(world.clock.now().since(begin) < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_as_it_is() {
    let world = World::new().await;
    let pods = world.pods();
    let failed = async |name: &str| match pods.create("a", name, pod("a", name, "x", 0), None).await {
        Err(WriteError::Failed(status)) => (status.code, status.reason),
        other => panic!("{other:?}"),
    };
    world.memory.set_full(true);
    assert_eq!(failed("full").await, (500, Reason::InternalError));
    world.memory.set_full(false);
    world.memory.lose_answers(1);
    assert_eq!(failed("unknown").await, (504, Reason::Timeout));
    assert!(pods.get("a", "unknown", ReadAt::Latest).await.expect("a read").is_some(), "it did happen");
    world.memory.set_open(false);
    assert_eq!(failed("away").await, (503, Reason::ServiceUnavailable));
    let latest = pods.get("a", "unknown", ReadAt::Latest).await.expect_err("nobody knows what is latest");
    assert_eq!(latest.code, 503);
    let any = pods.list(&list_at(ReadAt::Any)).await.expect("old answers are good enough");
    assert_eq!(names(&any), ["a/unknown"]);
    world.memory.set_open(true);
    create(&pods, "a", "back").await;
    assert_eq!(names(&pods.list(&list()).await.expect("a list")), ["a/back", "a/unknown"]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_could_read_again_is_not_written() {
    let world = World::new().await;
    let pods = world.pods();
    for (namespace, name, value) in [
        ("a", "x", pod("a", "y", "x", 0)),
        ("a", "x", pod("b", "x", "x", 0)),
        ("", "x", pod("", "x", "x", 0)),
        ("a", "", pod("a", "", "x", 0)),
        ("a", "x", json!({ "apiVersion": "v2", "metadata": { "name": "x", "namespace": "a" } })),
        ("a", "x", json!(null)),
    ] {
        let answer = pods.create(namespace, name, value, None).await;
        assert!(matches!(answer, Err(WriteError::Failed(_))), "{namespace} {name}");
    }
    assert_eq!(world.memory.latest(), Some(Revision::new(1)));
}

#[tokio::test(start_paused = true)]
async fn objects_with_a_time_to_live_go_by_themselves() {
    let world = World::new().await;
    let pods = world.pods();
    pods.create("a", "x", pod("a", "x", "x", 0), Some(Duration::from_secs(60))).await.expect("it is created");
    world.pass(Duration::from_secs(59)).await;
    assert_eq!(pods.list(&list()).await.expect("a list").objects.len(), 1);
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(pods.list(&list()).await.expect("a list").objects.len(), 0);
}
