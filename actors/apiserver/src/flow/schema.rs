//! Which flow schema a request belongs to: FlowSchemas as they are stored, read once and asked for each request.

use std::sync::Arc;

use http::HeaderValue;
use k3sd_apiserver_access::{RequestInfo, User, service_account_name};
use serde_json::Value;

/// What stands for everything in a rule.
const ALL: &str = "*";
/// The precedence of a schema that names none.
const PRECEDENCE_DEFAULT: i64 = 1000;

/// How flows of one schema are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    User,
    Namespace,
}

/// One FlowSchema.
#[derive(Debug)]
pub(crate) struct FlowSchema {
    pub(crate) name: Arc<str>,
    /// As it stands in a header; `None` for one that isn't stored.
    pub(crate) uid: Option<HeaderValue>,
    /// The priority level.
    pub(crate) level: Arc<str>,
    /// The lowest counts first.
    pub(crate) precedence: i64,
    distinguisher: Option<Distinguisher>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// A service account by its whole user name.
    Account(String),
    /// All of a namespace, by what their user names begin with.
    Accounts(String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

impl FlowSchema {
    /// Reads one that was stored, and so is valid.
    pub(crate) fn read(object: &Value) -> Self {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let distinguisher = match spec["distinguisherMethod"]["type"].as_str() {
            Some("ByUser") => Some(Distinguisher::User),
            Some("ByNamespace") => Some(Distinguisher::Namespace),
            _ => None,
        };
        Self {
            name: text(&metadata["name"]).into(),
            uid: HeaderValue::from_str(&text(&metadata["uid"])).ok().filter(|uid| !uid.is_empty()),
            level: text(&spec["priorityLevelConfiguration"]["name"]).into(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(PRECEDENCE_DEFAULT),
            distinguisher,
            rules: items(&spec["rules"]).map(Rule::read).collect(),
        }
    }

    /// A mandatory one, for as long as none is stored.
    pub(crate) fn mandatory(name: &str, precedence: i64, groups: &[&str]) -> Self {
        let all = || vec![ALL.to_owned()];
        let resources =
            ResourceRule { verbs: all(), groups: all(), resources: all(), namespaces: all(), cluster: true };
        let rule = Rule {
            subjects: groups.iter().map(|group| Subject::Group((*group).to_owned())).collect(),
            resources: vec![resources],
            paths: vec![PathRule { verbs: all(), paths: all() }],
        };
        let (distinguisher, name): (_, Arc<str>) = (None, name.into());
        Self { uid: None, level: name.clone(), name, precedence, distinguisher, rules: vec![rule] }
    }

    /// Whether a request belongs here.
    pub(crate) fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// Which flow it belongs to.
    pub(crate) fn flow<'a>(&self, user: &'a User, info: &'a RequestInfo) -> &'a str {
        match self.distinguisher {
            None => "",
            Some(Distinguisher::User) => &user.name,
            Some(Distinguisher::Namespace) => &info.namespace,
        }
    }
}

impl Rule {
    fn read(rule: &Value) -> Self {
        Self {
            subjects: items(&rule["subjects"]).filter_map(Subject::read).collect(),
            resources: items(&rule["resourceRules"]).map(ResourceRule::read).collect(),
            paths: items(&rule["nonResourceRules"]).map(PathRule::read).collect(),
        }
    }

    /// Subjects first: most schemas are about somebody else, which few bytes tell.
    fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        if !self.subjects.iter().any(|subject| subject.matches(user)) {
            return false;
        }
        if info.is_resource {
            self.resources.iter().any(|rule| rule.matches(info))
        } else {
            self.paths.iter().any(|rule| rule.matches(info))
        }
    }
}

impl Subject {
    fn read(subject: &Value) -> Option<Self> {
        match subject["kind"].as_str()? {
            "User" => Some(Self::User(text(&subject["user"]["name"]))),
            "Group" => Some(Self::Group(text(&subject["group"]["name"]))),
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                let (namespace, name) = (text(&account["namespace"]), text(&account["name"]));
                Some(match name.as_str() {
                    ALL => Self::Accounts(service_account_name(&namespace, "")),
                    name => Self::Account(service_account_name(&namespace, name)),
                })
            }
            _ => None,
        }
    }

    fn matches(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == ALL || *name == user.name,
            Self::Group(name) => name == ALL || user.groups.contains(name),
            Self::Account(name) => *name == user.name,
            Self::Accounts(start) => user.name.starts_with(start),
        }
    }
}

impl ResourceRule {
    fn read(rule: &Value) -> Self {
        Self {
            verbs: texts(&rule["verbs"]),
            groups: texts(&rule["apiGroups"]),
            resources: texts(&rule["resources"]),
            namespaces: texts(&rule["namespaces"]),
            cluster: rule["clusterScope"].as_bool().unwrap_or_default(),
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let place = if info.namespace.is_empty() { self.cluster } else { has(&self.namespaces, &info.namespace) };
        place && has(&self.verbs, &info.verb) && has(&self.groups, &info.group) && self.is_about(info)
    }

    /// Resources below an object are written behind a slash.
    fn is_about(&self, info: &RequestInfo) -> bool {
        if info.subresource.is_empty() {
            return has(&self.resources, &info.resource);
        }
        self.resources.iter().any(|named| {
            let below = named.strip_prefix(&info.resource).and_then(|rest| rest.strip_prefix('/'));
            named == ALL || below == Some(info.subresource.as_str())
        })
    }
}

impl PathRule {
    fn read(rule: &Value) -> Self {
        Self { verbs: texts(&rule["verbs"]), paths: texts(&rule["nonResourceURLs"]) }
    }

