//! Pods with users of their own: root inside is nobody outside, files of volumes are whose they seem to be, and no two
//! pods share an id, across restarts of the daemon too. An engine that can't do it says so.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::machine::{IMAGE, Machine, NODE};

/// Ids of one pod.
const LENGTH: u32 = 65_536;
/// Who it is, what it may do, and whose its files are.
const LOOKS: &str = "set -e; cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /own/mine; \
    stat -c '%u %n' /own/mine /settings/key /secret/key; cat /before/kept; \
    mount -t tmpfs none /tmp 2>/dev/null && echo mounted || echo refused; \
    (echo 1 >/proc/sys/kernel/panic) 2>/dev/null && echo written || echo refused";

pub(crate) async fn users() {
    let Some(mut machine) = Machine::new() else { return };
    machine.start();
    machine.node_ready().await;
    let node = machine.get(&["node", NODE]).await;
    let handlers = node["status"]["runtimeHandlers"].as_array().cloned().unwrap_or_default();
    let default = handlers.iter().find(|handler| handler["name"].as_str().unwrap_or_default().is_empty());
    if default.is_none_or(|handler| handler["features"]["userNamespaces"] != true) {
        machine.apply(&pod("refused").to_string()).await;
        let is_told = |list: &Value| list.to_string().contains("runtime does not support user namespaces");
        machine.until("the pod is told", &["events"], is_told).await;
        println!("ignored: this engine has no user namespaces");
        assert!(machine.end_daemon(Signal::TERM).await.success());
        return;
    }

    let volume =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": { "key": "a" } });
    machine.apply(&volume.to_string()).await;
    machine.told(&["create", "secret", "generic", "secret", "--from-literal=key=b"]).await;
    let mut found = BTreeSet::new();
    for name in ["first", "second"] {
        machine.apply(&pod(name).to_string()).await;
        found.insert(looked(&machine, name).await);
    }
    // The next life of the daemon knows which ranges are taken.
    machine.end_daemon(Signal::KILL).await;
    machine.start();
    machine.node_ready().await;
    machine.apply(&pod("third").to_string()).await;
    found.insert(looked(&machine, "third").await);
    assert_eq!(found.len(), 3, "no two pods share ids: {found:?}");
    for name in ["first", "second"] {
        assert_eq!(machine.get(&["pod", name]).await["status"]["containerStatuses"][0]["restartCount"], 0);
        looked(&machine, name).await;
    }
    // Whose range is given back takes nobody's.
    machine.told(&["delete", "pod", "first", "--timeout=60s", "--grace-period=1"]).await;
    machine.apply(&pod("fourth").to_string()).await;
    found.insert(looked(&machine, "fourth").await);
    assert!(found.len() <= 4);
    assert!(machine.end_daemon(Signal::TERM).await.success());
}

fn pod(name: &str) -> Value {
    let mount = |name: &str| json!({ "name": name, "mountPath": format!("/{name}") });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "hostUsers": false, "terminationGracePeriodSeconds": 1,
            "initContainers": [{
                "name": "before", "image": IMAGE, "command": ["sh", "-c", "echo kept >/before/kept"],
                "volumeMounts": [mount("before")],
            }],
            "containers": [{
                "name": "c", "image": IMAGE, "command": ["sleep", "10000"],
                "volumeMounts": [mount("own"), mount("before"), mount("settings"), mount("secret")],
            }],
            "volumes": [
                { "name": "own", "emptyDir": {} },
                { "name": "before", "emptyDir": { "medium": "Memory" } },
                { "name": "settings", "configMap": { "name": "settings", "optional": true } },
                { "name": "secret", "secret": { "secretName": "secret", "optional": true } },
            ],
        },
    })
}

/// Looks at a pod from inside and outside. Returns the first id of its range.
async fn looked(machine: &Machine, name: &str) -> u32 {
    let pod = machine.ready(name).await;
    let said = machine.told(&["exec", name, "--", "sh", "-c", LOOKS]).await;
    let rows: Vec<String> = said.lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let base: u32 = rows[0].split(' ').nth(1).and_then(|id| id.parse().ok()).expect("a mapping");
    let map = format!("0 {base} {LENGTH}");
    let expected = [&map, &map, "0", "0 /own/mine", "0 /settings/key", "0 /secret/key", "kept", "refused", "refused"];
    assert_eq!(rows, expected, "{name}: {said}");
    assert!(base >= LENGTH && base.is_multiple_of(LENGTH), "{base}");

    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("it runs");
    let id = id.rsplit('/').next().expect("an id");
    let sleeps = machine.processes().into_iter().find(|(pid, line)| {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        line.starts_with("sleep ") && cgroups.contains(id)
    });
    let (pid, _) = sleeps.expect("its process is there");
    assert_eq!(fs::metadata(format!("/proc/{pid}")).expect("it lives").uid(), base, "root inside is nobody outside");
    let uid = pod["metadata"]["uid"].as_str().expect("set");
    let file = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/own/mine");
    let owner = fs::metadata(machine.seen(&file)).expect("the volume is on disk").uid();
    assert_eq!(owner, 0, "on disk it is root's, as in the pod");
    base
}
