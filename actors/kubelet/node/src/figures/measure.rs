//! Measures the node, its pods and their containers, when somebody asks.
//!
//! Owns:    the last measurement, and the processor time before it, from which the cores in use are told.
//! Needs:   the kernel's files, the container runtime, the snapshot of pods.
//! Restart: permanent. Cores in use are known again from the second measurement on.
//! Fails:   never; what can't be measured is absent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k3sd_cri::{Cri, v1};
use k3sd_kubelet_base::stats::{
    ContainerStats, CpuStats, MemoryStats, NodeStats, RlimitStats, RuntimeStats, Summary, SwapStats, VolumeStats,
};
use k3sd_kubelet_base::{ContainerView, PodView, Pods, PodsSnapshot};
use k3sd_kubelet_cgroups::{CgroupStats, Cgroups, QosClass};
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Address, AskError, Context, Moment, ReplyPort, message_kinds};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;

use super::network::{default_interface, parse};
use super::summary::{Measured, cpu, fs, is_running, memory, pod, running, swap};
use crate::status::{FileSystem, Memory, Roots, processes, text, time};

/// Who asks within this time gets the same answer.
const FRESH: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long the runtime may take.
const RUNTIME_LIMIT: Duration = Duration::from_secs(10);
/// The unit of times in /proc, the same on every Linux that we are built for.
const NS_PER_TICK: u64 = 10_000_000;
/// Jobs that may wait for the thread with the files.
const JOBS_MAX: usize = 4;

/// Asks for the sizes of a pod's volumes, by its uid.
#[derive(Clone)]
pub struct VolumeFigures(Arc<dyn Fn(String) -> BoxFuture<'static, Vec<VolumeStats>> + Send + Sync>);

impl VolumeFigures {
    /// Asks a function.
    pub fn new(ask: impl Fn(String) -> BoxFuture<'static, Vec<VolumeStats>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl Default for VolumeFigures {
    /// Nobody measures volumes.
    fn default() -> Self {
        Self::new(|_| Box::pin(std::future::ready(Vec::new())))
    }
}

impl fmt::Debug for VolumeFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeFigures")
    }
}

/// One measurement.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// As the summary API has it.
    pub summary: Summary,
    /// What cgroups say of pods, by uid, and of containers, by id; more than a summary holds.
    pub cgroups: BTreeMap<String, CgroupStats>,
    /// What the runtime says of containers, by id.
    pub containers: HashMap<String, v1::ContainerStats>,
    /// The pods that were measured.
    pub pods: Arc<PodsSnapshot>,
    /// Whether images are on a file system of their own.
    pub has_image_fs: bool,
    /// What the cgroup of all pods uses.
    pub all_pods: Option<CgroupStats>,
    /// Where that is.
    pub all_pods_cgroup: Option<PathBuf>,
    /// Processors of the machine.
    pub cpus: Option<u64>,
    /// Names of disks that were used, as `/dev/sda`, by their numbers.
    pub disk_names: BTreeMap<(u32, u32), String>,
    /// The disk that images and layers are on.
    pub images_disk: (u32, u32),
}

/// How much is measured: each is what those before it are, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// The node alone.
    Node,
    /// Pods and containers, which costs a call to each shim.
    Containers,
    /// Their volumes, which costs a walk through files.
    Volumes,
}

/// What the actor is started with.
#[derive(Clone)]
pub(crate) struct MeterArgs {
    pub(crate) node_name: String,
    pub(crate) roots: Roots,
    pub(crate) root_dir: PathBuf,
    pub(crate) cri: Cri,
    pub(crate) cgroups: Arc<Cgroups>,
    pub(crate) pods: Pods,
    pub(crate) volumes: VolumeFigures,
    /// How long what was measured of a pod's volumes is good.
    pub(crate) volumes_period: Duration,
    pub(crate) place: Arc<watch::Sender<Option<Address<MeterMsg>>>>,
}

