//! Keeps what answers are made of equal to the API, and publishes it.
//!
//! Owns:    the published [`View`]; readers take a copy and never wait.
//! Needs:   the API.
//! Restart: permanent. What was published last stays until everything is read again, so names go on being answered.
//! Fails:   never; what the API says is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use k3sd_client::api::Connect;
use k3sd_client::events::Recorder;
use k3sd_runtime::{ActorError, ChildSpec, TaskHandle, task};
use k8s_openapi::api::core::v1::ObjectReference;
use serde::Deserialize;
use tokio::sync::watch;

use crate::corefile::{Complaint, Files, Machine, Servers, build, name_servers};
use crate::feed::{Heard, Source, feed};
use crate::zone::{self, Editor, Kind, Zone};

/// The ConfigMaps that are read.
const CONFIG: &str = "coredns";
const CUSTOM: &str = "coredns-custom";
/// Bytes of a resolv.conf that are read: it is somebody else's file.
const RESOLV_CONF_BYTES_MAX: u64 = 64 * 1024;
/// The longest Event about a Corefile.
const COMPLAINTS_MAX: usize = 5;
/// A bound for what is taken over before it is published.
const BATCHES_MAX: usize = 64;

/// All that answers are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) zone: Zone,
    pub(crate) servers: Arc<Servers>,
}

/// What the keeper is started with.
#[derive(Clone, Debug)]
pub(crate) struct KeeperArgs {
    pub(crate) connect: Connect,
    pub(crate) machine: Machine,
    pub(crate) resolv_conf: PathBuf,
    pub(crate) recorder: Recorder,
    pub(crate) place: Arc<watch::Sender<Arc<View>>>,
}

/// A change of anything.
#[derive(Debug)]
enum Change {
    Zone(zone::Change),
    Map { is_custom: bool, map: Option<ConfigMap> },
}

#[derive(Debug, Deserialize)]
struct ConfigMap {
    metadata: MapMeta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct MapMeta {
    uid: Option<String>,
}

/// Which of the feeds something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Zone(Kind),
    Config,
    Custom,
}

type Feed = Pin<Box<dyn Stream<Item = (Origin, Heard<Change>)> + Send>>;

/// The keeper, as a child.
pub(crate) fn keeper(args: KeeperArgs) -> ChildSpec {
    task("keeper", move |handle| keep(handle, args.clone()))
}

fn services(json: &str, is_gone: bool) -> serde_json::Result<Option<Change>> {
    zone::service(json, is_gone).map(|change| change.map(Change::Zone))
}

fn slices(json: &str, is_gone: bool) -> serde_json::Result<Option<Change>> {
    zone::slice(json, is_gone).map(|change| change.map(Change::Zone))
}

fn namespaces(json: &str, is_gone: bool) -> serde_json::Result<Option<Change>> {
    zone::namespace(json, is_gone).map(|change| change.map(Change::Zone))
}

fn config(json: &str, is_gone: bool) -> serde_json::Result<Option<Change>> {
    let map = serde_json::from_str(json)?;
    Ok(Some(Change::Map { is_custom: false, map: (!is_gone).then_some(map) }))
}

fn custom(json: &str, is_gone: bool) -> serde_json::Result<Option<Change>> {
    let map = serde_json::from_str(json)?;
    Ok(Some(Change::Map { is_custom: true, map: (!is_gone).then_some(map) }))
}

/// The path, the selector and the reader of each feed.
const SOURCES: [(Origin, Source<Change>); 5] = [
    (Origin::Zone(Kind::Services), Source { path: "/api/v1/services", fields: None, read: services }),
    (
        Origin::Zone(Kind::Slices),
        Source { path: "/apis/discovery.k8s.io/v1/endpointslices", fields: None, read: slices },
    ),
    (Origin::Zone(Kind::Namespaces), Source { path: "/api/v1/namespaces", fields: None, read: namespaces }),
    (
        Origin::Config,
        Source {
            path: "/api/v1/namespaces/kube-system/configmaps",
            fields: Some("metadata.name=coredns"),
            read: config,
        },
    ),
    (
        Origin::Custom,
        Source {
            path: "/api/v1/namespaces/kube-system/configmaps",
            fields: Some("metadata.name=coredns-custom"),
            read: custom,
        },
    ),
];

async fn keep(handle: TaskHandle, args: KeeperArgs) -> Result<(), ActorError> {
    let clock = handle.system().clock().clone();
    let feeds = SOURCES.map(|(origin, source)| -> Feed {
        let heard = feed(args.connect.client(), source, clock.clone(), handle.rng());
        Box::pin(heard.map(move |heard| (origin, heard)))
    });
    let mut feeds = stream::select_all(feeds);
    let mut keeper = Keeper::new(args, clock.wall().as_secs());
    keeper.rebuild();
    keeper.publish();
    while let Some((origin, heard)) = feeds.next().await {
        keeper.take(origin, heard);
        // What has come meanwhile is published together.
        for _ in 0..BATCHES_MAX {
            let Some(Some((origin, heard))) = feeds.next().now_or_never() else { break };
            keeper.take(origin, heard);
        }
        keeper.editor.set_serial(clock.wall().as_secs());
        keeper.rebuild();
        keeper.publish();
        let (services, addresses) = keeper.editor.size();
        handle.note(vec![format!("{services} services, {addresses} addresses"), keeper.state.clone()]);
    }
    Err(ActorError::new("nothing is heard any more"))
}

