//! A client of the system's message bus (D-Bus), as small as what it is for: calls, signals, and descriptors that come
//! with an answer.

#[cfg(test)]
pub(super) mod tests;
mod wire;

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use thiserror::Error;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

pub(crate) use self::wire::Value;
use self::wire::{Kind, MESSAGE_BYTES_MAX, Malformed, Message, PREFIX_BYTES};

/// The bus itself, as calls name it.
const BUS: Object<'static> =
    Object { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };
/// Descriptors that are kept for messages that aren't complete yet; one message of logind has one.
const DESCRIPTORS_MAX: usize = 8;
/// Signals that wait while an answer is waited for.
const SIGNALS_MAX: usize = 64;
/// The longest line of the handshake.
const LINE_BYTES_MAX: usize = 4096;

/// Why the bus can't be spoken to, or somebody on it refused.
#[derive(Debug, Error)]
pub(crate) enum BusError {
    /// The socket.
    #[error("the system's message bus")]
    Socket(#[from] io::Error),
    /// The bus closed the connection.
    #[error("the system's message bus closed the connection")]
    Closed,
    /// What came is no message, or more than anybody sends.
    #[error("the system's message bus sent nonsense: {0}")]
    Nonsense(String),
    /// The bus doesn't let this user in.
    #[error("the system's message bus refused: {0}")]
    NotLetIn(String),
    /// Whoever was called said no: the error's name, and its words.
    #[error("{member}: {name}: {message}")]
    Refused {
        /// What was called.
        member: String,
        /// As `org.freedesktop.DBus.Error.ServiceUnknown`.
        name: String,
        /// Its words.
        message: String,
    },
}

impl From<Malformed> for BusError {
    fn from(error: Malformed) -> Self {
        Self::Nonsense(error.to_string())
    }
}

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a> {
    /// The name on the bus.
    pub(crate) destination: &'a str,
    /// Which of its objects.
    pub(crate) path: &'a str,
    /// Which of its interfaces.
    pub(crate) interface: &'a str,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its arguments.
    pub(crate) body: Vec<Value>,
    /// The descriptors that came with it.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A signal.
#[derive(Debug)]
pub(crate) struct Signal {
    /// As `org.freedesktop.login1.Manager`.
    pub(crate) interface: String,
    /// Its name.
    pub(crate) member: String,
    /// Its arguments.
    pub(crate) body: Vec<Value>,
}

/// A connection. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    received: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    signals: VecDeque<Signal>,
    serial: u32,
}

impl Bus {
    /// Connects, and says hello as the user of this process.
    ///
    /// # Errors
    /// There is no bus, or it doesn't let us in.
    pub(crate) async fn open(socket: &Path) -> Result<Self, BusError> {
        let stream = UnixStream::connect(socket).await?;
        let (descriptors, signals) = (VecDeque::new(), VecDeque::new());
        let mut bus = Self { stream, received: Vec::new(), descriptors, signals, serial: 0 };
        // In this handshake a user is the hexadecimal form of the digits of its number.
        let user: String =
            rustix::process::geteuid().as_raw().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes()).await?;
        bus.expect_line("OK").await?;
        bus.stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
        bus.expect_line("AGREE_UNIX_FD").await?;
        bus.stream.write_all(b"BEGIN\r\n").await?;
        bus.call(BUS, "Hello", Vec::new()).await?;
        Ok(bus)
    }

