//! Where a token stands in a request: in `Authorization`, or among the subprotocols of a WebSocket, for browsers can set
//! no headers there.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;

use super::Headers;

/// What a subprotocol that holds a token begins with.
const PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Padding is refused, as upstream does; bits beyond the last byte are let pass, as upstream does too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Why the subprotocols of a WebSocket make no sense. Served as 401. Shows nothing of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BearerError {
    /// More than one token.
    #[error("multiple base64.bearer.authorization tokens specified")]
    Several,
    /// Not base64url, or not text.
    #[error("invalid base64url.bearer.authorization token")]
    Encoding,
    /// Nothing but the token: there would be no protocol left to speak.
    #[error("missing additional subprotocol")]
    Alone,
}

/// A token among subprotocols, and the protocols that are left without it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebSocketBearer {
    /// The token; never to be logged.
    pub token: String,
    /// What the client really speaks, in its order; the header is replaced by it, so that the token goes no further.
    pub protocols: Vec<String>,
}

/// The token in `Authorization: Bearer`, if there is one.
#[must_use]
pub fn bearer_token<'a>(headers: Headers<'a>) -> Option<&'a str> {
    let mut words = headers.first("Authorization").trim().split(' ');
    let scheme = words.next()?;
    let token = words.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token among the subprotocols of a request that wants to become a WebSocket; the caller has seen to that.
///
/// # Errors
///
/// Fails if there is a token, or several, that can't be used.
pub fn web_socket_token(headers: Headers<'_>) -> Result<Option<WebSocketBearer>, BearerError> {
    let mut encoded = None;
    let mut protocols = Vec::new();
    for protocol in headers.all("Sec-WebSocket-Protocol").flat_map(|value| value.split(',')).map(str::trim) {
        match protocol.strip_prefix(PROTOCOL_PREFIX) {
            None => protocols.push(protocol.to_owned()),
            Some(_) if encoded.is_some() => return Err(BearerError::Several),
            Some(found) => encoded = Some(found),
        }
    }
    let Some(encoded) = encoded else { return Ok(None) };
    let decoded = BASE64.decode(encoded).map_err(|_| BearerError::Encoding)?;
    let token = String::from_utf8(decoded).map_err(|_| BearerError::Encoding)?;
    match (token.is_empty(), protocols.is_empty()) {
        (true, _) => Ok(None),
        (false, true) => Err(BearerError::Alone),
        (false, false) => Ok(Some(WebSocketBearer { token, protocols })),
    }
}
