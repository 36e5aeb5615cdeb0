//! OpenAPI, in both editions: what `kubectl explain`, `diff` and server-side validation look at.
//!
//! ```text
//! /openapi/v2                     one document for all, JSON or protobuf
//! /openapi/v3                     an index: a path with a hash for each version
//! /openapi/v3/apis/apps/v1?hash=  the document of a version, JSON or protobuf; with its hash it may be kept for ever
//! ```
//!
//! Documents are made when somebody asks, and a few are kept, compressed. A hash is made of what a document is made of,
//! so that the index costs no document; it changes with the catalog and with the definitions of custom resources.
//!
//! What is deliberately absent: the old paths of watches.

mod custom;
mod document;
mod foreign;
mod gnostic;
mod gnostic3;
mod operation;
mod paths;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k3sd_apiserver_store::{Catalog, Group, Resource, Version};
use k3sd_objects::decode::to_bytes;
use k3sd_objects::object::Object;
use serde_json::{Map, json};
use tokio::sync::watch;

use crate::negotiate::choose;
use crate::reply::{Ask, Reply, hash, is_known};

pub use self::foreign::with_foreign;

/// What is said of the one way to authenticate that the documents name.
const TOKEN: &str = "Bearer Token authentication";

/// Compressed documents that are kept: the older edition in one form and the largest few versions of the newer one.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Clients that were told a document's hash keep the document for this long.
const YEAR_SECONDS: i64 = 365 * 24 * 60 * 60;

const JSON: &str = "application/json";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The same under the name that clients still ask for, which is no proper media type.
const V2_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
const V3_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// A document that was made.
#[derive(Debug)]
struct Kept {
    path: String,
    media: &'static str,
    tag: String,
    gzip: Bytes,
}

/// Serves the documents. Clones share what is kept.
#[derive(Clone, Debug)]
pub struct OpenApi {
    git_version: Arc<str>,
    kept: Arc<watch::Sender<Arc<Vec<Arc<Kept>>>>>,
}

impl OpenApi {
    /// `git_version` is the server's, such as `v1.34.1+k3sd1`.
    #[must_use]
    pub fn new(git_version: &str) -> Self {
        Self { git_version: git_version.into(), kept: Arc::new(watch::Sender::default()) }
    }

    /// Answers what is below `/openapi`; `None` for paths where there is nothing. `definition` finds the
    /// CustomResourceDefinition of a custom resource.
    ///
    /// Making a document takes up to some hundred milliseconds: call it where that hurts nobody.
    pub fn answer(
        &self,
        catalog: &Catalog,
        ask: &Ask<'_>,
        definition: &dyn Fn(&Resource) -> Option<Object>,
    ) -> Option<Reply> {
        match ask.path.trim_end_matches('/').strip_prefix("/openapi/")? {
            "v2" => Some(self.v2(catalog, ask, definition)),
            "v3" => Some(self.index(catalog, ask, definition)),
            path => self.v3(catalog, path.strip_prefix("v3/")?, ask, definition),
        }
    }

    fn v2(&self, catalog: &Catalog, ask: &Ask<'_>, definition: document::Definition<'_>) -> Reply {
        let Some(media) = choose(ask.wish.accept, &[JSON, V2_PROTOBUF, V2_PROTOBUF_OLD]) else {
            return Reply::empty(406);
        };
        let media = if media == JSON { JSON } else { V2_PROTOBUF };
        let mut inputs = self.inputs(media);
        for group in catalog.groups() {
            group.versions.iter().for_each(|version| describe(&group.name, version, definition, &mut inputs));
        }
        let tag = hash(inputs.as_bytes());
        let make = || match media {
            JSON => document::v2_json(&self.git_version, catalog, definition),
            _ => document::v2_protobuf(&self.git_version, catalog, definition),
        };
        self.reply("v2", media, &tag, ask, make)
    }

