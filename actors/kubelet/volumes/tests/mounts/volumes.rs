//! What a pod's volumes look like from outside.

use std::fs;
use std::future::Future;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer::{InformerArgs, informer};
use k3sd_kubelet_volumes::{
    Allocatable, Mounted, PodIdentity, SubPath, VolumeError, Volumes, VolumesConfig, VolumesTree, tree,
};
use k3sd_runtime::{Clock, Signal, System, Tree};
use k8s_openapi::api::core::v1::{Node as CoreNode, Pod};
use serde_json::{Value, json};

use crate::Test;
use crate::api::Api;

/// All of them; see [`crate::main`].
pub(crate) const TESTS: &[Test] = &[
    ("files_follow_their_objects", files_follow_their_objects),
    ("what_is_missing_is_named_and_comes_later", what_is_missing_is_named_and_comes_later),
    ("tokens_are_renewed_in_time", tokens_are_renewed_in_time),
    ("empty_dirs_are_the_groups_and_counted", empty_dirs_are_the_groups_and_counted),
    ("sub_paths_stay_in_their_volume", sub_paths_stay_in_their_volume),
    ("claims_lead_to_directories_that_outlive_pods", claims_lead_to_directories_that_outlive_pods),
    ("a_restart_adopts_and_deaths_stop_no_update", a_restart_adopts_and_deaths_stop_no_update),
    ("nfs_is_mounted_by_the_hosts_program_once", nfs_is_mounted_by_the_hosts_program_once),
    ("whatever_dies_and_whenever_nothing_is_left", whatever_dies_and_whenever_nothing_is_left),
    ("nothing_is_deleted_through_a_mount", nothing_is_deleted_through_a_mount),
];

/// However slow the machine is.
const LIMIT: Duration = Duration::from_secs(60);
const UID: &str = "5e1f0000-0000-4000-8000-000000000001";

/// A node's volumes, running.
pub(crate) struct Node {
    pub(crate) api: Api,
    tree: Tree,
    system: System,
    pub(crate) volumes: Volumes,
    root: PathBuf,
}

impl Node {
    pub(crate) async fn start(api: &Api, root: &Path, clock: Clock) -> Self {
        Self::with_program(api, root, clock, "no-such-program".into()).await
    }

    async fn with_program(api: &Api, root: &Path, clock: Clock, mount_program: PathBuf) -> Self {
        let (events, recorder) = k3sd_client::events::recorder("events", api.connect());
        let config = VolumesConfig {
            root: root.to_owned(),
            node_name: "node".to_owned(),
            allocatable: Allocatable { cpu_milli: 2000, memory: 1 << 30, ephemeral_storage: 1 << 30 },
            mount_program,
            recorder: Some(recorder.component("kubelet").host("node")),
        };
        let own = InformerArgs::<CoreNode>::all(api.connect()).fields("metadata.name=node");
        let (own_child, own_node) = informer("own-node", own);
        let VolumesTree { spec, volumes } = tree(config, api.connect(), Some(own_node));
        let system = System::new(clock);
        let tree = system.start(spec.child(own_child).child(events));
        tree.ready().await.unwrap();
        Self { api: api.clone(), tree, system, volumes, root: root.to_owned() }
    }

    pub(crate) async fn stop(self) {
        self.tree.stop();
        self.tree.ended().await;
    }

    pub(crate) fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.root.join("pods").join(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    /// Nothing is left of any pod.
    pub(crate) fn is_clean(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.root.join("pods");
        assert!(!mounts.contains(below.to_str().unwrap()), "still mounted:\n{mounts}");
        assert_eq!(fs::read_dir(&below).unwrap().count(), 0);
    }
}

pub(crate) fn on_a_clock_of(is_paused: bool, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(is_paused).build().unwrap();
    runtime.block_on(async {
        if is_paused {
            test.await;
        } else {
            tokio::time::timeout(LIMIT, test).await.expect("the test ends in time");
        }
    });
}

pub(crate) fn real(test: impl Future<Output = ()>) {
    on_a_clock_of(false, test);
}

/// Comes back when the file holds this.
async fn holds(file: &Path, text: &str) {
    while fs::read_to_string(file).ok().as_deref() != Some(text) {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn pod(uid: &str, volumes: &Value) -> Arc<Pod> {
    let mounts: Vec<_> =
        volumes.as_array().unwrap().iter().map(|volume| json!({"name": volume["name"], "mountPath": "/x"})).collect();
    let pod = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": uid, "labels": {"a": "1"}},
        "spec": {"containers": [{"name": "c", "volumeMounts": mounts}], "volumes": volumes, "serviceAccountName": "sa"},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

pub(crate) fn who(uid: &str, fs_group: Option<u32>) -> PodIdentity {
    PodIdentity { uid: uid.to_owned(), fs_group, memory_limit: None }
}

fn config_map(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}, "data": {"k": value}})
}

const MAP: &str = "/api/v1/namespaces/n/configmaps/m";

fn is_tmpfs(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str() && line.contains(" - tmpfs "))
}

