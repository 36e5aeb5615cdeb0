//! Requests per second: GET, LIST, create and PUT.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use k3sd_client::storage::{Change, Precondition, Storage, Write};
use k3sd_kine::{KineConfig, SqliteOptions, StoreConfig};
use k3sd_runtime::{Clock, Spec, Strategy, System, subtree};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::server::{Server, Setting};
use crate::table::{Row, Spread, Times};
use crate::{Failure, Scale};

/// Clients with one request each under way, and the connections that they share.
const CLIENTS: usize = 16;
const WRITERS: usize = 64;
const CONNECTIONS: usize = 8;
/// How much a ConfigMap of the measurement holds.
const DATA_BYTES: usize = 1024;

/// What the best of others did in a second, without TLS, authentication and authorization: whichever of them it was.
const RIVAL_CREATES: f64 = 1915.0;
const RIVAL_PUTS: f64 = 2698.0;
const RIVAL_GETS: f64 = 6210.0;
const RIVAL_LISTED: f64 = 321_000.0;

/// A line with a rate beside that of others.
fn beside_rival(what: &str, ours: f64, rival: f64, unit: &str) -> Row {
    let ratio = Spread::of(vec![ours / rival]);
    let what = format!("{what}, beside the best rival's");
    Row::ratio(what, Some(1.0), format!("{ours:.0}{unit}"), format!("{rival}{unit}"), ratio)
}

/// What a load came to.
#[derive(Debug, Default)]
struct Load {
    per_second: f64,
    bytes_per_second: f64,
    times: Times,
}

impl Load {
    fn tell(&mut self) -> String {
        let (middle, most) = (self.times.at(500), self.times.at(990));
        format!("{:.0}/s, p50 {middle:.2} ms, p99 {most:.2} ms", self.per_second)
    }
}

/// So many clients, each asking again when it was answered. `ask` is told whose turn it is and which turn.
async fn load<F: Future<Output = Result<usize, Failure>> + Send + 'static>(
    clients: usize,
    span: Duration,
    ask: impl Fn(usize, usize) -> F + Clone + Send + 'static,
) -> Result<Load, Failure> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let ask = ask.clone();
        tasks.spawn(async move {
            let (mut times, mut bytes) = (Times::default(), 0);
            while begun.elapsed() < span {
                let begun = Instant::now();
                bytes += ask(client, times.len()).await?;
                times.push(begun.elapsed());
            }
            Ok::<_, Failure>((times, bytes))
        });
    }
    let (mut whole, mut bytes) = (Load::default(), 0);
    while let Some(done) = tasks.join_next().await {
        let (times, read) = done??;
        whole.times.extend(times);
        bytes += read;
    }
    let seconds = begun.elapsed().as_secs_f64();
    whole.per_second = whole.times.len() as f64 / seconds;
    whole.bytes_per_second = bytes as f64 / seconds;
    Ok(whole)
}

async fn reads(client: &Client, path: &'static str, clients: usize, span: Duration) -> Result<Load, Failure> {
    let client = client.clone();
    load(clients, span, move |number, _| {
        let client = client.nth(number);
        async move { client.call(Method::GET, path, None).await }
    })
    .await
}

pub(crate) fn config_map(name: &str) -> Bytes {
    let filler = "x".repeat(DATA_BYTES);
    let text = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"key":"{filler}"}}}}"#
    );
    Bytes::from(text)
}

/// A pod of about 4 KiB that runs on a node.
pub(crate) fn pod(name: &str, node: &str) -> Bytes {
    let filler = "x".repeat(2600);
    let text = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"bench"}},"annotations":{{"note":"{filler}"}}}},"spec":{{"nodeName":"{node}","automountServiceAccountToken":false,"containers":[{{"name":"main","image":"bench:1"}}]}}}}"#
    );
    Bytes::from(text)
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

