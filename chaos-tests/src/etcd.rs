//! A client of the etcd interface that says of every write what became of it: it happened, it did not, or nobody knows.
//!
//! It repeats nothing, waits for nothing but the answer, and opens a new connection only when the last one broke, so that
//! each fault of the server is seen by somebody.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpStream, UnixStream};
use tonic::{Code, Status};

use self::wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use self::wire::etcdserverpb::kv_client::KvClient;
use self::wire::etcdserverpb::request_op::Request as Op;
use self::wire::etcdserverpb::response_op::Response as Answer;
use self::wire::etcdserverpb::watch_client::WatchClient;
use self::wire::etcdserverpb::watch_request::RequestUnion;
use self::wire::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp,
    TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::history::{Action, Event, Expected, Key, Outcome, Revision, Value, Version};

/// The messages of etcd's interface.
mod wire {
    #![expect(unreachable_pub, clippy::allow_attributes, reason = "generated; documented in the .proto files")]
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}

/// In front of the number of a key.
const PREFIX: &str = "/chaos/";
/// The first key that is behind all of ours.
const PREFIX_END: &str = "/chaos0";
/// How long an answer may take. What takes longer is unknown; the server itself waits five seconds for its database.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// How large a message may be; etcd's clients have no limit for answers either.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port, without encryption.
    Tcp(SocketAddr),
}

type Answering = Pin<Box<dyn Future<Output = hyper::Result<http::Response<Incoming>>> + Send>>;

/// A connection. What is sent on it is sent once.
#[derive(Clone, Debug)]
struct Connection(SendRequest<tonic::body::Body>);

impl tower_service::Service<http::Request<tonic::body::Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Answering {
        Box::pin(self.0.send_request(request))
    }
}

impl Endpoint {
    async fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(path) => shake_hands(UnixStream::connect(path).await?).await,
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                shake_hands(stream).await
            }
        }
    }
}

async fn shake_hands(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
) -> io::Result<Connection> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with its sender, or breaks, which the sender tells.
    tokio::spawn(connection);
    Ok(Connection(sender))
}

fn origin() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

/// How values are written: their number, and as much behind it as makes them so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// How long a value is at least, in bytes.
    pub value_bytes: usize,
}

impl Encoding {
    /// The bytes of a value. Their length depends on the number, so that pieces of two values fit nowhere.
    #[must_use]
    pub fn encode(self, Value(number): Value) -> Bytes {
        let filler = usize::try_from(number % 61).expect("a small number") + self.value_bytes;
        let letter = char::from(b'a' + u8::try_from(number % 26).expect("a small number"));
        let mut text = format!("{number}:");
        text.extend(std::iter::repeat_n(letter, filler));
        text.into()
    }

    /// The number of a value.
    ///
    /// # Panics
    /// When nobody can have written that.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Value {
        let text = std::str::from_utf8(bytes).ok();
        let number = text.and_then(|text| text.split_once(':')?.0.parse().ok()).map(Value);
        let value = number.filter(|value| self.encode(*value) == bytes);
        value.unwrap_or_else(|| panic!("a value of {} bytes that nobody wrote: {text:.80?}", bytes.len()))
    }

    fn version(self, kv: &wire::mvccpb::KeyValue) -> Version {
        Version { created: kv.create_revision, revision: kv.mod_revision, value: self.decode(&kv.value) }
    }

    /// What one key holds.
    fn found(self, kvs: &[wire::mvccpb::KeyValue]) -> Option<Version> {
        assert!(kvs.len() <= 1, "{} values of one key", kvs.len());
        kvs.first().map(|kv| self.version(kv))
    }

    fn event(self, event: &wire::mvccpb::Event) -> Event {
        let kv = event.kv.as_ref().expect("an event has a key");
        let prev = event.prev_kv.as_ref().map(|kv| self.version(kv));
        let is_put = event.r#type() == wire::mvccpb::event::EventType::Put;
        Event { revision: kv.mod_revision, key: parse_key(&kv.key), now: is_put.then(|| self.version(kv)), prev }
    }
}

