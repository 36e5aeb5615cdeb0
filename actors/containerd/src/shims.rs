//! Ends shims that belong to no container any more. An engine that is killed while it makes or removes a sandbox leaves
//! some: its successor knows nothing of them, and nobody else would ever end them.
//!
//! Owns:    nothing.
//! Needs:   the engine, to say which containers there are.
//! Restart: permanent. It looks again some moments after the engine answers.
//! Fails:   when its thread is gone. An engine that doesn't answer is asked at the next look.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::ListContainersRequest;
use containerd_client::services::v1::containers_client::ContainersClient;
use k3sd_cri::channel;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Context, TimerId, message_kinds};
use rustix::process::Signal;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::config::ContainerdConfig;
use crate::engine::process::Process;
use crate::image::engine::Store;

/// When is looked, after the engine began to answer and after the look before. Who keeps pods needs a while until it has
/// removed what its engine lost; after the last one nobody looks until an engine starts.
const LOOK_SECONDS: [u64; 6] = [10, 10, 20, 20, 60, 180];

/// What the actor is started, and restarted, with.
#[derive(Clone, Debug)]
pub(crate) struct ShimsArgs {
    /// Where the engine is.
    pub config: Arc<ContainerdConfig>,
    /// Whether it answers.
    pub answers: watch::Receiver<bool>,
}

/// See the variants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ShimsMsg {
    /// The engine answers, or no longer does.
    EngineTurned {
        /// It answers.
        answers: bool,
    },
    /// Look now.
    LookTick,
}
message_kinds!(ShimsMsg { EngineTurned, LookTick });

/// The actor.
pub(crate) struct Shims {
    args: ShimsArgs,
    channel: Channel,
    thread: Blocking<()>,
    /// Looks that were taken since the engine answers.
    looks: usize,
    timer: Option<TimerId>,
}

/// A shim: its process, and the sandbox or container that it was started for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shim {
    pid: u32,
    id: String,
}

/// Waits until the engine answers, or until it doesn't.
async fn turned(mut answers: watch::Receiver<bool>, wanted: bool) -> ShimsMsg {
    if answers.wait_for(|answers| *answers == wanted).await.is_err() {
        // Nobody tells any more: the subtree is ending.
        std::future::pending::<()>().await;
    }
    ShimsMsg::EngineTurned { answers: wanted }
}

/// For whom a command line is that of a shim of the engine at this socket.
fn shim_of(command_line: &[u8], socket: &Path) -> Option<String> {
    let words: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    let program = words.first()?.rsplit(|byte| *byte == b'/').next()?;
    let after = |flag: &[u8]| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1));
    let is_ours = program.starts_with(b"containerd-shim")
        && after(b"-namespace").is_some_and(|namespace| *namespace == b"k8s.io")
        && after(b"-address").is_some_and(|address| *address == socket.as_os_str().as_encoded_bytes());
    let id = String::from_utf8(after(b"-id")?.to_vec()).ok()?;
    (is_ours && !id.is_empty()).then_some(id)
}

/// Whether a process sees the files that we see. In a container on this machine there may be a node of its own, whose engine
/// has a socket of the same name; its shims are none of ours.
fn is_here(pid: u32) -> bool {
    let place = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt"));
    matches!((place(&pid.to_string()), place("self")), (Ok(theirs), Ok(ours)) if theirs == ours)
}

/// The shims of the engine at this socket.
fn shims(socket: &Path) -> Vec<Shim> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let shim = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let id = shim_of(&line, socket)?;
        is_here(pid).then_some(Shim { pid, id })
    };
    pids.filter_map(shim).collect()
}

/// Those for which there is no container.
fn lost(shims: Vec<Shim>, containers: &BTreeSet<String>) -> Vec<Shim> {
    shims.into_iter().filter(|shim| !containers.contains(&shim.id)).collect()
}

/// Ends a shim and what runs below it, unless the number is somebody else's by now.
fn end(shim: &Shim, socket: &Path) {
    let Ok(process) = Process::open(shim.pid) else { return };
    let line = fs::read(format!("/proc/{}/cmdline", shim.pid)).unwrap_or_default();
    if shim_of(&line, socket).as_ref() != Some(&shim.id) {
        return;
    }
    let tasks = fs::read_dir(format!("/proc/{}/task", shim.pid)).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<Process> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .filter_map(|pid| Process::open(pid).ok())
        .collect();
    tracing::warn!(pid = shim.pid, id = shim.id, "a shim without a container is ended");
    for process in children.iter().chain([&process]) {
        process.signal(Signal::KILL);
    }
}

