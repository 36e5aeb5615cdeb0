//! Exec and attach for WebSockets of version 5: this side speaks in messages on channels, the kubelet in streams of SPDY.
//!
//! ```text
//! message [0, bytes…]  stdin   ─▶ stream stdin          stream stdout ─▶ [1, bytes…]
//! message [4, size]    resize  ─▶ stream resize         stream stderr ─▶ [2, bytes…]
//! message [255, 0]             ─▶ the end of stdin      stream error  ─▶ [3, Status] at the very end
//! ```
//!
//! Both ways are carried at once and hold one piece each: whoever doesn't read holds back whoever writes.

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use k3sd_apiserver_access::Query;
use k3sd_objects::status::Status;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::spdy::{Heard, StreamId, Writer, read};

/// The protocol of the messages.
pub(crate) const VERSION_5: &str = "v5.channel.k8s.io";
/// The protocol of the streams.
pub(crate) const VERSION_4: &str = "v4.channel.k8s.io";

/// The channels.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The longest message of a client.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What is read of the kubelet's connection at once.
const PIECE_BYTES: usize = 32 * 1024;
/// The longest last word of a process that is passed on.
const STATUS_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to say good-bye.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);
/// Pings that wait for their answer; more are not answered.
const PONGS_MAX: usize = 16;

/// Which streams are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    /// Reads them from a query.
    pub(crate) fn of(query: &Query) -> Self {
        let is_on = |key| query.is_on(key);
        let tty = is_on("tty");
        // A terminal has one stream for both.
        Self { stdin: is_on("stdin"), stdout: is_on("stdout"), stderr: is_on("stderr") && !tty, tty }
    }
}

/// The streams that were opened.
#[derive(Clone, Copy, Debug)]
struct Opened {
    error: StreamId,
    stdin: Option<StreamId>,
    stdout: Option<StreamId>,
    stderr: Option<StreamId>,
    resize: Option<StreamId>,
}

fn open(wanted: Wanted, out: &mut BytesMut) -> Opened {
    let mut writer = Writer::default();
    let mut stream = |kind: &str| writer.open(&[("streamtype", kind)], out);
    Opened {
        error: stream("error"),
        stdin: wanted.stdin.then(|| stream("stdin")),
        stdout: wanted.stdout.then(|| stream("stdout")),
        stderr: wanted.stderr.then(|| stream("stderr")),
        resize: wanted.tty.then(|| stream("resize")),
    }
}

/// A client's message, as frames for the kubelet. What is meant for a stream that isn't there is left out.
fn forth(opened: &Opened, message: &[u8], out: &mut BytesMut) {
    let Some((channel, bytes)) = message.split_first() else { return };
    let stream = match (*channel, bytes) {
        (STDIN, _) => opened.stdin,
        (RESIZE, _) => opened.resize,
        (CLOSE, [STDIN]) => {
            if let Some(stdin) = opened.stdin {
                Writer::finish(stdin, out);
            }
            return;
        }
        _ => None,
    };
    if let Some(stream) = stream {
        Writer::data(stream, bytes, out);
    }
}

/// What the kubelet says, until all streams have ended.
#[derive(Debug)]
struct Outcome {
    opened: Opened,
    /// Streams that have not ended.
    open: Vec<StreamId>,
    status: BytesMut,
}

impl Outcome {
    fn new(opened: Opened) -> Self {
        let open = [Some(opened.error), opened.stdout, opened.stderr].into_iter().flatten().collect();
        Self { opened, open, status: BytesMut::new() }
    }

    fn end(&mut self, stream: StreamId) {
        self.open.retain(|open| *open != stream);
    }

    /// Takes bytes of a stream; what of them is to be told the client.
    fn take(&mut self, stream: StreamId, bytes: &Bytes, is_last: bool) -> Option<Message> {
        if is_last {
            self.end(stream);
        }
        if stream == self.opened.error {
            let room = STATUS_BYTES_MAX.saturating_sub(self.status.len()).min(bytes.len());
            self.status.extend_from_slice(&bytes[..room]);
            return None;
        }
        let channel = match Some(stream) {
            stdout if stdout == self.opened.stdout => STDOUT,
            stderr if stderr == self.opened.stderr => STDERR,
            _ => return None,
        };
        (!bytes.is_empty()).then(|| channel_message(channel, bytes))
    }

    /// The last word: the process's own, or that there was none.
    fn last_word(self) -> Bytes {
        let has_ended = !self.open.contains(&self.opened.error);
        match (self.status.is_empty(), has_ended) {
            (false, _) => self.status.freeze(),
            (true, true) => br#"{"metadata":{},"status":"Success"}"#.as_slice().into(),
            (true, false) => Status::internal_error("the connection to the container ended").to_bytes().into(),
        }
    }
}

fn channel_message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

type Socket<S> = WebSocketStream<S>;

/// Makes a WebSocket of a connection whose handshake is done.
pub(crate) async fn socket<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Socket<S> {
    let limits =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits)).await
}

/// Says that nothing came of it, and why.
pub(crate) async fn fail<S: AsyncRead + AsyncWrite + Unpin>(client: S, status: &Status) {
    let mut socket = socket(client).await;
    // A client that is gone needs to be told nothing.
    if socket.send(channel_message(ERROR, &status.to_bytes())).await.is_ok()
        && socket.close(Some(farewell())).await.is_ok()
    {
        let gone = async { while let Some(Ok(_)) = socket.next().await {} };
        drop(tokio::time::timeout(FAREWELL_LIMIT, gone).await);
    }
}

