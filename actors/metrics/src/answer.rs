//! Requests of the metrics API, and what they are answered.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use k3sd_objects::selector::{FieldSelector, LabelSelector};
use k3sd_objects::status::{Qualified, Status};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::scraper::View;
use crate::show::{About, Shown, list, resources_list, table};

const PREFIX: &str = "/apis/metrics.k8s.io/v1beta1";
const GROUP: &str = "metrics.k8s.io";

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Resources,
    Nodes { name: Option<String> },
    Pods { namespace: Option<String>, name: Option<String> },
}

impl Asked {
    fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(PREFIX)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let parts: Vec<&str> = rest.split('/').skip(1).collect();
        if parts.iter().any(|part| part.is_empty()) || !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let owned = |text: &str| Some(text.to_owned());
        match parts[..] {
            [] => Some(Self::Resources),
            ["nodes"] => Some(Self::Nodes { name: None }),
            ["nodes", name] => Some(Self::Nodes { name: owned(name) }),
            ["pods"] => Some(Self::Pods { namespace: None, name: None }),
            ["namespaces", namespace, "pods"] => Some(Self::Pods { namespace: owned(namespace), name: None }),
            ["namespaces", namespace, "pods", name] => {
                Some(Self::Pods { namespace: owned(namespace), name: owned(name) })
            }
            _ => None,
        }
    }
}

/// Which objects of a list.
struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    fn of(query: &str) -> Result<Self, Status> {
        let first = |name: &str| pairs(query).find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default();
        let labels = first("labelSelector")
            .parse()
            .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields: FieldSelector = first("fieldSelector")
            .parse()
            .map_err(|error| Status::bad_request(format!("unable to parse field selector: {error}")))?;
        let known = ["metadata.name", "metadata.namespace"];
        if let Some(other) = fields.requirements().iter().find(|asked| !known.contains(&asked.field.as_str())) {
            return Err(Status::bad_request(format!("field label not supported: {}", other.field)));
        }
        Ok(Self { labels, fields })
    }

    fn takes(&self, meta: &ObjectMeta) -> bool {
        let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
        let field = |name: &str| match name {
            "metadata.name" => meta.name.as_deref(),
            _ => meta.namespace.as_deref(),
        };
        self.labels.matches(label) && self.fields.matches(field)
    }
}

/// The pairs of a query, decoded.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key, true), decoded(value, true))
    })
}

