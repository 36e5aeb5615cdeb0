//! The subtree, as data.

use std::fmt;
use std::sync::Arc;

use k3sd_cri::Cri;
use k3sd_runtime::{Spec, Strategy, System, TypeMismatch, worker};
use tokio::sync::watch;

use crate::config::ContainerdConfig;
use crate::engine::{Engine, EngineArgs, EngineHandle};
use crate::events::events;
use crate::images::{Images, ImagesArgs, ImagesHandle};
use crate::shims::{Shims, ShimsArgs};

/// The subtree, and the ways to what it keeps running.
#[derive(Clone)]
pub struct ContainerdTree {
    /// What to start.
    pub spec: Spec,
    /// The way to the runtime, which need not be there yet.
    pub cri: Cri,
    /// Whether pods can be run: the runtime answers and has the sandbox's image.
    pub ready: watch::Receiver<bool>,
    /// Changes when a container ended or was removed, maybe before CRI knows; and once a second while nobody can say.
    pub changes: watch::Receiver<()>,
}

impl fmt::Debug for ContainerdTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerdTree").field("cri", &self.cri).field("ready", &*self.ready.borrow()).finish()
    }
}

/// Configures, starts and watches containerd, and imports what is on disk. It is up before containerd is: wait for
/// [`ContainerdTree::ready`]. When it stops, containerd and all containers go on; the next one adopts them.
pub fn tree(config: ContainerdConfig) -> ContainerdTree {
    let cri = Cri::new(config.socket());
    let config = Arc::new(config);
    let (answers, answered) = watch::channel(false);
    let (ready, readiness) = watch::channel(false);
    let (changes, changed) = watch::channel(());
    let engine = EngineArgs { config: config.clone(), cri: cri.clone(), answers: Arc::new(answers) };
    let shims = ShimsArgs { config: config.clone(), answers: answered.clone() };
    let images = ImagesArgs { config: config.clone(), cri: cri.clone(), answers: answered, ready: Arc::new(ready) };
    // They share nothing but the engine, which outlives them both.
    let spec = Spec::new(Strategy::OneForOne)
        .child(worker::<Engine>("engine", engine).start_within(None))
        .child(events(config, Arc::new(changes)))
        .child(worker::<Shims>("shims", shims))
        .child(worker::<Images>("images", images).start_within(None));
    ContainerdTree { spec, cri, ready: readiness, changes: changed }
}

/// The actor that keeps the engine running, in the subtree at `path`.
///
/// # Errors
/// Another actor is known at this path.
pub fn engine(system: &System, path: &str) -> Result<EngineHandle, TypeMismatch> {
    system.address(&format!("{path}/engine")).map(EngineHandle::new)
}

/// The actor that imports images, in the subtree at `path`.
///
/// # Errors
/// Another actor is known at this path.
pub fn images(system: &System, path: &str) -> Result<ImagesHandle, TypeMismatch> {
    system.address(&format!("{path}/images")).map(ImagesHandle::new)
}
