//! The recorder of Events over the API server: what people read in the end.

use std::time::Duration;

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::events::{Recorder, recorder, reference};
use k3sd_runtime::{Clock, Signal};
use k8s_openapi::api::core::v1::{Event, Namespace, Node};
use k8s_openapi::api::events::v1;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};

const SECOND: Duration = Duration::from_secs(1);

async fn start(seed: u64) -> (Cluster, Recorder) {
    let plane = Plane::new(Clock::simulated(seed));
    let (child, recorder) = recorder("recorder", plane.identities().service_account("kube-system", "node-controller"));
    let recorder = recorder.component("node-controller");
    (plane.start(vec![child]).await, recorder)
}

async fn events(cluster: &Cluster, namespace: &str) -> Vec<Event> {
    let all: Api<Event> = Api::namespaced(cluster.admin(), namespace);
    all.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
}

async fn namespace(cluster: &Cluster, name: &str) -> Namespace {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let all: Api<Namespace> = Api::all(cluster.admin());
    all.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await.expect("it may")
}

fn node(name: &str) -> Node {
    Node { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Node::default() }
}

#[tokio::test(start_paused = true)]
async fn the_same_event_is_one_object_that_counts() {
    let (cluster, recorder) = start(1).await;
    let node = node("n1");
    for _ in 0..5 {
        recorder.normal(&node, "RegisteredNode", "Node n1 event: Registered Node n1 in Controller");
        cluster.pass(SECOND).await;
    }
    recorder.warning(&node, "NodeNotReady", "Node is not ready");
    cluster.wait_until("both are there", async || events(&cluster, "default").await.len() == 2).await;
    let mut all = events(&cluster, "default").await;
    all.sort_by_key(|event| event.reason.clone());
    let [warning, registered] = all.as_slice() else { panic!("two") };
    assert_eq!((registered.count, registered.type_.as_deref()), (Some(5), Some("Normal")));
    let (first, last) = (registered.first_timestamp.clone(), registered.last_timestamp.clone());
    assert_eq!(last.expect("set").0.as_second() - first.expect("set").0.as_second(), 4);
    assert!(registered.name_any().starts_with("n1."));
    assert_eq!((warning.count, warning.type_.as_deref()), (Some(1), Some("Warning")));
    let source = warning.source.clone().expect("set");
    assert_eq!((source.component.as_deref(), source.host), (Some("node-controller"), None));
    assert_eq!(warning.reporting_component.as_deref(), Some("node-controller"));
    assert_eq!(warning.involved_object.kind.as_deref(), Some("Node"));

    // The object that counted is gone: the next begins again, with the count so far, as upstream's does.
    let api: Api<Event> = Api::namespaced(cluster.admin(), "default");
    api.delete(&registered.name_any(), &DeleteParams::default()).await.expect("it is there");
    recorder.normal(&node, "RegisteredNode", "Node n1 event: Registered Node n1 in Controller");
    let is_back = async || {
        let found = api.get_opt(&registered.name_any()).await;
        found.is_ok_and(|found| found.is_some_and(|event| event.count == Some(6)))
    };
    cluster.wait_until("it is made again", is_back).await;
}

#[tokio::test(start_paused = true)]
async fn events_wait_while_the_api_is_away_and_what_is_too_many_is_lost() {
    let (cluster, recorder) = start(2).await;
    cluster.storage.set_open(false);
    for number in 0..3000 {
        recorder.normal(&node(&format!("n{number}")), "Starting", "Starting kubelet.");
        if number % 100 == 0 {
            cluster.pass(Duration::from_millis(1)).await;
        }
    }
    cluster.pass(30 * SECOND).await;
    assert!(recorder.lost() >= 1000, "{}", recorder.lost());
    cluster.storage.set_open(true);
    let written = 3000 - usize::try_from(recorder.lost()).expect("not so many");
    cluster.pass(30 * SECOND).await;
    assert_eq!(events(&cluster, "default").await.len(), written);
}

#[tokio::test(start_paused = true)]
async fn what_the_api_refuses_holds_up_nothing() {
    let (cluster, recorder) = start(3).await;
    let (here, gone) = (namespace(&cluster, "here").await, namespace(&cluster, "gone").await);
    let namespaces: Api<Namespace> = Api::all(cluster.admin());
    namespaces.delete("gone", &DeleteParams::default()).await.expect("it is there");
    let mut in_gone = reference(&gone);
    in_gone.namespace = Some("gone".to_owned());
    let mut in_here = reference(&here);
    in_here.namespace = Some("here".to_owned());
    let mut nowhere = in_here.clone();
    nowhere.namespace = Some("never-was".to_owned());
    recorder.about(in_gone, "Normal", "Lost", "refused");
    recorder.about(nowhere, "Normal", "Lost", "refused");
    recorder.about(in_here, "Normal", "Kept", "x".repeat(5000));
    cluster.wait_within(5 * SECOND, "it is there", async || events(&cluster, "here").await.len() == 1).await;
    assert_eq!(events(&cluster, "here").await[0].message.as_ref().expect("set").len(), 1024);
}

#[tokio::test(start_paused = true)]
async fn actions_count_in_series() {
    let (cluster, recorder) = start(4).await;
    let recorder = recorder.component("default-scheduler").host("server");
    let about = reference(&node("n1"));
    let failed = ("Warning", "FailedScheduling");
    for number in 0..7 {
        recorder.action(about.clone(), None, failed, "Scheduling", format!("0/{number} nodes are available"));
        cluster.pass(SECOND).await;
    }
    let api: Api<v1::Event> = Api::namespaced(cluster.admin(), "default");
    let list = async || api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    cluster.wait_until("it is there", async || list().await.len() == 1).await;
    let event = list().await.remove(0);
    assert_eq!(event.note.as_deref(), Some("0/0 nodes are available"));
    assert_eq!(event.reporting_controller.as_deref(), Some("default-scheduler"));
    assert_eq!(event.reporting_instance.as_deref(), Some("default-scheduler-server"));
    assert_eq!(event.action.as_deref(), Some("Scheduling"));
    assert_eq!(event.series.map(|series| series.count), Some(2), "written with the second");
    let finished = async || list().await.first().and_then(|event| event.series.clone()).is_some_and(|s| s.count == 7);
    cluster.wait_within(800 * SECOND, "the series is over and written", finished).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_recorder_loses_no_more_than_it_was_writing() {
    let (cluster, recorder) = start(5).await;
    recorder.normal(&node("n0"), "Starting", "before");
    cluster.wait_until("it is there", async || events(&cluster, "default").await.len() == 1).await;
    assert!(cluster.system().signal("loops/recorder", Signal::Kill), "it is there");
    for number in 1..=20 {
        recorder.normal(&node(&format!("n{number}")), "Starting", "after");
    }
    cluster.wait_until("all are there", async || events(&cluster, "default").await.len() == 21).await;
    assert_eq!(recorder.lost(), 0);
}
