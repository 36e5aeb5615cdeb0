use super::*;
use crate::testing::pod;

fn of(spec: &str) -> Pod {
    pod(&format!("{{metadata: {{name: p, uid: own}}, spec: {spec}}}"))
}

fn node() -> Node {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "a", "labels": {"kubernetes.io/os": "linux", "disk": "ssd", "gen": "5"}},
        "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}
    }))
    .unwrap()
}

fn allocatable() -> BTreeMap<String, Quantity> {
    [("cpu", "2"), ("memory", "1Gi"), ("ephemeral-storage", "1G"), ("example.com/gpu", "2"), ("hugepages-2Mi", "4Mi")]
        .map(|(key, value)| (key.to_owned(), value.parse().unwrap()))
        .into()
}

const TOLERANT: &str = "tolerations: [{key: k, operator: Exists}]";

/// With one pod on the node that has half of all.
fn reason(pod: &Pod) -> String {
    let other = of("{containers: [{name: c, resources: {requests: {cpu: '1', memory: 512Mi, example.com/gpu: '1'}}, \
        ports: [{containerPort: 1, hostPort: 80}]}]}");
    let (node, allocatable) = (node(), allocatable());
    let room = Room {
        others: &[&other],
        node: Some(&node),
        allocatable: &allocatable,
        pods_max: 5,
        unsafe_sysctls: &[],
        has_apparmor: false,
        is_ending: false,
    };
    admit(pod, room).err().map(|(reason, _)| reason).unwrap_or_default()
}

#[test]
fn what_does_not_fit_is_refused() {
    let affine = |operator: &str, key: &str, values: &str| {
        format!(
            "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{{matchExpressions: [{{key: {key}, operator: {operator}, values: [{values}]}}]}}]}}}}}}, containers: []"
        )
    };
    let asks = |name: &str, amount: &str| {
        format!("containers: [{{name: c, resources: {{requests: {{{name}: '{amount}'}}}}}}]")
    };
    for (spec, expected) in [
        ("containers: [{name: c}]".to_owned(), ""),
        (asks("cpu", "1"), ""),
        (asks("cpu", "1001m"), "OutOfcpu"),
        (asks("memory", "513Mi"), "OutOfmemory"),
        (asks("ephemeral-storage", "2G"), "OutOfephemeral-storage"),
        (asks("example.com/gpu", "1"), ""),
        (asks("example.com/gpu", "2"), "OutOfexample.com/gpu"),
        (asks("example.com/elsewhere", "2"), ""),
        (asks("hugepages-2Mi", "8Mi"), "OutOfhugepages-2Mi"),
        ("containers: [{name: c, ports: [{containerPort: 1, hostPort: 80, hostIP: 1.2.3.4}]}]".to_owned(), "NodePorts"),
        ("containers: [{name: c, ports: [{containerPort: 1, hostPort: 80, protocol: UDP}]}]".to_owned(), ""),
        ("nodeSelector: {disk: ssd}, containers: []".to_owned(), ""),
        ("nodeSelector: {disk: hdd}, containers: []".to_owned(), "NodeAffinity"),
        (format!("nodeSelector: {{disk: hdd}}, {}", asks("cpu", "2")), "OutOfcpu"),
        ("os: {name: windows}, containers: []".to_owned(), "PodOSNotSupported"),
        (
            "securityContext: {supplementalGroupsPolicy: Strict}, containers: []".to_owned(),
            "SupplementalGroupsPolicyNotSupported",
        ),
        ("securityContext: {sysctls: [{name: kernel.sem, value: '1'}]}, containers: []".to_owned(), "SysctlForbidden"),
        (affine("In", "disk", "ssd"), ""),
        (affine("NotIn", "disk", "ssd"), "NodeAffinity"),
        (affine("Gt", "gen", "'4'"), ""),
        (affine("Lt", "gen", "'5'"), "NodeAffinity"),
        (affine("DoesNotExist", "none", ""), ""),
    ] {
        assert_eq!(reason(&of(&format!("{{{TOLERANT}, {spec}}}"))), expected, "{spec}");
    }
}

#[test]
fn taints_are_looked_at_unless_the_pod_is_static() {
    for (tolerations, expected) in [
        ("[]", "TaintToleration"),
        ("[{key: k, value: v}]", ""),
        ("[{key: k, value: w}]", "TaintToleration"),
        ("[{operator: Exists, effect: NoSchedule}]", "TaintToleration"),
        ("[{operator: Exists}]", ""),
    ] {
        assert_eq!(reason(&of(&format!("{{tolerations: {tolerations}, containers: []}}"))), expected, "{tolerations}");
    }
    let file = pod("{metadata: {annotations: {kubernetes.io/config.source: file}}, spec: {containers: []}}");
    assert_eq!(reason(&file), "");
    let windows = pod("{metadata: {labels: {kubernetes.io/os: windows}}, spec: {containers: []}}");
    assert_eq!(reason(&windows), "PodOSSelectorNodeLabelDoesNotMatch");
}

