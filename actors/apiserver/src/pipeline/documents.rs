//! Paths that are no resources: health, numbers, discovery, OpenAPI, version, keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderValue, Method, Response};
use k3sd_apiserver_access::RequestInfo;
use k3sd_apiserver_access::authn::service_account::{
    CONFIGURATION_PATH, KEY_SET_PATH, KEY_SET_TYPE, configuration, key_set,
};
use k3sd_apiserver_store::{CacheCounts, Catalog, Stored, Stores};
use k3sd_apiserver_wire::about::{VersionInfo, root};
use k3sd_apiserver_wire::discovery;
use k3sd_apiserver_wire::negotiate::Format;
use k3sd_apiserver_wire::object::document;
use k3sd_apiserver_wire::openapi::with_foreign;
use k3sd_apiserver_wire::reply::{Ask, Reply};
use serde_json::Value;

use super::{Asked, Outcome, Pipeline, answer};
use crate::config::ApiServerConfig;
use crate::front::Body;
use crate::observe::Probe;

/// Paths that stand for no group, as `/` lists them and numbers name them.
const PATHS: &[&str] = &[
    CONFIGURATION_PATH,
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    KEY_SET_PATH,
    "/readyz",
    "/version",
];

/// What is counted of each watch cache: name, help, and where.
type CacheRow = (&'static str, &'static str, fn(&CacheCounts) -> &AtomicU64);

const CACHES: [CacheRow; 7] = [
    ("apiserver_watch_cache_initializations_total", "How often a cache was filled.", |counts| &counts.fills),
    ("apiserver_watch_cache_events_received_total", "Events that the datastore told.", |counts| &counts.received),
    ("apiserver_watch_cache_events_dispatched_total", "Changes that watchers were told.", |counts| &counts.dispatched),
    ("apiserver_terminated_watchers_total", "Watches that ended because they were slow.", |counts| &counts.cut_off),
    ("apiserver_cache_list_total", "Lists that a cache answered.", |counts| &counts.lists),
    ("apiserver_cache_list_fetched_objects_total", "Objects that such lists looked at.", |counts| &counts.looked_at),
    ("apiserver_cache_list_returned_objects_total", "Objects that such lists gave.", |counts| &counts.listed),
];

/// What stays the same.
#[derive(Debug)]
pub(super) struct Documents {
    version: Value,
    address: String,
}

impl Documents {
    pub(super) fn new(config: &ApiServerConfig) -> Self {
        let version = VersionInfo {
            git_version: config.version.clone(),
            git_commit: String::new(),
            git_tree_state: "clean".to_owned(),
            build_date: String::new(),
            compiler: "rustc".to_owned(),
        };
        let address = std::net::SocketAddr::new(config.advertise_address, config.advertise_port);
        Self { version: version.value(), address: address.to_string() }
    }
}

/// What is known of each watch cache.
fn write_caches(text: &mut String, stores: &Stores, stored: &[&Arc<Stored>]) {
    use k3sd_runtime::exposition::{head, line};
    head(text, "apiserver_watch_cache_resource_version", "gauge", "The last change that a cache has.");
    for stored in stored {
        let Some(store) = stores.of(stored) else { continue };
        let labels = format!("group=\"{}\",resource=\"{}\"", stored.group, stored.plural);
        line(text, "apiserver_watch_cache_resource_version", &labels, store.snapshot().revision());
    }
    let name = "apiserver_watch_cache_consistent_read_total";
    head(text, name, "counter", "Lists of the newest state, from a cache or, where that was too late, the store.");
    for stored in stored {
        let Some(store) = stores.of(stored) else { continue };
        for (fallback, count) in [(false, &store.counts().consistent), (true, &store.counts().too_late)] {
            let (group, plural) = (&stored.group, &stored.plural);
            let labels =
                format!("fallback=\"{fallback}\",group=\"{group}\",resource=\"{plural}\",success=\"{}\"", !fallback);
            line(text, name, &labels, count.load(Relaxed));
        }
    }
    let name = "apiserver_watch_cache_read_wait_seconds";
    head(text, name, "histogram", "How long reads waited for a cache to be as new as they asked.");
    for stored in stored {
        let Some(store) = stores.of(stored) else { continue };
        let labels = format!("group=\"{}\",resource=\"{}\"", stored.group, stored.plural);
        store.counts().waits.write(text, name, &labels);
    }
    for (name, help, count) in CACHES {
        head(text, name, "counter", help);
        for stored in stored {
            let Some(store) = stores.of(stored) else { continue };
            let labels = format!("group=\"{}\",resource=\"{}\"", stored.group, stored.plural);
            line(text, name, &labels, count(store.counts()).load(Relaxed));
        }
    }
}

