//! A list as its reader wants it, piece by piece: the response is never in memory as a whole, unless its form needs its
//! length first (protobuf), and then once.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use k3sd_apiserver_store::Resource;
use k3sd_objects::decode::{to_bytes, to_yaml};
use k3sd_objects::object::{Object, members};
use k3sd_objects::protobuf::{MAGIC, encode_message, put_bytes, put_message, put_varint};
use k3sd_objects::schema::{SchemaRef, builtin, kind_schema};
use k3sd_objects::status::Status;
use serde_json::{Map, Value, json};

use crate::negotiate::{Format, Media, Shape};
use crate::object::{Content, META, Shaped, parse, shaped};
use crate::pretty::Indenter;
use crate::table;

/// What is sent at once: a frame of HTTP/2 that, with its nine bytes in front, is one record of TLS and not two.
const FRAME_BYTES: usize = (16 << 10) - 9;
/// So much is written at least before it is sent, but for the end: a few frames, small beside a list.
const PIECE_BYTES: usize = 4 * FRAME_BYTES;

/// `metadata` of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListMeta {
    /// The version of the store that the list shows.
    pub resource_version: u64,
    /// Goes on behind the last object; none at the end.
    pub continue_token: Option<String>,
    /// How many objects are behind that, if it is known.
    pub remaining: Option<u64>,
}

impl ListMeta {
    fn value(&self) -> Value {
        let mut map = Map::new();
        map.insert("resourceVersion".to_owned(), self.resource_version.to_string().into());
        if let Some(token) = self.continue_token.as_deref().filter(|token| !token.is_empty()) {
            map.insert("continue".to_owned(), token.into());
        }
        if let Some(remaining) = self.remaining.filter(|remaining| *remaining > 0) {
            map.insert("remainingItemCount".to_owned(), remaining.into());
        }
        Value::Object(map)
    }
}

/// What a step of writing came to.
#[derive(Debug)]
pub enum Step {
    /// The next piece.
    Piece(Bytes),
    /// Nothing to send yet. It took about as long as a piece does, so that a task that shares its thread yields here.
    Working,
    /// The list can't be finished: a response that has begun is to be broken off.
    Failed(Status),
    /// All is written.
    Done,
}

/// How far the writing is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Items,
    Tail,
    Done,
}

/// A list that is being written.
#[derive(Debug)]
pub struct ListBody {
    format: Format,
    resource: Arc<Resource>,
    objects: std::vec::IntoIter<Object>,
    meta: ListMeta,
    now: i64,
    stage: Stage,
    first: bool,
    indenter: Option<Indenter>,
    /// What was written and goes out with the next steps.
    ready: Bytes,
    /// What protobuf wrote before its length was known.
    held: VecDeque<Bytes>,
    held_bytes: usize,
}

/// Begins to write a list of objects as they lie in the store. `now` is in seconds since 1970, for the ages in tables.
#[must_use]
pub fn list(format: Format, resource: Arc<Resource>, objects: Vec<Object>, meta: ListMeta, now: i64) -> ListBody {
    ListBody {
        indenter: (format.pretty && format.media == Media::Json).then(Indenter::default),
        format,
        resource,
        objects: objects.into_iter(),
        meta,
        now,
        stage: Stage::Head,
        first: true,
        ready: Bytes::new(),
        held: VecDeque::new(),
        held_bytes: 0,
    }
}

impl ListBody {
    /// Writes on, for at most about the time that a piece takes.
    pub fn step(&mut self) -> Step {
        let step = match self.format.media {
            Media::Json => self.json_piece(),
            // A table in YAML is for people, and small.
            Media::Yaml if matches!(self.format.shape, Shape::Table(_)) => self.yaml_table(),
            Media::Yaml => self.yaml_piece(),
            Media::Protobuf => self.protobuf_step(),
        };
        match step {
            Ok(step) => step,
            Err(status) => {
                self.stage = Stage::Done;
                Step::Failed(status)
            }
        }
    }

