//! Tokens that Secrets hold, over the API server: who asks for one gets it, it is believed as long as its account and its
//! Secret are there, and those that nobody uses go.

use std::time::Duration;

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::controller::setup::{Bundle, ControllerConfig};
use k3sd_runtime::Clock;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const KEEPER: &str = "loops/serviceaccount-token";

async fn start(seed: u64) -> Cluster {
    let plane = Plane::new(Clock::simulated(seed));
    let config = ControllerConfig {
        tokens: Some(plane.tokens()),
        root_ca: Bundle::new(|| "PEM".to_owned()),
        token_clean_up_period: Some(HOUR),
        ..ControllerConfig::default()
    };
    let cluster = plane.start_controllers(config, Vec::new(), k3sd_controllers_accounts::loops).await;
    let accounts: Api<ServiceAccount> = cluster.api();
    cluster
        .wait_until("there is an account", async || {
            accounts.get_opt("default").await.is_ok_and(|found| found.is_some())
        })
        .await;
    cluster
}

fn wanted(name: &str, account: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
        "type": "kubernetes.io/service-account-token"})
}

fn entry(secret: &Secret, name: &str) -> String {
    let data = secret.data.as_ref().and_then(|data| data.get(name));
    data.map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default()
}

async fn secret(cluster: &Cluster, name: &str) -> Option<Secret> {
    cluster.api::<Secret>().get_opt(name).await.expect("an answer")
}

/// Waits for the token of a Secret.
async fn token(cluster: &Cluster, name: &str) -> String {
    let mut token = String::new();
    cluster
        .wait_until("the Secret has a token", async || {
            token = secret(cluster, name).await.map(|secret| entry(&secret, "token")).unwrap_or_default();
            !token.is_empty()
        })
        .await;
    token
}

/// Who comes with a token, or why nobody does.
async fn review(cluster: &Cluster, token: &str) -> Result<String, String> {
    let reviews: Api<TokenReview> = Api::all(cluster.admin());
    let review = serde_json::from_value(json!({"metadata": {}, "spec": {"token": token}})).expect("a review");
    let review: TokenReview = reviews.create(&PostParams::default(), &review).await.expect("it is answered");
    let status = review.status.expect("there is one");
    if status.authenticated == Some(true) {
        return Ok(status.user.and_then(|user| user.username).unwrap_or_default());
    }
    Err(status.error.unwrap_or_default())
}

async fn change<K>(cluster: &Cluster, name: &str, change: Value)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: serde::de::DeserializeOwned + Clone + std::fmt::Debug,
{
    let api: Api<K> = cluster.api();
    api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.expect("it may be changed");
}

