//! Resolvers as the C libraries of pods have them: both families at once from one socket, a search list, `ndots`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::space::DNS;

/// How long one try takes, and how many there are.
const TRY: Duration = Duration::from_millis(2500);
const TRIES: usize = 2;
/// As the kubelet writes it into pods.
const SEARCH: [&str; 3] = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"];
const NDOTS: usize = 5;
/// The types of both questions.
const KINDS: [u16; 2] = [1, 28];

/// Whose manners a resolver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// Goes on with the next name of the list after everything but addresses.
    Glibc,
    /// Takes a name for found if it has anything, and for missing if one of both answers says so.
    Musl,
}

/// What came of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoName,
    /// There is one, without addresses.
    NoData,
    /// Nobody knows right now.
    Again,
}

/// What one server said to one question.
#[derive(Clone, Debug)]
struct Reply {
    rcode: u8,
    addresses: Vec<IpAddr>,
}

fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Where a name ends that may be compressed.
fn name_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            length if length < 64 => at += 1 + usize::from(length),
            _ => return at + 2,
        }
    }
}

fn read(bytes: &[u8], asked: &[u8]) -> Reply {
    assert_eq!(bytes[12..asked.len()], asked[12..], "the question comes back as it was asked");
    let mut at = asked.len();
    let mut addresses = Vec::new();
    for _ in 0..word(bytes, 6) {
        let fields = name_end(bytes, at);
        let data = &bytes[fields + 10..fields + 10 + usize::from(word(bytes, fields + 8))];
        match word(bytes, fields) {
            1 => addresses.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).unwrap()).into()),
            28 => addresses.push(Ipv6Addr::from(<[u8; 16]>::try_from(data).unwrap()).into()),
            _ => {}
        }
        at = fields + 10 + data.len();
    }
    Reply { rcode: bytes[3] & 15, addresses }
}

async fn by_tcp(server: SocketAddr, asked: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&[&(asked.len() as u16).to_be_bytes(), asked].concat()).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    read(&answer, asked)
}

/// Asks for both families, one question right behind the other, from one port.
async fn ask_both(name: &str) -> Option<[Reply; 2]> {
    let server: SocketAddr = format!("{DNS}:53").parse().unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let asked = [0, 1].map(|index| question(0x4000 + index as u16, name, KINDS[index]));
    let mut replies = [None, None];
    for _ in 0..TRIES {
        for index in [0, 1] {
            if replies[index].is_none() {
                socket.send_to(&asked[index], server).await.unwrap();
            }
        }
        let both = async {
            let mut buffer = [0; 512];
            while replies.iter().any(Option::is_none) {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let found = asked.iter().position(|asked| buffer[..2] == asked[..2]);
                let Some(index) = found.filter(|_| from == server && length >= 12) else { continue };
                let is_cut = buffer[2] & 2 != 0;
                let asked = &asked[index];
                replies[index] =
                    Some(if is_cut { by_tcp(server, asked).await } else { read(&buffer[..length], asked) });
            }
        };
        if tokio::time::timeout(TRY, both).await.is_ok() {
            break;
        }
    }
    let [one, other] = replies;
    Some([one?, other?])
}

fn judge(library: Library, replies: [Reply; 2]) -> Found {
    let has = |rcode: u8| replies.iter().any(|reply| reply.rcode == rcode);
    let (is_failure, is_missing) = (has(2), has(3));
    let addresses: Vec<IpAddr> = replies.into_iter().flat_map(|reply| reply.addresses).collect();
    match library {
        Library::Glibc if !addresses.is_empty() => Found::Addresses(addresses),
        _ if is_failure => Found::Again,
        _ if is_missing => Found::NoName,
        _ if addresses.is_empty() => Found::NoData,
        _ => Found::Addresses(addresses),
    }
}

/// Looks a name up.
pub(crate) async fn look_up(library: Library, name: &str) -> Found {
    let dots = name.bytes().filter(|byte| *byte == b'.').count();
    let listed = SEARCH.map(|domain| format!("{name}.{domain}"));
    let candidates: Vec<String> = match (dots >= NDOTS || name.ends_with('.'), library) {
        (true, Library::Musl) => vec![name.to_owned()],
        (true, Library::Glibc) => [name.to_owned()].into_iter().chain(listed).collect(),
        (false, _) => listed.into_iter().chain([name.to_owned()]).collect(),
    };
    let mut last = Found::NoName;
    for candidate in candidates {
        let Some(replies) = ask_both(&candidate).await else { return Found::Again };
        let found = judge(library, replies);
        let goes_on = match library {
            Library::Glibc => !matches!(found, Found::Addresses(_)),
            Library::Musl => found == Found::NoName,
        };
        if !goes_on {
            return found;
        }
        if last == Found::NoName {
            last = found;
        }
    }
    last
}
