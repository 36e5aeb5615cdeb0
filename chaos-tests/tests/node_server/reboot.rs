//! The power goes off and comes back: what is on disk is all that is left, and pods run again.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::facts::Facts;
use crate::kubectl::holds;
use crate::machine::Machine;

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      initContainers:
      - name: first
        image: docker.io/library/busybox:1
        command: [sh, -c, "echo begun >> /e/starts; test ! -e /m/seen && touch /m/seen"]
        volumeMounts: &both [{name: e, mountPath: /e}, {name: m, mountPath: /m}]
      containers:
      - name: c
        image: docker.io/library/busybox:1
        command: [sh, -c, "exec httpd -f -p 80 -h /e"]
        readinessProbe: {httpGet: {path: /starts, port: 80}, periodSeconds: 1}
        volumeMounts: *both
      volumes:
      - {name: e, emptyDir: {}}
      - {name: m, emptyDir: {medium: Memory}}
"#;

pub(crate) async fn reboot() {
    let Some(mut machine) = Machine::new() else { return };
    machine.start();
    machine.node_ready().await;
    machine.apply(WEB).await;
    machine.told(&["rollout", "status", "deployment/web", "--timeout=60s"]).await;
    let names = names(&machine).await;
    machine.reboot();
    assert_eq!(
        machine.running("containerd-shim-runc-v2"),
        Vec::<u32>::new(),
        "a machine that was off has no processes"
    );
    let began = Instant::now();
    machine.start();
    machine.node_ready().await;
    // Those from before: a reboot ends containers, not pods.
    let again = |list: &Value| {
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let back = |pod: &Value| holds(pod, "Ready") && pod["status"]["containerStatuses"][0]["restartCount"] == 1;
        pods.len() == 3 && pods.iter().all(back)
    };
    machine.until("they run again", &["pods"], again).await;
    println!("pods were back {:?} after the daemon was started", began.elapsed());
    assert_eq!(names, self::names(&machine).await);
    for name in &names {
        // Disks keep what they have, memory doesn't.
        assert_eq!(machine.within(name, "cat /e/starts").await, "begun\nbegun\n");
    }
    let sandboxes = machine.running("containerd-shim-runc-v2").len();
    assert_eq!(sandboxes, 3, "{:?}", Facts::of(&machine).await);
    assert!(machine.end_daemon(Signal::TERM).await.success());
}

async fn names(machine: &Machine) -> Vec<String> {
    let list = machine.get(&["pods"]).await;
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect()
}
