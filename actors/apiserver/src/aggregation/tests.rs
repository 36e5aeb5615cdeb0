//! What is decided about APIServices, by tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_apiserver_access::User;
use k3sd_apiserver_store::Catalog;
use serde_json::{Value, json};

use super::LocalApi;
use super::conditions::{Verdict, is_available, look, with_verdict};
use super::proxy::{escaped, identify};
use super::register::{Found, Step, Wanted, decide, wanted};
use super::table::{Backend, Route, Table, Told, backend, elsewhere};

fn object(service: Value) -> Value {
    json!({
        "metadata": { "name": "v1.e", "uid": "u" },
        "spec": { "group": "e", "version": "v1", "groupPriorityMinimum": 5, "versionPriority": 6, "service": service },
    })
}

fn backend_of_tests() -> Backend {
    Backend { namespace: "n".to_owned(), name: "s".to_owned(), port: 443 }
}

#[test]
fn a_service_without_a_port_is_asked_at_443() {
    assert_eq!(backend(&object(json!({ "namespace": "n", "name": "s" }))), Some(backend_of_tests()));
    let other = backend(&object(json!({ "namespace": "n", "name": "s", "port": 8443 })));
    assert_eq!(other, Some(Backend { port: 8443, ..backend_of_tests() }));
    assert_eq!(backend(&object(Value::Null)), None);
    // Nothing would work without core.
    let mut core = object(json!({ "namespace": "n", "name": "s" }));
    core["spec"]["group"] = json!("");
    assert!(elsewhere(&core, Err("none".into())).is_none());
}

