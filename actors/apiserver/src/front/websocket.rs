//! Requests whose connection becomes something else: a WebSocket in which the server speaks in messages and doesn't listen
//! to what the client says, or whatever whoever answered made of it.

use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use k3sd_client::streams::Upgraded;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use thiserror::Error;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use super::body::Changes;

/// What the key of a client is completed with before it is hashed (RFC 6455).
const KEY_END: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The one version of the protocol.
const VERSION: HeaderValue = HeaderValue::from_static("13");
/// Clients have nothing to say, but for pings and their good-bye.
const HEARD_BYTES_MAX: usize = 64 * 1024;

/// Why a request can't become a WebSocket. Served as 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum HandshakeError {
    /// Not the version that there is.
    #[error("missing or bad WebSocket Version")]
    Version,
    /// Nothing that proves that the server understood.
    #[error("mismatch challenge/response")]
    Key,
    /// Several subprotocols: none of them changes what is said, so the client has to choose.
    #[error("missing or bad WebSocket-Protocol")]
    Protocol,
}

/// Whether a client wants a WebSocket.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

/// The headers of the answer. `protocols` are those that the client offers, without what it is known by.
///
/// # Errors
/// See [`HandshakeError`].
pub(crate) fn accept(headers: &HeaderMap, protocols: &[String]) -> Result<HeaderMap, HandshakeError> {
    if headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(HandshakeError::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| !key.is_empty());
    let key = [key.ok_or(HandshakeError::Key)?, KEY_END.as_bytes()].concat();
    let proof = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &key));
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&proof).map_err(|_| HandshakeError::Key)?);
    match protocols {
        [] => {}
        [only] => {
            let only = HeaderValue::from_str(only).map_err(|_| HandshakeError::Protocol)?;
            answer.insert(SEC_WEBSOCKET_PROTOCOL, only);
        }
        _ => return Err(HandshakeError::Protocol),
    }
    Ok(answer)
}

/// What is done with a connection that was one for requests before.
pub(crate) type Carry = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What is said on a connection that became something else.
pub(crate) enum Talk {
    /// Messages of a WebSocket.
    Told {
        /// The messages.
        messages: Changes,
        /// Whether they are text.
        text: bool,
    },
    /// It is in somebody else's hands.
    Carried(Carry),
}

impl Talk {
    /// Goes on until all is said, or the client goes.
    pub(crate) async fn run(self, stream: Upgraded) {
        match self {
            Self::Told { messages, text } => tell(messages, text, stream).await,
            Self::Carried(carry) => carry(stream).await,
        }
    }
}

/// Speaks until all is said, or the client goes.
async fn tell(mut messages: Changes, text: bool, stream: Upgraded) {
    let limits =
        WebSocketConfig::default().max_message_size(Some(HEARD_BYTES_MAX)).max_frame_size(Some(HEARD_BYTES_MAX));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits)).await;
    loop {
        let next = tokio::select! {
            biased;
            heard = socket.next() => match heard {
                // The answer to a good-bye is sent when the other side is listened to on.
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            next = messages.next() => next,
        };
        let Some(next) = next else { break };
        if socket.send(message(text, next)).await.is_err() {
            return;
        }
    }
    let farewell = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    // A client that is gone needs none.
    socket.close(Some(farewell)).await.ok();
}

fn message(text: bool, bytes: Bytes) -> Message {
    match text {
        true => Utf8Bytes::try_from(bytes).map_or_else(|_| Message::text(""), Message::Text),
        false => Message::Binary(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        let row = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn what_becomes_a_web_socket() {
        for (rows, wanted) in [
            (&[("connection", "Upgrade"), ("upgrade", "websocket")] as &[_], true),
            (&[("connection", "keep-alive, upgrade"), ("upgrade", "WebSocket")], true),
            (&[("connection", "keep-alive"), ("upgrade", "websocket")], false),
            (&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")], false),
            (&[], false),
        ] {
            assert_eq!(is_wanted(&headers(rows)), wanted, "{rows:?}");
        }
    }

    #[test]
    fn a_handshake_proves_that_the_key_was_read() {
        // The example of RFC 6455.
        let asked = headers(&[("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        let answer = accept(&asked, &["base64.binary.k8s.io".to_owned()]).expect("it is whole");
        assert_eq!(answer[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer[SEC_WEBSOCKET_PROTOCOL], "base64.binary.k8s.io");
        assert!(!accept(&asked, &[]).expect("it is whole").contains_key(SEC_WEBSOCKET_PROTOCOL));
        assert_eq!(accept(&asked, &["a".to_owned(), "b".to_owned()]), Err(HandshakeError::Protocol));
        assert_eq!(accept(&headers(&[("sec-websocket-version", "13")]), &[]), Err(HandshakeError::Key));
        let old = headers(&[("sec-websocket-version", "8"), ("sec-websocket-key", "a")]);
        assert_eq!(accept(&old, &[]), Err(HandshakeError::Version));
    }
}
