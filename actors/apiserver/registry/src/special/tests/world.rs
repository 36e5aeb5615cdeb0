//! A server without a network: a store in memory, caches, verbs, and short ways to use them.

use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_access::authn::service_account::Issuer;
use k3sd_apiserver_access::{Decision, Query, Rbac, RequestInfo, User};
use k3sd_apiserver_admission::{Admission, AdmissionConfig, Plugin, Plugins};
use k3sd_apiserver_store::{Catalog, CatalogHandle, Stores};
use k3sd_client::storage::memory::Memory;
use k3sd_objects::status::Status;
use k3sd_runtime::{Clock, Signal, Spec, Strategy, System, Tree, subtree};
use serde_json::{Value, json};

use super::slow::Slow;
use crate::api::{Api, ApiArgs, ApiConfig};
use crate::bootstrap::{self, BootstrapArgs, Hooks, RequestAuthentication, ServerPlace};
use crate::call::{Call, Reply};
use crate::special::{Component, Special, TokenSource, local};

/// What a test asks for.
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: Value,
}

pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) api: Arc<Api>,
    pub(crate) clock: Clock,
    pub(crate) hooks: Hooks,
    pub(crate) system: System,
    tree: Tree,
}

fn special(ranges: &[&str]) -> Special {
    let issuer = Issuer {
        name: "https://kubernetes".to_owned(),
        audiences: vec!["api".to_owned()],
        extends: true,
        lifetime_max: None,
    };
    Special {
        service_ranges: ranges.iter().map(|range| range.parse().expect("range")).collect(),
        node_ports: "30000-30031".parse().expect("range"),
        tokens: Some(TokenSource { issuer, key: Arc::new(|| None) }),
        authenticate: Arc::new(|token, audiences| {
            Box::pin(async move {
                match token.as_str() {
                    "good" => Ok(Some((User::new("somebody", &["them"]), audiences))),
                    "bad" => Err("not good".to_owned()),
                    _ => Ok(None),
                }
            })
        }),
        rbac: Arc::new(|| Arc::new(Rbac::default())),
        components: Arc::new(|| vec![Component { name: "scheduler".to_owned(), health: Err("away".to_owned()) }]),
    }
}

/// One user may do everything, others may read.
fn decide(user: &User, verb: &str) -> Decision {
    let reason = String::new();
    match (user.name.as_str(), verb) {
        ("admin", _) | (_, "get") => Decision::Allow { reason },
        _ => Decision::NoOpinion { reason },
    }
}

impl World {
    /// A server with these ranges for Services, and what it does by itself once it is up.
    pub(crate) async fn new(ranges: &[&str]) -> Self {
        let clock = Clock::simulated(1);
        Self::over(Memory::new(clock.clone()), clock, ranges, "10.1.1.1").await
    }

    /// Another server over the same store.
    pub(crate) async fn over(memory: Memory, clock: Clock, ranges: &[&str], address: &str) -> Self {
        let world = Self::start(memory, clock, ranges, address).await;
        world.hooks.done().await;
        world
    }

    async fn start(memory: Memory, clock: Clock, ranges: &[&str], address: &str) -> Self {
        let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
        let stores = Stores::new(catalog, Arc::new(Slow(memory.clone())), clock.clone());
        let args = ApiArgs {
            stores: stores.clone(),
            admission: Arc::new(Admission::new(
                stores.clone(),
                Arc::new(|_| true),
                AdmissionConfig {
                    plugins: Plugins::default().without(Plugin::ServiceAccount),
                    ..AdmissionConfig::default()
                },
                clock.clone(),
            )),
            authorize: Arc::new(|attributes| decide(attributes.user, &attributes.request.verb)),
            special: special(ranges),
            clock: clock.clone(),
            config: ApiConfig::default(),
        };
        let api = Arc::new(Api::new(args));
        let place = ServerPlace {
            host: format!("host-{address}"),
            address: address.parse().expect("address"),
            port: 6443,
            service_port: 443,
        };
        let authentication =
            Arc::new(|| RequestAuthentication { client_ca: "PEM".to_owned(), ..RequestAuthentication::default() });
        let made = bootstrap::tree(&BootstrapArgs { api: api.clone(), place, authentication });
        let spec = Spec::new(Strategy::RestForOne)
            .child(subtree("caches", k3sd_apiserver_store::tree(&stores)))
            .child(subtree("bootstrap", made.spec));
        let system = System::new(clock.clone());
        let tree = system.start(spec);
        tree.ready().await.expect("the tree starts");
        Self { memory, api, clock, hooks: made.hooks, system, tree }
    }

    /// Ends the server as a stop would.
    pub(crate) async fn stop(self) {
        self.tree.stop();
        self.tree.ended().await;
    }

    pub(crate) fn kill(&self, actor: &str) {
        assert!(self.system.signal(actor, Signal::Kill), "{actor} runs");
    }

    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.sleep_until(self.clock.now() + time).await;
    }

    /// Sends a request as `admin`. Answers the object, or the list's items, and the warnings.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Value, Status> {
        let info = RequestInfo::parse(ask.method, ask.path, ask.query).expect("a path");
        let body = if ask.body.is_null() { Vec::new() } else { k3sd_objects::decode::to_bytes(&ask.body) };
        let patch = (ask.method == "PATCH").then_some("application/merge-patch+json");
        let call = Call {
            user: Arc::new(User::new("admin", &[])),
            info,
            query: Query::parse(ask.query),
            body: body.into(),
            content_type: Some(patch.unwrap_or("application/json").to_owned()),
            user_agent: "test".to_owned(),
            now: local::now(&self.api),
        };
        match self.api.handle(call).await.result? {
            Reply::Object { object, .. } => Ok(object.value()),
            Reply::List { page, .. } => Ok(page.objects.iter().map(k3sd_objects::object::Object::value).collect()),
            Reply::Status(status) if status.outcome == "Failure" => Err(status),
            Reply::Status(status) => Ok(status.to_value()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Status> {
        self.ask(Ask { method: "GET", path, query: "", body: Value::Null }).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value, Status> {
        self.ask(Ask { method: "POST", path, query: "", body }).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Result<Value, Status> {
        self.ask(Ask { method: "PATCH", path, query: "", body }).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Status> {
        self.ask(Ask { method: "DELETE", path, query: "", body: Value::Null }).await
    }

    /// Asks until the answer pleases, for at most two minutes.
    pub(crate) async fn until(&self, path: &str, pleases: impl Fn(&Result<Value, Status>) -> bool) {
        let mut last = None;
        for _ in 0..600 {
            let found = self.get(path).await;
            if pleases(&found) {
                return;
            }
            last = Some(found);
            self.pass(Duration::from_millis(200)).await;
        }
        panic!("{path} stays {last:?}");
    }
}

pub(crate) fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec["type"] != "ExternalName" && spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}
