//! What there is: groups, versions and resources, as clients look for it before anything else.
//!
//! Two forms of the same: a document for each group and version, and one for all (`apidiscovery.k8s.io`), which newer
//! clients ask for at `/api` and `/apis`.

mod aggregated;
mod merge;
mod plain;
pub mod priorities;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_apiserver_store::{Catalog, Resource};
use k3sd_objects::status::Status;
use ring::digest;
use serde_json::Value;

use self::merge::listed;
use crate::negotiate::{Answer, Format, Media, Offer, Shape, for_status, negotiate, wants_aggregated_discovery};
use crate::object::document;
use crate::reply::{Ask, Reply, hash, is_known};

pub use self::merge::Foreign;

/// Answers `/api`, `/apis` and what is below them down to a version; `None` for paths that are nothing of that.
/// `foreign` is what others answer for, whose own documents of a version aren't made here. `address` is where clients
/// outside reach the server, such as `10.0.0.1:6443`.
///
/// Fails with 406.
#[must_use]
pub fn answer(catalog: &Catalog, foreign: &[Foreign], ask: &Ask<'_>, address: &str) -> Option<Result<Reply, Status>> {
    let parts: Vec<&str> = ask.path.trim_matches('/').split('/').collect();
    let value = match parts[..] {
        ["api" | "apis"] if wants_aggregated_discovery(ask.wish.accept) => {
            return Some(aggregated(catalog, foreign, ask, parts[0] == "api"));
        }
        ["api"] => plain::versions(address),
        ["apis"] => plain::groups(&listed(catalog, foreign)),
        ["api", version] => plain::resources(catalog, "", version)?,
        ["apis", group] if !group.is_empty() => plain::group(&listed(catalog, foreign), group)?,
        ["apis", group, version] if !group.is_empty() => plain::resources(catalog, group, version)?,
        _ => return None,
    };
    Some(plain_reply(ask, &value))
}

fn plain_reply(ask: &Ask<'_>, value: &Value) -> Result<Reply, Status> {
    let format = negotiate(&ask.wish, Answer::Object, Offer::ALL)?;
    let format = Format { shape: Shape::Whole, ..format };
    Ok(Reply::new(200, format.content_type(), document(format, value)?))
}

fn aggregated(catalog: &Catalog, foreign: &[Foreign], ask: &Ask<'_>, core: bool) -> Result<Reply, Status> {
    const CONTENT_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let value = aggregated::groups(&listed(catalog, foreign), core);
    let format = Format { media: Media::Json, ..for_status(&ask.wish) };
    let body = document(format, &value)?;
    let tag = hash(&body);
    let reply = if is_known(ask.if_none_match, &tag) { Reply::empty(304) } else { Reply::new(200, CONTENT_TYPE, body) };
    Ok(reply.with("ETag", format!("\"{tag}\"")).with("Vary", "Accept").with("Cache-Control", "public"))
}

/// Tells clients when the stored form of a resource changed: eight bytes of a digest of its kind, in base64.
fn storage_version_hash(resource: &Resource) -> Option<String> {
    let stored = resource.stored.as_ref()?;
    let version = stored.api_version.rsplit('/').next().unwrap_or_default();
    let kind = format!("{}/{version}/{}", stored.group, stored.kind);
    let digest = digest::digest(&digest::SHA256, kind.as_bytes());
    Some(STANDARD.encode(&digest.as_ref()[..8]))
}
