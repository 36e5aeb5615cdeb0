//! Storage drivers: the node's part of CSI, with a driver of the tests' own.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k3sd_kubelet_volumes::Mounted;
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::Test;
use crate::api::Api;
use crate::driver::{Driver, EXPANDS, GETS_STATS, STAGES};
use crate::volumes::{Node, claimed, on_a_clock_of, pod, real, who};

/// All of them; see [`crate::main`].
pub(crate) const TESTS: &[Test] = &[
    ("a_storage_driver_is_registered_and_used", a_storage_driver_is_registered_and_used),
    ("volumes_grow_and_are_published_again_while_pods_run", volumes_grow_and_are_published_again_while_pods_run),
    ("a_volume_is_waited_for_until_it_is_attached", a_volume_is_waited_for_until_it_is_attached),
    ("devices_are_given_as_they_are", devices_are_given_as_they_are),
];

const DRIVER: &str = "test.example.com";
const UID: &str = "uid-1";

/// The cluster knows the node and the driver, and a claim of a volume of it.
fn cluster(api: &Api, driver: Value) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "uid": "nu"}});
    api.put("/api/v1/nodes/node", node);
    let object =
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": driver});
    api.put("/apis/storage.k8s.io/v1/csidrivers/test.example.com", object);
    claimed(api, json!({"csi": {"driver": DRIVER, "volumeHandle": "disk-1", "fsType": "ext4"}}));
}

/// A driver that is registered.
async fn registered(home: &Path, data: &Path, can: &[u8]) -> Driver {
    let driver = Driver::with(&home.join("plugins_registry"), data, can);
    driver.wait("NotifyRegistrationStatus").await;
    driver
}

/// Tries as pod workers do, until it is there.
async fn set_up(node: &Node, pod: &Arc<Pod>) -> Mounted {
    loop {
        if let Ok(mounted) = node.volumes.set_up(pod, &who(UID, None)).await {
            return mounted;
        }
        tokio::task::yield_now().await;
    }
}

fn claim_volume() -> Value {
    json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}])
}

fn a_storage_driver_is_registered_and_used() {
    real(async {
        let (home, data, api) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Api::new());
        api.put(
            "/api/v1/nodes/node",
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "uid": "nu"}}),
        );
        let modes = json!(["Persistent", "Ephemeral"]);
        let spec = json!({"attachRequired": false, "podInfoOnMount": true, "volumeLifecycleModes": modes,
            "tokenRequests": [{"audience": "vault"}]});
        let object = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "test.example.com"}, "spec": spec});
        api.put("/apis/storage.k8s.io/v1/csidrivers/test.example.com", object);
        claimed(&api, json!({"csi": {"driver": "test.example.com", "volumeHandle": "disk-1", "fsType": "ext4"}}));
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let volumes = json!([
            {"name": "v", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "inline", "csi": {"driver": "test.example.com", "volumeAttributes": {"color": "red"}}},
        ]);
        let (first, second) = (
            pod("uid-1", &volumes),
            pod("uid-2", &json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}])),
        );
        let text = node.volumes.set_up(&first, &who("uid-1", None)).await.unwrap_err().event();
        assert!(
            text.ends_with("driver name test.example.com not found in the list of registered CSI drivers"),
            "{text}"
        );
        let driver = Driver::start(&home.path().join("plugins_registry"), data.path());
        driver.wait("NotifyRegistrationStatus").await;
        assert_eq!(driver.last("NotifyRegistrationStatus").get(&1).map(String::as_str), Some("1"));
        let written = node.api.get("/apis/storage.k8s.io/v1/csinodes/node").unwrap();
        let entry = json!({"name": "test.example.com", "nodeID": "node-id", "topologyKeys": ["topology.test/zone"], "allocatable": {"count": 3}});
        assert_eq!(written["spec"]["drivers"], json!([entry]));
        assert_eq!(node.api.get("/api/v1/nodes/node").unwrap()["metadata"]["labels"]["topology.test/zone"], "z1");
        let mounted = loop {
            if let Ok(mounted) = node.volumes.set_up(&first, &who("uid-1", Some(5000))).await {
                break mounted;
            }
        };
        assert_eq!(mounted.volumes["v"].path, node.volume("uid-1", "csi", "pv").join("mount"));
        let context = driver.last("NodePublishVolume").get(&8).cloned().unwrap_or_default();
        assert!(
            context.contains("color") && context.contains("csi.storage.k8s.io/pod.name") && context.contains("vault")
        );
        fs::write(mounted.volumes["v"].path.join("f"), "x").unwrap();
        assert_eq!(fs::metadata(driver.home().join("disk-1")).unwrap().gid(), 5000, "the policy gives it to the group");
        let calls = driver.called().len();
        node.volumes.set_up(&first, &who("uid-1", Some(5000))).await.unwrap();
        assert!(driver.called()[calls..].iter().all(|method| method == "NodeGetCapabilities"));
        node.volumes.set_up(&second, &who("uid-2", None)).await.unwrap();
        assert_eq!(node.volumes.in_use().await.unwrap(), ["kubernetes.io/csi/test.example.com^disk-1"]);
        let count = |method: &str| driver.count(method);
        node.volumes.tear_down("uid-1").await.unwrap();
        assert_eq!((count("NodeUnpublishVolume"), count("NodeUnstageVolume")), (2, 0), "another pod has it still");
        // The node's part starts again, and takes back what it didn't give.
        let api = node.api.clone();
        node.stop().await;
        let node = Node::start(&api, home.path(), Clock::system()).await;
        while node.volumes.tear_down("uid-2").await.is_err() {}
        assert_eq!((count("NodeUnpublishVolume"), count("NodeUnstageVolume")), (3, 1));
        assert_eq!(fs::read_to_string(driver.home().join("disk-1/f")).unwrap(), "x");
        node.is_clean();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(home.path().to_str().unwrap()), "{mounts}");
        fs::remove_file(home.path().join("plugins_registry/test.example.com-reg.sock")).unwrap();
        while node.api.get("/apis/storage.k8s.io/v1/csinodes/node").unwrap()["spec"]["drivers"] != json!([]) {
            tokio::task::yield_now().await;
        }
        node.stop().await;
    });
}

