//! Versions that others answer for: a server of our own behind TLS, and a part of this process.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k3sd_apiserver::LocalApi;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::SingleCertAndKey;

use crate::support::{Client, LIMIT, Pki, Server};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The list of resources of a version.
fn resources(group_version: &str, name: &str, kind: &str) -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": [{
            "name": name, "singularName": "", "namespaced": false, "kind": kind, "verbs": ["get", "list"],
        }],
    })
}

/// Answers with what it was asked, to front proxies alone.
async fn told(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let header = |name: &str| {
        let all = request.headers().get_all(name).iter();
        all.map(|value| value.to_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let shown = json!({
        "method": request.method().as_str(), "path": path, "query": query, "user": header("x-remote-user"),
        "groups": header("x-remote-group"), "extra": header("x-remote-extra-example.com%2Fteam"),
        "authorization": header("authorization"), "impersonated": header("impersonate-user"),
    });
    let body = request.into_body().collect().await?.to_bytes();
    let mut answer = if path == "/apis/ext.example.com/v1" {
        resources("ext.example.com/v1", "things", "Thing")
    } else if path == "/openapi/v3" {
        let place = |version: &str| format!("/openapi/v3/apis/ext.example.com/{version}?hash=7");
        json!({ "paths": {
            "apis/ext.example.com/v1": { "serverRelativeURL": place("v1") },
            "api/v1": { "serverRelativeURL": "/openapi/v3/api/v1" },
        } })
    } else {
        shown
    };
    answer["body"] = String::from_utf8_lossy(&body).into();
    Ok(Response::builder()
        .header("content-type", "application/json")
        .header("x-own", "1")
        .body(Full::new(answer.to_string().into()))
        .expect("a response"))
}

/// A server with the certificate of `ext.default.svc`; returns its port.
async fn extension(pki: &Pki) -> u16 {
    pki.leaf_of("ext", "/CN=ext", "other-ca", "DNS:ext.default.svc");
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(pki.roots("front-ca"), provider.clone());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("an authority"))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pki.pair("ext").as_ref().clone())));
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let served = hyper::server::conn::http1::Builder::new();
                served.serve_connection(TokioIo::new(stream), service_fn(told)).await.ok();
            });
        }
    });
    port
}

/// A server that knows the front proxy's certificate, an administrator, and the port of the other server.
async fn start() -> (Server, Client, u16) {
    let pki = Pki::new();
    let port = extension(&pki).await;
    let certificate = Arc::new(SingleCertAndKey::from(pki.pair("proxy").as_ref().clone()));
    let server = Server::over(pki, |config| config.aggregation.certificate = Some(certificate)).await;
    let admin = server.client(Some("admin")).await;
    (server, admin, port)
}

/// An APIService that names the other server, believing this authority.
fn api_service(server: &Server, port: u16, authority: &str) -> Value {
    let bundle = std::fs::read(server.pki.path(&format!("{authority}.crt"))).expect("a certificate");
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": "v1.ext.example.com" },
        "spec": {
            "group": "ext.example.com", "version": "v1", "groupPriorityMinimum": 500, "versionPriority": 10,
            "service": { "namespace": "default", "name": "ext", "port": port },
            "caBundle": STANDARD.encode(bundle),
        },
    })
}

async fn make_service(admin: &mut Client) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "ext" },
        "spec": { "type": "ExternalName", "externalName": "localhost" },
    });
    let made = admin.post("/api/v1/namespaces/default/services", &service).await;
    assert_eq!(made.code, 201, "{made:?}");
}

