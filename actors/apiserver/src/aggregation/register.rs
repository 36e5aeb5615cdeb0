//! Keeps an APIService for each version that this server has itself, as upstream does, so that clients find all versions
//! in one place.
//!
//! Owns:    APIServices with the label below. Who takes the label away has the object for himself.
//! Needs:   the catalog, definitions of custom resources, and APIServices.
//! Restart: permanent. It compares everything again.
//! Fails:   never; what can't be written is tried again.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use http::Method;
use k3sd_apiserver_store::{Catalog, Stores, Watch, WatchItem, WatchKind, WatchQuery};
use k3sd_apiserver_wire::discovery::priorities;
use k3sd_objects::status::Status;
use k3sd_runtime::{ActorError, Clock, TaskHandle};
use serde_json::{Value, json};

use super::local::Inside;
use super::{GROUP, PATH, PLURAL, pause};

/// Marks what is kept here.
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Looked after once, at the start: what is compiled in.
const ON_START: &str = "onstart";
/// Looked after all the time: custom resources.
const ALWAYS: &str = "true";

/// What the task is started with.
#[derive(Clone, Debug)]
pub(crate) struct RegisterArgs {
    pub(crate) stores: Stores,
    pub(crate) inside: Inside,
}

/// What an APIService is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) priorities: (i64, i64),
    pub(super) management: &'static str,
}

impl Wanted {
    fn spec(&self) -> Value {
        let (group_priority, version_priority) = self.priorities;
        let mut spec = json!({
            "version": self.version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
        });
        if !self.group.is_empty() {
            spec["group"] = json!(self.group);
        }
        spec
    }
}

/// An APIService as it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    object: Value,
}

impl Found {
    pub(super) fn new(object: Value) -> Self {
        Self { object }
    }

    fn management(&self) -> &str {
        self.object["metadata"]["labels"][LABEL].as_str().unwrap_or_default()
    }
}

/// What is to be done about one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Create(Value),
    Update(Value),
    Delete { uid: String },
}

/// By name, what there is to be.
pub(super) fn wanted(catalog: &Catalog) -> BTreeMap<String, Wanted> {
    let mut all = BTreeMap::new();
    for group in catalog.groups() {
        for version in &group.versions {
            let is_custom = version.resources.iter().all(|resource| resource.custom.is_some());
            let place =
                if is_custom { Some(priorities::CUSTOM) } else { priorities::builtin(&group.name, &version.name) };
            let Some(priorities) = place else { continue };
            let (group, version) = (group.name.to_string(), version.name.to_string());
            let management = if is_custom { ALWAYS } else { ON_START };
            all.insert(format!("{version}.{group}"), Wanted { group, version, priorities, management });
        }
    }
    all
}

/// What upstream would do about an APIService. `is_old`: it was there when this server started; `is_done`: since then it
/// was right once.
pub(super) fn decide(
    name: &str,
    found: Option<&Found>,
    wanted: Option<&Wanted>,
    (is_old, is_done): (bool, bool),
) -> Option<Step> {
    let Some(found) = found else {
        let wanted = wanted.filter(|wanted| wanted.management != ON_START || !is_done)?;
        return Some(Step::Create(json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": { "name": name, "labels": { LABEL: wanted.management } },
            "spec": wanted.spec(),
        })));
    };
    let management = found.management();
    if ![ON_START, ALWAYS].contains(&management) || management == ON_START && (!is_old || is_done) {
        return None;
    }
    let Some(wanted) = wanted else {
        let uid = found.object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        return Some(Step::Delete { uid });
    };
    let spec = wanted.spec();
    if found.object["spec"] == spec {
        return None;
    }
    let mut object = found.object.clone();
    object["spec"] = spec;
    Some(Step::Update(object))
}

/// What the task does.
pub(crate) async fn register(task: TaskHandle, args: RegisterArgs) -> Result<(), ActorError> {
    let clock = task.system().clock().clone();
    // The handle itself can't be kept across a wait.
    drop(task);
    let mut desk = Desk { args, found: BTreeMap::new(), old: None, done: BTreeSet::new(), written: BTreeSet::new() };
    loop {
        if let Some(store) = desk.args.stores.get(GROUP, PLURAL) {
            let query = WatchQuery { initial_events: Some(true), ..WatchQuery::default() };
            match store.watch(&query).await {
                Ok(watch) => desk.follow(&clock, watch).await,
                Err(error) => tracing::debug!(error = error.message, "APIServices can't be watched yet"),
            }
        }
        pause(&clock).await;
    }
}

