//! Charts: the test stands in for those who run jobs, and for Helm.

use serde_json::{Value, json};

use super::world::{HASH, World, helm};

const CHART: &str = "helm.cattle.io/v1";
const KEY: &str = "kube-system/web";
const INSTALL: &str = "kube-system/helm-install-web";
const DELETE: &str = "kube-system/helm-delete-web";
const CONFIG_HASH: &str = "helmcharts.helm.cattle.io/configHash";

async fn start() -> World {
    let world = World::start(&[], |config| config.helm = Some(helm())).await;
    let definitions = ["helmcharts.helm.cattle.io", "helmchartconfigs.helm.cattle.io"];
    for name in definitions {
        let is_there = async || {
            let found = world.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name).await;
            found["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|it| it["type"] == "Established"))
        };
        world.cluster.wait_until("charts are served", is_there).await;
    }
    world
}

fn chart(spec: Value) -> Value {
    json!({"apiVersion": CHART, "kind": "HelmChart", "metadata": {"name": "web"}, "spec": spec})
}

async fn job(world: &World, key: &str) -> Value {
    world.get("batch/v1", "Job", key).await
}

/// Waits for a job that is another than the one of this `uid`.
async fn new_job(world: &World, key: &str, uid: &Value) -> Value {
    let mut found = Value::Null;
    let holds = async || {
        found = job(world, key).await;
        found.is_object() && found["metadata"]["uid"] != *uid
    };
    world.cluster.wait_until("there is a new job", holds).await;
    found
}

/// What the job's controller says of it.
async fn condition(world: &World, key: &str, kind: &str) {
    let time = "2030-01-01T00:00:00Z";
    let mut status = json!({"conditions": [{"type": kind, "status": "True", "lastTransitionTime": time}]});
    let before = match kind {
        "Complete" => "SuccessCriteriaMet",
        "Failed" => "FailureTarget",
        _ => "",
    };
    if !before.is_empty() {
        let earlier = json!({"type": before, "status": "True", "lastTransitionTime": time});
        world
            .merge_status("batch/v1", "Job", key, json!({"status": {"startTime": time, "conditions": [earlier]}}))
            .await;
        status["conditions"] = json!([earlier, status["conditions"][0]]);
    }
    if kind == "Complete" {
        status["completionTime"] = time.into();
        status["succeeded"] = 1.into();
    }
    world.merge_status("batch/v1", "Job", key, json!({ "status": status })).await;
}

/// Says that the job was seen, waits until it is resumed, and says how it ended.
async fn run(world: &World, key: &str, end: &str) {
    condition(world, key, "Suspended").await;
    let holds = async || job(world, key).await["spec"]["suspend"] == false;
    world.cluster.wait_until("the job is resumed", holds).await;
    condition(world, key, end).await;
}

/// Helm's release of the hash that the job has.
async fn release(world: &World, job: &Value, version: u32) {
    let hash = variables(job).into_iter().find(|(name, _)| name == "CONFIG_HASH").expect("it has one").1;
    let labels = json!({"owner": "helm", "name": "web", "version": version.to_string(), "status": "deployed", (CONFIG_HASH): hash});
    let name = format!("sh.helm.release.v1.web.v{version}");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels},
        "type": "helm.sh/release.v1"});
    world.make("v1", "Secret", "kube-system", secret).await;
}

fn variables(job: &Value) -> Vec<(String, String)> {
    let all = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
}

async fn wait_condition(world: &World, kind: &str, status: &str) -> Value {
    let mut found = Value::Null;
    let holds = async || {
        let chart = world.get(CHART, "HelmChart", KEY).await;
        let all = chart["status"]["conditions"].as_array().cloned().unwrap_or_default();
        found = all.into_iter().find(|it| it["type"] == kind).unwrap_or_default();
        found["status"] == status
    };
    world.cluster.wait_until(&format!("{kind} is {status}"), holds).await;
    found
}

