use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::core::{is_mirrored, plan};

fn endpoints(subsets: Value) -> Endpoints {
    serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "a", "uid": "e1", "labels": {"team": "x"},
        "annotations": {"note": "n", "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}}, "subsets": subsets}))
    .expect("Endpoints")
}

/// Carries a plan out, checks that there is nothing left to do, and says how much was written.
fn settle(endpoints: &Endpoints, mirrors: &mut Vec<Arc<EndpointSlice>>) -> [usize; 3] {
    let plan_now = plan(Some(endpoints), mirrors.clone());
    let counts = [plan_now.create.len(), plan_now.update.len(), plan_now.delete.len()];
    let name = |slice: &EndpointSlice| slice.metadata.name.clone();
    mirrors.retain(|known| !plan_now.delete.iter().any(|gone| name(gone) == name(known)));
    for slice in plan_now.update {
        let known = mirrors.iter_mut().find(|known| name(known) == name(&slice)).expect("it is there");
        *known = Arc::new(slice);
    }
    for mut slice in plan_now.create {
        slice.metadata.name = Some(format!("db-{}", mirrors.len()));
        mirrors.push(Arc::new(slice));
    }
    let again = plan(Some(endpoints), mirrors.clone());
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
    counts
}

#[test]
fn a_subset_becomes_a_slice_per_family() {
    let subsets = json!([{"addresses": [{"ip": "10.0.0.1", "hostname": "one"}, {"ip": "fd00::1"}, {"ip": "10.0.0.1", "hostname": "one"}],
        "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "sql", "port": 5432}]}]);
    let wanted = endpoints(subsets);
    let mut mirrors = Vec::new();
    assert_eq!(settle(&wanted, &mut mirrors), [2, 0, 0]);
    let four = mirrors.iter().find(|slice| slice.address_type == "IPv4").expect("a slice");
    let ready: Vec<_> =
        four.endpoints.iter().map(|endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready)).collect();
    assert_eq!(ready, [Some(true), Some(false)]);
    assert_eq!(four.ports.as_ref().expect("ports")[0].port, Some(5432));
    assert_eq!(serde_json::to_value(&four.metadata.annotations).expect("annotations"), json!({"note": "n"}));
    assert_eq!(
        serde_json::to_value(&four.metadata.labels).expect("labels"),
        json!({"team": "x", "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
    );

    let moved = endpoints(json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "sql", "port": 5433}]}]));
    assert_eq!(settle(&moved, &mut mirrors), [0, 1, 1], "the slice of the old port is used again");
    assert_eq!(plan(None, mirrors.clone()).delete.len(), 1);
}

#[test]
fn what_is_not_mirrored_is_counted() {
    let many: Vec<_> = (0..1003).map(|at| json!({"ip": format!("10.0.{}.{}", at / 250, at % 250)})).collect();
    let plan_now =
        plan(Some(&endpoints(json!([{"addresses": many}, {"addresses": [{"ip": "nonsense"}]}]))), Vec::new());
    assert_eq!((plan_now.invalid, plan_now.skipped), (1, 4));
    assert_eq!(plan_now.create[0].endpoints.len(), 1000);
}

#[test]
fn only_what_somebody_wrote_for_a_service_without_selector_is_mirrored() {
    let service = |selector: Value| -> Service {
        serde_json::from_value(json!({"spec": {"selector": selector}})).expect("a Service")
    };
    let plain = endpoints(json!([]));
    let mut skipped = plain.clone();
    skipped
        .metadata
        .labels
        .get_or_insert_default()
        .insert("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned());
    let mut lock = plain.clone();
    lock.metadata
        .annotations
        .get_or_insert_default()
        .insert("control-plane.alpha.kubernetes.io/leader".to_owned(), "{}".to_owned());
    let without = service(json!(null));
    assert!(is_mirrored(&plain, Some(&without)));
    assert!(!is_mirrored(&plain, Some(&service(json!({"app": "web"})))));
    assert!(!is_mirrored(&plain, None));
    assert!(!is_mirrored(&skipped, Some(&without)));
    assert!(!is_mirrored(&lock, Some(&without)));
}
