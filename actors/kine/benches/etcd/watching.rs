//! From a put to its watchers.

use std::time::{Duration, Instant};

use k3sd_datastore::{
    AnyBackend, Backend as _, KeyRange, Sqlite, SqliteOptions, StoreError, WatchMessage, WatchRequest,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::load::{KEYS, PREFIX, PREFIX_END, Until, inside, key, put_inside, value};
use crate::server::{Server, Setting};
use crate::table::{Row, Spread, Times};
use crate::wire::Range;
use crate::{Failure, Scale};

/// Between two puts: a busy cluster, not a saturated one.
const PACE: Duration = Duration::from_millis(2);
/// How much later than its acknowledgement a put may reach a watcher in process.
const INSIDE_BAR_MS: f64 = 1.0;
/// Clients that write beside the one whose puts are followed.
const OTHERS: usize = 8;

pub(crate) async fn measure(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let mut rows = vec![over_grpc(setting, scale).await?];
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (name, what, compacting) in [
        ("watch-inside", "put to watch in process, p99", false),
        ("watch-inside-compacting", "the same while history is dropped", true),
    ] {
        let (setting, span) = (setting.clone(), scale.span * u32::try_from(scale.rounds)?);
        let p99 = threads.spawn(async move { within(&setting, span, compacting).await }).await??;
        let row = Row::at_most(format!("{what}, beyond the acknowledgement"), INSIDE_BAR_MS, "ms", p99);
        rows.push(row.named(name));
    }
    threads.shutdown_background();
    Ok(rows)
}

/// The time from sending a put to its event, one put after another.
async fn over_grpc(setting: &Setting, scale: &Scale) -> Result<Row, Failure> {
    let servers = Server::both(setting).await?;
    let (mut tails, mut all) = ([Vec::new(), Vec::new()], [Times::default(), Times::default()]);
    for round in 0..=scale.rounds {
        for (side, server) in servers.iter().enumerate() {
            let mut times = followed(server, scale.span).await?;
            if round > 0 {
                tails[side].push(times.at(990));
                all[side].extend(times);
            }
        }
    }
    let ratio = Spread::of(tails[0].iter().zip(&tails[1]).map(|(ours, etcd)| etcd / ours).collect());
    let [mut ours, mut etcd] = all;
    let tell = |times: &mut Times| format!("p50 {:.2} ms, p99 {:.2} ms", times.at(500), times.at(990));
    Ok(Row::ratio("put to watch over gRPC, p99", Some(1.0), tell(&mut ours), tell(&mut etcd), ratio)
        .named("watch-grpc"))
}

/// Puts at a pace, each followed by a watcher on a connection of its own.
async fn followed(server: &Server, span: Duration) -> Result<Times, Failure> {
    let (mut writer, watcher) = (server.connect().await?, server.connect().await?);
    let range = Range { key: PREFIX.into(), range_end: PREFIX_END.into(), limit: 0 };
    let mut watch = watcher.watch(range).await?;
    let (mut times, value, begun) = (Times::default(), value(), Instant::now());
    while begun.elapsed() < span {
        let sent = Instant::now();
        let told = async { watch.next().await.map(|told| (told, sent.elapsed())) };
        let (answered, told) = tokio::join!(writer.put(key(times.len() % KEYS), value.clone()), told);
        answered?;
        let (told, took) = told?;
        if told.canceled || told.events.len() != 1 {
            return Err(format!("a watch did not tell of a put alone: {told:?}").into());
        }
        times.push(took);
        tokio::time::sleep(PACE).await;
    }
    Ok(times)
}

/// How much later than its acknowledgement each put of one client reaches a watcher, while others write too. The 99th
/// percentile in milliseconds.
async fn within(setting: &Setting, span: Duration, compacting: bool) -> Result<f64, Failure> {
    let directory = tempfile::tempdir_in(&setting.directory)?;
    let store = AnyBackend::new(Sqlite::open(SqliteOptions::new(directory.path().join("state.db")))?);
    let mut watcher = store.watch(WatchRequest::new(KeyRange::prefix("/watched/"), None)).await?;
    // The others write at least as long as the one that is followed.
    let puts = usize::try_from(span.as_micros() / PACE.as_micros() / 2)?;
    let over = span * 2;
    let mut others = JoinSet::new();
    let load = store.clone();
    others.spawn(async move { inside(&load, OTHERS, KEYS, Until::Over(over)).await.map(|_| ()) });
    if compacting {
        others.spawn(compact_for(store.clone(), over));
    }
    let (sender, mut acknowledged) = mpsc::channel(puts);
    let writer = tokio::spawn(async move {
        for number in 0..puts {
            put_inside(&store, format!("/watched/{:04}", number % 1000), value()).await?;
            sender.send(Instant::now()).await?;
            tokio::time::sleep(PACE).await;
        }
        Ok::<(), Failure>(())
    });
    let mut beyond = Times::default();
    while beyond.len() < puts {
        let message = watcher.next().await.map_err(|end| format!("a watch ended: {end:?}"))?;
        let WatchMessage::Events(events) = message else { continue };
        let delivered = Instant::now();
        for _ in events {
            let acknowledged = acknowledged.recv().await.ok_or("a put without an acknowledgement")?;
            beyond.push(delivered.saturating_duration_since(acknowledged));
        }
    }
    writer.await??;
    others.abort_all();
    Ok(beyond.at(990))
}

/// Drops history again and again.
async fn compact_for(store: AnyBackend, span: Duration) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < span {
        let target = store.status().await?.revision;
        match store.compact(target).await {
            Ok(_) | Err(StoreError::Compacted { .. }) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
