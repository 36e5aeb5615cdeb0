//! Pods.

use super::*;

const KIND: (&str, &str) = ("", "Pod");

/// A pod as defaulting leaves it.
pub(super) fn pod() -> Value {
    json!({
        "metadata": {"name": "x", "namespace": "ns", "labels": {"a": "b"}},
        "spec": {
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {},
            "containers": [container("c")],
        },
    })
}

fn container(name: &str) -> Value {
    json!({
        "name": name,
        "image": "i",
        "imagePullPolicy": "Always",
        "terminationMessagePolicy": "File",
        "resources": {},
    })
}

/// A pod that uses much of what there is.
pub(super) fn rich_pod() -> Value {
    let probe = json!({"httpGet": {"path": "/", "port": "http", "scheme": "HTTP"}, "successThreshold": 1});
    let selector = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]});
    let term = json!({"labelSelector": selector, "topologyKey": "zone", "matchLabelKeys": ["k"], "namespaces": ["n"]});
    let mut container = container("c");
    for (name, value) in [
        ("ports", json!([{"name": "http", "containerPort": 80, "hostPort": 8080, "protocol": "TCP"}])),
        (
            "env",
            json!([
                {"name": "A", "value": "a"},
                {"name": "B", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['a']"}}},
                {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            ]),
        ),
        ("envFrom", json!([{"prefix": "P_", "secretRef": {"name": "s"}}])),
        ("volumeMounts", json!([{"name": "v", "mountPath": "/v", "subPath": "a/b"}])),
        ("volumeDevices", json!([{"name": "d", "devicePath": "/dev/d"}])),
        (
            "resources",
            json!({"limits": {"cpu": "1", "example.com/gpu": "1"},
                             "requests": {"cpu": "500m", "example.com/gpu": "1"}, "claims": [{"name": "claim"}]}),
        ),
        ("resizePolicy", json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
        ("lifecycle", json!({"preStop": {"sleep": {"seconds": 5}}, "postStart": {"exec": {"command": ["true"]}}})),
        ("livenessProbe", probe.clone()),
        ("readinessProbe", probe.clone()),
        ("startupProbe", probe),
        (
            "securityContext",
            json!({"runAsUser": 1, "capabilities": {"add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "Localhost", "localhostProfile": "p"}, "appArmorProfile": {"type": "Unconfined"}}),
        ),
    ] {
        container[name] = value;
    }
    let mut pod = with(&pod(), "/spec/containers/0", container);
    for (name, value) in [
        (
            "volumes",
            json!([
                {"name": "v", "emptyDir": {}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "p"}},
                {"name": "h", "hostPath": {"path": "/", "type": ""}},
                {"name": "s", "secret": {"secretName": "s", "defaultMode": 420, "items": [{"key": "k", "path": "p"}]}},
                {"name": "w", "downwardAPI": {"items": [
                    {"path": "p", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}},
                {"name": "t", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}, {"configMap": {"name": "c"}}]}},
            ]),
        ),
        ("serviceAccountName", json!("default")),
        ("resourceClaims", json!([{"name": "claim", "resourceClaimName": "r"}])),
        ("tolerations", json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}])),
        (
            "affinity",
            json!({
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [selector]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": selector}]},
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}}),
        ),
        (
            "topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "zone", "minDomains": 2,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]),
        ),
        ("hostAliases", json!([{"ip": "::1", "hostnames": ["h"]}])),
        ("dnsConfig", json!({"nameservers": ["1.2.3.4"], "searches": ["a_b.c."], "options": [{"name": "o"}]})),
        ("schedulingGates", json!([{"name": "example.com/g"}])),
        ("readinessGates", json!([{"conditionType": "example.com/r"}])),
    ] {
        pod["spec"][name] = value;
    }
    pod["spec"]["securityContext"] = json!({"sysctls": [{"name": "net.a"}], "supplementalGroups": [1]});
    pod["spec"]["initContainers"] = json!([with(&self::container("i"), "/restartPolicy", json!("Always"))]);
    pod["status"] =
        json!({"conditions": [{"type": "Ready"}], "containerStatuses": [{"name": "c", "state": {"running": {}}}]});
    pod
}

