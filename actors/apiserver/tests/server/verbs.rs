//! Requests over the wire: methods, bodies, media types, sizes, watches.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::support::{Events, Server, config_map, namespace};

const MAPS: &str = "/api/v1/namespaces/a/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_lives_over_both_protocols() {
    let server = Server::start().await;
    namespace(&mut server.client(Some("admin")).await, "a").await;
    for mut client in [server.client(Some("admin")).await, server.old_client(Some("admin")).await] {
        let made = client.post(MAPS, &config_map("m", "one")).await;
        assert_eq!(made.code, 201, "{made:?}");
        assert_eq!(made.header("content-type"), "application/json");
        assert_eq!(made.header("cache-control"), "no-cache, private");
        assert_eq!(made.header("audit-id").len(), 36);
        assert_eq!(client.post(MAPS, &config_map("m", "one")).await.code, 409);
        let mut object = client.get(&format!("{MAPS}/m")).await.json();
        object["data"]["text"] = "two".into();
        let put = client.send("PUT", &format!("{MAPS}/m"), &[], &object.to_string()).await;
        assert_eq!((put.code, &put.json()["data"]["text"]), (200, &Value::from("two")));
        let patch = [("content-type", "application/merge-patch+json"), ("audit-id", "mine")];
        let patched = client.send("PATCH", &format!("{MAPS}/m"), &patch, r#"{"data":{"text":"three"}}"#).await;
        assert_eq!((patched.code, patched.header("audit-id")), (200, "mine"));
        let yaml = client.send("GET", &format!("{MAPS}/m"), &[("accept", "application/yaml")], "").await;
        assert!(yaml.text().contains("text: three"), "{}", yaml.text());
        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
        let table = client.send("GET", MAPS, &table, "").await.json();
        assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&"Table".into(), &"m".into()));
        let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
        let protobuf = client.send("GET", &format!("{MAPS}/m"), &protobuf, "").await;
        assert!(protobuf.body.starts_with(b"k8s\0"));
        assert_eq!(client.send("DELETE", &format!("{MAPS}/m"), &[], "").await.json()["status"], "Success");
        assert_eq!(client.get(&format!("{MAPS}/m")).await.code, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    namespace(&mut admin, "a").await;
    let large = config_map("large", &"x".repeat(4 << 20)).to_string();
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let cases: [Case<'_>; 10] = [
        ("GET", "/api/v1/nothing", &[], "", 404),
        ("GET", "/nothing", &[], "", 404),
        ("GET", "/api/v1/%zz", &[], "", 400),
        ("OPTIONS", MAPS, &[], "", 405),
        ("PATCH", MAPS, &[("content-type", "application/merge-patch+json")], "{}", 405),
        ("GET", MAPS, &[("accept", "text/html")], "", 406),
        ("POST", MAPS, &[("content-type", "text/html")], "{}", 415),
        ("POST", MAPS, &[], "{", 400),
        ("POST", MAPS, &[], &large, 413),
        ("POST", "/version", &[], "{}", 405),
    ];
    for (method, path, headers, body, code) in cases {
        let answer = admin.send(method, path, headers, body).await;
        assert_eq!(answer.code, code, "{method} {path} {headers:?}: {answer:?}");
    }
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w"}, "wrong": 1});
    let warned = admin.post(MAPS, &unknown).await;
    assert_eq!((warned.code, warned.header("warning")), (201, r#"299 - "unknown field \"wrong\"""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_come_whole_and_compressed_for_those_who_ask() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    namespace(&mut admin, "a").await;
    for number in 0..300 {
        assert_eq!(admin.post(MAPS, &config_map(&format!("m{number}"), &"y".repeat(1000))).await.code, 201);
    }
    for mut client in [server.client(Some("admin")).await, server.old_client(Some("admin")).await] {
        let plain = client.get(MAPS).await;
        assert_eq!(plain.json()["items"].as_array().expect("items").len(), 300);
        let zipped = client.send("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
        assert_eq!(zipped.header("content-encoding"), "gzip");
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&*zipped.body).read_to_end(&mut read).expect("gzip");
        assert!(zipped.body.len() * 5 < read.len() && read == plain.body);
        let page = client.get(&format!("{MAPS}?limit=7")).await.json();
        assert_eq!(page["items"].as_array().expect("items").len(), 7);
        assert_eq!(page["metadata"]["remainingItemCount"], 293);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_watched_as_they_happen() {
    let server = Server::start().await;
    let mut admin = server.client(Some("admin")).await;
    namespace(&mut admin, "a").await;
    for mut client in [server.client(Some("admin")).await, server.old_client(Some("admin")).await] {
        admin.post(MAPS, &config_map("before", "one")).await;
        let version =
            admin.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
        let path = format!("{MAPS}?watch=1&resourceVersion={version}");
        let mut events = Events::new(client.begin("GET", &path, &[], "").await);
        admin.post(MAPS, &config_map("m", "one")).await;
        let added = events.next().await.expect("an event");
        assert_eq!((&added["type"], &added["object"]["metadata"]["name"]), (&"ADDED".into(), &"m".into()));
        admin.send("DELETE", &format!("{MAPS}/m"), &[], "").await;
        assert_eq!(events.next().await.expect("an event")["type"], "DELETED");
    }
    // A watch ends when its time is over, and tells the state first if nobody says where it begins.
    let mut watcher = server.client(Some("admin")).await;
    let mut events = Events::new(watcher.begin("GET", &format!("{MAPS}?watch=true&timeoutSeconds=1"), &[], "").await);
    assert_eq!(events.next().await.expect("an event")["object"]["metadata"]["name"], "before");
    assert_eq!(events.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_process_takes_the_same_way() {
    use http_body_util::{BodyExt as _, Full};
    use k3sd_apiserver::User;
    use tower_service::Service as _;

    let server = Server::start().await;
    let send = async |user: User, method: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(Full::new(bytes::Bytes::from(body))).expect("a request");
        let Ok(answer) = server.pipeline.local(user).call(request).await;
        let code = answer.status().as_u16();
        (code, answer.into_body().collect().await.expect("a body").to_bytes())
    };
    let ask = async |user: User, path: &str| send(user, "GET", path, Value::Null).await;
    let (code, body) = ask(User::new("system:apiserver", &["system:masters"]), "/api/v1/namespaces").await;
    assert_eq!((code, &serde_json::from_slice::<Value>(&body).expect("JSON")["kind"]), (200, &"NamespaceList".into()));
    let (code, _) = ask(User::new("system:kube-scheduler", &[]), "/api/v1/nodes").await;
    assert_eq!(code, 200, "the role that it has in every cluster");
    let (code, body) = ask(User::new("system:kube-scheduler", &[]), "/api/v1/secrets").await;
    assert_eq!(code, 403, "its rights are looked at like everybody's");
    assert!(String::from_utf8_lossy(&body).contains("system:kube-scheduler"));
    // Whoever may do everything still passes by those who look at what is written.
    let master = || User::new("system:apiserver", &["system:masters"]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "nobody", "containers": [{"name": "c", "image": "i"}]}});
    for (namespace, code, why) in [
        ("missing", 404, "namespaces \"missing\" not found"),
        ("default", 403, "error looking up service account default/nobody: serviceaccount \"nobody\" not found"),
    ] {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let (answered, body) = send(master(), "POST", &path, pod.clone()).await;
        let body = String::from_utf8_lossy(&body).replace("\\\"", "\"");
        assert!(answered == code && body.contains(why), "{answered} {body}");
    }
    let nameless = ask(User::new("", &[]), "/api/v1/namespaces").await;
    assert_eq!(nameless.0, 403, "without a name nobody may do anything");
}