fn files_follow_their_objects() {
    real(async {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        api.put(MAP, config_map("1"));
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"}, "data": {"x": "c2VjcmV0"}});
        api.put("/api/v1/namespaces/n/secrets/s", secret);
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let volumes = json!([
            {"name": "map", "configMap": {"name": "m", "defaultMode": 420}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "all", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"configMap": {"name": "m", "items": [{"key": "k", "path": "deep/k"}]}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            ]}},
            {"name": "unused", "configMap": {"name": "none"}},
        ]);
        let mut object = Pod::clone(&pod(UID, &volumes));
        object.spec.as_mut().unwrap().containers[0]
            .volume_mounts
            .as_mut()
            .unwrap()
            .retain(|mount| mount.name != "unused");
        let object = Arc::new(object);
        let mounted = node.volumes.set_up(&object, &who(UID, None)).await.unwrap();
        assert_eq!(mounted.volumes.keys().collect::<Vec<_>>(), ["all", "map", "secret"]);
        assert!(mounted.volumes.values().all(|volume| volume.read_only && !volume.is_block));
        let at = |plugin, name| node.volume(UID, plugin, name);
        assert_eq!(mounted.volumes["map"].path, at("configmap", "map"));
        assert!(
            is_tmpfs(&at("secret", "secret"))
                && is_tmpfs(&at("projected", "all"))
                && !is_tmpfs(&at("configmap", "map"))
        );
        assert_eq!(fs::read_to_string(at("secret", "secret").join("x")).unwrap(), "secret");
        assert_eq!(fs::metadata(at("secret", "secret").join("x")).unwrap().mode() & 0o777, 0o400);
        assert_eq!(fs::read_to_string(at("projected", "all").join("token")).unwrap(), "token-1");
        api.put(MAP, config_map("2"));
        holds(&at("configmap", "map").join("k"), "2").await;
        holds(&at("projected", "all").join("deep/k"), "2").await;
        let mut changed = Pod::clone(&object);
        changed.metadata.labels.get_or_insert_default().insert("b".to_owned(), "2".to_owned());
        node.volumes.pod_changed(UID, &Arc::new(changed)).await.unwrap();
        holds(&at("projected", "all").join("labels"), "a=\"1\"\nb=\"2\"").await;
        assert_eq!(node.volumes.set_up(&object, &who(UID, None)).await.unwrap(), mounted);
        assert_eq!(api.tokens(), 1, "one token does for all of it");
        assert_eq!(node.volumes.mounted_uids().await.unwrap(), [UID]);
        node.volumes.tear_down(UID).await.unwrap();
        node.volumes.tear_down(UID).await.unwrap();
        node.is_clean();
        node.stop().await;
    });
}

