//! Answers in HTTP: codes, headers and bodies.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY, WARNING,
};
use http::{HeaderMap, Response, StatusCode};
use k3sd_apiserver_registry::{Reply, Shown};
use k3sd_apiserver_wire::list::{ListMeta, list};
use k3sd_apiserver_wire::negotiate::{Format, Wish, for_status};
use k3sd_apiserver_wire::object::{self, Content};
use k3sd_objects::status::Status;

use crate::front::Body;

/// Of answers whose text could pass for a page.
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// All warnings of an answer together; beyond it each is shortened, and then some are left out.
const WARNINGS_CHARS_MAX: usize = 4096;
const WARNING_CHARS_SHORT: usize = 256;

/// Plain text, with the end of line that Go's servers put.
pub(crate) fn text(code: u16, text: &str) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()));
    response.headers_mut().insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}

/// Nothing is served there.
pub(crate) fn no_such_path() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// There is no place for the request now.
pub(crate) fn too_many() -> Response<Body> {
    let mut response = text(429, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Says what a request counted as: the identifiers of its flow schema and of its priority level.
pub(crate) fn classify(headers: &mut HeaderMap, identifiers: [Option<&HeaderValue>; 2]) {
    for (name, identifier) in [FLOW_SCHEMA, PRIORITY_LEVEL].into_iter().zip(identifiers) {
        if let Some(identifier) = identifier {
            headers.insert(name, identifier.clone());
        }
    }
}

/// Bytes of some type.
pub(crate) fn bytes(code: u16, content_type: &str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

/// The same, compressed where that is worth it.
pub(crate) fn long_bytes(content_type: &str, body: Bytes, takes_gzip: bool) -> Response<Body> {
    let (body, zipped) = Body::whole_or_zipped(body, takes_gzip);
    encoded(bytes(200, content_type, Bytes::new()).map(|_| body), zipped)
}

/// Says that a body is compressed.
pub(crate) fn encoded(mut response: Response<Body>, zipped: bool) -> Response<Body> {
    if zipped {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// An error, or a success that is no object.
pub(crate) fn status(wish: &Wish<'_>, status: &Status) -> Response<Body> {
    let format = for_status(wish);
    let mut response = bytes(status.http_code(), format.content_type(), object::status(format, status));
    if let Some(seconds) = status.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Whether a client reads gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(http::header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(',')).map(|coding| coding.trim().split(';'));
    codings.any(|mut coding| {
        let takes = coding.next().is_some_and(|name| name.trim().eq_ignore_ascii_case("gzip"));
        takes && !coding.any(|parameter| matches!(parameter.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// Writes what a verb answered, but for watches.
///
/// # Errors
/// It can't be written as the client wants it.
pub(crate) async fn reply(
    reply: Reply,
    format: Format,
    wish: &Wish<'_>,
    takes_gzip: bool,
    now: i64,
) -> Result<Response<Body>, Status> {
    match reply {
        Reply::Object { resource, code, object: shown, .. } => {
            let content = match &shown {
                Shown::Stored(object) => Content::Stored(object),
                Shown::Value(value) => Content::Value(value),
            };
            let written = object::object(format, &resource, content, now)?;
            let (body, zipped) = Body::whole_or_zipped(written, takes_gzip);
            Ok(encoded(bytes(code, format.content_type(), Bytes::new()).map(|_| body), zipped))
        }
        Reply::List { resource, page } => {
            let meta = ListMeta {
                resource_version: page.revision.get(),
                continue_token: page.continue_token,
                remaining: page.remaining,
            };
            let mut writing = list(format, Arc::clone(&resource), page.objects, meta, now);
            let (body, zipped) = Body::pieces(Box::new(move || writing.step()), takes_gzip).await?;
            Ok(encoded(bytes(200, format.content_type(), Bytes::new()).map(|_| body), zipped))
        }
        Reply::Status(found) => Ok(status(wish, &found)),
        Reply::Raw { code, content_type, body } => {
            let (body, zipped) = Body::whole_or_zipped(body, takes_gzip);
            Ok(encoded(bytes(code, content_type, Bytes::new()).map(|_| body), zipped))
        }
        Reply::Watch { .. } => Err(Status::internal_error("a watch is not written at once")),
    }
}

/// Puts warnings into headers: each once, and not more than clients bear.
pub(crate) fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    let mut seen: Vec<&str> = Vec::new();
    for warning in warnings {
        if !seen.contains(&warning.as_str()) {
            seen.push(warning);
        }
    }
    let total: usize = seen.iter().map(|warning| warning.chars().count()).sum();
    let mut left = WARNINGS_CHARS_MAX;
    for warning in seen {
        let mut text = warning.to_owned();
        if total > WARNINGS_CHARS_MAX {
            text = text.chars().take(WARNING_CHARS_SHORT).collect();
        }
        let length = text.chars().count();
        if length > left {
            return;
        }
        left -= length;
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - {}", quoted(&text)).as_bytes()) {
            headers.append(WARNING, value);
        }
    }
}

/// A quoted string of RFC 7230. What can't stand in a header is left out.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// Headers of every answer.
pub(crate) fn finish(response: &mut Response<Body>, audit_id: &str, strict_transport: Option<&str>) {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(audit_id) {
        headers.insert(HeaderName::from_static("audit-id"), value);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if let Some(value) = strict_transport.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(http::header::STRICT_TRANSPORT_SECURITY, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(texts: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        warn(&mut headers, &texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let read = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).expect("text");
        headers.get_all(WARNING).iter().map(read).collect()
    }

    #[test]
    fn warnings_are_quoted_once_and_bounded() {
        assert_eq!(
            warnings(&["unknown field \"spec.x\"", "a\\b\nc", "a\\b\nc"]),
            [r#"299 - "unknown field \"spec.x\"""#, r#"299 - "a\\bc""#]
        );
        let long = "ä".repeat(3000);
        let many = warnings(&[&long, &"b".repeat(3000), "c"]);
        let lengths: Vec<usize> = many.iter().map(|warning| warning.chars().count() - "299 - \"\"".len()).collect();
        assert_eq!(lengths, [256, 256, 1]);
        let texts: Vec<String> = (0..100).map(|number| format!("{number:0>300}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert!(warnings(&texts).len() <= WARNINGS_CHARS_MAX / WARNING_CHARS_SHORT);
    }

    #[test]
    fn gzip_is_for_those_who_say_so() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_str(value).expect("a header"));
            takes_gzip(&headers)
        };
        assert!(takes("gzip") && takes("deflate, GZIP;q=0.5"));
        assert!(!takes("") && !takes("br") && !takes("gzip;q=0"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
