use serde_json::{Value, json};

use super::super::{Attributes, Binding, Rbac, RbacObjects, RequestInfo, Role, User, service_account_name};
use super::*;

/// All starting roles and bindings, with the aggregated roles filled in as their controller does.
fn rbac() -> Rbac {
    let mut roles = cluster_roles();
    // `view` flows into `edit`, and that into `admin`: three rounds reach the end.
    for _ in 0..3 {
        let before = roles.clone();
        for role in &mut roles {
            if let Some(rules) = aggregated_rules(role, &before) {
                role["rules"] = rules.iter().map(|rule| rule.to_value()).collect();
            }
        }
    }
    roles.extend(namespaced_roles());
    let bindings = cluster_role_bindings().into_iter().chain(namespaced_role_bindings());
    let mut people = vec![];
    for name in ["admin", "edit", "view"] {
        people.push(json!({
            "metadata": {"name": name, "namespace": "a"},
            "roleRef": {"kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": name}],
        }));
    }
    Rbac::new(RbacObjects {
        roles: roles.iter().map(Role::from_value).collect(),
        bindings: bindings.chain(people).map(|binding| Binding::from_value(&binding)).collect(),
    })
}

fn find<'v>(objects: &'v [Value], name: &str) -> &'v Value {
    objects.iter().find(|object| object["metadata"]["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn each_part_may_do_its_work_and_no_more() {
    let rbac = rbac();
    let account = |name| User::new(&service_account_name("kube-system", name), &["system:serviceaccounts"]);
    let anybody = User::new("x", &["system:authenticated"]);
    let nobody = User::new("system:anonymous", &["system:unauthenticated"]);
    let scheduler = User::new("system:kube-scheduler", &[]);
    let manager = User::new("system:kube-controller-manager", &[]);
    let cloud = User::new("k3s-cloud-controller-manager", &[]);
    let [admin, edit, view] = ["admin", "edit", "view"].map(|name| User::new(name, &[]));
    let pods = "/api/v1/namespaces/a/pods";
    for (user, method, target, allowed) in [
        (&User::new("root", &["system:masters"]), "DELETE", "/api/v1/nodes/n", true),
        (&anybody, "GET", "/apis/apps", true),
        (&anybody, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", true),
        (&anybody, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", true),
        (&anybody, "GET", pods, false),
        (&nobody, "GET", "/version", true),
        (&nobody, "GET", "/apis", false),
        (&User::new("m", &["system:monitoring"]), "GET", "/metrics", true),
        (&User::new("m", &["system:monitoring"]), "GET", "/livez/ping", true),
        (&scheduler, "POST", "/api/v1/namespaces/a/pods/p/binding", true),
        (&scheduler, "PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler", true),
        (&scheduler, "PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/other", false),
        (&scheduler, "POST", "/apis/events.k8s.io/v1/namespaces/a/events", true),
        (&scheduler, "GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", true),
        (&scheduler, "GET", "/api/v1/namespaces/a/secrets/s", false),
        (&manager, "GET", "/apis/any.example.com/v1/things?watch=1", true),
        (&manager, "DELETE", "/api/v1/namespaces/a/pods/p", false),
        (&cloud, "PATCH", "/api/v1/nodes/n/status", true),
        (&cloud, "GET", pods, false),
        (&account("deployment-controller"), "POST", "/apis/apps/v1/namespaces/a/replicasets", true),
        (&account("deployment-controller"), "POST", pods, false),
        (&account("replicaset-controller"), "POST", pods, true),
        (&account("namespace-controller"), "DELETE", "/apis/any.example.com/v1/namespaces/a/things", true),
        (&account("horizontal-pod-autoscaler"), "PUT", "/apis/apps/v1/namespaces/a/deployments/d/scale", true),
        (&account("token-cleaner"), "DELETE", "/api/v1/namespaces/kube-system/secrets/s", true),
        (&account("token-cleaner"), "DELETE", "/api/v1/namespaces/a/secrets/s", false),
        (&account("bootstrap-signer"), "PUT", "/api/v1/namespaces/kube-public/configmaps/cluster-info", true),
        (&account("x"), "GET", "/openid/v1/jwks", true),
        (&User::new("system:node:n", &["system:nodes"]), "GET", "/api/v1/nodes/n", false),
        (&view, "GET", pods, true),
        (&view, "GET", "/api/v1/namespaces/a/secrets", false),
        (&view, "POST", pods, false),
        (&edit, "POST", pods, true),
        (&edit, "GET", pods, true),
        (&edit, "GET", "/api/v1/namespaces/a/secrets", true),
        (&edit, "POST", "/api/v1/namespaces/a/endpoints", false),
        (&edit, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles", false),
        (&admin, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles", true),
        (&admin, "POST", pods, true),
        (&admin, "GET", pods, true),
        (&admin, "GET", "/api/v1/namespaces/b/pods", false),
    ] {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = RequestInfo::parse(method, path, query).unwrap();
        let found = rbac.allows(Attributes { user, request: &request });
        assert_eq!(found, allowed, "{} {method} {target}", user.name);
    }
}

#[test]
fn every_binding_finds_its_role_and_every_name_is_taken_once() {
    let key = |object: &Value| format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
    let roles: Vec<Value> = cluster_roles().into_iter().chain(namespaced_roles()).collect();
    let bindings: Vec<Value> = cluster_role_bindings().into_iter().chain(namespaced_role_bindings()).collect();
    for objects in [&roles, &bindings] {
        let mut keys: Vec<String> = objects.iter().map(key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), objects.len());
        for object in objects.iter() {
            assert_eq!(object["metadata"]["labels"][LABEL], "rbac-defaults");
            assert_eq!(object["metadata"]["annotations"][AUTOUPDATE], "true");
        }
    }
    for binding in &bindings {
        let wanted = format!("{}/{}", binding["metadata"]["namespace"], binding["roleRef"]["name"]);
        assert!(roles.iter().any(|role| key(role) == wanted), "{wanted}");
    }
    // Upstream's, one for K3s, and those of the controllers.
    assert_eq!((cluster_roles().len(), cluster_role_bindings().len()), (31 + 1 + 37, 12 + 1 + 37));
}

#[test]
fn roles_are_laid_out_as_upstream_writes_them() {
    let roles = cluster_roles();
    assert_eq!(
        *find(&roles, "system:kube-dns"),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {
                "name": "system:kube-dns",
                "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            },
            "rules": [{"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["endpoints", "services"]}],
        })
    );
    let edit = find(&roles, "edit");
    assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
    let selector = json!([{"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}}]);
    assert_eq!(edit["aggregationRule"]["clusterRoleSelectors"], selector);
    let bindings = cluster_role_bindings();
    assert_eq!(find(&bindings, "system:node").get("subjects"), None);
    let account = json!([{"kind": "ServiceAccount", "name": "job-controller", "namespace": "kube-system"}]);
    assert_eq!(find(&bindings, "system:controller:job-controller")["subjects"], account);
}

#[test]
fn reconciling_adds_what_is_missing_and_keeps_the_rest() {
    let roles = cluster_roles();
    let expected = find(&roles, "system:kube-dns");
    assert_eq!(reconcile_role(expected, expected), Action::Leave);

    let mut stored = expected.clone();
    stored["metadata"]["labels"] = json!({LABEL: "mine"});
    stored["rules"] = json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["services"]}]);
    let Action::Update(updated) = reconcile_role(expected, &stored) else { panic!("rules are missing") };
    assert_eq!(updated["metadata"]["labels"][LABEL], "mine");
    let rules = json!([
        {"verbs": ["*"], "apiGroups": [""], "resources": ["services"]},
        {"verbs": ["list"], "apiGroups": [""], "resources": ["endpoints"]},
        {"verbs": ["watch"], "apiGroups": [""], "resources": ["endpoints"]},
    ]);
    assert_eq!(updated["rules"], rules);
    assert_eq!(reconcile_role(expected, &updated), Action::Leave);

    stored["metadata"]["annotations"] = json!({AUTOUPDATE: "false"});
    assert_eq!(reconcile_role(expected, &stored), Action::Leave);
    stored["metadata"]["annotations"] = Value::Null;
    stored["rules"] = Value::Null;
    let Action::Update(updated) = reconcile_role(expected, &stored) else { panic!("rules are missing") };
    assert_eq!(updated["metadata"]["annotations"][AUTOUPDATE], "true");
    assert_eq!(updated["rules"].as_array().unwrap().len(), 4);

    let admin = find(&roles, "admin");
    let mut filled = admin.clone();
    filled["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    assert_eq!(reconcile_role(admin, &filled), Action::Leave);
    let own = json!([{"matchLabels": {"mine": "true"}}]);
    filled["aggregationRule"]["clusterRoleSelectors"] = own;
    let Action::Update(updated) = reconcile_role(admin, &filled) else { panic!("a selector is missing") };
    assert_eq!(updated["aggregationRule"]["clusterRoleSelectors"].as_array().unwrap().len(), 2);
}

#[test]
fn reconciling_a_binding_adds_subjects_and_replaces_another_role() {
    let bindings = cluster_role_bindings();
    let expected = find(&bindings, "system:discovery");
    assert_eq!(reconcile_binding(expected, expected), Action::Leave);
    let mut stored = expected.clone();
    stored["subjects"] = json!([{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "mine"}]);
    let Action::Update(updated) = reconcile_binding(expected, &stored) else { panic!("a subject is missing") };
    assert_eq!(updated["subjects"].as_array().unwrap().len(), 2);

    stored["metadata"]["resourceVersion"] = json!("7");
    stored["roleRef"]["name"] = json!("view");
    let Action::Recreate(fresh) = reconcile_binding(expected, &stored) else { panic!("the role differs") };
    assert_eq!(fresh["roleRef"], expected["roleRef"]);
    assert_eq!(fresh["metadata"].get("resourceVersion"), None);
    stored["metadata"]["annotations"][AUTOUPDATE] = json!("false");
    assert_eq!(reconcile_binding(expected, &stored), Action::Leave);
}
