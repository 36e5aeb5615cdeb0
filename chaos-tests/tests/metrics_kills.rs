//! The actors that serve the numbers are killed while somebody reads them: no connection is refused, the next reader gets
//! everything again, and the datastore beside them doesn't notice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chaos_tests::daemon::{Daemon, PATIENCE};
use k3sd_runtime::inspect::Kill;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Fewer kills of one supervisor's children than its budget bears.
const VICTIMS: [(&str, Kill); 4] = [
    ("metrics/listener", Kill::Kill),
    ("metrics/connections", Kill::Panic),
    ("metrics/listener", Kill::Panic),
    ("metrics", Kill::Kill),
];

/// Reads the page once. The kill may take the connection along; then the answer is cut, which is no answer.
async fn scrape(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.expect("no connection is refused");
    let request = "GET /metrics HTTP/1.1\r\nHost: kine\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    (answer.starts_with("HTTP/1.1 200") && answer.contains("kine_sql_total")).then_some(answer)
}

/// Reads until there is a whole answer.
async fn scrape_until_answered(address: SocketAddr) {
    let began = Instant::now();
    while scrape(address).await.is_none() {
        assert!(began.elapsed() < PATIENCE, "nobody serves the numbers any more");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How often kine's actors were started again.
async fn restarts_of_kine(daemon: &Daemon) -> u64 {
    let kine = daemon.client.actor("kine").await.expect("it answers").actor;
    kine.restarts + kine.children.iter().map(|child| child.restarts).sum::<u64>()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_the_numbers_outlive_those_who_serve_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_kine(directory, None, &[]).await;
    let address = daemon.metrics_address();
    scrape_until_answered(address).await;

    let readers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let mut whole = 0;
                while whole < 200 {
                    whole += usize::from(scrape(address).await.is_some());
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for (victim, how) in VICTIMS {
        scrape_until_answered(address).await;
        daemon.client.kill(victim, how).await.expect("the victim is there");
        scrape_until_answered(address).await;
    }
    for reader in readers {
        tokio::time::timeout(PATIENCE, reader).await.expect("readers get their answers").expect("none was refused");
    }
    assert_eq!(restarts_of_kine(&daemon).await, 0, "the datastore's actors go on");
    let metrics = daemon.client.actor("metrics").await.expect("it answers").actor;
    assert!(metrics.restarts > 0 && metrics.state == "running", "{metrics:?}");
    assert!(daemon.end_with(Signal::TERM).await.success());
}