#[test]
fn a_pod_may_use_everything() {
    assert_eq!(texts(&create(KIND, &rich_pod(), &Context::default())), [""; 0]);
    assert_eq!(texts(&update(KIND, &rich_pod(), &rich_pod(), &Context::default())), [""; 0]);
}

#[test]
fn containers_are_named_and_have_an_image() {
    check_creates(
        KIND,
        &pod(),
        &[
            ("/spec/containers", json!([]), &["spec.containers: Required value"]),
            ("/spec/containers/0/name", json!(""), &["spec.containers[0].name: Required value"]),
            ("/spec/containers/0/image", json!(""), &["spec.containers[0].image: Required value"]),
            (
                "/spec/containers/0/image",
                json!(" i"),
                &["spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace"],
            ),
            ("/spec/containers/-", container("c"), &["spec.containers[1].name: Duplicate value: \"c\""]),
            ("/spec/initContainers", json!([container("c")]), &["spec.initContainers[0].name: Duplicate value: \"c\""]),
            (
                "/spec/ephemeralContainers",
                json!([container("e")]),
                &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
            (
                "/spec/containers/0/imagePullPolicy",
                json!("Maybe"),
                &["spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \
                   \"IfNotPresent\", \"Never\""],
            ),
            (
                "/spec/restartPolicy",
                json!("Sometimes"),
                &[
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \
                   \"Never\"",
                ],
            ),
        ],
    );
}

#[test]
fn ports_are_in_range_and_unique() {
    let port = |number: i64, host: i64| json!({"containerPort": number, "hostPort": host, "protocol": "TCP"});
    check_creates(
        KIND,
        &pod(),
        &[
            ("/spec/containers/0/ports", json!([port(1, 0), port(65_535, 1)]), &[]),
            (
                "/spec/containers/0/ports",
                json!([port(-1, 65_536)]),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: -1: must be between 1 and 65535, \
                     inclusive",
                    "spec.containers[0].ports[0].hostPort: Invalid value: 65536: must be between 1 and 65535, \
                     inclusive",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([port(1, 5), port(2, 5)]),
                &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\""],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 1, "protocol": "ICMP"}]),
                &["spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \
                   \"TCP\", \"UDP\""],
            ),
        ],
    );
}

#[test]
fn resources_are_known_and_within_limits() {
    let place = "/spec/containers/0/resources";
    check_creates(
        KIND,
        &pod(),
        &[
            (
                place,
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu \
                   limit of 1"],
            ),
            (
                place,
                json!({"requests": {"a.b/c": "1"}, "limits": {"a.b/c": "2"}}),
                &["spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to a.b/c limit of 2"],
            ),
            (
                place,
                json!({"limits": {"cpu": "-1"}}),
                &[
                    "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                place,
                json!({"limits": {"disk": "1"}}),
                &[
                    "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource \
                     type or fully qualified",
                    "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource \
                     for containers",
                ],
            ),
            (
                place,
                json!({"limits": {"hugepages-2Mi": "2Mi"}}),
                &["spec.containers[0].resources: Forbidden: HugePages require cpu or memory"],
            ),
        ],
    );
}

#[test]
fn mounts_name_a_volume_and_a_path_once() {
    let mounted = with(&pod(), "/spec/volumes", json!([{"name": "v", "emptyDir": {}}]));
    let place = "/spec/containers/0/volumeMounts";
    check_creates(
        KIND,
        &mounted,
        &[
            (
                place,
                json!([{"name": "w", "mountPath": "/"}]),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
            ),
            (
                place,
                json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]),
                &["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique"],
            ),
            (
                place,
                json!([{"name": "v", "mountPath": "/a", "subPath": "../b"}]),
                &["spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../b\": must not contain '..'"],
            ),
            ("/spec/volumes", json!([{"name": "v"}]), &["spec.volumes[0]: Required value: must specify a volume type"]),
            (
                "/spec/volumes/-",
                json!({"name": "v", "emptyDir": {}, "nfs": {}}),
                &[
                    "spec.volumes[1].nfs: Forbidden: may not specify more than 1 volume type",
                    "spec.volumes[1].name: Duplicate value: \"v\"",
                ],
            ),
        ],
    );
}

