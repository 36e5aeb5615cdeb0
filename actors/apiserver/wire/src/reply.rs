//! Answers that are documents of the server's own, with their headers.

use std::fmt::Write as _;

use bytes::Bytes;
use ring::digest;

use crate::negotiate::Wish;

/// A request for such a document.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// The path, without what follows the question mark.
    pub path: &'a str,
    /// What the client says about the form.
    pub wish: Wish<'a>,
    /// The `If-None-Match` header; empty if there is none.
    pub if_none_match: &'a str,
    /// The parameter `hash`, by which clients tell documents of OpenAPI apart.
    pub hash: Option<&'a str>,
    /// Whether the client takes gzip.
    pub gzip: bool,
    /// Seconds since 1970.
    pub now: i64,
}

/// An answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub code: u16,
    /// Headers, `Content-Type` among them; with `Content-Encoding` the body is compressed already.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    pub(crate) fn new(code: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { code, headers: vec![("Content-Type", content_type.to_owned())], body: body.into() }
    }

    /// Nothing but a status.
    pub(crate) fn empty(code: u16) -> Self {
        Self { code, headers: Vec::new(), body: Bytes::new() }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut same = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        same.next().map(|(_, value)| value.as_str())
    }
}

/// SHA-512 in upper-case hexadecimal, as upstream's entity tags are.
pub(crate) fn hash(content: &[u8]) -> String {
    hex(digest::digest(&digest::SHA512, content).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02X}").expect("a string takes everything");
    }
    text
}

/// Whether a client has the document with this tag already. `tag` comes without quotes.
pub(crate) fn is_known(if_none_match: &str, tag: &str) -> bool {
    if_none_match.split(',').map(str::trim).any(|known| {
        let known = known.strip_prefix("W/").unwrap_or(known);
        known.strip_prefix('"').and_then(|known| known.strip_suffix('"')) == Some(tag)
    })
}