#[tokio::test]
async fn a_chart_is_installed_upgraded_and_deleted() {
    let world = start().await;
    world
        .make(
            CHART,
            "HelmChart",
            "kube-system",
            chart(json!({"chart": "web", "repo": "https://r.example",
        "valuesContent": "a: 1\n", "set": {"x": "y"}})),
        )
        .await;
    let first = new_job(&world, INSTALL, &Value::Null).await;
    let found = world.get(CHART, "HelmChart", KEY).await;
    assert_eq!(found["metadata"]["annotations"]["helmcharts.cattle.io/managed-by"], "helm-controller");
    assert_eq!(found["metadata"]["finalizers"], json!(["wrangler.cattle.io/on-helm-chart-remove"]));
    let annotations = &first["metadata"]["annotations"];
    assert_eq!(annotations["objectset.rio.cattle.io/id"], "helm-controller-chart-registration");
    assert_eq!(annotations["objectset.rio.cattle.io/owner-gvk"], "helm.cattle.io/v1, Kind=HelmChart");
    assert_eq!(first["metadata"]["ownerReferences"][0]["kind"], "HelmChart");
    assert_eq!((&first["spec"]["suspend"], &first["spec"]["backoffLimit"]), (&json!(true), &json!(1000)));
    assert!(variables(&first).contains(&("CHART".to_owned(), "web/web".to_owned())));
    assert!(variables(&first).contains(&("EXPECTED_RELEASE_REVISION".to_owned(), "0".to_owned())));
    let values = world.get("v1", "Secret", "kube-system/chart-values-web").await;
    assert_eq!(values["data"]["HelmChartValuesContent"], "YTogMQo=");
    assert_eq!(values["metadata"]["labels"][HASH], first["metadata"]["labels"][HASH]);
    let binding = world.get("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "helm-kube-system-web").await;
    assert_eq!(binding["roleRef"]["name"], "cluster-admin");
    assert!(binding["metadata"].get("ownerReferences").is_none());
    wait_condition(&world, "JobCreated", "True").await;
    release(&world, &first, 1).await;
    run(&world, INSTALL, "Complete").await;

    // Values that are added make another job, which finds the first release.
    let added = json!({"apiVersion": CHART, "kind": "HelmChartConfig", "metadata": {"name": "web"},
        "spec": {"valuesContent": "b: 2\n", "failurePolicy": "abort"}});
    world.make(CHART, "HelmChartConfig", "kube-system", added).await;
    let second = new_job(&world, INSTALL, &first["metadata"]["uid"]).await;
    assert!(variables(&second).contains(&("EXPECTED_RELEASE_REVISION".to_owned(), "1".to_owned())));
    assert!(variables(&second).contains(&("FAILURE_POLICY".to_owned(), "abort".to_owned())));
    let values = world.get("v1", "Secret", "kube-system/chart-values-web").await;
    assert_eq!(values["data"]["HelmChartConfigValuesContent"], "YjogMgo=");
    release(&world, &second, 2).await;
    run(&world, INSTALL, "Complete").await;
    // Nobody does anything now, and neither does a controller that begins anew.
    let settled = world.writes().await;
    world.restart(|config| config.helm = Some(helm())).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let mut after = world.writes().await;
    after.retain(|what, count| settled.get(what) != Some(count));
    assert!(after.is_empty(), "{after:?}");
    assert_eq!(job(&world, INSTALL).await["metadata"]["uid"], second["metadata"]["uid"]);

    let deleted = world.api(CHART, "HelmChart", "kube-system").delete("web", &Default::default()).await;
    assert!(deleted.is_ok());
    let delete = new_job(&world, DELETE, &Value::Null).await;
    assert_eq!(delete["spec"]["template"]["spec"]["containers"][0]["args"], json!(["delete"]));
    world.cluster.kill("loops/manifests/helm/charts-loop");
    run(&world, DELETE, "Complete").await;
    let gone = async || world.get(CHART, "HelmChart", KEY).await.is_null();
    world.cluster.wait_until("the chart is gone", gone).await;
    let binding = world.get("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "helm-kube-system-web").await;
    assert!(binding.is_null(), "nobody else would delete it: {binding}");
    world.cluster.stop().await;
}

#[tokio::test]
async fn a_chart_whose_job_fails_or_has_no_image_says_so() {
    let world = start().await;
    world.make(CHART, "HelmChart", "kube-system", chart(json!({"chart": "web", "bootstrap": true}))).await;
    let first = new_job(&world, INSTALL, &Value::Null).await;
    assert_eq!(first["spec"]["template"]["spec"]["hostNetwork"], true);
    let labels = json!({"helmcharts.helm.cattle.io/chart": "web"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels},
        "spec": {"containers": [{"name": "helm", "image": "none:1"}], "automountServiceAccountToken": false,
            "serviceAccountName": "helm-web"}});
    world.make("v1", "Pod", "kube-system", pod).await;
    let waiting = json!({"name": "helm", "image": "none:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff"}}});
    world.merge_status("v1", "Pod", "kube-system/p", json!({"status": {"containerStatuses": [waiting]}})).await;
    let told = world.told("web", "JobImagePullFailed").await;
    assert!(told.contains("none:1") && told.contains("agent/images") && told.contains("registries.yaml"), "{told}");
    run(&world, INSTALL, "Failed").await;
    let failed = wait_condition(&world, "Failed", "True").await;
    assert_eq!(failed["reason"], "Job failed");
    world.told("web", "JobFailed").await;
    // What is changed is tried anew.
    world.merge(CHART, "HelmChart", KEY, json!({"spec": {"version": "2"}})).await;
    let second = new_job(&world, INSTALL, &first["metadata"]["uid"]).await;
    assert_eq!(second["spec"]["template"]["spec"]["containers"][0]["args"], json!(["install", "--version", "2"]));
    wait_condition(&world, "Failed", "False").await;
    world.cluster.stop().await;
}

#[tokio::test]
async fn charts_of_others_are_left_alone() {
    let world = start().await;
    let mut others = chart(json!({"chart": "web"}));
    others["metadata"]["annotations"] = json!({"helmcharts.cattle.io/managed-by": "somebody"});
    world.make(CHART, "HelmChart", "kube-system", others).await;
    let old = json!({"apiVersion": CHART, "kind": "HelmChart", "metadata": {"name": "old"},
        "spec": {"chart": "x", "helmVersion": "v2"}});
    world.make(CHART, "HelmChart", "kube-system", old).await;
    let told = world.told("old", "UnsupportedVersion").await;
    assert_eq!(told, "Unsupported Helm version v2: only v3 charts are supported");
    assert!(job(&world, INSTALL).await.is_null());
    let left = world.get(CHART, "HelmChart", KEY).await;
    assert!(left["metadata"].get("finalizers").is_none());
    world.cluster.stop().await;
}
