//! Watch streams, line by line.
//!
//! kube can do that too, but decodes the envelope and the object as one type. Each kind then brings a second decoder,
//! for objects that come before their envelope's type; with dozens of kinds that is a fifth of the binary. Here the
//! envelope is read by itself, and an object by the one decoder of its kind.

use std::borrow::Cow;
use std::future::ready;
use std::io;
use std::pin::Pin;

use futures_util::io::AsyncBufReadExt as _;
use futures_util::{Stream, StreamExt as _};
use http::header::{ACCEPT_ENCODING, HeaderValue};
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Kind;

/// What a watch says.
pub(super) type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;
type Lines = Pin<Box<dyn Stream<Item = io::Result<String>> + Send>>;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Begins a watch behind a version.
pub(super) async fn watch<K: Kind>(api: &Api<K>, params: &WatchParams, version: &str) -> kube::Result<Events<K>> {
    let lines = open(api.clone().into_client(), api.resource_url(), params, version).await?;
    Ok(Box::pin(lines.filter_map(|line| ready(event(line)))))
}

async fn open(client: Client, url: &str, params: &WatchParams, version: &str) -> kube::Result<Lines> {
    let mut request = kube::core::Request::new(url).watch(params, version).map_err(kube::Error::BuildRequest)?;
    // Compressed, an event would wait for the next.
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let stream = client.request_stream(request).await?;
    Ok(Box::pin(Box::pin(stream).lines()))
}

/// A line as an event; nothing for one that was cut off where the stream ended.
fn event<K: Kind>(line: io::Result<String>) -> Option<kube::Result<WatchEvent<K>>> {
    let line = match line {
        Ok(line) => line,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
        Err(error) => return Some(Err(kube::Error::ReadEvents(error))),
    };
    let decoded = decode(&line);
    if decoded.as_ref().is_err_and(serde_json::Error::is_eof) {
        return None;
    }
    Some(decoded.map_err(kube::Error::SerdeError))
}

fn decode<K: Kind>(line: &str) -> serde_json::Result<WatchEvent<K>> {
    let Envelope { kind, object } = serde_json::from_str(line)?;
    let object = object.get();
    Ok(match &*kind {
        "ADDED" => WatchEvent::Added(serde_json::from_str(object)?),
        "DELETED" => WatchEvent::Deleted(serde_json::from_str(object)?),
        "BOOKMARK" => WatchEvent::Bookmark(serde_json::from_str(object)?),
        "ERROR" => WatchEvent::Error(serde_json::from_str(object)?),
        _ => WatchEvent::Modified(serde_json::from_str(object)?),
    })
}
