//! On several threads and a running clock: whoever wrote finds it at once, in every way to read.

use std::collections::BTreeSet;
use std::time::Duration;

use k3sd_apiserver_store::{ListQuery, ReadAt, WatchFrom, WatchKind, WatchQuery};
use k3sd_client::storage::Revision;

use crate::world::{World, create, update};

const WRITERS: usize = 6;

const WRITES: usize = 150;

async fn write(world: &World, writer: usize) {
    let pods = world.pods();
    let namespace = format!("w{writer}");
    let mine = ListQuery { namespace: Some(namespace.clone()), ..ListQuery::default() };
    for number in 0..WRITES {
        let name = format!("x{number}");
        let made = create(&pods, &namespace, &name).await;
        let listed = pods.list(&mine).await.expect("a list");
        assert_eq!(listed.objects.len(), number + 1, "everything that was acknowledged is in a list");
        assert!(listed.revision.get() >= made.resource_version());
        let changed = update(&pods, &made, "y", 1).await.expect("nobody else writes it");
        let found = pods.get(&namespace, &name, ReadAt::Latest).await.expect("a read").expect("it is there");
        assert_eq!(found.resource_version(), changed.resource_version());
        let query = WatchQuery {
            namespace: Some(namespace.clone()),
            from: WatchFrom::After(Revision::new(made.resource_version())),
            ..WatchQuery::default()
        };
        let mut watch = pods.watch(&query).await.expect("a watch");
        let event = watch.next().await.expect("an event");
        assert_eq!((event.kind, event.object.resource_version()), (WatchKind::Modified, changed.resource_version()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_are_never_behind_acknowledged_writes() {
    let world = World::on(k3sd_runtime::Clock::system());
    let world = world.started().await;
    let pods = world.pods();
    let mut watch = pods.watch(&WatchQuery::default()).await.expect("a watch");
    let reader = async {
        let (mut found, mut last) = (BTreeSet::new(), 0);
        while found.len() < WRITERS * WRITES {
            let item = watch.next().await.expect("it goes on");
            assert!(item.object.resource_version() > last, "events come in order");
            last = item.object.resource_version();
            if item.kind == WatchKind::Added {
                found.insert(format!("{}/{}", item.object.namespace(), item.object.name()));
            }
        }
    };
    let drill = async {
        for victim in ["log", "resources/pods", "log", "resources/pods"] {
            world.pass(Duration::from_millis(40)).await;
            world.try_kill(victim);
        }
    };
    let writers = async {
        let world = &world;
        let mut writers = (0..WRITERS).map(|writer| Box::pin(write(world, writer)));
        let mut each = || writers.next().expect("so many");
        tokio::join!(each(), each(), each(), each(), each(), each());
    };
    let all = async { tokio::join!(writers, drill, reader) };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("nobody waits for ever");
}