/// See the variant.
pub(crate) enum MeterMsg {
    /// Measure.
    Look {
        /// How much.
        depth: Depth,
        /// What was measured.
        reply: ReplyPort<Arc<Snapshot>>,
    },
}

message_kinds!(MeterMsg { Look });

/// The way to the node's figures. Cheap to clone; nothing is measured unless somebody asks.
#[derive(Clone, Debug)]
pub struct Figures(pub(crate) watch::Receiver<Option<Address<MeterMsg>>>);

impl Figures {
    /// Measures, or answers with what was measured within a second.
    ///
    /// # Errors
    /// Whoever measures is away, or something takes too long.
    pub async fn look(&self) -> Result<Arc<Snapshot>, AskError> {
        self.ask(Depth::Volumes).await
    }

    /// The same without volumes.
    ///
    /// # Errors
    /// As [`Figures::look`].
    pub async fn look_at_containers(&self) -> Result<Arc<Snapshot>, AskError> {
        self.ask(Depth::Containers).await
    }

    /// The same of the node alone, which costs little: in the summary there are no pods.
    ///
    /// # Errors
    /// As [`Figures::look`].
    pub async fn look_at_node(&self) -> Result<Arc<Snapshot>, AskError> {
        self.ask(Depth::Node).await
    }

    async fn ask(&self, depth: Depth) -> Result<Arc<Snapshot>, AskError> {
        let mut place = self.0.clone();
        let found = place.wait_for(Option::is_some).await.map_err(|_| AskError::Gone)?.clone();
        found.ok_or(AskError::Gone)?.call(ANSWER_LIMIT, |reply| MeterMsg::Look { depth, reply }).await
    }

    /// The answer of `/stats/summary`.
    ///
    /// # Errors
    /// As [`Figures::look`].
    pub async fn summary(&self) -> Result<Summary, AskError> {
        self.look().await.map(|snapshot| snapshot.summary.clone())
    }

    /// The text of `/metrics/resource`.
    ///
    /// # Errors
    /// As [`Figures::look`].
    pub async fn resource_metrics(&self) -> Result<String, AskError> {
        self.look_at_containers().await.map(|snapshot| super::metrics::resource(&snapshot))
    }

    /// What `/metrics` says of volumes that are there for claims.
    ///
    /// # Errors
    /// As [`Figures::look`].
    pub async fn volume_metrics(&self) -> Result<String, AskError> {
        self.look().await.map(|snapshot| super::metrics::volumes(&snapshot.summary))
    }

    /// The text of `/metrics/cadvisor`.
    ///
    /// # Errors
    /// As [`Figures::look`].
    pub async fn cadvisor_metrics(&self) -> Result<String, AskError> {
        self.look_at_containers().await.map(|snapshot| super::metrics::cadvisor(&snapshot))
    }
}

/// The actor itself.
pub(crate) struct Meter {
    args: MeterArgs,
    files: Blocking<()>,
    last: Option<(Moment, Depth, Arc<Snapshot>)>,
    /// Processor time of pods and containers, by uid and id, and of the node, by the empty name, at a moment.
    before: Option<(Moment, HashMap<String, u64>)>,
    /// The first process of each sandbox.
    pids: HashMap<String, u64>,
    /// Volumes of pods, by uid, and when they were measured.
    sizes: HashMap<String, (Moment, Vec<VolumeStats>)>,
}

