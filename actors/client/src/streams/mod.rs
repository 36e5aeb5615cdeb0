//! Requests that are passed on, and connections that become something else on the way: what the API server and the
//! kubelet have in common when a client wants to speak to a container.
//!
//! ```text
//! client ═▶ API server ═▶ kubelet ═▶ container runtime
//! ```
//!
//! Each `═▶` is one connection of its own. [`exchange`] sends a request over it; if the answer is `101 Switching
//! Protocols`, both sides' connections are taken and [`relay`] copies between them, bounded, until one side is done.
//! Nothing here starts a task: the connection makes progress while its answer is read.

mod exchange;
mod relay;

pub use self::exchange::{Answered, ExchangeError, Upgraded, exchange};
pub use self::relay::{IDLE_LIMIT, relay};

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};

/// Headers that belong to one connection and are never passed on.
const HOP_BY_HOP: &[&str] =
    &["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"];

/// Whether a header's values, lists of words, contain this word.
#[must_use]
pub fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// Whether a client wants to speak another protocol on this connection.
#[must_use]
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    has_word(headers, &CONNECTION, "upgrade") && headers.contains_key(UPGRADE)
}

/// The headers of a request or an answer that are passed on to the other connection. What asks for, or agrees to,
/// another protocol stays.
#[must_use]
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let upgrade = wants_upgrade(headers).then(|| headers.get(UPGRADE).cloned()).flatten();
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if HOP_BY_HOP.contains(&name.as_str()) || named.iter().any(|named| named == name.as_str()) || name == UPGRADE {
            continue;
        }
        passed.append(name.clone(), value.clone());
    }
    if let Some(upgrade) = upgrade {
        passed.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        passed.insert(UPGRADE, upgrade);
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        let row = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let asked = headers(&[
            ("connection", "keep-alive, X-Own"),
            ("x-own", "1"),
            ("x-other", "2"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
        ]);
        assert_eq!(passed_on(&asked), headers(&[("x-other", "2")]));
    }

    #[test]
    fn another_protocol_is_asked_for_on() {
        let asked = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4")]);
        let passed = passed_on(&asked);
        assert_eq!(passed[CONNECTION], "Upgrade");
        assert_eq!(passed[UPGRADE], "SPDY/3.1");
        assert!(passed.contains_key("x-stream-protocol-version") && wants_upgrade(&passed));
        assert!(!wants_upgrade(&headers(&[("upgrade", "SPDY/3.1")])));
        assert!(!wants_upgrade(&headers(&[("connection", "upgrade")])));
    }
}
