//! A whole cluster in one process, with everything that can go wrong, replayed from a seed.
//!
//! ```text
//! start, make applications, rest ─▶ look ─▶ faults + load + changes ─▶ heal ─▶ rest ─▶ look again, judge
//! ```
//!
//! [`plan`](mod@plan) draws the faults, [`inject`] carries them out, [`apps`] is the user who changes things meanwhile,
//! [`reader`] one who reads logs, and the clients of [`crate::api`] write, read and watch. While faults run nothing may
//! be lost or seen wrong; when all is healed everything has to come to rest within [`REST_WITHIN`]. [`crate::checkers`]
//! decide.
//!
//! One thread, a paused clock, and a seed for all that is drawn: a run goes the same way each time, and its [`trace`] is
//! one number. What the standard library draws by itself, which is the order of its hash maps and tokio's choice among
//! several things that are ready, is drawn from the seed too where the process runs under `libfaketime`; see
//! [`replay`](mod@replay).

pub mod apps;
pub mod inject;
pub mod machine;
pub mod plan;
pub mod reader;
pub mod replay;
mod server;
pub mod trace;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use k3sd_runtime::Rng;
use kube::Client;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use self::apps::{Apps, CLAIMS, get};
use self::inject::Injector;
use self::plan::{Planned, plan};
use self::reader::Reader;
use self::trace::Trace;
use self::world::World;
use crate::api::client::Server;
use crate::api::judge;
use crate::api::load::Load;
use crate::api::record::Strike;
use crate::checkers::incarnations::Lives;
use crate::checkers::leaks::{self, Held};
use crate::checkers::settled::{self, Scene};
use crate::checkers::storage::{Bonds, Store};
use crate::checkers::{containers, logs, rules, shape};

/// How long faults go on.
const FAULTS_FOR: Duration = Duration::from_secs(45);
/// After the last fault is healed everything is at rest within this: the longest wait of all is that of a container that
/// crashed again and again, 5 min, and a clock that was set back makes it longer by as much.
pub const REST_WITHIN: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether all is at rest.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked while faults go on.
const SEE_EVERY: Duration = Duration::from_millis(500);
const VOLUMES: &str = "/api/v1/persistentvolumes";
/// What is at rest stays so for this long before it is compared.
const QUIET: Duration = Duration::from_secs(60);
/// Who reads logs.
const READERS: [&str; 3] = ["reader-0", "reader-1", "reader-2"];
/// Who was asked has closed his connections within this.
const PARTING: Duration = Duration::from_secs(2);
/// Watchers of the load's objects.
const WATCHERS: usize = 6;
/// Within this a watcher has seen all there is.
const SEEN_WITHIN: Duration = Duration::from_secs(120);
/// Loops that had nothing to do before the faults may have made their client since.
const CLIENTS_MAX: usize = 60;
/// Memory may have grown by this: by the load's objects, and what caches and the datastore remember of changes. Runs
/// with many faults, in which little is written, and with few need 14 to 32 MiB of it.
const MEMORY_MAX: usize = 40 << 20;
/// In front of the actors of pods: one for each that the API has.
const WORKERS: &str = "loops/node/pods/workers/";

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong; nothing, if all is well.
    pub findings: Vec<String>,
    /// What was done, in order.
    pub plan: Vec<Planned>,
    /// How often what was done.
    pub faults: BTreeMap<&'static str, u64>,
    /// Deaths of actors that no supervisor had asked for.
    pub deaths: u64,
    /// Bytes of memory in use before the faults and after them.
    pub memory: [usize; 2],
    /// Two runs with one number went the same way.
    pub hash: u64,
}

