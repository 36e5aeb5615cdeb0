//! Scripts of an operator's make and unmake the directories of local volumes, in pods that really run: once for each
//! volume, even where the daemon dies in their middle.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::machine::{IMAGE, Machine, PATIENCE};

/// Says what it was asked, and takes its time.
const SETUP: &str = r#"set -eu
echo "$VOL_DIR" >>"$(dirname "$VOL_DIR")/setups"
mkdir -m 0777 -p "$VOL_DIR"
sleep 3
printf '%s %s' "$VOL_SIZE_BYTES" "$VOL_MODE" >"$VOL_DIR/made"
"#;
/// Keeps what was in the volume.
const TEARDOWN: &str = r#"set -eu
mv "$VOL_DIR" "$(dirname "$VOL_DIR")/kept"
"#;
const WORKLOAD: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: data }
spec:
  accessModes: [ReadWriteOnce]
  resources: { requests: { storage: 3Mi } }
---
apiVersion: v1
kind: Pod
metadata: { name: reader }
spec:
  restartPolicy: Never
  containers:
    - name: reader
      image: IMAGE
      command: [sh, -c, 'cat /data/made; echo mine >/data/own']
      volumeMounts: [{ name: data, mountPath: /data }]
  volumes:
    - name: data
      persistentVolumeClaim: { claimName: data }
"#;

pub(crate) async fn scripts() {
    let Some(mut machine) = Machine::new() else { return };
    machine.start();
    machine.node_ready().await;
    let map = ["-n", "kube-system", "configmap", "local-path-config"];
    machine.until("the settings are there", &map, Value::is_object).await;
    // As in K3s, a start sets right what others have changed in packaged objects, unless it is told to keep off.
    fs::write(machine.disk("data/server/manifests/local-storage.yaml.skip"), "").expect("a file");

    // One that fails is told to whoever waits for the volume.
    customise(&machine, "echo 'no space for you' >/dev/termination-log; exit 3").await;
    machine.apply(&WORKLOAD.replace("IMAGE", IMAGE)).await;
    let is_told = |list: &Value| {
        let mut told = list["items"].as_array().into_iter().flatten().filter_map(|event| event["message"].as_str());
        told.any(|said| said.contains("the helper pod failed with exit code 3") && said.contains("no space for you"))
    };
    machine.until("the failure is told", &["events"], is_told).await;

    // Whoever waits has it as soon as the script is mended, and the daemon may die while it runs.
    customise(&machine, SETUP).await;
    let storage = machine.disk("data/storage");
    let began = Instant::now();
    let setups = || fs::read_to_string(storage.join("setups")).unwrap_or_default();
    while setups().is_empty() {
        assert!(began.elapsed() < PATIENCE, "no script runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    machine.end_daemon(Signal::KILL).await;
    machine.start();
    machine.node_ready().await;
    let has_ended = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    machine.until("it reads", &["pod", "reader"], has_ended).await;
    assert_eq!(machine.told(&["logs", "reader"]).await, "3145728 Filesystem");
    let claim = machine.get(&["pvc", "data"]).await;
    let volume = claim["spec"]["volumeName"].as_str().expect("it is bound").to_owned();
    let directory = storage.join(format!("{volume}_default_data"));
    assert_eq!(setups(), format!("{}\n", directory.display()), "it ran once");
    assert_eq!(fs::read_to_string(directory.join("own")).expect("the pod wrote it"), "mine\n");

    machine.told(&["delete", "pod/reader", "pvc/data", "--timeout=60s"]).await;
    machine.until("the volume goes", &["pv"], |list| list["items"] == json!([])).await;
    assert!(!directory.exists(), "the script has moved it");
    assert_eq!(fs::read_to_string(storage.join("kept/own")).expect("the script kept it"), "mine\n");
    machine.until("nobody helps any more", &["-n", "kube-system", "pods"], |list| list["items"] == json!([])).await;
    assert!(machine.end_daemon(Signal::TERM).await.success());
}

/// Puts the operator's scripts into the settings, with the pod that runs them.
async fn customise(machine: &Machine, setup: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "helper-pod" },
        "spec": { "containers": [{ "name": "helper-pod", "image": IMAGE }] },
    });
    let data = json!({ "data": { "setup": setup, "teardown": TEARDOWN, "helperPod.yaml": pod.to_string() } });
    let words = ["-n", "kube-system", "patch", "configmap", "local-path-config", "--type=merge", "-p"];
    machine.told(&[&words[..], &[&data.to_string()]].concat()).await;
}