#[test]
fn what_speaks_against_a_service_is_told_as_upstream_tells_it() {
    let service =
        |kind: &str, port: u16| json!({ "spec": { "type": kind, "ports": [{ "name": "https", "port": port }] } });
    let slice = |name: &str, ready: Value| json!({ "ports": [{ "name": name, "port": 4443 }], "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }] });
    let told = |service: Option<Value>, slices: &[Value]| {
        look(&backend_of_tests(), service.as_ref(), slices).map(|verdict| (verdict.reason, verdict.message))
    };
    let cases = [
        (None, vec![], Some(("ServiceNotFound", "service/s in \"n\" is not present"))),
        (
            Some(service("ClusterIP", 80)),
            vec![],
            Some(("ServicePortError", "service/s in \"n\" is not listening on port 443")),
        ),
        (
            Some(service("ClusterIP", 443)),
            vec![],
            Some(("EndpointsNotFound", "cannot find endpointslices for service/s in \"n\"")),
        ),
        (
            Some(service("ClusterIP", 443)),
            vec![slice("https", json!(false)), slice("http", json!(true))],
            Some(("MissingEndpoints", "endpoints for service/s in \"n\" have no addresses with port name \"https\"")),
        ),
        (Some(service("ClusterIP", 443)), vec![slice("https", json!(true))], None),
        (Some(service("ClusterIP", 443)), vec![slice("https", Value::Null)], None),
        (Some(service("ExternalName", 80)), vec![], None),
    ];
    for (service, slices, wanted) in cases {
        let wanted = wanted.map(|(reason, message)| (reason, message.to_owned()));
        assert_eq!(told(service.clone(), &slices), wanted, "{service:?} {slices:?}");
    }
}

#[test]
fn a_condition_changes_its_time_with_its_status_only() {
    let object = object(json!({}));
    assert!(!is_available(&object));
    let first = with_verdict(&object, &Verdict::passed(), "2026-01-01T00:00:00Z").expect("it is new");
    assert!(is_available(&first));
    assert_eq!(with_verdict(&first, &Verdict::passed(), "2026-01-01T00:00:10Z"), None);
    let away = with_verdict(&first, &Verdict::undiscovered("a".into()), "2026-01-01T00:00:20Z").expect("it is other");
    assert!(!is_available(&away));
    assert_eq!(away["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:20Z");
    let still = with_verdict(&away, &Verdict::undiscovered("b".into()), "2026-01-01T00:00:30Z").expect("it says more");
    assert_eq!(still["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:20Z");
}

#[test]
fn paths_go_where_the_table_says() {
    let local = |group: &str| {
        LocalApi::new(group, "v1", (1, 2), |_| Box::pin(async { http::Response::new(bytes::Bytes::new()) }))
    };
    let taken = elsewhere(&object(json!({ "namespace": "n", "name": "s" })), Err("none".into())).expect("elsewhere");
    let told = Told { rows: Arc::new([json!({ "name": "things" })]), ..Told::default() };
    let told = BTreeMap::from([(("e".to_owned(), "v1".to_owned()), told)]);
    let table = Table::new(vec![Arc::new(taken)], &[local("e"), local("l")], &told);
    let route = |path: &str| match table.route(path) {
        Some(Route::Elsewhere(to)) => format!("service {}", to.backend.name),
        Some(Route::Local(local)) => format!("local {}", local.group),
        None => "here".to_owned(),
    };
    for (path, wanted) in [
        ("/apis/e/v1", "service s"),
        ("/apis/e/v1/", "service s"),
        ("/apis/e/v1/things/a", "service s"),
        ("/apis/l/v1/x", "local l"),
        ("/openapi/v3/apis/e/v1", "service s"),
        ("/openapi/v3/apis/l/v1", "here"),
        ("/openapi/v3", "here"),
        ("/apis/e/v2/things", "here"),
        ("/apis/e", "here"),
        ("/apis/e/", "here"),
        ("/api/v1/pods", "here"),
        ("/apis/apps/v1/deployments", "here"),
    ] {
        assert_eq!(route(path), wanted, "{path}");
    }
    let foreign: Vec<_> = table.foreign().iter().map(|one| (&*one.group, one.is_stale, one.resources.len())).collect();
    assert_eq!(foreign, [("e", false, 1), ("l", true, 0)]);
    assert!(Table::default().route("/apis/e/v1").is_none());
}

#[test]
fn what_is_compiled_in_is_wanted_once() {
    let all = wanted(&Catalog::builtin(|resource| resource.served));
    assert_eq!(all["v1."].priorities, (18_000, 1));
    assert!(!all.contains_key("v1.apiregistration.k8s.io") && all.len() > 20);
    assert!(all.values().all(|wanted| wanted.management == "onstart"));
}

#[test]
fn objects_are_looked_after_as_their_label_says() {
    let wanted = |management| Wanted { group: "e".into(), version: "v1".into(), priorities: (5, 6), management };
    let found = |label: &str, priority: i64| {
        let mut object = object(Value::Null);
        object["metadata"]["labels"] = json!({ "kube-aggregator.kubernetes.io/automanaged": label });
        object["spec"] =
            json!({ "group": "e", "version": "v1", "groupPriorityMinimum": priority, "versionPriority": 6 });
        Found::new(object)
    };
    let (always, once) = (wanted("true"), wanted("onstart"));
    let word = |step: Option<Step>| match step {
        None => "leave",
        Some(Step::Create(_)) => "create",
        Some(Step::Update(_)) => "update",
        Some(Step::Delete { .. }) => "delete",
    };
    // Found, wanted, whether it is old and was right once.
    let rows = [
        (None, None, (false, false), "leave"),
        (None, Some(&once), (false, false), "create"),
        (None, Some(&once), (true, true), "leave"),
        (None, Some(&always), (false, true), "create"),
        (Some(found("", 9)), Some(&always), (true, false), "leave"),
        (Some(found("onstart", 9)), Some(&once), (false, false), "leave"),
        (Some(found("onstart", 9)), Some(&once), (true, true), "leave"),
        (Some(found("onstart", 9)), Some(&once), (true, false), "update"),
        (Some(found("onstart", 9)), None, (true, false), "delete"),
        (Some(found("true", 9)), Some(&always), (false, true), "update"),
        (Some(found("true", 5)), Some(&always), (false, true), "leave"),
        (Some(found("true", 5)), None, (false, true), "delete"),
    ];
    for (row, (found, wanted, past, step)) in rows.iter().enumerate() {
        let (found, wanted): (&Option<Found>, &Option<&Wanted>) = (found, wanted);
        assert_eq!(word(decide("v1.e", found.as_ref(), *wanted, *past)), *step, "row {row}");
    }
}

#[test]
fn users_are_named_in_headers() {
    let mut user = User::new("ann", &["dev", "ops"]);
    user.uid = "7".to_owned();
    user.extra.insert("example.com/team%".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
    let mut headers = http::HeaderMap::new();
    identify(&mut headers, &user).expect("they can be written");
    let all = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect::<Vec<_>>();
    assert_eq!((all("x-remote-user"), all("x-remote-uid")), (vec!["ann"], vec!["7"]));
    assert_eq!(all("x-remote-group"), ["dev", "ops"]);
    assert_eq!(escaped("example.com/team%"), "example.com%2Fteam%25");
    assert_eq!(all("x-remote-extra-example.com%2fteam%25"), ["a", "b"]);
    identify(&mut headers, &User::new("a\nb", &[])).expect_err("it can't be written");
}