#[test]
fn probes_have_one_handler() {
    check_creates(
        KIND,
        &pod(),
        &[
            (
                "/spec/containers/0/livenessProbe",
                json!({"successThreshold": 2}),
                &[
                    "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                    "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
                ],
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"exec": {"command": ["true"]}, "tcpSocket": {"port": 0}, "periodSeconds": -1}),
                &[
                    "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                    "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or \
                     equal to 0",
                ],
            ),
        ],
    );
}

#[test]
fn a_running_pod_changes_only_a_little() {
    let frozen = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
                  `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                  existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                  previously negative)";
    let old = with(&pod(), "/spec/activeDeadlineSeconds", json!(10));
    check_updates(
        KIND,
        &old,
        &[
            ("/spec/containers/0/image", json!("other"), &[]),
            ("/metadata/labels", json!({"c": "d"}), &[]),
            ("/spec/tolerations", json!([{"operator": "Exists"}]), &[]),
            ("/spec/activeDeadlineSeconds", json!(9), &[]),
            (
                "/spec/activeDeadlineSeconds",
                json!(11),
                &["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"],
            ),
            ("/spec/hostname", json!("h"), &[frozen]),
            ("/spec/nodeSelector", json!({"a": "b"}), &[frozen]),
            (
                "/spec/containers/-",
                container("d"),
                &["spec.containers: Forbidden: pod updates may not add or remove containers"],
            ),
            (
                "/spec/schedulingGates",
                json!([{"name": "g"}]),
                &["spec.schedulingGates[0]: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"],
            ),
        ],
    );
}

#[test]
fn ephemeral_containers_only_come() {
    let context = Context::default();
    let old = with(&pod(), "/spec/ephemeralContainers", json!([container("e")]));
    let through = Subresource::EphemeralContainers;
    assert_eq!(texts(&subresource(KIND, through, &old, &pod(), &context)), [""; 0]);
    assert_eq!(
        texts(&subresource(KIND, through, &pod(), &old, &context)),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"]
    );
    let changed = with(&old, "/spec/ephemeralContainers/0/image", json!("other"));
    assert_eq!(
        texts(&subresource(KIND, through, &changed, &old, &context)),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n"]
    );
}

#[test]
fn resizing_changes_cpu_and_memory_only() {
    let context = Context::default();
    let resized = with(&pod(), "/spec/containers/0/resources", json!({"requests": {"cpu": "1"}}));
    let old = with(&pod(), "/spec/containers/0/resources", json!({"requests": {"cpu": "2"}}));
    assert_eq!(texts(&subresource(KIND, Subresource::Resize, &resized, &old, &context)), [""; 0]);
    let other = with(&resized, "/spec/hostname", json!("h"));
    assert_eq!(
        texts(&subresource(KIND, Subresource::Resize, &other, &old, &context)),
        ["spec: Forbidden: only cpu and memory resources are mutable"]
    );
}

#[test]
fn privileged_containers_can_be_forbidden_to_all() {
    let object = with(&pod(), "/spec/containers/0/securityContext", json!({"privileged": true}));
    let strict = Context { allow_privileged: false };
    assert_eq!(
        texts(&create(KIND, &object, &strict)),
        ["spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy"]
    );
    assert_eq!(texts(&create(KIND, &object, &Context::default())), [""; 0]);
}
