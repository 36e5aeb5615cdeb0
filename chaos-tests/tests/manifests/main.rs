//! Manifests and charts over the API server: files deploy themselves as K3s deploys them, and whoever dies meanwhile.

mod charts;
mod world;

use std::fs;
use std::time::{Duration, Instant};

use chaos_tests::seed;
use k3sd_runtime::Rng;
use serde_json::{Value, json};
use world::{APPLIED, HASH, World, config_map, packaged};

const DEPLOY: &str = "loops/manifests/deploy";

fn hash(object: &Value) -> &str {
    object["metadata"]["labels"][HASH].as_str().unwrap_or_default()
}

/// A Deployment with a value that the API writes in another way.
const APP: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - {name: main, image: 'app:1', resources: {requests: {cpu: 0.5}}, ports: [{containerPort: 80}]}
---
";
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: app}\nstringData: {a: b}\n---\n";

#[tokio::test]
async fn files_deploy_themselves_change_and_prune() {
    let first = config_map("one", "1") + &config_map("two", "1") + APP + SECRET;
    let files = [("app.yaml", first.as_str()), ("sub/list.json", LIST), ("note.txt", "no manifest")];
    let world = World::start(&files, |_| {}).await;
    for file in ["app.yaml", "sub/list.json"] {
        world.applied(file).await;
    }
    let one = world.map("one").await;
    // SHA-1 of `k3s.cattle.io/v1, Kind=Addon`, `app` and `kube-system`, one behind the other.
    assert_eq!(hash(&one), "590686add1832793380fb5b5ce46b9df7bd8140b", "{one}");
    let annotations = &one["metadata"]["annotations"];
    assert_eq!(annotations["objectset.rio.cattle.io/owner-gvk"], "k3s.cattle.io/v1, Kind=Addon");
    assert_eq!(annotations["objectset.rio.cattle.io/owner-name"], "app");
    assert!(annotations[APPLIED].as_str().is_some_and(|packed| packed.starts_with("H4sI")));
    let addon = world.addon("app").await;
    assert_eq!(
        addon["metadata"]["annotations"]["addon.k3s.cattle.io/gvks"],
        "/v1, Kind=ConfigMap;apps/v1, Kind=Deployment;/v1, Kind=Secret"
    );
    assert_eq!(addon["spec"]["source"], world.dir.join("app.yaml").display().to_string());
    assert_eq!(world.addon("list").await["spec"]["source"], world.dir.join("sub/list.json").display().to_string());
    let path = format!("{:?}", world.dir.join("app.yaml"));
    assert_eq!(world.told("app", "ApplyingManifest").await, format!("Applying manifest at {path}"));
    assert_eq!(world.told("app", "AppliedManifest").await, format!("Applied manifest at {path}"));

    // What somebody else wrote into an object stays; what the file changes changes; what left the file goes.
    world.merge("v1", "ConfigMap", "default/one", json!({"data": {"other": "theirs"}})).await;
    world.merge("v1", "ConfigMap", "default/two", json!({"metadata": {"labels": {"x": "y"}}})).await;
    world.put("app.yaml", &(config_map("one", "2") + &APP.replace("app:1", "app:2") + &config_map("three", "1")));
    world.applied("app.yaml").await;
    let changed = world.map("one").await;
    assert_eq!(changed["data"], json!({"value": "2", "other": "theirs"}));
    assert_eq!(changed["metadata"]["uid"], one["metadata"]["uid"], "it was changed, not made anew");
    assert_eq!((world.map("two").await, world.map("three").await.is_object()), (Value::Null, true));
    assert!(world.get("v1", "Secret", "default/app").await.is_null());
    let app = world.get("apps/v1", "Deployment", "default/app").await;
    assert_eq!(app["spec"]["template"]["spec"]["containers"][0]["image"], "app:2");
    // A file that goes leaves its objects.
    world.remove("app.yaml");
    world.put("other.yaml", &config_map("four", "1"));
    world.applied("other.yaml").await;
    assert!(world.map("one").await.is_object());
    world.cluster.stop().await;
}

