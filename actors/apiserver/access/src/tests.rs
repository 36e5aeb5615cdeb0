use proptest::prelude::*;
use serde_json::json;

use super::cover::{Grant, confirm_no_escalation, missing};
use super::*;

fn info(method: &str, target: &str) -> RequestInfo {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    RequestInfo::parse(method, path, query).unwrap()
}

fn rule(verbs: &str, groups: &str, resources: &str) -> PolicyRule {
    let list = |text: &str| text.split(' ').map(|word| word.replace("core", "")).collect();
    PolicyRule { verbs: list(verbs), groups: list(groups), resources: list(resources), ..PolicyRule::default() }
}

fn path_rule(verbs: &str, urls: &str) -> PolicyRule {
    let list = |text: &str| text.split(' ').map(str::to_owned).collect();
    PolicyRule { verbs: list(verbs), urls: list(urls), ..PolicyRule::default() }
}

fn role(namespace: &str, name: &str, rules: &[PolicyRule]) -> Role {
    Role { namespace: namespace.to_owned(), name: name.to_owned(), rules: rules.to_vec() }
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subjects: &[(&str, &str, &str)]) -> Binding {
    let subject = |(kind, namespace, name): &(&str, &str, &str)| Subject {
        kind: (*kind).to_owned(),
        name: (*name).to_owned(),
        namespace: (*namespace).to_owned(),
    };
    Binding {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        role: RoleRef { kind: role.0.to_owned(), name: role.1.to_owned() },
        subjects: subjects.iter().map(subject).collect(),
    }
}