fn what_is_missing_is_named_and_comes_later() {
    real(async {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let volumes = json!([
            {"name": "map", "configMap": {"name": "m", "items": [{"key": "k", "path": "k"}]}},
            {"name": "maybe", "secret": {"secretName": "s", "optional": true}},
        ]);
        let object = pod(UID, &volumes);
        let event = |error: VolumeError| error.event();
        let text = node.volumes.set_up(&object, &who(UID, None)).await.map_err(event).unwrap_err();
        assert_eq!(text, "MountVolume.SetUp failed for volume \"map\" : configmap \"m\" not found");
        let mut other = config_map("1");
        other["data"] = json!({"other": "1"});
        api.put(MAP, other);
        let wanted = "MountVolume.SetUp failed for volume \"map\" : configmap references non-existent config key: k";
        while node.volumes.set_up(&object, &who(UID, None)).await.map_err(event).unwrap_err() != wanted {}
        api.put(MAP, config_map("1"));
        while node.volumes.set_up(&object, &who(UID, None)).await.is_err() {}
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"}, "data": {"x": "eA=="}});
        api.put("/api/v1/namespaces/n/secrets/s", secret);
        holds(&node.volume(UID, "secret", "maybe").join("x"), "x").await;
        api.delete("/api/v1/namespaces/n/secrets/s");
        while node.volume(UID, "secret", "maybe").join("x").exists() {
            tokio::task::yield_now().await;
        }
        let odd = pod(UID, &json!([{"name": "i", "iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}}]));
        let text = event(node.volumes.set_up(&odd, &who(UID, None)).await.unwrap_err());
        assert!(text.ends_with("no volume plugin of this node matches volume \"i\": iscsi"), "{text}");
        let nfs = pod(UID, &json!([{"name": "f", "nfs": {"server": "h", "path": "/e"}}]));
        let text = event(node.volumes.set_up(&nfs, &who(UID, None)).await.unwrap_err());
        assert!(text.ends_with("no-such-program failed: it is not installed on this node"), "{text}");
        node.volumes.tear_down(UID).await.unwrap();
        node.is_clean();
        node.stop().await;
    });
}

fn tokens_are_renewed_in_time() {
    on_a_clock_of(true, async {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        api.token_seconds(3600);
        let node = Node::start(&api, home.path(), Clock::simulated(1)).await;
        let source = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}});
        let object = pod(UID, &json!([{"name": "t", "projected": {"sources": [source]}}]));
        node.volumes.set_up(&object, &who(UID, Some(2000))).await.unwrap();
        let file = node.volume(UID, "projected", "t").join("token");
        assert_eq!(fs::read_to_string(&file).unwrap(), "token-1");
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o777), (2000, 0o640));
        tokio::time::advance(Duration::from_secs(2860)).await;
        assert_eq!(api.tokens(), 1);
        let clock = node.system.clock().clone();
        clock.sleep_until(clock.now() + Duration::from_secs(60)).await;
        assert_eq!(api.tokens(), 2);
        assert_eq!(fs::read_to_string(&file).unwrap(), "token-2");
        node.volumes.tear_down(UID).await.unwrap();
        clock.sleep_until(clock.now() + Duration::from_secs(50_000)).await;
        assert_eq!(api.tokens(), 2, "nobody asks for a pod that is gone");
        node.is_clean();
        node.stop().await;
    });
}

