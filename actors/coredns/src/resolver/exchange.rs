//! One question to upstream servers.
//!
//! Each question by UDP has a socket of its own: the kernel picks its port at random, and lets nothing through that comes
//! from another address. What has another number, or answers another question, isn't the answer, whoever sent it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use k3sd_runtime::{Clock, Rng};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Answer, Ask};
use crate::wire::message::{Malformed, Message};
use crate::wire::name::same;
use crate::wire::{Rcode, flag, kind};

/// How long one server is waited for, and all of them together: clients wait five seconds.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
const TOTAL_LIMIT: Duration = Duration::from_millis(4_800);
/// Bytes of an answer by UDP that we ask for: what goes through most networks in one piece.
const UDP_BYTES: u16 = 1232;
/// Room for what comes by UDP all the same.
const UDP_BUFFER_BYTES: usize = 4096;

/// Why a server gave no answer.
#[derive(Debug, Error)]
enum ExchangeError {
    #[error("no answer in time")]
    Late,
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("an answer to another question")]
    Other,
}

/// What an exchange brought.
#[derive(Debug)]
pub(super) struct Exchanged {
    /// `None` when no server had an answer.
    pub(super) answer: Option<Answer>,
    /// The servers that were asked, and whether they answered.
    pub(super) asked: Vec<(SocketAddr, bool)>,
}

/// Numbers for questions that nobody guesses: the kernel's, but a seed's where a run is to be repeated.
pub(super) fn question_id(clock: &Clock, rng: &mut Rng) -> u16 {
    let mut bytes = [0; 2];
    let is_random =
        !clock.is_simulated() && rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_ok();
    if is_random { u16::from_ne_bytes(bytes) } else { (rng.next_u64() >> 48) as u16 }
}

/// Asks one server after the other until one answers, round and round as long as there is time.
pub(super) async fn exchange(ask: Ask, order: Vec<SocketAddr>, clock: Clock, mut rng: Rng) -> Exchanged {
    let mut asked = Vec::new();
    let end = clock.now() + TOTAL_LIMIT;
    for server in order.iter().cycle() {
        let left = end.since(clock.now());
        if left.is_zero() {
            break;
        }
        let id = question_id(&clock, &mut rng);
        let attempt = attempt(&ask, *server, id);
        match timeout(left.min(ATTEMPT_LIMIT), attempt).await.unwrap_or(Err(ExchangeError::Late)) {
            Ok(message) => {
                asked.push((*server, true));
                return Exchanged { answer: Some(answer(message)), asked };
            }
            Err(error) => {
                tracing::debug!(%server, name = %ask.name, %error, "an upstream server gave no answer");
                asked.push((*server, false));
                // What fails at once would fail a thousand times.
                let pause = clock.now() + Duration::from_millis(50);
                clock.sleep_until(pause).await;
            }
        }
    }
    Exchanged { answer: None, asked }
}

fn answer(message: Message) -> Answer {
    Answer {
        rcode: message.rcode,
        authentic: message.flags & flag::AUTHENTIC != 0,
        answers: message.answers,
        authority: message.authority,
        additional: message.additional,
    }
}

async fn attempt(ask: &Ask, server: SocketAddr, id: u16) -> Result<Message, ExchangeError> {
    if !ask.forward.force_tcp {
        let message = by_udp(ask, server, id, true).await?;
        // A server from before the extension doesn't understand it.
        let message = match message.rcode {
            Rcode::FORMAT_ERROR | Rcode::NOT_IMPLEMENTED => by_udp(ask, server, id.wrapping_add(1), false).await?,
            _ => message,
        };
        if !message.is_truncated() {
            return Ok(message);
        }
    }
    by_tcp(ask, server, id).await
}

/// The question as it is sent.
fn question(ask: &Ask, id: u16, with_edns: bool) -> Vec<u8> {
    let mut flags = flag::RECURSION_DESIRED;
    if ask.unchecked {
        flags |= flag::CHECKING_DISABLED;
    }
    let mut bytes = Vec::with_capacity(64);
    for word in [id, flags, 1, 0, 0, u16::from(with_edns)] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(ask.name.wire());
    bytes.extend_from_slice(&ask.kind.to_be_bytes());
    bytes.extend_from_slice(&ask.class.to_be_bytes());
    if with_edns {
        bytes.extend_from_slice(&[0, 0, kind::OPT as u8]);
        bytes.extend_from_slice(&UDP_BYTES.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, if ask.signatures { 0x80 } else { 0 }, 0, 0, 0]);
    }
    bytes
}

/// Reads an answer to this very question.
fn read(bytes: &[u8], ask: &Ask, id: u16) -> Result<Message, ExchangeError> {
    let message = Message::parse(bytes)?;
    let (name, kind, class) = &message.question;
    let is_ours = message.id == id
        && message.flags & flag::RESPONSE != 0
        && message.flags & flag::OPCODE == 0
        && *kind == ask.kind
        && *class == ask.class
        && same(name.wire(), ask.name.wire());
    if is_ours { Ok(message) } else { Err(ExchangeError::Other) }
}

async fn by_udp(ask: &Ask, server: SocketAddr, id: u16, with_edns: bool) -> Result<Message, ExchangeError> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question(ask, id, with_edns)).await?;
    let mut buffer = vec![0; UDP_BUFFER_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        match read(bytes, ask, id) {
            Ok(message) => return Ok(message),
            // The right one may still come; until then somebody may be guessing.
            Err(error) => tracing::debug!(%server, name = %ask.name, %error, "dropped what is no answer"),
        }
    }
}

async fn by_tcp(ask: &Ask, server: SocketAddr, id: u16) -> Result<Message, ExchangeError> {
    let mut stream = TcpStream::connect(server).await?;
    let question = question(ask, id, true);
    let length = u16::try_from(question.len()).unwrap_or_default();
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    read(&bytes, ask, id)
}