impl Actor for Meter {
    type Args = MeterArgs;
    type Msg = MeterMsg;

    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<MeterMsg>, args: MeterArgs) -> Result<Self, ActorError> {
        let files = Blocking::start(ctx, JOBS_MAX, || Ok::<(), std::convert::Infallible>(())).await;
        let files = files.map_err(|error| ActorError::new(error.to_string()))?;
        args.place.send_replace(Some(ctx.address()));
        Ok(Self { args, files, last: None, before: None, pids: HashMap::new(), sizes: HashMap::new() })
    }

    async fn handle(&mut self, ctx: &mut Context<MeterMsg>, message: MeterMsg) -> Result<(), ActorError> {
        let MeterMsg::Look { depth, reply } = message;
        let now = ctx.clock().now();
        let fresh = self.last.as_ref().filter(|(at, known, _)| now.since(*at) < FRESH && *known >= depth);
        let fresh = fresh.map(|(_, _, found)| found.clone());
        let found = match fresh {
            Some(found) => found,
            None => {
                // Rates are made from two of these, a few seconds apart.
                let wall = jiff::SignedDuration::try_from(ctx.clock().wall()).unwrap_or_default();
                let wall = time(Timestamp::UNIX_EPOCH.checked_add(wall).unwrap_or(Timestamp::UNIX_EPOCH));
                if depth == Depth::Node {
                    Arc::new(self.measure_node(&wall).await?)
                } else {
                    let found = Arc::new(self.measure(now, &wall, depth).await?);
                    self.last = Some((now, depth, found.clone()));
                    found
                }
            }
        };
        reply.send(found);
        Ok(())
    }
}

impl Meter {
    /// What the node as a whole has and uses.
    async fn measure_node(&self, wall: &Time) -> Result<Snapshot, ActorError> {
        let pods = self.args.pods.borrow().clone();
        let image_fs = self.image_fs().await;
        let (args, at) = (self.args.clone(), wall.clone());
        let raw = self.files.run(move |()| Raw::read(&args, &PodsSnapshot::default(), &HashMap::new(), &at)).await?;
        let images = image_fs.unwrap_or(raw.root_fs);
        Ok(Snapshot {
            summary: Summary { node: self.node(&raw, &images, None, wall), pods: Vec::new() },
            has_image_fs: images.id != raw.root_fs.id,
            all_pods: raw.all_pods,
            all_pods_cgroup: pods_path(&self.args.cgroups),
            cpus: Some(raw.cpus),
            pods,
            ..Snapshot::default()
        })
    }

    async fn measure(&mut self, now: Moment, wall: &Time, depth: Depth) -> Result<Snapshot, ActorError> {
        let pods = self.args.pods.borrow().clone();
        self.find_pids(&pods).await;
        let containers = self.containers().await;
        let image_fs = self.image_fs().await;
        let (args, views, pids, at) = (self.args.clone(), pods.clone(), self.pids.clone(), wall.clone());
        let raw = self.files.run(move |()| Raw::read(&args, &views, &pids, &at)).await?;
        let cores = self.cores(now, &raw);
        let images = image_fs.unwrap_or(raw.root_fs);
        let mut measured = Vec::new();
        self.sizes.retain(|uid, _| pods.pods.contains_key(uid));
        for (uid, view) in pods.pods.iter().filter(|(_, view)| is_running(view)) {
            let own = raw.pods.get(uid).cloned().unwrap_or_default();
            let volumes = match depth {
                Depth::Volumes => self.volumes(now, uid).await,
                Depth::Node | Depth::Containers => Vec::new(),
            };
            let of = Measured {
                view,
                cgroup: own.cgroup.map(|stats| (stats, cores.get(uid).copied())),
                containers: &containers,
                own_cgroups: own
                    .containers
                    .into_iter()
                    .map(|(id, stats)| (id.clone(), (stats, cores.get(&id).copied())))
                    .collect(),
                logs: own.logs,
                volumes,
                network: own.network,
                root_fs: &raw.root_fs,
                image_fs: &images,
            };
            measured.push(pod(&of, wall));
        }
        let summary = Summary { node: self.node(&raw, &images, cores.get("").copied(), wall), pods: measured };
        let cgroups = raw.pods.into_iter().flat_map(|(uid, own)| {
            let pod = own.cgroup.map(|stats| (uid, stats));
            own.containers.into_iter().chain(pod)
        });
        let cgroups = cgroups.collect();
        let has_image_fs = images.id != raw.root_fs.id;
        Ok(Snapshot {
            summary,
            cgroups,
            containers,
            pods,
            has_image_fs,
            all_pods: raw.all_pods,
            all_pods_cgroup: pods_path(&self.args.cgroups),
            cpus: Some(raw.cpus),
            disk_names: raw.disk_names,
            images_disk: images.disk(),
        })
    }

