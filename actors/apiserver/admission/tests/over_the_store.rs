//! Admission over real caches over a store in memory: what it looks up, and that quotas hold when many write.

use std::sync::Arc;

use k3sd_apiserver_access::User;
use k3sd_apiserver_admission::{Admission, AdmissionConfig, Attributes, Operation};
use k3sd_apiserver_store::{Catalog, CatalogHandle, ReadAt, Resource, Stores, tree};
use k3sd_client::storage::memory::Memory;
use k3sd_objects::status::Status;
use k3sd_runtime::{Clock, System, Tree};
use serde_json::{Value, json};

struct World {
    stores: Stores,
    admission: Admission,
    user: User,
    clock: Clock,
    _tree: Tree,
    _system: System,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::simulated(1);
        let catalog = CatalogHandle::new(Catalog::builtin(|resource| resource.served));
        let stores = Stores::new(catalog, Arc::new(Memory::new(clock.clone())), clock.clone());
        let system = System::new(clock.clone());
        let running = system.start(tree(&stores));
        running.ready().await.expect("the tree starts");
        stores.ready().await;
        let config = AdmissionConfig::default();
        let admission = Admission::new(stores.clone(), Arc::new(|_| false), config, clock.clone());
        let world = Self { stores, admission, user: User::new("ann", &[]), clock, _tree: running, _system: system };
        world.put("namespaces", "", json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}})).await;
        world.put("serviceaccounts", "a", json!({"metadata": {"name": "default", "namespace": "a"}})).await;
        world
    }

    async fn put(&self, plural: &str, namespace: &str, mut value: Value) {
        let store = self.stores.get("", plural).expect("served");
        self.name_kind(plural, &mut value);
        let name = value["metadata"]["name"].as_str().expect("a name").to_owned();
        store.create(namespace, &name, value, None).await.expect("it is new");
    }

    fn name_kind(&self, plural: &str, value: &mut Value) {
        value["apiVersion"] = "v1".into();
        value["kind"] = self.resource(plural).kind.to_string().into();
    }

    async fn read(&self, plural: &str, namespace: &str, name: &str) -> Value {
        let store = self.stores.get("", plural).expect("served");
        store.get(namespace, name, ReadAt::Latest).await.expect("it answers").expect("it is there").value()
    }

    fn resource(&self, plural: &str) -> Arc<Resource> {
        self.stores.catalog().current().preferred("", plural).expect("served").clone()
    }

    /// Makes an object as the API server does: both phases, then the write, and the charge back if that fails.
    async fn make(&self, plural: &str, mut object: Value) -> Result<(), Status> {
        let resource = self.resource(plural);
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let attributes = Attributes {
            user: &self.user,
            operation: Operation::Create,
            resource: &resource,
            subresource: "",
            namespace: "a",
            name: &name,
            old: None,
            options: &Value::Null,
            dry_run: false,
        };
        self.admission.mutate(&attributes, &mut object).await?;
        let admitted = self.admission.validate(&attributes, Some(&object)).await?;
        let store = self.stores.get("", plural).expect("served");
        self.name_kind(plural, &mut object);
        if store.create("a", &name, object, None).await.is_err() {
            admitted.charge.refund().await;
            return Err(Status::already_exists(resource.qualified(), &name));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_gets_what_the_cluster_has_for_it_at_once() {
    let world = World::new().await;
    // Written a moment before, and needed now: a cache that lags is no reason to refuse.
    world.put("limitranges", "a", json!({"metadata": {"name": "l", "namespace": "a"}, "spec": {"limits": []}})).await;
    world.put("serviceaccounts", "a", json!({"metadata": {"name": "new", "namespace": "a"}})).await;
    let pod = json!({"metadata": {"name": "p", "namespace": "a"},
        "spec": {"serviceAccountName": "new", "containers": [{"name": "c"}]}});
    world.make("pods", pod).await.expect("it is admitted");
    let pod = world.read("pods", "a", "p").await;
    assert_eq!((&pod["spec"]["priority"], &pod["spec"]["serviceAccount"]), (&json!(0), &json!("new")));
    assert!(pod["spec"]["volumes"][0]["projected"].is_object() && pod["spec"]["tolerations"].is_array());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_in_a_namespace_that_was_marked_a_moment_ago() {
    let world = World::new().await;
    let namespaces = world.stores.get("", "namespaces").expect("served");
    let found = namespaces.get("", "a", ReadAt::Latest).await.expect("it answers").expect("it is there");
    let resource = world.resource("namespaces");
    let delete = Attributes {
        user: &world.user,
        operation: Operation::Delete,
        resource: &resource,
        subresource: "",
        namespace: "a",
        name: "a",
        old: None,
        options: &Value::Null,
        dry_run: false,
    };
    world.admission.mutate(&delete, &mut Value::Null).await.expect("it may be deleted");
    let going =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "status": {"phase": "Terminating"}});
    namespaces.update(&found, going, None).await.expect("it is marked");
    let refused = world.make("configmaps", json!({"metadata": {"name": "m", "namespace": "a"}})).await.unwrap_err();
    assert_eq!(refused.code, 403, "{}", refused.message);
}

#[tokio::test(start_paused = true)]
async fn many_writers_fill_a_quota_to_the_last_place() {
    const ROOM: usize = 12;
    let world = World::new().await;
    let room = json!({"pods": ROOM.to_string(), "requests.cpu": "100"});
    world
        .put(
            "resourcequotas",
            "a",
            json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": room},
                "status": {"hard": room, "used": {"pods": "0", "requests.cpu": "0"}}}),
        )
        .await;
    let start = world.clock.now();
    // Names collide now and then: such a charge comes back, and its place is taken by another.
    let made = (0..40).map(|index| {
        let pod = json!({"metadata": {"name": format!("p{}", index % 30), "namespace": "a"}, "spec": {
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]}});
        world.make("pods", pod)
    });
    let outcomes = futures_util::future::join_all(made).await;
    let passed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    for refused in outcomes.into_iter().filter_map(Result::err) {
        let full = refused.message.contains("exceeded quota: q, requested: pods=1, used: pods=12, limited: pods=12");
        assert!(full || refused.message.contains("already exists"), "{}", refused.message);
    }
    let quota = world.read("resourcequotas", "a", "q").await;
    let counted = world.stores.get("", "pods").expect("served").list(&Default::default()).await.expect("a list");
    assert_eq!(counted.objects.len(), passed);
    assert_eq!(quota["status"]["used"]["pods"], passed.to_string());
    assert_eq!(passed, ROOM);
    assert!(world.clock.now().since(start).as_secs() < 60, "nobody waits for long");
}