/// A driver that wants to be told again, and whose volume becomes larger.
fn volumes_grow_and_are_published_again_while_pods_run() {
    const CLAIM: &str = "/api/v1/namespaces/n/persistentvolumeclaims/c";
    on_a_clock_of(true, async {
        let (home, data, api) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Api::new());
        let spec =
            json!({"attachRequired": false, "requiresRepublish": true, "tokenRequests": [{"audience": "vault"}]});
        cluster(&api, spec);
        api.token_seconds(120);
        let clock = Clock::simulated(7);
        let node = Node::start(&api, home.path(), clock.clone()).await;
        let driver = registered(home.path(), data.path(), &[STAGES, GETS_STATS, EXPANDS]).await;
        let object = pod(UID, &claim_volume());
        set_up(&node, &object).await;
        assert_eq!(driver.count("NodeExpandVolume"), 0, "it is as large as the claim knows");
        let counts = node.volumes.counts().await.unwrap();
        assert_eq!(counts, [(format!("kubernetes.io/csi:{DRIVER}"), (1, 1))].into());
        let usage = node.volumes.usage(UID).await.unwrap();
        let used = &usage["v"];
        assert_eq!((used.used_bytes, used.capacity_bytes, used.available_bytes), (Some(10), Some(1000), Some(990)));
        assert_eq!((used.inodes_used, used.claim.as_deref()), (Some(5), Some("c")));

        let published = driver.count("NodePublishVolume");
        let before = driver.last("NodePublishVolume")[&8].clone();
        let mut volume = api.get("/api/v1/persistentvolumes/pv").unwrap();
        volume["spec"]["capacity"]["storage"] = json!("2Gi");
        api.put("/api/v1/persistentvolumes/pv", volume);
        clock.sleep_until(clock.now() + Duration::from_secs(200)).await;
        assert!(driver.count("NodePublishVolume") > published, "{:?}", driver.called());
        assert_ne!(driver.last("NodePublishVolume")[&8], before, "with a token that is good for longer");
        let asked = driver.last("NodeExpandVolume");
        assert_eq!(asked[&1], "disk-1");
        assert!(asked[&2].ends_with("/mount") && asked[&4].ends_with("/globalmount"), "{asked:?}");
        let claim = api.get(CLAIM).unwrap();
        assert_eq!(claim["status"]["capacity"]["storage"], "2Gi", "{claim}");
        assert_eq!(claim["status"]["conditions"], Value::Null);
        let grown = driver.count("NodeExpandVolume");
        assert_eq!(grown, 1, "once is enough");
        let text = "MountVolume.NodeExpandVolume succeeded for volume \"pv\" node";
        for kind in ["Pod", "PersistentVolumeClaim"] {
            let told = |event: &Value| {
                let about = [&event["involvedObject"]["kind"], &event["regarding"]["kind"]];
                about.contains(&&json!(kind))
                    && event["reason"] == "FileSystemResizeSuccessful"
                    && [&event["message"], &event["note"]].contains(&&json!(text))
            };
            assert!(api.events().iter().any(told), "{kind}: {:#?}", api.events());
        }

        node.volumes.tear_down(UID).await.unwrap();
        let published = driver.count("NodePublishVolume");
        clock.sleep_until(clock.now() + Duration::from_secs(400)).await;
        assert_eq!(driver.count("NodePublishVolume"), published, "a pod that is gone is nobody's");
        node.is_clean();
        node.stop().await;
    });
}