fn empty_dirs_are_the_groups_and_counted() {
    real(async {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let volumes = json!([
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ]);
        let object = pod(UID, &volumes);
        let mounted = node.volumes.set_up(&object, &who(UID, Some(3000))).await.unwrap();
        for volume in mounted.volumes.values() {
            let found = fs::metadata(&volume.path).unwrap();
            assert_eq!((found.gid(), found.mode() & 0o7777), (3000, 0o2777), "{}", volume.path.display());
        }
        let (disk, memory) = (&mounted.volumes["disk"].path, &mounted.volumes["memory"].path);
        assert!(is_tmpfs(memory));
        assert!(fs::write(memory.join("big"), vec![0; 2 << 20]).is_err(), "the limit holds");
        fs::remove_file(memory.join("big")).unwrap();
        fs::create_dir(disk.join("d")).unwrap();
        fs::write(disk.join("d/f"), vec![1; 100_000]).unwrap();
        fs::hard_link(disk.join("d/f"), disk.join("again")).unwrap();
        symlink("/", disk.join("out")).unwrap();
        let usage = node.volumes.usage(UID).await.unwrap();
        let used = &usage["disk"];
        assert!((100_000..200_000).contains(&used.used_bytes.unwrap()), "{used:?}");
        assert_eq!(used.inodes_used, Some(4));
        assert_eq!(usage["memory"].capacity_bytes, Some(1 << 20));
        // A second time changes nothing, not even what the pod did to the directory.
        fs::set_permissions(disk, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        node.volumes.set_up(&object, &who(UID, Some(3000))).await.unwrap();
        assert_eq!(fs::metadata(disk).unwrap().mode() & 0o7777, 0o700);
        node.volumes.tear_down(UID).await.unwrap();
        node.is_clean();
        node.stop().await;
    });
}

fn sub_paths_stay_in_their_volume() {
    real(async {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        api.put(MAP, config_map("1"));
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let volumes = json!([{"name": "e", "emptyDir": {}}, {"name": "m", "configMap": {"name": "m"}}]);
        let Mounted { volumes } = node.volumes.set_up(&pod(UID, &volumes), &who(UID, None)).await.unwrap();
        let part = |volume: &str, sub_path: &str, index: usize| SubPath {
            uid: UID.to_owned(),
            volume: volume.to_owned(),
            host_path: volumes[volume].path.clone(),
            sub_path: sub_path.to_owned(),
            container: "c".to_owned(),
            index,
            read_only: volumes[volume].read_only,
        };
        let empty = &volumes["e"].path;
        let made = node.volumes.sub_path(part("e", "a/b", 0)).await.unwrap();
        assert_eq!(made, home.path().join(format!("pods/{UID}/volume-subpaths/e/c/0")));
        fs::write(made.join("f"), "x").unwrap();
        assert_eq!(fs::read_to_string(empty.join("a/b/f")).unwrap(), "x");
        assert_eq!(fs::metadata(empty.join("a")).unwrap().mode() & 0o777, 0o777, "as open as the volume");
        assert_eq!(node.volumes.sub_path(part("e", "a/b", 0)).await.unwrap(), made);
        let file = node.volumes.sub_path(part("e", "a/b/f", 1)).await.unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "x");
        let key = node.volumes.sub_path(part("m", "k", 0)).await.unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), "1");
        symlink("/etc", empty.join("out")).unwrap();
        symlink("../../../../../..", empty.join("up")).unwrap();
        symlink("a", empty.join("inside")).unwrap();
        for (index, escape) in ["out", "out/passwd", "up", "up/etc", "../e", "/etc", "a/../../x"].iter().enumerate() {
            let outcome = node.volumes.sub_path(part("e", escape, 10 + index)).await;
            assert!(outcome.is_err(), "{escape} led to {outcome:?}");
        }
        let inside = node.volumes.sub_path(part("e", "inside/b", 2)).await.unwrap();
        assert_eq!(fs::read_to_string(inside.join("f")).unwrap(), "x");
        node.volumes.tear_down(UID).await.unwrap();
        assert!(Path::new("/etc/passwd").exists());
        node.is_clean();
        node.stop().await;
    });
}

/// A claim that is bound to a volume of this source.
pub(crate) fn claimed(api: &Api, source: Value) {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "n", "uid": "cu"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    api.put("/api/v1/namespaces/n/persistentvolumeclaims/c", claim);
    let mut spec = json!({"claimRef": {"uid": "cu"}, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
    spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": spec});
    api.put("/api/v1/persistentvolumes/pv", volume);
}

fn claims_lead_to_directories_that_outlive_pods() {
    real(async {
        let (home, data, api) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Api::new());
        fs::write(data.path().join("kept"), "x").unwrap();
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let object = pod(UID, &json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]));
        let text = node.volumes.set_up(&object, &who(UID, None)).await.unwrap_err().event();
        assert!(
            text.starts_with("MountVolume.SetUp failed for volume \"v\" : failed to fetch PVC from API server"),
            "{text}"
        );
        claimed(&api, json!({"local": {"path": data.path()}}));
        let mounted = node.volumes.set_up(&object, &who(UID, Some(4000))).await.unwrap();
        let path = &mounted.volumes["v"].path;
        assert_eq!(*path, node.volume(UID, "local-volume", "pv"));
        assert_eq!(fs::read_to_string(path.join("kept")).unwrap(), "x");
        assert_eq!(fs::metadata(data.path().join("kept")).unwrap().gid(), 4000);
        fs::write(path.join("new"), "y").unwrap();
        node.volumes.set_up(&object, &who(UID, Some(4000))).await.unwrap();
        node.volumes.tear_down(UID).await.unwrap();
        assert_eq!(fs::read_to_string(data.path().join("new")).unwrap(), "y");
        let read_only = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}]);
        let mounted = node.volumes.set_up(&pod(UID, &read_only), &who(UID, None)).await.unwrap();
        assert!(mounted.volumes["v"].read_only);
        assert!(fs::write(mounted.volumes["v"].path.join("no"), "").is_err());
        node.volumes.tear_down(UID).await.unwrap();
        node.is_clean();
        node.stop().await;
    });
}

