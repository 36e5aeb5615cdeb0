//! What is no resource: health, numbers, discovery, OpenAPI, keys.

use k3sd_apiserver::Numbers;
use serde_json::Value;

use crate::support::Server;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_tells_how_it_is() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    assert_eq!(admin.get("/readyz").await.text(), "ok");
    let verbose = admin.get("/readyz?verbose").await;
    for line in ["[+]ping ok", "[+]etcd ok", "[+]informer-sync ok", "[+]shutdown ok", "readyz check passed"] {
        assert!(verbose.text().lines().any(|found| found == line), "{line}\n{}", verbose.text());
    }
    assert_eq!(admin.get("/livez/ping").await.text(), "ok");
    assert_eq!(admin.get("/livez/nothing").await.code, 404);
    server.storage.set_open(false);
    let failed = admin.get("/readyz").await;
    assert_eq!(failed.code, 500);
    assert!(failed.text().contains("[-]etcd failed: reason withheld\n"), "{}", failed.text());
    let excluded = admin.get("/readyz?exclude=etcd&exclude=etcd-readiness").await;
    assert_eq!(excluded.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_tells_what_there_is() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    let version = admin.get("/version").await.json();
    assert_eq!((&version["major"], &version["minor"]), (&"1".into(), &"34".into()));
    let paths = admin.get("/").await.json();
    for path in ["/api/v1", "/apis/apps/v1", "/healthz", "/metrics", "/openapi/v2"] {
        assert!(paths["paths"].as_array().expect("paths").contains(&path.into()), "{path}");
    }
    assert_eq!(admin.get("/apis/apps/v1").await.json()["kind"], "APIResourceList");
    let aggregated = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let groups = admin.send("GET", "/apis", &aggregated, "").await;
    assert_eq!(groups.json()["kind"], "APIGroupDiscoveryList");
    let known = [aggregated[0], ("if-none-match", groups.header("etag"))];
    assert_eq!(admin.send("GET", "/apis", &known, "").await.code, 304);

    let index = admin.get("/openapi/v3").await.json();
    let apps = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a path").to_owned();
    let document = admin.get(&apps).await;
    assert!(document.header("cache-control").contains("immutable"), "{:?}", document.headers);
    assert!(document.json()["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let keys = admin.get("/openid/v1/jwks").await;
    assert_eq!(
        (keys.header("content-type"), keys.json()["keys"].as_array().map(Vec::len)),
        ("application/jwk-set+json", Some(1))
    );
    let issuer = admin.get("/.well-known/openid-configuration").await.json();
    assert_eq!(issuer["issuer"], Value::from("https://kubernetes.default.svc.cluster.local"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_rely_on_is_there_from_the_first_second() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(admin.get(&format!("/api/v1/namespaces/{namespace}")).await.code, 200, "{namespace}");
    }
    let service = admin.get("/api/v1/namespaces/default/services/kubernetes").await.json();
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
    let slices = admin.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.json();
    assert_eq!(slices["endpoints"][0]["addresses"][0], "192.0.2.1");
    let review = serde_json::json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": "system:serviceaccount:kube-system:deployment-controller",
        "resourceAttributes": {"verb": "create", "group": "apps", "resource": "replicasets", "namespace": "default"}}});
    let review = admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await.json();
    assert_eq!(review["status"]["allowed"], true, "{review}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_counts() {
    let server = Server::with(|config| config.numbers = Numbers::new(|text| text.push_str("others_total 1\n"))).await;
    let mut admin = server.client(Some("admin")).await;
    assert_eq!(admin.get("/api/v1/namespaces").await.code, 200);
    let numbers = admin.get("/metrics").await;
    let plain = "verb=\"LIST\",component=\"apiserver\",group=\"\",resource=\"namespaces\",scope=\"cluster\",subresource=\"\",version=\"v1\"";
    let labels = format!("{plain},dry_run=\"\"");
    for line in [
        format!("apiserver_request_total{{code=\"200\",{labels}}} 1"),
        format!("apiserver_request_duration_seconds_count{{{labels}}} 1"),
        format!("apiserver_response_sizes_count{{{plain}}} 1"),
        // This one.
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1".to_owned(),
        "apiserver_client_certificate_expiration_seconds_count 2".to_owned(),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245".to_owned(),
        "apiserver_flowcontrol_lower_limit_seats{priority_level=\"workload-low\"} 24".to_owned(),
        "others_total 1".to_owned(),
        "apiserver_watch_cache_initializations_total{group=\"\",resource=\"namespaces\"} 1".to_owned(),
        "apiserver_terminated_watchers_total{group=\"\",resource=\"namespaces\"} 0".to_owned(),
        "# TYPE apiserver_storage_objects gauge".to_owned(),
        "# TYPE process_resident_memory_bytes gauge".to_owned(),
    ] {
        assert!(numbers.text().lines().any(|found| found == line), "{line}\n{}", numbers.text());
    }
    // These two, and what the server asked of itself.
    let exempt = "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"} ";
    let dispatched = numbers.text().lines().find_map(|line| line.strip_prefix(exempt)).expect(exempt);
    assert!(dispatched.parse::<u64>().is_ok_and(|count| count >= 2), "{dispatched}");
    for start in [
        "kubernetes_build_info{",
        "etcd_request_duration_seconds_count{operation=\"create\",group=\"\",resource=\"namespaces\"}",
        // Those that every cluster has.
        "apiserver_watch_cache_events_received_total{group=\"\",resource=\"namespaces\"} 4",
        "apiserver_watch_cache_events_dispatched_total{group=\"\",resource=\"namespaces\"} 4",
        "apiserver_watch_cache_resource_version{group=\"\",resource=\"namespaces\"}",
        "apiserver_watch_cache_consistent_read_total{fallback=\"false\",group=\"\",resource=\"namespaces\",success=\"true\"}",
        "apiserver_watch_cache_read_wait_seconds_count{group=\"\",resource=\"namespaces\"}",
        "apiserver_cache_list_total{group=\"\",resource=\"namespaces\"}",
        "apiserver_cache_list_fetched_objects_total{group=\"\",resource=\"namespaces\"}",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",operation=\"CREATE\"",
    ] {
        assert!(numbers.text().contains(start), "{start}");
    }
}