/// Nothing is asked of the driver before, and the pod doesn't have to try again.
fn a_volume_is_waited_for_until_it_is_attached() {
    real(async {
        let (home, data, api) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Api::new());
        cluster(&api, json!({}));
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let driver = registered(home.path(), data.path(), &[STAGES]).await;
        while api.get("/apis/storage.k8s.io/v1/csinodes/node").is_none() {
            tokio::task::yield_now().await;
        }
        let name = attachment_name();
        let path = format!("/apis/storage.k8s.io/v1/volumeattachments/{name}");
        let attachment = |status: Value| {
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": name},
                "spec": {"attacher": DRIVER, "nodeName": "node", "source": {"persistentVolumeName": "pv"}}, "status": status})
        };
        api.put(&path, attachment(json!({"attached": false, "attachError": {"message": "no such disk"}})));
        let object = pod(UID, &claim_volume());
        let refused = node.volumes.set_up(&object, &who(UID, None)).await.unwrap_err().event();
        assert!(refused.ends_with("volume pv is not attached to this node: no such disk"), "{refused}");

        api.put(&path, attachment(json!({"attached": false})));
        let (who, clock) = (who(UID, None), Clock::system());
        let mut waits = Box::pin(node.volumes.set_up(&object, &who));
        tokio::select! {
            done = &mut waits => panic!("it was not attached: {done:?}"),
            () = clock.sleep_until(clock.now() + Duration::from_millis(300)) => {}
        }
        assert_eq!(driver.count("NodeStageVolume"), 0);
        api.put(&path, attachment(json!({"attached": true, "attachmentMetadata": {"devicePath": "/dev/x"}})));
        let mut own = api.get("/api/v1/nodes/node").unwrap();
        own["status"]["volumesAttached"] =
            json!([{"name": "kubernetes.io/csi/test.example.com^disk-1", "devicePath": ""}]);
        api.put("/api/v1/nodes/node", own);
        waits.await.unwrap();
        assert!(driver.last("NodeStageVolume")[&2].contains("/dev/x"), "what whoever attached it says");
        node.volumes.tear_down(UID).await.unwrap();
        node.is_clean();
        node.stop().await;
    });
}

/// The name that everybody computes for an attachment: of the handle, the driver and the node.
fn attachment_name() -> String {
    let text =
        Command::new("sh").args(["-c", "printf disk-1test.example.comnode | sha256sum"]).output().unwrap().stdout;
    format!("csi-{}", String::from_utf8(text).unwrap().split(' ').next().unwrap())
}

/// A device of a file, until it is dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        made.status.success().then(|| Self(String::from_utf8_lossy(&made.stdout).trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Command::new("losetup").args(["--detach", &self.0]).status().ok();
    }
}

/// Once of a driver's, once of the host's.
fn devices_are_given_as_they_are() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("disk");
    fs::write(&file, vec![0; 1 << 20]).unwrap();
    let Some(device) = Loop::new(&file) else {
        println!("ignored: this machine makes no loop devices");
        return;
    };
    real(async {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::new());
        cluster(&api, json!({"attachRequired": false}));
        let block = |source: Value| {
            claimed(&api, source);
            let mut volume = api.get("/api/v1/persistentvolumes/pv").unwrap();
            volume["spec"]["volumeMode"] = json!("Block");
            api.put("/api/v1/persistentvolumes/pv", volume);
        };
        symlink(&device.0, data.path().join("disk-1-device")).unwrap();
        let node = Node::start(&api, home.path(), Clock::system()).await;
        let driver = registered(home.path(), data.path(), &[STAGES]).await;
        let mut object = Pod::clone(&pod(UID, &claim_volume()));
        let container = &mut object.spec.as_mut().unwrap().containers[0];
        container.volume_mounts = None;
        container.volume_devices = serde_json::from_value(json!([{"name": "v", "devicePath": "/dev/disk"}])).unwrap();
        let object = Arc::new(object);
        let wanted = fs::metadata(&device.0).unwrap().rdev();
        for source in
            [json!({"csi": {"driver": DRIVER, "volumeHandle": "disk-1"}}), json!({"local": {"path": device.0}})]
        {
            block(source.clone());
            let mounted = set_up(&node, &object).await;
            let volume = &mounted.volumes["v"];
            let found = fs::metadata(&volume.path).unwrap();
            assert!(volume.is_block && found.file_type().is_block_device(), "{source}");
            assert_eq!(found.rdev(), wanted, "{source}");
            node.volumes.tear_down(UID).await.unwrap();
            node.is_clean();
        }
        assert_eq!((driver.count("NodePublishVolume"), driver.count("NodeUnpublishVolume")), (1, 1));
        let as_files = node.volumes.set_up(&pod(UID, &claim_volume()), &who(UID, None)).await.unwrap_err().event();
        assert!(as_files.ends_with("volume c has volumeMode Block, but is specified in volumeMounts"), "{as_files}");
        node.volumes.tear_down(UID).await.unwrap();
        node.stop().await;
    });
}
