//! What the runtime has. No IO, no clock: each change is told when it happens.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k3sd_cri::v1;
use k3sd_runtime::{Clock, Moment};
use tonic::Status;

/// Labels that the node gives what it makes.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// What a command begins with that ends by itself.
const EXIT: &str = "exit";
/// What a container ends with that is told to.
const TOLD_TO_END: i32 = 137;

/// A moment, on both axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    moment: Moment,
    /// Nanoseconds since 1970.
    wall: i64,
}

impl Now {
    pub(super) fn of(clock: &Clock) -> Self {
        Self { moment: clock.now(), wall: i64::try_from(clock.wall().as_nanos()).unwrap_or(i64::MAX) }
    }
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its process did, with this code.
    ByItself(i32),
    /// The node told it to, or its sandbox.
    Told,
}

/// What a container writes to its log when it begins, and nothing else ever: who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// Its name in the pod.
    pub name: String,
    /// How many of this name there were before in the pod.
    pub attempt: u32,
    /// Its own id.
    pub id: String,
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, pod, uid, name, attempt, id } = self;
        write!(f, "{namespace} {pod} {uid} {name} {attempt} {id}")
    }
}

impl Greeting {
    /// Reads a line without its end; nothing if no container wrote it.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [namespace, pod, uid, name, attempt, id] = words[..] else { return None };
        let [namespace, pod, uid, name, id] = [namespace, pod, uid, name, id].map(str::to_owned);
        Some(Self { namespace, pod, uid, name, attempt: attempt.parse().ok()?, id })
    }
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It runs.
    Started,
    /// It doesn't any more.
    Ended(End),
}

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// When.
    pub at: Moment,
    /// The pod's uid.
    pub pod: String,
    /// Its name in the pod.
    pub name: String,
    /// Its own id.
    pub id: String,
    /// What.
    pub step: Step,
}

#[derive(Debug)]
struct Sandbox {
    config: v1::PodSandboxConfig,
    handler: String,
    created: i64,
    address: String,
    is_ready: bool,
}

#[derive(Debug)]
struct Container {
    config: v1::ContainerConfig,
    sandbox: String,
    image: String,
    created: i64,
    started: Option<(i64, Moment)>,
    ended: Option<(i64, End)>,
}

impl Container {
    fn label(&self, name: &str) -> String {
        self.config.labels.get(name).cloned().unwrap_or_default()
    }

    fn is_running(&self) -> bool {
        self.started.is_some() && self.ended.is_none()
    }

    fn state(&self) -> v1::ContainerState {
        match (self.started, self.ended) {
            (_, Some(_)) => v1::ContainerState::ContainerExited,
            (Some(_), None) => v1::ContainerState::ContainerRunning,
            (None, None) => v1::ContainerState::ContainerCreated,
        }
    }

    fn greeting(&self, id: &str) -> Greeting {
        Greeting {
            namespace: self.label(POD_NAMESPACE),
            pod: self.label(POD_NAME),
            uid: self.label(POD_UID),
            name: self.label(CONTAINER_NAME),
            attempt: self.config.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
            id: id.to_owned(),
        }
    }

    /// When it ends by itself, and with which code.
    fn plan(&self) -> Option<(Moment, i32)> {
        let (_, started) = self.started.filter(|_| self.ended.is_none())?;
        let [word, seconds, code] = &self.config.command[..] else { return None };
        let (seconds, code) = (seconds.parse().ok()?, code.parse().ok()?);
        (word == EXIT).then(|| (started + Duration::from_secs(seconds), code))
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    images: BTreeSet<String>,
    made: u64,
    addresses: u16,
    /// Where images are kept, as far as anybody measures.
    mount: String,
    pub(super) lives: Vec<Life>,
}

impl State {
    pub(super) fn new(mount: String) -> Self {
        let (sandboxes, containers, images) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { sandboxes, containers, images, made: 0, addresses: 1, mount, lives: Vec::new() }
    }

    fn id(&mut self) -> String {
        self.made += 1;
        // As long as containerd's, since users cut them off.
        format!("{:064x}", self.made)
    }

    /// Ends what is due. Says whether anything was.
    pub(super) fn age(&mut self, now: Now) -> bool {
        let due = |(id, one): (&String, &Container)| {
            one.plan().filter(|(at, _)| *at <= now.moment).map(|(_, code)| (id.clone(), code))
        };
        let due: Vec<(String, i32)> = self.containers.iter().filter_map(due).collect();
        due.iter().for_each(|(id, code)| self.end(id, End::ByItself(*code), now));
        !due.is_empty()
    }

