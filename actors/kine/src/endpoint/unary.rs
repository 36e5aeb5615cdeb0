//! One question, one answer: the calls that make up nearly all of the traffic, without what streams of messages need.
//! A question usually comes in one piece; an answer leaves as one piece and its trailers.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Body as _, Frame, Incoming};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};

use super::kv::Found;
use super::listing::Pieces;

/// gRPC's mark of compression and the length, in front of each message.
const PREFIX_BYTES: usize = 5;
/// The longest question, of a length that all servers of gRPC have by default.
const QUESTION_BYTES_MAX: usize = 4 << 20;
/// Where the outcome stands.
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Reads a question, has it answered, and sends that.
pub(crate) async fn answer<Q, A, F>(body: Incoming, work: impl FnOnce(Q) -> F) -> Response<Body>
where
    Q: Message + Default,
    A: Answering,
    F: Future<Output = Result<A, Status>>,
{
    let question = match receive(body).await {
        Ok(question) => question,
        Err(status) => return status.into_http(),
    };
    match work(question).await {
        Ok(answer) => answer.respond(),
        Err(status) => status.into_http(),
    }
}

async fn receive<Q: Message + Default>(mut body: Incoming) -> Result<Q, Status> {
    // A copy: what is written stays for long, and the buffer that it came in has the neighbours in it, too.
    let mut bytes = BytesMut::new();
    // To the end, even if nothing comes any more: who leaves before it resets the stream.
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await else { break };
        let frame = frame.map_err(|_| Status::cancelled("etcdserver: the request broke off"))?;
        let Ok(piece) = frame.into_data() else { continue };
        if bytes.len() + piece.len() > QUESTION_BYTES_MAX + PREFIX_BYTES {
            return Err(too_long());
        }
        bytes.extend_from_slice(&piece);
    }
    decode(bytes.freeze())
}

fn too_long() -> Status {
    Status::out_of_range(format!("etcdserver: request is too large: more than {QUESTION_BYTES_MAX} bytes"))
}

fn decode<Q: Message + Default>(mut bytes: Bytes) -> Result<Q, Status> {
    if bytes.len() < PREFIX_BYTES {
        return Err(Status::internal("etcdserver: the request has no message"));
    }
    let (compressed, length) = (bytes.get_u8(), bytes.get_u32() as usize);
    if compressed != 0 {
        return Err(Status::unimplemented("etcdserver: compressed requests are not supported"));
    }
    if length > QUESTION_BYTES_MAX {
        return Err(too_long());
    }
    if length != bytes.len() {
        return Err(Status::internal("etcdserver: the request is not one whole message"));
    }
    Q::decode(bytes).map_err(|error| Status::internal(format!("etcdserver: {error}")))
}

/// What can be sent as an answer.
pub(crate) trait Answering {
    /// Puts it behind its prefix, and the outcome behind it.
    fn respond(self) -> Response<Body>;
}

impl<M: Message> Answering for M {
    fn respond(self) -> Response<Body> {
        let length = self.encoded_len();
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
        if !put_prefix(&mut bytes, length) {
            return too_large();
        }
        self.encode_raw(&mut bytes);
        success(Body::new(Answer { message: Some(bytes.freeze()), trailers: Some(trailers()) }))
    }
}

impl Answering for Found {
    fn respond(self) -> Response<Body> {
        let listing = match self {
            Self::Message(message) => return message.respond(),
            Self::Keys(listing) if !listing.is_long() => return listing.into_response().respond(),
            Self::Keys(listing) => listing,
        };
        let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
        if !put_prefix(&mut prefix, listing.encoded_len()) {
            return too_large();
        }
        success(Body::new(Pieces::new(prefix, listing, trailers())))
    }
}

/// Whether a message of that length has a prefix.
fn put_prefix(bytes: &mut BytesMut, length: usize) -> bool {
    let Ok(length) = u32::try_from(length) else { return false };
    bytes.put_u8(0);
    bytes.put_u32(length);
    true
}

fn too_large() -> Response<Body> {
    Status::new(Code::ResourceExhausted, "etcdserver: the answer is too large").into_http()
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    trailers
}

fn success(body: Body) -> Response<Body> {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// A message and its trailers.
struct Answer {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = self.message.take().map(Frame::data);
        let frame = message.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::etcdserverpb::PutRequest;

    fn framed(flag: u8, length: u32, message: &[u8]) -> Bytes {
        let mut bytes = vec![flag];
        bytes.extend(length.to_be_bytes());
        bytes.extend(message);
        bytes.into()
    }

    #[test]
    fn questions_are_one_whole_message_or_refused() {
        let request = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        let message = request.encode_to_vec();
        let length = u32::try_from(message.len()).expect("it is short");
        assert_eq!(decode::<PutRequest>(framed(0, length, &message)).expect("it is whole"), request);
        for (bytes, code) in [
            (Bytes::from_static(&[0, 0, 0]), Code::Internal),
            (framed(0, length + 1, &message), Code::Internal),
            (framed(0, length - 1, &message), Code::Internal),
            (framed(1, length, &message), Code::Unimplemented),
            (framed(0, 5 << 20, &message), Code::OutOfRange),
            (framed(0, 2, &[0xff, 0xff]), Code::Internal),
        ] {
            assert_eq!(decode::<PutRequest>(bytes).expect_err("it is not").code(), code);
        }
    }
}