fn a_restart_adopts_and_deaths_stop_no_update() {
    real(async {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        api.put(MAP, config_map("1"));
        let volumes = json!([
            {"name": "m", "configMap": {"name": "m"}},
            {"name": "e", "emptyDir": {"medium": "Memory"}},
        ]);
        let object = pod(UID, &volumes);
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let before = node.volumes.set_up(&object, &who(UID, None)).await.unwrap();
        fs::write(before.volumes["e"].path.join("f"), "kept").unwrap();
        let file = before.volumes["m"].path.join("k");
        for (turn, actor) in
            ["files/keeper", "files/objects", "tokens", "disk-1", "disk-2", "disk-3", "disk-4"].iter().enumerate()
        {
            assert!(node.system.signal(actor, Signal::Kill), "{actor}");
            let text = format!("after {turn}");
            api.put(MAP, config_map(&text));
            holds(&file, &text).await;
        }
        node.stop().await;
        // Changed while nobody was there.
        api.put(MAP, config_map("3"));
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let after = node.volumes.set_up(&object, &who(UID, None)).await.unwrap();
        assert_eq!(after, before);
        assert_eq!(fs::read_to_string(after.volumes["e"].path.join("f")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(&file).unwrap(), "3");
        node.stop().await;
        // A pod that nobody knows any more is found by its directory.
        let node = Node::start(&api, home.path(), Clock::system()).await;
        for uid in node.volumes.mounted_uids().await.unwrap() {
            node.volumes.tear_down(&uid).await.unwrap();
        }
        node.is_clean();
        node.stop().await;
    });
}

fn nothing_is_deleted_through_a_mount() {
    real(async {
        let (home, precious, api) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Api::new());
        fs::write(precious.path().join("kept"), "x").unwrap();
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let mounted =
            node.volumes.set_up(&pod(UID, &json!([{"name": "e", "emptyDir": {}}])), &who(UID, None)).await.unwrap();
        let inner = mounted.volumes["e"].path.join("a b\\c");
        fs::create_dir(&inner).unwrap();
        symlink(precious.path(), mounted.volumes["e"].path.join("link")).unwrap();
        assert!(Command::new("mount").arg("--bind").arg(precious.path()).arg(&inner).status().unwrap().success());
        assert!(Command::new("mount").arg("--bind").arg(precious.path()).arg(&inner).status().unwrap().success());
        // Somebody uses it, so that it can only be let go of.
        let mut user = Command::new("sleep").arg("60").current_dir(&inner).spawn().unwrap();
        node.volumes.tear_down(UID).await.unwrap();
        assert_eq!(fs::read_to_string(precious.path().join("kept")).unwrap(), "x");
        node.is_clean();
        user.kill().unwrap();
        user.wait().unwrap();
        for uid in ["", "..", "a/b", "."] {
            assert!(node.volumes.tear_down(uid).await.is_err(), "{uid:?}");
        }
        assert!(home.path().join("pods").is_dir());
        node.stop().await;
    });
}

