//! The life of a pod, step by step, with the API's part played by merging what is written.

use super::*;

const WALL: i64 = 1_900_000_000;

fn pod(policy: &str, annotations: &[(&str, &str)]) -> Pod {
    let annotations: serde_json::Map<_, _> =
        annotations.iter().map(|(name, text)| (format!("fake.k3sd.io/{name}"), (*text).into())).collect();
    let pod = json!({
        "metadata": {"name": "p", "uid": "u", "generation": 1, "annotations": annotations},
        "spec": {"nodeName": "n", "restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]},
    });
    serde_json::from_value(pod).expect("a pod")
}

fn place(seconds: i64) -> Place {
    Place {
        host: "172.20.0.1".to_owned(),
        own: Ipv4Addr::new(10, 0, 0, 2),
        age: Duration::from_secs(seconds.unsigned_abs()),
        wall: Timestamp::from_second(WALL + seconds).expect("in range"),
    }
}

/// Does what is planned, as the API would: lists of conditions merge by type, the others are replaced.
fn apply(pod: &mut Pod, patch: &Value) {
    let mut value = serde_json::to_value(&*pod).expect("a value");
    for (name, new) in patch["status"].as_object().expect("an object") {
        if name != "conditions" {
            value["status"][name] = new.clone();
            continue;
        }
        for new in new.as_array().expect("a list") {
            let all = value["status"]["conditions"].as_array_mut().expect("a list");
            let Some(old) = all.iter_mut().find(|old| old["type"] == new["type"]) else {
                all.push(new.clone());
                continue;
            };
            for (name, value) in new.as_object().expect("an object") {
                old[name] = value.clone();
            }
        }
    }
    *pod = serde_json::from_value(value).expect("a pod");
}

/// What is seen of a pod in one line.
fn line(pod: &Pod) -> String {
    let status = pod.status.as_ref().expect("there is one");
    let restarts: i32 = statuses(pod).map(|status| status.restart_count).sum();
    let ready = condition(pod, "Ready").unwrap_or("-");
    format!("{} ready={ready} restarts={restarts}", status.phase.as_deref().unwrap_or_default())
}

/// What happens in each second, until nothing does any more.
fn story(mut pod: Pod, seconds: i64) -> (Pod, Vec<String>) {
    let mut told = Vec::new();
    for second in 0..seconds {
        for _ in 0..5 {
            match plan(&pod, &place(second)) {
                Plan::Nothing | Plan::After(_) => break,
                Plan::Remove => {
                    told.push(format!("{second}: removed"));
                    return (pod, told);
                }
                Plan::Status(patch) => {
                    apply(&mut pod, &patch);
                    told.push(format!("{second}: {}", line(&pod)));
                }
            }
        }
    }
    (pod, told)
}

#[test]
fn pods_do_what_their_annotations_say() {
    let ready = "0: Running ready=True restarts=0";
    for (policy, annotations, expected) in [
        ("Always", vec![], vec![ready]),
        ("Always", vec![("start-after", "2s")], vec!["2: Running ready=True restarts=0"]),
        (
            "Always",
            vec![("ready-after", "3s")],
            vec!["0: Running ready=False restarts=0", "3: Running ready=True restarts=0"],
        ),
        ("Always", vec![("ready", "false")], vec!["0: Running ready=False restarts=0"]),
        ("Never", vec![("exit-code", "0"), ("run-for", "2s")], vec![ready, "2: Succeeded ready=False restarts=0"]),
        ("Never", vec![("exit-code", "3")], vec![ready, "0: Failed ready=False restarts=0"]),
        ("OnFailure", vec![("exit-code", "0")], vec![ready, "0: Succeeded ready=False restarts=0"]),
        (
            "OnFailure",
            vec![("exit-code", "1"), ("run-for", "4s")],
            vec![ready, "4: Running ready=True restarts=1", "8: Running ready=True restarts=2"],
        ),
        ("Always", vec![("exit-code", "x"), ("run-for", "soon")], vec![ready]),
    ] {
        let (_, told) = story(pod(policy, &annotations), 10);
        assert_eq!(told, expected, "{policy} {annotations:?}");
    }
}

#[test]
fn a_deleted_pod_stops_in_its_time_and_goes() {
    for (policy, stop_after, grace, expected) in [
        ("Always", "0s", 30, vec!["5: Succeeded ready=False restarts=0", "5: removed"]),
        ("Always", "3s", 30, vec!["8: Succeeded ready=False restarts=0", "8: removed"]),
        ("Never", "0s", 30, vec!["5: Failed ready=False restarts=0", "5: removed"]),
        // No longer than its grace.
        ("Always", "60s", 2, vec!["7: Succeeded ready=False restarts=0", "7: removed"]),
        ("Always", "0s", 0, vec![]),
    ] {
        let (mut pod, _) = story(pod(policy, &[("stop-after", stop_after)]), 2);
        let at = Timestamp::from_second(WALL + 5 + grace).expect("in range");
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        let mut told = Vec::new();
        for second in 5..80 {
            match plan(&pod, &place(second)) {
                Plan::Status(patch) => {
                    apply(&mut pod, &patch);
                    told.push(format!("{second}: {}", line(&pod)));
                }
                Plan::Nothing | Plan::After(_) => continue,
                Plan::Remove => {}
            }
            if plan(&pod, &place(second)) == Plan::Remove {
                told.push(format!("{second}: removed"));
                break;
            }
        }
        assert_eq!(told, expected, "{policy} {stop_after} {grace}");
    }
}

#[test]
fn what_runs_is_told_as_a_kubelet_tells_it() {
    let mut pod = pod("Always", &[]);
    let spec = pod.spec.as_mut().expect("there is one");
    let inits = json!([{"name": "first", "image": "i"}, {"name": "beside", "image": "i", "restartPolicy": "Always"}]);
    spec.init_containers = serde_json::from_value(inits).expect("containers");
    spec.readiness_gates = serde_json::from_value(json!([{"conditionType": "example.com/open"}])).expect("gates");
    let (mut pod, told) = story(pod, 5);
    assert_eq!(told, ["0: Running ready=False restarts=0"], "the gate is closed");
    assert_eq!(condition(&pod, "ContainersReady"), Some("True"));
    assert_eq!(condition(&pod, "PodScheduled"), Some("True"), "the scheduler's stays");
    let status = pod.status.as_ref().expect("there is one");
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("10.0.0.2"), Some("172.20.0.1")));
    assert_eq!(status.start_time.as_ref().expect("set").0.as_second(), WALL);
    let inits = status.init_container_statuses.as_ref().expect("set");
    assert!(inits[0].state.as_ref().expect("set").terminated.is_some());
    assert!(inits[1].state.as_ref().expect("set").running.is_some());

    let open = json!({"status": {"conditions": [{"type": "example.com/open", "status": "True"}]}});
    apply(&mut pod, &open);
    let Plan::Status(patch) = plan(&pod, &place(9)) else { panic!("it is ready now") };
    apply(&mut pod, &patch);
    assert_eq!(line(&pod), "Running ready=True restarts=0");
    let of = |kind: &str| {
        let conditions = pod.status.as_ref().expect("set").conditions.as_ref().expect("set");
        let found = conditions.iter().find(|condition| condition.type_ == kind).expect("there");
        found.last_transition_time.as_ref().expect("set").0.as_second() - WALL
    };
    assert_eq!((of("Ready"), of("ContainersReady")), (9, 0), "only what changed has a new time");
}