const LIST: &str = "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [
\t{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"listed\", \"namespace\": \"default\"}}]}";

#[tokio::test]
async fn files_need_not_be_in_the_order_in_which_they_need_each_other() {
    let world = World::start(
        &[
            ("a-thing.yaml", "apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: t, namespace: late}\n"),
            ("b-map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: late}\n"),
            ("y-crd.yaml", CRD),
            ("z-space.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: late}\n"),
        ],
        |_| {},
    )
    .await;
    for file in ["a-thing.yaml", "b-map.yaml", "y-crd.yaml", "z-space.yaml"] {
        world.applied(file).await;
    }
    assert!(world.get("example.org/v1", "Thing", "late/t").await.is_object());
    assert!(!world.events("a-thing").await.contains_key("ApplyManifestFailed"));
    // A kind that nobody knows yet is tried again until somebody does.
    world.put("c.yaml", "apiVersion: example.org/v1\nkind: Other\nmetadata: {name: o}\n");
    let told = world.told("c", "ApplyManifestFailed").await;
    assert!(told.contains("no matches for kind \"Other\" in version \"example.org/v1\""), "{told}");
    world.put("d.yaml", &CRD.replace("Thing", "Other").replace("thing", "other"));
    world.applied("c.yaml").await;
    world.cluster.stop().await;
}

const CRD: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  names: {kind: Thing, listKind: ThingList, plural: things, singular: thing}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";

#[tokio::test]
async fn a_broken_document_is_told_and_the_others_are_used() {
    let whole = config_map("a", "1") + &config_map("b", "1");
    let world = World::start(&[("f.yaml", &whole)], |_| {}).await;
    world.applied("f.yaml").await;
    world.put("f.yaml", &format!("{}a: [1\nb: 2\n---\n{}", config_map("a", "2"), config_map("c", "1")));
    let told = world.told("f", "ParseManifestFailed").await;
    assert!(told.starts_with(&format!("Parse manifest at {:?} failed: ", world.dir.join("f.yaml"))), "{told}");
    assert!(told.contains("line 7"), "{told}");
    world.cluster.wait_until("the others are applied", async || world.map("c").await.is_object()).await;
    assert_eq!(world.map("a").await["data"]["value"], "2");
    assert!(world.map("b").await.is_object(), "nobody knows whether it left the file");
    world.put("f.yaml", &config_map("a", "3"));
    world.applied("f.yaml").await;
    assert!(world.map("b").await.is_null() && world.map("c").await.is_null());
    // A name that no AddOn can have.
    world.put("Bad_Name.yaml", &config_map("never", "1"));
    let told = world.told("kube-system", "InvalidManifestName").await;
    assert!(told.contains("Bad_Name"), "{told}");
    assert!(world.map("never").await.is_null());
    world.cluster.stop().await;
}

#[tokio::test]
async fn what_is_as_it_should_be_is_not_written_again() {
    let text = config_map("one", "1") + APP + SECRET + CRD;
    let world = World::start(&[("app.yaml", &text)], |_| {}).await;
    world.applied("app.yaml").await;
    world.told("app", "AppliedManifest").await;
    // As another packer would have packed it, or an old one that didn't.
    for (kind, api_version, key) in [("ConfigMap", "v1", "default/one"), ("Deployment", "apps/v1", "default/app")] {
        let object = world.get(api_version, kind, key).await;
        let packed = object["metadata"]["annotations"][APPLIED].as_str().expect("it has one");
        let plain = unpack(packed);
        world.merge(api_version, kind, key, json!({"metadata": {"annotations": {(APPLIED): plain}}})).await;
    }
    let before = world.writes().await;
    let began = Instant::now();
    world.restart(|_| {}).await;
    // A file that is new is done after those that are there.
    world.put("z.yaml", &config_map("z", "1"));
    world.applied("z.yaml").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    world.told("z", "AppliedManifest").await;
    let mut after = world.writes().await;
    after.retain(|what, count| before.get(what) != Some(count));
    let of_new: Vec<&str> = after.keys().map(String::as_str).collect();
    let expected = ["PATCH addons", "POST addons", "POST configmaps", "POST events"];
    assert!(of_new.iter().all(|what| expected.contains(what)), "{after:?}, before {before:?}");
    let count = |all: &std::collections::BTreeMap<String, u64>, what: &str| all.get(what).copied().unwrap_or_default();
    assert_eq!(count(&after, "POST events") - count(&before, "POST events"), 2, "those of the new file");
    assert_eq!(count(&after, "PATCH addons") - count(&before, "PATCH addons"), 1);
    // What went meanwhile comes back with a restart.
    world.api("v1", "ConfigMap", "default").delete("one", &Default::default()).await.expect("it is there");
    world.restart(|_| {}).await;
    world.cluster.wait_until("it is back", async || world.map("one").await.is_object()).await;
    world.cluster.stop().await;
}

/// The JSON in an annotation.
fn unpack(packed: &str) -> String {
    use std::io::Read as _;

    use base64::Engine as _;

    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(packed).expect("base64");
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
    text
}

#[tokio::test]
async fn packaged_files_are_written_disabled_and_come_back() {
    let files =
        || vec![packaged("net.yaml", &config_map("net", "1")), packaged("more/a.yaml", &config_map("more", "1"))];
    let world = World::start(&[("net.yaml", "edited: by somebody\n")], |config| config.packaged = files()).await;
    for name in ["net", "more"] {
        world.cluster.wait_until("it is applied", async || world.map(name).await.is_object()).await;
    }
    assert_eq!(fs::read_to_string(world.dir.join("net.yaml")).expect("a file"), config_map("net", "1"));
    world.put("other.yaml", &config_map("kept", "1"));
    world.put("skipped.yaml.skip", "");
    world.put("skipped.yaml", &config_map("skipped", "1"));
    world.applied("other.yaml").await;
    world
        .restart(|config| {
            config.packaged = files();
            config.disabled = ["net".to_owned(), "more".to_owned()].into();
        })
        .await;
    world
        .cluster
        .wait_until("all of it is gone", async || {
            let objects =
                [world.map("net").await, world.map("more").await, world.addon("net").await, world.addon("a").await];
            let files = ["net.yaml", "more/a.yaml"].map(|file| world.dir.join(file).exists());
            objects.iter().all(Value::is_null) && files == [false, false]
        })
        .await;
    assert!(world.map("kept").await.is_object() && world.map("skipped").await.is_null());
    world.restart(|config| config.packaged = files()).await;
    world.cluster.wait_until("it is back", async || world.map("net").await.is_object()).await;
    world.cluster.stop().await;
}

#[tokio::test]
async fn linked_directories_are_followed_and_left_alone() {
    let away = tempfile::tempdir().expect("a directory");
    fs::write(away.path().join("linked.yaml"), config_map("linked", "1")).expect("it can be written");
    let world = World::start(&[], |_| {}).await;
    std::os::unix::fs::symlink(away.path(), world.dir.join("away")).expect("a link");
    world.cluster.wait_until("it is applied", async || world.map("linked").await.is_object()).await;
    fs::write(away.path().join("linked.yaml"), config_map("linked", "2")).expect("it can be written");
    let holds = async || world.map("linked").await["data"]["value"] == "2";
    world.cluster.wait_until("a change behind the link is seen", holds).await;
    world.restart(|config| config.disabled = ["away".to_owned()].into()).await;
    world.cluster.wait_until("its objects are gone", async || world.map("linked").await.is_null()).await;
    assert!(away.path().join("linked.yaml").exists(), "the file is somebody else's");
    world.cluster.stop().await;
}

#[tokio::test]
async fn whoever_dies_the_cluster_becomes_what_the_files_say() {
    let mut rng = Rng::seeded(seed());
    let _replay = chaos_tests::Replay { seed: seed(), test: "whoever_dies_the_cluster_becomes_what_the_files_say" };
    let world = World::start(&[], |_| {}).await;
    let text = |file: u64, round: u64| -> String {
        (0..4).map(|map| config_map(&format!("m{file}-{}", (map + round) % 6), &round.to_string())).collect()
    };
    for round in 0..8 {
        for file in 0..5 {
            if rng.below(2) == 0 || round == 7 {
                world.put(&format!("f{file}.yaml"), &text(file, round));
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.below(150))).await;
        let victims = [DEPLOY, "apiserver/caches", "loops/manifests"];
        let victim = victims[usize::try_from(rng.below(3)).expect("it is small")];
        world.cluster.system().signal(victim, k3sd_runtime::Signal::Kill);
    }
    for file in 0..5 {
        world.applied(&format!("f{file}.yaml")).await;
        for map in 0..6 {
            let found = world.map(&format!("m{file}-{map}")).await;
            let wanted = (0..4).any(|at| (at + 7) % 6 == map);
            assert_eq!(found.is_object(), wanted, "m{file}-{map}");
            assert!(!wanted || found["data"]["value"] == "7");
        }
    }
    world.cluster.stop().await;
}