    /// When the next container ends by itself.
    pub(super) fn next_end(&self) -> Option<Moment> {
        self.containers.values().filter_map(Container::plan).map(|(at, _)| at).min()
    }

    fn note(&mut self, id: &str, step: Step, now: Now) {
        let Some(one) = self.containers.get(id) else { return };
        let (pod, name) = (one.label(POD_UID), one.label(CONTAINER_NAME));
        self.lives.push(Life { at: now.moment, pod, name, id: id.to_owned(), step });
    }

    fn end(&mut self, id: &str, end: End, now: Now) {
        if let Some(one) = self.containers.get_mut(id).filter(|one| one.is_running()) {
            one.ended = Some((now.wall, end));
            self.note(id, Step::Ended(end), now);
        }
    }

    pub(super) fn crash(&mut self, draw: u64, code: i32, now: Now) -> Option<(String, String)> {
        let running: Vec<String> =
            self.containers.iter().filter(|(_, one)| one.is_running()).map(|(id, _)| id.clone()).collect();
        let place = usize::try_from(draw % (running.len().max(1) as u64)).unwrap_or_default();
        let id = running.get(place)?.clone();
        self.end(&id, End::ByItself(code), now);
        let one = &self.containers[&id];
        Some((one.label(POD_UID), one.label(CONTAINER_NAME)))
    }

    pub(super) fn sandbox_uids(&self) -> Vec<String> {
        self.sandboxes.values().filter_map(|one| one.config.labels.get(POD_UID).cloned()).collect()
    }

    pub(super) fn greetings(&self) -> Vec<Greeting> {
        let running = self.containers.iter().filter(|(_, one)| one.is_running());
        running.map(|(id, one)| one.greeting(id)).collect()
    }

    /// The log of a container, and what it writes there when it begins, in the layout of the interface.
    pub(super) fn first_line(&self, id: &str, now: Now) -> Option<(PathBuf, String)> {
        let found = self.containers.get(id)?;
        let directory = &self.sandboxes.get(&found.sandbox)?.config.log_directory;
        let time = Timestamp::from_nanosecond(i128::from(now.wall)).unwrap_or_default();
        let line = format!("{time:.9} stdout F {}\n", found.greeting(id));
        Some((Path::new(directory).join(&found.config.log_path), line))
    }

    pub(super) fn running(&self) -> Vec<(String, String)> {
        let running = self.containers.values().filter(|one| one.is_running());
        running.map(|one| (one.label(POD_UID), one.label(CONTAINER_NAME))).collect()
    }
}

/// Sandboxes.
impl State {
    pub(super) fn run_sandbox(
        &mut self,
        asked: v1::RunPodSandboxRequest,
        now: Now,
    ) -> Result<v1::RunPodSandboxResponse, Status> {
        let config = asked.config.ok_or_else(|| Status::invalid_argument("no config"))?;
        if self.sandboxes.values().any(|one| one.config.metadata == config.metadata) {
            return Err(Status::unknown("failed to reserve sandbox name: name is reserved"));
        }
        let (id, last) = (self.id(), self.addresses);
        self.addresses = self.addresses.wrapping_add(1).max(1);
        let address = format!("10.42.{}.{}", last >> 8, last & 0xff);
        let made = Sandbox { config, handler: asked.runtime_handler, created: now.wall, address, is_ready: true };
        self.sandboxes.insert(id.clone(), made);
        Ok(v1::RunPodSandboxResponse { pod_sandbox_id: id })
    }

