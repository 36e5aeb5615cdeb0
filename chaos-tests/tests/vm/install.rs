//! What people do with systemd: install, restart, install again, stop everything, remove everything.

use crate::guest::{Guest, NODE};

/// Where the installer, the daemon and pods put something. Left out is what others write there, and what stays, as with K3s:
/// logs of pods.
const FILES: &str = "find /etc /opt /root /srv /usr/local /usr/libexec /var/lib /var/log /run -xdev \
    ! -path '/run/systemd/*' ! -path '/run/udev/*' ! -path '/run/log/*' ! -path '/var/log/journal/*' \
    ! -path '/var/log/pods*' ! -path '/var/log/containers*' ! -path '/run/netns' \
    ! -path '/root/fresh*' ! -path '/root/.kube*' ! -path '/var/lib/systemd/*' | sort";
/// One that somebody looks after, and one that nobody makes anew.
const PODS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: IMAGE, command: [httpd, -f, -p, '80']}
---
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [sleep, '100000']
    volumeMounts: [{name: memory, mountPath: /memory}]
  volumes:
  - {name: memory, emptyDir: {medium: Memory}}
";

pub(crate) fn install() {
    let Some(guest) = Guest::boot() else { return };
    let before = guest.told(FILES);
    let said = guest.install("");
    for wanted in ["k3sd: k3s is ready", "k3sd: the node is ready", "journalctl -u k3s -f"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    for (property, wanted) in [
        ("ActiveState", "active"),
        ("UnitFileState", "enabled"),
        ("Type", "notify"),
        ("KillMode", "process"),
        ("Delegate", "yes"),
        ("Restart", "always"),
        ("TasksMax", "infinity"),
    ] {
        assert_eq!(show(&guest, property), wanted, "{property}");
    }
    // Debian's names stay Debian's.
    assert_eq!(
        guest.told("cd /usr/local/bin; readlink k3s crictl; ls kubectl ctr 2>/dev/null || true"),
        "k3sd\nk3sd\n"
    );
    let nodes = guest.told("k3sd kubectl get nodes --no-headers");
    assert!(nodes.starts_with(NODE) && nodes.contains(" Ready "), "{nodes}");
    guest.node_ready();
    guest.apply(PODS);
    guest.ready("one");
    guest.asked(&["rollout", "status", "deployment/web", "--timeout=240s"]);

    lives_on(&guest);
    installed_again(&guest);
    all_killed(&guest);
    guest.told("k3s-uninstall.sh");
    removed(&guest, &before);
}

/// Pods outlive the daemon, whatever ends it.
fn lives_on(guest: &Guest) {
    let life = guest.life("one");
    let ways = [
        ("it is restarted", "systemctl restart k3s"),
        ("it is killed", "systemctl kill --kill-whom=main --signal=KILL k3s"),
        ("it is stopped and started", "systemctl stop k3s && pgrep -f '^sleep 100000' && systemctl start k3s"),
    ];
    for (what, command) in ways {
        let process = main_process(guest);
        guest.told(command);
        guest.until(what, "systemctl is-active k3s && systemctl show --property MainPID --value k3s", |said| {
            let found = said.out.lines().nth(1).unwrap_or_default();
            said.code == 0 && found != "0" && found != process
        });
        guest.node_ready();
        assert_eq!(guest.life("one"), life, "{what}");
    }
    assert_eq!(guest.told("pgrep -cx containerd").trim(), "1", "one engine serves all lives of the daemon");
}

/// The second time there is nothing to do.
fn installed_again(guest: &Guest) {
    let (life, process) = (guest.life("one"), main_process(guest));
    let said = guest.install_again("");
    assert!(said.contains("k3sd: k3s runs and nothing has changed: not restarted"), "{said}");
    for unwanted in ["installed", "linked", "wrote"] {
        assert!(!said.contains(&format!("k3sd: {unwanted} ")), "{said}");
    }
    assert_eq!((guest.life("one"), main_process(guest)), (life, process));
}

/// Everything that runs ends, and what is on disk stays.
fn all_killed(guest: &Guest) {
    guest.told("k3s-killall.sh");
    assert_eq!(guest.run("systemctl is-active k3s").out.trim(), "inactive");
    nothing_runs(guest);
    guest.told("test -e /etc/systemd/system/k3s.service && test -d /var/lib/rancher/k3s/server/db");
    guest.told("systemctl start k3s");
    guest.node_ready();
    let is_back = |list: &serde_json::Value| {
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let restarted = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
        pods.len() == 2 && pods.iter().all(|pod| restarted(pod) && crate::kubectl::holds(pod, "Ready"))
    };
    guest.wait("the same pods run again", &["pods"], is_back);
}

/// No process, mount, interface, table, unit or cgroup of pods or their engine.
fn nothing_runs(guest: &Guest) {
    for (what, command) in [
        ("process", "pgrep -af 'k3sd|containerd|sleep 100000|httpd' | grep -v pgrep"),
        ("mount", "grep -e /run/k3s -e /var/lib/kubelet -e cni- /proc/mounts"),
        ("interface", "ip -o link | grep -e cni0 -e veth"),
        ("address", "ip -o address | grep 10.43."),
        ("table", "nft list tables | grep k3sd"),
        ("cgroup", "find /sys/fs/cgroup -name '*kubepods*' -o -name '*cri-containerd*'"),
        ("unit", "systemctl list-units --all --plain --no-legend '*kubepods*' 'cri-containerd*'"),
        ("failed unit", "systemctl list-units --failed --plain --no-legend"),
    ] {
        let said = guest.run(command);
        assert_eq!(said.out, "", "{what}: {said:?}");
    }
}

/// The machine is as it was.
fn removed(guest: &Guest, before: &str) {
    nothing_runs(guest);
    assert_eq!(guest.run("systemctl show --property LoadState --value k3s").out.trim(), "not-found");
    let after = guest.told(FILES);
    let left: Vec<&str> = after.lines().filter(|file| !before.lines().any(|known| known == *file)).collect();
    assert_eq!(left, Vec::<&str>::new(), "files are left");
    let lost: Vec<&str> = before.lines().filter(|file| !after.lines().any(|known| known == *file)).collect();
    assert_eq!(lost, Vec::<&str>::new(), "files are lost");
}

fn main_process(guest: &Guest) -> String {
    show(guest, "MainPID")
}

fn show(guest: &Guest, property: &str) -> String {
    guest.told(&format!("systemctl show --property {property} --value k3s")).trim().to_owned()
}