/// A path that numbers may name; empty for all others.
pub(super) fn known_path(path: &str) -> &'static str {
    PATHS.iter().find(|known| **known == path).copied().unwrap_or_default()
}

impl Pipeline {
    /// Answers what is no resource.
    pub(super) async fn document(&self, asked: &Asked<'_>, info: &RequestInfo, catalog: &Arc<Catalog>) -> Outcome {
        let path = info.path.as_str();
        if let Some((probe, check)) = Probe::of_path(path) {
            let health = &self.0.parts.health;
            let Some(verdict) = health.answer(probe, check, &asked.query) else { return Ok(answer::no_such_path()) };
            return Ok(answer::text(verdict.code, &verdict.text));
        }
        if !matches!(asked.parts.method, Method::GET | Method::HEAD) {
            return Ok(answer::text(405, "405: Method Not Allowed"));
        }
        let header = |name| asked.parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let gzip = answer::takes_gzip(&asked.parts.headers);
        let ask = Ask {
            path,
            wish: asked.wish(),
            if_none_match: header(http::header::IF_NONE_MATCH).unwrap_or_default(),
            hash: asked.query.first("hash"),
            gzip,
            now: i64::try_from(self.clock().wall().as_secs()).unwrap_or(i64::MAX),
        };
        let foreign = self.0.parts.table.borrow().foreign().clone();
        if let Some(found) = discovery::answer(catalog, &foreign, &ask, &self.0.documents.address) {
            return found.map(|reply| written(reply, gzip));
        }
        if path.starts_with("/openapi/") {
            let is_index = path.trim_end_matches('/') == "/openapi/v3" && !foreign.is_empty();
            // What a client has of our own index says nothing of others.
            let ask = if is_index { Ask { if_none_match: "", gzip: false, ..ask } } else { ask };
            let made = crate::openapi::document(&self.0.parts.openapi, &ask, catalog).await?;
            let made = made.map(|reply| if is_index { with_foreign(reply, &foreign) } else { reply });
            return Ok(made.map_or_else(answer::no_such_path, |reply| written(reply, gzip)));
        }
        match path.trim_end_matches('/') {
            "" => {
                let versions: Vec<String> =
                    foreign.iter().map(|one| format!("/apis/{}/{}", one.group, one.version)).collect();
                let groups: Vec<String> = foreign.iter().map(|one| format!("/apis/{}", one.group)).collect();
                let others = versions.iter().chain(&groups).map(String::as_str);
                json(&root(catalog, PATHS.iter().copied().chain(others)))
            }
            "/version" => json(&self.0.documents.version),
            "/metrics" => Ok(self.numbers(gzip)),
            "/metrics/slis" => Ok(answer::text(200, &self.slis())),
            KEY_SET_PATH | CONFIGURATION_PATH => Ok(self.keys(path)),
            _ => Ok(answer::no_such_path()),
        }
    }

    /// By what others can check our tokens.
    fn keys(&self, path: &str) -> Response<Body> {
        let parts = &self.0.parts;
        let Some(keys) = parts.keys.borrow().clone() else { return answer::no_such_path() };
        let issuer = parts.config.issuers.first().map_or("", String::as_str);
        let own = || format!("https://{}{KEY_SET_PATH}", self.0.documents.address);
        let address = parts.config.jwks_uri.clone().unwrap_or_else(own);
        let (kind, found) = if path == KEY_SET_PATH {
            (KEY_SET_TYPE, configuration(issuer, &address, &keys.verifying).map(|_| key_set(&keys.verifying)))
        } else {
            ("application/json", configuration(issuer, &address, &keys.verifying))
        };
        let Ok(found) = found else { return answer::no_such_path() };
        let mut response = answer::bytes(200, kind, found.to_string().into());
        let hour = HeaderValue::from_static("public, max-age=3600");
        response.headers_mut().insert(http::header::CACHE_CONTROL, hour);
        response
    }

