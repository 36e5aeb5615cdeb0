//! What a verb costs beside the network and the disk: microseconds of one core, over a store in memory.
//!
//! `cargo bench -p k3sd-apiserver-registry --bench verbs [-- --create]`; with `--create` only the creation of ConfigMaps,
//! for those who count instructions.

use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_access::{Attributes, Decision, Query, Rbac, RequestInfo, User};
use k3sd_apiserver_admission::{Admission, AdmissionConfig};
use k3sd_apiserver_registry::special::Special;
use k3sd_apiserver_registry::{Api, ApiArgs, ApiConfig, Call};
use k3sd_apiserver_store::{Catalog, CatalogHandle, Stores, tree};
use k3sd_client::storage::memory::Memory;
use k3sd_runtime::{Clock, System};
use serde_json::{Value, json};

/// Requests per figure.
const COUNT: usize = 5_000;

fn api(stores: &Stores, clock: &Clock) -> Api {
    let rights = |_: Attributes<'_>| true;
    Api::new(ApiArgs {
        stores: stores.clone(),
        admission: Arc::new(Admission::new(
            stores.clone(),
            Arc::new(rights),
            AdmissionConfig::default(),
            clock.clone(),
        )),
        authorize: Arc::new(|_| Decision::Allow { reason: String::new() }),
        special: Special {
            service_ranges: vec!["10.43.0.0/16".parse().expect("a range")],
            node_ports: "30000-32767".parse().expect("a range"),
            tokens: None,
            authenticate: Arc::new(|_, _| Box::pin(async { Ok(None) })),
            rbac: Arc::new(|| Arc::new(Rbac::default())),
            components: Arc::new(Vec::new),
        },
        clock: clock.clone(),
        config: ApiConfig::default(),
    })
}

fn call(method: &str, path: &str, content_type: &str, body: &Value) -> Call {
    Call {
        user: Arc::new(User::new("admin", &["system:masters"])),
        info: RequestInfo::parse(method, path, "").expect("a request"),
        query: Query::parse(""),
        body: if body.is_null() { bytes::Bytes::new() } else { body.to_string().into() },
        content_type: Some(content_type.to_owned()),
        user_agent: "bench/1".to_owned(),
        now: "2025-01-01T00:00:00Z".parse().expect("a time"),
    }
}

fn map(name: &str, mark: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "app": "bench" } },
        "data": { "mark": mark.to_string(), "text": "x".repeat(900) },
    })
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": "bench" } },
        "spec": { "containers": [{
            "name": "c", "image": "i:1", "ports": [{ "containerPort": 80 }],
            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
        }] },
    })
}

async fn measure(api: &Api, what: &str, calls: Vec<Call>) {
    let count = u32::try_from(calls.len()).expect("some thousands");
    let clock = api.clock().clone();
    let start = clock.now();
    for call in calls {
        let answer = api.handle(call).await;
        if let Err(status) = answer.result {
            panic!("{what}: {status}");
        }
    }
    let each: Duration = clock.now().since(start) / count;
    println!("{what:<28} {:>8.1} us", each.as_secs_f64() * 1e6);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    const MAPS: &str = "/api/v1/namespaces/a/configmaps";
    const PODS: &str = "/api/v1/namespaces/a/pods";
    const JSON: &str = "application/json";
    let clock = Clock::system();
    let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
    let stores = Stores::new(catalog, Arc::new(Memory::new(clock.clone())), clock.clone());
    let tree = System::new(clock.clone()).start(tree(&stores));
    tree.ready().await.expect("the tree starts");
    stores.ready().await;
    let api = api(&stores, &clock);
    let named = |name: &str| json!({ "metadata": { "name": name } });
    api.handle(call("POST", "/api/v1/namespaces", JSON, &named("a"))).await.result.expect("a namespace");
    let accounts = "/api/v1/namespaces/a/serviceaccounts";
    api.handle(call("POST", accounts, JSON, &named("default"))).await.result.expect("an account");

    let each = |make: &dyn Fn(usize) -> Call| (0..COUNT).map(make).collect::<Vec<_>>();
    let path = |n: usize| format!("{MAPS}/m{n}");
    let null = Value::Null;
    measure(&api, "create ConfigMap of 1 KiB", each(&|n| call("POST", MAPS, JSON, &map(&format!("m{n}"), 0)))).await;
    if std::env::args().any(|word| word == "--create") {
        return;
    }
    measure(&api, "get ConfigMap", each(&|n| call("GET", &path(n), JSON, &null))).await;
    measure(&api, "update ConfigMap", each(&|n| call("PUT", &path(n), JSON, &map(&format!("m{n}"), 1)))).await;
    let change = json!({ "data": { "mark": "2" } });
    measure(&api, "merge-patch ConfigMap", each(&|n| call("PATCH", &path(n), "application/merge-patch+json", &change)))
        .await;
    measure(&api, "delete ConfigMap", each(&|n| call("DELETE", &path(n), JSON, &null))).await;
    measure(&api, "create Pod", each(&|n| call("POST", PODS, JSON, &pod(&format!("p{n}"))))).await;
    let status = json!({ "status": { "phase": "Running", "podIP": "10.0.0.1" } });
    let status_path = |n: usize| format!("{PODS}/p{n}/status");
    let strategic = "application/strategic-merge-patch+json";
    measure(&api, "strategic patch of status", each(&|n| call("PATCH", &status_path(n), strategic, &status))).await;
}
