//! Sets of objects, made what they should be: by the rules of wrangler's `apply`, with its labels and annotations.
//!
//! ```text
//! wanted ─ marked ─▶ compared with what has the label ─▶ create, patch, delete ─▶ API
//! ```
//!
//! Namespaces come first, then definitions of custom resources, and what is behind them waits until those are
//! established; the rest comes in the order of its kinds in the file. A failure doesn't keep the others from being tried.

mod applied;
mod diff;
mod existing;
mod owner;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use k3sd_objects::read::{field, items, text};
use k3sd_runtime::Clock;
use serde_json::Value;

pub(crate) use self::existing::Existing;
pub(crate) use self::owner::Owner;
pub(crate) use self::plan::difference;
use self::plan::{Action, actions};
use crate::api::{Cluster, Gvk, Key, Served, code, has_condition, message};
use crate::parse::Manifest;

/// Where an object is whose file names no namespace.
const DEFAULT_NAMESPACE: &str = "default";
/// Requests of one kind that are under way at once.
const AT_ONCE: usize = 16;
/// How long is waited for a definition of custom resources, and how often it is looked at.
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(10);
const ESTABLISHED_LOOK: Duration = Duration::from_millis(20);

const CRD_GROUP: &str = "apiextensions.k8s.io";
const CRD: &str = "CustomResourceDefinition";

/// Whether other objects need it before they can be made.
pub(crate) fn is_foundation(gvk: &Gvk) -> bool {
    gvk.is("", "Namespace") || is_definition(gvk)
}

fn is_definition(gvk: &Gvk) -> bool {
    gvk.is(CRD_GROUP, CRD)
}

/// Whose objects are to be applied, and how.
pub(crate) struct Set<'a> {
    pub cluster: &'a Cluster,
    pub clock: &'a Clock,
    pub existing: &'a Existing,
    pub owner: Owner,
    /// Kinds of which the set may have had objects.
    pub prune: Vec<Gvk>,
    /// Whether objects that aren't wanted any more are deleted.
    pub prunes: bool,
    /// Written into objects that are in the owner's namespace.
    pub reference: Option<Value>,
    /// Objects of this kind can't be changed: they are deleted and made again. They run with the others, so they are only
    /// made when those are there.
    pub replaced: Option<Gvk>,
    /// Called before each write.
    pub announce: &'a (dyn Fn() + Send + Sync),
}

/// Why something wasn't done.
enum Undone {
    Failed(String),
    Waits(String),
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Objects that were written.
    pub writes: usize,
    /// What failed, in the words of K3s.
    pub errors: Vec<String>,
    /// What has to wait for something else, such as the end of a job that is replaced.
    pub waits: Vec<String>,
}

