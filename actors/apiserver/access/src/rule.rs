//! One rule of a role, and what it allows.

use std::fmt;

use k3sd_objects::status::go::quote;
use serde_json::{Map, Value, json};

use super::RequestInfo;

/// One rule of a role: these verbs on these resources, or on these paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRule {
    /// What may be done; `*` is everything.
    pub verbs: Vec<String>,
    /// Groups of the resources; `*` is every group, empty text is core.
    pub groups: Vec<String>,
    /// Resources: `pods`, `pods/log`, `*/scale` or `*`.
    pub resources: Vec<String>,
    /// The only objects that are meant; none stands for all.
    pub names: Vec<String>,
    /// Paths that are no resources; `*` at the end matches any rest.
    pub urls: Vec<String>,
}

/// The texts in a list of a stored object. Whatever isn't a text can't have been stored, and grants nothing.
pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

/// Whether the path of a rule takes in `path`.
pub(super) fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

impl PolicyRule {
    /// The rule as it is stored in a role.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        Self {
            verbs: texts(value.get("verbs")),
            groups: texts(value.get("apiGroups")),
            resources: texts(value.get("resources")),
            names: texts(value.get("resourceNames")),
            urls: texts(value.get("nonResourceURLs")),
        }
    }

    /// The rules of a role, or of anything that has `rules`.
    #[must_use]
    pub fn list_of(role: &Value) -> Vec<Self> {
        let rules = role.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        rules.iter().map(Self::from_value).collect()
    }

    /// The rule as a role stores it: empty lists are left out, but for the verbs.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut rule = Map::new();
        rule.insert("verbs".to_owned(), json!(self.verbs));
        let rest = [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ];
        for (field, list) in rest {
            if !list.is_empty() {
                rule.insert(field.to_owned(), json!(list));
            }
        }
        Value::Object(rule)
    }

    /// Whether the rule allows the request.
    #[must_use]
    pub fn allows(&self, request: &RequestInfo) -> bool {
        let wild = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        if !wild(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.urls.iter().any(|url| url_matches(url, &request.path));
        }
        wild(&self.groups, &request.group)
            && self.resources.iter().any(|resource| resource_matches(resource, request))
            && (self.names.is_empty() || has(&self.names, &request.name))
    }
}

/// Whether the resource of a rule is that of the request, without putting the two halves together.
fn resource_matches(rule: &str, request: &RequestInfo) -> bool {
    if rule == "*" {
        return true;
    }
    let subresource = request.subresource.as_str();
    if subresource.is_empty() {
        return rule == request.resource;
    }
    let Some(parent) = rule.strip_suffix(subresource).and_then(|rest| rest.strip_suffix('/')) else { return false };
    parent == "*" || parent == request.resource
}

/// As upstream shows a rule in messages: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl fmt::Display for PolicyRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        out.write_str("{")?;
        for (index, (name, list)) in fields.iter().filter(|(_, list)| !list.is_empty()).enumerate() {
            write!(out, "{}{name}:{}", if index == 0 { "" } else { ", " }, quoted(list))?;
        }
        out.write_str("}")
    }
}

/// A list as Go prints it with `%q`: `["a" "b"]`.
pub(super) fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| quote(item)).collect();
    format!("[{}]", items.join(" "))
}
