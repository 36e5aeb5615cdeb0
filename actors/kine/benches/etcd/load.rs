//! Writing from many clients at once, over gRPC and in process.

use std::time::{Duration, Instant};

use bytes::Bytes;
use k3sd_datastore::{AnyBackend, Backend as _, Change, Key, Precondition, Ttl, WriteRequest};
use tokio::task::JoinSet;

use crate::Failure;
use crate::client::Client;
use crate::table::Times;

/// What Kubernetes objects are like.
pub(crate) const VALUE_BYTES: usize = 1024;
/// How many keys are written in turn.
pub(crate) const KEYS: usize = 10_000;
/// The connections that clients share. An API server has about as many to its datastore.
pub(crate) const CONNECTIONS_MAX: usize = 8;

/// Until when clients write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// For so long.
    Over(Duration),
    /// So many times altogether.
    Count(usize),
}

/// A prime, so that steps of this width go by every key.
const STRIDE: usize = 7919;

/// What a load came to.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) times: Times,
}

/// A value that does not compress, so that no disk makes it easier for one of the two.
pub(crate) fn value() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..VALUE_BYTES).map(|_| next()).collect()
}

/// The key of a client's turn. Neighbours in time are no neighbours in the file, as with objects of a cluster.
pub(crate) fn scattered(number: usize, keys: usize) -> String {
    key(number * STRIDE % keys)
}

pub(crate) fn key(number: usize) -> String {
    format!("/registry/configmaps/bench/{number:06}")
}

/// The prefix of [`key`], and the end of its range.
pub(crate) const PREFIX: &str = "/registry/configmaps/bench/";
pub(crate) const PREFIX_END: &str = "/registry/configmaps/bench0";

/// The key of a client's next write, or nothing when it has done its part.
fn turn(until: Until, begun: Instant, clients: usize, client: usize, done: usize) -> Option<usize> {
    let number = client + done * clients;
    let more = match until {
        Until::Over(span) => begun.elapsed() < span,
        Until::Count(count) => number < count,
    };
    more.then_some(number)
}

/// Puts over gRPC, from so many clients with one request each under way, over so many keys. They share the connections.
pub(crate) async fn over_grpc(
    connections: &mut [Client],
    clients: usize,
    keys: usize,
    until: Until,
) -> Result<Load, Failure> {
    let (value, begun, width) = (value(), Instant::now(), connections.len());
    let shares = connections.iter_mut().enumerate().map(|(connection, client)| {
        let (value, own) = (&value, (clients - connection).div_ceil(width));
        let mut done = vec![0; own];
        let next = move |member: usize| {
            let next = turn(until, begun, clients, connection + member * width, done[member])?;
            done[member] += 1;
            Some(scattered(next, keys))
        };
        client.puts(own, next, value)
    });
    let mut times = Times::default();
    futures_util::future::try_join_all(shares).await?.into_iter().for_each(|share| times.extend(share));
    Ok(Load { per_second: times.len() as f64 / begun.elapsed().as_secs_f64(), times })
}

/// The same in process.
pub(crate) async fn inside(store: &AnyBackend, clients: usize, keys: usize, until: Until) -> Result<Load, Failure> {
    let (value, begun) = (value(), Instant::now());
    let mut tasks: JoinSet<Result<Times, Failure>> = JoinSet::new();
    for number in 0..clients {
        let (store, value) = (store.clone(), value.clone());
        tasks.spawn(async move {
            let mut times = Times::default();
            while let Some(next) = turn(until, begun, clients, number, times.len()) {
                let begun = Instant::now();
                put_inside(&store, scattered(next, keys), value.clone()).await?;
                times.push(begun.elapsed());
            }
            Ok(times)
        });
    }
    let mut times = Times::default();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok(Load { per_second: times.len() as f64 / begun.elapsed().as_secs_f64(), times })
}

/// One write in process.
pub(crate) async fn put_inside(store: &AnyBackend, key: String, value: Bytes) -> Result<(), Failure> {
    let change = Change::Put { value, ttl: Ttl::NONE };
    store.write(WriteRequest { key: Key::from(key), change, precondition: Precondition::None }).await?;
    Ok(())
}
