//! gRPC on pipes: frames, trailers, and the trouble that a connection can be in.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;
use tonic::{Code, Status};
use tower_service::Service;

use super::{FakeCri, calls};

/// What a pipe holds: as much as a socket.
const PIPE_BYTES: usize = 1 << 18;
/// Before a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

type Reply = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

/// Opens a pipe to the runtime, whatever it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Dial(pub(super) FakeCri);

impl Service<Uri> for Dial {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let cri = self.0.clone();
        Box::pin(async move {
            if cri.is_away() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(serve(cri, far));
            Ok(TokioIo::new(near))
        })
    }
}

/// Serves one connection until it ends or is cut.
async fn serve(cri: FakeCri, pipe: DuplexStream) {
    let mut cuts = cri.0.cuts.subscribe();
    let answers = service_fn(move |request| {
        let cri = cri.clone();
        async move { answer(&cri, request).await }
    });
    let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(pipe), answers);
    tokio::select! {
        biased;
        _ = cuts.changed() => {}
        _ = connection => {}
    }
}

/// Answers one call, or drops all connections instead.
async fn answer(cri: &FakeCri, request: Request<Incoming>) -> Result<Reply, io::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let toll = cri.toll();
    cri.0.clock.sleep_until(cri.0.clock.now() + toll.before).await;
    let outcome = if toll.is_refused {
        Err(Status::unknown("the runtime has its own troubles"))
    } else {
        message(body).and_then(|message| calls::call(cri, &path, message))
    };
    cri.0.clock.sleep_until(cri.0.clock.now() + toll.after).await;
    if toll.is_silent {
        cri.cut();
    }
    Ok(reply(outcome))
}

/// The one message of a request.
fn message(mut body: Bytes) -> Result<Bytes, Status> {
    if body.len() < HEAD_BYTES || body[0] != 0 {
        return Err(Status::internal("not a message"));
    }
    body.advance(HEAD_BYTES);
    Ok(body)
}

fn reply(outcome: Result<Vec<u8>, Status>) -> Reply {
    let (body, trailers) = match outcome {
        Ok(message) => {
            let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.len());
            frame.put_u8(0);
            frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            frame.put_slice(&message);
            (Full::new(frame.freeze()).boxed_unsync(), status(Code::Ok, ""))
        }
        Err(refusal) => (Empty::new().boxed_unsync(), status(refusal.code(), refusal.message())),
    };
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed_unsync();
    let mut reply = Response::new(body);
    reply.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    reply
}

fn status(code: Code, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(i32::from(code)));
    if let Ok(message) = HeaderValue::from_str(&message.replace(['%', '\n'], " ")) {
        trailers.insert("grpc-message", message);
    }
    trailers
}