    fn numbers(&self, gzip: bool) -> Response<Body> {
        let text = self.0.metrics.text(|text| self.gauges(text));
        answer::long_bytes("text/plain; version=0.0.4; charset=utf-8; escaping=underscores", text.into(), gzip)
    }

    /// What is the case at the moment, rather than counted.
    fn gauges(&self, text: &mut String) {
        use k3sd_runtime::exposition::{head, line};
        let inner = &self.0;
        head(text, "apiserver_current_inflight_requests", "gauge", "Requests with an end that are worked on.");
        for (kind, count) in ["readOnly", "mutating"].iter().zip(&inner.working) {
            let labels = format!("request_kind=\"{kind}\"");
            line(text, "apiserver_current_inflight_requests", &labels, count.load(Relaxed));
        }
        inner.flow.write(text);
        inner.parts.storage.write(text);
        let stores = inner.parts.api.stores();
        let catalog = stores.catalog().current();
        let mut stored: Vec<_> = catalog.resources().filter_map(|resource| resource.stored.as_ref()).collect();
        stored.sort_by(|left, right| (&left.group, &left.plural).cmp(&(&right.group, &right.plural)));
        stored.dedup_by(|left, right| (&left.group, &left.plural) == (&right.group, &right.plural));
        let counted: Vec<(&str, &str, usize)> = stored
            .iter()
            .filter_map(|stored| Some((&*stored.group, &*stored.plural, stores.of(stored)?.snapshot().len())))
            .collect();
        head(text, "apiserver_storage_objects", "gauge", "Objects that are stored.");
        for (group, plural, count) in &counted {
            let dot = if group.is_empty() { "" } else { "." };
            line(text, "apiserver_storage_objects", &format!("resource=\"{plural}{dot}{group}\""), count);
        }
        head(text, "apiserver_resource_objects", "gauge", "Objects that are stored.");
        for (group, plural, count) in &counted {
            line(text, "apiserver_resource_objects", &format!("group=\"{group}\",resource=\"{plural}\""), count);
        }
        write_caches(text, stores, &stored);
        inner.parts.admission.write(text);
        inner.parts.config.numbers.write(text);
        let version = &inner.documents.version;
        let label = |name: &str| version[name].as_str().unwrap_or_default().to_owned();
        head(text, "kubernetes_build_info", "gauge", "What was built, and when.");
        let labels = format!(
            "build_date=\"{}\",compiler=\"{}\",git_commit=\"{}\",git_version=\"{}\",major=\"{}\",minor=\"{}\",platform=\"{}\"",
            label("buildDate"),
            label("compiler"),
            label("gitCommit"),
            label("gitVersion"),
            label("major"),
            label("minor"),
            label("platform"),
        );
        line(text, "kubernetes_build_info", &labels, 1);
    }

    /// How each check stands.
    fn slis(&self) -> String {
        use k3sd_runtime::exposition::{head, line};
        let mut text = String::new();
        head(&mut text, "kubernetes_healthcheck", "gauge", "Whether a check passes.");
        for probe in [Probe::Health, Probe::Live, Probe::Ready] {
            for (name, passes) in self.0.parts.health.each(probe) {
                let labels = format!("name=\"{name}\",type=\"{}\"", probe.word());
                line(&mut text, "kubernetes_healthcheck", &labels, u8::from(passes));
            }
        }
        text
    }
}

/// A document for people, which is always JSON.
fn json(value: &Value) -> Outcome {
    let format = Format { pretty: true, ..Format::JSON };
    Ok(answer::bytes(200, format.content_type(), document(format, value)?))
}

/// A document that wire wrote.
fn written(reply: Reply, gzip: bool) -> Response<Body> {
    let zipped_already = reply.header("Content-Encoding").is_some();
    let (body, zipped) = Body::whole_or_zipped(reply.body, gzip && !zipped_already);
    let mut response = answer::bytes(reply.code, "application/json", Bytes::new()).map(|_| body);
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    answer::encoded(response, zipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_only_paths_that_there_are() {
        assert_eq!(known_path("/metrics"), "/metrics");
        assert_eq!(known_path("/metrics/\"}x"), "");
    }
}
