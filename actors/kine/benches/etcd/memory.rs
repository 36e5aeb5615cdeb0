//! What the processes keep in memory with many keys, before and after a list of all of them.

use std::time::Duration;

use crate::reads::{filled, list_all};
use crate::server::Setting;
use crate::table::{Row, Spread};
use crate::{Failure, Scale};

/// How many times as much etcd is to take.
const BAR: f64 = 2.0;
/// For what is freed with a delay.
const SETTLE: Duration = Duration::from_secs(3);
/// Lists of everything: one after another, because buffers that are kept would add up.
const LISTS: usize = 5;

pub(crate) async fn measure(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let servers = filled(setting, scale.keys).await?;
    tokio::time::sleep(SETTLE).await;
    let after_load = [servers[0].resident_bytes()?, servers[1].resident_bytes()?];
    for server in &servers {
        for _ in 0..LISTS {
            list_all(server, scale.keys).await?;
        }
    }
    tokio::time::sleep(SETTLE).await;
    let after_lists = [servers[0].resident_bytes()?, servers[1].resident_bytes()?];
    let row = |what: String, [ours, etcd]: [u64; 2]| {
        let mib = |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        Row::ratio(what, Some(BAR), mib(ours), mib(etcd), Spread::of(vec![etcd as f64 / ours as f64]))
    };
    let keys = scale.keys;
    Ok(vec![
        row(format!("resident memory after writing {keys} keys of 1 KiB"), after_load).named("memory-store"),
        row(format!("the same after {LISTS} lists of all of them"), after_lists).named("memory-store-lists"),
    ])
}
