//! Puts of 1 KiB: ours and etcd's over gRPC, and ours in process.

use k3sd_datastore::{AnyBackend, Sqlite, SqliteOptions};

use crate::load::{CONNECTIONS_MAX, KEYS, Load, Until, inside, over_grpc};
use crate::server::{Server, Setting};
use crate::table::{Row, Spread, Times};
use crate::{Failure, Scale};

/// How much better the path in process is to be than the one over gRPC.
const INSIDE_BAR: f64 = 2.0;

/// With how many clients is measured, how many times as good as etcd that is to be, and the names of both bars.
pub(crate) struct Bar {
    clients: usize,
    times: f64,
    over_grpc: &'static str,
    inside: &'static str,
}

pub(crate) const BARS: [Bar; 3] = [
    Bar { clients: 1, times: 1.0, over_grpc: "put-1", inside: "put-inside-1" },
    Bar { clients: 64, times: 2.0, over_grpc: "put-64", inside: "put-inside-64" },
    Bar { clients: 512, times: 3.0, over_grpc: "put-512", inside: "put-inside-512" },
];

/// What one of the three has come to.
#[derive(Default)]
struct Turns {
    rates: Vec<f64>,
    times: Times,
    cpu_micros: u64,
    written_bytes: u64,
}

impl Turns {
    fn take(&mut self, load: Load) {
        self.rates.push(load.per_second);
        self.times.extend(load.times);
    }

    fn tell(&mut self) -> String {
        let rate = Spread::of(self.rates.clone()).median;
        let puts = self.times.len() as f64;
        let mut text = format!("{rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms", self.times.at(500), self.times.at(990));
        if self.cpu_micros > 0 {
            let (cpu, written) = (self.cpu_micros as f64 / puts, self.written_bytes as f64 / puts / 1024.0);
            text += &format!("; a put takes {cpu:.0} µs of CPU and {written:.1} KiB of disk");
        }
        text
    }
}

/// The ratio of each round: what ran a second before and after, on a machine that has other things to do.
fn ratios(one: &Turns, other: &Turns) -> Spread {
    Spread::of(one.rates.iter().zip(&other.rates).map(|(one, other)| one / other).collect())
}

pub(crate) async fn measure(setting: &Setting, scale: &Scale, bar: &Bar) -> Result<Vec<Row>, Failure> {
    let Bar { clients, times, over_grpc: over_name, inside: inside_name } = *bar;
    let servers = Server::both(setting).await?;
    let connections = clients.min(CONNECTIONS_MAX);
    let mut connected = [servers[0].connect_many(connections).await?, servers[1].connect_many(connections).await?];
    let directory = tempfile::tempdir_in(&setting.directory)?;
    let store = AnyBackend::new(Sqlite::open(SqliteOptions::new(directory.path().join("state.db")))?);
    // As many threads as the server has.
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut turns, mut within) = ([Turns::default(), Turns::default()], Turns::default());
    let until = Until::Over(scale.span);
    // Round 0 creates the keys and counts for nothing.
    for round in 0..=scale.rounds {
        for ((turns, clients_of), server) in turns.iter_mut().zip(&mut connected).zip(&servers) {
            let before = server.spent()?;
            let load = over_grpc(clients_of, clients, KEYS, until).await?;
            let after = server.spent()?;
            if round > 0 {
                turns.take(load);
                turns.cpu_micros += after.cpu_micros - before.cpu_micros;
                turns.written_bytes += after.written_bytes - before.written_bytes;
            }
        }
        let store = store.clone();
        let load = threads.spawn(async move { inside(&store, clients, KEYS, until).await }).await??;
        if round > 0 {
            within.take(load);
        }
    }
    threads.shutdown_background();
    let [mut ours, mut etcd] = turns;
    let (over, beside) = (ratios(&ours, &etcd), ratios(&within, &ours));
    let what = format!("puts of 1 KiB, {clients} clients, {connections} connections");
    let mut rows = vec![Row::ratio(what, Some(times), ours.tell(), etcd.tell(), over).named(over_name)];
    let what = format!("the same in process, beside our gRPC, {clients} clients");
    let row = Row::ratio(what, Some(INSIDE_BAR), within.tell(), "(our gRPC)".to_owned(), beside);
    rows.push(row.named(inside_name));
    Ok(rows)
}
