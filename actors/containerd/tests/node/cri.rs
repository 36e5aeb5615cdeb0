//! The client of the runtime interface, against a real runtime.

use std::time::{Duration, Instant};

use k3sd_containerd::image::BuiltImage;
use k3sd_cri::{Code, CriError, v1};

use crate::support::{busybox_image, node};

#[tokio::test(flavor = "multi_thread")]
async fn calls_answer_and_refusals_keep_their_meaning() {
    let (Some(node), Some(busybox)) = (node(), busybox_image()) else { return };
    let absent = k3sd_cri::Cri::new(node.dir.path().join("nobody.sock"));
    let error = absent.version(v1::VersionRequest::default()).await.unwrap_err();
    assert!(error.is_unavailable() && matches!(error, CriError::Away { .. }), "{error:?}");
    let socket = node.dir.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let silent = k3sd_cri::Cri::new(socket).with_limit(Duration::from_millis(50));
    let error = silent.version(v1::VersionRequest::default()).await.unwrap_err();
    assert!(matches!(error, CriError::Late { .. }) && !error.is_unavailable(), "{error:?}");

    node.put("busybox.tar", &BuiltImage::docker_archive(&[busybox]));
    let running = node.start().await;
    running.images_until("imported", |status| status.imported == 1).await;
    let cri = &running.cri;
    let unknown = v1::ContainerStatusRequest { container_id: "none".into(), verbose: false };
    let error = cri.container_status(unknown).await.unwrap_err();
    assert!(error.is_not_found() && error.message().contains("none"), "{error:?}");

    let id = running.sleeper("cri").await;
    let command = ["sh", "-c", "echo out; echo err >&2; exit 7"].map(str::to_owned).into();
    let request = v1::ExecSyncRequest { container_id: id.clone(), cmd: command, timeout: 10 };
    let done = cri.exec_sync(request).await.unwrap();
    assert_eq!((done.exit_code, done.stdout.as_slice(), done.stderr.as_slice()), (7, &b"out\n"[..], &b"err\n"[..]));
    // An orphan of the pod is buried by the sandbox's program.
    let orphan = "(sleep 0.05 &); sleep 0.5; grep -l 'State:.Z' /proc/[0-9]*/status | wc -l; head -n 1 /proc/1/status";
    let command = vec!["sh".to_owned(), "-c".to_owned(), orphan.to_owned()];
    let request = v1::ExecSyncRequest { container_id: id.clone(), cmd: command, timeout: 10 };
    let done = cri.exec_sync(request).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "0\nName:\tpause\n");
    let slow = v1::ExecSyncRequest { container_id: id.clone(), cmd: vec!["sleep".into(), "60".into()], timeout: 1 };
    assert_eq!(cri.exec_sync(slow).await.unwrap_err().code(), Code::DeadlineExceeded);
    let request =
        v1::ExecRequest { container_id: id.clone(), cmd: vec!["id".into()], stdout: true, ..Default::default() };
    assert!(cri.exec(request).await.unwrap().url.starts_with("http://127.0.0.1:"));

    // The sandbox's program is the first process of the pod, so the container hears the wish to end and needs no force.
    let begun = Instant::now();
    cri.stop_container(v1::StopContainerRequest { container_id: id.clone(), timeout: 30 }).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(running.container(&id).await.0, v1::ContainerState::ContainerExited as i32);
    let pods = cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap().items;
    let [pod] = pods.as_slice() else { panic!("{pods:?}") };
    let begun = Instant::now();
    cri.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await.unwrap();
    assert!(cri.list_containers(v1::ListContainersRequest::default()).await.unwrap().containers.is_empty());
    running.stop().await;
}
