//! Volumes of NFS, from the machine's own server: by their name in the pod, and through a claim.

use crate::guest::Guest;
use crate::kubectl::holds;

const EXPORTS: &str = "/srv/direct *(rw,no_root_squash,insecure,no_subtree_check)
/srv/claimed *(rw,no_root_squash,insecure,no_subtree_check)
";
/// Each pod reads what was there, and writes something.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: direct}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, 'cat /v/question; echo answer >/v/answer; touch /r/refused; exec sleep 100000']
    volumeMounts: [{name: v, mountPath: /v}, {name: r, mountPath: /r}]
  volumes:
  - name: v
    nfs: {server: 127.0.0.1, path: /srv/direct}
  - name: r
    nfs: {server: 127.0.0.1, path: /srv/direct, readOnly: true}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: shared}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ''
  mountOptions: ['nfsvers=4.1']
  nfs: {server: 10.0.2.15, path: /srv/claimed}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: shared}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: ''
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: Pod
metadata: {name: claimed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, 'cat /v/question; echo answer >/v/answer; exec sleep 100000']
    volumeMounts: [{name: v, mountPath: /v}]
  volumes:
  - name: v
    persistentVolumeClaim: {claimName: shared}
";
/// Mounts of others' files, as the kernel lists them.
const MOUNTS: &str = "awk '$3 ~ /^nfs4?$/ { print $1, $2, $4 }' /proc/mounts";

pub(crate) fn nfs() {
    let Some(guest) = Guest::boot() else { return };
    guest.write("/etc/exports", EXPORTS);
    guest.told(
        "mkdir /srv/direct /srv/claimed && echo direct >/srv/direct/question && echo claimed >/srv/claimed/question",
    );
    guest.told("systemctl start nfs-server");
    guest.install("");
    guest.node_ready();
    guest.apply(PODS);
    for pod in ["direct", "claimed"] {
        guest.ready(pod);
        guest.until("it has written", &format!("cat /srv/{pod}/answer"), |said| said.out == "answer\n");
        let said = guest.asked(&["logs", pod]);
        assert!(said.starts_with(&format!("{pod}\n")), "{said}");
    }
    let refused = guest.asked(&["logs", "direct"]);
    assert!(refused.contains("Read-only file system"), "{refused}");
    let mounts = guest.told(MOUNTS);
    let claimed = mounts.lines().find(|line| line.starts_with("10.0.2.15:/srv/claimed ")).expect("it is mounted");
    assert!(claimed.contains("vers=4.1") && claimed.contains("/volumes/kubernetes.io~nfs/shared "), "{mounts}");
    let claim = guest.get(&["pvc", "shared"]);
    assert_eq!(claim["status"]["phase"], "Bound", "{claim:#}");

    // Another life of the daemon knows what is mounted, and for whom.
    let life = guest.life("claimed");
    guest.told("systemctl restart k3s");
    guest.wait("the node is ready", &["node", crate::guest::NODE], |node| holds(node, "Ready"));
    assert_eq!(guest.life("claimed"), life);
    assert_eq!(guest.told(MOUNTS), mounts);

    guest.delete_pods(&["direct", "claimed"]);
    guest.until("all is unmounted", MOUNTS, |said| said.code == 0 && said.out.is_empty());
    guest.until("nothing of the pods is left", "ls -A /var/lib/kubelet/pods", |said| said.out.is_empty());
    assert_eq!(guest.told("cat /srv/direct/answer /srv/claimed/answer"), "answer\nanswer\n", "only the mounts went");
}