/// There is no server here; the program writes down what it was told, and mounts something.
fn nfs_is_mounted_by_the_hosts_program_once() {
    real(async {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        let (program, told) = (home.path().join("mount"), home.path().join("told"));
        let script = "#!/bin/sh\necho \"$@\" >> $0.told\n[ \"$2\" = nfs ] || exit 1\nfor at; do :; done\nexec mount -t tmpfs none \"$at\"\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let node = Node::with_program(&api, home.path(), Clock::system(), program).await;
        claimed(
            &api,
            json!({"nfs": {"server": "fd00::1", "path": "/export"}, "mountOptions": ["nfsvers=4.2", "hard"]}),
        );
        let volumes = json!([
            {"name": "inline", "nfs": {"server": "host", "path": "/a b", "readOnly": true}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
        ]);
        let object = pod(UID, &volumes);
        let mounted = node.volumes.set_up(&object, &who(UID, Some(6000))).await.unwrap();
        let (inline, claim) = (node.volume(UID, "nfs", "inline"), node.volume(UID, "nfs", "pv"));
        assert_eq!((&mounted.volumes["inline"].path, &mounted.volumes["claim"].path), (&inline, &claim));
        assert!(mounted.volumes["inline"].read_only && !mounted.volumes["claim"].read_only);
        assert_ne!(fs::metadata(&claim).unwrap().gid(), 6000, "a server's files are its own");
        node.volumes.set_up(&object, &who(UID, None)).await.unwrap();
        let wanted = [
            format!("-t nfs -o ro host:/a b {}", inline.display()),
            format!("-t nfs -o nfsvers=4.2,hard [fd00::1]:/export {}", claim.display()),
        ];
        let told = fs::read_to_string(told.with_extension("").with_file_name("mount.told")).unwrap();
        assert_eq!(told.lines().collect::<Vec<_>>(), wanted);
        node.volumes.tear_down(UID).await.unwrap();
        node.is_clean();
        node.stop().await;
    });
}

fn kill(node: &Node, victim: &str) {
    node.system.signal(victim, Signal::Kill);
}

/// Before the next attempt. There is an end to how often a pod worker has to ask.
async fn wait(clock: &Clock, attempts: u32, error: &VolumeError) -> u32 {
    assert!(attempts < 300, "a minute was not enough: {}", error.event());
    clock.sleep_until(clock.now() + Duration::from_millis(200)).await;
    attempts + 1
}

/// Pods come and go while every actor is killed now and then; what fails is tried again, as pod workers do.
fn whatever_dies_and_whenever_nothing_is_left() {
    const ACTORS: [&str; 9] =
        ["files", "files/watches", "files/objects", "files/keeper", "tokens", "plugins", "disk-1", "disk-2", "disk-3"];
    const PODS: u64 = 40;
    let seed = 20_261_121;
    println!("seed {seed}");
    on_a_clock_of(true, async move {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        api.put(MAP, config_map("1"));
        let clock = Clock::simulated(seed);
        let mut rng = clock.rng("test");
        let node = Node::start(&api, home.path(), clock.clone()).await;
        let volumes = json!([
            {"name": "e", "emptyDir": {"medium": "Memory"}},
            {"name": "all", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "m"}}]}},
        ]);
        let mut there: Vec<String> = Vec::new();
        for number in 0..PODS {
            let uid = format!("uid-{number}");
            let object = pod(&uid, &volumes);
            kill(&node, ACTORS[usize::try_from(rng.below(ACTORS.len() as u64)).unwrap()]);
            let mut attempts = 0;
            while let Err(error) = node.volumes.set_up(&object, &who(&uid, None)).await {
                attempts = wait(&clock, attempts, &error).await;
            }
            there.push(uid);
            // The tree bears five deaths in thirty seconds.
            clock.sleep_until(clock.now() + Duration::from_secs(15 + rng.below(20))).await;
            if there.len() > 5 {
                let gone = there.remove(usize::try_from(rng.below(5)).unwrap());
                kill(&node, ACTORS[usize::try_from(rng.below(ACTORS.len() as u64)).unwrap()]);
                let mut attempts = 0;
                while let Err(error) = node.volumes.tear_down(&gone).await {
                    attempts = wait(&clock, attempts, &error).await;
                }
            }
        }
        // Those that stay follow; the others don't come back.
        api.put(MAP, config_map("last"));
        clock.sleep_until(clock.now() + Duration::from_secs(300)).await;
        let mut found = node.volumes.mounted_uids().await.unwrap();
        found.sort();
        there.sort();
        assert_eq!(found, there);
        for uid in &there {
            assert_eq!(fs::read_to_string(node.volume(uid, "projected", "all").join("k")).unwrap(), "last");
            node.volumes.tear_down(uid).await.unwrap();
        }
        clock.sleep_until(clock.now() + Duration::from_secs(300)).await;
        node.is_clean();
        node.stop().await;
    });
}