/// Text with its percent signs resolved, and in queries its plus signs too.
fn decoded(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = (*first == b'%').then(|| behind.get(..2)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &behind[2..];
            }
            None => {
                bytes.push(if plus && *first == b'+' { b' ' } else { *first });
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a table is wanted more than the objects.
fn wants_table(parts: &Parts) -> bool {
    let values = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = values.flat_map(|value| value.split(',')).map(str::trim);
    // The first that we can write; those in other encodings are passed over.
    let json =
        kinds.find(|kind| kind.split(';').next().is_some_and(|kind| ["application/json", "*/*"].contains(&kind)));
    json.is_some_and(|kind| {
        let has = |wanted: &str| kind.split(';').any(|parameter| parameter.trim() == wanted);
        has("as=Table") && has("g=meta.k8s.io")
    })
}

fn json(code: u16, body: Vec<u8>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn failure(status: &Status) -> Response<Bytes> {
    json(status.http_code(), status.to_bytes())
}

/// Answers a request. `read` measures, or doesn't know.
pub(crate) async fn answer<R>(parts: &Parts, read: impl FnOnce() -> R) -> Response<Bytes>
where
    R: Future<Output = Option<Arc<View>>>,
{
    let found = answered(parts, read).await;
    found.map_or_else(|status| failure(&status), |value| json(200, value.to_string().into_bytes()))
}

async fn answered<R>(parts: &Parts, read: impl FnOnce() -> R) -> Result<Value, Status>
where
    R: Future<Output = Option<Arc<View>>>,
{
    let missing = || Status::not_found(Qualified::new(GROUP, ""), "");
    let asked = Asked::of(&decoded(parts.uri.path(), false)).ok_or_else(missing)?;
    let plural = if matches!(asked, Asked::Pods { .. }) { "pods" } else { "nodes" };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed(Qualified::new(GROUP, plural), &parts.method.as_str().to_lowercase()));
    }
    if asked == Asked::Resources {
        return Ok(resources_list());
    }
    let selection = Selection::of(parts.uri.query().unwrap_or_default())?;
    let view = read().await.ok_or_else(|| Status::service_unavailable("metrics can't be read right now"))?;
    let (kind, shown, is_one) = match asked {
        Asked::Nodes { name: Some(name) } => ("NodeMetrics", vec![one_node(&view, &name)?], true),
        Asked::Nodes { name: None } => ("NodeMetrics", nodes(&view, &selection), false),
        Asked::Pods { namespace: Some(namespace), name: Some(name) } => {
            ("PodMetrics", vec![one_pod(&view, &namespace, &name)?], true)
        }
        Asked::Pods { namespace, .. } => ("PodMetrics", pods(&view, namespace.as_deref(), &selection), false),
        Asked::Resources => return Ok(resources_list()),
    };
    Ok(match (wants_table(parts), is_one) {
        (true, _) => table(&shown, view.now),
        (false, true) => shown.first().map_or(Value::Null, |one| one.object(view.now)),
        (false, false) => list(kind, &shown, view.now),
    })
}

fn about(meta: &ObjectMeta) -> About {
    About {
        name: meta.name.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        labels: serde_json::to_value(&meta.labels).unwrap_or_default(),
    }
}

fn node(view: &View, node: &Node) -> Option<Shown> {
    let reading = view.readings.nodes.get(node.metadata.name.as_deref()?)?;
    Some(Shown::node(about(&node.metadata), reading))
}

fn one_node(view: &View, name: &str) -> Result<Shown, Status> {
    let found = view.nodes.get("", name).ok_or_else(|| Status::not_found(Qualified::new("", "nodes"), name))?;
    node(view, found).ok_or_else(|| Status::not_found(Qualified::new(GROUP, "nodemetrics"), name))
}

fn nodes(view: &View, selection: &Selection) -> Vec<Shown> {
    let wanted = view.nodes.iter().filter(|node| selection.takes(&node.metadata));
    wanted.filter_map(|found| node(view, found)).collect()
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn pod(view: &View, pod: &Pod) -> Option<Shown> {
    let (namespace, name) = (pod.metadata.namespace.clone()?, pod.metadata.name.clone()?);
    let reading = view.readings.pods.get(&(namespace, name))?;
    Some(Shown::pod(about(&pod.metadata), reading))
}

fn one_pod(view: &View, namespace: &str, name: &str) -> Result<Shown, Status> {
    let full = format!("{namespace}/{name}");
    let found = view.pods.get(namespace, name).filter(|pod| is_running(pod));
    let found = found.ok_or_else(|| Status::not_found(Qualified::new("", "pods"), &full))?;
    pod(view, found).ok_or_else(|| Status::not_found(Qualified::new(GROUP, "podmetrics"), &full))
}

fn pods(view: &View, namespace: Option<&str>, selection: &Selection) -> Vec<Shown> {
    let is_there = |pod: &Pod| namespace.is_none_or(|wanted| pod.metadata.namespace.as_deref() == Some(wanted));
    let wanted = view.pods.iter().filter(|pod| is_there(pod) && is_running(pod) && selection.takes(&pod.metadata));
    wanted.filter_map(|found| pod(view, found)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_two_resources() {
        let nodes = |name: Option<&str>| Some(Asked::Nodes { name: name.map(str::to_owned) });
        let pods = |namespace: Option<&str>, name: Option<&str>| {
            Some(Asked::Pods { namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) })
        };
        for (path, wanted) in [
            ("", Some(Asked::Resources)),
            ("/", Some(Asked::Resources)),
            ("/nodes", nodes(None)),
            ("/nodes/a", nodes(Some("a"))),
            ("/pods", pods(None, None)),
            ("/namespaces/n/pods", pods(Some("n"), None)),
            ("/namespaces/n/pods/p", pods(Some("n"), Some("p"))),
            ("/namespaces/n", None),
            ("/nodes/a/b", None),
            ("/nodes//", None),
            ("x/nodes", None),
            ("/namespaces/n/nodes", None),
        ] {
            assert_eq!(Asked::of(&format!("{PREFIX}{path}")), wanted, "{path}");
        }
        assert_eq!(Asked::of("/apis/metrics.k8s.io/v1"), None);
    }

    #[test]
    fn queries_are_decoded() {
        let all: Vec<_> = pairs("labelSelector=app%3Da%2Ctier+in+(x)&b&c=%zz").collect();
        let wanted = [("labelSelector", "app=a,tier in (x)"), ("b", ""), ("c", "%zz")];
        assert_eq!(all, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(Selection::of("labelSelector=%3D%3D").is_err());
        assert!(Selection::of("fieldSelector=spec.nodeName%3Da").is_err());
        let meta = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let one = Selection::of("fieldSelector=metadata.name%3Da").expect("it is known");
        assert!(one.takes(&meta("a")) && !one.takes(&meta("b")));
    }

    #[test]
    fn tables_are_for_those_who_want_them_most() {
        let parts = |accept: &str| http::Request::get("/").header(ACCEPT, accept).body(()).expect("one").into_parts().0;
        assert!(wants_table(&parts("application/json;as=Table;v=v1;g=meta.k8s.io,application/json")));
        assert!(wants_table(&parts(
            "application/vnd.kubernetes.protobuf;as=Table, application/json;as=Table;g=meta.k8s.io"
        )));
        assert!(!wants_table(&parts("application/json,application/json;as=Table;v=v1;g=meta.k8s.io")));
        assert!(!wants_table(&parts("*/*")));
    }
}
