//! The verbs on plain objects, and the errors that clients tell apart.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::{World, config_map, refused};

fn deployment(replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    }))
    .expect("a Deployment")
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let world = World::start().await;
    let maps = world.config_maps();
    let missing = refused(maps.get("none").await);
    assert_eq!((missing.code, missing.reason.as_str()), (404, "NotFound"));
    assert_eq!(missing.message, "configmaps \"none\" not found");
    assert!(maps.get_opt("none").await.expect("an answer").is_none());

    let made = maps.create(&PostParams::default(), &config_map("a", "one")).await.expect("it can be made");
    let twice = refused(maps.create(&PostParams::default(), &config_map("a", "one")).await);
    assert!(twice.is_already_exists() && twice.code == 409, "{twice:?}");

    let mut newer = made.clone();
    newer.data.get_or_insert_default().insert("text".to_owned(), "two".to_owned());
    let newer = maps.replace("a", &PostParams::default(), &newer).await.expect("it is current");
    assert_ne!(newer.resource_version(), made.resource_version());
    let stale = refused(maps.replace("a", &PostParams::default(), &made).await);
    assert!(stale.is_conflict() && stale.code == 409, "{stale:?}");

    let invalid = refused(maps.create(&PostParams::default(), &config_map("A_b", "one")).await);
    assert!(invalid.is_invalid() && invalid.code == 422, "{invalid:?}");
    let causes = invalid.details.expect("details").causes;
    assert_eq!((causes[0].field.as_str(), causes[0].reason.as_str()), ("metadata.name", "FieldValueInvalid"));

    let other: Api<ConfigMap> = Api::namespaced(world.client.clone(), "nowhere");
    let nowhere = refused(other.create(&PostParams::default(), &config_map("a", "one")).await);
    assert_eq!((nowhere.code, nowhere.message.as_str()), (404, "namespaces \"nowhere\" not found"));
}

#[tokio::test]
async fn each_kind_of_patch_does_what_it_says() {
    let world = World::start().await;
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "default");
    deployments.create(&PostParams::default(), &deployment(1)).await.expect("it can be made");
    let none = PatchParams::default();
    // By name, a container is another one's neighbour.
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}});
    let patched = deployments.patch("web", &none, &Patch::Strategic(&strategic)).await.expect("it fits");
    assert_eq!(images(&patched), ["side:1", "web:1"]);
    // A list replaces a list.
    let merge = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}});
    let patched = deployments.patch("web", &none, &Patch::Merge(&merge)).await.expect("it fits");
    assert_eq!(images(&patched), ["web:2"]);
    let operations = json!([
        {"op": "test", "path": "/spec/template/spec/containers/0/image", "value": "web:2"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "web:3"},
        {"op": "add", "path": "/metadata/annotations", "value": {"who": "me"}},
    ]);
    let operations = serde_json::from_value(operations).expect("operations");
    let patch = Patch::<Deployment>::Json(operations);
    let patched = deployments.patch("web", &none, &patch).await.expect("it fits");
    assert_eq!((images(&patched), patched.annotations()["who"].as_str()), (vec!["web:3".to_owned()], "me"));
    let again = refused(deployments.patch("web", &none, &patch).await);
    assert_eq!(again.code, 422, "the test fails now: {again:?}");

    let labels = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    let labelled = deployments.patch_metadata("web", &none, &labels).await;
    assert_eq!(labelled.expect("it fits").labels()["a"], "b");
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let tried = deployments.patch("web", &dry, &Patch::Merge(json!({"spec": {"replicas": 9}}))).await.expect("it fits");
    let kept = deployments.get("web").await.expect("it is there");
    assert_eq!((replicas(&tried), replicas(&kept)), (Some(9), Some(1)));
    let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
    let unknown = refused(deployments.patch("web", &strict, &Patch::Merge(json!({"spec": {"replica": 9}}))).await);
    assert!(unknown.code == 422 && unknown.message.contains("unknown field \"spec.replica\""), "{unknown:?}");
}

fn images(deployment: &Deployment) -> Vec<String> {
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    template.expect("a template").containers.iter().filter_map(|container| container.image.clone()).collect()
}

fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref().and_then(|spec| spec.replicas)
}

