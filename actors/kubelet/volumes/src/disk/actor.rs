//! Runs jobs on a thread.
//!
//! Owns:    a thread. What it makes belongs to the pods; it keeps nothing.
//! Needs:   the kubelet's directory.
//! Restart: permanent; jobs that waited are lost, and asked for again by whoever wanted them. Each finds what is there.
//! Fails:   when a job panics.

use std::sync::Arc;

use jiff::Timestamp;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Address, Context};
use tokio::sync::watch;

use super::{DiskMsg, job};
use crate::paths::Paths;

/// Jobs that may wait for the thread itself; the mailbox holds the rest.
const JOBS_MAX: usize = 1;

/// What a thread is started with.
#[derive(Clone)]
pub(crate) struct DiskArgs {
    pub(crate) paths: Paths,
    pub(crate) place: Arc<watch::Sender<Option<Address<DiskMsg>>>>,
}

/// The actor in front of a thread.
pub(crate) struct Disk {
    thread: Blocking<Paths>,
    jobs: u64,
}

impl Actor for Disk {
    type Args = DiskArgs;
    type Msg = DiskMsg;

    async fn init(ctx: &mut Context<DiskMsg>, args: DiskArgs) -> Result<Self, ActorError> {
        let paths = args.paths.clone();
        let thread = Blocking::start(ctx, JOBS_MAX, move || Ok::<_, std::convert::Infallible>(paths)).await?;
        args.place.send_replace(Some(ctx.address()));
        Ok(Self { thread, jobs: 0 })
    }

    async fn handle(&mut self, ctx: &mut Context<DiskMsg>, message: DiskMsg) -> Result<(), ActorError> {
        let DiskMsg::Run { job, reply } = message;
        if reply.is_abandoned() {
            return Ok(());
        }
        self.jobs += 1;
        let stamp = stamp(ctx.clock().wall(), self.jobs);
        let done = self.thread.run(move |paths| job::carry_out(*job, paths, &stamp)).await?;
        reply.send(done);
        Ok(())
    }
}

/// The name of a directory that is written now, as `2026_11_21_14_30_00.0000000017`: no two are the same.
fn stamp(wall: std::time::Duration, count: u64) -> String {
    let seconds = i64::try_from(wall.as_secs()).unwrap_or(0);
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    format!("{}.{:09}{count}", time.strftime("%Y_%m_%d_%H_%M_%S"), wall.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn stamps_are_times_and_differ() {
        assert_eq!(stamp(Duration::new(1_893_456_000, 5), 7), "2030_01_01_00_00_00.0000000057");
    }
}
