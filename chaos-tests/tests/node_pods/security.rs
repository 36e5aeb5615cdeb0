//! As whom containers run, what they may do, and what they see.

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
    let ids = "id -u; id -g; id -G";
    let pod = json!({"securityContext": {"runAsUser": 1001, "runAsGroup": 2002, "fsGroup": 3003, "supplementalGroups": [4004]}});
    world.check("ids", pod, none(), ids, &["1001", "2002", "2002 3003 4004"]).await;
    world
        .check(
            "own",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"runAsUser": 7, "runAsGroup": 8}),
            ids,
            &["7", "8", "8"],
        )
        .await;

    let drop = json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}});
    world.check("caps", none(), drop, &row("CapEff"), &["0000000000000400"]).await;
    let fixed = json!({"allowPrivilegeEscalation": false});
    world.check("escalation", none(), fixed, &row("NoNewPrivs"), &["1"]).await;
    let seccomp = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    world.check("seccomp", none(), seccomp, &row("Seccomp"), &["2"]).await;
    world.check("unconfined", none(), none(), &row("Seccomp"), &["0"]).await;
    let read_only = json!({"readOnlyRootFilesystem": true});
    let touch = "touch /x 2>/dev/null && echo written || echo read only";
    world.check("root", none(), read_only, touch, &["read only"]).await;
    world.check("rootrw", none(), none(), touch, &["written"]).await;

    let sys = "touch /proc/sys/kernel/domainname 2>/dev/null; echo same > /proc/sys/kernel/domainname && echo written || echo refused";
    let refused = world.says("proc", none(), json!({}), sys).await;
    assert_eq!(refused.last().map(String::as_str), Some("refused"));
    let privileged = json!({"privileged": true});
    world
        .check(
            "privileged",
            none(),
            privileged,
            "ls /dev/kmsg; sed -n 's/^Seccomp:[ \\t]*//p' /proc/self/status",
            &["/dev/kmsg", "0"],
        )
        .await;

    let inode =
        |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string();
    for (name, kind, field) in
        [("hostpid", "pid", "hostPID"), ("hostipc", "ipc", "hostIPC"), ("hostnet", "net", "hostNetwork")]
    {
        let look = format!("readlink /proc/self/ns/{kind}");
        let shared = world.says(name, json!({field: true}), json!({}), &look).await;
        assert_eq!(shared, [inode(kind)], "{field}");
        let own = world.says(&format!("{name}no"), json!({}), json!({}), &look).await;
        assert_ne!(own, [inode(kind)], "without {field}");
    }
    // The sandbox's own process is the first of those that all see.
    world.check("shared", json!({"shareProcessNamespace": true}), none(), "cat /proc/1/comm", &["pause"]).await;
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
