//! Events of a watch as their reader wants them, one frame each.
//!
//! ```text
//! JSON      {"type":"ADDED","object":{…}}\n
//! protobuf  length (4 bytes, big-endian), WatchEvent { type, object { raw: the object with its envelope } }
//! ```

use bytes::Bytes;
use k3sd_apiserver_store::Resource;
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
/// The same event in the same [`representation`] is the same bytes, and so written once for all its watchers.
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

/// A number for all that a frame depends on beside its event: two watchers with the same number get the same bytes.
#[must_use]
pub fn representation(format: Format, resource: &Resource, kind: EventKind, columns: bool) -> u64 {
    let shape = match format.shape {
        Shape::Whole => 0,
        Shape::Metadata => 1,
        Shape::Table(include) => 2 + include as u64 + if columns { 3 } else { 0 },
    };
    let protobuf = u64::from(format.media == Media::Protobuf);
    // Events of one store are read in a few versions, by the resources of one group or of two.
    fnv(&resource.api_version) << 8 | shape << 4 | (kind as u64) << 1 | protobuf
}

/// The hash of Fowler, Noll and Vo: short texts, no enemy.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