    /// Kind and group version of the list.
    fn kind(&self) -> (&str, &str) {
        match self.format.shape {
            Shape::Metadata => ("PartialObjectMetadataList", META),
            Shape::Whole | Shape::Table(_) => (&self.resource.list_kind, &self.resource.api_version),
        }
    }

    /// Fills `out` with items until it is a piece. Returns whether there may be more.
    fn fill(
        &mut self,
        out: &mut Vec<u8>,
        write: fn(&mut Self, &Object, &mut Vec<u8>) -> Result<(), Status>,
    ) -> Result<bool, Status> {
        while out.len() < PIECE_BYTES {
            let Some(object) = self.objects.next() else { return Ok(false) };
            write(self, &object, out)?;
            self.first = false;
        }
        Ok(true)
    }

    fn json_piece(&mut self) -> Result<Step, Status> {
        if self.ready.len() < FRAME_BYTES && self.stage != Stage::Done {
            self.json_write()?;
        }
        if self.ready.is_empty() {
            return Ok(Step::Done);
        }
        Ok(Step::Piece(self.ready.split_to(self.ready.len().min(FRAME_BYTES))))
    }

    /// Writes the next frames behind the rest of the last ones.
    fn json_write(&mut self) -> Result<(), Status> {
        let rest = std::mem::take(&mut self.ready);
        let mut out = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        if self.indenter.is_none() {
            out.extend_from_slice(&rest);
        }
        if self.stage == Stage::Head {
            self.json_head(&mut out);
            self.stage = Stage::Items;
        }
        if !self.fill(&mut out, Self::json_item)? {
            out.extend_from_slice(b"]}");
            self.stage = Stage::Done;
        }
        match &mut self.indenter {
            None if self.stage == Stage::Done => out.push(b'\n'),
            None => {}
            Some(indenter) => {
                let mut indented = Vec::with_capacity(rest.len() + out.len() * 2);
                indented.extend_from_slice(&rest);
                indenter.push(&out, &mut indented);
                out = indented;
            }
        }
        self.ready = Bytes::from(out);
        Ok(())
    }