    async fn expect_line(&mut self, word: &str) -> Result<(), BusError> {
        let end = loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                break end;
            }
            if self.received.len() > LINE_BYTES_MAX {
                return Err(BusError::Nonsense("an endless line".to_owned()));
            }
            self.receive().await?;
        };
        let line: Vec<u8> = self.received.drain(..end + 2).collect();
        let line = String::from_utf8_lossy(&line[..end]).into_owned();
        if line.split(' ').next() == Some(word) { Ok(()) } else { Err(BusError::NotLetIn(line)) }
    }

    /// Takes what has come, waiting for something.
    async fn receive(&mut self) -> Result<(), BusError> {
        loop {
            self.stream.readable().await?;
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let socket = self.stream.as_fd();
            let read = self.stream.try_io(Interest::READABLE, || {
                let into = &mut [IoSliceMut::new(&mut bytes)];
                Ok(recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes)
            });
            let count = match read {
                Ok(0) => return Err(BusError::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            if self.descriptors.len() > DESCRIPTORS_MAX || self.received.len() > 2 * MESSAGE_BYTES_MAX {
                return Err(BusError::Nonsense("more than anybody reads".to_owned()));
            }
            self.received.extend_from_slice(&bytes[..count]);
            return Ok(());
        }
    }

    /// The next message with its descriptors. Nothing is lost when the future is dropped.
    async fn message(&mut self) -> Result<(Message, Vec<OwnedFd>), BusError> {
        loop {
            if let Some(prefix) = self.received.first_chunk::<PREFIX_BYTES>() {
                let length = wire::length(prefix)?;
                if self.received.len() >= length {
                    let message = wire::decode(&self.received[..length])?;
                    self.received.drain(..length);
                    let count = usize::try_from(message.descriptors).unwrap_or(usize::MAX);
                    let own = self.descriptors.drain(..count.min(self.descriptors.len())).collect();
                    return Ok((message, own));
                }
            }
            self.receive().await?;
        }
    }

    async fn send(&mut self, message: &mut Message) -> Result<(), BusError> {
        self.serial = self.serial.wrapping_add(1).max(1);
        message.serial = self.serial;
        Ok(self.stream.write_all(&wire::encode(message)).await?)
    }

    fn keep(&mut self, message: Message) {
        // Every connection is told of its own name, asked for or not.
        let is_own_name = message.interface == BUS.interface && message.member == "NameAcquired";
        if message.kind == Kind::Signal && !is_own_name && self.signals.len() < SIGNALS_MAX {
            let Message { interface, member, body, .. } = message;
            self.signals.push_back(Signal { interface, member, body });
        }
    }

    /// Calls, and waits for the answer; the caller limits the time. Not safe to drop: the connection is of no use then.
    ///
    /// # Errors
    /// See [`BusError`].
    pub(crate) async fn call(&mut self, to: Object<'_>, member: &str, body: Vec<Value>) -> Result<Answer, BusError> {
        let mut call = Message {
            destination: to.destination.to_owned(),
            path: to.path.to_owned(),
            interface: to.interface.to_owned(),
            member: member.to_owned(),
            body,
            ..Message::new(Kind::Call)
        };
        self.send(&mut call).await?;
        loop {
            let (message, descriptors) = self.message().await?;
            match message.kind {
                Kind::Return if message.reply_to == call.serial => {
                    return Ok(Answer { body: message.body, descriptors });
                }
                Kind::Error if message.reply_to == call.serial => {
                    let words = match message.body.into_iter().next() {
                        Some(Value::Text(words)) => words,
                        _ => String::new(),
                    };
                    return Err(BusError::Refused { member: member.to_owned(), name: message.error, message: words });
                }
                _ => self.keep(message),
            }
        }
    }

    /// A property of an object.
    ///
    /// # Errors
    /// See [`BusError`].
    pub(crate) async fn property(&mut self, of: Object<'_>, name: &str) -> Result<Option<Value>, BusError> {
        let properties = Object { interface: "org.freedesktop.DBus.Properties", ..of };
        let answer = self.call(properties, "Get", vec![of.interface.into(), name.into()]).await?;
        Ok(match answer.body.into_iter().next() {
            Some(Value::Variant(value)) => Some(*value),
            _ => None,
        })
    }

    /// Has the bus send what fits this rule from now on.
    ///
    /// # Errors
    /// See [`BusError`].
    pub(crate) async fn listen(&mut self, rule: &str) -> Result<(), BusError> {
        self.call(BUS, "AddMatch", vec![rule.into()]).await.map(drop)
    }

    /// The next signal. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) async fn signal(&mut self) -> Result<Signal, BusError> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let (message, _) = self.message().await?;
            self.keep(message);
        }
    }
}