impl Set<'_> {
    /// Makes the set what it should be.
    pub(crate) async fn apply(&self, manifests: &[Manifest]) -> Applied {
        let mut outcome = Applied::default();
        let mut order: Vec<Gvk> = Vec::new();
        let mut wanted: BTreeMap<&Gvk, Vec<&Manifest>> = BTreeMap::new();
        for manifest in manifests {
            if !order.contains(&manifest.gvk) {
                order.push(manifest.gvk.clone());
            }
            wanted.entry(&manifest.gvk).or_default().push(manifest);
        }
        order.sort_by_key(|gvk| (!gvk.is("", "Namespace"), !is_definition(gvk)));
        let mut rest: Vec<Gvk> = self.prune.iter().filter(|gvk| !order.contains(gvk)).cloned().collect();
        rest.sort_by_key(ToString::to_string);
        rest.dedup();
        let kept: BTreeSet<(&str, &str, &Key)> = manifests.iter().map(|it| kept(&it.gvk, &it.key)).collect();
        for gvk in order.iter().chain(&rest) {
            let wanted = wanted.get(gvk).map(Vec::as_slice).unwrap_or_default();
            self.kind(gvk, wanted, &kept, &mut outcome).await;
        }
        outcome
    }

    async fn kind(&self, gvk: &Gvk, wanted: &[&Manifest], kept: &BTreeSet<(&str, &str, &Key)>, outcome: &mut Applied) {
        if self.replaced.as_ref() == Some(gvk) && !outcome.errors.is_empty() {
            // What it would run with isn't there.
            return;
        }
        let served = match self.cluster.served(gvk).await {
            Ok(Some(served)) => served,
            // Nothing of it can be left, so there is nothing to delete.
            Ok(None) if wanted.is_empty() => return,
            Ok(None) => {
                let (kind, version) = (&gvk.kind, gvk.api_version());
                outcome.errors.push(format!("no matches for kind \"{kind}\" in version \"{version}\""));
                return;
            }
            Err(error) => return outcome.errors.push(message(&error)),
        };
        let wanted: BTreeMap<Key, Value> = wanted.iter().map(|manifest| self.prepared(&served, manifest)).collect();
        let existing = match self.existing.of(self.cluster, &served, &self.owner.hash()).await {
            Ok(existing) => existing,
            Err(error) => {
                let error = message(&error);
                return outcome.errors.push(format!("failed to list {gvk} for {}: {error}", self.owner));
            }
        };
        let prunes = |key: &Key| {
            let is_wanted = |key: &Key| kept.contains(&(gvk.group.as_str(), gvk.kind.as_str(), key));
            let unnamed = Key::new("", &key.name);
            self.prunes && !is_wanted(key) && !(key.namespace == self.default_namespace() && is_wanted(&unnamed))
        };
        let due = actions(gvk, &wanted, &existing, prunes);
        // What is made is there before anything is changed, and nothing is deleted before that.
        for stage in [0, 1, 2] {
            let mut work: Vec<BoxFuture<'_, Result<bool, Undone>>> = Vec::new();
            for (key, action) in &due {
                if stage_of(action) == stage {
                    work.push(Box::pin(self.act(&served, key, action, (&wanted, existing.get(key)))));
                }
            }
            let done: Vec<_> = stream::iter(work).buffered(AT_ONCE).collect().await;
            for done in done {
                match done {
                    Ok(written) => outcome.writes += usize::from(written),
                    Err(Undone::Failed(error)) => outcome.errors.push(error),
                    Err(Undone::Waits(what)) => outcome.waits.push(what),
                }
            }
        }
        if is_definition(gvk) {
            for (key, object) in &wanted {
                let is_ready = existing.get(key).is_some_and(|is| has_condition(is, "Established"));
                if !is_ready {
                    outcome.errors.extend(established(self.cluster, self.clock, &served, key).await.err());
                    self.cluster.forget(text(field(object, "spec"), "group"));
                }
            }
        }
    }

    fn default_namespace(&self) -> &str {
        if self.reference.is_some() { &self.owner.key.namespace } else { DEFAULT_NAMESPACE }
    }

    /// An object as it is to be, but for the annotation that remembers it.
    fn prepared(&self, served: &Served, manifest: &Manifest) -> (Key, Value) {
        let mut object = manifest.object.clone();
        self.owner.mark(&mut object);
        let mut key = manifest.key.clone();
        if !served.namespaced {
            key.namespace.clear();
        } else if key.namespace.is_empty() {
            key.namespace = self.default_namespace().to_owned();
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            if key.namespace.is_empty() {
                metadata.remove("namespace");
            } else {
                metadata.insert("namespace".to_owned(), key.namespace.as_str().into());
            }
            if let Some(reference) = self.reference.as_ref().filter(|_| key.namespace == self.owner.key.namespace) {
                let owners = metadata.entry("ownerReferences").or_insert_with(|| Value::Array(Vec::new()));
                if let Some(owners) = owners.as_array_mut()
                    && !owners.iter().any(|owner| owner["uid"] == reference["uid"])
                {
                    owners.push(reference.clone());
                }
            }
        }
        (key, object)
    }

    fn failed(&self, verb: &str, (key, gvk): (&Key, &Gvk), error: &str) -> Undone {
        Undone::Failed(format!("failed to {verb} {key} {gvk} for {}: {error}", self.owner))
    }

    /// Does one thing; says whether something was written.
    async fn act(
        &self,
        served: &Served,
        key: &Key,
        action: &Action,
        (wanted, is): (&BTreeMap<Key, Value>, Option<&Value>),
    ) -> Result<bool, Undone> {
        let failed = |verb: &str, error: &str| self.failed(verb, (key, &served.gvk), error);
        match action {
            Action::Create(object) => {
                (self.announce)();
                let made = self.cluster.create(served, &key.namespace, object).await;
                let Err(error) = made else { return Ok(true) };
                if !is_there_already(&error) {
                    return Err(failed("create", &message(&error)));
                }
                // Somebody else made it; it is taken over.
                let found = self.cluster.get(served, key).await.map_err(|error| failed("create", &message(&error)))?;
                let found = found.ok_or_else(|| failed("create", &message(&error)))?;
                let change = wanted.get(key).and_then(|wanted| plan::change(&served.gvk, wanted, &found));
                match change {
                    Some(Action::Patch(form, patch)) => self.change(served, key, (form, &patch), Some(&found)).await,
                    _ => Ok(false),
                }
            }
            Action::Patch(form, patch) => self.change(served, key, (*form, patch), is).await,
            Action::Delete => {
                (self.announce)();
                let deleted = self.cluster.delete(served, key).await;
                deleted.map(|()| true).map_err(|error| failed("delete", &message(&error)))
            }
        }
    }

    async fn change(
        &self,
        served: &Served,
        key: &Key,
        (form, patch): (crate::api::PatchType, &Value),
        is: Option<&Value>,
    ) -> Result<bool, Undone> {
        let failed = |verb: &str, error: &str| self.failed(verb, (key, &served.gvk), error);
        if self.replaced.as_ref() == Some(&served.gvk) {
            may_be_replaced(is).map_err(|what| Undone::Waits(what.to_owned()))?;
            (self.announce)();
            self.cluster.delete(served, key).await.map_err(|error| failed("delete", &message(&error)))?;
            return Err(Undone::Waits(format!("{key} is deleted, to be made again")));
        }
        (self.announce)();
        let changed = self.cluster.patch(served, key, form, patch).await;
        changed.map(|_| true).map_err(|error| failed("update", &message(&error)))
    }
}