#[test]
fn a_request_for_a_resource_says_which() {
    // Method and target; verb, group, version, namespace, resource, subresource, name.
    for (method, target, expected) in [
        ("GET", "/api/v1/pods", "list||v1||pods||"),
        ("GET", "/api/v1/namespaces/a/pods", "list||v1|a|pods||"),
        ("GET", "/api/v1/namespaces/a/pods/p", "get||v1|a|pods||p"),
        ("HEAD", "/api/v1/namespaces/a/pods/p", "get||v1|a|pods||p"),
        ("GET", "/api/v1/namespaces/a/pods/p/log", "get||v1|a|pods|log|p"),
        ("GET", "/api/v1/namespaces/a/pods/p/proxy/x/y", "get||v1|a|pods|proxy|p"),
        ("POST", "/api/v1/namespaces/a/pods", "create||v1|a|pods||"),
        ("PUT", "/api/v1/namespaces/a/pods/p", "update||v1|a|pods||p"),
        ("PATCH", "/api/v1/namespaces/a/pods/p", "patch||v1|a|pods||p"),
        ("DELETE", "/api/v1/namespaces/a/pods/p", "delete||v1|a|pods||p"),
        ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection||v1|a|pods||"),
        ("OPTIONS", "/api/v1/namespaces/a/pods", "||v1|a|pods||"),
        ("GET", "/api/v1/namespaces", "list||v1||namespaces||"),
        ("GET", "/api/v1/namespaces/a", "get||v1|a|namespaces||a"),
        ("PUT", "/api/v1/namespaces/a/finalize", "update||v1|a|namespaces|finalize|a"),
        ("PUT", "/api/v1/namespaces/a/status", "update||v1|a|namespaces|status|a"),
        ("GET", "/apis/apps/v1/namespaces/a/deployments/d/scale", "get|apps|v1|a|deployments|scale|d"),
        ("GET", "/apis/apps/v1/deployments/", "list|apps|v1||deployments||"),
        ("GET", "/api/v1/pods?watch=true", "watch||v1||pods||"),
        ("GET", "/api/v1/pods?watch=1", "watch||v1||pods||"),
        ("GET", "/api/v1/pods?watch", "watch||v1||pods||"),
        ("GET", "/api/v1/pods?watch=yes", "watch||v1||pods||"),
        ("GET", "/api/v1/pods?watch=0", "list||v1||pods||"),
        ("GET", "/api/v1/pods?watch=FALSE", "list||v1||pods||"),
        ("GET", "/api/v1/pods?watch=false&watch=true", "list||v1||pods||"),
        ("GET", "/api/v1/watch/namespaces/a/pods", "watch||v1|a|pods||"),
        ("GET", "/api/v1/watch/namespaces/a/pods/p", "watch||v1|a|pods||p"),
        ("GET", "/api/v1/proxy/namespaces/a/pods/p/x", "proxy||v1|a|pods||p"),
        ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Ds", "list||v1|a|secrets||s"),
        ("GET", "/api/v1/namespaces/a/secrets?watch=1&fieldSelector=metadata.name=s", "watch||v1|a|secrets||s"),
        ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!=s", "list||v1|a|secrets||"),
        ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name=..", "list||v1|a|secrets||"),
        ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name=s&limit=x", "list||v1|a|secrets||"),
        ("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name=s&labelSelector==", "list||v1|a|secrets||"),
        ("DELETE", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name=s", "deletecollection||v1|a|secrets||"),
        // Resolved before the path is split, as upstream does.
        ("GET", "/api/v1/namespaces/a%2Fpods/p", "get||v1|a|pods||p"),
    ] {
        let found = info(method, target);
        assert!(found.is_resource, "{target}");
        let RequestInfo { verb, group, version, namespace, resource, subresource, name, .. } = found;
        let line = [verb, group, version, namespace, resource, subresource, name].join("|");
        assert_eq!(line, expected, "{method} {target}");
    }
}

#[test]
fn a_path_that_is_no_resource_has_the_method_for_a_verb() {
    for target in
        ["/", "", "/healthz", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/openapi/v3/apis/apps/v1"]
    {
        let found = info("GET", target);
        assert!(!found.is_resource, "{target}");
        assert_eq!((found.verb.as_str(), found.path.as_str()), ("get", target));
    }
    let incomplete = RequestInfo::parse("GET", "/api/v1/watch", "");
    assert_eq!(incomplete, Err(RequestError::Incomplete { path: "/api/v1/watch".to_owned() }));
    assert_eq!(RequestInfo::parse("GET", "/api/v1/%zz", ""), Err(RequestError::Escape));
}

#[test]
fn selectors_limit_only_what_honours_them() {
    let selectors = |target| {
        let found = info("GET", target);
        (found.field_selector, found.label_selector)
    };
    let both = ("spec.nodeName=n".to_owned(), "a=b".to_owned());
    assert_eq!(selectors("/api/v1/pods?fieldSelector=spec.nodeName%3Dn&labelSelector=a%3Db"), both);
    assert_eq!(selectors("/api/v1/watch/pods?fieldSelector=spec.nodeName%3Dn"), Default::default());
    assert_eq!(selectors("/api/v1/namespaces/a/pods/p?fieldSelector=spec.nodeName%3Dn"), Default::default());
}

#[test]
fn a_rule_allows_what_it_names() {
    let named = PolicyRule { names: vec!["x".to_owned()], ..rule("get create list", "core", "configmaps") };
    let pods = rule("get list", "core", "pods pods/log");
    let scale = rule("*", "*", "*/scale");
    let paths = path_rule("get", "/healthz /apis/*");
    for (rule, method, target, allowed) in [
        (&pods, "GET", "/api/v1/namespaces/a/pods/p", true),
        (&pods, "GET", "/api/v1/namespaces/a/pods/p/log", true),
        (&pods, "GET", "/api/v1/namespaces/a/pods/p/exec", false),
        (&pods, "DELETE", "/api/v1/namespaces/a/pods/p", false),
        (&pods, "GET", "/apis/x/v1/namespaces/a/pods/p", false),
        (&scale, "PUT", "/apis/x/v1/namespaces/a/foos/f/scale", true),
        (&scale, "PUT", "/apis/x/v1/namespaces/a/foos/f", false),
        (&scale, "PUT", "/apis/x/v1/namespaces/a/foos/f/upscale", false),
        (&named, "GET", "/api/v1/namespaces/a/configmaps/x", true),
        (&named, "GET", "/api/v1/namespaces/a/configmaps/y", false),
        (&named, "GET", "/api/v1/namespaces/a/configmaps", false),
        (&named, "GET", "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name=x", true),
        (&named, "POST", "/api/v1/namespaces/a/configmaps", false),
        (&paths, "GET", "/healthz", true),
        (&paths, "GET", "/healthz/x", false),
        (&paths, "GET", "/apis/apps", true),
        (&paths, "POST", "/apis/apps", false),
        (&paths, "GET", "/apis/apps/v1/deployments", false),
    ] {
        assert_eq!(rule.allows(&info(method, target)), allowed, "{rule} {method} {target}");
    }
}

#[test]
fn a_grant_is_told_by_its_binding() {
    let pods = rule("list", "core", "pods");
    let rbac = Rbac::new(RbacObjects {
        roles: vec![role("", "all", &[rule("get", "core", "pods")]), role("a", "pods", &[pods])],
        bindings: vec![
            binding("", "everywhere", ("ClusterRole", "all"), &[("Group", "", "devs"), ("User", "", "ann")]),
            binding(
                "a",
                "here",
                ("Role", "pods"),
                &[("ServiceAccount", "", "robot"), ("ServiceAccount", "b", "other")],
            ),
            binding("a", "lost", ("ClusterRole", "gone"), &[("User", "", "bob")]),
            binding("", "lost", ("Role", "pods"), &[("User", "", "bob")]),
        ],
    });
    let decide = |user: &User, target| rbac.authorize(Attributes { user, request: &info("GET", target) });
    let allowed = |reason: &str| Decision::Allow { reason: format!("RBAC: allowed by {reason}") };
    let silent = |reason: &str| Decision::NoOpinion { reason: reason.to_owned() };

    let ann = User::new("ann", &[]);
    let everywhere = r#"ClusterRoleBinding "everywhere" of ClusterRole "all" to User "ann""#;
    assert_eq!(decide(&ann, "/api/v1/namespaces/a/pods/p"), allowed(everywhere));
    assert_eq!(decide(&ann, "/api/v1/namespaces/a/pods"), silent(""));
    let dev = User::new("ann", &["devs"]);
    let group = r#"ClusterRoleBinding "everywhere" of ClusterRole "all" to Group "devs""#;
    assert_eq!(decide(&dev, "/api/v1/namespaces/a/pods/p"), allowed(group));

    let robot = User::new(&service_account_name("a", "robot"), &[]);
    let here = r#"RoleBinding "here/a" of Role "pods" to ServiceAccount "robot/a""#;
    assert_eq!(decide(&robot, "/api/v1/namespaces/a/pods"), allowed(here));
    assert_eq!(decide(&robot, "/api/v1/namespaces/b/pods"), silent(""));
    assert_eq!(decide(&robot, "/api/v1/pods"), silent(""));
    let other = User::new(&service_account_name("b", "other"), &[]);
    let here = r#"RoleBinding "here/a" of Role "pods" to ServiceAccount "other/b""#;
    assert_eq!(decide(&other, "/api/v1/namespaces/a/pods"), allowed(here));

    let bob = User::new("bob", &[]);
    let lost = r#"RBAC: [role.rbac.authorization.k8s.io "pods" not found, clusterrole.rbac.authorization.k8s.io "gone" not found]"#;
    assert_eq!(decide(&bob, "/api/v1/namespaces/a/pods"), silent(lost));
    assert_eq!(decide(&bob, "/healthz"), silent(r#"RBAC: role.rbac.authorization.k8s.io "pods" not found"#));
}

#[test]
fn a_refusal_is_worded_as_upstream_words_it() {
    let user = User::new("ann", &[]);
    for (method, target, reason, message) in [
        (
            "GET",
            "/api/v1/namespaces/ns/pods",
            "",
            r#"pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "ns""#,
        ),
        (
            "GET",
            "/apis/apps/v1/namespaces/ns/deployments/d/scale",
            "",
            r#"deployments.apps "d" is forbidden: User "ann" cannot get resource "deployments/scale" in API group "apps" in the namespace "ns""#,
        ),
        (
            "GET",
            "/api/v1/nodes",
            "why not",
            r#"nodes is forbidden: User "ann" cannot list resource "nodes" in API group "" at the cluster scope: why not"#,
        ),
        ("POST", "/metrics", "", r#"forbidden: User "ann" cannot post path "/metrics""#),
    ] {
        let request = info(method, target);
        let status = Attributes { user: &user, request: &request }.forbidden(reason);
        assert_eq!((status.code, status.message.as_str()), (403, message));
    }
}

#[test]
fn rights_are_covered_piece_by_piece() {
    let one = |name: &str| PolicyRule { names: vec![name.to_owned()], ..rule("get", "core", "pods") };
    for (owned, wanted, held) in [
        (vec![rule("get", "core", "pods"), rule("list", "core", "pods")], rule("get list", "core", "pods"), true),
        (vec![rule("get", "core", "pods")], rule("get list", "core", "pods"), false),
        (vec![rule("*", "*", "*")], rule("get list", "core apps", "pods x/y"), true),
        (vec![rule("*", "*", "*")], path_rule("get", "/x"), false),
        (vec![rule("get", "core", "*/log")], rule("get", "core", "pods/log"), true),
        (vec![rule("get", "core", "*/log")], rule("get", "core", "pods"), false),
        (vec![rule("get", "core", "pods")], rule("*", "core", "pods"), false),
        (vec![rule("get", "core", "pods")], one("a"), true),
        (vec![one("a")], rule("get", "core", "pods"), false),
        (vec![one("a"), one("b")], one("b"), true),
        (vec![one("a")], one("b"), false),
        (vec![path_rule("get", "/apis/*")], path_rule("get", "/apis/apps /apis/*"), true),
        (vec![path_rule("get", "/apis/apps")], path_rule("get", "/apis/*"), false),
    ] {
        assert_eq!(missing(&owned, std::slice::from_ref(&wanted)).is_empty(), held, "{wanted}");
    }
}

#[test]
fn nobody_hands_out_what_he_lacks() {
    let reader = rule("get", "core", "pods");
    let binder =
        PolicyRule { names: vec!["big".to_owned()], ..rule("bind", "rbac.authorization.k8s.io", "clusterroles") };
    let big = [rule("get list", "core", "pods secrets"), path_rule("get", "/x")];
    let rbac = Rbac::new(RbacObjects {
        roles: vec![
            role("", "reader", &[reader]),
            role("", "big", &big),
            role("", "bind", &[binder]),
            role("", "escalate", &[rule("escalate", "rbac.authorization.k8s.io", "roles")]),
        ],
        bindings: vec![
            binding("", "r", ("ClusterRole", "reader"), &[("User", "", "ann")]),
            binding("", "b", ("ClusterRole", "bind"), &[("User", "", "bob")]),
            binding("a", "e", ("ClusterRole", "escalate"), &[("User", "", "eve")]),
        ],
    });
    let ann = User::new("ann", &["g", "h"]);
    let message = "user \"ann\" (groups=[\"g\" \"h\"]) is attempting to grant RBAC permissions not currently held:\n\
                   {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n\
                   {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}\n\
                   {NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}";
    assert_eq!(confirm_no_escalation(&rbac, &ann, "a", &big), Err(message.to_owned()));

    let may = |attributes: Attributes<'_>| rbac.allows(attributes);
    let (bob, eve) = (User::new("bob", &[]), User::new("eve", &[]));
    let root = User::new("root", &[SYSTEM_MASTERS]);
    let grant = |user, namespace| Grant { user, namespace, may: &may };
    let to = |name: &str| RoleRef { kind: "ClusterRole".to_owned(), name: name.to_owned() };
    assert_eq!(grant(&ann, "a").check_binding(&rbac, &to("big")), Err(message.to_owned()));
    assert_eq!(grant(&ann, "a").check_binding(&rbac, &to("reader")), Ok(()));
    assert_eq!(grant(&bob, "a").check_binding(&rbac, &to("big")), Ok(()));
    assert!(grant(&bob, "a").check_binding(&rbac, &to("reader")).is_err());
    assert_eq!(grant(&root, "").check_binding(&rbac, &to("big")), Ok(()));
    let gone = r#"clusterrole.rbac.authorization.k8s.io "gone" not found"#;
    assert_eq!(grant(&ann, "").check_binding(&rbac, &to("gone")), Err(gone.to_owned()));
    assert_eq!(grant(&eve, "a").check_role(&rbac, "x", &big, false), Ok(()));
    assert!(grant(&eve, "b").check_role(&rbac, "x", &big, false).is_err());
    assert_eq!(grant(&ann, "").check_role(&rbac, "x", &[rule("get", "core", "pods")], false), Ok(()));
    let aggregates = grant(&ann, "").check_role(&rbac, "x", &[], true).unwrap_err();
    assert!(aggregates.starts_with("must have cluster-admin privileges to use the aggregationRule"), "{aggregates}");
}

#[test]
fn a_review_lists_what_its_author_may_do() {
    let mixed = PolicyRule { urls: vec!["/x".to_owned()], ..rule("get", "core", "pods") };
    let rbac = Rbac::new(RbacObjects {
        roles: vec![role("", "mixed", &[mixed])],
        bindings: vec![
            binding("", "m", ("ClusterRole", "mixed"), &[("User", "", "ann")]),
            binding("a", "n", ("Role", "gone"), &[("User", "", "ann")]),
        ],
    });
    let expected = json!({
        "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}],
        "incomplete": false,
        "evaluationError": "role.rbac.authorization.k8s.io \"gone\" not found",
    });
    assert_eq!(rules_review_status(&rbac, &User::new("ann", &[]), "a"), expected);
}

/// Decides by looking at every binding and every role.
fn naive(objects: &RbacObjects, user: &User, request: &RequestInfo) -> bool {
    let is = |binding: &Binding, subject: &Subject| match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.groups.contains(&subject.name),
        _ => {
            let own = if subject.namespace.is_empty() { &binding.namespace } else { &subject.namespace };
            !own.is_empty() && user.name == format!("system:serviceaccount:{own}:{}", subject.name)
        }
    };
    objects.bindings.iter().any(|binding| {
        let place = if binding.role.kind == "Role" { binding.namespace.as_str() } else { "" };
        let role = objects.roles.iter().find(|role| role.namespace == place && role.name == binding.role.name);
        (binding.namespace.is_empty() || binding.namespace == request.namespace)
            && (binding.role.kind == "ClusterRole" || !place.is_empty())
            && binding.subjects.iter().any(|subject| is(binding, subject))
            && role.is_some_and(|role| role.rules.iter().any(|rule| rule.allows(request)))
    })
}

fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    let verbs = prop::sample::select(vec!["get", "list", "get list", "*"]);
    let resources = prop::sample::select(vec!["pods", "pods/log", "*/log", "secrets", "*"]);
    prop::collection::vec((verbs, resources).prop_map(|(verbs, resources)| rule(verbs, "core", resources)), 0..3)
}

fn objects() -> impl Strategy<Value = RbacObjects> {
    let place = || prop::sample::select(vec!["", "a", "b"]);
    let role_name = || prop::sample::select(vec!["r", "s", "t"]);
    let roles = prop::collection::btree_map((place(), role_name()), rules(), 0..6);
    let subject = prop::sample::select(vec![
        ("User", "", "ann"),
        ("User", "", "system:serviceaccount:a:robot"),
        ("Group", "", "devs"),
        ("Group", "", "ann"),
        ("ServiceAccount", "", "robot"),
        ("ServiceAccount", "a", "robot"),
        ("ServiceAccount", "b", "robot"),
    ]);
    let kind = prop::sample::select(vec!["Role", "ClusterRole"]);
    let value = ((kind, role_name()), prop::collection::vec(subject, 0..4));
    let name = prop::sample::select(vec!["x", "y", "z"]);
    let bindings = prop::collection::btree_map((place(), name), value, 0..8);
    (roles, bindings).prop_map(|(roles, bindings)| RbacObjects {
        roles: roles.into_iter().map(|((place, name), rules)| role(place, name, &rules)).collect(),
        bindings: bindings
            .into_iter()
            .map(|((place, name), (role, subjects))| binding(place, name, role, &subjects))
            .collect(),
    })
}

proptest! {
    #[test]
    fn the_index_decides_as_one_who_looks_at_everything(
        before in objects(),
        after in objects(),
        user in prop::sample::select(vec!["ann", "bob", "system:serviceaccount:a:robot", "system:serviceaccount:b:robot"]),
        groups in prop::sample::subsequence(vec!["devs", "ann"], 0..=2),
        target in prop::sample::select(vec![
            "/api/v1/pods", "/api/v1/namespaces/a/pods/p", "/api/v1/namespaces/a/pods/p/log",
            "/api/v1/namespaces/b/secrets", "/api/v1/namespaces/c/secrets/s",
        ]),
    ) {
        let user = User::new(user, &groups);
        let request = info("GET", target);
        let attributes = Attributes { user: &user, request: &request };
        let mut rbac = Rbac::new(before.clone());
        prop_assert_eq!(rbac.allows(attributes), naive(&before, &user, &request));

        // The same index, brought to another state one object at a time.
        after.roles.iter().for_each(|role| rbac.put_role(role.clone()));
        after.bindings.iter().for_each(|binding| rbac.put_binding(binding.clone()));
        for role in &before.roles {
            if !after.roles.iter().any(|other| (&other.namespace, &other.name) == (&role.namespace, &role.name)) {
                rbac.remove_role(&role.namespace, &role.name);
            }
        }
        for old in &before.bindings {
            if !after.bindings.iter().any(|other| (&other.namespace, &other.name) == (&old.namespace, &old.name)) {
                rbac.remove_binding(&old.namespace, &old.name);
            }
        }
        prop_assert_eq!(rbac.allows(attributes), naive(&after, &user, &request));
    }

    #[test]
    fn no_line_of_a_request_is_too_odd(method in "\\PC{0,8}", path in "(/|api|apis|v1|watch|namespaces|%2|%2F|\\PC){0,12}", query in "\\PC{0,30}") {
        if let Ok(info) = RequestInfo::parse(&method, &path, &query) {
            let user = User::new(&method, &[]);
            let attributes = Attributes { user: &user, request: &info };
            prop_assert!(attributes.forbidden_message().starts_with("User "));
        }
    }

    #[test]
    fn whoever_lacks_nothing_may_do_all_of_it(owned in rules(), wanted in rules(), target in prop::sample::select(vec![
        "/api/v1/pods", "/api/v1/namespaces/a/pods/p", "/api/v1/namespaces/a/pods/p/log", "/api/v1/namespaces/a/secrets/s",
    ])) {
        let request = info("GET", target);
        let allows = |rules: &[PolicyRule]| rules.iter().any(|rule| rule.allows(&request));
        if missing(&owned, &wanted).is_empty() && allows(&wanted) {
            prop_assert!(allows(&owned));
        }
    }
}
