//! The disk of the data directory is full: what needs room is refused, and told so; what doesn't goes on. With room again
//! all is well by itself.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chaos_tests::api::client::{Answer, Client};
use chaos_tests::{Replay, seed};
use http::Method;
use k3sd_runtime::Rng;
use serde_json::{Value, json};

use crate::drill::{Drill, May, server};
use crate::kubectl::ran;
use crate::machine::{Machine, PATIENCE};

/// The size of the file system: enough for what there is, the images of containers among it.
const DISK: &str = "size=256m,mode=755";
/// What is written at once to fill it.
const BALLAST_BYTES: usize = 1 << 16;
/// What one object holds: so much finds no room in pages that are free already, for long.
const OBJECT_BYTES: usize = 200 << 10;
/// How many refusals there have to be before anybody believes that the disk is full.
const REFUSALS: usize = 10;
/// How long the disk stays full after that.
const FULL: Duration = Duration::from_secs(3);
const COLLECTION: &str = "/api/v1/namespaces/default/secrets";

pub(crate) async fn full(machine: &mut Machine) {
    let seed = seed();
    let _replay = Replay { seed, test: "a_full_disk_refuses_writes_and_heals" };
    let mut rng = Rng::seeded(seed);
    mount(machine).await;
    let mut drill = Drill::begin(machine, &mut rng).await;
    let ballast = drill.machine.seen(&drill.machine.disk("data/ballast").display().to_string());
    let mut writer = Writer { client: server(drill.machine).client(), names: Vec::new(), refusals: Vec::new() };
    writer.write().await.expect("there is room");

    // Whoever writes may be told that there is no room; who reads is served.
    drill.note("the disk", "full".to_owned(), May { api: true, ..May::default() });
    let began = Instant::now();
    while writer.refusals.len() < REFUSALS {
        fill(&ballast);
        writer.write().await.ok();
        assert!(began.elapsed() < PATIENCE, "the disk is full, and {} writes were acknowledged", writer.names.len());
    }
    println!("the disk is full; {} writes were acknowledged until {:?}", writer.names.len(), began.elapsed());
    let began = Instant::now();
    while began.elapsed() < FULL {
        fill(&ballast);
        writer.write().await.ok();
        writer.all_there().await;
        drill.traffic.round().await;
    }
    fs::remove_file(&ballast).expect("it is there");
    let began = Instant::now();
    while writer.write().await.is_err() {
        assert!(began.elapsed() < PATIENCE, "there is room again: {:?}", writer.refusals.last());
    }
    println!("{} writes were refused; {:?} after there was room one was not", writer.refusals.len(), began.elapsed());
    println!("what they were told: {}", writer.reasons().join("; "));
    drill.load.wait_for_writes(20, PATIENCE).await;
    writer.all_there().await;

    // And a new process finds everything, too.
    drill.strike_daemon().await;
    writer.all_there().await;
    writer.delete().await;
    drill.end().await;
}

/// Puts the data directory on a file system of its own, with what is in it.
async fn mount(machine: &Machine) {
    let data = machine.disk("data").display().to_string();
    let script = format!(
        "cp -a {data} {data}.old && mount -t tmpfs -o {DISK} tmpfs {data} && cp -a {data}.old/. {data} && rm -r {data}.old"
    );
    let said = ran(machine.command(&["sh", "-c", &script])).await;
    assert_eq!(said.code, 0, "{said:?}");
}

/// Writes until there is no room.
fn fill(ballast: &PathBuf) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(ballast).expect("a file");
    let (mut piece, zeros) = (BALLAST_BYTES, vec![0; BALLAST_BYTES]);
    while piece > 0 {
        if file.write_all(&zeros[..piece]).is_err() {
            piece /= 16;
        }
    }
}

/// Writes large objects, and remembers which were acknowledged.
struct Writer {
    client: Client,
    names: Vec<String>,
    refusals: Vec<Answer>,
}

impl Writer {
    async fn write(&mut self) -> Result<(), ()> {
        let name = format!("large-{}", self.names.len() + self.refusals.len());
        let metadata = json!({"name": name, "namespace": "default"});
        let content = json!({"name": name, "content": "x".repeat(OBJECT_BYTES)});
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content});
        let answer = self.client.call(Method::POST, COLLECTION, Some(&body)).await.expect("an answer");
        if answer.status == 201 {
            self.names.push(name);
            return Ok(());
        }
        let is_said = answer.body["kind"] == "Status" && matches!(answer.status, 500 | 503 | 507);
        assert!(is_said, "{answer:?}");
        self.refusals.push(answer);
        Err(())
    }

    /// Different things that were said.
    fn reasons(&self) -> Vec<String> {
        let reason = |answer: &Answer| format!("{} {}", answer.status, answer.body["message"]);
        let mut all: Vec<String> = self.refusals.iter().map(reason).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Everything that was acknowledged is there, and nothing that was refused.
    async fn all_there(&mut self) {
        let answer = self.client.get(COLLECTION).await.expect("an answer");
        let items = answer.body["items"].as_array().unwrap_or_else(|| panic!("no list: {answer:?}"));
        let name = |item: &Value| item["metadata"]["name"].as_str().map(str::to_owned);
        let mut found: Vec<String> = items.iter().filter_map(name).filter(|name| name.starts_with("large-")).collect();
        let mut wanted = self.names.clone();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "what was acknowledged");
    }

    async fn delete(&mut self) {
        for name in std::mem::take(&mut self.names) {
            let answer = self.client.call(Method::DELETE, &format!("{COLLECTION}/{name}"), None).await;
            assert!(answer.as_ref().is_ok_and(|answer| answer.status == 200), "{answer:?}");
        }
    }
}