/// Status and reason of an APIService's condition.
async fn condition(admin: &mut Client, name: &str) -> (String, String, String) {
    let found = admin.get(&format!("{SERVICES}/{name}")).await.json();
    let text = |field: &str| found["status"]["conditions"][0][field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

async fn wait_for(admin: &mut Client, name: &str, reason: &str) -> (String, String) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let (status, found, message) = condition(admin, name).await;
        if found == reason {
            return (status, message);
        }
        assert!(tokio::time::Instant::now() < deadline, "{name} becomes {reason}, not {found}: {message}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_answers_for_its_version() {
    let (server, mut admin, port) = start().await;
    let made = admin.post(SERVICES, &api_service(&server, port, "other-ca")).await;
    assert_eq!(made.code, 201, "{made:?}");
    let (status, message) = wait_for(&mut admin, "v1.ext.example.com", "ServiceNotFound").await;
    assert_eq!((status.as_str(), message.as_str()), ("False", "service/ext in \"default\" is not present"));
    let away = admin.get("/apis/ext.example.com/v1/things").await;
    assert_eq!((away.code, away.text()), (503, "service unavailable\n"));
    let discovery = admin.send("GET", "/apis", &[("accept", AGGREGATED)], "").await.json();
    let found =
        discovery["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "ext.example.com");
    assert_eq!(found.expect("it is listed")["versions"][0]["freshness"], "Stale");

    make_service(&mut admin).await;
    let (status, message) = wait_for(&mut admin, "v1.ext.example.com", "Passed").await;
    assert_eq!((status.as_str(), message.as_str()), ("True", "all checks passed"));
    let group = admin.get("/apis/ext.example.com").await.json();
    assert_eq!(group["preferredVersion"]["groupVersion"], "ext.example.com/v1");
    assert_eq!(admin.get("/apis/ext.example.com/v1").await.json()["resources"][0]["name"], "things");
    let discovery = admin.send("GET", "/apis", &[("accept", AGGREGATED)], "").await.json();
    let found =
        discovery["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "ext.example.com");
    let version = &found.expect("it is listed")["versions"][0];
    assert_eq!((&version["freshness"], &version["resources"][0]["resource"]), (&json!("Current"), &json!("things")));

    let index = admin.get("/openapi/v3").await.json();
    let place =
        index["paths"]["apis/ext.example.com/v1"]["serverRelativeURL"].as_str().expect("it is found").to_owned();
    assert_eq!(place, "/openapi/v3/apis/ext.example.com/v1?hash=7");
    assert!(
        index["paths"]["api/v1"]["serverRelativeURL"].as_str().is_some_and(|place| place.contains("hash=")),
        "ours"
    );
    let document = admin.get(&place).await.json();
    assert_eq!(
        (&document["path"], &document["query"]),
        (&json!("/openapi/v3/apis/ext.example.com/v1"), &json!("hash=7"))
    );
    assert!(admin.get("/").await.text().contains("/apis/ext.example.com/v1"));

    let mut bob = server.client(None).await;
    let token = ("authorization", "Bearer secret-token");
    let refused = bob.send("GET", "/apis/ext.example.com/v1/things", &[token], "").await;
    assert_eq!(refused.code, 403, "who may not here hears it here");
    let told = admin
        .send("POST", "/apis/ext.example.com/v1/things/a%20b?x=1&y=%20", &[("x-remote-user", "root")], "{\"a\":1}")
        .await;
    assert_eq!((told.code, told.header("x-own")), (200, "1"), "{told:?}");
    let told = told.json();
    assert_eq!(
        (&told["method"], &told["path"], &told["query"], &told["body"]),
        (&json!("POST"), &json!("/apis/ext.example.com/v1/things/a%20b"), &json!("x=1&y=%20"), &json!("{\"a\":1}"))
    );
    assert_eq!(told["user"], json!(["admin"]));
    assert_eq!(told["groups"], json!(["system:masters", "system:authenticated"]));
    let as_ann = [
        ("impersonate-user", "ann"),
        ("impersonate-group", "system:masters"),
        ("impersonate-extra-example.com%2Fteam", "a"),
    ];
    let told = admin.send("GET", "/apis/ext.example.com/v1/things", &as_ann, "").await.json();
    assert_eq!((&told["user"], &told["extra"]), (&json!(["ann"]), &json!(["a"])));
    assert_eq!((&told["authorization"], &told["impersonated"]), (&json!([]), &json!([])));

    let gone = admin.send("DELETE", "/api/v1/namespaces/default/services/ext", &[], "").await;
    assert_eq!(gone.code, 200);
    wait_for(&mut admin, "v1.ext.example.com", "ServiceNotFound").await;
    assert_eq!(admin.get("/apis/ext.example.com/v1/things").await.code, 503);
    admin.send("DELETE", &format!("{SERVICES}/v1.ext.example.com"), &[], "").await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while admin.get("/apis/ext.example.com/v1/things").await.code != 404 {
        assert!(tokio::time::Instant::now() < deadline, "nobody answers any more");
    }
    assert_eq!(admin.get("/apis/ext.example.com").await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_believed_whom_the_bundle_does_not_name() {
    let (server, mut admin, port) = start().await;
    make_service(&mut admin).await;
    let mut service = api_service(&server, port, "ca");
    let made = admin.post(SERVICES, &service).await;
    assert_eq!(made.code, 201, "{made:?}");
    let (status, message) = wait_for(&mut admin, "v1.ext.example.com", "FailedDiscoveryCheck").await;
    let start = format!("failing or missing response from https://localhost:{port}/apis/ext.example.com/v1: ");
    assert!(status == "False" && message.starts_with(&start), "{message}");
    assert_eq!(admin.get("/apis/ext.example.com/v1").await.code, 503);

    service["spec"]["insecureSkipTLSVerify"] = true.into();
    service["spec"]["caBundle"] = Value::Null;
    service["metadata"]["resourceVersion"] =
        admin.get(&format!("{SERVICES}/v1.ext.example.com")).await.json()["metadata"]["resourceVersion"].clone();
    let path = format!("{SERVICES}/v1.ext.example.com");
    let changed = admin.send("PUT", &path, &[], &service.to_string()).await;
    assert_eq!(changed.code, 200, "{changed:?}");
    wait_for(&mut admin, "v1.ext.example.com", "Passed").await;
    assert_eq!(admin.get("/apis/ext.example.com/v1/things").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_process_answers_until_a_service_is_named() {
    let local = LocalApi::new("metrics.k8s.io", "v1beta1", (100, 100), |request: Request<Bytes>| {
        Box::pin(async move {
            let body = match request.uri().path() {
                "/apis/metrics.k8s.io/v1beta1" => resources("metrics.k8s.io/v1beta1", "nodes", "NodeMetrics"),
                path => json!({ "kind": "NodeMetricsList", "asked": path }),
            };
            Response::builder().header("content-type", "application/json").body(body.to_string().into()).expect("one")
        })
    });
    let server = Server::with(|config| config.aggregation.locals.push(local)).await;
    let mut admin = server.client(Some("admin")).await;
    let groups = admin.get("/apis").await.json();
    let last = groups["groups"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["preferredVersion"]["groupVersion"], "metrics.k8s.io/v1beta1");
    assert_eq!(admin.get("/apis/metrics.k8s.io/v1beta1").await.json()["resources"][0]["kind"], "NodeMetrics");
    let nodes = admin.get("/apis/metrics.k8s.io/v1beta1/nodes").await;
    assert_eq!((nodes.code, &nodes.json()["asked"]), (200, &json!("/apis/metrics.k8s.io/v1beta1/nodes")));
    assert_eq!(admin.get("/apis/metrics.k8s.io/v1beta1/nodes?watch=1").await.code, 405);
    let mut ann = server.client(Some("ann")).await;
    assert_eq!(ann.get("/apis/metrics.k8s.io/v1beta1/nodes").await.code, 403);

    let object = |service: Value| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": "v1beta1.metrics.k8s.io" },
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": service,
            },
        })
    };
    let made = admin.post(SERVICES, &object(Value::Null)).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(condition(&mut admin, "v1beta1.metrics.k8s.io").await.1, "Local");
    assert_eq!(admin.get("/apis/metrics.k8s.io/v1beta1/nodes").await.code, 200);
    admin.send("DELETE", &format!("{SERVICES}/v1beta1.metrics.k8s.io"), &[], "").await;
    let made = admin.post(SERVICES, &object(json!({ "namespace": "kube-system", "name": "metrics-server" }))).await;
    assert_eq!(made.code, 201, "{made:?}");
    wait_for(&mut admin, "v1beta1.metrics.k8s.io", "ServiceNotFound").await;
    assert_eq!(admin.get("/apis/metrics.k8s.io/v1beta1/nodes").await.code, 503);
    admin.send("DELETE", &format!("{SERVICES}/v1beta1.metrics.k8s.io"), &[], "").await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while admin.get("/apis/metrics.k8s.io/v1beta1/nodes").await.code != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the part of this process answers again");
    }
}

async fn names(admin: &mut Client) -> Vec<String> {
    let list = admin.get(SERVICES).await.json();
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_has_its_object() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    let groups = admin.get("/apis").await.json();
    let mut wanted: Vec<String> = vec!["v1.".to_owned()];
    for group in groups["groups"].as_array().unwrap().iter().filter(|group| group["name"] != "apiregistration.k8s.io") {
        for version in group["versions"].as_array().unwrap() {
            wanted.push(format!("{}.{}", version["version"].as_str().unwrap(), group["name"].as_str().unwrap()));
        }
    }
    wanted.sort();
    while names(&mut admin).await != wanted {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", names(&mut admin).await);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(condition(&mut admin, "v2.autoscaling").await.1, "Local");
    let found = admin.get(&format!("{SERVICES}/v2.autoscaling")).await.json();
    assert_eq!(
        (&found["spec"], &found["metadata"]["labels"]),
        (
            &json!({ "group": "autoscaling", "version": "v2", "groupPriorityMinimum": 17_500, "versionPriority": 30 }),
            &json!({ "kube-aggregator.kubernetes.io/automanaged": "onstart" })
        )
    );

    // What a definition declares has one for as long as the definition is there.
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "crons.stable.example.com" },
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": { "plural": "crons", "kind": "Cron" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } },
            }],
        },
    });
    let made = admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    assert_eq!(made.code, 201, "{made:?}");
    let name = "v1.stable.example.com".to_owned();
    while !names(&mut admin).await.contains(&name) {
        assert!(tokio::time::Instant::now() < deadline, "it is registered");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crons.stable.example.com";
    assert_eq!(admin.send("DELETE", path, &[], "").await.code, 200);
    while names(&mut admin).await.contains(&name) {
        assert!(tokio::time::Instant::now() < deadline, "it goes with its definition");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
