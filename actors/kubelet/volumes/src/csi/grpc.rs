//! One gRPC call over a socket of its own. Storage drivers are called a few times in a pod's life; a connection that is
//! kept would need somebody to look after it, and would not outlive a restart of the driver.

use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Method, Request};
use prost::Message;
use tokio::net::UnixStream;

use crate::error::VolumeError;

/// The largest answer that is read, gRPC's own limit.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// A frame's head: whether it is compressed, and how long it is.
const HEAD_BYTES: usize = 5;

fn failed(code: &'static str, message: impl Into<String>) -> VolumeError {
    VolumeError::Driver { code, message: message.into() }
}

fn unavailable(error: impl std::fmt::Display) -> VolumeError {
    failed("Unavailable", error.to_string())
}

/// Calls `method`, as in `/csi.v1.Node/NodeGetInfo`, at a socket.
///
/// # Errors
/// [`VolumeError::Driver`] with gRPC's code: what the driver says, or what the connection came to. After `Unavailable` and
/// `DeadlineExceeded` the call may have had its effect; CSI's calls can all be repeated.
pub(crate) async fn call<Q: Message, A: Message + Default>(
    socket: &Path,
    method: &str,
    request: &Q,
    limit: Duration,
) -> Result<A, VolumeError> {
    match tokio::time::timeout(limit, exchange(socket, method, request)).await {
        Ok(answer) => A::decode(answer?).map_err(|error| failed("Internal", error.to_string())),
        Err(_) => Err(failed("DeadlineExceeded", "context deadline exceeded")),
    }
}

async fn exchange<Q: Message>(socket: &Path, method: &str, request: &Q) -> Result<Bytes, VolumeError> {
    let stream =
        UnixStream::connect(socket).await.map_err(|error| unavailable(format!("{}: {error}", socket.display())))?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(unavailable)?;
    let talk = talk(sender, method, request);
    tokio::select! {
        answer = talk => answer,
        ended = connection => Err(unavailable(ended.err().map_or_else(|| "connection closed".to_owned(), |error| error.to_string()))),
    }
}

async fn talk<Q: Message>(
    sender: h2::client::SendRequest<Bytes>,
    method: &str,
    request: &Q,
) -> Result<Bytes, VolumeError> {
    let mut sender = sender.ready().await.map_err(unavailable)?;
    let head = Request::builder()
        .method(Method::POST)
        .uri(format!("http://localhost{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(unavailable)?;
    let (answer, mut body) = sender.send_request(head, false).map_err(unavailable)?;
    body.send_data(frame(request), true).map_err(unavailable)?;
    let (head, mut body) = answer.await.map_err(unavailable)?.into_parts();
    if head.headers.contains_key("grpc-status") {
        status(&head.headers)?;
    }
    let mut read = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(unavailable)?;
        body.flow_control().release_capacity(part.len()).map_err(unavailable)?;
        if read.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(failed("ResourceExhausted", "the answer is too large"));
        }
        read.extend_from_slice(&part);
    }
    let trailers = body.trailers().await.map_err(unavailable)?.unwrap_or_default();
    status(&trailers)?;
    unframe(read.freeze())
}

fn frame<Q: Message>(request: &Q) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEAD_BYTES + request.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(request.encoded_len()).unwrap_or(u32::MAX));
    framed.put_slice(&request.encode_to_vec());
    framed.freeze()
}

fn unframe(mut read: Bytes) -> Result<Bytes, VolumeError> {
    if read.len() < HEAD_BYTES {
        return Err(failed("Internal", "the answer has no message"));
    }
    let (compressed, length) = (read.get_u8(), read.get_u32() as usize);
    if compressed != 0 || length > read.len() {
        return Err(failed("Internal", "the answer is cut short or compressed"));
    }
    Ok(read.split_to(length))
}

/// What a call came to, from its trailers.
fn status(headers: &HeaderMap) -> Result<(), VolumeError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "0" => Ok(()),
        "" => Err(failed("Internal", "the answer has no status")),
        number => Err(failed(code(number), unescape(text("grpc-message")))),
    }
}

/// gRPC's words for its numbers.
fn code(number: &str) -> &'static str {
    const CODES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    number.parse::<usize>().ok().and_then(|number| CODES.get(number)).copied().unwrap_or("Unknown")
}

/// Messages have what isn't plain ASCII as `%C3%A4`.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(decoded) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            plain.push(decoded);
            rest = &tail[2..];
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_the_words_of_grpc() {
        let mut headers = HeaderMap::new();
        assert!(status(&headers).is_err());
        headers.insert("grpc-status", "0".parse().unwrap());
        assert!(status(&headers).is_ok());
        headers.insert("grpc-status", "5".parse().unwrap());
        headers.insert("grpc-message", "no %22disk%22 %".parse().unwrap());
        assert_eq!(status(&headers).unwrap_err().to_string(), "rpc error: code = NotFound desc = no \"disk\" %");
        headers.insert("grpc-status", "99".parse().unwrap());
        assert!(status(&headers).unwrap_err().to_string().contains("code = Unknown"));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(unframe(Bytes::from_static(b"\0\0\0")).is_err());
        assert!(unframe(Bytes::from_static(b"\0\0\0\0\x05abc")).is_err());
        assert!(unframe(Bytes::from_static(b"\x01\0\0\0\x01a")).is_err());
        assert_eq!(&unframe(Bytes::from_static(b"\0\0\0\0\x02abc")).unwrap()[..], b"ab");
    }
}