/// Plays one run. To be called on a runtime of one thread, whose clock is paused. `memory` says how many bytes are in use.
///
/// # Panics
/// When the world doesn't come up at all.
pub async fn run(seed: u64, trace: &Trace, memory: fn() -> usize) -> Outcome {
    let world = World::start(seed).await;
    trace.begin(world.cluster.clock());
    let lives = follow(&world, trace.clone());
    let mut findings = Vec::new();
    let client = world.wire.connect(world.cluster.local("admin", &["system:masters", "system:authenticated"])).client();
    let mut apps = Apps::new(client, world.cluster.clock().clone(), Rng::seeded(seed), trace.clone());
    apps.make().await;
    rest(&world, "before the faults", trace, &mut findings).await;
    let (shape_before, held_before) = (shape::look(&world.cluster).await, Held::now(memory()));

    let reach = world.wire.reach(world.cluster.local("writer", &["system:masters", "system:authenticated"]));
    let load = Load::begin(Server::over(reach), WATCHERS, seed);
    let planned = plan(seed, FAULTS_FOR);
    let (mut bonds, mut halves) = (Bonds::default(), BTreeSet::new());
    let reader = world.cluster.identities().user("reader", &["system:masters", "system:authenticated"]).client();
    let clock = world.cluster.clock();
    let readers = READERS.map(|name| Reader::new(reader.clone(), clock.clone(), clock.rng(name), trace.clone()));
    let faults = async {
        let injector = Injector::new(&world, trace.clone());
        let reading = join_all(readers.map(|reader| reader.read_for(FAULTS_FOR)));
        let (faults, (), read) = tokio::join!(injector.run(&planned), apps.change_for(FAULTS_FOR), reading);
        findings.extend(read.concat());
        faults
    };
    let faults = tokio::select! {
        biased;
        faults = faults => faults,
        never = watch(&world, &mut bonds, &mut halves) => match never {},
    };
    trace.line("all is healed");
    apps.come_to_rest().await;
    let mut record = load.end(SEEN_WITHIN).await;
    // Anything may fail while faults go on, but not in any way.
    let victim = "everybody".to_owned();
    record.strikes.push(Strike { victim, may_fail: true, may_fail_reads: true, began: 0 });
    trace.line(&format!("{:?}\n{:?}", record.writes, record.watches));
    findings.extend(judge::check(&record));
    drop(record);
    apps.free_claims().await;
    let scene = rest(&world, "after the faults", trace, &mut findings).await;
    see(&world, &mut bonds).await;
    trace.line(&format!("{} claims were bound", bonds.count()));
    findings.extend(bonds.findings());
    findings.extend(halves.into_iter().map(|finding| format!("while faults ran, {finding}")));

    let found = shape::look(&world.cluster).await;
    findings.extend(shape::check(
        &shape_before,
        &found,
        world.cluster.system().alive(),
        &[(WORKERS, scene.pods.len())],
    ));
    let held = Held::now(memory());
    findings.extend(leaks::check(held_before, held, CLIENTS_MAX, MEMORY_MAX));
    let kept = scene.pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned));
    let once: BTreeSet<String> = scene.pods.iter().filter(|pod| is_once(pod)).filter_map(uid).collect();
    let kept: BTreeSet<String> = kept.filter(|uid| !once.contains(uid)).collect();
    let told = world.cri.lives();
    findings.extend(containers::check(&told, &kept));
    trace.line(&format!("{told:?}\n{scene:?}"));
    let lives = std::mem::take(&mut *lives.lock().unwrap_or_else(PoisonError::into_inner));
    let deaths = lives.deaths;
    findings.extend(lives.findings(world.cluster.clock().now()));
    world.cluster.stop().await;
    let left = world.cluster.system().alive();
    if left > 0 {
        findings.push(format!("{left} incarnations outlive their tree"));
    }
    let memory = [held_before.memory, held.memory];
    Outcome { findings, plan: planned, faults, deaths, memory, hash: trace.hash() }
}

fn uid(pod: &Value) -> Option<String> {
    pod["metadata"]["uid"].as_str().map(str::to_owned)
}

/// Whether it is a pod of a Job: those end, and what is left of them may be told to.
fn is_once(pod: &Value) -> bool {
    pod["metadata"]["ownerReferences"][0]["kind"] == "Job"
}