/// Makes objects at a path, several at once; `body` makes the one of a number.
async fn make(client: &Client, path: &'static str, count: usize, body: fn(usize) -> Bytes) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.nth(writer);
        tasks.spawn(async move {
            for number in (writer..count).step_by(WRITERS) {
                client.call(Method::POST, path, Some(body(number))).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Makes pods on a hundred nodes.
pub(crate) async fn make_pods(client: &Client, count: usize) -> Result<(), Failure> {
    make(client, PODS, count, |number| pod(&format!("pod-{number:06}"), &format!("node-{}", number % 100))).await
}

async fn make_config_maps(client: &Client, count: usize) -> Result<(), Failure> {
    make(client, CONFIG_MAPS, count, |number| config_map(&format!("l-{number:06}"))).await
}

/// The default service account, without which no pod is let in; its controller is not part of the server.
pub(crate) async fn make_service_account(client: &Client) -> Result<(), Failure> {
    let body = Bytes::from_static(br#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#);
    client.call(Method::POST, "/api/v1/namespaces/default/serviceaccounts", Some(body)).await.map(drop)
}

pub(crate) async fn get(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    const PATH: &str = "/api/v1/namespaces/default/pods/pod-000000";
    let server = Server::start(setting).await?;
    let ours = server.connect(CONNECTIONS).await?;
    make_service_account(&ours).await?;
    make_pods(&ours, 1).await?;
    let (_bare, bare) = server.bare(&ours.fetch(PATH).await?, CONNECTIONS).await?;
    let (mut ratios, mut mine, mut others) = (Vec::new(), Load::default(), Load::default());
    for _ in 0..scale.rounds {
        let own = reads(&ours, PATH, CLIENTS, scale.span).await?;
        let other = reads(&bare, PATH, CLIENTS, scale.span).await?;
        ratios.push(own.per_second / other.per_second);
        (mine, others) = (own, other);
    }
    let what = format!("GET of one pod, {CLIENTS} clients, beside a bare hyper + rustls server");
    Ok(vec![
        Row::ratio(what, Some(0.6), mine.tell(), others.tell(), Spread::of(ratios)).named("get"),
        beside_rival("GET of one pod", mine.per_second, RIVAL_GETS, "/s").named("rival-get"),
    ])
}

pub(crate) async fn list(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let server = Server::start(setting).await?;
    let ours = server.connect(CONNECTIONS).await?;
    make_service_account(&ours).await?;
    make_pods(&ours, scale.pods).await?;
    let body = ours.fetch(PODS).await?;
    let (_bare, bare) = server.bare(&body, 1).await?;
    let mut ratios = Vec::new();
    let (mut mine, mut others) = (0.0, 0.0);
    for _ in 0..scale.rounds {
        let own = reads(&ours, PODS, 1, scale.span).await?;
        let other = reads(&bare, PODS, 1, scale.span).await?;
        ratios.push(own.bytes_per_second / other.bytes_per_second);
        (mine, others) = (own.bytes_per_second, other.bytes_per_second);
    }
    let (before, _) = server.resident_bytes()?;
    server.forget_peak()?;
    ours.call(Method::GET, PODS, None).await?;
    let (_, peak) = server.resident_bytes()?;
    let transient = peak.saturating_sub(before) as f64 / body.len() as f64;
    make_config_maps(&ours, scale.pods).await?;
    let listed = reads(&ours, CONFIG_MAPS, 1, scale.span).await?.per_second * scale.pods as f64;
    let tell = |rate: f64| format!("{:.0} MB/s", rate / 1e6);
    let what =
        format!("LIST of {} pods, {:.1} MB, beside a bare hyper + rustls server", scale.pods, body.len() as f64 / 1e6);
    Ok(vec![
        Row::ratio(what, Some(0.7), tell(mine), tell(others), Spread::of(ratios)).named("list"),
        Row::at_most("memory that the LIST takes meanwhile, beside the response", 2.0, "x", transient)
            .named("list-memory"),
        beside_rival("LIST of ConfigMaps of 1 KiB", listed, RIVAL_LISTED, " objects/s").named("rival-list"),
    ])
}

/// Creates by all writers for a while; names never come twice.
async fn creates(client: &Client, round: usize, span: Duration) -> Result<Load, Failure> {
    let client = client.clone();
    load(WRITERS, span, move |writer, turn| {
        let client = client.nth(writer);
        async move {
            let body = config_map(&format!("c-{round}-{writer}-{turn}"));
            client.call(Method::POST, CONFIG_MAPS, Some(body)).await
        }
    })
    .await
}

pub(crate) async fn create(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let server = Server::start(setting).await?;
    let ours = server.connect(CONNECTIONS).await?;
    // The store alone, in this process but on threads of its own, over the same disk.
    let directory = tempfile::tempdir_in(&setting.directory)?;
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let options = SqliteOptions::new(directory.path().join("state.db"));
    let kine = k3sd_kine::tree(KineConfig::new(StoreConfig::Sqlite(options)), Vec::new());
    let (store, spec) = (kine.store, Spec::new(Strategy::OneForOne).child(subtree("kine", kine.spec)));
    let tree = threads.spawn(async move { System::new(Clock::system()).start(spec) }).await?;
    tree.ready().await.map_err(|exit| format!("the store does not open: {exit:?}"))?;
    let (mut ratios, mut mine, mut others) = (Vec::new(), Load::default(), Load::default());
    for round in 0..scale.rounds {
        let own = creates(&ours, round, scale.span).await?;
        let (store, span) = (store.clone(), scale.span);
        let writes = load(WRITERS, span, move |writer, turn| {
            let store = store.clone();
            async move {
                let key = format!("/registry/configmaps/default/c-{round}-{writer}-{turn}");
                let change = Change::Put { value: config_map("c"), ttl: None };
                let write = Write { key: Bytes::from(key), change, precondition: Precondition::Absent };
                store.write(write).await?;
                Ok(0)
            }
        });
        let other = threads.spawn(writes).await??;
        ratios.push(own.per_second / other.per_second);
        (mine, others) = (own, other);
    }
    tree.stop();
    tree.ended().await;
    threads.shutdown_background();
    let what = format!("create of a 1 KiB ConfigMap, {WRITERS} clients, beside the datastore in process");
    Ok(vec![
        Row::ratio(what, Some(0.5), mine.tell(), others.tell(), Spread::of(ratios)).named("create"),
        beside_rival("create of a 1 KiB ConfigMap", mine.per_second, RIVAL_CREATES, "/s").named("rival-create"),
    ])
}

pub(crate) async fn put(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let server = Server::start(setting).await?;
    let ours = server.connect(CONNECTIONS).await?;
    for writer in 0..CONNECTIONS {
        ours.call(Method::POST, CONFIG_MAPS, Some(config_map(&format!("p-{writer}")))).await?;
    }
    let client = ours.clone();
    let mut puts = load(CONNECTIONS, scale.span * 2, move |writer, turn| {
        let client = client.nth(writer);
        async move {
            let body = config_map(&format!("p-{writer}"));
            // Something has to change each time.
            let body = String::from_utf8_lossy(&body).replacen("xxxxxxxx", &format!("{turn:08}"), 1);
            client.call(Method::PUT, &format!("{CONFIG_MAPS}/p-{writer}"), Some(Bytes::from(body))).await
        }
    })
    .await?;
    let mut row = beside_rival("PUT of a 1 KiB ConfigMap", puts.per_second, RIVAL_PUTS, "/s").named("rival-put");
    row.ours = puts.tell();
    Ok(vec![row])
}
