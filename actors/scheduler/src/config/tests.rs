//! Documents and what they mean.

use serde_json::{Value, json};

use super::{DefaultSpread, FitStrategy, SchedulerConfig};
use crate::plugin::Plugin;

fn document(more: Value) -> Value {
    let mut document = json!({ "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration" });
    crate::testing::merge(&mut document, more);
    document
}

fn read(more: Value) -> SchedulerConfig {
    SchedulerConfig::from_value(&document(more)).expect("it makes sense")
}

fn refused(more: Value) -> String {
    SchedulerConfig::from_value(&document(more)).expect_err("it makes no sense").to_string()
}

fn profile(more: Value) -> Value {
    json!({ "profiles": [more] })
}

#[test]
fn an_empty_document_is_the_default() {
    let config = read(json!({}));
    assert_eq!(config.profiles.len(), 1);
    let profile = config.profile("default-scheduler").expect("the default one");
    let weight = |wanted| profile.scores.iter().find(|(plugin, _)| *plugin == wanted).map(|(_, weight)| *weight);
    let rows = [
        (Plugin::NodeResourcesFit, 1),
        (Plugin::NodeResourcesBalancedAllocation, 1),
        (Plugin::ImageLocality, 1),
        (Plugin::TaintToleration, 3),
        (Plugin::NodeAffinity, 2),
        (Plugin::PodTopologySpread, 2),
        (Plugin::InterPodAffinity, 2),
    ];
    for (plugin, expected) in rows {
        assert_eq!(weight(plugin), Some(expected), "{plugin}");
    }
    assert!(profile.preempts && profile.filters.contains(Plugin::VolumeBinding));
}

#[test]
fn plugins_are_switched_and_weighed() {
    let config = read(profile(json!({ "schedulerName": "mine", "plugins": {
        "score": { "disabled": [{ "name": "*" }], "enabled": [{ "name": "ImageLocality", "weight": 7 }] },
        "filter": { "disabled": [{ "name": "TaintToleration" }] },
        "postFilter": { "disabled": [{ "name": "DefaultPreemption" }] },
    } })));
    let profile = config.profile("mine").expect("it is there");
    assert_eq!(profile.scores, [(Plugin::ImageLocality, 7)]);
    assert!(!profile.filters.contains(Plugin::TaintToleration) && !profile.preempts);
    assert!(config.profile("default-scheduler").is_none());
    let config = read(profile_with_multi_point());
    let weights = &config.profiles[0].scores;
    assert!(weights.contains(&(Plugin::NodeAffinity, 9)) && weights.len() == 7);
}

fn profile_with_multi_point() -> Value {
    profile(json!({ "plugins": { "multiPoint": { "enabled": [{ "name": "NodeAffinity", "weight": 9 }] } } }))
}

#[test]
fn arguments_reach_their_plugins() {
    let args = |name: &str, args: Value| {
        let config = read(profile(json!({ "pluginConfig": [{ "name": name, "args": args }] })));
        config.profiles[0].as_ref().clone()
    };
    let shape = json!([{ "utilization": 0, "score": 0 }, { "utilization": 100, "score": 10 }]);
    let strategy = json!({
        "type": "RequestedToCapacityRatio", "resources": [{ "name": "cpu", "weight": 3 }],
        "requestedToCapacityRatio": { "shape": shape },
    });
    let fit = args("NodeResourcesFit", json!({ "scoringStrategy": strategy })).fit;
    let FitStrategy::RequestedToCapacityRatio { resources, shape } = fit else { panic!("{fit:?}") };
    assert_eq!((resources, shape[1].score), (vec![("cpu".to_owned(), 3)], 100));
    assert_eq!(args("InterPodAffinity", json!({ "hardPodAffinityWeight": 50 })).hard_pod_affinity_weight, 50);
    let constraint = json!({ "maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule" });
    let spread = json!({ "defaultConstraints": [constraint], "defaultingType": "List" });
    let DefaultSpread::List(list) = args("PodTopologySpread", spread).default_spread else { panic!("a list") };
    assert_eq!((list[0].max_skew, list[0].is_hard, list[0].topology_key.as_str()), (2, true, "rack"));
    assert_eq!(args("VolumeBinding", json!({ "bindTimeoutSeconds": 5 })).volume_bind_timeout.as_secs(), 5);
    assert_eq!(args("DefaultPreemption", json!({ "minCandidateNodesAbsolute": 3 })).preemption.candidates(50), 5);
}

#[test]
fn the_percentage_of_a_profile_comes_before_that_of_all() {
    let two = json!([{ "schedulerName": "a" }, { "schedulerName": "b", "percentageOfNodesToScore": 70 }]);
    let config = read(json!({ "percentageOfNodesToScore": 30, "profiles": two }));
    let percentages: Vec<_> = config.profiles.iter().map(|profile| profile.percentage_of_nodes_to_score).collect();
    assert_eq!(percentages, [Some(30), Some(70)]);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let rows = [
        (json!({ "profils": [] }), "profils: unknown field"),
        (profile(json!({ "name": "x" })), "profiles[0].name: unknown field"),
        (json!({ "percentageOfNodesToScore": 101 }), "percentageOfNodesToScore: must be a whole number from 0 to 100"),
        (json!({ "kind": "Other" }), "kind: must be KubeSchedulerConfiguration"),
        (
            profile(json!({ "plugins": { "score": { "enabled": [{ "name": "Nope" }] } } })),
            "profiles[0].plugins.score.enabled[0].name: there is no plugin \"Nope\"",
        ),
        (
            profile(json!({ "pluginConfig": [{ "name": "NodeAffinity", "args": { "added": 1 } }] })),
            "profiles[0].pluginConfig[0].args.added: unknown field",
        ),
        (
            json!({ "profiles": [{ "schedulerName": "a" }, { "schedulerName": "a" }] }),
            "profiles[1].schedulerName: \"a\" is there twice",
        ),
        (json!({ "profiles": 7 }), "profiles: must be a list"),
    ];
    for (document, expected) in rows {
        assert_eq!(refused(document), expected);
    }
}