    fn index(&self, catalog: &Catalog, ask: &Ask<'_>, definition: document::Definition<'_>) -> Reply {
        let mut paths = Map::new();
        let mut put = |path: &str, tag: &str| {
            paths.insert(path.to_owned(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={tag}") }));
        };
        for group in catalog.groups() {
            for version in &group.versions {
                put(&version_path(group, version), &self.tag_of(&group.name, version, definition));
            }
        }
        put("version", &hash(self.inputs("version").as_bytes()));
        let body = to_bytes(&json!({ "paths": paths }));
        let tag = hash(&body);
        let reply = if is_known(ask.if_none_match, &tag) { Reply::empty(304) } else { Reply::new(200, JSON, body) };
        reply.with("ETag", format!("\"{tag}\""))
    }

    fn v3(&self, catalog: &Catalog, path: &str, ask: &Ask<'_>, definition: document::Definition<'_>) -> Option<Reply> {
        let found = find(catalog, path);
        let tag = match found {
            Some((group, version)) => self.tag_of(&group.name, version, definition),
            None if path == "version" => hash(self.inputs("version").as_bytes()),
            None => return None,
        };
        let Some(media) = choose(ask.wish.accept, &[JSON, V3_PROTOBUF, V3_PROTOBUF_OLD]) else {
            return Some(Reply::empty(406));
        };
        let media = if media == JSON { JSON } else { V3_PROTOBUF };
        if ask.hash.is_some_and(|hash| !hash.is_empty() && hash != tag) {
            let target = format!("/openapi/v3/{path}?hash={tag}");
            return Some(Reply::empty(301).with("Location", target).with("Vary", "Accept"));
        }
        let about = match found {
            Some((group, version)) => document::About::Version(&group.name, version, definition),
            None => document::About::Server,
        };
        let reply = self.reply(path, media, &tag, ask, || match media {
            JSON => document::v3_json(&self.git_version, about),
            _ => document::v3_protobuf(&self.git_version, about),
        });
        Some(match ask.hash {
            Some(hash) if !hash.is_empty() => {
                let reply = reply.with("Cache-Control", "public, immutable");
                match http_date(ask.now.saturating_add(YEAR_SECONDS)) {
                    Some(date) => reply.with("Expires", date),
                    None => reply,
                }
            }
            _ => reply,
        })
    }

    /// The document, unless the client has it.
    fn reply(
        &self,
        path: &str,
        media: &'static str,
        tag: &str,
        ask: &Ask<'_>,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Reply {
        let reply = if is_known(ask.if_none_match, tag) {
            Reply::empty(304)
        } else {
            let gzip = self.kept(path, media, tag).unwrap_or_else(|| self.keep(path, media, tag, &make()));
            if ask.gzip {
                Reply::new(200, media, gzip).with("Content-Encoding", "gzip")
            } else {
                let mut plain = Vec::new();
                GzDecoder::new(&*gzip).read_to_end(&mut plain).expect("we compressed it");
                Reply::new(200, media, plain)
            }
        };
        reply.with("ETag", format!("\"{tag}\"")).with("Vary", "Accept")
    }

    fn kept(&self, path: &str, media: &str, tag: &str) -> Option<Bytes> {
        let kept = self.kept.borrow();
        let found = kept.iter().find(|kept| kept.path == path && kept.media == media && kept.tag == tag);
        found.map(|kept| kept.gzip.clone())
    }

    /// Compresses a document, and keeps it in the place of the oldest ones and of its former self.
    fn keep(&self, path: &str, media: &'static str, tag: &str, document: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(document).expect("memory takes everything");
        let gzip = Bytes::from(encoder.finish().expect("memory takes everything"));
        let new = Arc::new(Kept { path: path.to_owned(), media, tag: tag.to_owned(), gzip: gzip.clone() });
        self.kept.send_modify(|kept| {
            let others = kept.iter().filter(|other| other.path != path || other.media != media).cloned();
            let mut bytes = 0;
            let within = |document: &Arc<Kept>| {
                bytes += document.gzip.len();
                bytes <= KEPT_BYTES_MAX
            };
            *kept = Arc::new([new].into_iter().chain(others).take_while(within).collect());
        });
        gzip
    }

    /// What every document depends on.
    fn inputs(&self, of: &str) -> String {
        format!("{of}\n{}\n", self.git_version)
    }

    fn tag_of(&self, group: &str, version: &Version, definition: document::Definition<'_>) -> String {
        let mut inputs = self.inputs("v3");
        describe(group, version, definition, &mut inputs);
        hash(inputs.as_bytes())
    }
}

/// Appends what the document of a version is made of: names, and which edition of each definition.
fn describe(group: &str, version: &Version, definition: document::Definition<'_>, out: &mut String) {
    let write =
        |out: &mut String, line: std::fmt::Arguments<'_>| out.write_fmt(line).expect("a string takes everything");
    write(out, format_args!("{group}/{}\n", version.name));
    for resource in &version.resources {
        write(out, format_args!("{} {} {} {:?}", resource.plural, resource.kind, resource.list_kind, resource.verbs));
        resource.subresources.iter().for_each(|below| write(out, format_args!(" {}{:?}", below.name, below.verbs)));
        if resource.custom.is_some()
            && let Some(definition) = definition(resource)
        {
            write(out, format_args!(" {} {}", definition.uid(), definition.generation()));
        }
        out.push('\n');
    }
}

/// `api/v1` or `apis/apps/v1`.
fn version_path(group: &Group, version: &Version) -> String {
    if group.name.is_empty() {
        format!("api/{}", version.name)
    } else {
        format!("apis/{}/{}", group.name, version.name)
    }
}

fn find<'c>(catalog: &'c Catalog, path: &str) -> Option<(&'c Group, &'c Version)> {
    let (group, version) = match path.strip_prefix("apis/") {
        Some(rest) => rest.split_once('/')?,
        None => ("", path.strip_prefix("api/")?),
    };
    let group = catalog.group(group)?;
    group.versions.iter().find(|other| &*other.name == version).map(|version| (group, version))
}

/// A moment as headers write it.
fn http_date(seconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    Some(time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}