    fn containers_of(&self, sandbox: &str) -> Vec<String> {
        let own = self.containers.iter().filter(|(_, one)| one.sandbox == sandbox);
        own.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn stop_sandbox(
        &mut self,
        asked: &v1::StopPodSandboxRequest,
        now: Now,
    ) -> Result<v1::StopPodSandboxResponse, Status> {
        for id in self.containers_of(&asked.pod_sandbox_id) {
            self.end(&id, End::Told, now);
        }
        if let Some(found) = self.sandboxes.get_mut(&asked.pod_sandbox_id) {
            found.is_ready = false;
        }
        Ok(v1::StopPodSandboxResponse::default())
    }

    pub(super) fn remove_sandbox(
        &mut self,
        asked: &v1::RemovePodSandboxRequest,
        now: Now,
    ) -> Result<v1::RemovePodSandboxResponse, Status> {
        for id in self.containers_of(&asked.pod_sandbox_id) {
            self.end(&id, End::Told, now);
            self.containers.remove(&id);
        }
        self.sandboxes.remove(&asked.pod_sandbox_id);
        Ok(v1::RemovePodSandboxResponse::default())
    }

    pub(super) fn sandbox_status(
        &self,
        asked: &v1::PodSandboxStatusRequest,
    ) -> Result<v1::PodSandboxStatusResponse, Status> {
        let id = &asked.pod_sandbox_id;
        let found = self.sandboxes.get(id).ok_or_else(|| Status::not_found(format!("sandbox {id}: not found")))?;
        let network = v1::PodSandboxNetworkStatus { ip: found.address.clone(), additional_ips: Vec::new() };
        let status = v1::PodSandboxStatus {
            id: id.clone(),
            metadata: found.config.metadata.clone(),
            state: sandbox_state(found) as i32,
            created_at: found.created,
            network: Some(network),
            labels: found.config.labels.clone(),
            annotations: found.config.annotations.clone(),
            runtime_handler: found.handler.clone(),
            ..Default::default()
        };
        Ok(v1::PodSandboxStatusResponse { status: Some(status), ..Default::default() })
    }

    pub(super) fn list_sandboxes(&self, asked: v1::ListPodSandboxRequest) -> v1::ListPodSandboxResponse {
        let filter = asked.filter.unwrap_or_default();
        let wanted = filter.state.map(|state| state.state);
        let fits = |(id, one): &(&String, &Sandbox)| {
            (filter.id.is_empty() || filter.id == **id)
                && wanted.is_none_or(|state| state == sandbox_state(one) as i32)
                && selects(&filter.label_selector, &one.config.labels)
        };
        let show = |(id, one): (&String, &Sandbox)| v1::PodSandbox {
            id: id.clone(),
            metadata: one.config.metadata.clone(),
            state: sandbox_state(one) as i32,
            created_at: one.created,
            labels: one.config.labels.clone(),
            annotations: one.config.annotations.clone(),
            runtime_handler: one.handler.clone(),
        };
        v1::ListPodSandboxResponse { items: self.sandboxes.iter().filter(fits).map(show).collect() }
    }
}

fn sandbox_state(sandbox: &Sandbox) -> v1::PodSandboxState {
    if sandbox.is_ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
}

/// Whether labels are as a filter wants them.
fn selects(wanted: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// Containers.
impl State {
    pub(super) fn create(
        &mut self,
        asked: v1::CreateContainerRequest,
        now: Now,
    ) -> Result<v1::CreateContainerResponse, Status> {
        let config = asked.config.ok_or_else(|| Status::invalid_argument("no config"))?;
        let sandbox = asked.pod_sandbox_id;
        if !self.sandboxes.get(&sandbox).is_some_and(|found| found.is_ready) {
            return Err(Status::not_found(format!("sandbox {sandbox}: not found")));
        }
        let image = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        if !self.images.contains(&image) {
            return Err(Status::not_found(format!("image {image}: not found")));
        }
        let own = |one: &Container| one.sandbox == sandbox && one.config.metadata == config.metadata;
        if self.containers.values().any(own) {
            return Err(Status::unknown("failed to reserve container name: name is reserved"));
        }
        let id = self.id();
        let made = Container { config, sandbox, image, created: now.wall, started: None, ended: None };
        self.containers.insert(id.clone(), made);
        Ok(v1::CreateContainerResponse { container_id: id })
    }

    fn container(&self, id: &str) -> Result<&Container, Status> {
        self.containers.get(id).ok_or_else(|| Status::not_found(format!("container {id}: not found")))
    }

    pub(super) fn start(
        &mut self,
        asked: &v1::StartContainerRequest,
        now: Now,
    ) -> Result<v1::StartContainerResponse, Status> {
        let id = &asked.container_id;
        let found = self.container(id)?;
        if found.started.is_some() {
            return Err(Status::unknown(format!("container {id} is not in created state")));
        }
        if let Some(found) = self.containers.get_mut(id) {
            found.started = Some((now.wall, now.moment));
        }
        self.note(id, Step::Started, now);
        Ok(v1::StartContainerResponse::default())
    }

    pub(super) fn stop(
        &mut self,
        asked: &v1::StopContainerRequest,
        now: Now,
    ) -> Result<v1::StopContainerResponse, Status> {
        self.end(&asked.container_id, End::Told, now);
        Ok(v1::StopContainerResponse::default())
    }

    pub(super) fn remove(
        &mut self,
        asked: &v1::RemoveContainerRequest,
        now: Now,
    ) -> Result<v1::RemoveContainerResponse, Status> {
        self.end(&asked.container_id, End::Told, now);
        self.containers.remove(&asked.container_id);
        Ok(v1::RemoveContainerResponse::default())
    }

    pub(super) fn exec(&self, asked: &v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, Status> {
        match self.container(&asked.container_id)?.is_running() {
            true => Ok(v1::ExecSyncResponse::default()),
            false => Err(Status::unknown("the container does not run")),
        }
    }

    pub(super) fn update(
        &self,
        asked: &v1::UpdateContainerResourcesRequest,
    ) -> Result<v1::UpdateContainerResourcesResponse, Status> {
        self.container(&asked.container_id).map(|_| v1::UpdateContainerResourcesResponse::default())
    }

    pub(super) fn container_status(
        &self,
        asked: &v1::ContainerStatusRequest,
    ) -> Result<v1::ContainerStatusResponse, Status> {
        let (id, found) = (&asked.container_id, self.container(&asked.container_id)?);
        let code = match found.ended {
            Some((_, End::ByItself(code))) => code,
            Some((_, End::Told)) => TOLD_TO_END,
            None => 0,
        };
        let reason = match (found.ended, code) {
            (None, _) => "",
            (Some(_), 0) => "Completed",
            (Some(_), _) => "Error",
        };
        let directory = self.sandboxes.get(&found.sandbox).map(|sandbox| sandbox.config.log_directory.clone());
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: found.config.metadata.clone(),
            state: found.state() as i32,
            created_at: found.created,
            started_at: found.started.map(|(wall, _)| wall).unwrap_or_default(),
            finished_at: found.ended.map(|(wall, _)| wall).unwrap_or_default(),
            exit_code: code,
            image: found.config.image.clone(),
            image_ref: found.image.clone(),
            image_id: found.image.clone(),
            reason: reason.to_owned(),
            labels: found.config.labels.clone(),
            annotations: found.config.annotations.clone(),
            mounts: found.config.mounts.clone(),
            log_path: format!("{}/{}", directory.unwrap_or_default(), found.config.log_path),
            ..Default::default()
        };
        Ok(v1::ContainerStatusResponse { status: Some(status), ..Default::default() })
    }

    pub(super) fn list_containers(&self, asked: v1::ListContainersRequest) -> v1::ListContainersResponse {
        let filter = asked.filter.unwrap_or_default();
        let wanted = filter.state.map(|state| state.state);
        let fits = |(id, one): &(&String, &Container)| {
            (filter.id.is_empty() || filter.id == **id)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == one.sandbox)
                && wanted.is_none_or(|state| state == one.state() as i32)
                && selects(&filter.label_selector, &one.config.labels)
        };
        let show = |(id, one): (&String, &Container)| v1::Container {
            id: id.clone(),
            pod_sandbox_id: one.sandbox.clone(),
            metadata: one.config.metadata.clone(),
            image: one.config.image.clone(),
            image_ref: one.image.clone(),
            image_id: one.image.clone(),
            state: one.state() as i32,
            created_at: one.created,
            labels: one.config.labels.clone(),
            annotations: one.config.annotations.clone(),
        };
        v1::ListContainersResponse { containers: self.containers.iter().filter(fits).map(show).collect() }
    }
}

/// Images. Each is its own name, and any may be pulled.
impl State {
    fn image(name: &str) -> v1::Image {
        let size = 1 << 20;
        v1::Image { id: name.to_owned(), repo_tags: vec![name.to_owned()], size, ..Default::default() }
    }

