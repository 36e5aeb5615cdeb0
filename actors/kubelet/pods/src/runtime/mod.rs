//! What the runtime has of a pod: the truth that decisions start from.

mod look;

use jiff::Timestamp;
use k3sd_cri::v1;

pub use self::look::{Cache, look};

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made and not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime doesn't know.
    Unknown,
}

/// A container that the runtime has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The runtime's id.
    pub id: String,
    /// The name in the pod.
    pub name: String,
    /// How many of its name came before.
    pub attempt: u32,
    /// The sandbox it is in.
    pub sandbox: String,
    /// What it is doing.
    pub state: State,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was started, if it was.
    pub started_at: Option<Timestamp>,
    /// When it ended, if it has.
    pub finished_at: Option<Timestamp>,
    /// What it ended with.
    pub exit_code: i32,
    /// The runtime's reason for its state, as `OOMKilled`.
    pub reason: String,
    /// Its last words, or the runtime's message.
    pub message: String,
    /// What it was made from; see [`crate::translate::labels::hash`].
    pub hash: String,
    /// The image as the pod names it.
    pub image: String,
    /// The image's id, with its digest where the runtime knows it.
    pub image_id: String,
    /// The file of its log.
    pub log: String,
    /// Seconds of grace that the pod had when it was made; for when nobody remembers the pod.
    pub grace: Option<i64>,
    /// The hook before its end, as JSON, likewise.
    pub pre_stop: Option<String>,
    /// What the runtime limits it to, if it says so.
    pub limits: Option<Limits>,
    /// Whom it runs as, if the runtime says so: user, group, other groups.
    pub user: Option<(i64, i64, Vec<i64>)>,
}

/// Limits of a running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Shares of the CPU.
    pub cpu_shares: i64,
    /// Quota of the CPU, in microseconds.
    pub cpu_quota: i64,
    /// What the quota counts in, in microseconds.
    pub cpu_period: i64,
    /// Bytes of memory.
    pub memory: i64,
}

/// A sandbox that the runtime has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many of the pod came before.
    pub attempt: u32,
    /// Whether it runs.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its addresses, the first one first.
    pub addresses: Vec<String>,
    /// Whether it is on the host's network.
    pub host_network: bool,
}

/// All that the runtime has of a pod, youngest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Its sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Its containers.
    pub containers: Vec<Found>,
}

impl Runtime {
    /// The youngest container of a name.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<&Found> {
        self.containers.iter().find(|one| one.name == name)
    }

    /// The youngest container of a name in the youngest sandbox.
    #[must_use]
    pub fn active(&self, name: &str) -> Option<&Found> {
        let sandbox = &self.sandboxes.first()?.id;
        self.containers.iter().find(|one| one.name == name && one.sandbox == *sandbox)
    }

    /// The sandbox that runs.
    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().find(|one| one.ready)
    }

    /// Containers that run.
    pub fn running(&self) -> impl Iterator<Item = &Found> {
        self.containers.iter().filter(|one| one.state == State::Running)
    }

    /// Whether nothing runs any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.containers.iter().all(|one| matches!(one.state, State::Exited | State::Created))
            && self.sandboxes.iter().all(|one| !one.ready)
    }
}

pub(crate) fn state_of(state: i32) -> State {
    match v1::ContainerState::try_from(state) {
        Ok(v1::ContainerState::ContainerCreated) => State::Created,
        Ok(v1::ContainerState::ContainerRunning) => State::Running,
        Ok(v1::ContainerState::ContainerExited) => State::Exited,
        _ => State::Unknown,
    }
}
