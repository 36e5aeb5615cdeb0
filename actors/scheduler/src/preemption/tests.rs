//! Who has to go, as upstream documents it.

use std::sync::Arc;

use k3sd_runtime::Rng;
use serde_json::{Value, json};

use super::{Budget, Preemption, preempt};
use crate::decide::Decision;
use crate::pod::{Key, PodInfo};
use crate::testing::{World, sized};

fn running(name: &str, cpu: &str, priority: i32, more: Value) -> Arc<PodInfo> {
    let mut object = json!({
        "spec": { "priority": priority },
        "status": { "startTime": "2030-01-01T00:00:00Z" },
        "metadata": { "labels": { "app": name } },
    });
    crate::testing::merge(&mut object, more);
    sized(name, cpu, "1", object)
}

fn outcome(world: &World, pod: &PodInfo) -> Result<(String, Vec<String>), String> {
    let Decision::Nowhere(diagnosis) = world.decide(pod) else { panic!("it finds a node without anybody going") };
    match preempt(&world.snapshot, pod, &world.profile, &diagnosis, &mut Rng::seeded(7)) {
        Preemption::Room(candidate) => {
            let victims = candidate.victims.iter().map(|victim| victim.key.name.clone()).collect();
            Ok((world.snapshot.node(candidate.slot).name.to_string(), victims))
        }
        Preemption::Nothing { message, .. } => Err(message),
    }
}

fn room(node: &str, victims: &[&str]) -> Result<(String, Vec<String>), String> {
    Ok((node.to_owned(), victims.iter().map(|name| (*name).to_owned()).collect()))
}

#[test]
fn as_few_and_as_unimportant_pods_as_possible_go() {
    let world = World::of(&[("n1", json!({}))])
        .with("n1", running("low", "2", 1, json!({})))
        .with("n1", running("middle", "1", 5, json!({})))
        .with("n1", running("high", "1", 100, json!({})));
    assert_eq!(outcome(&world, &running("p", "1", 50, json!({}))), room("n1", &["low"]));
    assert_eq!(outcome(&world, &running("p", "3", 50, json!({}))), room("n1", &["middle", "low"]));
    let said = "preemption: 0/1 nodes are available: 1 Insufficient cpu.";
    assert_eq!(outcome(&world, &running("p", "4", 50, json!({}))), Err(said.to_owned()));
    let said = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(outcome(&world, &running("p", "1", 1, json!({}))), Err(said.to_owned()));
    let said = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(outcome(&world, &running("p", "5", 50, json!({}))), Err(said.to_owned()));
}

#[test]
fn a_pod_that_may_not_preempt_says_so() {
    let world = World::of(&[("n1", json!({}))]).with("n1", running("low", "4", 1, json!({})));
    let meek = running("p", "1", 50, json!({ "spec": { "preemptionPolicy": "Never" } }));
    let said = "preemption: not eligible due to preemptionPolicy=Never.";
    assert_eq!(outcome(&world, &meek), Err(said.to_owned()));
}

#[test]
fn nobody_else_has_to_go_while_a_victim_is_going() {
    let going = json!({
        "metadata": { "deletionTimestamp": "2030-01-01T00:00:00Z" },
        "status": { "conditions": [{ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }] },
    });
    let world = World::of(&[("n1", json!({}))]).with("n1", running("low", "4", 1, going));
    let waiting = running("p", "1", 50, json!({ "status": { "nominatedNodeName": "n1" } }));
    let said = "preemption: not eligible due to a terminating pod on the nominated node.";
    assert_eq!(outcome(&world, &waiting), Err(said.to_owned()));
    assert_eq!(outcome(&world, &running("q", "1", 50, json!({}))), room("n1", &["low"]));
}

/// Two nodes, each with its pods of (CPUs, priority, second of the start); which is cleared?
fn cleared(first: &[(u8, i32, u8)], second: &[(u8, i32, u8)]) -> String {
    let mut world = World::zoned(2, 1);
    for (node, pods) in [("n1", first), ("n2", second)] {
        for (index, (cpu, priority, start)) in pods.iter().enumerate() {
            let start = json!({ "status": { "startTime": format!("2030-01-01T00:00:{start:02}Z") } });
            world = world.with(node, running(&format!("{node}-{index}"), &cpu.to_string(), *priority, start));
        }
    }
    outcome(&world, &running("p", "4", 1000, json!({}))).expect("there is room").0
}

#[test]
fn the_node_is_cleared_where_it_hurts_least() {
    // The most important victim decides, then the sum, then the number, then who started last.
    assert_eq!(cleared(&[(4, 9, 0)], &[(4, 5, 0)]), "n2");
    assert_eq!(cleared(&[(2, 5, 0), (2, 1, 0)], &[(2, 5, 0), (2, 4, 0)]), "n1");
    assert_eq!(cleared(&[(2, 5, 0), (2, -5, 0)], &[(4, 5, 0)]), "n2");
    assert_eq!(cleared(&[(4, 5, 10)], &[(4, 5, 20)]), "n2");
    assert_eq!(cleared(&[(4, 5, 30)], &[(4, 5, 20)]), "n1");
}

fn budget(app: &str, allowed: i32) -> (Key, Budget) {
    let object = json!({
        "metadata": { "name": app, "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": app } } },
        "status": { "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 },
    });
    (Key::new("default", app), Budget::new(&serde_json::from_value(object).unwrap()))
}

#[test]
fn budgets_protect_pods_as_long_as_others_can_go() {
    let mut world = World::of(&[("n1", json!({}))])
        .with("n1", running("guarded", "2", 1, json!({})))
        .with("n1", running("free", "2", 5, json!({})));
    let p = running("p", "2", 50, json!({}));
    assert_eq!(outcome(&world, &p), room("n1", &["guarded"]));
    world.snapshot.budgets.extend([budget("guarded", 0)]);
    assert_eq!(outcome(&world, &p), room("n1", &["free"]));
    world.snapshot.budgets.extend([budget("guarded", 1)]);
    assert_eq!(outcome(&world, &p), room("n1", &["guarded"]));
    // When there is no other way, it goes all the same.
    world.snapshot.budgets.extend([budget("guarded", 0)]);
    assert_eq!(outcome(&world, &running("p", "4", 50, json!({}))), room("n1", &["free", "guarded"]));
}

#[test]
fn a_node_where_no_budget_is_broken_comes_first() {
    let mut world = World::zoned(2, 1)
        .with("n1", running("guarded", "4", 1, json!({})))
        .with("n2", running("free", "4", 9, json!({})));
    world.snapshot.budgets.extend([budget("guarded", 0)]);
    assert_eq!(outcome(&world, &running("p", "4", 50, json!({}))), room("n2", &["free"]));
}

#[test]
fn pods_that_do_not_want_others_near_can_go_too() {
    let term = json!({ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "p" } } });
    let affinity = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
    let jealous = running("jealous", "1", 1, json!({ "spec": { "affinity": affinity } }));
    let world = World::of(&[("n1", json!({}))]).with("n1", jealous).with("n1", running("other", "1", 1, json!({})));
    assert_eq!(outcome(&world, &running("p", "1", 50, json!({}))), room("n1", &["jealous"]));
}