impl Shims {
    /// Shims are listed before containers: a container is there before its shim, so that a new one is never taken for lost.
    async fn look(&self) -> Result<(), ActorError> {
        let socket: PathBuf = self.args.config.socket();
        let found = self.thread.run(move |()| shims(&socket)).await?;
        if found.is_empty() {
            return Ok(());
        }
        let mut client = ContainersClient::new(self.channel.clone());
        let request = Store::new(self.channel.clone()).request(ListContainersRequest::default());
        let listed = match client.list(request).await {
            Ok(listed) => listed.into_inner(),
            Err(error) => {
                tracing::debug!(%error, "the engine doesn't say which containers there are");
                return Ok(());
            }
        };
        let containers = listed.containers.into_iter().map(|container| container.id).collect();
        let lost = lost(found, &containers);
        let socket: PathBuf = self.args.config.socket();
        self.thread.run(move |()| lost.iter().for_each(|shim| end(shim, &socket))).await?;
        Ok(())
    }

    fn schedule(&mut self, ctx: &mut Context<ShimsMsg>) {
        self.timer = LOOK_SECONDS
            .get(self.looks)
            .map(|seconds| ctx.send_after(Duration::from_secs(*seconds), ShimsMsg::LookTick));
    }
}

impl Actor for Shims {
    type Args = ShimsArgs;
    type Msg = ShimsMsg;

    async fn init(ctx: &mut Context<ShimsMsg>, args: ShimsArgs) -> Result<Self, ActorError> {
        let thread = Blocking::start(ctx, 1, || Ok::<_, Infallible>(())).await?;
        ctx.pipe(turned(args.answers.clone(), true));
        let channel = channel(args.config.socket());
        Ok(Self { args, channel, thread, looks: 0, timer: None })
    }

    async fn handle(&mut self, ctx: &mut Context<ShimsMsg>, message: ShimsMsg) -> Result<(), ActorError> {
        match message {
            ShimsMsg::EngineTurned { answers } => {
                if let Some(timer) = self.timer.take() {
                    ctx.cancel(timer);
                }
                if answers {
                    self.looks = 0;
                    self.schedule(ctx);
                }
                ctx.pipe(turned(self.args.answers.clone(), !answers));
            }
            ShimsMsg::LookTick => {
                self.look().await?;
                self.looks += 1;
                self.schedule(ctx);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<u8> {
        words.iter().flat_map(|word| word.bytes().chain([0])).collect()
    }

    #[test]
    fn only_shims_of_this_engine_are_known() {
        let socket = Path::new("/run/k3s/containerd/containerd.sock");
        let words = |program: &'static str, namespace: &'static str, address: &'static str| {
            line(&[program, "-namespace", namespace, "-id", "one", "-address", address])
        };
        let own = "/run/k3s/containerd/containerd.sock";
        let runc = "/usr/bin/containerd-shim-runc-v2";
        for (found, wanted) in [
            (words(runc, "k8s.io", own), Some("one")),
            (words("containerd-shim-crun-v1", "k8s.io", own), Some("one")),
            (words(runc, "moby", own), None),
            (words(runc, "k8s.io", "/run/containerd/containerd.sock"), None),
            (words("/usr/bin/containerd", "k8s.io", own), None),
            (line(&[runc, "-namespace", "k8s.io", "-address", own, "-id"]), None),
            (Vec::new(), None),
        ] {
            assert_eq!(shim_of(&found, socket).as_deref(), wanted, "{}", String::from_utf8_lossy(&found));
        }
    }

    #[test]
    fn a_process_that_sees_other_files_is_not_ours() {
        assert!(is_here(std::process::id()));
        assert!(!is_here(u32::MAX), "there is no such process");
        let script = ["--mount", "sh", "-c", "echo; exec cat"];
        let mut elsewhere = std::process::Command::new("unshare")
            .args(script)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 1];
        // It says so when it has gone there; without the right to, it has ended.
        let went = std::io::Read::read(elsewhere.stdout.as_mut().unwrap(), &mut said).unwrap() == 1;
        if went {
            assert!(!is_here(elsewhere.id()));
        } else {
            println!("ignored: no mount namespace can be made here");
        }
        drop(elsewhere.stdin.take());
        elsewhere.wait().unwrap();
    }

    #[test]
    fn a_shim_with_a_container_stays() {
        let shim = |pid, id: &str| Shim { pid, id: id.to_owned() };
        let containers = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(lost(vec![shim(1, "a"), shim(2, "c"), shim(3, "b")], &containers), [shim(2, "c")]);
    }
}
