//! What an engine is among other things: processes of its own, other runtimes, a configuration that it reads.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use k3sd_containerd::image::{BuiltImage, ImageBuilder};
use k3sd_cri::v1;

use crate::support::{Node, busybox_image, node};

/// What a process is among others: its group, from `/proc`.
fn group(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name before may hold anything, but it ends with the last bracket.
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_whitespace().nth(2).unwrap().to_owned()
}

/// A terminal's ^C, and a service manager that ends a group, are for us alone.
#[tokio::test(flavor = "multi_thread")]
async fn signals_to_our_group_are_not_its() {
    let Some(node) = node() else { return };
    let running = node.start().await;
    let pid = running.engine().await.pid.unwrap().to_string();
    assert_eq!(group(&pid), pid, "it leads a group of its own");
    assert_ne!(group("self"), pid);
    let open = |number: u32| fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
    assert_eq!((open(0).as_path(), open(1).as_path()), (Path::new("/dev/null"), node.config.log_file().as_path()));
    running.stop().await;
}

/// `ctr` as a user has it.
pub(crate) fn ctr(node: &Node, args: &[&str]) -> String {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(node.config.socket()).args(["--namespace", "k8s.io"]).args(args);
    let output = command.output().expect("it comes with containerd");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn image(content: &str) -> BuiltImage {
    ImageBuilder::new("replaced:1").file("data", 0o644, content).command(["/data"]).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_changes_is_imported_again_and_pinned() {
    let Some(node) = node() else { return };
    node.put("a.tar", &BuiltImage::oci_archive(&[image("old")]));
    let running = node.start().await;
    running.images_until("imported", |status| status.imported == 1).await;
    let name = "docker.io/library/replaced:1";
    assert_eq!(running.image(name).await.unwrap().id, image("old").id());
    node.put("a.tar", &BuiltImage::oci_archive(&[image("new")]));
    running.images_until("imported again", |status| status.imported == 2).await;
    // The interface of the runtime learns of it from an event.
    let mut looks = 0;
    while running.image(name).await.unwrap().id != image("new").id() {
        looks += 1;
        assert!(looks < 100, "it is still the old one");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let listed = ctr(&node, &["images", "list", &format!("name=={name}")]);
    let line = listed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains(&image("new").digest()), "{line}");
    for label in ["io.cattle.k3s.pinned=pinned", "io.cri-containerd.pinned=pinned"] {
        assert!(line.contains(label), "{line}");
    }
    running.stop().await;
}

/// A runtime beside runc, by the name of its RuntimeClass: a script that takes notes and does as runc does.
#[tokio::test(flavor = "multi_thread")]
async fn pods_may_name_another_runtime_that_is_found() {
    let (Some(mut node), Some(_)) = (node(), busybox_image()) else { return };
    let (bin, notes) = (node.dir.path().join("bin"), node.dir.path().join("notes"));
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("crun"), format!("#!/bin/sh\necho \"$@\" >> {}\nexec runc \"$@\"\n", notes.display())).unwrap();
    fs::set_permissions(bin.join("crun"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    node.config.environment = vec![("PATH".into(), format!("{}:{path}", bin.display()).into())];
    let running = node.start().await;
    let namespaces = v1::NamespaceOption { network: v1::NamespaceMode::Node as i32, ..Default::default() };
    let security = v1::LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
    let metadata = v1::PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 };
    let linux = v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
    let config = v1::PodSandboxConfig { metadata: Some(metadata), linux: Some(linux), ..Default::default() };
    let request =
        |handler: &str| v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
    let error = running.cri.run_pod_sandbox(request("nvidia")).await.unwrap_err();
    assert!(error.message().contains("no runtime for \"nvidia\" is configured"), "{error:?}");
    running.sandbox_image().await;
    // Later releases ask each runtime for its features when they start.
    assert!(!fs::read_to_string(&notes).unwrap_or_default().contains("create"));
    let pod = running.cri.run_pod_sandbox(request("crun")).await.unwrap().pod_sandbox_id;
    let noted = fs::read_to_string(&notes).unwrap();
    assert!(noted.contains("create") && noted.contains(&pod), "{noted}");
    let gone = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
    running.cri.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    running.cri.remove_pod_sandbox(gone).await.unwrap();
    running.stop().await;

    // As the default it is what pods get that name none.
    node.config.default_runtime = Some("crun".to_owned());
    let running = node.start().await;
    fs::remove_file(&notes).ok();
    running.sandbox_image().await;
    let pod = running.cri.run_pod_sandbox(request("")).await.unwrap().pod_sandbox_id;
    assert!(fs::read_to_string(&notes).unwrap().contains(&pod));
    running.cri.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    running.stop().await;
}

/// The engine itself says what it made of its configuration.
#[tokio::test(flavor = "multi_thread")]
async fn every_setting_is_one_that_the_engine_knows() {
    let Some(mut node) = node() else { return };
    node.config.nonroot_devices = true;
    node.config.cni = Some(k3sd_containerd::CniDirs { bin: "/cni/bin".into(), conf: "/cni/conf".into() });
    let registries = "configs:\n  r.example:\n    auth: {username: u, password: p, identity_token: t}\n";
    fs::write(&node.config.private_registry, registries).unwrap();
    let running = node.start().await;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(node.config.config_file()).args(["config", "dump"]);
    let output = command.output().expect("it is installed");
    let dump = String::from_utf8_lossy(&output.stdout).into_owned();
    let trimmed: Vec<&str> = dump.lines().map(str::trim).collect();
    // In 2.x lines have other quotes, and plugins other names; each setting is there in some way.
    let has =
        |key: &str, value: &str| trimmed.iter().any(|line| line.replace('\'', "\"") == format!("{key} = {value}"));
    let certs = node.config.config_file().with_file_name("certs.d");
    for (key, value) in [
        ("device_ownership_from_security_context", "true".to_owned()),
        ("enable_unprivileged_ports", "true".to_owned()),
        ("snapshotter", "\"overlayfs\"".to_owned()),
        ("conf_dir", "\"/cni/conf\"".to_owned()),
        ("config_path", format!("{:?}", certs.display().to_string())),
        ("identitytoken", "\"t\"".to_owned()),
        ("stream_server_address", "\"127.0.0.1\"".to_owned()),
    ] {
        assert!(has(key, &value), "{key} = {value} is not in\n{dump}");
    }
    // What it doesn't know it says in its log, and ignores.
    let log = fs::read_to_string(node.config.log_file()).unwrap();
    assert!(!log.contains("Ignoring unknown key"), "{log}");
    running.stop().await;
}