fn key_name(key: Key) -> Bytes {
    format!("{PREFIX}{key:03}").into()
}

fn parse_key(name: &[u8]) -> Key {
    let number = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
    number.unwrap_or_else(|| panic!("a key that nobody wrote: {name:?}"))
}

fn revision(header: Option<&ResponseHeader>) -> Revision {
    header.expect("every answer has a header").revision
}

fn one(key: Key, at: Option<Revision>) -> RangeRequest {
    RangeRequest { key: key_name(key), revision: at.unwrap_or(0), ..RangeRequest::default() }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// Nobody listens, so nothing was sent.
    NotSent,
    /// The server says that it did nothing, in these words.
    Refused(String),
    /// It may have done it.
    Unknown(String),
}

/// What the server answered with is final, except where it says itself that it does not know. What the connection adds
/// of its own is never final.
fn judge(status: &Status) -> Failure {
    let text = format!("{:?}: {}", status.code(), status.message());
    let said = status.message().starts_with("etcdserver: ");
    if said && status.message() != "etcdserver: request timed out" && status.code() != Code::Unknown {
        Failure::Refused(text)
    } else {
        Failure::Unknown(text)
    }
}

/// One client with at most one connection.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    encoding: Encoding,
    connection: Option<Connection>,
}

impl Client {
    /// Connects with the first question.
    #[must_use]
    pub fn new(endpoint: Endpoint, encoding: Encoding) -> Self {
        Self { endpoint, encoding, connection: None }
    }

    /// Asks one question on the connection, or on a new one.
    async fn ask<T, F: Future<Output = Result<tonic::Response<T>, Status>>>(
        &mut self,
        question: impl FnOnce(KvClient<Connection>) -> F,
    ) -> Result<T, Failure> {
        let connection = match self.connection.take().filter(|connection| !connection.0.is_closed()) {
            Some(connection) => connection,
            None => self.endpoint.connect().await.map_err(|_| Failure::NotSent)?,
        };
        let client = KvClient::with_origin(connection.clone(), origin());
        let client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = tokio::time::timeout(ANSWER_LIMIT, question(client)).await;
        let failure = match answer {
            Ok(Ok(answer)) => {
                self.connection = Some(connection);
                return Ok(answer.into_inner());
            }
            Ok(Err(status)) => judge(&status),
            Err(_) => Failure::Unknown("no answer in time".to_owned()),
        };
        if matches!(failure, Failure::Refused(_)) {
            self.connection = Some(connection);
        }
        Err(failure)
    }

