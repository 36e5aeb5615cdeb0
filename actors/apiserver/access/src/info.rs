//! What a request is about, read off its first line.
//!
//! `GET /apis/apps/v1/namespaces/a/deployments/b/scale` gets the subresource `scale` of deployment `b` in namespace `a`.
//! Anything that isn't laid out as a resource is a plain path, and its verb is the HTTP method in lower case.

use k3sd_objects::query::{Query, percent_decode};
use k3sd_objects::selector::{FieldSelector, LabelSelector};
use thiserror::Error;

/// What hangs off a namespace and isn't a resource inside of it.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

/// Verbs that older clients put into the path, before the namespace.
const PATH_VERBS: &[&str] = &["proxy", "watch"];

/// Why the first line of a request makes no sense. Served as 400.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// A verb in the path, and nothing behind it.
    #[error("unable to determine kind and namespace from url, {path}")]
    Incomplete {
        /// The path.
        path: String,
    },
    /// A percent sign without its digits, or bytes that are no text.
    #[error("invalid URL escape in path")]
    Escape,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether it is about a resource; if not, only verb and path mean anything.
    pub is_resource: bool,
    /// The path with percent signs resolved.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or `proxy`. Empty for a method
    /// that no resource answers to.
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    /// The API group, empty for core.
    pub group: String,
    /// Its version.
    pub version: String,
    /// Empty for what belongs to the cluster, and for all namespaces at once. A namespace itself counts as in itself.
    pub namespace: String,
    /// The plural resource.
    pub resource: String,
    /// What hangs off an object, as `status`.
    pub subresource: String,
    /// The object; also set by a field selector that leaves no other.
    pub name: String,
    /// The path from the resource on, for what a proxy passes on.
    pub parts: Vec<String>,
    /// The field selector of a list, watch or deletecollection, as it was sent.
    pub field_selector: String,
    /// The label selector of the same.
    pub label_selector: String,
}

impl RequestInfo {
    /// Reads the method, the path and what stands behind the question mark (may be empty).
    ///
    /// # Errors
    ///
    /// Fails where upstream answers 400: a broken percent sign, or a verb in the path with nothing behind it.
    pub fn parse(method: &str, path: &str, query: &str) -> Result<Self, RequestError> {
        let path = percent_decode(path).ok_or(RequestError::Escape)?;
        let mut info = Self { verb: method.to_ascii_lowercase(), path, ..Self::default() };
        let trimmed = info.path.trim_matches('/').to_owned();
        let mut parts: Vec<&str> = trimmed.split('/').collect();
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return Ok(info);
        }
        let grouped = parts[0] == "apis";
        if grouped && parts.len() < 4 {
            // Upstream knows the prefix by then; nothing looks at it for a plain path.
            info.prefix = parts[0].to_owned();
            return Ok(info);
        }
        info.prefix = parts.remove(0).to_owned();
        if grouped {
            info.group = parts.remove(0).to_owned();
        }
        info.is_resource = true;
        info.version = parts.remove(0).to_owned();

        let verb_in_path = PATH_VERBS.contains(&parts[0]);
        if verb_in_path {
            if parts.len() < 2 {
                return Err(RequestError::Incomplete { path: info.path });
            }
            info.verb = parts.remove(0).to_owned();
        } else {
            info.verb = verb_of(method).to_owned();
        }
        info.take_place(parts);
        info.take_query(&Query::parse(query), verb_in_path);
        Ok(info)
    }

    /// Reads namespace, resource, name and subresource.
    fn take_place(&mut self, mut parts: Vec<&str>) {
        if parts[0] == "namespaces" && parts.len() > 1 {
            self.namespace = parts[1].to_owned();
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2);
            }
        }
        self.parts = parts.iter().map(|part| (*part).to_owned()).collect();
        let part = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
        self.resource = part(0);
        self.name = part(1);
        if self.verb != "proxy" {
            self.subresource = part(2);
        }
    }

    /// Tells lists and watches from gets, and reads the selectors.
    fn take_query(&mut self, query: &Query, verb_in_path: bool) {
        if self.name.is_empty() && self.verb == "get" {
            let watch = query.is_on("watch");
            self.verb = if watch { "watch" } else { "list" }.to_owned();
            if let Some(name) = single_name(query) {
                self.name = name;
            }
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
        // A watch by its path may be about one object, and then it honours no selectors; so they limit no right either.
        if !verb_in_path && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.field_selector = query.first("fieldSelector").unwrap_or_default().to_owned();
            self.label_selector = query.first("labelSelector").unwrap_or_default().to_owned();
        }
    }

    /// `pods/log`, as rules name it.
    #[must_use]
    pub fn combined_resource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }
}

fn verb_of(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The one name that a field selector leaves, unless some option of the list is malformed: the list will be refused, and
/// until then it counts as a list of everything.
fn single_name(query: &Query) -> Option<String> {
    let fields: FieldSelector = query.first("fieldSelector")?.parse().ok()?;
    let labels_fine = query.first("labelSelector").is_none_or(|labels| labels.parse::<LabelSelector>().is_ok());
    if !labels_fine || !query.is_number("limit") || !query.is_number("timeoutSeconds") {
        return None;
    }
    let name = fields.exact("metadata.name")?;
    // An object of such a name can't exist, and must not pass for another path.
    let usable = !matches!(name, "." | "..") && !name.contains(['/', '%']);
    usable.then(|| name.to_owned())
}