/// Waits until a definition is served, if it is there.
///
/// # Errors
/// It isn't in time, or the API can't be asked.
pub(crate) async fn established(cluster: &Cluster, clock: &Clock, kind: &Served, key: &Key) -> Result<(), String> {
    let deadline = clock.now() + ESTABLISHED_LIMIT;
    loop {
        let found = cluster.get(kind, key).await;
        match found {
            Ok(None) => return Ok(()),
            Ok(Some(object)) if has_condition(&object, "Established") => return Ok(()),
            _ if clock.now() < deadline => clock.sleep_until(clock.now() + ESTABLISHED_LOOK).await,
            Ok(Some(_)) => return Err(format!("{key} {} is not established", kind.gvk)),
            Err(error) => return Err(message(&error)),
        }
    }
}

/// What an object that is kept is known by, whatever its version.
fn kept<'a>(gvk: &'a Gvk, key: &'a Key) -> (&'a str, &'a str, &'a Key) {
    (&gvk.group, &gvk.kind, key)
}

fn stage_of(action: &Action) -> u8 {
    match action {
        Action::Create(_) => 0,
        Action::Patch(..) => 1,
        Action::Delete => 2,
    }
}

fn is_there_already(error: &kube::Error) -> bool {
    code(error) == Some(409) && matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// Whether a job may be replaced: its controller has seen it, and none of its pods runs.
fn may_be_replaced(job: Option<&Value>) -> Result<(), &'static str> {
    let status = job.map_or(&Value::Null, |job| field(job, "status"));
    if items(status, "conditions").is_empty() {
        return Err("wait for job controller sync before replace");
    }
    let pods = |name: &str| field(status, name).as_i64().unwrap_or_default();
    if pods("active") + pods("terminating") != 0 {
        return Err("wait for pods to terminate before replace");
    }
    Ok(())
}
