//! Documents of versions that others answer for, in our index of them.

use serde_json::{Value, json};

use crate::discovery::Foreign;
use crate::reply::{Reply, hash};

/// The index of documents of OpenAPI v3, with those of others. An answer that is no index stays as it is.
#[must_use]
pub fn with_foreign(reply: Reply, foreign: &[Foreign]) -> Reply {
    let Ok(mut index) = serde_json::from_slice::<Value>(&reply.body) else { return reply };
    let Some(paths) = index["paths"].as_object_mut() else { return reply };
    for one in foreign {
        let path = format!("apis/{}/{}", one.group, one.version);
        match &one.openapi {
            Some(place) => _ = paths.insert(path, json!({ "serverRelativeURL": **place })),
            None => _ = paths.remove(&path),
        }
    }
    let body = index.to_string().into_bytes();
    let tag = format!("\"{}\"", hash(&body));
    let mut headers = reply.headers;
    for (name, value) in &mut headers {
        if name.eq_ignore_ascii_case("etag") {
            value.clone_from(&tag);
        }
    }
    Reply { headers, body: body.into(), ..reply }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_others_are_found_in_our_index() {
        let foreign = |version: &str, openapi: Option<&str>| Foreign {
            group: "e".into(),
            version: version.into(),
            group_priority: 1,
            version_priority: 1,
            resources: [].into(),
            openapi: openapi.map(Into::into),
            is_stale: false,
        };
        let own = json!({ "paths": { "apis/e/v2": { "serverRelativeURL": "ours" }, "version": {} } });
        let reply = Reply::new(200, "application/json", own.to_string()).with("ETag", "\"old\"");
        let merged = with_foreign(reply, &[foreign("v1", Some("/openapi/v3/apis/e/v1?hash=A")), foreign("v2", None)]);
        let index: Value = serde_json::from_slice(&merged.body).expect("JSON");
        let wanted = json!({ "apis/e/v1": { "serverRelativeURL": "/openapi/v3/apis/e/v1?hash=A" }, "version": {} });
        assert_eq!(index["paths"], wanted);
        assert_ne!(merged.header("etag"), Some("\"old\""));
        let other = Reply::empty(304);
        assert_eq!(with_foreign(other.clone(), &[foreign("v1", None)]), other);
    }
}
