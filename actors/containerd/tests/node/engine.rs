//! The engine: started, adopted, healed, replaced.

use std::fs;
use std::time::{Duration, Instant};

use containerd_client::services::v1::snapshots::PrepareSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use k3sd_containerd::image::BuiltImage;
use k3sd_cri::v1;

use crate::around::ctr;
use crate::support::{busybox_image, kill, node, processes_with};

/// What a user may notice of a dead engine.
const HEAL_LIMIT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_and_has_what_a_pod_needs() {
    let Some(node) = node() else { return };
    let running = node.start().await;
    let version = running.cri.version(v1::VersionRequest::default()).await.unwrap();
    assert_eq!(version.runtime_name, "containerd");
    let status = running.engine().await;
    assert!(status.answers && !status.adopted && status.error.is_empty(), "{status:?}");
    let pause = running.sandbox_image().await;
    assert_eq!(pause.id, k3sd_containerd::image::pause().id());
    assert!(pause.size < 16 << 10, "{pause:?}");
    let crictl = fs::read_to_string(node.config.crictl_file()).unwrap();
    assert_eq!(crictl, format!("runtime-endpoint: unix://{}\n", node.config.socket().display()));
    let answer = running.cri.status(v1::StatusRequest { verbose: true }).await.unwrap();
    let condition = |kind: &str| {
        let all = answer.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        all.iter().find(|condition| condition.r#type == kind).is_some_and(|condition| condition.status)
    };
    assert!(condition("RuntimeReady"), "{answer:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_adopts_it_with_its_containers() {
    let (Some(node), Some(busybox)) = (node(), busybox_image()) else { return };
    node.put("busybox.tar", &BuiltImage::oci_archive(&[busybox]));
    let running = node.start().await;
    running.images_until("imported", |status| status.imported == 1).await;
    let id = running.sleeper("adopted").await;
    let (before, container) = (running.engine().await, running.container(&id).await);
    running.stop().await;
    assert_eq!(processes_with(&node.config.config_file()), [before.pid.unwrap()], "it outlives us");

    let running = node.start().await;
    let after = running.engine().await;
    assert_eq!((after.pid, after.adopted, after.starts), (before.pid, true, 0));
    assert_eq!(running.container(&id).await, container);
    // The actor alone, too.
    running.system.signal("containerd/engine", k3sd_runtime::Signal::Kill);
    let again = running.engine_until("adopted again", |status| status.answers).await;
    assert_eq!((again.pid, again.adopted), (before.pid, true));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_is_back_before_anybody_minds() {
    let (Some(node), Some(busybox)) = (node(), busybox_image()) else { return };
    node.put("busybox.tar", &BuiltImage::oci_archive(&[busybox]));
    let running = node.start().await;
    running.images_until("imported", |status| status.imported == 1).await;
    let id = running.sleeper("healed").await;
    let (old, container) = (running.engine().await.pid.unwrap(), running.container(&id).await);
    assert_eq!(container.0, v1::ContainerState::ContainerRunning as i32);
    let killed = Instant::now();
    std::process::Command::new("kill").args(["-9", &old.to_string()]).status().unwrap();
    let healed = running.engine_until("healed", |status| status.answers && status.pid != Some(old)).await;
    let took = killed.elapsed();
    assert!(took < HEAL_LIMIT, "it took {took:?}");
    assert_eq!(healed.starts, 2);
    assert_eq!(running.container(&id).await, container, "the same container goes on");
    assert!(!fs::exists(format!("/proc/{old}")).unwrap(), "no zombie stays");
    running.stop().await;
}

/// An engine that dies while it makes a sandbox leaves a snapshot that nothing but its own lease holds.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_engine_was_making_goes() {
    let Some(node) = node() else { return };
    let running = node.start().await;
    let lease = |id: &str, expires: &str| {
        ctr(&node, &["leases", "create", "--id", id, "--expires", expires]);
        id.to_owned()
    };
    for (id, expires) in [("lost", "24h"), ("kept", "0")] {
        let lease = lease(id, expires);
        let message = PrepareSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: format!("half-{id}"),
            ..PrepareSnapshotRequest::default()
        };
        let mut request = tonic::Request::new(message);
        for (key, value) in [("containerd-namespace", "k8s.io"), ("containerd-lease", &lease)] {
            request.metadata_mut().insert(key, value.parse().unwrap());
        }
        SnapshotsClient::new(k3sd_cri::channel(node.config.socket())).prepare(request).await.unwrap();
    }
    let snapshots = || ctr(&node, &["snapshots", "list"]);
    let old = running.engine().await.pid.unwrap();
    assert!(snapshots().contains("half-lost"), "{}", snapshots());
    std::process::Command::new("kill").args(["-9", &old.to_string()]).status().unwrap();
    running.engine_until("healed", |status| status.answers && status.pid != Some(old)).await;
    let began = Instant::now();
    while snapshots().contains("half-lost") {
        assert!(began.elapsed() < Duration::from_secs(10), "{}{}", snapshots(), ctr(&node, &["leases", "list"]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(snapshots().contains("half-kept"), "who took a lease without an end comes back to it");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_replace_it_and_wrong_ones_do_not() {
    let Some(mut node) = node() else { return };
    let running = node.start().await;
    let first = running.engine().await.pid;
    running.stop().await;

    node.config.nonroot_devices = true;
    let running = node.start().await;
    let second = running.engine().await;
    assert!(second.pid != first && !second.adopted, "{second:?}");
    let config = fs::read_to_string(node.config.config_file()).unwrap();
    assert!(config.contains("device_ownership_from_security_context = true"), "{config}");
    assert!(!fs::exists(format!("/proc/{}", first.unwrap())).unwrap());
    running.stop().await;

    fs::write(&node.config.private_registry, "mirrors: 7\n").unwrap();
    let running = node.start().await;
    let third = running.engine().await;
    assert_eq!((third.pid, third.adopted), (second.pid, true), "the running one is kept");
    assert!(third.error.contains("mirrors has to be a map"), "{third:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_the_user_is_what_it_runs_with() {
    let Some(node) = node() else { return };
    let file = node.config.config_file().with_file_name("config.toml.tmpl");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let registries =
        "configs:\n  r.example:\n    auth: {username: u, password: p}\nmirrors:\n  docker.io:\n    endpoint: [a]\n";
    fs::write(&node.config.private_registry, registries).unwrap();
    let cri = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.custom]\n  runtime_type = \"io.containerd.runc.v2\"";
    let options = "{{ if not .IsRunningInUserNS }}\n# root is {{ .NodeConfig.Containerd.Root }}\n{{ end }}";
    fs::write(&file, format!("{{{{ template \"base\" . }}}}\n{cri}\n{options}\n")).unwrap();
    let running = node.start().await;
    let config = fs::read_to_string(node.config.config_file()).unwrap();
    assert!(config.contains(&format!("# root is {}", node.config.root_dir().display())), "{config}");
    let answer = running.cri.status(v1::StatusRequest { verbose: true }).await.unwrap();
    let info = answer.info.get("config").cloned().unwrap_or_default();
    assert!(info.contains("\"custom\":"), "the engine knows the runtime: {info}");
    let hosts = node.config.config_file().with_file_name("certs.d/docker.io/hosts.toml");
    assert!(fs::read_to_string(hosts).unwrap().contains("[host.\"https://a/v2\"]"));
    running.stop().await;

    fs::write(&file, "{{ template \"base\" . }}\n{{ .Wrong }}\n").unwrap();
    let running = node.start().await;
    let status = running.engine().await;
    assert!(status.adopted && status.error.contains("line 2, column 4"), "{status:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_program_it_says_so_and_goes_on_trying() {
    let Some(mut node) = node() else { return };
    node.config.environment = vec![("PATH".into(), node.dir.path().into())];
    let running = node.begin();
    let status = running.engine_until("refused", |status| !status.error.is_empty()).await;
    assert!(status.error.contains("\"containerd\"") && status.pid.is_none(), "{status:?}");
    assert!(!*running.ready.borrow());
    std::os::unix::fs::symlink("/usr/bin/containerd", node.dir.path().join("containerd")).unwrap();
    running.engine_until("started", |status| status.answers).await;
    running.stop().await;
    for pid in processes_with(&node.config.config_file()) {
        kill(pid);
    }
}
