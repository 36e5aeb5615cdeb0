//! Continue tokens, in upstream's format: base64 without padding of `{"v":"meta.k8s.io/v1","rv":7,"start":"a/x\u0000"}`.
//!
//! `start` is the first key of the next page, below what the list asked for. A negative `rv` stands for "as it is now".

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k3sd_client::storage::Revision;
use k3sd_objects::status::Status;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The moment that the pages show; `None` is now.
    pub(crate) revision: Option<Revision>,
    /// The first key that may follow, below what the list asked for.
    pub(crate) start: String,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

impl Token {
    /// Goes on behind a key.
    pub(crate) fn behind(key: &str, revision: Option<Revision>) -> Self {
        Self { revision, start: format!("{key}\0") }
    }

    pub(crate) fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision.get()).unwrap_or(i64::MAX));
        let wire = Wire { v: VERSION.to_owned(), rv, start: self.start.clone() };
        // Two texts and a number: there is nothing in it that has no JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// Reads what a client sends back. It must not lead out of what the list asks for.
    pub(crate) fn decode(token: &str) -> Result<Self, Status> {
        let refuse =
            |why: String| Status::bad_request(format!("invalid continue token: continue key is not valid{why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| refuse(format!(": {error}")))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|error| refuse(format!(": {error}")))?;
        if wire.v != VERSION {
            return Err(refuse(format!(": server does not recognize this encoded version {}", wire.v)));
        }
        if wire.rv == 0 {
            return Err(refuse(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned()));
        }
        if wire.start.is_empty() {
            return Err(refuse(": encoded start key empty (version meta.k8s.io/v1)".to_owned()));
        }
        let start = wire.start.strip_prefix('/').unwrap_or(&wire.start);
        if start.is_empty() || start.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(refuse(format!(": {}", wire.start)));
        }
        let revision = u64::try_from(wire.rv).ok().map(Revision::new);
        Ok(Self { revision, start: start.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn the_format_is_upstreams() {
        let token = Token::behind("a/x", Some(Revision::new(7)));
        assert_eq!(token.encode(), wire(r#"{"v":"meta.k8s.io/v1","rv":7,"start":"a/x\u0000"}"#));
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        let now = Token { revision: None, start: "x\0".to_owned() };
        assert_eq!(now.encode(), wire(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"x\u0000"}"#));
        assert_eq!(Token::decode(&now.encode()).unwrap(), now);
    }

    #[test]
    fn tokens_that_are_none_or_lead_elsewhere_are_refused() {
        for (token, text) in [
            ("!".to_owned(), "invalid continue token: continue key is not valid: "),
            (wire("{"), "invalid continue token: continue key is not valid: "),
            (wire(r#"{"v":"v2","rv":1,"start":"a"}"#), "server does not recognize this encoded version v2"),
            (wire(r#"{"v":"meta.k8s.io/v1","start":"a"}"#), "incorrect encoded start resourceVersion"),
            (wire(r#"{"v":"meta.k8s.io/v1","rv":1}"#), "encoded start key empty"),
            (wire(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/a"}"#), "not valid: ../secrets/a"),
            (wire(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a/../../secrets"}"#), "not valid: a/../../secrets"),
            (wire(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"/"}"#), "not valid: /"),
        ] {
            let status = Token::decode(&token).unwrap_err();
            assert_eq!(status.code, 400);
            assert!(status.message.contains(text), "{}", status.message);
        }
    }

    proptest! {
        #[test]
        fn no_token_breaks_it(text: String, bytes: Vec<u8>) {
            Token::decode(&text).ok();
            Token::decode(&URL_SAFE_NO_PAD.encode(bytes)).ok();
        }
    }
}