#[tokio::test]
async fn who_applies_owns_until_somebody_forces() {
    let world = World::start().await;
    let maps = world.config_maps();
    let apply = |text: &str| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"text": text}}),
        )
    };
    maps.patch("a", &PatchParams::apply("one"), &apply("1")).await.expect("nobody else owns it");
    let conflict = refused(maps.patch("a", &PatchParams::apply("two"), &apply("2")).await);
    assert!(conflict.is_conflict(), "{conflict:?}");
    let causes = conflict.details.expect("details").causes;
    assert_eq!(
        (causes[0].reason.as_str(), causes[0].field.as_str(), causes[0].message.as_str()),
        ("FieldManagerConflict", ".data.text", "conflict with \"one\"")
    );
    let taken = maps.patch("a", &PatchParams::apply("two").force(), &apply("2")).await.expect("it was forced");
    let owners: Vec<&str> = taken.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!((taken.data.as_ref().expect("data")["text"].as_str(), owners), ("2", vec!["two"]));
    // What its only owner leaves out goes.
    let nothing = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    let left = maps.patch("a", &PatchParams::apply("two"), &nothing).await.expect("it is its owner");
    assert!(left.data.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn lists_come_in_pages_of_one_revision() {
    let world = World::start().await;
    world.make_config_maps(10).await;
    let maps = world.config_maps();
    let mut params = ListParams::default().labels("test=yes").limit(4);
    let (mut names, mut pages, mut revision) = (Vec::new(), Vec::new(), None);
    loop {
        let page = maps.list(&params).await.expect("a page");
        pages.push(page.items.len());
        names.extend(page.items.iter().map(|map| map.name_any()));
        // What comes in between belongs to no page.
        if revision.is_none() {
            maps.create(&PostParams::default(), &config_map("m99", "late")).await.expect("it can be made");
        }
        assert_eq!(
            revision.get_or_insert_with(|| page.metadata.resource_version.clone()),
            &page.metadata.resource_version
        );
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!((pages, names.len()), (vec![4, 4, 2], 10));
    assert!(!names.contains(&"m99".to_owned()));
    let metadata = maps.list_metadata(&ListParams::default().fields("metadata.name=m99")).await.expect("a list");
    assert_eq!(metadata.items[0].labels()["test"], "yes");
    let gone = maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("test=yes")).await;
    assert_eq!(gone.expect("they can be deleted").left().map_or(0, |list| list.items.len()), 11);
    let wrong = refused(maps.list(&ListParams::default().limit(1).continue_token("nonsense")).await);
    assert_eq!(wrong.code, 400, "{wrong:?}");
}

#[tokio::test]
async fn a_scale_is_read_and_written_through_its_subresource() {
    let world = World::start().await;
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "default");
    let made = deployments.create(&PostParams::default(), &deployment(1)).await.expect("it can be made");
    let scale = deployments.get_scale("web").await.expect("it has one");
    let status = scale.status.clone().unwrap_or_default();
    assert_eq!(
        (scale.spec.clone().unwrap_or_default().replicas, status.selector.as_deref()),
        (Some(1), Some("app=web"))
    );
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let patched = deployments.patch_scale("web", &PatchParams::default(), &patch).await.expect("it fits");
    assert_eq!(patched.spec.unwrap_or_default().replicas, Some(3));
    let found = deployments.get("web").await.expect("it is there");
    assert_eq!(replicas(&found), Some(3));
    assert!(found.metadata.generation > made.metadata.generation);
    let stale = refused(deployments.replace_scale("web", &PostParams::default(), &scale).await);
    assert!(stale.is_conflict(), "{stale:?}");
}

#[tokio::test]
async fn an_entry_is_made_or_changed_and_a_namespace_ends() {
    let world = World::start().await;
    let maps = world.config_maps();
    let mut entry = maps.entry("a").await.expect("an answer").or_insert(|| config_map("a", "one"));
    entry.commit(&PostParams::default()).await.expect("it can be made");
    entry.get_mut().data.get_or_insert_default().insert("text".to_owned(), "two".to_owned());
    entry.commit(&PostParams::default()).await.expect("it can be changed");
    assert_eq!(maps.get("a").await.expect("it is there").data.expect("data")["text"], "two");

    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "Namespace"}));
    namespaces.patch("short", &PatchParams::apply("test"), &apply).await.expect("it can be made");
    let deleted = namespaces.delete("short", &DeleteParams::default()).await.expect("it can be deleted");
    let ending = deleted.left().expect("it ends once it is empty");
    assert_eq!(ending.status.and_then(|status| status.phase).as_deref(), Some("Terminating"));
}
