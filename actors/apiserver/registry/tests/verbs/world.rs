//! An API over a store in memory, and short ways to ask it.

use std::sync::Arc;

use bytes::Bytes;
use k3sd_apiserver_access::{Attributes, Decision, Query, Rbac, RequestInfo, User};
use k3sd_apiserver_admission::{Admission, AdmissionConfig};
use k3sd_apiserver_registry::special::Special;
use k3sd_apiserver_registry::{Answer, Api, ApiArgs, ApiConfig, Call, Reply, Shown};
use k3sd_apiserver_store::{Catalog, CatalogHandle, Stores, tree};
use k3sd_client::storage::Storage;
use k3sd_client::storage::memory::Memory;
use k3sd_objects::status::Status;
use k3sd_runtime::{Clock, System, Tree};
use serde_json::{Value, json};

/// Somebody who may do everything.
pub(crate) fn admin() -> User {
    User::new("admin", &["system:masters"])
}

pub(crate) struct World {
    pub(crate) api: Api,
    pub(crate) stores: Stores,
    pub(crate) memory: Memory,
    _tree: Tree,
}

/// What came back, in the request's version where the store has another.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: u16,
    pub(crate) value: Value,
    pub(crate) warnings: Vec<String>,
}

impl Said {
    pub(crate) fn message(&self) -> &str {
        self.value["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn metadata(&self, name: &str) -> &Value {
        &self.value["metadata"][name]
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|resource| resource.served).await
    }

    pub(crate) async fn with(served: impl Fn(&k3sd_objects::schema::Resource) -> bool) -> Self {
        Self::over(|memory| Arc::new(memory), served).await
    }

    /// With something between the API and the store in memory.
    pub(crate) async fn over(
        between: impl FnOnce(Memory) -> Arc<dyn Storage>,
        served: impl Fn(&k3sd_objects::schema::Resource) -> bool,
    ) -> Self {
        let clock = Clock::simulated(1);
        let memory = Memory::new(clock.clone());
        let catalog = CatalogHandle::new(Catalog::builtin(served));
        let stores = Stores::new(catalog, between(memory.clone()), clock.clone());
        let tree = System::new(clock.clone()).start(tree(&stores));
        tree.ready().await.expect("the tree starts");
        stores.ready().await;
        let args = ApiArgs {
            stores: stores.clone(),
            admission: Arc::new(admission(&stores, &clock)),
            authorize: Arc::new(|attributes| match attributes.user.name.as_str() {
                "admin" => Decision::Allow { reason: String::new() },
                _ => Decision::NoOpinion { reason: String::new() },
            }),
            special: Special {
                service_ranges: vec!["10.43.0.0/16".parse().expect("a range")],
                node_ports: "30000-32767".parse().expect("a range"),
                tokens: None,
                authenticate: Arc::new(|_, _| Box::pin(async { Ok(None) })),
                rbac: Arc::new(|| Arc::new(Rbac::default())),
                components: Arc::new(Vec::new),
            },
            clock,
            config: ApiConfig::default(),
        };
        let world = Self { api: Api::new(args), stores, memory, _tree: tree };
        world.make("/api/v1/namespaces", &json!({ "metadata": { "name": "a" } })).await;
        world.make("/api/v1/namespaces/a/serviceaccounts", &json!({ "metadata": { "name": "default" } })).await;
        world
    }

    /// Sends anything, as anybody.
    pub(crate) async fn answer(
        &self,
        user: User,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let call = Call {
            user: Arc::new(user),
            info: RequestInfo::parse(method, path, query).expect("a request"),
            query: Query::parse(query),
            body: body.into(),
            content_type: content_type.map(str::to_owned),
            user_agent: "kubectl/v1.34.0".to_owned(),
            now: "2025-01-01T00:00:00Z".parse().expect("a time"),
        };
        self.api.handle(call).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Said {
        said(self.answer(admin(), method, path, content_type, body).await)
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        self.send("GET", path, None, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Said {
        self.send("POST", path, Some("application/json"), body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Said {
        self.send("PUT", path, Some("application/json"), body.to_string()).await
    }

    /// `language` is `json`, `merge`, `strategic` or `apply`.
    pub(crate) async fn patch(&self, path: &str, language: &str, body: &Value) -> Said {
        let content_type = match language {
            "json" => "application/json-patch+json",
            "merge" => "application/merge-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            _ => "application/apply-patch+yaml",
        };
        self.send("PATCH", path, Some(content_type), body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Said {
        self.send("DELETE", path, None, "").await
    }

    /// Makes something that is only there to be there.
    pub(crate) async fn make(&self, path: &str, body: &Value) -> Value {
        let said = self.post(path, body).await;
        assert_eq!(said.code, 201, "{}", said.value);
        said.value
    }
}

/// The real one; nobody but the administrator has any right.
fn admission(stores: &Stores, clock: &Clock) -> Admission {
    let rights = |asked: Attributes<'_>| asked.user.name == "admin";
    Admission::new(stores.clone(), Arc::new(rights), AdmissionConfig::default(), clock.clone())
}

pub(crate) fn said(answer: Answer) -> Said {
    let warnings = answer.warnings;
    let of_status = |status: Status| (status.http_code(), status.to_value());
    let (code, value) = match answer.result {
        Err(status) | Ok(Reply::Status(status)) => of_status(status),
        Ok(Reply::Object { resource, code, object, .. }) => {
            let value = match object {
                Shown::Stored(object) if resource.is_storage_version() => object.value(),
                Shown::Stored(object) => {
                    k3sd_objects::convert::convert(object.value(), &resource.api_version).expect("convertible")
                }
                Shown::Value(value) => value,
            };
            (code, value)
        }
        Ok(Reply::List { page, .. }) => {
            let items: Vec<Value> = page.objects.iter().map(|object| object.value()).collect();
            let metadata = json!({ "resourceVersion": page.revision.to_string(), "continue": page.continue_token });
            (200, json!({ "metadata": metadata, "items": items }))
        }
        Ok(Reply::Watch { .. }) => (200, Value::Null),
        Ok(Reply::Raw { code, body, .. }) => (code, Value::from(String::from_utf8_lossy(&body).into_owned())),
    };
    Said { code, value, warnings }
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/a/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/a/pods";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/a/deployments";

pub(crate) fn map(name: &str, data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "i:1" }] },
    })
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "x" } },
            "template": {
                "metadata": { "labels": { "app": "x" } },
                "spec": { "containers": [{ "name": "c", "image": "i:1" }] },
            },
        },
    })
}
