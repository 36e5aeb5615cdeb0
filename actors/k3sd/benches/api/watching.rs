//! How long an update takes to those who watch.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::server::{Server, Setting};
use crate::table::{Row, Spread, Times};
use crate::traffic::{CONFIG_MAPS, PODS, config_map, make_pods, make_service_account};
use crate::{Failure, Scale};

/// Watchers that share a connection.
const WATCHERS_PER_CONNECTION: usize = 100;
/// Updates that are measured.
const UPDATES: usize = 50;
/// Between two of them, so that each is alone.
const PAUSE: Duration = Duration::from_millis(50);

/// From the answer to an update, which is at or after its commit, until the last watcher has the whole event.
pub(crate) async fn one_resource(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (name, watchers, bar_ms) in
        [("watch-10", 10, 4.7), ("watch-100", 100, 7.0), ("watch-1000", scale.watchers, 10.0)]
    {
        let server = Server::start(setting).await?;
        let writer = server.connect(1).await?;
        writer.call(Method::POST, CONFIG_MAPS, Some(config_map("watched"))).await?;
        let clients = server.connect(watchers.div_ceil(WATCHERS_PER_CONNECTION)).await?;
        let path = format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Dwatched&resourceVersion=");
        let version = version(&writer, "watched").await?;
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for number in 0..watchers {
            let mut watch = clients.nth(number).watch(&format!("{path}{version}")).await?;
            let told = told.clone();
            tasks.spawn(async move {
                // The end of the server ends the watch.
                while watch.event().await.is_ok() && told.send(Instant::now()).is_ok() {}
            });
        }
        let mut times = Times::default();
        for update in 0..UPDATES {
            let body = String::from_utf8_lossy(&config_map("watched")).replacen("xxxxxxxx", &format!("{update:08}"), 1);
            let begun = Instant::now();
            writer.call(Method::PUT, &format!("{CONFIG_MAPS}/watched"), Some(Bytes::from(body))).await?;
            let committed = Instant::now();
            let mut last = begun;
            for _ in 0..watchers {
                last = last.max(heard.recv().await.ok_or("all watches ended")?);
            }
            times.push(last.saturating_duration_since(committed));
            tokio::time::sleep(PAUSE).await;
        }
        let (middle, most) = (times.at(500), times.at(990));
        let what = format!("update to the last of {watchers} watchers, p99 after the answer (p50 {middle:.2} ms)");
        rows.push(Row::at_most(what, bar_ms, "ms", most).named(name));
    }
    Ok(rows)
}

async fn version(client: &Client, name: &str) -> Result<String, Failure> {
    let object: serde_json::Value = serde_json::from_slice(&client.fetch(&format!("{CONFIG_MAPS}/{name}")).await?)?;
    Ok(object["metadata"]["resourceVersion"].as_str().ok_or("an object has a version")?.to_owned())
}

/// The processor time that an update costs, without and with watchers of other nodes.
pub(crate) async fn other_nodes(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let server = Server::start(setting).await?;
    let writer = server.connect(1).await?;
    make_service_account(&writer).await?;
    make_pods(&writer, 1).await?;
    let alone = updates(&server, &writer).await?;
    let clients = server.connect(scale.others.div_ceil(WATCHERS_PER_CONNECTION)).await?;
    let mut watches = Vec::new();
    for number in 0..scale.others {
        let path = format!("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dother-{number}");
        watches.push(clients.nth(number).watch(&path).await?);
    }
    let among = updates(&server, &writer).await?;
    let what = format!("update of a pod with {} watchers of other nodes, beside without", scale.others);
    let (ours, other) = (format!("{among:.0} µs of CPU"), format!("{alone:.0} µs of CPU"));
    Ok(vec![Row::ratio(what, Some(0.8), ours, other, Spread::of(vec![alone / among])).named("watch-others")])
}

async fn updates(server: &Server, writer: &Client) -> Result<f64, Failure> {
    const COUNT: usize = 2000;
    let path = format!("{PODS}/pod-000000/status");
    let spent = server.cpu_micros()?;
    for number in 0..COUNT {
        let mut object: serde_json::Value =
            serde_json::from_slice(&writer.fetch(&format!("{PODS}/pod-000000")).await?)?;
        object["status"]["message"] = number.to_string().into();
        writer.call(Method::PUT, &path, Some(Bytes::from(serde_json::to_vec(&object)?))).await?;
    }
    Ok((server.cpu_micros()? - spent) as f64 / COUNT as f64)
}
