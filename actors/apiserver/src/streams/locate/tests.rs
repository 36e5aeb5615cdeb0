//! Tables of where requests go.

use serde_json::json;

use super::*;

fn told<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (u16, String) {
    let status = outcome.expect_err("it is refused");
    (status.http_code(), status.message)
}

#[test]
fn a_container_is_named_or_the_only_one() {
    let pod = |containers: Value, init: Value| json!({ "metadata": { "name": "p" }, "spec": { "containers": containers, "initContainers": init } });
    let one = pod(json!([{ "name": "a" }]), json!([{ "name": "i" }]));
    let two = pod(json!([{ "name": "a" }, { "name": "b" }]), json!([]));
    let three = pod(json!([{ "name": "a" }, { "name": "b" }]), json!([{ "name": "i" }]));
    assert_eq!(container(&one, "").as_deref().ok(), Some("a"));
    assert_eq!(container(&one, "i").as_deref().ok(), Some("i"));
    assert_eq!(told(container(&one, "x")), (400, "container x is not valid for pod p".to_owned()));
    let unnamed = "a container name must be specified for pod p, choose one of: [a b]";
    assert_eq!(told(container(&two, "")), (400, unnamed.to_owned()));
    assert_eq!(told(container(&three, "")), (400, format!("{unnamed} or one of the init containers: [i]")));
}

#[test]
fn kubelets_are_where_their_nodes_say() {
    let node = |addresses: Value, port: Value| json!({ "metadata": { "name": "n" }, "status": { "addresses": addresses, "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } } });
    let address = |kind: &str, address: &str| json!({ "type": kind, "address": address });
    let found = kubelet(&node(json!([address("Hostname", "n"), address("InternalIP", "fd00::1")]), json!(10260)));
    let target = Target { host: "fd00::1".to_owned(), port: 10260, kubelet_of: Some("n".to_owned()) };
    assert_eq!(found.as_ref().ok(), Some(&target));
    assert_eq!(target.authority(), "[fd00::1]:10260");
    let plain = kubelet(&node(json!([address("Hostname", "n")]), Value::Null)).expect("by name");
    assert_eq!(plain.authority(), "n:10250");
    assert_eq!(told(kubelet(&node(json!([]), Value::Null))).0, 500);
}

#[test]
fn queries_are_told_as_kubelets_read_them() {
    let query =
        Query::parse("command=sh&command=-c&command=echo+%26&stdin=true&stdout=1&stderr=false&tty=true&container=c");
    assert_eq!(exec_query(&query), "input=1&output=1&tty=1&command=sh&command=-c&command=echo%20%26");
    assert_eq!(ports_query(&Query::parse("ports=80&ports=443,1")), "port=80%2C443%2C1");
    assert_eq!(ports_query(&Query::parse("")), "");
    let log = |query: &str| log_query(&Query::parse(query), "p");
    assert_eq!(
        log("follow=true&previous=false&tailLines=5&sinceTime=2030-01-01T00:00:00Z&container=c").ok().as_deref(),
        Some("follow=true&tailLines=5&sinceTime=2030-01-01T00%3A00%3A00Z")
    );
    for (query, code, words) in [
        ("tailLines=a", 400, "strconv.ParseInt: parsing \"a\": invalid syntax"),
        ("sinceSeconds=0", 422, "sinceSeconds: Invalid value: 0: must be greater than 0"),
        ("tailLines=-1", 422, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("sinceSeconds=1&sinceTime=2030-01-01T00:00:00Z", 422, "at most one of"),
        ("stream=x", 422, "stream: Unsupported value: \"x\""),
        ("stream=Stdout&tailLines=1", 422, "mutually exclusive"),
        ("sinceTime=x", 400, "parsing time \"x\""),
    ] {
        let (found, message) = told(log(query));
        assert!(found == code && message.contains(words), "{query}: {found} {message}");
    }
}

#[test]
fn names_have_schemes_and_ports() {
    let read = |text| named(text, "pod").ok();
    assert_eq!(read("p"), Some(Named { https: false, name: "p", port: "" }));
    assert_eq!(read("p:web"), Some(Named { https: false, name: "p", port: "web" }));
    assert_eq!(read("https:p:443"), Some(Named { https: true, name: "p", port: "443" }));
    assert_eq!(read("https:p:"), Some(Named { https: true, name: "p", port: "" }));
    for text in ["", "ftp:p:1", "a:b:c:d", ":80"] {
        assert_eq!(told(named(text, "pod")), (400, format!("invalid pod request {}", quote(text))));
    }
}

#[test]
fn pods_are_reached_at_their_address_only() {
    let at = |address: &str| {
        json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b", "ports": [{ "containerPort": 8080 }] }] },
            "status": { "podIP": address } })
    };
    let found = |address: &str, name| pod(&at(address), named(name, "pod").unwrap());
    let (target, security) = found("10.42.0.5", "p").expect("it has one");
    assert_eq!((target.authority().as_str(), security), ("10.42.0.5:8080", Security::None));
    let (target, security) = found("fd00::5", "https:p:443").expect("it has one");
    assert_eq!((target.authority().as_str(), security), ("[fd00::5]:443", Security::Anybody));
    for address in ["", "127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0"] {
        assert_eq!(told(found(address, "p")), (400, "address not allowed".to_owned()), "{address}");
    }
    assert_eq!(told(found("10.42.0.5", "p:x")).0, 400);
}

#[test]
fn services_are_reached_at_an_endpoint_that_is_ready() {
    let object = json!({ "spec": { "ports": [{ "name": "web", "port": 80 }] } });
    let slice = json!({
        "ports": [{ "name": "web", "port": 8080 }],
        "endpoints": [
            { "addresses": ["10.42.0.5"], "conditions": { "ready": true } },
            { "addresses": ["10.42.0.6"], "conditions": { "ready": false } },
            { "addresses": ["10.42.0.7"] },
            { "addresses": ["127.0.0.1"] },
        ],
    });
    let found = |name, random| {
        let slices = [json!({ "ports": [] }), slice.clone()];
        service(&object, &slices, named(name, "service").unwrap(), random).map(|(target, _)| target.authority())
    };
    assert_eq!(found("s:web", 0).ok().as_deref(), Some("10.42.0.5:8080"));
    assert_eq!(found("s:80", 1).ok().as_deref(), Some("10.42.0.7:8080"));
    assert_eq!(found("s:web", 2).ok().as_deref(), Some("10.42.0.5:8080"));
    assert_eq!(told(found("s:81", 0)), (503, "no service port 81 found for service \"s\"".to_owned()));
    assert_eq!(told(found("s:x", 0)), (503, "no endpoints available for service \"s\"".to_owned()));
}
