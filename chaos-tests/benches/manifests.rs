//! How soon a directory of manifests is deployed: 200 files with 1,000 objects, in this process and over a store in
//! memory.
//!
//! Bars: from an empty cluster within 10 s; unchanged at a restart within 1 s, and not one write.
//! `cargo bench -p chaos-tests --bench manifests`; with `-- --quick` a tenth of it.

#[path = "../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::api::Connect;
use k3sd_client::election::Leading;
use k3sd_manifests::{ManifestsConfig, ManifestsDeps, Variables};
use k3sd_runtime::{ChildSpec, Clock, subtree};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use table::Row;

const FILES: usize = 200;
const OBJECTS_PER_FILE: usize = 5;
/// Writes for a new file: its AddOn twice, its object, two Events.
const NEW_FILE_WRITES: u64 = 5;
/// Longest wait, and how often is looked.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long commands to supervisors may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// A file as applications have them: configuration, a Deployment, a Service, an account.
fn file(number: usize) -> String {
    let mut text = String::new();
    for part in 0..OBJECTS_PER_FILE - 3 {
        write!(
            text,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{number}-{part}}}\ndata: {{key: value}}\n---\n"
        )
        .expect("memory");
    }
    write!(
        text,
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: a{number}}}\n---\napiVersion: v1\nkind: Service\nmetadata: \
         {{name: s{number}}}\nspec: {{selector: {{app: a{number}}}, ports: [{{port: 80}}]}}\n---\napiVersion: apps/v1\nkind: \
         Deployment\nmetadata: {{name: d{number}}}\nspec:\n  selector: {{matchLabels: {{app: a{number}}}}}\n  template:\n    \
         metadata: {{labels: {{app: a{number}}}}}\n    spec: {{containers: [{{name: c, image: app, resources: {{requests: \
         {{cpu: 0.1}}}}}}]}}\n"
    )
    .expect("memory");
    text
}

fn manifests(dir: &Path, connect: Connect, clock: Clock) -> ChildSpec {
    let config = ManifestsConfig {
        dir: dir.to_owned(),
        packaged: Vec::new(),
        variables: Variables::default(),
        disabled: BTreeSet::new(),
        skips: BTreeSet::new(),
        node_name: "server".to_owned(),
        helm: None,
    };
    let deps = ManifestsDeps { connect, leading: Leading::always(), clock };
    subtree("manifests", k3sd_manifests::tree(config, deps).expect("the settings make sense").spec)
}

/// Waits until every file was applied as it is.
async fn wait_applied(cluster: &Cluster, files: usize) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("k3s.cattle.io", "v1", "Addon"));
    let addons: Api<DynamicObject> = Api::all_with(cluster.admin(), &resource);
    let has_checksum = |addon: &DynamicObject| addon.data["spec"]["checksum"].is_string();
    let applied = async || {
        let all = addons.list(&ListParams::default()).await;
        all.is_ok_and(|all| all.iter().filter(|addon| has_checksum(addon)).count() == files)
    };
    let began = Instant::now();
    while !applied().await {
        assert!(began.elapsed() < LIMIT, "the files are not applied");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Requests of the controllers by now: those that write, and all that ask for a directory's last list of AddOns.
async fn requests(cluster: &Cluster, verbs: &[&str]) -> u64 {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let metrics = cluster.admin().request_text(request).await.expect("metrics");
    let counted = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    let counted = counted.filter(|line| verbs.iter().any(|verb| line.contains(&format!("verb=\"{verb}\""))));
    counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

async fn measure(files: usize) {
    let place = tempfile::tempdir().expect("a directory");
    for number in 0..files {
        fs::write(place.path().join(format!("f{number:03}.yaml")), file(number)).expect("it can be written");
    }
    let plane = Plane::new(Clock::system());
    let connect = plane.identities().user("system:k3s-supervisor", &["system:masters"]);
    let cluster = plane.start(Vec::new()).await;
    let loops = cluster.system().supervisor("loops").expect("there are loops");
    let began = Instant::now();
    let child = || manifests(place.path(), connect.clone(), cluster.clock().clone());
    loops.add(COMMAND_LIMIT, child()).await.expect("they start");
    wait_applied(&cluster, files).await;
    let first = began.elapsed();
    // Events come a little later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    loops.remove(COMMAND_LIMIT, "manifests").await.expect("they stop");
    let writing = ["POST", "PUT", "PATCH", "DELETE"];
    let written = requests(&cluster, &writing).await;
    // A new file is applied after all others were looked at.
    fs::write(place.path().join("z.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\n").expect("a file");
    let began = Instant::now();
    loops.add(COMMAND_LIMIT, child()).await.expect("they start");
    wait_applied(&cluster, files + 1).await;
    let again = began.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let more = requests(&cluster, &writing).await - written;
    let unasked = more.saturating_sub(NEW_FILE_WRITES);
    Row::print_head("-");
    let what = format!("{files} files with {} objects applied to an empty cluster", files * OBJECTS_PER_FILE);
    Row::at_most(what, 10.0, "s", first.as_secs_f64()).named("manifests-first").print();
    Row::at_most("the same unchanged at a restart", 1.0, "s", again.as_secs_f64()).named("manifests-again").print();
    Row::alone("writes for what is unchanged", "none", unasked.to_string(), unasked == 0)
        .named("manifests-writes")
        .print();
    cluster.stop().await;
}

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measure(if is_quick { FILES / 10 } else { FILES }));
}