    pub(super) fn list_images(&self) -> v1::ListImagesResponse {
        v1::ListImagesResponse { images: self.images.iter().map(|name| Self::image(name)).collect() }
    }

    pub(super) fn image_status(&self, asked: v1::ImageStatusRequest) -> v1::ImageStatusResponse {
        let name = asked.image.unwrap_or_default().image;
        let image = self.images.get(&name).map(|name| Self::image(name));
        v1::ImageStatusResponse { image, ..Default::default() }
    }

    pub(super) fn pull(&mut self, asked: v1::PullImageRequest) -> Result<v1::PullImageResponse, Status> {
        let name = asked.image.unwrap_or_default().image;
        if name.is_empty() {
            return Err(Status::invalid_argument("no image"));
        }
        self.images.insert(name.clone());
        Ok(v1::PullImageResponse { image_ref: name })
    }

    pub(super) fn remove_image(&mut self, asked: v1::RemoveImageRequest) -> v1::RemoveImageResponse {
        self.images.remove(&asked.image.unwrap_or_default().image);
        v1::RemoveImageResponse::default()
    }

    pub(super) fn image_fs(&self, now: Now) -> v1::ImageFsInfoResponse {
        let usage = v1::FilesystemUsage {
            timestamp: now.wall,
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: self.mount.clone() }),
            used_bytes: Some(v1::UInt64Value { value: (self.images.len() as u64) << 20 }),
            inodes_used: Some(v1::UInt64Value { value: self.images.len() as u64 }),
        };
        v1::ImageFsInfoResponse { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] }
    }
}
