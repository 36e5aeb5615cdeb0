//! A gRPC client that costs little: HTTP/2 as it is, requests that are encoded once, answers that are not taken apart.
//! All of it runs on the one thread that measures, so that the other core is the server's.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Method, Request, Uri};
use tokio::net::TcpStream;

use crate::wire::{Put, Range, WatchRequest, WatchResponse, framed};

/// No call of a measurement takes longer, unless something is broken.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// What a server may send ahead; Go's client grows its windows to the same size by itself.
const WINDOW_BYTES: u32 = 16 << 20;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    #[error("the connection broke")]
    Broken(#[from] h2::Error),
    #[error("the server said no: status {status}, {message:?}")]
    Refused { status: String, message: String },
    #[error("no answer within {CALL_LIMIT:?}")]
    Late,
    #[error("the answer makes no sense")]
    Senseless(#[from] prost::DecodeError),
    #[error("the stream of a watch ended")]
    Ended,
}

/// The calls that are measured.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) put: Uri,
    pub(crate) range: Uri,
    pub(crate) compact: Uri,
    watch: Uri,
}

/// A few connections to one server.
#[derive(Clone)]
pub(crate) struct Client {
    connections: Vec<SendRequest<Bytes>>,
    pub(crate) paths: Paths,
}

impl Client {
    /// Opens so many connections.
    pub(crate) async fn connect(address: SocketAddr, connections: usize) -> Result<Self, CallError> {
        let mut opened = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await.map_err(CallError::Connect)?;
            stream.set_nodelay(true).map_err(CallError::Connect)?;
            let mut builder = Builder::new();
            builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(async move {
                // Who waits for an answer is told; a server that is stopped at the end is no news.
                connection.await.ok();
            });
            opened.push(sender);
        }
        let path = |path| Uri::try_from(format!("http://{address}/etcdserverpb.{path}")).expect("a path is plain");
        let paths = Paths {
            put: path("KV/Put"),
            range: path("KV/Range"),
            compact: path("KV/Compact"),
            watch: path("Watch/Watch"),
        };
        Ok(Self { connections: opened, paths })
    }

    /// The same server, by one of the connections only.
    pub(crate) fn nth(&self, number: usize) -> Self {
        let connections = vec![self.connections[number % self.connections.len()].clone()];
        Self { connections, paths: self.paths.clone() }
    }

    /// Asks once, and shows each piece of the answer as it comes.
    pub(crate) async fn call(&self, path: &Uri, message: Bytes, mut show: impl FnMut(&[u8])) -> Result<(), CallError> {
        let call = async {
            let (headers, mut body, _) = self.begin(path, message, true).await?;
            while let Some(piece) = body.data().await {
                let piece = piece?;
                show(&piece);
                body.flow_control().release_capacity(piece.len())?;
            }
            let trailers = body.trailers().await?.unwrap_or(headers);
            accepted(&trailers)
        };
        tokio::time::timeout(CALL_LIMIT, call).await.map_err(|_| CallError::Late)?
    }

    async fn begin(
        &self,
        path: &Uri,
        message: Bytes,
        only: bool,
    ) -> Result<(HeaderMap, RecvStream, h2::SendStream<Bytes>), CallError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.clone();
        request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert("te", http::HeaderValue::from_static("trailers"));
        let mut connection = self.connections[0].clone().ready().await?;
        let (response, mut stream) = connection.send_request(request, false)?;
        stream.send_data(message, only)?;
        let (parts, body) = response.await?.into_parts();
        if body.is_end_stream() {
            accepted(&parts.headers)?;
        }
        Ok((parts.headers, body, stream))
    }

    /// Writes a key.
    pub(crate) async fn put(&self, key: String, value: Bytes) -> Result<(), CallError> {
        self.call(&self.paths.put, framed(&Put { key: key.into(), value }), |_| ()).await
    }

    /// Begins to follow a range, and comes back when the server has seen to it.
    pub(crate) async fn watch(&self, range: Range) -> Result<Watch, CallError> {
        let request = framed(&WatchRequest { create: Some(range) });
        let (_, body, stream) = self.begin(&self.paths.watch, request, false).await?;
        let mut watch = Watch { body, _stream: stream, buffer: BytesMut::new() };
        while !watch.next().await?.created {}
        Ok(watch)
    }
}

fn accepted(trailers: &HeaderMap) -> Result<(), CallError> {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    match text("grpc-status").as_str() {
        "0" => Ok(()),
        status => Err(CallError::Refused { status: status.to_owned(), message: text("grpc-message") }),
    }
}

/// A watch under way.
pub(crate) struct Watch {
    body: RecvStream,
    /// Dropping it would end the watch.
    _stream: h2::SendStream<Bytes>,
    buffer: BytesMut,
}

impl Watch {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, CallError> {
        loop {
            if let Some(length) = self.buffer.get(1..5) {
                let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
                if self.buffer.len() >= length + 5 {
                    let message = self.buffer.split_to(length + 5).split_off(5);
                    return Ok(prost::Message::decode(message)?);
                }
            }
            let piece = self.body.data().await.ok_or(CallError::Ended)??;
            self.buffer.extend_from_slice(&piece);
            self.body.flow_control().release_capacity(piece.len())?;
        }
    }
}
