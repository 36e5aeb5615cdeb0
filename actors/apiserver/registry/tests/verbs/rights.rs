//! Nobody hands out rights that he doesn't hold.

use k3sd_apiserver_access::User;
use serde_json::json;

use crate::world::{World, said};

#[tokio::test(start_paused = true)]
async fn roles_and_bindings_give_what_their_author_has() {
    let world = World::new().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles";
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings";
    let role = json!({
        "metadata": { "name": "r" }, "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }],
    });
    let binding = |role: &str| {
        json!({
            "metadata": { "name": "b" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role },
            "subjects": [{ "kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io" }],
        })
    };
    let jane = || User::new("jane", &["devs"]);
    let post = async |path: &str, body: &serde_json::Value| {
        said(world.answer(jane(), "POST", path, Some("application/json"), body.to_string()).await)
    };
    let refused = post(roles, &role).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            403,
            "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"devs\"]) is attempting to grant \
             RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}"
        )
    );
    let unknown = post(bindings, &binding("none")).await;
    assert_eq!((unknown.code, unknown.message()), (404, "roles.rbac.authorization.k8s.io \"none\" not found"));
    world.make(roles, &role).await;
    world.make(bindings, &binding("r")).await;
    let release = json!({ "metadata": { "finalizers": ["a.b/c"] } });
    let upkeep = world
        .answer(jane(), "PATCH", &format!("{roles}/r"), Some("application/merge-patch+json"), release.to_string())
        .await;
    assert_eq!(said(upkeep).code, 200, "what changes no right needs none");
    let more = json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["*"] }] });
    let more = world
        .answer(jane(), "PATCH", &format!("{roles}/r"), Some("application/merge-patch+json"), more.to_string())
        .await;
    assert_eq!(said(more).code, 403);
}