    /// A path stands for itself and all that is below it.
    fn matches(&self, info: &RequestInfo) -> bool {
        let covers = |path: &String| {
            let start = path.trim_end_matches('*').trim_end_matches('/');
            let below = info.path.strip_prefix(start).is_some_and(|rest| rest.starts_with('/'));
            path == ALL || *path == info.path || below
        };
        has(&self.verbs, &info.verb) && self.paths.iter().any(covers)
    }
}

fn has(all: &[String], one: &str) -> bool {
    all.iter().any(|found| found == ALL || found == one)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(subjects: Value, resources: Value, paths: Value) -> FlowSchema {
        FlowSchema::read(&json!({
            "metadata": {"name": "a", "uid": "u"},
            "spec": {"rules": [{"subjects": subjects, "resourceRules": resources, "nonResourceRules": paths}]},
        }))
    }

    fn request(method: &str, path: &str) -> RequestInfo {
        RequestInfo::parse(method, path, "").expect("a request")
    }

    #[test]
    fn who_a_subject_is() {
        let kubelet = User::new("system:node:n1", &["system:nodes", "system:authenticated"]);
        let account = User::new("system:serviceaccount:kube-system:a", &["system:serviceaccounts"]);
        for (subject, user, expected) in [
            (json!({"kind": "User", "user": {"name": "system:node:n1"}}), &kubelet, true),
            (json!({"kind": "User", "user": {"name": "system:node:n2"}}), &kubelet, false),
            (json!({"kind": "User", "user": {"name": "*"}}), &kubelet, true),
            (json!({"kind": "Group", "group": {"name": "system:nodes"}}), &kubelet, true),
            (json!({"kind": "Group", "group": {"name": "system:nodes"}}), &account, false),
            (json!({"kind": "Group", "group": {"name": "*"}}), &account, true),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "a"}}),
                &account,
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "b"}}),
                &account,
                false,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}),
                &account,
                true,
            ),
            (json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube", "name": "*"}}), &account, false),
        ] {
            let all = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
            let found = schema(json!([subject]), json!([]), all).matches(user, &request("GET", "/version"));
            assert_eq!(found, expected, "{subject}");
        }
    }

    #[test]
    fn what_a_rule_is_about() {
        let rows = [
            (json!(["get"]), json!(["apps"]), json!(["deployments"]), json!(["a"]), false, "ns", true),
            (json!(["list"]), json!(["*"]), json!(["*"]), json!(["*"]), true, "ns", false),
            (json!(["*"]), json!([""]), json!(["*"]), json!(["*"]), true, "ns", false),
            (json!(["*"]), json!(["apps"]), json!(["deployments/scale"]), json!(["*"]), false, "ns", false),
            (json!(["*"]), json!(["apps"]), json!(["deployments/scale"]), json!(["*"]), false, "scale", true),
            (json!(["*"]), json!(["apps"]), json!(["deployments"]), json!(["*"]), false, "scale", false),
            (json!(["*"]), json!(["apps"]), json!(["deployments"]), json!(["b"]), true, "ns", false),
            (json!(["*"]), json!([""]), json!(["nodes"]), json!(["*"]), false, "node", false),
            (json!(["*"]), json!([""]), json!(["nodes"]), json!([]), true, "node", true),
        ];
        for (verbs, groups, resources, namespaces, cluster, asked, expected) in rows {
            let rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": namespaces,
                "clusterScope": cluster});
            let path = match asked {
                "node" => "/api/v1/nodes/n",
                "scale" => "/apis/apps/v1/namespaces/a/deployments/d/scale",
                _ => "/apis/apps/v1/namespaces/a/deployments/d",
            };
            let schema = schema(json!([{"kind": "User", "user": {"name": "*"}}]), json!([rule]), json!([]));
            assert_eq!(schema.matches(&User::new("u", &[]), &request("GET", path)), expected, "{rule} {asked}");
        }
    }

    #[test]
    fn a_path_stands_for_what_is_below_it() {
        for (rule, path, expected) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", true),
            ("/healthz", "/healthzz", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("/healthz/*", "/healthz", false),
            ("*", "/anything", true),
        ] {
            let rules = json!([{"verbs": ["get"], "nonResourceURLs": [rule]}]);
            let schema = schema(json!([{"kind": "User", "user": {"name": "*"}}]), json!([]), rules);
            assert_eq!(schema.matches(&User::new("u", &[]), &request("GET", path)), expected, "{rule} {path}");
            assert!(!schema.matches(&User::new("u", &[]), &request("POST", path)));
        }
    }
}
