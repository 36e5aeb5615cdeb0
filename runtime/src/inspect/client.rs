//! Asking a running daemon through its inspection socket. One connection per question.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::request::{Kill, encode};
use super::wire::{Done, Event, Refusal, Show, Trace, Tree, VERSION};

/// How long an answer may take, unless said otherwise. Answers are made without waiting for any actor.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The longest line that is believed; an actor's event is below 2 KiB.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The longest answer that is believed.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no socket, or nobody behind it.
    #[error("nobody answers at {}; is k3sd running?", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is its owner's alone.
    #[error("{} may only be opened by its owner; try it as root", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The socket could not be opened for another reason.
    #[error("{} could not be opened", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The daemon said no.
    #[error("{error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The daemon's reason.
        error: String,
    },
    /// The daemon went away in the middle.
    #[error("the connection broke off")]
    Broken(#[source] hyper::Error),
    /// It took the question and said nothing.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// It said something else than was asked for.
    #[error("the answer is not understood: {0}")]
    NotUnderstood(String),
}

/// The way to a daemon's inspection socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    limit: Duration,
}

impl Client {
    /// A client for this socket. Nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), limit: ANSWER_LIMIT }
    }

    /// How long an answer may take.
    #[must_use]
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole tree.
    ///
    /// # Errors
    /// See [`ClientError`]; all methods share it.
    pub async fn tree(&self) -> Result<Tree, ClientError> {
        self.ask(Method::GET, "tree").await
    }

    /// One actor with its children.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn actor(&self, path: &str) -> Result<Show, ClientError> {
        self.ask(Method::GET, &format!("actors/{}", encode(path))).await
    }

    /// What happens from now on; the first line is there at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(&self) -> Result<Lines<Event>, ClientError> {
        self.open(Method::GET, "events").await.map(Lines::new)
    }

    /// The messages an actor handles, until there were so many or so much time is over. It is in place when this returns.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn trace(&self, path: &str, messages: u64, duration: Duration) -> Result<Lines<Trace>, ClientError> {
        let millis = duration.as_millis().max(1);
        let page = format!("trace/{}?limit={messages}&for_ms={millis}", encode(path));
        self.open(Method::GET, &page).await.map(Lines::new)
    }

    /// Ends the present life of an actor. Its supervisor decides what follows.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn kill(&self, path: &str, how: Kill) -> Result<Done, ClientError> {
        self.ask(Method::POST, &format!("kill/{}?how={}", encode(path), how.word())).await
    }

    /// Lets an actor handle no further messages.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn suspend(&self, path: &str) -> Result<Done, ClientError> {
        self.ask(Method::POST, &format!("suspend/{}", encode(path))).await
    }

    /// Lets a suspended actor go on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume(&self, path: &str) -> Result<Done, ClientError> {
        self.ask(Method::POST, &format!("resume/{}", encode(path))).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, page: &str) -> Result<T, ClientError> {
        let answer = async {
            let mut exchange = self.open(method, page).await?;
            exchange.rest().await
        };
        understand(&timeout(self.limit, answer).await.map_err(|_| ClientError::NoAnswer(self.limit))??)
    }

    /// Sends a question and reads up to the header of its answer.
    async fn open(&self, method: Method, page: &str) -> Result<Exchange, ClientError> {
        let opened = timeout(self.limit, self.exchange(method, page)).await;
        opened.map_err(|_| ClientError::NoAnswer(self.limit))?
    }

    async fn exchange(&self, method: Method, page: &str) -> Result<Exchange, ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|source| self.no_way_in(source))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = format!("/v1/{page}")
            .parse()
            .map_err(|error| ClientError::NotUnderstood(format!("{page:?} makes no request: {error}")))?;
        request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static("k3sd"));
        let mut connection: Option<Connection> = Some(Box::pin(connection));
        let mut response = std::pin::pin!(sender.send_request(request));
        let response = poll_fn(|cx| {
            drive(&mut connection, cx);
            response.as_mut().poll(cx)
        })
        .await
        .map_err(ClientError::Broken)?;
        let status = response.status();
        let mut exchange = Exchange { connection, _sender: sender, body: response.into_body() };
        if status == StatusCode::OK {
            return Ok(exchange);
        }
        let text = exchange.rest().await?;
        let error = match serde_json::from_slice::<Refusal>(&text) {
            Ok(refusal) => refusal.error,
            Err(_) => format!("the answer is {status}"),
        };
        Err(ClientError::Refused { status: status.as_u16(), error })
    }

    fn no_way_in(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning { path },
            ErrorKind::PermissionDenied => ClientError::Denied { path },
            _ => ClientError::Connect { path, source },
        }
    }
}

type Connection = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// Lets the connection's own work go on. Its errors show in what is read from it.
fn drive(connection: &mut Option<Connection>, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
        *connection = None;
    }
}

/// An answer whose body is yet to be read. It drives its own connection, so nothing runs beside it.
struct Exchange {
    connection: Option<Connection>,
    _sender: SendRequest<Empty<Bytes>>,
    body: Incoming,
}

impl Exchange {
    async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = poll_fn(|cx| {
                drive(&mut self.connection, cx);
                match Pin::new(&mut self.body).poll_frame(cx) {
                    // The connection may have more for the body now that it was asked for.
                    Poll::Pending if self.connection.is_some() => {
                        drive(&mut self.connection, cx);
                        Pin::new(&mut self.body).poll_frame(cx)
                    }
                    polled => polled,
                }
            })
            .await;
            match frame {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn rest(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            text.extend_from_slice(&chunk);
            if text.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::NotUnderstood("it is too long".to_owned()));
            }
        }
        Ok(text)
    }
}

/// A stream of JSON lines. Dropping it closes the connection.
pub struct Lines<T> {
    exchange: Exchange,
    partial: Vec<u8>,
    whole: VecDeque<T>,
    kind: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

impl<T: DeserializeOwned> Lines<T> {
    fn new(exchange: Exchange) -> Self {
        Self { exchange, partial: Vec::new(), whole: VecDeque::new(), kind: PhantomData }
    }

    /// The next line; `None` when there are no more. May be dropped and called again without a loss.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(line) = self.whole.pop_front() {
                return Ok(Some(line));
            }
            let Some(chunk) = self.exchange.chunk().await? else { return Ok(None) };
            self.take_in(&chunk)?;
        }
    }

    fn take_in(&mut self, chunk: &[u8]) -> Result<(), ClientError> {
        self.partial.extend_from_slice(chunk);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            let endless = self.partial.len() > LINE_BYTES_MAX;
            return if endless { Err(ClientError::NotUnderstood("a line is too long".to_owned())) } else { Ok(()) };
        };
        let rest = self.partial.split_off(end + 1);
        let lines = std::mem::replace(&mut self.partial, rest);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.whole.push_back(parse(line)?);
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|error| ClientError::NotUnderstood(error.to_string()))
}

/// Reads an answer of our version.
fn understand<T: DeserializeOwned>(text: &[u8]) -> Result<T, ClientError> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = parse(text)?;
    if version != VERSION {
        let text = format!("the daemon speaks version {version}, this program {VERSION}");
        return Err(ClientError::NotUnderstood(text));
    }
    parse(text)
}
