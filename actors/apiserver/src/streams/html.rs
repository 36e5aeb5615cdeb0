//! Pages that come through a proxy: links in them that begin at the root of where they came from lead back through it.
//!
//! A page passes in pieces. Held back is at most one tag, and a tag without an end passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

/// A longer tag is left as it is.
const TAG_BYTES_MAX: usize = 64 * 1024;

/// Attributes that hold links.
const LINKS: [&str; 17] = [
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "profile",
    "src",
    "usemap",
    "xlink:href",
    "ping",
];
/// Elements whose contents are no markup.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// Where a link leads through the proxy; nothing if it stays as it is.
pub(crate) type LeadBack = Box<dyn Fn(&str) -> Option<String> + Send>;

/// Reads a page and changes its links.
pub(crate) struct Links {
    lead_back: LeadBack,
    held: BytesMut,
    /// The element whose contents pass as they are, up to its end.
    raw: Option<&'static str>,
}

/// How much of the text is one thing: a tag, a comment, text between them. `None` for what has no end yet.
fn extent(text: &[u8]) -> Option<usize> {
    if !text.starts_with(b"<") {
        return Some(text.iter().position(|byte| *byte == b'<').unwrap_or(text.len()));
    }
    if b"<!--".starts_with(&text[..text.len().min(4)]) {
        let end = text.windows(3).skip(4).position(|three| three == b"-->");
        return end.map(|at| at + 7);
    }
    if !text.get(1)?.is_ascii_alphabetic() && text[1] != b'/' && text[1] != b'!' {
        return Some(1);
    }
    let mut quote = None;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match (quote, byte) {
            (Some(open), byte) if open == *byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'>') => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The name of an element that a tag opens.
fn element(tag: &str) -> &str {
    let name = tag.trim_start_matches('<');
    &name[..name.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(name.len())]
}

impl Links {
    pub(crate) fn new(lead_back: LeadBack) -> Self {
        Self { lead_back, held: BytesMut::new(), raw: None }
    }

    /// Takes a piece of the page; what can be passed on of it. `last` passes on all.
    pub(crate) fn push(&mut self, piece: &[u8], last: bool) -> Bytes {
        self.held.extend_from_slice(piece);
        let mut out = BytesMut::with_capacity(self.held.len() + 64);
        while !self.held.is_empty() {
            if let Some(name) = self.raw {
                let Some(end) = self.raw_end(name, last) else { break };
                out.extend_from_slice(&self.held.split_to(end));
                continue;
            }
            let extent = match extent(&self.held) {
                Some(extent) => extent,
                None if last || self.held.len() > TAG_BYTES_MAX => self.held.len(),
                None => break,
            };
            let part = self.held.split_to(extent);
            let opens = part.starts_with(b"<") && part.get(1).is_some_and(u8::is_ascii_alphabetic);
            match std::str::from_utf8(&part) {
                Ok(tag) if opens && tag.ends_with('>') => {
                    out.extend_from_slice(self.tag(tag).as_bytes());
                    self.raw = RAW.into_iter().find(|raw| element(tag).eq_ignore_ascii_case(raw));
                }
                _ => out.extend_from_slice(&part),
            }
        }
        out.freeze()
    }

    /// How much passes as it is before the end of an element; `None` to wait for more.
    fn raw_end(&mut self, name: &'static str, last: bool) -> Option<usize> {
        let is_end = |at: usize| {
            let rest = &self.held[at..];
            rest.starts_with(b"</")
                && rest.len() > 2 + name.len()
                && rest[2..2 + name.len()].eq_ignore_ascii_case(name.as_bytes())
        };
        if let Some(end) = (0..self.held.len()).find(|at| is_end(*at)) {
            self.raw = None;
            return Some(end);
        }
        // What may be the beginning of the end waits.
        let kept = if last { 0 } else { 2 + name.len() };
        Some(self.held.len().saturating_sub(kept)).filter(|end| *end > 0)
    }

    /// A tag with its links changed; the rest of it as it was.
    fn tag(&self, tag: &str) -> String {
        let mut out = String::with_capacity(tag.len() + 64);
        let mut rest = tag;
        while let Some(equals) = rest.find('=') {
            let (before, after) = rest.split_at(equals + 1);
            out.push_str(before);
            let name = before[..equals].trim_end().rsplit(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\''));
            let is_link =
                name.into_iter().next().is_some_and(|name| LINKS.iter().any(|link| name.eq_ignore_ascii_case(link)));
            let value = after.trim_start();
            out.push_str(&after[..after.len() - value.len()]);
            let (open, inner, behind) = match value.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    let inner = &value[1..];
                    let end = inner.find(quote).unwrap_or(inner.len());
                    (&value[..1], &inner[..end], &inner[end..])
                }
                _ => {
                    let end = value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len());
                    ("", &value[..end], &value[end..])
                }
            };
            out.push_str(open);
            let changed = is_link.then(|| (self.lead_back)(inner)).flatten();
            out.push_str(changed.as_deref().unwrap_or(inner));
            // The closing quote goes along, so that it doesn't pass for an opening one.
            let close = usize::from(!open.is_empty() && !behind.is_empty());
            out.push_str(&behind[..close]);
            rest = &behind[close..];
        }
        out.push_str(rest);
        out
    }
}

