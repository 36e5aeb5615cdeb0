//! Files and mounts: jobs that run to their end on threads of their own.
//!
//! A pod's jobs all go to the same thread, so that they never overlap; different pods' may.

mod actor;
mod job;
mod set_up;
mod sub_path;
mod usage;

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::{Address, ChildSpec, ReplyPort, message_kinds, worker};
use tokio::sync::watch;

pub(crate) use self::actor::{Disk, DiskArgs};
pub(crate) use self::job::{Done, Group, Job, Medium, Planned, What};
use crate::error::VolumeError;
use crate::paths::Paths;

/// How many threads there are: enough that one long deletion doesn't hold everybody up, and cheap while they wait.
const THREADS: usize = 4;
/// How long a job may take, its wait included: the time that a pod's volumes have upstream before it is tried again.
const JOB_DEADLINE: Duration = Duration::from_secs(123);

/// What a thread's actor understands.
#[derive(Debug)]
pub(crate) enum DiskMsg {
    /// Do this.
    Run {
        /// What.
        job: Box<Job>,
        /// How it went.
        reply: ReplyPort<Result<Done, VolumeError>>,
    },
}
message_kinds!(DiskMsg { Run });

/// The way to the threads. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Disks(Arc<[watch::Receiver<Option<Address<DiskMsg>>>]>);

impl Disks {
    /// Runs a job of a pod, after those of it that wait.
    pub(crate) async fn run(&self, uid: &str, job: Job) -> Result<Done, VolumeError> {
        let mut hasher = std::hash::DefaultHasher::new();
        uid.hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % self.0.len() as u64).unwrap_or(0);
        let address = crate::address(&self.0[turn]).await?;
        let asked = address.call(JOB_DEADLINE, |reply| DiskMsg::Run { job: Box::new(job), reply });
        asked.await.map_err(|_| VolumeError::Away)?
    }
}

/// The threads' actors, and the way to them.
pub(crate) fn disks(paths: &Paths) -> (Vec<ChildSpec>, Disks) {
    let mut children = Vec::new();
    let mut ways = Vec::new();
    for number in 1..=THREADS {
        let (place, way) = watch::channel(None);
        let args = DiskArgs { paths: paths.clone(), place: Arc::new(place) };
        children.push(worker::<Disk>(&format!("disk-{number}"), args));
        ways.push(way);
    }
    (children, Disks(ways.into()))
}
