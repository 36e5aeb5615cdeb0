//! Reviews, tokens, and the health of components.

use serde_json::{Value, json};

use super::world::World;
use crate::special::read::text;

async fn review(world: &World, kind: &str, spec: Value) -> Value {
    let (group, place) = match kind {
        "TokenReview" | "SelfSubjectReview" => ("authentication.k8s.io", ""),
        "LocalSubjectAccessReview" => ("authorization.k8s.io", "namespaces/default/"),
        _ => ("authorization.k8s.io", ""),
    };
    let path = format!("/apis/{group}/v1/{place}{}s", kind.to_lowercase());
    let body = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec});
    world.post(&path, body).await.unwrap_or_else(|status| panic!("{kind}: {status}"))
}

#[tokio::test(start_paused = true)]
async fn reviews_are_answered() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let pods = |verb: &str| json!({"namespace": "default", "verb": verb, "resource": "pods"});
    for (kind, spec, allowed) in [
        ("SubjectAccessReview", json!({"user": "u", "resourceAttributes": pods("get")}), true),
        ("SubjectAccessReview", json!({"user": "u", "resourceAttributes": pods("delete")}), false),
        ("LocalSubjectAccessReview", json!({"user": "u", "resourceAttributes": pods("get")}), true),
        ("SelfSubjectAccessReview", json!({"resourceAttributes": pods("delete")}), true),
    ] {
        assert_eq!(review(&world, kind, spec).await["status"]["allowed"], allowed, "{kind}");
    }
    let me = review(&world, "SelfSubjectReview", json!({})).await;
    assert_eq!(me["status"]["userInfo"]["username"], "admin");
    let rules = review(&world, "SelfSubjectRulesReview", json!({"namespace": "default"})).await;
    assert_eq!(rules["status"]["resourceRules"], json!([]));
    for (token, status) in [
        (
            "good",
            json!({"authenticated": true, "user": {"username": "somebody", "groups": ["them"]}, "audiences": ["a"]}),
        ),
        ("bad", json!({"user": {}, "error": "not good"})),
        ("unknown", json!({"user": {}})),
    ] {
        let found = review(&world, "TokenReview", json!({"token": token, "audiences": ["a"]})).await;
        assert_eq!(found["status"], status);
    }
}

#[tokio::test(start_paused = true)]
async fn token_requests_need_an_account_and_a_key() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let path = "/api/v1/namespaces/default/serviceaccounts/a/token";
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["x"]}});
    assert_eq!(world.post(path, body.clone()).await.expect_err("no account").code, 404);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    world.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect("made");
    let mut short = body.clone();
    short["spec"]["expirationSeconds"] = json!(5);
    assert_eq!(world.post(path, short).await.expect_err("too short").code, 422);
    assert_eq!(world.post(path, body).await.expect_err("no key").code, 503);
}

#[tokio::test(start_paused = true)]
async fn components_say_how_they_are() {
    let world = World::new(&["10.43.0.0/24"]).await;
    let all = world.get("/api/v1/componentstatuses").await.expect("list");
    let shown: Vec<_> = all
        .as_array()
        .expect("list")
        .iter()
        .map(|one| (text(one, "/metadata/name"), text(one, "/conditions/0/status")))
        .collect();
    assert_eq!(shown, [("etcd-0", "True"), ("scheduler", "False")]);
    let one = world.get("/api/v1/componentstatuses/scheduler").await.expect("there");
    assert_eq!(one["conditions"][0]["error"], "away");
    assert_eq!(world.get("/api/v1/componentstatuses/x").await.expect_err("unknown").code, 404);
    world.memory.set_open(false);
    let one = world.get("/api/v1/componentstatuses/etcd-0").await.expect("there");
    assert_eq!(one["conditions"][0]["status"], "False");
}
