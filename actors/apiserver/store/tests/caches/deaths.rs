//! What readers notice when actors die: nothing, or that they have to list again.

use std::time::Duration;

use k3sd_apiserver_store::{ReadAt, WatchQuery};
use k3sd_client::storage::{Revision, Storage};

use crate::world::{World, create, list, names, since, told, update};

#[tokio::test(start_paused = true)]
async fn watches_outlive_the_cache_and_the_log() {
    let world = World::new().await;
    let pods = world.pods();
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    for (number, victim) in ["resources/pods", "log", "resources", "keeper", "resources/pods"].into_iter().enumerate() {
        create(&pods, "a", &format!("before{number}")).await;
        world.kill(victim);
        create(&pods, "a", &format!("after{number}")).await;
        world.pass(Duration::from_secs(20)).await;
    }
    let words = told(&mut watch).await;
    let wanted: Vec<String> = (0..5)
        .flat_map(|number| {
            [format!("added before{number}@{}", 2 * number + 2), format!("added after{number}@{}", 2 * number + 3)]
        })
        .collect();
    assert_eq!(words, wanted);
    let mut old = pods.watch(&since(Revision::new(1))).await.expect("the window is as it was");
    assert_eq!(told(&mut old).await, wanted);
}

#[tokio::test(start_paused = true)]
async fn a_panic_between_two_changes_costs_nothing() {
    let world = World::new().await;
    let pods = world.pods();
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    for number in 0..6 {
        create(&pods, "a", &format!("x{number}")).await;
        world.panic(if number % 2 == 0 { "resources/pods" } else { "log" });
        world.pass(Duration::from_secs(10)).await;
    }
    assert_eq!(told(&mut watch).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_keeps_dying_takes_none_along() {
    let world = World::new().await;
    let pods = world.pods();
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    let begin = world.clock.now();
    let mut deaths = 0;
    while world.clock.now().since(begin) < Duration::from_secs(300) {
        deaths += usize::from(world.try_kill("resources/pods"));
        world.pass(Duration::from_millis(10)).await;
    }
    assert!((10..=200).contains(&deaths), "{deaths}");
    world.pass(Duration::from_secs(60)).await;
    create(&pods, "a", "x").await;
    assert_eq!(told(&mut watch).await, ["added x@2"]);
}

/// A crowd of writes while nobody takes them in: what does not fit into the queue is listed.
#[tokio::test(start_paused = true)]
async fn a_cache_that_is_away_for_too_long_lists_again() {
    let world = World::new().await;
    let pods = world.pods();
    let x = create(&pods, "a", "x").await;
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    told(&mut watch).await;
    world.set_away(true).await;
    let mut x = x;
    for mark in 1..5000 {
        x = update(&pods, &x, "x", mark).await.expect("writes need no cache");
        tokio::task::yield_now().await;
    }
    world.set_away(false).await;
    let found = pods.get("a", "x", ReadAt::Latest).await.expect("a read").expect("it is there");
    assert_eq!(found.resource_version(), x.resource_version());
    assert_eq!(told(&mut watch).await, ["error 410", "end"]);
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    update(&pods, &x, "y", 0).await.expect("it is updated");
    assert_eq!(told(&mut watch).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_breaks_off_is_taken_up_again() {
    let world = World::new().await;
    let pods = world.pods();
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    for number in 0..5 {
        create(&pods, "a", &format!("before{number}")).await;
        world.memory.cut_feeds();
        create(&pods, "a", &format!("after{number}")).await;
    }
    assert_eq!(told(&mut watch).await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn lost_history_is_listed_again_and_watchers_are_told() {
    let world = World::new().await;
    let pods = world.pods();
    let x = create(&pods, "a", "x").await;
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    told(&mut watch).await;
    // While the store is away somebody else writes, and history goes.
    world.memory.set_open(false);
    world.pass(Duration::from_secs(5)).await;
    world.memory.set_open(true);
    pods.delete(&x).await.expect("it is deleted");
    create(&pods, "a", "y").await;
    world.memory.compact(Revision::new(4)).await.expect("it is compacted");
    assert_eq!(names(&pods.list(&list()).await.expect("a list")), ["a/y"]);
    assert_eq!(told(&mut watch).await, ["error 410", "end"]);
    assert_eq!(pods.watch(&since(Revision::new(3))).await.expect_err("nobody saw that").code, 410);
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    assert_eq!(told(&mut watch).await, ["added y@4"]);
}
