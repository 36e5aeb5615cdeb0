//! One request over one connection, HTTP/1.1, and what comes of the connection.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// The other side's headers together may be this long.
const HEADERS_BYTES_MAX: usize = 128 * 1024;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The connection broke off, or what came is no HTTP.
    #[error("exchange a request over a connection")]
    Connection(#[source] hyper::Error),
    /// The connection ended before the answer.
    #[error("the connection ended before the answer")]
    Ended,
}

/// A connection that speaks another protocol now. What was read ahead of it comes first.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Sends a request, and waits for the head of the answer. The connection is closed with the answer's last byte.
///
/// Dropping the future or the answer closes the connection.
///
/// # Errors
/// See [`ExchangeError`].
pub async fn exchange<S, B>(stream: S, request: Request<B>) -> Result<Response<Answered>, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let handshake = http1::Builder::new().max_buf_size(HEADERS_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(ExchangeError::Connection)?;
    let mut connection: Connection = Box::pin(connection.with_upgrades());
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = std::future::poll_fn(|context| {
        // The connection does the work; what it found out is told by the answer, its failure too.
        let ended = connection.as_mut().poll(context);
        match (answer.as_mut().poll(context), ended) {
            (Poll::Ready(answer), ended) => Poll::Ready(Ok((answer, ended.is_pending()))),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(ExchangeError::Connection(error))),
            (Poll::Pending, Poll::Ready(Ok(()))) => Poll::Ready(Err(ExchangeError::Ended)),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    });
    let (answer, goes_on) = answer.await?;
    let answer = answer.map_err(ExchangeError::Connection)?;
    let connection = goes_on.then_some(connection);
    Ok(answer.map(|body| Answered { body, connection }))
}

/// The body of an answer, and the connection that it comes over.
pub struct Answered {
    body: Incoming,
    connection: Option<Connection>,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answered")
    }
}

impl Answered {
    /// Takes the connection, after an answer of `101 Switching Protocols`.
    ///
    /// # Errors
    /// See [`ExchangeError`]; also for any other answer.
    pub async fn upgraded(mut answer: Response<Self>) -> Result<Upgraded, ExchangeError> {
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ExchangeError::Ended);
        }
        let upgrade = hyper::upgrade::on(&mut answer);
        if let Some(connection) = &mut answer.body_mut().connection {
            connection.as_mut().await.map_err(ExchangeError::Connection)?;
        }
        upgrade.await.map(TokioIo::new).map_err(ExchangeError::Connection)
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Some(connection) = &mut this.connection
            && connection.as_mut().poll(context).is_ready()
        {
            // If it broke off, the body says so where it breaks off.
            this.connection = None;
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
