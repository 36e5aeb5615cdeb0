//! The calls of the interface, from bytes to bytes.

use std::fs;
use std::io::{self, Write as _};

use bytes::Bytes;
use k3sd_cri::v1;
use prost::Message;
use tonic::Status;

use super::FakeCri;
use super::state::{Now, State};

/// What the runtime says it is.
const NAME: &str = "containerd";
const VERSION: &str = "v1.7.0-fake";

/// Carries out the call at this path.
pub(super) fn call(cri: &FakeCri, path: &str, message: Bytes) -> Result<Vec<u8>, Status> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let done = cri.with(|state, now| match name {
        "Version" => one(message, |_: v1::VersionRequest| Ok(version())),
        "Status" => one(message, |_: v1::StatusRequest| Ok(status())),
        "RunPodSandbox" => one(message, |asked| state.run_sandbox(asked, now)),
        "StopPodSandbox" => one(message, |asked| state.stop_sandbox(&asked, now)),
        "RemovePodSandbox" => one(message, |asked| state.remove_sandbox(&asked, now)),
        "PodSandboxStatus" => one(message, |asked| state.sandbox_status(&asked)),
        "ListPodSandbox" => one(message, |asked| Ok(state.list_sandboxes(asked))),
        "CreateContainer" => one(message, |asked| state.create(asked, now)),
        "StartContainer" => one(message, |asked| start(state, &asked, now)),
        "StopContainer" => one(message, |asked| state.stop(&asked, now)),
        "RemoveContainer" => one(message, |asked| state.remove(&asked, now)),
        "ContainerStatus" => one(message, |asked| state.container_status(&asked)),
        "ListContainers" => one(message, |asked| Ok(state.list_containers(asked))),
        "ListContainerStats" => {
            one(message, |_: v1::ListContainerStatsRequest| Ok(v1::ListContainerStatsResponse::default()))
        }
        "ExecSync" => one(message, |asked| state.exec(&asked)),
        "UpdateContainerResources" => one(message, |asked| state.update(&asked)),
        "ReopenContainerLog" => {
            one(message, |_: v1::ReopenContainerLogRequest| Ok(v1::ReopenContainerLogResponse::default()))
        }
        _ => images(state, name, message, now),
    });
    cri.0.plans.send_replace(());
    done
}

/// Starts a container, which greets in its log.
fn start(state: &mut State, asked: &v1::StartContainerRequest, now: Now) -> Result<v1::StartContainerResponse, Status> {
    let answer = state.start(asked, now)?;
    let (path, line) =
        state.first_line(&asked.container_id, now).ok_or_else(|| Status::unknown("it has no sandbox"))?;
    let written = || {
        // As containerd does, whatever became of the directory.
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(line.as_bytes())
    };
    written().map_err(|error: io::Error| Status::unknown(format!("the log {}: {error}", path.display())))?;
    Ok(answer)
}

fn images(state: &mut State, name: &str, message: Bytes, now: Now) -> Result<Vec<u8>, Status> {
    match name {
        "ListImages" => one(message, |_: v1::ListImagesRequest| Ok(state.list_images())),
        "ImageStatus" => one(message, |asked| Ok(state.image_status(asked))),
        "PullImage" => one(message, |asked| state.pull(asked)),
        "RemoveImage" => one(message, |asked| Ok(state.remove_image(asked))),
        "ImageFsInfo" => one(message, |_: v1::ImageFsInfoRequest| Ok(state.image_fs(now))),
        _ => Err(Status::unimplemented(format!("unknown method {name}"))),
    }
}

/// Decodes a question, and encodes what is answered.
fn one<Q: Message + Default, A: Message>(
    message: Bytes,
    work: impl FnOnce(Q) -> Result<A, Status>,
) -> Result<Vec<u8>, Status> {
    let asked = Q::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
    work(asked).map(|answer| answer.encode_to_vec())
}

fn version() -> v1::VersionResponse {
    v1::VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: NAME.to_owned(),
        runtime_version: VERSION.to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

fn status() -> v1::StatusResponse {
    let condition = |name: &str| v1::RuntimeCondition { r#type: name.to_owned(), status: true, ..Default::default() };
    let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
    v1::StatusResponse { status: Some(v1::RuntimeStatus { conditions }), ..Default::default() }
}
