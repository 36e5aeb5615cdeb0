//! A transfer that goes on for as long as a test wants, and notices whatever happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use k3sd_runtime::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Space, eventually, read_line};

/// Bytes that are sent at once, and the pause between; slow enough for many of them on one core.
const BLOCK_BYTES: usize = 2048;
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Counts {
    /// Bytes that came back as they were sent.
    heard: AtomicU64,
    /// The longest silence, in milliseconds.
    silence_ms: AtomicU64,
    is_over: AtomicBool,
}

/// Bytes on their way to a server and back.
pub(crate) struct Transfer {
    to: String,
    counts: Arc<Counts>,
    /// How many bytes were sent in the end, and heard again.
    task: JoinSet<(u64, u64)>,
}

/// The byte at this place of every transfer.
fn byte(at: u64) -> u8 {
    u8::try_from(at.wrapping_mul(31) % 251).unwrap()
}

async fn run(mut stream: TcpStream, counts: Arc<Counts>) -> (u64, u64) {
    let clock = Clock::system();
    let (mut input, mut output) = stream.split();
    let say = async {
        let mut sent = 0;
        while !counts.is_over.load(SeqCst) {
            let block: Vec<_> = (sent..sent + BLOCK_BYTES as u64).map(byte).collect();
            output.write_all(&block).await.expect("the connection lives");
            sent += block.len() as u64;
            clock.sleep_until(clock.now() + PAUSE).await;
        }
        output.shutdown().await.expect("the connection lives");
        sent
    };
    let hear = async {
        let (mut heard, mut buffer, mut last) = (0, [0; 8192], clock.now());
        loop {
            let count = input.read(&mut buffer).await.expect("the connection lives");
            if count == 0 {
                return heard;
            }
            for found in &buffer[..count] {
                assert_eq!(*found, byte(heard), "byte {heard}");
                heard += 1;
            }
            let silence = clock.now().since(last).as_millis();
            counts.silence_ms.fetch_max(u64::try_from(silence).unwrap(), SeqCst);
            last = clock.now();
            counts.heard.store(heard, SeqCst);
        }
    };
    tokio::join!(say, hear)
}

impl Transfer {
    /// Begins one.
    pub(crate) async fn begin(from: &Space, to: &str) -> Self {
        let mut stream = from.connect(to).await.unwrap_or_else(|error| panic!("{to}: {error}"));
        read_line(&mut stream).await;
        let counts = Arc::<Counts>::default();
        let mut task = JoinSet::new();
        task.spawn(run(stream, counts.clone()));
        Self { to: to.to_owned(), counts, task }
    }

    /// Waits until more has come than until now.
    pub(crate) async fn goes_on(&self) {
        let before = self.counts.heard.load(SeqCst);
        eventually(&format!("the transfer to {} goes on", self.to), async || {
            // The other owner of the counts is the task.
            assert!(Arc::strong_count(&self.counts) > 1, "the transfer to {} is broken", self.to);
            self.counts.heard.load(SeqCst) > before + 4 * BLOCK_BYTES as u64
        })
        .await;
    }

    /// Ends it: nothing is missing, and nobody ever had to wait for longer than this.
    pub(crate) async fn end(mut self, silence_max: Duration) {
        self.counts.is_over.store(true, SeqCst);
        let (sent, heard) = self.task.join_next().await.unwrap().unwrap();
        let silence = Duration::from_millis(self.counts.silence_ms.load(SeqCst));
        assert_eq!(sent, heard, "{}", self.to);
        assert!(silence <= silence_max, "{} was silent for {silence:?}", self.to);
    }
}

/// Counts TCP resets that come to a namespace or leave it, in a table of its own: by the kernel, not by who gets them.
pub(crate) fn count_resets(space: &Space) {
    space.run("nft add table inet seen");
    for hook in ["input", "output"] {
        space.run(&format!("nft add chain inet seen {hook} {{ type filter hook {hook} priority 0 ; }}"));
        space.run(&format!("nft add rule inet seen {hook} tcp flags & rst == rst counter"));
    }
}

/// What was counted.
pub(crate) fn resets(space: &Space) -> u64 {
    let listed: serde_json::Value = serde_json::from_str(&space.run("nft -j list table inet seen")).unwrap();
    let rules = listed["nftables"].as_array().unwrap().iter().filter_map(|one| one["rule"]["expr"].as_array());
    let counted = rules.flatten().filter_map(|expression| expression["counter"]["packets"].as_u64());
    let counts: Vec<_> = counted.collect();
    assert_eq!(counts.len(), 2, "{listed}");
    counts.iter().sum()
}