#[test]
fn a_full_node_says_so() {
    let (other, allocatable) = (of("{containers: []}"), allocatable());
    let room = Room {
        others: &[&other],
        node: None,
        allocatable: &allocatable,
        pods_max: 1,
        unsafe_sysctls: &[],
        has_apparmor: false,
        is_ending: false,
    };
    let (reason, message) = admit(&of("{containers: []}"), room).unwrap_err();
    assert_eq!(reason, "OutOfpods");
    assert_eq!(message, "Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1");
}

fn sized(name: &str, priority: i32, requests: &str, limits: &str) -> Pod {
    pod(&format!(
        "{{metadata: {{name: {name}, uid: {name}}}, spec: {{priority: {priority}, containers: [{{name: c, resources: {{requests: {{{requests}}}, limits: {{{limits}}}}}}}]}}}}"
    ))
}

#[track_caller]
fn check_verdict(pod: &Pod, others: &[Pod], pods_max: usize, expected: &str) {
    let (others, allocatable): (Vec<&Pod>, _) = (others.iter().collect(), allocatable());
    let room = Room {
        others: &others,
        node: None,
        allocatable: &allocatable,
        pods_max,
        unsafe_sysctls: &[],
        has_apparmor: false,
        is_ending: false,
    };
    let found = match decide(pod, room) {
        Verdict::Admit => "admit".to_owned(),
        Verdict::Refuse((reason, _)) => reason,
        Verdict::Preempt(uids) => uids.join(" "),
    };
    assert_eq!(found, expected);
}

#[test]
fn others_make_room_for_critical_pods() {
    let critical = |cpu: &str| sized("critical", 2_000_000_000, &format!("cpu: {cpu}"), "");
    let best_effort = sized("be", 0, "", "");
    let small = sized("small", 0, "cpu: 500m", "");
    let large = sized("large", 0, "cpu: 1200m", "");
    let kept = sized("kept", 0, "cpu: 300m, memory: 1Mi", "cpu: 300m, memory: 1Mi");
    let peer = sized("peer", 2_000_000_000, "cpu: 1500m", "");
    let higher = sized("node", 2_000_001_000, "cpu: '1'", "");
    for (pod, others, pods_max, expected) in [
        (critical("'2'"), vec![], 5, "admit"),
        (sized("plain", 5, "cpu: 1001m", ""), vec![large.clone()], 5, "OutOfcpu"),
        // The one that frees enough goes; one that frees nothing stays.
        (critical("500m"), vec![best_effort.clone(), small.clone(), large.clone()], 5, "small"),
        (critical("'1'"), vec![best_effort.clone(), small.clone(), large.clone()], 5, "large"),
        (critical("'2'"), vec![small.clone(), large.clone(), kept.clone()], 5, "large small kept"),
        // Those that promise nothing go first.
        (critical("100m"), vec![kept.clone(), small.clone(), best_effort], 3, "be"),
        (critical("'1'"), vec![peer.clone()], 5, UNEXPECTED),
        (higher, vec![peer], 5, "peer"),
    ] {
        check_verdict(&pod, &others, pods_max, expected);
    }
    let mut elsewhere = critical("'2'");
    elsewhere.spec.as_mut().unwrap().os = Some(k8s_openapi::api::core::v1::PodOS { name: "windows".into() });
    check_verdict(&elsewhere, &[small], 5, "PodOSNotSupported");
}

#[test]
fn a_node_that_goes_down_takes_nobody() {
    let allocatable = allocatable();
    let room = Room {
        others: &[],
        node: None,
        allocatable: &allocatable,
        pods_max: 1,
        unsafe_sysctls: &[],
        has_apparmor: false,
        is_ending: false,
    };
    let plain = of("{containers: [{name: c}]}");
    let critical = of("{priority: 2000001000, containers: [{name: c}]}");
    assert_eq!(decide(&plain, room), Verdict::Admit);
    let expected = refusal("NodeShutdown", "Pod was rejected as the node is shutting down.");
    for pod in [plain, critical] {
        assert_eq!(decide(&pod, Room { is_ending: true, ..room }), Verdict::Refuse(expected.clone()));
    }
}