/// The body of a page, with its links changed on the way.
pub(crate) struct Page<B> {
    body: B,
    links: Option<Links>,
}

impl<B> Page<B> {
    pub(crate) fn new(body: B, links: Links) -> Self {
        Self { body, links: Some(links) }
    }
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Body for Page<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        loop {
            let Some(links) = &mut this.links else { return Poll::Ready(None) };
            let passed = match std::task::ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => links.push(&frame.into_data().unwrap_or_default(), false),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let rest = links.push(b"", true);
                    this.links = None;
                    rest
                }
            };
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links() -> Links {
        Links::new(Box::new(|link| link.starts_with('/').then(|| format!("/p{link}"))))
    }

    #[test]
    fn links_from_the_root_lead_back() {
        for (page, wanted) in [
            ("<a href=\"/x\">test</a>", "<a href=\"/p/x\">test</a>"),
            ("<A class=b HREF='/x' id=c>", "<A class=b HREF='/p/x' id=c>"),
            ("<img src=/x><img src=y>", "<img src=/p/x><img src=y>"),
            ("<a href = \"/x\" title=\"a > b /c\">", "<a href = \"/p/x\" title=\"a > b /c\">"),
            ("a < b /x <p>/x</p> 1<2", "a < b /x <p>/x</p> 1<2"),
            ("<!-- <a href=\"/x\"> --><a href=\"/x\">", "<!-- <a href=\"/x\"> --><a href=\"/p/x\">"),
            (
                "<script src=\"/x\">'<a href=\"/x\">'</script><a href=\"/y\">",
                "<script src=\"/p/x\">'<a href=\"/x\">'</script><a href=\"/p/y\">",
            ),
            ("<a href=\"/x\" data-href=\"/y\">", "<a href=\"/p/x\" data-href=\"/y\">"),
            ("<a href=\"/unfinished", "<a href=\"/unfinished"),
            ("<form action=\"/ü\">", "<form action=\"/p/ü\">"),
            ("", ""),
        ] {
            assert_eq!(links().push(page.as_bytes(), true), wanted, "{page}");
        }
    }

    #[test]
    fn a_tag_without_an_end_is_not_kept() {
        let mut links = links();
        let mut passed = links.push(b"<a href=\"", false).len();
        for _ in 0..100 {
            passed += links.push(&[b'x'; 10_000], false).len();
            assert!(links.held.len() <= TAG_BYTES_MAX + 10_000);
        }
        assert!(passed > 800_000);
    }

    proptest! {
        #[test]
        fn how_it_comes_does_not_matter(
            parts in proptest::collection::vec(
                prop_oneof![Just("<a href=\"/x\">"), Just("text"), Just("<!-- \"> -->"), Just("<script>"), Just("</script>"), Just("<"), Just("\"")],
                0..12,
            ),
            cuts in proptest::collection::vec(0_usize..100, 0..8),
        ) {
            let page = parts.concat();
            let whole = links().push(page.as_bytes(), true);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(page.len())).collect();
            cuts.extend([0, page.len()]);
            cuts.sort_unstable();
            let (mut links, mut out) = (links(), Vec::new());
            for pair in cuts.windows(2) {
                out.extend_from_slice(&links.push(&page.as_bytes()[pair[0]..pair[1]], false));
            }
            out.extend_from_slice(&links.push(b"", true));
            prop_assert_eq!(out, whole.to_vec());
        }
    }
}
