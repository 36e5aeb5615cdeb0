//! The machine goes down in good order: logind waits for pods to end, and the next life of the machine runs them again.

use serde_json::Value;

use crate::guest::Guest;
use crate::kubectl::holds;

/// Longer than anybody sets it: what takes seconds takes a minute here.
const SETTINGS: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
shutdownGracePeriod: 100s
shutdownGracePeriodCriticalPods: 20s
";
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: speaker}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 60
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, \"trap 'sleep 2; echo bye >>/words/last; exit 0' TERM; while :; do sleep 1; done\"]
    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo asked >>/words/last']}}}
    volumeMounts: [{name: words, mountPath: /words}]
  volumes:
  - {name: words, hostPath: {path: /root/words, type: DirectoryOrCreate}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - {name: c, image: IMAGE, command: [httpd, -f, -p, '80']}
";

pub(crate) fn shutdown() {
    let Some(mut guest) = Guest::boot() else { return };
    guest.write("/etc/rancher/k3s/kubelet.yaml", SETTINGS);
    guest.install("server --kubelet-arg=config=/etc/rancher/k3s/kubelet.yaml");
    guest.node_ready();
    let said =
        guest.until("it holds the machine up", "systemd-inhibit --list --no-legend", |said| !said.out.is_empty());
    let words: Vec<&str> = said.out.split_whitespace().collect();
    for wanted in ["k3sd", "shutdown", "delay"] {
        assert!(words.contains(&wanted), "{wanted}: {said:?}");
    }
    let manager = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager";
    let delay = guest.told(&format!("busctl get-property {manager} InhibitDelayMaxUSec"));
    assert_eq!(delay, "t 100000000\n", "logind would wait as long as pods may take");

    guest.apply(PODS);
    guest.ready("speaker");
    guest.asked(&["rollout", "status", "deployment/web", "--timeout=240s"]);
    guest.told("test ! -e /root/words/last");
    guest.reboot();
    assert_eq!(guest.told("cat /root/words/last"), "asked\nbye\n", "it had the time to say so");

    guest.until("it is started with the machine", "systemctl is-active k3s", |said| said.out.trim() == "active");
    guest.node_ready();
    let status = guest.get(&["pod", "speaker"])["status"].clone();
    assert_eq!(status["reason"], "Terminated", "{status:#}");
    assert_eq!(status["message"], "Pod was terminated in response to imminent node shutdown.", "{status:#}");
    let available = |deployment: &Value| holds(deployment, "Available") && deployment["status"]["readyReplicas"] == 2;
    guest.wait("others run again", &["deployment", "web"], available);
    let runs = |list: &Value| {
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.iter().filter(|pod| pod["status"]["phase"] == "Running" && holds(pod, "Ready")).count() == 2
    };
    guest.wait("in pods that run", &["pods", "--selector=app=web"], runs);
    guest.until("the next end is waited for, too", "systemd-inhibit --list --no-legend", |said| {
        said.out.contains("k3sd")
    });

    guest.told("k3s-uninstall.sh");
    guest.told("test ! -e /etc/systemd/logind.conf.d/99-kubelet.conf");
    let delay = format!("busctl get-property {manager} InhibitDelayMaxUSec");
    guest.until("logind waits as long as before", &delay, |said| said.out == "t 5000000\n");
}