fn farewell() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }
}

/// Carries both ways until the process has ended, or either side goes.
pub(crate) async fn translate<S, K>(client: S, kubelet: K, wanted: Wanted)
where
    S: AsyncRead + AsyncWrite + Unpin,
    K: AsyncRead + AsyncWrite + Unpin,
{
    let (tell, hear) = socket(client).await.split();
    let (from, mut to) = tokio::io::split(kubelet);
    let mut first = BytesMut::new();
    let opened = open(wanted, &mut first);
    if to.write_all(&first).await.is_err() {
        // The other direction finds out the same, and says so.
        first.clear();
    }
    let (pong, pongs) = mpsc::channel(PONGS_MAX);
    let outcome = async {
        let (mut tell, outcome) = carry_back(from, tell, Outcome::new(opened), pong).await?;
        let word = channel_message(ERROR, &outcome.last_word());
        tell.send(word).await.map_err(io::Error::other)?;
        tell.send(Message::Close(Some(farewell()))).await.map_err(io::Error::other)
    };
    let mut forth = std::pin::pin!(carry_forth(hear, to, &opened, pongs));
    tokio::select! {
        ended = outcome => match ended {
            // The client has the last word; a connection that is closed on what it still says may lose what it was told.
            Ok(()) => drop(tokio::time::timeout(FAREWELL_LIMIT, forth).await),
            Err(error) => tracing::debug!(%error, "a client of a container broke off"),
        },
        () = &mut forth => {}
    }
}

/// Carries what the client says, and answers pings. Ends when the client goes; when only the kubelet has gone, the other
/// direction says so.
async fn carry_forth<S, K>(
    mut hear: SplitStream<Socket<S>>,
    mut to: WriteHalf<K>,
    opened: &Opened,
    mut pongs: mpsc::Receiver<u32>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    K: AsyncWrite,
{
    let mut out = BytesMut::new();
    let mut kubelet_listens = true;
    loop {
        tokio::select! {
            heard = hear.next() => match heard {
                Some(Ok(Message::Binary(message))) => forth(opened, &message, &mut out),
                Some(Ok(Message::Text(message))) => forth(opened, message.as_bytes(), &mut out),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            Some(number) = pongs.recv() => Writer::pong(number, &mut out),
        }
        if kubelet_listens && !out.is_empty() {
            kubelet_listens = to.write_all(&out).await.is_ok() && to.flush().await.is_ok();
        }
        out.clear();
    }
}

/// Carries what the kubelet says until all its streams have ended, or it goes.
async fn carry_back<S, K>(
    mut from: ReadHalf<K>,
    mut tell: SplitSink<Socket<S>, Message>,
    mut outcome: Outcome,
    pong: mpsc::Sender<u32>,
) -> io::Result<(SplitSink<Socket<S>, Message>, Outcome)>
where
    S: AsyncRead + AsyncWrite + Unpin,
    K: AsyncRead,
{
    let mut input = BytesMut::with_capacity(PIECE_BYTES);
    loop {
        loop {
            let message = match read(&mut input) {
                Ok(None) => break,
                Ok(Some(Heard::Data(stream, bytes, is_last))) => outcome.take(stream, &bytes, is_last),
                Ok(Some(Heard::Reset(stream))) => {
                    outcome.end(stream);
                    None
                }
                Ok(Some(Heard::Ping(number))) => {
                    pong.try_send(number).ok();
                    None
                }
                Ok(Some(Heard::Taken(_) | Heard::Leaving)) => None,
                Err(error) => {
                    tracing::debug!(%error, "a kubelet speaks no SPDY");
                    return Ok((tell, outcome));
                }
            };
            if let Some(message) = message {
                tell.send(message).await.map_err(io::Error::other)?;
            }
        }
        if outcome.open.is_empty() {
            return Ok((tell, outcome));
        }
        input.reserve(PIECE_BYTES);
        match from.read_buf(&mut input).await {
            Ok(0) | Err(_) => return Ok((tell, outcome)),
            Ok(_) => {}
        }
    }
}

/// Carries a connection in a WebSocket's binary messages, both ways, until either side goes.
pub(crate) async fn tunnel<S, K>(client: S, kubelet: K)
where
    S: AsyncRead + AsyncWrite + Unpin,
    K: AsyncRead + AsyncWrite + Unpin,
{
    let (mut tell, mut hear) = socket(client).await.split();
    let (mut from, mut to) = tokio::io::split(kubelet);
    let forth = async {
        while let Some(Ok(message)) = hear.next().await {
            let sent = match message {
                Message::Binary(bytes) => to.write_all(&bytes).await,
                Message::Close(_) => return,
                _ => Ok(()),
            };
            if sent.is_err() || to.flush().await.is_err() {
                return;
            }
        }
    };
    let back = async {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            match from.read_buf(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(_) if tell.send(Message::Binary(piece.freeze())).await.is_err() => return,
                Ok(_) => {}
            }
        }
        tell.send(Message::Close(Some(farewell()))).await.ok();
    };
    let mut forth = std::pin::pin!(forth);
    tokio::select! {
        () = &mut forth => {}
        () = back => drop(tokio::time::timeout(FAREWELL_LIMIT, forth).await),
    }
}

#[cfg(test)]
mod tests;
