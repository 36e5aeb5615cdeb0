//! Lists in every way, and their pages.

use k3sd_apiserver_store::{ListQuery, ReadAt};
use k3sd_client::storage::{Revision, Storage};
use k3sd_objects::selector::FieldSelector;

use crate::world::{World, code, create, labels, list, list_at, names, page, pod, update};

async fn five(world: &World) {
    let pods = world.pods();
    for (namespace, name) in [("a", "x"), ("a", "y"), ("a-b", "x"), ("b", "x"), ("b", "z")] {
        create(&pods, namespace, name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_question_gets_its_objects_in_the_order_of_keys() {
    let world = World::new().await;
    five(&world).await;
    let pods = world.pods();
    let other = pods.get("b", "z", ReadAt::Latest).await.expect("a read").expect("it is there");
    update(&pods, &other, "y", 1).await.expect("it is updated");
    let in_namespace = |namespace: &str| ListQuery { namespace: Some(namespace.to_owned()), ..list() };
    for (query, wanted) in [
        (list(), &["a-b/x", "a/x", "a/y", "b/x", "b/z"][..]),
        (in_namespace("a"), &["a/x", "a/y"]),
        (in_namespace("none"), &[]),
        (ListQuery { name: Some("x".to_owned()), ..in_namespace("b") }, &["b/x"]),
        (ListQuery { name: Some("x".to_owned()), ..list() }, &["a-b/x", "a/x", "b/x"]),
        (ListQuery { fields: FieldSelector::equals("metadata.name", "z"), ..list() }, &["b/z"]),
        (ListQuery { fields: FieldSelector::equals("metadata.namespace", "b"), ..list() }, &["b/x", "b/z"]),
        (ListQuery { labels: labels("app=y"), ..list() }, &["b/z"]),
        (ListQuery { labels: labels("app!=y"), ..in_namespace("b") }, &["b/x"]),
        (ListQuery { limit: Some(0), ..list() }, &["a-b/x", "a/x", "a/y", "b/x", "b/z"]),
    ] {
        for at in [ReadAt::Latest, ReadAt::NotOlderThan(Revision::new(7)), ReadAt::Exactly(Revision::new(7))] {
            let listed = pods.list(&ListQuery { at, ..query.clone() }).await.expect("a list");
            assert_eq!(names(&listed), wanted, "{query:?} {at:?}");
            assert_eq!((listed.revision.get(), listed.continue_token, listed.remaining), (7, None, None));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_revision_in_history_can_be_listed_until_it_is_compacted() {
    let world = World::new().await;
    five(&world).await;
    let pods = world.pods();
    let at = |revision| list_at(ReadAt::Exactly(Revision::new(revision)));
    for revision in 1..=6 {
        let listed = pods.list(&at(revision)).await.expect("a list");
        assert_eq!((listed.objects.len() as u64, listed.revision.get()), (revision - 1, revision));
    }
    world.memory.compact(Revision::new(4)).await.expect("it is compacted");
    let status = pods.list(&at(3)).await.expect_err("it is gone");
    assert_eq!((status.code, &*status.message), (410, "The resourceVersion for the provided list is too old."));
    assert_eq!(pods.list(&at(4)).await.expect("a list").objects.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_future_is_waited_for_and_then_refused() {
    let world = World::new().await;
    five(&world).await;
    let pods = world.pods();
    let begin = world.clock.now();
    for at in [ReadAt::NotOlderThan(Revision::new(99)), ReadAt::Exactly(Revision::new(99))] {
        let status = pods.list(&list_at(at)).await.expect_err("it is still to come");
        assert_eq!(status.code, 504);
        assert_eq!(status.message, "Timeout: Too large resource version: 99, current: 6");
    }
    assert_eq!(world.clock.now().since(begin).as_secs(), 3);
    let wait = async { pods.get("c", "x", ReadAt::NotOlderThan(Revision::new(7))).await };
    let (found, _) = tokio::join!(wait, create(&pods, "c", "x"));
    assert!(found.expect("it came in time").is_some());
}

#[tokio::test(start_paused = true)]
async fn pages_show_one_moment_whatever_is_written_between_them() {
    for limit in 1..6 {
        let world = World::new().await;
        five(&world).await;
        let pods = world.pods();
        let (mut token, mut found, mut left) = (None, Vec::new(), 5);
        loop {
            let listed = pods.list(&page(limit, token)).await.expect("a page");
            assert_eq!(listed.revision, Revision::new(6));
            found.extend(names(&listed));
            left -= listed.objects.len() as u64;
            assert_eq!(listed.remaining, (left > 0).then_some(left));
            create(&pods, "a", &format!("new-{left}")).await;
            if let Some(last) = pods.get("b", "z", ReadAt::Latest).await.expect("a read") {
                pods.delete(&last).await.expect("it is deleted");
            }
            token = listed.continue_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(found, ["a-b/x", "a/x", "a/y", "b/x", "b/z"], "limit {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_selection_stay_within_it() {
    let world = World::new().await;
    let pods = world.pods();
    for number in 0..30 {
        let app = if number % 3 == 0 { "x" } else { "y" };
        let name = format!("p{number:02}");
        pods.create("a", &name, pod("a", &name, app, 0), None).await.expect("it is created");
        create(&pods, "b", &name).await;
    }
    let query = ListQuery { namespace: Some("a".to_owned()), labels: labels("app=x"), ..page(4, None) };
    let (mut token, mut found) = (None, 0);
    loop {
        let listed = pods.list(&ListQuery { continue_token: token, ..query.clone() }).await.expect("a page");
        assert!(listed.objects.iter().all(|pod| pod.namespace() == "a" && pod.label("app") == Some("x")));
        assert_eq!(listed.remaining, None, "nobody counts what a selector leaves");
        found += listed.objects.len();
        token = listed.continue_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, 10);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_too_old_comes_back_as_one_that_goes_on_all_the_same() {
    let world = World::new().await;
    five(&world).await;
    let pods = world.pods();
    let first = pods.list(&page(2, None)).await.expect("a page");
    create(&pods, "c", "new").await;
    // Long enough that the snapshot is given up; the storage still has that moment.
    world.pass(std::time::Duration::from_secs(120)).await;
    let second = pods.list(&page(2, first.continue_token.clone())).await.expect("a page");
    assert_eq!((names(&second), second.revision), (vec!["a/y".to_owned(), "b/x".to_owned()], first.revision));
    world.memory.compact(Revision::new(7)).await.expect("it is compacted");
    let status = pods.list(&page(2, first.continue_token)).await.expect_err("it is gone");
    assert_eq!(status.code, 410);
    assert!(status.message.starts_with("The provided continue parameter is too old to display"));
    let token = Some(status.metadata.continue_token).filter(|token| !token.is_empty());
    let rest = pods.list(&page(3, token)).await.expect("a page");
    assert_eq!(names(&rest), ["a/y", "b/x", "b/z"]);
    assert_eq!(rest.revision, Revision::new(7));
    let last = pods.list(&page(3, rest.continue_token)).await.expect("a page");
    assert_eq!((names(&last), last.revision), (vec!["c/new".to_owned()], Revision::new(7)));
}

#[tokio::test(start_paused = true)]
async fn tokens_go_with_no_other_revision_and_lead_nowhere_else() {
    let world = World::new().await;
    five(&world).await;
    let pods = world.pods();
    let token = pods.list(&page(2, None)).await.expect("a page").continue_token;
    let with_revision = ListQuery { at: ReadAt::NotOlderThan(Revision::new(5)), ..page(2, token) };
    let status = pods.list(&with_revision).await.expect_err("it is refused");
    assert_eq!(status.message, "specifying resource version is not allowed when using continue");
    assert_eq!(code(pods.list(&page(2, Some("nonsense!".to_owned()))).await), 400);
}

/// Without its cache a reader gets the same from the storage, only later.
#[tokio::test(start_paused = true)]
async fn without_caches_everything_is_read_from_the_storage() {
    let world = World::asleep();
    five(&world).await;
    let pods = world.pods();
    let (mut token, mut found) = (None, Vec::new());
    loop {
        let listed = pods.list(&page(2, token)).await.expect("a page");
        assert_eq!(listed.revision, Revision::new(6));
        found.extend(names(&listed));
        token = listed.continue_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, ["a-b/x", "a/x", "a/y", "b/x", "b/z"]);
    assert!(pods.get("a", "y", ReadAt::Latest).await.expect("a read").is_some());
    assert!(pods.get("a", "y", ReadAt::Any).await.expect("a read").is_some());
    assert!(pods.get("a", "y", ReadAt::Exactly(Revision::new(2))).await.expect("a read").is_none());
    let query = ListQuery { labels: labels("app=y"), ..list() };
    assert_eq!(pods.list(&query).await.expect("a list").objects.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_object_are_left_out() {
    let mut world = World::asleep();
    create(&world.pods(), "a", "x").await;
    world.write_bytes("/registry/pods/a/bad", "{").await;
    world.write_bytes("/registry/pods/a/other", r#"{"apiVersion":"v1","metadata":{"name":"x","namespace":"a"}}"#).await;
    world.start().await;
    let pods = world.pods();
    assert_eq!(names(&pods.list(&list()).await.expect("a list")), ["a/x"]);
    let revision = world.write_bytes("/registry/pods/a/x", "k8s\0nonsense").await;
    let listed = pods.list(&list()).await.expect("a list");
    assert_eq!((listed.objects.len(), listed.revision), (0, revision));
    assert_eq!(code(pods.get("a", "bad", ReadAt::Exactly(revision)).await), 500);
}
