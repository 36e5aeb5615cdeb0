//! Who is known by what, and who may do what.

use serde_json::json;

use crate::support::{Server, namespace};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_known_by_what_he_shows() {
    let server = Server::start().await;
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    type Case =
        (Option<&'static str>, &'static [(&'static str, &'static str)], Result<(&'static str, &'static str), u16>);
    let cases: [Case; 10] = [
        (Some("admin"), &[], Ok(("admin", "system:masters"))),
        (Some("ann"), &[], Ok(("ann", "dev"))),
        (None, &[("authorization", "Bearer secret-token")], Ok(("bob", "ops"))),
        (None, &[("authorization", "Bearer wrong-token")], Err(401)),
        (None, &[], Err(401)),
        (Some("stranger"), &[], Err(401)),
        // A good token makes up for a certificate that nobody knows.
        (Some("stranger"), &[("authorization", "Bearer secret-token")], Ok(("bob", "dev"))),
        (Some("proxy"), &[("x-remote-user", "carl"), ("x-remote-group", "ops")], Ok(("carl", "ops"))),
        (Some("ann"), &[("x-remote-user", "carl")], Ok(("ann", "dev"))),
        (Some("admin"), &[("impersonate-user", "eve"), ("impersonate-group", "dev")], Ok(("eve", "dev"))),
    ];
    for (certificate, headers, expected) in cases {
        let mut client = server.client(certificate).await;
        let answer = client.send("POST", WHO, headers, &ask.to_string()).await;
        match expected {
            Ok((name, group)) => {
                assert_eq!(answer.code, 201, "{certificate:?} {headers:?} {answer:?}");
                let user = &answer.json()["status"]["userInfo"];
                assert_eq!(user["username"], name, "{certificate:?} {headers:?}");
                let groups = user["groups"].as_array().expect("groups").clone();
                assert!(
                    groups.contains(&group.into()) && groups.contains(&"system:authenticated".into()),
                    "{groups:?}"
                );
            }
            Err(code) => {
                assert_eq!(answer.code, code, "{certificate:?} {headers:?}");
                assert_eq!(answer.json()["message"], "Unauthorized");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_open_exactly_what_they_name() {
    let server = Server::start().await;
    let (mut admin, mut ann) = (server.client(Some("admin")).await, server.client(Some("ann")).await);
    namespace(&mut admin, "a").await;
    let refused = ann.get("/api/v1/namespaces/a/configmaps").await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.json()["message"],
        "configmaps is forbidden: User \"ann\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"a\""
    );
    let refused = ann.get("/metrics").await;
    assert_eq!(refused.json()["message"], "forbidden: User \"ann\" cannot get path \"/metrics\"");

    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}]});
    let place = "/apis/rbac.authorization.k8s.io/v1/namespaces/a";
    assert_eq!(admin.post(&format!("{place}/roles"), &role).await.code, 201);
    assert_eq!(admin.post(&format!("{place}/rolebindings"), &binding).await.code, 201);
    let mut allowed = ann.get("/api/v1/namespaces/a/configmaps").await;
    for _ in 0..100 {
        if allowed.code == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        allowed = ann.get("/api/v1/namespaces/a/configmaps").await;
    }
    assert_eq!(allowed.code, 200);
    for (method, path) in [
        ("DELETE", "/api/v1/namespaces/a/configmaps"),
        ("GET", "/api/v1/namespaces/b/configmaps"),
        ("GET", "/api/v1/configmaps"),
        ("GET", "/api/v1/namespaces/a/secrets"),
        ("GET", "/api/v1/namespaces/a/configmaps?watch=1"),
    ] {
        assert_eq!(ann.send(method, path, &[], "").await.code, 403, "{method} {path}");
    }
    let as_somebody = [("impersonate-user", "eve")];
    let refused = ann.send("GET", "/api/v1/namespaces/a/configmaps", &as_somebody, "").await;
    assert_eq!(
        refused.json()["message"],
        "users \"eve\" is forbidden: User \"ann\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_anonymous_where_that_is_allowed() {
    let server = Server::with(|config| config.anonymous = true).await;
    let mut client = server.client(None).await;
    let refused = client.get("/api/v1/pods").await;
    assert_eq!(refused.code, 403);
    assert!(refused.text().contains("system:anonymous"), "{}", refused.text());
    let wrong = client.send("GET", "/api/v1/pods", &[("authorization", "Bearer wrong")], "").await;
    assert_eq!(wrong.code, 401, "a wrong token is not nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_service_accounts_are_made_and_believed() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    namespace(&mut admin, "a").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    assert_eq!(admin.post("/api/v1/namespaces/a/serviceaccounts", &account).await.code, 201);
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let made = admin.post("/api/v1/namespaces/a/serviceaccounts/robot/token", &ask).await;
    assert_eq!(made.code, 201, "{made:?}");
    let made = made.json();
    let token = made["status"]["token"].as_str().expect("a token");
    let bearer = format!("Bearer {token}");
    let mut robot = server.client(None).await;
    for _ in 0..3 {
        let refused = robot.send("GET", "/api/v1/pods", &[("authorization", &bearer)], "").await;
        assert_eq!(refused.code, 403, "it is known, and may do nothing: {refused:?}");
        assert!(refused.text().contains("system:serviceaccount:a:robot"), "{}", refused.text());
    }
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json();
    assert_eq!(reviewed["status"]["authenticated"], true, "{reviewed}");
    assert_eq!(reviewed["status"]["user"]["username"], "system:serviceaccount:a:robot");
    assert_eq!(admin.send("DELETE", "/api/v1/namespaces/a/serviceaccounts/robot", &[], "").await.code, 200);
    // The cache hears of it a moment after the answer.
    let mut code = 0;
    for _ in 0..200 {
        code = robot.send("GET", "/api/v1/pods", &[("authorization", &bearer)], "").await.code;
        if code == 401 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(code, 401, "a token ends with its account");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_are_for_those_too_who_are_nobody() {
    let server = Server::start().await;
    let mut nobody = server.client(None).await;
    let page = nobody.get("/open").await;
    assert_eq!((page.code, page.header("content-type"), page.text()), (200, "text/plain", "to all"));
    for path in ["/open/", "/opened", "/version"] {
        assert_eq!(nobody.get(path).await.code, 401, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_secret_counts_until_it_is_marked_and_its_use_is_noted() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    namespace(&mut admin, "a").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"},
        "secrets": [{"name": "generated"}]});
    let account = admin.post("/api/v1/namespaces/a/serviceaccounts", &account).await;
    let uid = account.json()["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let pem = std::fs::read_to_string(server.pki.path("other-ca.key")).expect("a key");
    let keys = k3sd_apiserver::ServiceAccountKeys::of_pems(&[pem]).expect("a key");
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let place = "/api/v1/namespaces/a/secrets";
    for (name, warning) in [("generated", "Use tokens from the TokenRequest API"), ("made", "")] {
        let token = keys.sign(&json!({
            "iss": "kubernetes/serviceaccount",
            "sub": "system:serviceaccount:a:robot",
            "kubernetes.io/serviceaccount/namespace": "a",
            "kubernetes.io/serviceaccount/secret.name": name,
            "kubernetes.io/serviceaccount/service-account.name": "robot",
            "kubernetes.io/serviceaccount/service-account.uid": uid,
        }));
        let token = token.expect("it signs");
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let mut robot = server.client(None).await;
        assert_eq!(robot.send("POST", WHO, &headers, &ask).await.code, 401, "there is no such Secret");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": "robot"}},
            "stringData": {"token": token}});
        assert_eq!(admin.post(place, &secret).await.code, 201);
        let answer = robot.send("POST", WHO, &headers, &ask).await;
        assert_eq!(answer.json()["status"]["userInfo"]["username"], "system:serviceaccount:a:robot");
        assert_eq!(answer.header("warning").contains("Use tokens"), !warning.is_empty(), "{answer:?}");
        assert!(answer.header("warning").contains(warning), "{answer:?}");

        let mut noted = false;
        for _ in 0..500 {
            let found = admin.get(&format!("{place}/{name}")).await.json();
            noted = found["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string();
            if noted {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(noted, "its use is noted");
        let mark = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
        let merge = [("content-type", "application/merge-patch+json")];
        assert_eq!(admin.send("PATCH", &format!("{place}/{name}"), &merge, &mark.to_string()).await.code, 200);
        let mut code = 201;
        for _ in 0..500 {
            // Caches learn of it a moment later.
            code = robot.send("POST", WHO, &headers, &ask).await.code;
            if code == 401 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(code, 401, "it is marked");
    }
}
