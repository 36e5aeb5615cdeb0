//! What there is: both ways in which clients find it out.

use std::collections::BTreeSet;

use kube::core::{GroupVersion, GroupVersionKind};
use kube::discovery::{self, Discovery, Scope, verbs};

use crate::{World, custom};

/// Group, version, kind, plural, scope and verbs of everything.
fn all(found: &Discovery) -> BTreeSet<String> {
    let groups = found.groups().flat_map(|group| {
        let versions: Vec<String> = group.versions().map(str::to_owned).collect();
        versions.into_iter().flat_map(|version| group.versioned_resources(&version))
    });
    groups
        .map(|(resource, capabilities)| {
            let mut operations = capabilities.operations.clone();
            operations.sort();
            let mut below: Vec<&str> =
                capabilities.subresources.iter().map(|(below, _)| below.plural.as_str()).collect();
            below.sort_unstable();
            format!(
                "{} {} {} {:?} {} {}",
                resource.api_version,
                resource.kind,
                resource.plural,
                capabilities.scope,
                operations.join(","),
                below.join(",")
            )
        })
        .collect()
}

#[tokio::test]
async fn both_kinds_of_discovery_find_the_same() {
    let world = World::start().await;
    custom::define(&world.client).await;
    let plain = Discovery::new(world.client.clone()).run().await.expect("documents one by one");
    let aggregated = Discovery::new(world.client.clone()).run_aggregated().await.expect("all in one");
    let (plain, aggregated_set) = (all(&plain), all(&aggregated));
    assert!(plain.len() > 60, "{plain:#?}");
    let only = |left: &BTreeSet<String>, right: &BTreeSet<String>| left.difference(right).cloned().collect::<Vec<_>>();
    assert_eq!(only(&plain, &aggregated_set), Vec::<String>::new(), "only in plain documents");
    assert_eq!(only(&aggregated_set, &plain), Vec::<String>::new(), "only in the one document");

    let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, capabilities) = aggregated.resolve_gvk(&kind).expect("it is served");
    assert_eq!((resource.plural.as_str(), &capabilities.scope), ("deployments", &Scope::Namespaced));
    assert!(capabilities.supports_operation(verbs::PATCH) && capabilities.supports_operation(verbs::WATCH));
    let below: BTreeSet<&str> = capabilities.subresources.iter().map(|(below, _)| below.kind.as_str()).collect();
    assert_eq!(below, BTreeSet::from(["Deployment", "Scale"]));
    assert!(aggregated.has_group("test.example.com"));
}

#[tokio::test]
async fn one_group_is_found_without_all_others() {
    let world = World::start().await;
    let apps = discovery::group(&world.client, "apps").await.expect("it is served");
    assert_eq!((apps.preferred_version(), apps.recommended_kind("StatefulSet").is_some()), (Some("v1"), true));
    let batch = GroupVersion::gv("batch", "v1");
    let batch = discovery::pinned_group(&world.client, &batch).await.expect("it is served");
    let kinds: BTreeSet<String> = batch.recommended_resources().into_iter().map(|(found, _)| found.kind).collect();
    assert_eq!(kinds, BTreeSet::from(["CronJob".to_owned(), "Job".to_owned()]));
    assert!(discovery::group(&world.client, "nobody.example.com").await.is_err());
    let version = world.client.apiserver_version().await.expect("an answer");
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "34"));
}