    /// Does something; nothing comes of it when nobody listens.
    pub async fn carry_out(&mut self, action: &Action) -> Option<Outcome> {
        let outcome = match *action {
            Action::Put { key, expected, value } => {
                let put = PutRequest {
                    key: key_name(key),
                    value: self.encoding.encode(value),
                    prev_kv: true,
                    ..PutRequest::default()
                };
                self.write(key, expected, put.into()).await
            }
            Action::Delete { key, expected } => {
                let delete = DeleteRangeRequest { key: key_name(key), prev_kv: true, ..DeleteRangeRequest::default() };
                self.write(key, expected, delete.into()).await
            }
            Action::Read { key, at } => self.read(key, at).await,
            Action::List { at } => self.list(at).await.map(|(at, found)| Outcome::Listed { at, found }),
        };
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(Failure::NotSent) => None,
            Err(Failure::Refused(reason)) => Some(Outcome::Refused { reason }),
            Err(Failure::Unknown(reason)) => Some(Outcome::Unknown { reason }),
        }
    }

    async fn write(&mut self, key: Key, expected: Expected, write: Write) -> Result<Outcome, Failure> {
        let encoding = self.encoding;
        let demanded = match expected {
            Expected::Anything => return self.write_anyway(write).await,
            Expected::Absent => 0,
            Expected::At(revision) => revision,
        };
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key_name(key),
            target_union: Some(TargetUnion::ModRevision(demanded)),
            ..Compare::default()
        };
        let operation = |op| vec![RequestOp { request: Some(op) }];
        let (success, failure) = (operation(write.into()), operation(Op::RequestRange(one(key, None))));
        let request = TxnRequest { compare: vec![compare], success, failure };
        let answer = self.ask(async move |mut client| client.txn(request).await).await?;
        let at = revision(answer.header.as_ref());
        let Ok([ResponseOp { response: Some(part) }]) = <[_; 1]>::try_from(answer.responses) else {
            panic!("a transaction of one operation has one answer");
        };
        Ok(match (answer.succeeded, part) {
            (true, Answer::ResponsePut(put)) => written(at, put.prev_kv.map(|kv| encoding.version(&kv))),
            (true, Answer::ResponseDeleteRange(delete)) => deleted(at, encoding.found(&delete.prev_kvs)),
            (false, Answer::ResponseRange(range)) => Outcome::Unchanged { at, found: encoding.found(&range.kvs) },
            (succeeded, part) => panic!("an answer to something else, {succeeded}: {part:?}"),
        })
    }

    async fn write_anyway(&mut self, write: Write) -> Result<Outcome, Failure> {
        let encoding = self.encoding;
        match write {
            Write::Put(put) => {
                let answer = self.ask(async move |mut client| client.put(put).await).await?;
                let prev = answer.prev_kv.map(|kv| encoding.version(&kv));
                Ok(written(revision(answer.header.as_ref()), prev))
            }
            Write::Delete(delete) => {
                let answer = self.ask(async move |mut client| client.delete_range(delete).await).await?;
                Ok(deleted(revision(answer.header.as_ref()), encoding.found(&answer.prev_kvs)))
            }
        }
    }

    async fn read(&mut self, key: Key, at: Option<Revision>) -> Result<Outcome, Failure> {
        let request = one(key, at);
        let answer = self.ask(async move |mut client| client.range(request).await).await?;
        Ok(Outcome::Read { at: revision(answer.header.as_ref()), found: self.encoding.found(&answer.kvs) })
    }

    /// All keys, and the store's revision.
    ///
    /// # Errors
    /// See [`Failure`].
    ///
    /// # Panics
    /// When the answer can't be right.
    pub async fn list(&mut self, at: Option<Revision>) -> Result<(Revision, BTreeMap<Key, Version>), Failure> {
        let request = RangeRequest { range_end: PREFIX_END.into(), ..one(0, at) };
        let request = RangeRequest { key: PREFIX.into(), ..request };
        let answer = self.ask(async move |mut client| client.range(request).await).await?;
        assert!(answer.kvs.is_sorted_by(|one, other| one.key < other.key), "a list in order, without duplicates");
        let found = answer.kvs.iter().map(|kv| (parse_key(&kv.key), self.encoding.version(kv))).collect();
        Ok((revision(answer.header.as_ref()), found))
    }

    /// Drops the history before a revision.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn compact(&mut self, revision: Revision) -> Result<(), Failure> {
        let request = CompactionRequest { revision, physical: false };
        self.ask(async move |mut client| client.compact(request).await).await.map(drop)
    }
}

#[derive(Debug)]
enum Write {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
}

impl From<PutRequest> for Write {
    fn from(put: PutRequest) -> Self {
        Self::Put(put)
    }
}

impl From<DeleteRangeRequest> for Write {
    fn from(delete: DeleteRangeRequest) -> Self {
        Self::Delete(delete)
    }
}

impl From<Write> for Op {
    fn from(write: Write) -> Self {
        match write {
            Write::Put(put) => Self::RequestPut(put),
            Write::Delete(delete) => Self::RequestDeleteRange(delete),
        }
    }
}

fn written(revision: Revision, prev: Option<Version>) -> Outcome {
    Outcome::Written { revision, prev }
}

