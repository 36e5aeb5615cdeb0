//! Services of SCTP, which few kernels and no image at hand speak: pods use the machine's own `socat`.

use std::collections::BTreeSet;

use crate::guest::{ADDRESS, Guest};

const APPLICATION: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: names}
spec:
  replicas: 2
  selector: {matchLabels: {app: names}}
  template:
    metadata: {labels: {app: names}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: IMAGE
        command: [/usr/bin/socat, 'SCTP-LISTEN:5000,fork,reuseaddr', 'EXEC:/bin/hostname']
        ports: [{containerPort: 5000, protocol: SCTP}]
        volumeMounts:
        - {name: usr, mountPath: /usr, readOnly: true}
        - {name: lib, mountPath: /lib, readOnly: true}
        - {name: lib64, mountPath: /lib64, readOnly: true}
      volumes:
      - {name: usr, hostPath: {path: /usr}}
      - {name: lib, hostPath: {path: /usr/lib}}
      - {name: lib64, hostPath: {path: /usr/lib64}}
---
apiVersion: v1
kind: Service
metadata: {name: names}
spec:
  type: NodePort
  selector: {app: names}
  ports: [{protocol: SCTP, port: 6000, targetPort: 5000, nodePort: 30500}]
";
/// Enough that both answer, if each is as likely as the other: once in 16,000 times it fails by chance.
const QUESTIONS: usize = 15;

pub(crate) fn sctp() {
    let Some(guest) = Guest::boot() else { return };
    guest.told("modprobe sctp");
    guest.install("");
    guest.node_ready();
    guest.apply(APPLICATION);
    guest.asked(&["rollout", "status", "deployment/names", "--timeout=240s"]);
    let list = guest.get(&["pods"]);
    let pods: Vec<_> = list["items"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let names: BTreeSet<String> = pods.iter().map(|pod| text(&pod["metadata"]["name"])).collect();
    assert_eq!(names.len(), 2, "{list:#}");
    let pod = text(&pods[0]["status"]["podIP"]);
    assert_eq!(guest.told(&ask(&format!("{pod}:5000"), 1)).trim(), text(&pods[0]["metadata"]["name"]));

    let service = text(&guest.get(&["service", "names"])["spec"]["clusterIP"]);
    for place in [format!("{service}:6000"), format!("{ADDRESS}:30500"), "127.0.0.1:30500".to_owned()] {
        guest.until("the service is carried", &ask(&place, 1), |said| names.contains(said.out.trim()));
        let said = guest.told(&ask(&place, QUESTIONS));
        let found: BTreeSet<String> = said.lines().map(str::to_owned).collect();
        assert_eq!(found, names, "{place}: {said}");
    }
    // From a pod, by name, itself perhaps included.
    let socat =
        ["exec", "deploy/names", "--", "/usr/bin/socat", "-u", "SCTP:names.default.svc.cluster.local:6000", "-"];
    let said = guest.asked(&socat);
    assert!(names.contains(said.trim()), "{said}");

    // One that goes is asked no more, and with the last the port is closed.
    guest.asked(&["scale", "deployment/names", "--replicas=1", "--timeout=240s"]);
    let one = guest.wait("one is left", &["pods"], |list| list["items"].as_array().is_some_and(|pods| pods.len() == 1));
    let left = text(&one["items"][0]["metadata"]["name"]);
    guest.until("it answers alone", &ask(&format!("{service}:6000"), QUESTIONS), |said| {
        said.code == 0 && said.out.lines().all(|line| line == left)
    });
    guest.asked(&["delete", "service", "names"]);
    guest.until("nobody answers for it", &ask(&format!("{ADDRESS}:30500"), 1), |said| said.code != 0);
}

/// Asks so many times who answers there. SCTP has no half-closed connections, so nothing is sent.
fn ask(place: &str, times: usize) -> String {
    format!("for time in $(seq {times}); do timeout 30 socat -u SCTP:{place} - || exit; done")
}