    fn json_head(&self, out: &mut Vec<u8>) {
        let metadata = self.meta.value();
        if let Shape::Table(_) = self.format.shape {
            out.extend_from_slice(&table::head(&metadata));
            out.extend_from_slice(br#","columnDefinitions":"#);
            // The columns are those of the kind; the value only says that it is the resource's own.
            let own = json!({ "apiVersion": *self.resource.api_version, "kind": *self.resource.kind });
            out.extend_from_slice(&to_bytes(&table::columns_of(&self.resource, Content::Value(&own))));
            out.extend_from_slice(br#","rows":["#);
            return;
        }
        let (kind, api_version) = self.kind();
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":"#);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&to_bytes(&metadata));
        out.extend_from_slice(br#","items":["#);
    }

    fn json_item(&mut self, object: &Object, out: &mut Vec<u8>) -> Result<(), Status> {
        if !self.first {
            out.push(b',');
        }
        let content = Content::Stored(object);
        if let Shape::Table(include) = self.format.shape {
            return table::row(include, &self.resource, content, self.now, out);
        }
        let keeps_type = self.format.shape == Shape::Metadata || self.resource.custom.is_some();
        match shaped(self.format, &self.resource, content, false, self.now)? {
            Shaped::Json(json) if keeps_type => out.extend_from_slice(&json),
            Shaped::Json(json) => without_type(&json, out),
            Shaped::Value(value) => {
                let mut value = value.into_owned();
                if !keeps_type {
                    drop_type(&mut value);
                }
                out.extend_from_slice(&to_bytes(&value));
            }
        }
        Ok(())
    }

    fn yaml_piece(&mut self) -> Result<Step, Status> {
        if self.stage == Stage::Done {
            return Ok(Step::Done);
        }
        let mut out = Vec::new();
        if self.stage == Stage::Head {
            let (kind, api_version) = self.kind();
            let head = json!({ "apiVersion": api_version, "kind": kind, "metadata": self.meta.value() });
            let items = if self.objects.len() == 0 { "items: []\n" } else { "items:\n" };
            out = (to_yaml(&head).trim_end().to_owned() + "\n" + items).into_bytes();
            self.stage = Stage::Items;
        }
        if !self.fill(&mut out, Self::yaml_item)? {
            self.stage = Stage::Done;
        }
        Ok(Step::Piece(Bytes::from(out)))
    }

    fn yaml_item(&mut self, object: &Object, out: &mut Vec<u8>) -> Result<(), Status> {
        let mut value = parse(&shaped(self.format, &self.resource, Content::Stored(object), false, self.now)?.json())?;
        if self.format.shape == Shape::Whole && self.resource.custom.is_none() {
            drop_type(&mut value);
        }
        // One level down: the first line behind a dash, the others as far in as that.
        for (number, line) in to_yaml(&value).trim_end_matches('\n').split('\n').enumerate() {
            let margin = match (number, line) {
                (0, _) => "- ",
                (_, "") => "",
                _ => "  ",
            };
            out.extend_from_slice(margin.as_bytes());
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        Ok(())
    }

    fn yaml_table(&mut self) -> Result<Step, Status> {
        let mut json = Vec::new();
        while let Step::Piece(piece) = self.json_piece()? {
            json.extend_from_slice(&piece);
        }
        if json.is_empty() {
            return Ok(Step::Done);
        }
        Ok(Step::Piece(Bytes::from(to_yaml(&parse(&json)?))))
    }

    /// Items first, since what stands before them is their length.
    fn protobuf_step(&mut self) -> Result<Step, Status> {
        match self.stage {
            Stage::Head | Stage::Items => {
                let mut out = Vec::new();
                let more = self.fill(&mut out, Self::protobuf_item)?;
                self.held_bytes += out.len();
                self.held.push_back(Bytes::from(out));
                if more {
                    return Ok(Step::Working);
                }
                self.stage = Stage::Tail;
                self.held.push_front(self.protobuf_head()?);
                // The envelope ends with two empty fields.
                let mut end = Vec::new();
                put_bytes(&mut end, UNKNOWN_ENCODING, b"");
                put_bytes(&mut end, UNKNOWN_CONTENT_TYPE, b"");
                self.held.push_back(Bytes::from(end));
                Ok(Step::Working)
            }
            Stage::Tail => match self.held.pop_front() {
                Some(piece) if piece.is_empty() => Ok(Step::Working),
                Some(piece) => Ok(Step::Piece(piece)),
                None => {
                    self.stage = Stage::Done;
                    Ok(Step::Done)
                }
            },
            Stage::Done => Ok(Step::Done),
        }
    }

    /// The schema whose messages the items are.
    fn item_schema(&self) -> Option<SchemaRef<'_>> {
        match self.format.shape {
            Shape::Metadata => kind_schema(META, "PartialObjectMetadata"),
            Shape::Whole | Shape::Table(_) => Some(self.resource.schema.get()),
        }
    }

    fn protobuf_item(&mut self, object: &Object, out: &mut Vec<u8>) -> Result<(), Status> {
        let value = match shaped(self.format, &self.resource, Content::Stored(object), false, self.now)? {
            Shaped::Value(value) => value.into_owned(),
            Shaped::Json(json) => parse(&json)?,
        };
        let message = self.item_schema().and_then(|schema| encode_message(&value, schema));
        let message = message.ok_or_else(|| Status::not_acceptable(&[Media::Json.as_str(), Media::Yaml.as_str()]))?;
        put_bytes(out, LIST_ITEMS, &message);
        Ok(())
    }

    /// All before the items: the envelope up to its contents, and the metadata of the list.
    fn protobuf_head(&self) -> Result<Bytes, Status> {
        let schema = builtin().type_named("meta.v1.ListMeta");
        let message = schema.and_then(|schema| encode_message(&self.meta.value(), schema));
        let message = message.ok_or_else(|| Status::internal_error("lists have no metadata"))?;
        let mut metadata = Vec::new();
        put_bytes(&mut metadata, LIST_METADATA, &message);
        let (kind, api_version) = self.kind();
        let mut out = MAGIC.to_vec();
        put_message(&mut out, UNKNOWN_TYPE, |out| {
            put_bytes(out, TYPE_API_VERSION, api_version.as_bytes());
            put_bytes(out, TYPE_KIND, kind.as_bytes());
        });
        put_varint(&mut out, u64::from(UNKNOWN_RAW) << 3 | LENGTH_DELIMITED);
        put_varint(&mut out, (metadata.len() + self.held_bytes) as u64);
        out.extend_from_slice(&metadata);
        Ok(Bytes::from(out))
    }
}

impl Iterator for ListBody {
    type Item = Result<Bytes, Status>;

    /// The next piece, for callers that need not share their thread.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Step::Piece(piece) => return Some(Ok(piece)),
                Step::Working => {}
                Step::Failed(status) => return Some(Err(status)),
                Step::Done => return None,
            }
        }
    }
}