    /// Nanoseconds of cores per second since the measurement before, of pods, containers and of the node.
    fn cores(&mut self, now: Moment, raw: &Raw) -> HashMap<String, u64> {
        let used = raw.pods.iter().flat_map(|(uid, own)| {
            let pod = own.cgroup.as_ref().map(|stats| (uid, stats));
            own.containers.iter().chain(pod).filter_map(|(id, stats)| Some((id.clone(), stats.cpu_usage_ns?)))
        });
        let used: HashMap<String, u64> = used.chain([(String::new(), raw.cpu_ns)]).collect();
        let mut cores = HashMap::new();
        if let Some((at, before)) = &self.before {
            let span = u128::from(u64::try_from(now.since(*at).as_nanos()).unwrap_or(u64::MAX).max(1));
            for (uid, ns) in &used {
                let Some(old) = before.get(uid) else { continue };
                let per_second = u128::from(ns.saturating_sub(*old)) * 1_000_000_000 / span;
                cores.insert(uid.clone(), u64::try_from(per_second).unwrap_or(u64::MAX));
            }
        }
        self.before = Some((now, used));
        cores
    }

    /// A pod's volumes, as they were a while ago at most: looking at them is work.
    async fn volumes(&mut self, now: Moment, uid: &str) -> Vec<VolumeStats> {
        if let Some((at, found)) = self.sizes.get(uid)
            && now.since(*at) < self.args.volumes_period
        {
            return found.clone();
        }
        let found = (self.args.volumes.0)(uid.to_owned()).await;
        self.sizes.insert(uid.to_owned(), (now, found.clone()));
        found
    }

    async fn containers(&self) -> HashMap<String, v1::ContainerStats> {
        let cri = self.args.cri.clone().with_limit(RUNTIME_LIMIT);
        let found = cri.list_container_stats(v1::ListContainerStatsRequest::default()).await;
        let found = found.inspect_err(|error| tracing::debug!(%error, "containers can't be measured"));
        let all = found.map(|found| found.stats).unwrap_or_default().into_iter();
        all.filter_map(|stats| Some((stats.attributes.as_ref()?.id.clone(), stats))).collect()
    }

    async fn image_fs(&self) -> Option<FileSystem> {
        let cri = self.args.cri.clone().with_limit(RUNTIME_LIMIT);
        let found = cri.image_fs_info(v1::ImageFsInfoRequest::default()).await.ok()?;
        let id = found.image_filesystems.iter().find_map(|found| found.fs_id.as_ref())?;
        let used = found.image_filesystems.iter().find_map(|found| found.used_bytes.as_ref()).map(|used| used.value);
        let found = FileSystem::of(Path::new(&id.mountpoint)).ok()?;
        Some(FileSystem { used: used.unwrap_or(found.used), ..found })
    }

