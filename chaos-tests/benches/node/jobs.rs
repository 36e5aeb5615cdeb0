//! What is done in namespaces of its own: nodes are started, and asked for pods.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use k3sd_containerd::image::{BuiltImage, busybox};
use k8s_openapi::api::core::v1::Node as Object;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::bare::{BUSYBOX, Bare};
use crate::node::{Node, Part, Start, cri, end_containerd};
use crate::place::{furnish, tell};
use crate::pods::Pods;
use crate::{Failure, Scale};

/// What a single pod sets off is over by then.
const PAUSE: Duration = Duration::from_millis(500);
/// What many pods set off, as far as it is theirs to pay, is over by then.
const AFTERMATH: Duration = Duration::from_secs(2);

/// The words behind `--inside`, as [`crate::place::Setting::run`] writes them.
pub(crate) fn run(words: Vec<String>) -> Result<(), Failure> {
    let [job, directory, binary, cgroup, numbers @ ..] = words.as_slice() else { return Err("no job".into()) };
    let numbers = numbers.iter().map(|word| word.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
    let [rounds, single, many, settle, idle] = numbers[..] else { return Err("five numbers".into()) };
    let [rounds, single, many] = [rounds, single, many].map(|number| usize::try_from(number).unwrap_or(0));
    let scale = Scale { rounds, single, many, settle, idle };
    let (directory, binary) = (PathBuf::from(directory), PathBuf::from(binary));
    furnish(&directory)?;
    bring_images(&directory)?;
    let start = Start { binary, directory, cgroup: cgroup.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match job.as_str() {
            "start" => starts(&start).await,
            "idle" => idle_alone(&start, Part::Whole, &scale).await,
            "everything" => idle_alone(&start, Part::Everything, &scale).await,
            "server" => idle_alone(&start, Part::Server, &scale).await,
            "pod" => one_by_one(&start, &scale).await,
            "many" => at_once(&start, &scale).await,
            _ => Err("unknown".into()),
        }
    });
    done.map_err(|why| format!("{why}\n{}", start.says()).into())
}

fn bring_images(directory: &Path) -> Result<(), Failure> {
    let images = directory.join("data/agent/images");
    std::fs::create_dir_all(&images)?;
    let image = busybox(Path::new(BUSYBOX))?;
    Ok(std::fs::write(images.join("busybox.tar"), BuiltImage::docker_archive(&[image]))?)
}

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A start on an empty directory, and one as after the machine's own.
async fn starts(start: &Start) -> Result<(), Failure> {
    let node = start.run(Part::Everything).await?;
    tell("cold_ms", milliseconds(node.took));
    Pods::new(&node.connect, cri()).possible().await?;
    node.stop()?;
    end_containerd()?;
    // What controllers say of a node that was away for a while. Else it would count as ready before it is.
    let server = start.run(Part::Server).await?;
    let nodes: Api<Object> = Api::all(server.connect.client());
    let ready = json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"});
    let patch = Patch::Strategic(json!({"status": {"conditions": [ready]}}));
    for node in nodes.list(&ListParams::default()).await? {
        let name = node.metadata.name.unwrap_or_default();
        nodes.patch_status(&name, &PatchParams::default(), &patch).await?;
    }
    server.stop()?;
    let node = start.run(Part::Everything).await?;
    tell("warm_ms", milliseconds(node.took));
    node.stop()
}

/// What a node takes that has nothing to do.
async fn look_idle(node: &Node, scale: &Scale) -> Result<(), Failure> {
    pause(scale.settle).await;
    let (resident, anonymous) = node.resident_mib()?;
    let before = node.cost()?;
    pause(scale.idle).await;
    let (percent, sleeps) = before.between(node.cost()?);
    for (name, number) in
        [("resident_mib", resident), ("anonymous_mib", anonymous), ("idle_percent", percent), ("sleeps", sleeps)]
    {
        tell(name, number);
    }
    Ok(())
}

async fn idle_alone(start: &Start, part: Part, scale: &Scale) -> Result<(), Failure> {
    let node = start.run(part).await?;
    if part != Part::Server {
        Pods::new(&node.connect, cri()).possible().await?;
    }
    look_idle(&node, scale).await
}

/// One pod after the other, ours and bare in turns.
async fn one_by_one(start: &Start, scale: &Scale) -> Result<(), Failure> {
    let node = start.run(Part::Everything).await?;
    let pods = Pods::new(&node.connect, cri());
    let bare = Bare::new(cri(), &start.directory, &start.cgroup);
    pods.possible().await?;
    // The first pod of each kind makes things that all others find.
    for number in 0..=scale.single {
        let name = format!("single-{number}");
        let before = node.cost()?;
        let times = pods.start(std::slice::from_ref(&name)).await?;
        tokio::time::sleep(PAUSE).await;
        let spent = before.cpu_ms_until(node.cost()?);
        pods.remove(std::slice::from_ref(&name)).await?;
        tokio::time::sleep(PAUSE).await;
        bare.prepare(&name)?;
        let made = bare.start(&name).await?;
        bare.remove(made.sandbox).await?;
        tokio::time::sleep(PAUSE).await;
        if number > 0 {
            times.into_iter().for_each(|time| tell("ours_ms", milliseconds(time)));
            tell("bare_ms", milliseconds(made.took));
            tell("cpu_ms", spent);
        }
    }
    Ok(())
}

/// The time that 99 of 100 do not exceed.
fn most(mut times: Vec<Duration>) -> Option<f64> {
    times.sort_unstable();
    let last = times.len().checked_sub(1)?;
    Some(milliseconds(times[last * 99 / 100]))
}

/// All pods at once, ours and bare in turns; and what the node takes while they run.
async fn at_once(start: &Start, scale: &Scale) -> Result<(), Failure> {
    let node = start.run(Part::Everything).await?;
    let pods = Pods::new(&node.connect, cri());
    let bare = Bare::new(cri(), &start.directory, &start.cgroup);
    pods.possible().await?;
    for round in 0..scale.rounds {
        let names: Vec<String> = (0..scale.many).map(|number| format!("many-{round}-{number}")).collect();
        let before = node.cost()?;
        let times = pods.start(&names).await?;
        tokio::time::sleep(AFTERMATH).await;
        tell("cpu_ms", before.cpu_ms_until(node.cost()?) / names.len() as f64);
        most(times).into_iter().for_each(|time| tell("ours_ms", time));
        if round + 1 == scale.rounds {
            look_idle(&node, scale).await?;
        }
        let begun = Instant::now();
        pods.remove(&names).await?;
        tell("gone_ms", milliseconds(begun.elapsed()));
        tokio::time::sleep(AFTERMATH).await;

        names.iter().try_for_each(|name| bare.prepare(name))?;
        let made = {
            let begun = Instant::now();
            let start = async |name: &String| {
                let made = bare.start(name).await?;
                Ok::<_, Failure>((made.sandbox, begun.elapsed()))
            };
            try_join_all(names.iter().map(start)).await?
        };
        let (sandboxes, times): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        most(times).into_iter().for_each(|time| tell("bare_ms", time));
        try_join_all(sandboxes.into_iter().map(|sandbox| bare.remove(sandbox))).await?;
        tokio::time::sleep(AFTERMATH).await;
    }
    Ok(())
}