/// Field numbers of every list, and of the envelope.
const LIST_METADATA: u32 = 1;
const LIST_ITEMS: u32 = 2;
const UNKNOWN_TYPE: u32 = 1;
const UNKNOWN_RAW: u32 = 2;
const UNKNOWN_ENCODING: u32 = 3;
const UNKNOWN_CONTENT_TYPE: u32 = 4;
const TYPE_API_VERSION: u32 = 1;
const TYPE_KIND: u32 = 2;
/// The wire type of what has its length before it.
const LENGTH_DELIMITED: u64 = 2;

fn drop_type(value: &mut Value) {
    if let Value::Object(map) = value {
        map.remove("apiVersion");
        map.remove("kind");
    }
}

/// An item of a list, in JSON: of a built-in kind without `apiVersion` and `kind`, which the list says for all.
fn without_type(json: &[u8], out: &mut Vec<u8>) {
    let Ok(found) = members(json, ["apiVersion", "kind"]) else {
        out.extend_from_slice(json);
        return;
    };
    let mut gaps: Vec<_> = found.into_iter().flatten().map(|member| member.whole).collect();
    gaps.sort_by_key(|gap| gap.start);
    let mut at = 0;
    for gap in gaps {
        // The comma behind goes with the field, or the one before it if it is the last.
        let (start, end) = match json.get(gap.end) {
            Some(b',') => (gap.start, gap.end + 1),
            _ if gap.start > 0 && json[gap.start - 1] == b',' && gap.start > at => (gap.start - 1, gap.end),
            _ => (gap.start, gap.end),
        };
        out.extend_from_slice(&json[at..start]);
        at = end;
    }
    out.extend_from_slice(&json[at..]);
    // Both were the last fields, and the comma before the first of them is still there.
    if out.ends_with(b",}") {
        let end = out.len();
        out.copy_within(end - 1..end, end - 2);
        out.truncate(end - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_list_says_for_all_is_left_out_of_its_items() {
        for (json, expected) in [
            (r#"{"apiVersion":"v1","kind":"Pod","metadata":{}}"#, r#"{"metadata":{}}"#),
            (r#"{"aggregationRule":{},"apiVersion":"v1","kind":"X","z":1}"#, r#"{"aggregationRule":{},"z":1}"#),
            (r#"{"apiVersion":"v1","data":{"kind":"no"},"kind":"ConfigMap"}"#, r#"{"data":{"kind":"no"}}"#),
            (r#"{"a":1,"apiVersion":"v1","kind":"X"}"#, r#"{"a":1}"#),
            (r#"{"apiVersion":"v1","kind":"X"}"#, "{}"),
            (r#"{"metadata":{}}"#, r#"{"metadata":{}}"#),
        ] {
            let mut out = Vec::new();
            without_type(json.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{json}");
        }
    }
}
