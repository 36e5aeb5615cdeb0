//! As whom containers run, what they may do, and what they see.

use std::path::Path;

use futures_util::future::join_all;
use k3sd_kubelet_pods::admit::apparmor::is_enabled;
use serde_json::{Value, json};

use crate::world::{Options, World, script, world_with};

impl World {
    /// Runs a container to its end with these fields; its last words, line by line.
    async fn says(&self, name: &str, spec: Value, container: Value, text: &str) -> Vec<String> {
        let mut made = script("c", &format!("{{ {text}; }} > /dev/termination-log 2>&1"));
        for (key, value) in container.as_object().expect("fields") {
            made[key] = value.clone();
        }
        let mut spec = spec;
        spec["restartPolicy"] = json!("Never");
        spec["containers"] = json!([made]);
        self.create(name, spec).await;
        let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let pod = self.until(name, "ends", ended).await;
        let words = pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"].clone();
        self.delete(name).await;
        words.as_str().unwrap_or_default().lines().map(str::to_owned).collect()
    }

    async fn check(&self, name: &str, spec: Value, context: Value, text: &str, expected: &[&str]) {
        let found = self.says(name, spec, json!({"securityContext": context}), text).await;
        assert_eq!(found, expected, "{name}");
    }
}

/// A row of `/proc/self/status`, without its name.
fn row(name: &str) -> String {
    format!("sed -n 's/^{name}:[ \\t]*//p' /proc/self/status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_hold() {
    let Some(world) = world_with("security", Options { has_network: true, ..Options::default() }).await else { return };
    let none = || json!({});
    let ids = "id -u; id -g; id -G".to_owned();
    let groups = json!({"securityContext": {"runAsUser": 1001, "runAsGroup": 2002, "fsGroup": 3003, "supplementalGroups": [4004]}});
    let user = json!({"securityContext": {"runAsUser": 1}});
    let capabilities = json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}});
    let touch = "touch /x 2>/dev/null && echo written || echo read only".to_owned();
    let set = "(echo same > /proc/sys/kernel/domainname) 2>/dev/null && echo written || echo refused".to_owned();
    let default = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    // The sandbox's own process is the first of those that all see.
    let first =
        ("shared", json!({"shareProcessNamespace": true}), none(), "cat /proc/1/comm".to_owned(), vec!["pause"]);
    let rows = [
        ("ids", groups, none(), ids.clone(), vec!["1001", "2002", "2002 3003 4004"]),
        ("own", user, json!({"runAsUser": 7, "runAsGroup": 8}), ids, vec!["7", "8", "8"]),
        ("capabilities", none(), capabilities, row("CapEff"), vec!["0000000000000400"]),
        ("escalation", none(), json!({"allowPrivilegeEscalation": false}), row("NoNewPrivs"), vec!["1"]),
        ("seccomp", none(), default, row("Seccomp"), vec!["2"]),
        ("unconfined", none(), none(), row("Seccomp"), vec!["0"]),
        ("readonly", none(), json!({"readOnlyRootFilesystem": true}), touch.clone(), vec!["read only"]),
        ("writable", none(), none(), touch, vec!["written"]),
        ("proc", none(), none(), set, vec!["refused"]),
        ("privileged", none(), json!({"privileged": true}), "ls /dev/kmsg".to_owned(), vec!["/dev/kmsg"]),
        first,
    ];
    let checks = rows
        .iter()
        .map(|(name, spec, context, text, expected)| world.check(name, spec.clone(), context.clone(), text, expected));
    join_all(checks).await;

    let kinds = [("pid", "hostPID"), ("ipc", "hostIPC"), ("net", "hostNetwork")];
    let looks = kinds.map(|(kind, field)| {
        let world = &world;
        async move {
            let of_host =
                std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string();
            let look = format!("readlink /proc/self/ns/{kind}");
            let shared = world.says(&format!("host{kind}"), json!({field: true}), json!({}), &look).await;
            let own = world.says(&format!("own{kind}"), json!({}), json!({}), &look).await;
            assert_eq!(shared.join("\n"), of_host, "{field}");
            assert_ne!(own.join("\n"), of_host, "without {field}");
        }
    });
    join_all(looks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_scores_and_users_are_right() {
    let Some(world) = world_with("fields", Options { has_network: true, ..Options::default() }).await else { return };
    let volume = json!({
        "volumes": [{"name": "v", "emptyDir": {}}],
        "securityContext": {"runAsUser": 1001, "runAsGroup": 1001, "fsGroup": 3003},
    });
    let fields = json!({
        "env": [{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [
            {"name": "v", "mountPath": "/all"},
            {"name": "v", "mountPath": "/part", "subPath": "a/b"},
            {"name": "v", "mountPath": "/mine", "subPathExpr": "by-$(WHO)"},
        ],
    });
    let text = "stat -c %g /all; touch /part/x /mine/y && ls -d /all/a/b/x /all/by-paths/y";
    let found = world.says("paths", volume, fields, text).await;
    assert_eq!(found, ["3003", "/all/a/b/x", "/all/by-paths/y"]);

    let score = "cat /proc/self/oom_score_adj";
    // Not every machine lets scores be lowered below the runtime's own.
    for (name, resources, expected) in
        [("best", json!({}), "1000"), ("burst", json!({"requests": {"memory": "2Gi"}}), "750")]
    {
        assert_eq!(world.says(name, json!({}), json!({"resources": resources}), score).await, [expected], "{name}");
    }

    let container = json!({"securityContext": {"runAsNonRoot": true}});
    let mut made = script("c", "id -u");
    made["securityContext"] = container["securityContext"].clone();
    world.create("root", json!({"containers": [made]})).await;
    let waits = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == json!("CreateContainerConfigError")
    };
    let pod = world.until("root", "is refused", waits).await;
    let message =
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().expect("text").to_owned();
    assert!(
        message.starts_with("container has runAsNonRoot and image will run as root (pod: \"root_default("),
        "{message}"
    );
    world.delete("root").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_are_the_nodes_own_or_the_pod_is_told() {
    let Some(world) = world_with("profiles", Options { has_network: true, ..Options::default() }).await else { return };
    let folder = world.containerd.path("kubelet/seccomp");
    std::fs::create_dir_all(&folder).expect("a directory");
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    std::fs::write(folder.join("still.json"), profile.to_string()).expect("a file");
    let local = |file: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": file}});
    let text = "mkdir /x 2>/dev/null && echo made || echo refused";
    world.check("local", json!({}), local("still.json"), text, &["refused"]).await;
    world.check("whole", json!({"securityContext": local("still.json")}), json!({}), text, &["refused"]).await;
    world.check("none", json!({}), json!({}), text, &["made"]).await;

    let mut container = script("c", "true");
    container["securityContext"] = local("none.json");
    world.create("absent", json!({"containers": [container]})).await;
    let waits = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == json!("CreateContainerError")
    };
    let pod = world.until("absent", "waits", waits).await;
    let why = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().expect("text").to_owned();
    let file = folder.join("none.json").display().to_string();
    assert!(why.contains("cannot load seccomp profile") && why.contains(&file), "{why}");
    world.told("absent", &format!("Failed: Error: {why}")).await;
    world.delete("absent").await;

    let confined = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
    if is_enabled(Path::new("/sys")) {
        let found = world.says("armor", json!({}), json!({"securityContext": confined}), "cat /proc/self/attr/current");
        let found = found.await;
        assert!(found.iter().any(|line| line.starts_with("cri-containerd.apparmor.d")), "{found:?}");
        return;
    }
    let mut container = script("c", "true");
    container["securityContext"] = confined;
    world.create("armor", json!({"containers": [container]})).await;
    let refused = world.until("armor", "is refused", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(refused["status"]["reason"], json!("AppArmor"));
    let message = "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host";
    assert_eq!(refused["status"]["message"], json!(message));
    world.told("armor", "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host").await;
    world.delete("armor").await;
}