#[tokio::test(start_paused = true)]
async fn a_secret_gets_a_token_that_is_believed_until_the_account_is_gone() {
    let cluster = start(1).await;
    cluster.make::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    cluster.make::<Secret>(wanted("s", "robot")).await;
    let token = token(&cluster, "s").await;
    let found = secret(&cluster, "s").await.expect("it stays");
    assert_eq!([entry(&found, "ca.crt"), entry(&found, "namespace")], ["PEM", "default"]);
    let robot = cluster.api::<ServiceAccount>().get("robot").await.expect("it is there");
    assert_eq!(found.annotations().get("kubernetes.io/service-account.uid"), robot.metadata.uid.as_ref());
    assert_eq!(review(&cluster, &token).await.as_deref(), Ok("system:serviceaccount:default:robot"));
    cluster
        .wait_until("its use is noted", async || {
            secret(&cluster, "s").await.is_some_and(|secret| secret.labels().contains_key(LAST_USED))
        })
        .await;

    // Whoever empties it gets another one, also when the loop dies meanwhile.
    cluster.kill(KEEPER);
    change::<Secret>(&cluster, "s", json!({"data": {"token": null, "namespace": null}})).await;
    cluster
        .wait_until("it is whole again", async || {
            secret(&cluster, "s").await.is_some_and(|secret| entry(&secret, "namespace") == "default")
        })
        .await;

    cluster.make::<Secret>(wanted("other", "default")).await;
    cluster.api::<ServiceAccount>().delete("robot", &DeleteParams::default()).await.expect("it is there");
    cluster.wait_until("its Secret is gone", async || secret(&cluster, "s").await.is_none()).await;
    assert_eq!(review(&cluster, &token).await, Err("Token has been invalidated".to_owned()));
    assert!(secret(&cluster, "other").await.is_some(), "that of another account stays");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn secrets_of_nobody_and_of_an_account_that_was_made_anew_go() {
    let cluster = start(2).await;
    cluster.make::<Secret>(wanted("nobodys", "nobody")).await;
    cluster.wait_until("it is gone", async || secret(&cluster, "nobodys").await.is_none()).await;
    cluster.make::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    cluster.make::<Secret>(wanted("s", "robot")).await;
    token(&cluster, "s").await;
    // While nobody looks, the account becomes another one.
    let accounts = cluster.api::<ServiceAccount>();
    cluster.kill(KEEPER);
    accounts.delete("robot", &DeleteParams::default()).await.expect("it is there");
    cluster.make::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    cluster.wait_until("it is gone", async || secret(&cluster, "s").await.is_none()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_account_forgets_a_secret_that_was_deleted() {
    let cluster = start(3).await;
    cluster
        .make::<ServiceAccount>(json!({"metadata": {"name": "robot"}, "secrets": [{"name": "s"}, {"name": "t"}]}))
        .await;
    cluster.make::<Secret>(wanted("s", "robot")).await;
    token(&cluster, "s").await;
    cluster.api::<Secret>().delete("s", &DeleteParams::default()).await.expect("it is there");
    cluster
        .wait_until("only the other is left", async || {
            let robot = cluster.api::<ServiceAccount>().get("robot").await.expect("it is there");
            let names = robot.secrets.iter().flatten().filter_map(|reference| reference.name.as_deref());
            names.eq(["t"])
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_were_made_by_themselves_and_lie_unused_are_marked_and_go() {
    let cluster = start(4).await;
    let generated = json!({"metadata": {"name": "robot"}, "secrets": [{"name": "unused"}, {"name": "used"}]});
    cluster.make::<ServiceAccount>(generated).await;
    for name in ["unused", "used", "made"] {
        cluster.make::<Secret>(wanted(name, "robot")).await;
        token(&cluster, name).await;
    }
    let (unused, used) = (token(&cluster, "unused").await, token(&cluster, "used").await);
    let tracking: Api<ConfigMap> = Api::namespaced(cluster.admin(), "kube-system");
    let since = tracking.get("kube-apiserver-legacy-service-account-token-tracking").await.expect("the server made it");
    assert!(since.data.expect("it says since when").contains_key("since"));

    // Days are counted, so the first hour behind a midnight is what matters.
    let today = cluster.clock().wall().as_secs() % DAY.as_secs();
    cluster.pass(DAY - Duration::from_secs(today) + HOUR / 2).await;
    review(&cluster, &used).await.expect("it counts");
    let marked = async |name: &str| {
        secret(&cluster, name).await.is_some_and(|secret| secret.labels().contains_key(INVALID_SINCE))
    };
    assert!(!marked("unused").await, "the hour isn't over");
    cluster.pass(HOUR).await;
    cluster.wait_until("the unused one is marked", async || marked("unused").await).await;
    let refused = review(&cluster, &unused).await.expect_err("it doesn't count any more");
    assert!(refused.contains("has been marked invalid"), "{refused}");
    assert!(!marked("used").await && !marked("made").await);
    // Its holder takes the mark away, and it counts again.
    change::<Secret>(&cluster, "unused", json!({"metadata": {"labels": {INVALID_SINCE: null}}})).await;
    review(&cluster, &unused).await.expect("it counts again");

    cluster.pass(DAY).await;
    cluster.wait_until("both are marked", async || marked("unused").await && marked("used").await).await;
    cluster.kill("loops/legacy-service-account-token-cleaner");
    cluster.pass(DAY).await;
    cluster
        .wait_until("both are gone", async || {
            secret(&cluster, "unused").await.is_none() && secret(&cluster, "used").await.is_none()
        })
        .await;
    assert!(secret(&cluster, "made").await.is_some(), "what a person made is theirs");
    cluster.stop().await;
}