    /// Asks for the first processes of sandboxes that are new, through whom their networks are seen.
    async fn find_pids(&mut self, pods: &PodsSnapshot) {
        let on_own_network =
            |view: &&Arc<PodView>| view.pod.spec.as_ref().is_none_or(|spec| spec.host_network != Some(true));
        let ready: Vec<String> =
            pods.pods.values().filter(on_own_network).filter_map(|view| view.sandbox.clone()).collect();
        self.pids.retain(|id, _| ready.contains(id));
        let cri = self.args.cri.clone().with_limit(RUNTIME_LIMIT);
        for id in ready {
            if self.pids.contains_key(&id) {
                continue;
            }
            let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: true };
            let Ok(found) = cri.pod_sandbox_status(request).await else { continue };
            let info = found.info.get("info").and_then(|info| serde_json::from_str::<serde_json::Value>(info).ok());
            if let Some(pid) = info.and_then(|info| info.get("pid")?.as_u64()).filter(|pid| *pid > 0) {
                self.pids.insert(id, pid);
            }
        }
    }

    fn node(&self, raw: &Raw, images: &FileSystem, cores: Option<u64>, wall: &Time) -> NodeStats {
        let limit = raw.memory.total.min(raw.memory_limit);
        let used = raw.memory.working_set();
        NodeStats {
            node_name: self.args.node_name.clone(),
            system_containers: raw
                .all_pods
                .iter()
                .map(|stats| ContainerStats {
                    name: "pods".to_owned(),
                    cpu: Some(cpu(stats, None, wall)),
                    memory: Some(memory(stats, wall)),
                    swap: swap(stats, wall),
                    ..ContainerStats::default()
                })
                .collect(),
            start_time: Some(Time(Timestamp::from_second(raw.booted).unwrap_or(Timestamp::UNIX_EPOCH))),
            cpu: Some(CpuStats {
                time: Some(wall.clone()),
                usage_nano_cores: cores,
                usage_core_nano_seconds: Some(raw.cpu_ns),
                ..CpuStats::default()
            }),
            memory: Some(MemoryStats {
                time: Some(wall.clone()),
                available_bytes: Some(limit.saturating_sub(used)),
                usage_bytes: Some(raw.memory.usage()),
                working_set_bytes: Some(used),
                rss_bytes: Some(raw.memory.anonymous),
                ..MemoryStats::default()
            }),
            network: raw.network.clone(),
            fs: Some(fs(&raw.root_fs, Some(raw.root_fs.used), inodes_used(&raw.root_fs), wall)),
            runtime: Some(RuntimeStats {
                image_fs: Some(fs(images, Some(images.used), inodes_used(images), wall)),
                container_fs: Some(fs(images, Some(images.used), inodes_used(images), wall)),
            }),
            rlimit: raw.processes.map(|(most, running)| RlimitStats {
                time: Some(wall.clone()),
                maxpid: i64::try_from(most).ok(),
                curproc: i64::try_from(running).ok(),
            }),
            swap: Some(SwapStats {
                time: Some(wall.clone()),
                swap_available_bytes: Some(raw.memory.swap_free),
                swap_usage_bytes: Some(raw.memory.swap_total.saturating_sub(raw.memory.swap_free)),
            }),
            io: None,
        }
    }
}

fn inodes_used(found: &FileSystem) -> Option<u64> {
    found.inodes.checked_sub(found.inodes_free)
}

/// What files say of one pod.
#[derive(Clone, Debug, Default)]
struct RawPod {
    cgroup: Option<CgroupStats>,
    /// By id.
    containers: BTreeMap<String, CgroupStats>,
    logs: Vec<(String, u64)>,
    network: Option<k3sd_kubelet_base::stats::NetworkStats>,
}

/// What files say.
struct Raw {
    cpus: u64,
    cpu_ns: u64,
    booted: i64,
    memory: Memory,
    memory_limit: u64,
    root_fs: FileSystem,
    processes: Option<(u64, u64)>,
    network: Option<k3sd_kubelet_base::stats::NetworkStats>,
    all_pods: Option<CgroupStats>,
    pods: BTreeMap<String, RawPod>,
    disk_names: BTreeMap<(u32, u32), String>,
}