/// A delete that found nothing changed nothing.
fn deleted(at: Revision, prev: Option<Version>) -> Outcome {
    if prev.is_some() { written(at, prev) } else { Outcome::Unchanged { at, found: None } }
}

/// What a stream of changes brings.
#[derive(Debug)]
pub enum Message {
    /// Changes, in order.
    Events(Vec<Event>),
    /// There is nothing that was not told, up to this revision.
    Progress(Revision),
    /// What was asked for is gone up to this revision.
    Compacted(Revision),
}

/// A stream of changes, on a connection of its own.
#[derive(Debug)]
pub struct Changes {
    encoding: Encoding,
    answers: tonic::Streaming<WatchResponse>,
    /// The stream ends with the client's side.
    _asking: tokio::sync::mpsc::Sender<WatchRequest>,
}

impl Changes {
    /// Asks for the changes of one key, or of all, from a revision on.
    ///
    /// # Errors
    /// What prevents it; asking again is safe.
    pub async fn follow(
        endpoint: &Endpoint,
        encoding: Encoding,
        key: Option<Key>,
        from: Revision,
    ) -> Result<Self, String> {
        let connection = endpoint.connect().await.map_err(|error| error.to_string())?;
        let (name, range_end) = match key {
            Some(key) => (key_name(key), Bytes::new()),
            None => (PREFIX.into(), PREFIX_END.into()),
        };
        let create = WatchCreateRequest {
            key: name,
            range_end,
            start_revision: from,
            progress_notify: true,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let (asking, mut requests) = tokio::sync::mpsc::channel(1);
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        asking.send(request).await.map_err(|error| error.to_string())?;
        let requests = futures_util::stream::poll_fn(move |context| requests.poll_recv(context));
        let mut client = WatchClient::with_origin(connection, origin()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answering = tokio::time::timeout(ANSWER_LIMIT, client.watch(requests)).await;
        let answers = answering.map_err(|error| error.to_string())?.map_err(|status| status.to_string())?;
        Ok(Self { encoding, answers: answers.into_inner(), _asking: asking })
    }

    /// The next message. Dropping the future loses none.
    ///
    /// # Errors
    /// The stream has ended; the rest is told to who follows again.
    pub async fn next(&mut self) -> Result<Message, String> {
        loop {
            let answer = self.answers.message().await.map_err(|status| status.to_string())?;
            let answer = answer.ok_or_else(|| "the stream ended".to_owned())?;
            if answer.compact_revision > 0 {
                return Ok(Message::Compacted(answer.compact_revision));
            }
            if answer.canceled {
                return Err(answer.cancel_reason);
            }
            let at = revision(answer.header.as_ref());
            if !answer.events.is_empty() {
                let events: Vec<_> = answer.events.iter().map(|event| self.encoding.event(event)).collect();
                let last = events.last().map_or(0, |event| event.revision);
                assert!(last <= at, "an event of revision {last} under a header of {at}");
                return Ok(Message::Events(events));
            }
            if !answer.created {
                return Ok(Message::Progress(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_whole_or_not_at_all() {
        let encoding = Encoding { value_bytes: 100 };
        for number in [0, 1, 60, 61, 123_456] {
            assert_eq!(encoding.decode(&encoding.encode(Value(number))), Value(number));
        }
        for wrong in [&encoding.encode(Value(5))[..50], b"", b"5:", b"\xff"] {
            assert!(std::panic::catch_unwind(|| encoding.decode(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_the_servers_own_words_are_final() {
        let refused = |status| matches!(judge(&status), Failure::Refused(_));
        assert!(refused(Status::resource_exhausted("etcdserver: mvcc: database space exceeded")));
        assert!(refused(Status::unavailable("etcdserver: no leader")));
        assert!(!refused(Status::unavailable("etcdserver: request timed out")));
        assert!(!refused(Status::unknown("transport error")));
        assert!(!refused(Status::unavailable("connection reset")));
    }
}
