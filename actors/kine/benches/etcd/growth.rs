//! A million updates over ten thousand keys: what the file, its log and the writers' patience come to. Only ours is
//! measured; etcd has no bar here. History is dropped as API servers have it dropped, by a call, and the newest
//! revisions stay as they do by default.

use std::cell::Cell;
use std::time::{Duration, Instant};

use prost::Message as _;

use crate::client::{COMPACT, Client, RANGE};
use crate::load::{CONNECTIONS_MAX, KEYS, Load, Until, VALUE_BYTES, key, over_grpc};
use crate::server::{Kind, Server, Setting};
use crate::table::{Row, Spread, Times};
use crate::wire::{Compact, Headed, Range, framed};
use crate::{Failure, Scale};

const CLIENTS: usize = 64;
/// Turns of writes with and without a compaction.
const TURNS: usize = 10;
const LOG_BAR_MIB: f64 = 64.0;
const FILE_BAR: f64 = 3.0;
const TAIL_BAR: f64 = 2.0;
/// How often the length of the log is looked at.
const LOG_LOOK: Duration = Duration::from_millis(5);
/// How long the file may go on shrinking after the last compaction.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const SETTLE_LOOK: Duration = Duration::from_millis(500);

/// The revision that any answer shows.
async fn revision(client: &mut Client) -> Result<i64, Failure> {
    let mut answer = Vec::new();
    let question = framed(&Range { key: "/".into(), ..Range::default() });
    client.call(RANGE, question, |piece| answer.extend_from_slice(piece)).await?;
    let headed = Headed::decode(answer.get(5..).ok_or("an empty answer")?)?;
    Ok(headed.header.map_or(0, |header| header.revision))
}

/// Drops what can be dropped now.
async fn compact(client: &mut Client) -> Result<(), Failure> {
    let revision = revision(client).await?;
    Ok(client.call(COMPACT, framed(&Compact { revision }), |_| ()).await?)
}

/// A turn of writes, with history being dropped all the while or not at all.
async fn turn(server: &Server, clients: &mut [Client], updates: usize, compacting: bool) -> Result<Load, Failure> {
    let load = over_grpc(clients, CLIENTS, KEYS, Until::Count(updates));
    if !compacting {
        return load.await;
    }
    // Its last call is given up in the middle, and the connection with it.
    let mut compactor = server.connect().await?;
    let compactions = async {
        loop {
            if let Err(failure) = compact(&mut compactor).await {
                return failure;
            }
        }
    };
    tokio::select! {
        load = load => load,
        failure = compactions => Err(failure),
    }
}

pub(crate) async fn measure(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let server = Server::start(Kind::Ours, setting).await?;
    let mut clients = server.connect_many(CONNECTIONS_MAX).await?;
    let (longest, file_most) = (Cell::new(0), Cell::new(0));
    let look = async {
        loop {
            let (file, log) = server.file_bytes();
            longest.set(longest.get().max(log));
            file_most.set(file_most.get().max(file));
            tokio::time::sleep(LOG_LOOK).await;
        }
    };
    let write = async {
        let (mut times, mut tails) = ([Times::default(), Times::default()], [Vec::new(), Vec::new()]);
        over_grpc(&mut clients, CLIENTS, KEYS, Until::Count(KEYS)).await?;
        for number in 0..TURNS {
            let side = number % 2;
            if side == 0 {
                // What is left of the last compaction must not count as "without".
                compact(&mut clients[0]).await.ok();
            }
            let mut load = turn(&server, &mut clients, scale.updates / TURNS, side == 1).await?;
            tails[side].push(load.times.at(990));
            times[side].extend(load.times);
        }
        let settling = Instant::now();
        compact(&mut clients[0]).await.ok(); // Refused if everything is dropped already.
        settle(&server).await;
        Ok::<_, Failure>((times, tails, settling.elapsed()))
    };
    let ([mut without, mut with], tails, settling) = tokio::select! {
        written = write => written?,
        () = look => return Err("looking never ends".into()),
    };
    // Nothing is to be wrong with the log, whatever else was slow.
    let complaints = server.log().lines().filter(|line| line.contains("write-ahead log")).count();
    let ratio = Spread::of(tails[1].iter().zip(&tails[0]).map(|(with, without)| with / without).collect());
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let live = (KEYS * (VALUE_BYTES + key(0).len())) as u64;
    let (file, _) = server.file_bytes();
    let updates = scale.updates;
    let what = format!(
        "file beside {:.1} MiB of live data, after {updates} updates ({:.0} MiB at most, {:.1} s to settle)",
        mib(live),
        mib(file_most.get()),
        settling.as_secs_f64()
    );
    let mut tail =
        Row::at_most("write p99 during compaction beside without", TAIL_BAR, "x", ratio.median).named("compaction-p99");
    tail.ours = format!("{:.2} ms beside {:.2} ms", with.at(990), without.at(990));
    tail.ratio = format!("{ratio} x");
    Ok(vec![
        Row::at_most(what, FILE_BAR, "x", file as f64 / live as f64).named("file"),
        Row::at_most(
            format!("write-ahead log at its longest ({complaints} complaints of it)"),
            LOG_BAR_MIB,
            "MiB",
            mib(longest.get()),
        )
        .named("log"),
        tail,
    ])
}

/// Waits until the file has stopped shrinking.
async fn settle(server: &Server) {
    let (begun, mut last) = (Instant::now(), server.file_bytes());
    while begun.elapsed() < SETTLE_LIMIT {
        tokio::time::sleep(SETTLE_LOOK).await;
        let now = server.file_bytes();
        if now == last {
            return;
        }
        last = now;
    }
}