struct Desk {
    args: RegisterArgs,
    found: BTreeMap<String, Found>,
    /// The names at the start, once they are known.
    old: Option<BTreeSet<String>>,
    done: BTreeSet<String>,
    /// Those that were created and that the watch didn't show yet.
    written: BTreeSet<String>,
}

impl Desk {
    /// Follows one watch to its end.
    async fn follow(&mut self, clock: &Clock, mut watch: Watch) {
        let mut catalogs = self.args.stores.catalog().subscribe();
        self.found.clear();
        self.written.clear();
        let (mut is_whole, mut is_unfinished) = (false, false);
        loop {
            let mut next = tokio::select! {
                item = watch.next() => Some(item),
                changed = catalogs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    None
                }
                () = pause(clock), if is_unfinished => None,
            };
            // All that is there by now is one look.
            while let Some(item) = next {
                let Some(item) = item else { return };
                if !self.take(item, &mut is_whole) {
                    return;
                }
                next = watch.next().now_or_never();
            }
            if is_whole {
                is_unfinished = self.settle().await.is_err();
            }
        }
    }

    /// Takes note of a change; says whether the watch goes on.
    fn take(&mut self, item: WatchItem, is_whole: &mut bool) -> bool {
        let name = item.object.name().to_owned();
        self.written.remove(&name);
        match item.kind {
            WatchKind::Added | WatchKind::Modified => _ = self.found.insert(name, Found::new(item.object.value())),
            WatchKind::Deleted => _ = self.found.remove(&name),
            WatchKind::Bookmark { .. } => {
                *is_whole = true;
                if self.old.is_none() {
                    self.old = Some(self.found.keys().cloned().collect());
                }
            }
            WatchKind::Error(_) => return false,
        }
        true
    }

    /// Makes everything as it should be.
    async fn settle(&mut self) -> Result<(), Status> {
        let wanted = wanted(&self.args.stores.catalog().current());
        let names: BTreeSet<String> = wanted.keys().chain(self.found.keys()).cloned().collect();
        let mut failed = None;
        for name in names {
            let past = (self.old.as_ref().is_some_and(|old| old.contains(&name)), self.done.contains(&name));
            let step = decide(&name, self.found.get(&name), wanted.get(&name), past);
            let is_uncertain = matches!(step, Some(Step::Delete { .. }))
                && self.found.get(&name).is_some_and(|found| !self.is_gone(found));
            match step {
                Some(Step::Create(_)) if self.written.contains(&name) => {}
                Some(step) if !is_uncertain => match self.carry_out(&name, step).await {
                    Ok(()) => {
                        self.written.insert(name.clone());
                        self.done.insert(name);
                    }
                    Err(error) => {
                        tracing::debug!(name, error = error.message, "an APIService can't be written yet");
                        failed = Some(error);
                    }
                },
                Some(_) => {}
                None if wanted.contains_key(&name) => _ = self.done.insert(name),
                None => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether a version that isn't served won't be in a moment: definitions that weren't read yet don't count as gone.
    fn is_gone(&self, found: &Found) -> bool {
        let group = found.object["spec"]["group"].as_str().unwrap_or_default();
        let catalog = self.args.stores.catalog().current();
        if catalog.group(group).is_some() {
            return true;
        }
        let Some(store) = self.args.stores.get("apiextensions.k8s.io", "customresourcedefinitions") else {
            return true;
        };
        let definitions = store.snapshot();
        let of_group = |name: &str| name.split_once('.').is_some_and(|(_, of)| of == group);
        definitions.is_filled() && !definitions.iter().any(|definition| of_group(definition.name()))
    }

    async fn carry_out(&self, name: &str, step: Step) -> Result<(), Status> {
        let inside = &self.args.inside;
        let path = format!("{PATH}/{name}");
        let sent = match step {
            Step::Create(object) => inside.send(Method::POST, PATH, Some(&object)).await,
            Step::Update(object) => inside.send(Method::PUT, &path, Some(&object)).await,
            Step::Delete { uid } => {
                let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { "uid": uid } });
                inside.send(Method::DELETE, &path, Some(&options)).await
            }
        };
        match sent {
            // Another server was faster, or the watch will say what there is.
            Err(status) if matches!(status.code, 404 | 409) => Ok(()),
            sent => sent,
        }
    }
}