/// Notes what happens in the tree.
fn follow(world: &World, trace: Trace) -> Arc<Mutex<Lives>> {
    let lives = Arc::new(Mutex::new(Lives::default()));
    let (mut events, place) = (world.cluster.system().events(), lives.clone());
    tokio::spawn(async move {
        loop {
            let next = events.recv().await;
            let lives = &mut *place.lock().unwrap_or_else(PoisonError::into_inner);
            match next {
                Ok(event) => {
                    trace.line(&format!("{} {} {:?}", event.path, event.incarnation, event.happened));
                    lives.take(&event);
                }
                Err(RecvError::Lagged(count)) => {
                    trace.line(&format!("{count} events were missed"));
                    lives.missed();
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    lives
}

/// Looks while things go wrong at what has to hold even then.
async fn watch(world: &World, bonds: &mut Bonds, halves: &mut BTreeSet<String>) -> Infallible {
    loop {
        see(world, bonds).await;
        let rules = world.machine.rules().unwrap_or_default();
        halves.extend(rules::check_whole(&rules));
        world.cluster.pass(SEE_EVERY).await;
    }
}

async fn see(world: &World, bonds: &mut Bonds) {
    let client = world.cluster.admin();
    let emptied = bonds.emptied();
    let (claims, volumes) = (list(&client, CLAIMS).await, list(&client, VOLUMES).await);
    bonds.take(&emptied, &claims, &volumes);
}

async fn list(client: &Client, path: &str) -> Vec<Value> {
    get(client, path).await["items"].as_array().cloned().unwrap_or_default()
}

/// What there is of storage, without where in this process's world the machine is: that is another place each time.
async fn look_at_store(world: &World, client: &Client) -> Store {
    let mut volumes = list(client, VOLUMES).await;
    let machine = world.machine.path().display().to_string();
    for volume in &mut volumes {
        let text = volume.to_string().replace(&machine, "");
        *volume = serde_json::from_str(&text).unwrap_or_default();
    }
    let names = world.machine.volumes().into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
    Store {
        claims: list(client, CLAIMS).await,
        volumes,
        directories: names.collect(),
        mounted: world.machine.mounted(),
    }
}

/// Waits until all is at rest, and stays so for a while. What is wrong if it doesn't come about is a finding.
async fn rest(world: &World, when: &str, trace: &Trace, findings: &mut Vec<String>) -> Scene {
    let clock = world.cluster.clock();
    let end = clock.now() + REST_WITHIN;
    loop {
        let scene = look(world).await;
        let wrong = settled::check(&scene);
        let is_late = clock.now() >= end;
        if wrong.is_empty() || is_late {
            findings.extend(wrong.into_iter().map(|finding| format!("{when}, and {REST_WITHIN:?} later: {finding}")));
            trace.line(&format!("at rest {when}"));
            world.cluster.pass(QUIET).await;
            let scene = look(world).await;
            if !is_late {
                let wrong = logs::check(&reader::ask(world).await);
                findings.extend(wrong.into_iter().map(|finding| format!("{when}, at rest: {finding}")));
                world.cluster.pass(PARTING).await;
                let wrong = settled::check(&scene);
                findings.extend(wrong.into_iter().map(|finding| format!("{when}, no more at rest: {finding}")));
            }
            return scene;
        }
        world.cluster.pass(LOOK_EVERY).await;
    }
}

/// All there is to see.
async fn look(world: &World) -> Scene {
    let client = world.cluster.admin();
    let list = async |path: &str| list(&client, path).await;
    let mut workloads = list("/apis/apps/v1/namespaces/default/deployments").await;
    workloads.extend(list("/apis/apps/v1/namespaces/default/statefulsets").await);
    Scene {
        workloads,
        services: list("/api/v1/services").await,
        nodes: list("/api/v1/nodes").await,
        jobs: list("/apis/batch/v1/namespaces/default/jobs").await,
        pods: list("/api/v1/namespaces/default/pods").await,
        slices: list("/apis/discovery.k8s.io/v1/endpointslices").await,
        sandboxes: world.cri.sandboxes(),
        running: world.cri.running(),
        store: look_at_store(world, &client).await,
        rules: world.machine.rules(),
    }
}
