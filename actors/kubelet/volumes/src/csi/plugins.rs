//! Watches the directory where storage drivers put their sockets.
//!
//! Owns:    which drivers are registered; the list is published.
//! Needs:   the directory, which it makes, and the API.
//! Restart: permanent. It registers every socket again, which harms nobody; the list stays meanwhile.
//! Fails:   when the directory can't be watched.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_runtime::{Actor, ActorError, ChildSpec, Context, message_kinds, worker};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::Drivers;
use super::register::{Driver, forget, register};
use crate::config::VolumesConfig;
use crate::paths::Paths;

/// Waits between two failed attempts at one socket: doubled up to the last.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(120);
/// A node has a handful of drivers; further sockets are somebody's mistake.
const SOCKETS_MAX: usize = 256;

/// What the actor understands.
#[derive(Debug)]
pub(super) enum PluginsMsg {
    /// The directory has changed.
    Changed,
    /// Try a socket again.
    RetryTick {
        /// Which.
        socket: PathBuf,
    },
    /// A driver was registered, or not.
    Registered {
        /// At which socket.
        socket: PathBuf,
        /// Which file that was.
        file: u64,
        /// The driver; `None` for somebody else. Or why not.
        outcome: Result<Option<Driver>, String>,
    },
    /// A driver was struck off.
    Forgotten,
}
message_kinds!(PluginsMsg { Changed, RetryTick, Registered, Forgotten });

/// What it is started with.
#[derive(Clone)]
pub(super) struct PluginsArgs {
    registry: PathBuf,
    node: String,
    connect: Connect,
    place: Arc<watch::Sender<Drivers>>,
}

/// The actor.
pub(super) struct Plugins {
    args: PluginsArgs,
    changes: Arc<AsyncFd<OwnedFd>>,
    sockets: BTreeMap<PathBuf, Socket>,
}

struct Socket {
    /// Its inode: a driver that starts again makes another file.
    file: u64,
    failures: u32,
    driver: Option<String>,
}

/// The actor, to be supervised.
pub(crate) fn plugins(
    config: &VolumesConfig,
    paths: &Paths,
    connect: Connect,
    place: watch::Sender<Drivers>,
) -> ChildSpec {
    let (registry, node) = (paths.registry(), config.node_name.clone());
    worker::<Plugins>("plugins", PluginsArgs { registry, node, connect, place: Arc::new(place) })
}

impl Actor for Plugins {
    type Args = PluginsArgs;
    type Msg = PluginsMsg;

    async fn init(ctx: &mut Context<PluginsMsg>, args: PluginsArgs) -> Result<Self, ActorError> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&args.registry)?;
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let what = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, &args.registry, what)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; an owned descriptor stays open as long as it is registered"
        )]
        let changes = Arc::new(AsyncFd::new(watch)?);
        ctx.send_self(PluginsMsg::Changed);
        Ok(Self { args, changes, sockets: BTreeMap::new() })
    }

    async fn handle(&mut self, ctx: &mut Context<PluginsMsg>, message: PluginsMsg) -> Result<(), ActorError> {
        match message {
            PluginsMsg::Changed => {
                self.wait(ctx)?;
                self.look(ctx);
            }
            PluginsMsg::RetryTick { socket } => self.register(ctx, socket),
            PluginsMsg::Registered { socket, file, outcome } => self.registered(ctx, &socket, file, outcome),
            PluginsMsg::Forgotten => {}
        }
        Ok(())
    }
}

