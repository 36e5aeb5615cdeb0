//! The clients of `k3sd-client` against the server: in its process, and over TLS.

use std::collections::BTreeMap;

use k3sd_apiserver::User;
use k3sd_client::api::{Connect, ServerAddress, link};
use k3sd_client::informer::{Change, InformerArgs, informer};
use k3sd_runtime::{Clock, Signal, Spec, Strategy, System};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{LIMIT, Server, wait_until};

fn map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("text".to_owned(), "one".to_owned())])),
        ..ConfigMap::default()
    }
}

async fn live(client: kube::Client, name: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let made = maps.create(&PostParams::default(), &map(name)).await.expect("it can be made");
    assert!(made.metadata.uid.is_some());
    let again = maps.create(&PostParams::default(), &map(name)).await.expect_err("it is there");
    assert!(matches!(again, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists"));
    let patch = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"more": "two"}}));
    let applied = maps.patch(name, &PatchParams::apply("test"), &patch).await.expect("it can be applied");
    assert_eq!(applied.data.expect("data").len(), 2);
    let listed = maps.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await.expect("a list");
    assert_eq!(listed.items.len(), 1);
    maps.delete(name, &DeleteParams::default()).await.expect("it can be deleted");
    let namespaces: Api<Namespace> = Api::all(client);
    assert!(namespaces.get_opt("kube-system").await.expect("an answer").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_client_works_in_the_process_and_over_tls() {
    let server = Server::start().await;
    let local = Connect::over(server.pipeline.local(User::new("system:apiserver", &["system:masters"])));
    live(local.client(), "local").await;

    let address = ServerAddress { host: "127.0.0.1".to_owned(), port: server.port };
    let (child, remote) = link("link", address, server.pki.client(Some("admin"), b"h2")).expect("an address");
    let system = System::new(Clock::system());
    let tree = system.start(Spec::new(Strategy::OneForOne).child(child));
    live(remote.client(), "remote").await;
    // Its connection is lost: what is under way then ends with it, and what comes later waits for the next one.
    let born = system.born();
    assert!(system.signal("link", Signal::Kill), "it is there");
    wait_until("it is gone", || system.born() > born).await;
    live(remote.client(), "again").await;
    tree.stop();
    tokio::time::timeout(LIMIT, tree.ended()).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_informer_sees_what_the_server_holds_whatever_dies() {
    let server = Server::start().await;
    let connect = Connect::over(server.pipeline.local(User::new("system:apiserver", &["system:masters"])));
    let maps: Api<ConfigMap> = Api::namespaced(connect.client(), "default");
    let (child, mut informer) =
        informer("configmaps", InformerArgs::<ConfigMap>::all(connect).fields("metadata.namespace=default"));
    let system = System::new(Clock::system());
    let _tree = system.start(Spec::new(Strategy::OneForOne).child(child));
    tokio::time::timeout(LIMIT, informer.synced()).await.expect("in time").expect("a list");
    let mut changes = informer.subscribe(4).await.expect("it is there");
    for number in 0..20 {
        maps.create(&PostParams::default(), &map(&format!("m{number}"))).await.expect("it can be made");
        match number {
            5 => assert!(server.tree.system().signal("caches/resources/configmaps", Signal::Kill), "it is there"),
            10 => assert!(system.signal("configmaps", Signal::Kill), "it is there"),
            _ => {}
        }
    }
    let count = || informer.snapshot().map_or(0, |all| all.iter().filter(|map| map.data.is_some()).count());
    wait_until("everything is seen", || count() >= 20).await;
    // Whoever follows the changes comes to the same.
    let mut seen = std::collections::BTreeSet::new();
    while seen.iter().filter(|name: &&String| name.starts_with('m')).count() < 20 {
        let change = tokio::time::timeout(LIMIT, changes.next()).await.expect("in time").expect("a change");
        match change {
            Change::Replaced(all) => seen = all.keys().map(|key| key.name.clone()).collect(),
            Change::Applied { new: map, .. } => _ = seen.insert(map.metadata.name.clone().expect("a name")),
            Change::Deleted(map) => _ = seen.remove(map.metadata.name.as_deref().expect("a name")),
        }
    }
}
