//! Events of a watch as their reader wants them, one frame each.
//!
//! ```text
//! JSON      {"type":"ADDED","object":{…}}\n
//! protobuf  length (4 bytes, big-endian), WatchEvent { type, object { raw: the object with its envelope } }
//! ```

use std::sync::Arc;

use bytes::Bytes;
use k3sd_apiserver_store::{Resource, WatchItem, WatchKind};
use k3sd_objects::object::Object;
use k3sd_objects::protobuf;
use k3sd_objects::status::Status;

use crate::negotiate::{Format, Media, Shape};
use crate::object::{Content, Shaped, parse, shaped, to_protobuf};

/// What happened, as the wire calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The object came, or came into what is selected.
    Added,
    /// It changed.
    Modified,
    /// It went, or out of what is selected.
    Deleted,
    /// Nothing; the reader is current up to here.
    Bookmark,
}

impl EventKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
        }
    }
}

/// The frame of an event with its object as it lies in the store. `columns` is whether a table names its columns: in the
/// first frame of a stream it does. `now` is in seconds since 1970.
///
/// [`Frames`] writes those of a whole watch, each once for all watchers who read it alike.
pub fn event(
    format: Format,
    resource: &Resource,
    kind: EventKind,
    object: &Object,
    columns: bool,
    now: i64,
) -> Result<Bytes, Status> {
    let content = shaped(Format { pretty: false, ..format }, resource, Content::Stored(object), columns, now)?;
    Ok(match format.media {
        Media::Protobuf => {
            let value = match content {
                Shaped::Value(value) => value.into_owned(),
                Shaped::Json(json) => parse(&json)?,
            };
            Bytes::from(protobuf::watch_event(kind.as_str(), &to_protobuf(&value)?))
        }
        Media::Json | Media::Yaml => json_frame(kind.as_str(), &content.json()),
    })
}

/// The frame that ends a stream with what went wrong.
#[must_use]
pub fn error(format: Format, status: &Status) -> Bytes {
    match format.media {
        Media::Protobuf => {
            let value = status.to_value();
            Bytes::from(protobuf::watch_event("ERROR", &to_protobuf(&value).unwrap_or_default()))
        }
        Media::Json | Media::Yaml => json_frame("ERROR", &status.to_bytes()),
    }
}

fn json_frame(kind: &str, object: &[u8]) -> Bytes {
    let head = format!(r#"{{"type":"{kind}","object":"#);
    Bytes::from([head.as_bytes(), object, b"}\n"].concat())
}

/// Writes the frames of one watch. Frames that other watchers of the event have too are shared with them.
#[derive(Debug)]
pub struct Frames {
    format: Format,
    resource: Arc<Resource>,
    first: bool,
    /// What names the bytes of an event, in the first frame and in the others.
    representations: [String; 2],
}

impl Frames {
    /// For a watch of a resource in the version of the request.
    #[must_use]
    pub fn new(format: Format, resource: Arc<Resource>) -> Self {
        // One store is read in several versions, and in several groups; columns stand in a table's first frame only.
        let representation = |columns: bool| {
            let columns = columns && matches!(format.shape, Shape::Table(_));
            format!("{:?} {:?} {columns} {}", format.media, format.shape, resource.api_version)
        };
        Self { representations: [representation(true), representation(false)], format, resource, first: true }
    }

    /// The frame of what happened. `now` is in seconds since 1970, for the ages in tables.
    ///
    /// Fails when the object can't be brought into the version of the request; [`error`] tells that, and ends the stream.
    pub fn next(&mut self, item: &WatchItem, now: i64) -> Result<Bytes, Status> {
        let kind = match &item.kind {
            WatchKind::Added => EventKind::Added,
            WatchKind::Modified => EventKind::Modified,
            WatchKind::Deleted => EventKind::Deleted,
            WatchKind::Bookmark { .. } => EventKind::Bookmark,
            WatchKind::Error(status) => return Ok(error(self.format, status)),
        };
        let columns = std::mem::replace(&mut self.first, false);
        let representation = &self.representations[usize::from(!columns)];
        let mut failed = None;
        let frame = item.shared.encoded(representation, || {
            event(self.format, &self.resource, kind, &item.object, columns, now).unwrap_or_else(|status| {
                // Whoever shares it ends with the same words.
                let frame = error(self.format, &status);
                failed = Some(status);
                frame
            })
        });
        failed.map_or(Ok(frame), Err)
    }
}
