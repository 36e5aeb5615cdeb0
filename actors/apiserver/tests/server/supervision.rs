//! Parts of the server die, and clients don't notice, or get what the protocol has for it.

use std::collections::BTreeSet;

use k3sd_runtime::Signal;
use serde_json::Value;

use crate::support::{Events, Server, config_map, namespace, wait_until};

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
/// Watchers of one resource.
const WATCHERS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_dies_refuses_nobody() {
    let server = Server::start().await;
    let mut old = server.client(Some("admin")).await;
    for _ in 0..3 {
        let born = server.tree.system().born();
        assert!(server.tree.system().signal("service/front/listeners/listener", Signal::Kill), "it is there");
        // The socket is open all the while: who comes now waits, and is served.
        let mut new = server.client(Some("admin")).await;
        assert_eq!(new.get("/livez").await.code, 200);
        assert_eq!(old.get("/livez").await.code, 200, "connections outlive their listener");
        wait_until("a successor", || server.tree.system().born() > born).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_miss_nothing_when_caches_die() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    namespace(&mut admin, "a").await;
    let version = admin.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(server.client(Some("admin")).await);
    }
    let mut watchers = Vec::new();
    for number in 0..WATCHERS {
        let path = format!("{MAPS}?watch=1&resourceVersion={version}");
        watchers.push((
            Events::new(connections[number % 4].begin("GET", &path, &[], "").await),
            BTreeSet::new(),
            version.clone(),
        ));
    }
    let (mut expected, mut kills) = (BTreeSet::new(), 0);
    for number in 0..20 {
        let name = format!("m{number}");
        assert_eq!(admin.post(MAPS, &config_map(&name, "one")).await.code, 201);
        expected.insert(name);
        // Whoever died a moment ago may be away still.
        let killed = match number % 5 {
            2 => server.tree.system().signal("caches/resources/configmaps", Signal::Kill),
            4 => server.tree.system().signal("caches/log", Signal::Kill),
            _ => false,
        };
        kills += u32::from(killed);
    }
    assert!(kills >= 2, "both were there at first");
    for (number, (events, seen, last)) in watchers.iter_mut().enumerate() {
        while *seen != expected {
            let Some(event) = events.next().await else {
                // The stream ended, so the client goes on behind the last event that it saw.
                let path = format!("{MAPS}?watch=1&resourceVersion={last}");
                *events = Events::new(connections[number % 4].begin("GET", &path, &[], "").await);
                continue;
            };
            if event["type"] == "ERROR" {
                assert_eq!(event["object"]["code"], 410, "{event}");
                let list = admin.get(MAPS).await.json();
                *last = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
                let names = list["items"].as_array().expect("items").iter();
                *seen = names.filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect();
                continue;
            }
            assert_eq!(event["type"], "ADDED", "{event}");
            let metadata = &event["object"]["metadata"];
            *last = metadata["resourceVersion"].as_str().expect("a version").to_owned();
            assert!(seen.insert(metadata["name"].as_str().expect("a name").to_owned()), "nothing comes twice");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_kept_while_their_keeper_is_away() {
    let server = Server::start().await;
    let mut ann = server.client(Some("ann")).await;
    for actor in ["rights", "keys", "openapi"] {
        let born = server.tree.system().born();
        assert!(server.tree.system().signal(&format!("service/{actor}"), Signal::Kill), "{actor} is there");
        assert_eq!(ann.get("/api/v1/pods").await.code, 403, "{actor}");
        wait_until("a successor", || server.tree.system().born() > born).await;
        assert_eq!(ann.get("/api/v1/pods").await.code, 403, "{actor}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_watches_and_finishes_requests() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    namespace(&mut admin, "a").await;
    let mut events = Events::new(admin.begin("GET", &format!("{MAPS}?watch=1"), &[], "").await);
    server.tree.stop();
    assert_eq!(events.next().await, None::<Value>);
    tokio::time::timeout(crate::support::LIMIT, server.tree.ended()).await.expect("in time");
}
