//! Lists: pages of 500 keys, and all of them at once.

use std::time::Instant;

use bytes::Bytes;

use crate::client::{Client, RANGE};
use crate::load::{CONNECTIONS_MAX, PREFIX_END, Until, key, over_grpc, value};
use crate::server::{Server, Setting};
use crate::table::{Row, Spread, Times};
use crate::wire::{Counter, Range, framed};
use crate::{Failure, Scale};

/// What all lists are to reach.
const BAR: f64 = 2.0;
/// What `kubectl` and client-go ask for at a time.
const PAGE_KEYS: usize = 500;
/// Lists of a round, if they are short: by a limit they follow one another, as a client's do.
const PAGES: usize = 40;
/// Clients that fill the servers.
const FILLERS: usize = 64;

/// Fresh servers with the same keys.
pub(crate) async fn filled(setting: &Setting, keys: usize) -> Result<[Server; 2], Failure> {
    let servers = Server::both(setting).await?;
    for server in &servers {
        let mut clients = server.connect_many(CONNECTIONS_MAX).await?;
        over_grpc(&mut clients, FILLERS, keys, Until::Count(keys)).await?;
    }
    Ok(servers)
}

/// One list, which has to have so many keys. In milliseconds.
async fn list(client: &mut Client, question: &Bytes, keys: usize) -> Result<f64, Failure> {
    let (mut counter, begun) = (Counter::default(), Instant::now());
    client.call(RANGE, question.clone(), |piece| counter.take(piece)).await?;
    let took = begun.elapsed();
    if counter.keys != keys as u64 {
        return Err(format!("a list has {} keys instead of {keys}", counter.keys).into());
    }
    Ok(took.as_secs_f64() * 1e3)
}

/// A question, and how many keys its answer has.
type Question = (Bytes, usize);

/// From one key on, up to another or the end of the prefix.
fn question(from: usize, to: Option<usize>, limit: usize) -> Bytes {
    let range_end = to.map_or_else(|| PREFIX_END.to_owned(), key);
    let limit = i64::try_from(limit).expect("a page is small");
    framed(&Range { key: key(from).into(), range_end: range_end.into(), limit })
}

/// Asks both servers the same in turns.
async fn compare(what: &str, servers: &[Server; 2], rounds: usize, questions: &[Question]) -> Result<Row, Failure> {
    let mut clients = [servers[0].connect().await?, servers[1].connect().await?];
    let value = value();
    let (mut rates, mut times) = ([Vec::new(), Vec::new()], [Times::default(), Times::default()]);
    for round in 0..=rounds {
        for (side, client) in clients.iter_mut().enumerate() {
            let mut round_times = Times::default();
            for (number, (question, keys)) in questions.iter().enumerate() {
                // A store at rest could remember its answers.
                client.put(key(number), value.clone()).await?;
                let begun = Instant::now();
                list(client, question, *keys).await?;
                round_times.push(begun.elapsed());
            }
            if round > 0 {
                rates[side].push(round_times.at(500));
                times[side].extend(round_times);
            }
        }
    }
    let ratio = Spread::of(rates[0].iter().zip(&rates[1]).map(|(ours, etcd)| etcd / ours).collect());
    let [mut ours, mut etcd] = times;
    let tell = |times: &mut Times| format!("p50 {:.2} ms, p99 {:.2} ms", times.at(500), times.at(990));
    Ok(Row::ratio(what, Some(BAR), tell(&mut ours), tell(&mut etcd), ratio))
}

/// Ranges of 500: by a limit, as clients page, and by an end, as one namespace is listed.
pub(crate) async fn pages(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let servers = filled(setting, scale.keys).await?;
    let pages = (0..scale.keys / PAGE_KEYS - 1).take(PAGES).map(|page| page * PAGE_KEYS);
    let limited: Vec<Question> = pages.map(|from| (question(from, None, PAGE_KEYS), PAGE_KEYS)).collect();
    let starts = (0..PAGES).map(|page| page * (scale.keys - PAGE_KEYS) / PAGES);
    let ended = |from| (question(from, Some(from + PAGE_KEYS), 0), PAGE_KEYS);
    let ended: Vec<Question> = starts.map(ended).collect();
    let keys = scale.keys;
    Ok(vec![
        compare(&format!("pages of 500 out of {keys} keys (limit)"), &servers, scale.rounds, &limited)
            .await?
            .named("pages"),
        compare(&format!("ranges of 500 out of {keys} keys (end)"), &servers, scale.rounds, &ended)
            .await?
            .named("ranges"),
    ])
}

/// All keys in one answer.
pub(crate) async fn whole(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let servers = filled(setting, scale.keys).await?;
    let all = [(question(0, None, 0), scale.keys)];
    let what = format!("list of {} keys of 1 KiB", scale.keys);
    Ok(vec![compare(&what, &servers, scale.rounds, &all).await?.named("list-store")])
}

/// One list of everything, for whoever wants to see what it leaves behind.
pub(crate) async fn list_all(server: &Server, keys: usize) -> Result<(), Failure> {
    list(&mut server.connect().await?, &question(0, None, 0), keys).await?;
    Ok(())
}
