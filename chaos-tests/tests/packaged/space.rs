//! A network namespace for each test, and a client of DNS inside.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use k3sd_netlink::NetlinkError;
use k3sd_netlink::testkit::Space;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;

/// Where the DNS is.
pub(crate) const DNS: &str = "10.43.0.10";
/// As long as a client waits before it asks once more, and how often it asks: as `dig` and C libraries do.
const TRY: Duration = Duration::from_secs(2);
const TRIES: usize = 2;

/// Runs a test on a thread inside a namespace of its own, whose loopback link is up. What it starts is inside too.
pub(crate) fn inside<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let Some(space) = Space::with_loopback("names") else { return };
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
        Ok::<_, NetlinkError>(())
    };
    space.namespace().enter(work).expect("it may be entered");
}

/// What `dig +short` says, its lines in order.
pub(crate) async fn dig(args: &[&str]) -> String {
    let server = format!("@{DNS}");
    let all = [&server, "+short", "+time=5", "+tries=1"].into_iter().chain(args.iter().copied());
    let output = Command::new("dig").args(all).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let text = String::from_utf8_lossy(&output.expect("dig is there").stdout).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join(" ")
}

/// A question for the address of a name.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// The address at the end of an answer to this question that has one; other answers are none.
fn address(answer: &[u8], asked: &[u8]) -> Option<Ipv4Addr> {
    let is_whole = answer.len() > asked.len() && answer[..2] == asked[..2] && answer[3] & 15 == 0 && answer[7] == 1;
    is_whole.then(|| Ipv4Addr::from(<[u8; 4]>::try_from(&answer[answer.len() - 4..]).expect("four bytes")))
}

/// The address of a name by UDP, and whether it had to be asked for twice.
pub(crate) async fn by_udp(id: u16, name: &str) -> Option<(Ipv4Addr, bool)> {
    let (server, asked): (SocketAddr, _) = (format!("{DNS}:53").parse().expect("one"), question(id, name));
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    for number in 0..TRIES {
        socket.send_to(&asked, server).await.ok();
        let mut buffer = [0; 512];
        if let Ok(Ok(length)) = tokio::time::timeout(TRY, socket.recv(&mut buffer)).await
            && let Some(address) = address(&buffer[..length], &asked)
        {
            return Some((address, number > 0));
        }
    }
    None
}

/// The same by TCP.
pub(crate) async fn by_tcp(id: u16, name: &str) -> Option<(Ipv4Addr, bool)> {
    let (server, asked): (SocketAddr, _) = (format!("{DNS}:53").parse().expect("one"), question(id, name));
    let once = async || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&[&(asked.len() as u16).to_be_bytes()[..], &asked].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    for number in 0..TRIES {
        if let Ok(Ok(answer)) = tokio::time::timeout(TRY, once()).await
            && let Some(address) = address(&answer, &asked)
        {
            return Some((address, number > 0));
        }
    }
    None
}