impl Plugins {
    /// Takes what changes there are, and waits for the next; what they say doesn't matter, because everything is looked at.
    fn wait(&self, ctx: &mut Context<PluginsMsg>) -> Result<(), ActorError> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.changes.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        let changes = self.changes.clone();
        ctx.pipe(async move {
            loop {
                let Ok(mut ready) = changes.readable().await else { std::future::pending().await };
                // It may have been taken already; asking the kernel again is what tells.
                let has_more = ready.try_io(|watch| {
                    let mut none = [rustix::event::PollFd::new(watch.get_ref(), rustix::event::PollFlags::IN)];
                    match rustix::event::poll(&mut none, Some(&rustix::event::Timespec::default())) {
                        Ok(0) => Err(std::io::ErrorKind::WouldBlock.into()),
                        Ok(_) => Ok(()),
                        Err(errno) => Err(errno.into()),
                    }
                });
                if has_more.is_ok() {
                    return PluginsMsg::Changed;
                }
            }
        });
        Ok(())
    }

    fn look(&mut self, ctx: &mut Context<PluginsMsg>) {
        let found = sockets(&self.args.registry);
        let gone: Vec<PathBuf> = self.sockets.keys().filter(|socket| !found.contains_key(*socket)).cloned().collect();
        for socket in gone {
            let Some(driver) = self.sockets.remove(&socket).and_then(|socket| socket.driver) else { continue };
            if self.sockets.values().any(|other| other.driver.as_ref() == Some(&driver)) {
                continue;
            }
            self.publish(&driver, None);
            let (client, node) = (self.args.connect.client(), self.args.node.clone());
            ctx.pipe(async move {
                if let Err(error) = forget(client, &node, &driver).await {
                    tracing::warn!(driver, error = error.event(), "a storage driver that is gone stays written down");
                }
                PluginsMsg::Forgotten
            });
        }
        for (path, file) in found {
            let is_new = self.sockets.get(&path).is_none_or(|known| known.file != file);
            if is_new {
                let driver = self.sockets.get(&path).and_then(|known| known.driver.clone());
                self.sockets.insert(path.clone(), Socket { file, failures: 0, driver });
                self.register(ctx, path);
            }
        }
    }

    fn register(&self, ctx: &mut Context<PluginsMsg>, socket: PathBuf) {
        let Some(file) = self.sockets.get(&socket).map(|known| known.file) else { return };
        let (client, node) = (self.args.connect.client(), self.args.node.clone());
        ctx.pipe(async move {
            let outcome = register(client, &node, &socket).await.map_err(|error| error.event());
            PluginsMsg::Registered { socket, file, outcome }
        });
    }

    fn registered(
        &mut self,
        ctx: &mut Context<PluginsMsg>,
        socket: &Path,
        file: u64,
        outcome: Result<Option<Driver>, String>,
    ) {
        let Some(known) = self.sockets.get_mut(socket).filter(|known| known.file == file) else { return };
        match outcome {
            Ok(driver) => {
                known.failures = 0;
                known.driver = driver.as_ref().map(|driver| driver.name.clone());
                if let Some(driver) = driver {
                    tracing::info!(driver = driver.name, "a storage driver is registered");
                    self.publish(&driver.name, Some(driver.socket));
                }
            }
            Err(reason) => {
                known.failures += 1;
                if known.failures == 1 {
                    tracing::warn!(socket = %socket.display(), reason, "a plugin can't be registered yet");
                }
                let wait = RETRY_MIN.saturating_mul(1 << known.failures.min(10)).min(RETRY_MAX);
                ctx.send_after(wait, PluginsMsg::RetryTick { socket: socket.to_owned() });
            }
        }
    }

    fn publish(&self, driver: &str, socket: Option<PathBuf>) {
        self.args.place.send_modify(|drivers| {
            let mut changed = BTreeMap::clone(drivers);
            match socket {
                Some(socket) => changed.insert(driver.to_owned(), socket),
                None => changed.remove(driver),
            };
            *drivers = Arc::new(changed);
        });
    }
}

/// The sockets in the registry, each with its inode.
fn sockets(registry: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(registry).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let sockets = entries.filter_map(|entry| {
        let file = entry.metadata().ok().filter(|file| file.file_type().is_socket())?;
        Some((entry.path(), file.ino()))
    });
    sockets.take(SOCKETS_MAX).collect()
}