impl Raw {
    fn read(args: &MeterArgs, pods: &PodsSnapshot, pids: &HashMap<String, u64>, wall: &Time) -> Self {
        let proc = &args.roots.proc;
        let (cpu_ns, booted) = parse_stat(&text(&proc.join("stat")));
        let main = default_interface(&text(&proc.join("net/route")));
        let one = |(uid, view): (&String, &Arc<PodView>)| {
            let pid = view.sandbox.as_ref().and_then(|sandbox| pids.get(sandbox));
            let table = pid.map(|pid| text(&proc.join(pid.to_string()).join("net/dev")));
            let own = RawPod {
                cgroup: view.cgroup.as_deref().and_then(|path| args.cgroups.stats(path).ok().flatten()),
                containers: view
                    .cgroup
                    .as_deref()
                    .map(|path| containers(&args.cgroups, path, view))
                    .unwrap_or_default(),
                logs: running(view).filter_map(|one| Some((one.id.clone(), log_bytes(&one.log)?))).collect(),
                network: table.and_then(|table| parse(&table, None, wall)),
            };
            (uid.clone(), own)
        };
        let root_fs = FileSystem::of(&args.root_dir).unwrap_or_default();
        let all_pods = pods_path(&args.cgroups).and_then(|path| args.cgroups.stats(&path).ok().flatten());
        let pods: BTreeMap<String, RawPod> = pods.pods.iter().filter(|(_, view)| is_running(view)).map(one).collect();
        let of_pods = pods.values().flat_map(|pod| pod.containers.values().chain(&pod.cgroup));
        let disks = of_pods.chain(&all_pods).flat_map(|stats| stats.disks.iter());
        let numbers: BTreeSet<_> = disks.map(|disk| (disk.major, disk.minor)).chain([root_fs.disk()]).collect();
        let named = |number: (u32, u32)| Some((number, disk_name(&args.roots.sys, number)?));
        Self {
            disk_names: numbers.into_iter().filter_map(named).collect(),
            cpus: crate::status::cpus(&text(&args.roots.sys.join("devices/system/cpu/online"))),
            cpu_ns,
            booted,
            memory: Memory::parse(&text(&proc.join("meminfo"))),
            memory_limit: crate::status::memory_limit(&args.roots.sys).unwrap_or(u64::MAX),
            root_fs,
            processes: processes(proc),
            network: parse(&text(&proc.join("net/dev")), main.as_deref(), wall),
            all_pods,
            pods,
        }
    }
}

/// What the cgroups of a pod's containers say, where the runtime puts them: by their ids, or in scopes of systemd.
fn containers(cgroups: &Cgroups, pod: &Path, view: &PodView) -> BTreeMap<String, CgroupStats> {
    let one = |container: &ContainerView| {
        let id = &container.id;
        let names = [id.clone(), format!("cri-containerd-{id}.scope")];
        let found = names.iter().find_map(|name| cgroups.stats(&pod.join(name)).ok().flatten())?;
        Some((id.clone(), found))
    };
    running(view).filter_map(one).collect()
}

/// The file of a disk below `/dev`, by its number; nothing where there is none, as for a file system in memory.
fn disk_name(sys: &Path, (major, minor): (u32, u32)) -> Option<String> {
    let link = std::fs::read_link(sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
    Some(format!("/dev/{}", link.file_name()?.to_str()?))
}

/// The cgroup of all pods: that of a Guaranteed one is right below.
fn pods_path(cgroups: &Cgroups) -> Option<PathBuf> {
    cgroups.pod_path("any", QosClass::Guaranteed).ok()?.parent().map(Path::to_owned)
}

/// Nanoseconds that processors have worked, and the second in which the machine was started.
fn parse_stat(text: &str) -> (u64, i64) {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let fields: Vec<u64> = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    // User, nice, system; then idle and waiting, which are no work; interrupts and what a host took. Guests are in user.
    let busy: u64 =
        fields.iter().enumerate().filter(|(place, _)| !matches!(place, 3 | 4 | 8..)).map(|(_, ticks)| ticks).sum();
    let booted = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0);
    (busy.saturating_mul(NS_PER_TICK), booted)
}

/// Bytes of the log of a container, with all that was moved away of its container's logs.
fn log_bytes(log: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(log.parent()?).ok()?.filter_map(Result::ok);
    Some(entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_without_waiting() {
        let text = "cpu  10 1 5 1000 500 1 2 1 7 7\ncpu0 1 1 1\nbtime 1700000000\n";
        assert_eq!(parse_stat(text), (20 * NS_PER_TICK, 1_700_000_000));
        assert_eq!(parse_stat(""), (0, 0));
    }
}