struct Keeper {
    args: KeeperArgs,
    editor: Editor,
    files: Files,
    /// The ConfigMaps as they are named in Events.
    uids: [Option<String>; 2],
    servers: Arc<Servers>,
    /// The Corefile may have become another.
    is_stale: bool,
    /// What was complained about last.
    complaints: BTreeSet<Complaint>,
    state: String,
    machine: Machine,
}

impl Keeper {
    fn new(args: KeeperArgs, seconds: u64) -> Self {
        let servers = args.place.borrow().servers.clone();
        let mut editor = Editor::default();
        editor.set_serial(seconds);
        let machine = args.machine.clone();
        Self {
            args,
            editor,
            files: Files::default(),
            uids: [None, None],
            servers,
            is_stale: true,
            complaints: BTreeSet::new(),
            state: String::new(),
            machine,
        }
    }

    fn take(&mut self, origin: Origin, heard: Heard<Change>) {
        match (origin, heard) {
            (Origin::Zone(kind), Heard::Listed { is_first, is_last, objects }) => {
                if is_first {
                    self.editor.list_begins(kind);
                }
                objects.into_iter().for_each(|change| self.apply(change));
                if is_last {
                    self.editor.list_ends(kind);
                }
            }
            (origin, Heard::Listed { objects, .. }) => {
                if objects.is_empty() {
                    self.apply(Change::Map { is_custom: origin == Origin::Custom, map: None });
                }
                objects.into_iter().for_each(|change| self.apply(change));
            }
            (_, Heard::Changed(changes)) => changes.into_iter().for_each(|change| self.apply(change)),
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Zone(change) => self.editor.apply(change),
            Change::Map { is_custom, map } => {
                self.is_stale = true;
                let (uid, data) =
                    map.map_or((None, None), |map| (map.metadata.uid, Some(map.data.unwrap_or_default())));
                self.uids[usize::from(is_custom)] = uid;
                if is_custom {
                    self.files.custom = data.unwrap_or_default();
                } else {
                    self.files.coredns = data;
                }
            }
        }
    }

    /// Reads the Corefile, if it may be another.
    fn rebuild(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.machine.name_servers = name_servers(&read_start(&self.args.resolv_conf));
        let (complaints, state) = match build(&self.files, &self.machine) {
            Ok((servers, complaints)) => {
                self.servers = Arc::new(servers);
                (complaints, "the Corefile is in use".to_owned())
            }
            Err(error) => {
                if self.servers.is_empty() {
                    self.fall_back();
                }
                let state = format!("the Corefile isn't understood: {error}");
                (vec![Complaint { place: error.place, text: error.what, is_possible: false }], state)
            }
        };
        self.state = state;
        self.complain(complaints);
    }

    /// A Corefile that never was one: the standard takes its place, so that there are names at all.
    fn fall_back(&mut self) {
        if let Ok((servers, _)) = build(&Files::default(), &self.machine) {
            self.servers = Arc::new(servers);
        }
    }

    /// Says what is new, in an Event about the ConfigMap that it is in.
    fn complain(&mut self, complaints: Vec<Complaint>) {
        let now: BTreeSet<Complaint> = complaints.into_iter().collect();
        for is_custom in [false, true] {
            let is_here = |complaint: &&Complaint| {
                let key = complaint.place.split(',').next().unwrap_or_default();
                let key = key.rsplit('/').next().unwrap_or_default();
                self.files.custom.contains_key(key) == is_custom
            };
            let new: Vec<&Complaint> = now.difference(&self.complaints).filter(is_here).collect();
            if new.is_empty() {
                continue;
            }
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("ConfigMap".to_owned()),
                namespace: Some("kube-system".to_owned()),
                name: Some(if is_custom { CUSTOM } else { CONFIG }.to_owned()),
                uid: self.uids[usize::from(is_custom)].clone(),
                ..ObjectReference::default()
            };
            for complaint in new.into_iter().take(COMPLAINTS_MAX) {
                let remedy =
                    if complaint.is_possible { "; CoreDNS itself can: start k3sd with --dns coredns" } else { "" };
                let text = format!("{}: {}{remedy}", complaint.place, complaint.text);
                tracing::warn!(complaint = text, "the Corefile is followed but for this");
                self.args.recorder.about(about.clone(), "Warning", "CorefileIgnored", text);
            }
        }
        self.complaints = now;
    }

    /// Publishes what there is; not less than was known before a restart.
    fn publish(&self) {
        let is_known = self.args.place.borrow().zone.is_synced;
        let is_worse = is_known && !self.editor.is_synced();
        let zone = if is_worse { self.args.place.borrow().zone.clone() } else { self.editor.zone() };
        let view = View { zone, servers: self.servers.clone() };
        self.args.place.send_replace(Arc::new(view));
    }
}

/// The beginning of a small file; empty if there is none.
fn read_start(path: &std::path::Path) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    // A local file of a few lines, read when a Corefile changes: no thread is worth that.
    let read = std::fs::File::open(path).and_then(|file| file.take(RESOLV_CONF_BYTES_MAX).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::warn!(path = %path.display(), %error, "the resolv.conf for names outside the cluster can't be read");
    }
    text
}
