//! An upstream server that answers as a test wants it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k3sd_runtime::{ActorError, Clock, Spec, Strategy, System, Tree, task};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

/// How it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// As it should: all names are 192.0.2.80, but `gone` is none and `long` has sixty addresses.
    Honest,
    /// With answers to other questions first, and ones that are none.
    Liar,
    /// After a while.
    Slow(Duration),
    /// Says by UDP that there is more, and by TCP something else.
    Cuts,
}

/// A server that runs as long as this lives.
pub(crate) struct Upstream {
    asked: Arc<AtomicUsize>,
    tree: Tree,
}

impl Upstream {
    /// Stops it, and waits for that.
    pub(crate) async fn stop(self) {
        self.tree.stop();
        self.tree.ended().await;
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Starts one.
pub(crate) async fn upstream(address: &str, manner: Manner) -> Upstream {
    let address: SocketAddr = address.parse().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let clock = Clock::system();
    let socket = Arc::new(UdpSocket::bind(address).await.unwrap());
    let listener = Arc::new(TcpListener::bind(address).await.unwrap());
    let (count, times) = (asked.clone(), clock.clone());
    let udp = task("udp", move |_| serve_udp(socket.clone(), count.clone(), manner, times.clone()));
    let tcp = task("tcp", move |_| serve_tcp(listener.clone(), manner));
    let tree = System::new(clock).start(Spec::new(Strategy::OneForOne).child(udp).child(tcp));
    tree.ready().await.unwrap();
    Upstream { asked, tree }
}

async fn serve_udp(
    socket: Arc<UdpSocket>,
    asked: Arc<AtomicUsize>,
    manner: Manner,
    clock: Clock,
) -> Result<(), ActorError> {
    let mut buffer = [0; 2048];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await?;
        asked.fetch_add(1, Ordering::Relaxed);
        let question = &buffer[..length];
        let mut right = answer(question, true);
        match manner {
            Manner::Honest => {}
            Manner::Slow(delay) => clock.sleep_until(clock.now() + delay).await,
            Manner::Cuts => right[2] |= 2,
            Manner::Liar => {
                let mut lie = right.clone();
                let end = lie.len();
                lie[end - 1] = 66;
                let changed = |at: usize, bits: u8| {
                    let mut lie = lie.clone();
                    lie[at] ^= bits;
                    lie
                };
                // Where the name of the record stands that the lie is in.
                let owner = end - 16;
                // Another number, another name, another type, no answer at all, half of one; a record whose name leads to
                // itself, one whose name leads to where the message ends, and more records than there are.
                let lies = [changed(1, 1), changed(13, 1), changed(2, 0x80), lie[..20].to_vec(), Vec::new()];
                let loops = [changed(owner + 1, owner as u8 ^ 12), changed(owner + 1, end as u8 ^ 12), changed(6, 255)];
                for lie in lies.into_iter().chain(loops) {
                    socket.send_to(&lie, peer).await?;
                }
                let other = UdpSocket::bind((peer.ip(), 0)).await?;
                // From somewhere else, and otherwise right.
                other.send_to(&lie, peer).await?;
            }
        }
        socket.send_to(&right, peer).await?;
    }
}

async fn serve_tcp(listener: Arc<TcpListener>, manner: Manner) -> Result<(), ActorError> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let length = stream.read_u16().await?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await?;
        let mut answer = answer(&question, false);
        if matches!(manner, Manner::Cuts) {
            answer[0] ^= 1;
        }
        stream.write_u16(answer.len() as u16).await?;
        stream.write_all(&answer).await?;
    }
}

fn answer(question: &[u8], is_udp: bool) -> Vec<u8> {
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let is = |start: &[u8]| question[13..].starts_with(start);
    let is_a = question[name_end..name_end + 2] == [0, 1];
    let count = match (is(b"gone"), is(b"long"), is_a) {
        (true, _, _) | (_, _, false) => 0,
        (_, true, _) if is_udp => 0,
        (_, true, _) => 60,
        _ => 1,
    };
    let mut bytes = question[..name_end + 4].to_vec();
    bytes[2] = 0x81 | if is(b"long") && is_udp { 2 } else { 0 };
    bytes[3] = 0x80 | if is(b"gone") { 3 } else { 0 };
    bytes[6..12].copy_from_slice(&[0, count, 0, 0, 0, 0]);
    for last in 0..count {
        bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80 + last]);
    }
    bytes
}
