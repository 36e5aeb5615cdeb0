//! The templates that a StatefulSet or DaemonSet had, kept as ControllerRevisions.
//!
//! Two revisions are the same if their templates are: never by name or hash alone. So those that K3s wrote are found again.

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_client::controller::indexes::{BY_CONTROLLER, ORPHANS};
use k3sd_client::controller::owners::{claim_all, controller_ref};
use k3sd_client::controller::{Failure, Turn};
use k3sd_client::informer::{Informer, Kind};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::deployment::is_same_template;
use crate::hash::{Fnv, encoded};
use crate::support::{Labels, Matcher, name, namespace, reason, this_one, uid, unless_gone};

/// A revision, shared with the copies that it comes from.
pub(crate) type Revision = Arc<ControllerRevision>;

/// Names of collisions that are tried in one look.
const COLLISIONS_MAX: i32 = 100;
/// Characters of the owner's name in a revision's name.
const PREFIX_MAX: usize = 223;
/// The hash of a revision's data, as a label of StatefulSets' revisions.
const DATA_HASH: &str = "controller.kubernetes.io/hash";

/// A template as a revision keeps it: a patch that puts it back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    // What Go always writes, because it can't leave it out.
    for list in ["containers", "initContainers"] {
        let containers = template.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.entry("resources").or_insert_with(|| json!({}));
            }
        }
    }
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".to_owned(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    // Older ones say that the template was never made.
    if let Some(meta) = template.get_mut("metadata").and_then(Value::as_object_mut)
        && meta.get("creationTimestamp").is_some_and(Value::is_null)
    {
        meta.remove("creationTimestamp");
    }
    for list in ["containers", "initContainers"] {
        let containers = template.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if container.get("resources").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
                && let Some(fields) = container.as_object_mut()
            {
                fields.remove("resources");
            }
        }
    }
    serde_json::from_value(template).ok()
}

/// Whether a revision keeps this template.
pub(crate) fn keeps(revision: &ControllerRevision, wanted: &PodTemplateSpec) -> bool {
    template(revision).is_some_and(|kept| is_same_template(&kept, &plain(wanted)))
}

/// A template without what makes no difference.
fn plain(wanted: &PodTemplateSpec) -> PodTemplateSpec {
    let mut wanted = wanted.clone();
    let spec = wanted.spec.as_mut();
    let containers = spec.map(|spec| spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()));
    for container in containers.into_iter().flatten() {
        container.resources = container.resources.take().filter(|resources| *resources != Default::default());
    }
    wanted
}

/// Which hash tells revisions apart.
pub(crate) enum Hash {
    /// That of the data, as StatefulSets have it.
    Data,
    /// That of the template, in a label, as DaemonSets have it.
    Template(&'static str),
}

/// The revision of a template, not yet there.
fn new_revision<K: Kind>(
    owner: &K,
    wanted: &PodTemplateSpec,
    number: i64,
    collisions: i32,
    hash: &Hash,
) -> ControllerRevision {
    let data = data(wanted);
    let mut labels: Labels = wanted.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let (label, hash) = match hash {
        Hash::Data => {
            let mut hash = Fnv::default();
            hash.bytes(data.to_string().as_bytes());
            hash.bytes(collisions.to_string().as_bytes());
            (DATA_HASH, encoded(hash.0))
        }
        Hash::Template(label) => {
            let collisions = (collisions != 0).then_some(collisions);
            (*label, crate::hash::pod_template_hash(wanted, collisions))
        }
    };
    labels.insert(label.to_owned(), hash.clone());
    let prefix: String = name(owner).chars().take(PREFIX_MAX).collect();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{hash}")),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        revision: number,
        data: Some(RawExtension(data)),
    }
}

/// Reads and writes the revisions of one owner.
pub(crate) struct History<'a, K: Kind> {
    pub(crate) owner: &'a K,
    pub(crate) owners: &'a Api<K>,
    pub(crate) api: Api<ControllerRevision>,
    pub(crate) copies: &'a Informer<ControllerRevision>,
    pub(crate) hash: Hash,
}

impl<K: Kind> History<'_, K> {
    /// The owner's revisions, the oldest first.
    pub(crate) async fn owned(&self, selector: &Matcher, turn: &mut Turn) -> Result<Vec<Revision>, Failure> {
        let Some(shown) = self.copies.snapshot() else { return Ok(Vec::new()) };
        let candidates = shown.by(BY_CONTROLLER, uid(self.owner)).chain(shown.by(ORPHANS, namespace(self.owner)));
        let matches = |revision: &ControllerRevision| selector.matches(revision.metadata.labels.as_ref());
        let (owner, own) = ((self.owner, self.owners), (&self.api, self.copies));
        let mut owned = claim_all(owner, own, candidates.cloned(), matches, turn).await?;
        owned.sort_by(|left, right| order(left).cmp(&order(right)));
        Ok(owned)
    }

    /// The revision of a template, which is the latest from now on. `collisions` grows when a name is another's.
    pub(crate) async fn latest(
        &self,
        owned: &mut Vec<Revision>,
        wanted: &PodTemplateSpec,
        collisions: &mut i32,
        turn: &mut Turn,
    ) -> Result<Revision, Failure> {
        let next = owned.last().map_or(0, |last| last.revision).saturating_add(1);
        let same = owned.iter().rposition(|revision| keeps(revision, wanted));
        let latest = match same {
            Some(at) if at + 1 == owned.len() => return Ok(owned[at].clone()),
            Some(at) => {
                let mut again = (*owned.remove(at)).clone();
                again.revision = next;
                self.api.replace(name(&again), &PostParams::default(), &again).await?
            }
            None => self.create(wanted, next, collisions).await?,
        };
        turn.wrote(self.copies, &latest);
        let latest = Arc::new(latest);
        owned.push(latest.clone());
        Ok(latest)
    }

    async fn create(
        &self,
        wanted: &PodTemplateSpec,
        number: i64,
        collisions: &mut i32,
    ) -> Result<ControllerRevision, Failure> {
        for _ in 0..COLLISIONS_MAX {
            let new = new_revision(self.owner, wanted, number, *collisions, &self.hash);
            let failure = match self.api.create(&PostParams::default(), &new).await.map_err(Failure::from) {
                Ok(made) => return Ok(made),
                Err(failure) => failure,
            };
            if reason(&failure) != "AlreadyExists" {
                return Err(failure);
            }
            let there = self.api.get(name(&new)).await?;
            let is_ours = k3sd_client::controller::owners::is_controlled_by(&there.metadata, uid(self.owner));
            if is_ours && keeps(&there, wanted) {
                return Ok(there);
            }
            *collisions = collisions.saturating_add(1);
        }
        Err(Failure::other("every name for a revision is taken"))
    }

    /// Deletes the oldest revisions beyond the limit that are neither `live` nor named by a pod.
    pub(crate) async fn forget(
        &self,
        owned: &[Revision],
        live: &BTreeSet<String>,
        limit: i32,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        for revision in surplus(owned, live, limit) {
            unless_gone(self.api.delete(name(&**revision), &this_one(revision.metadata.uid.as_ref())).await)?;
            turn.deleted(self.copies, &**revision);
        }
        Ok(())
    }
}

fn order(revision: &ControllerRevision) -> (i64, Option<jiff::Timestamp>, &str) {
    let created = revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (revision.revision, created, name(revision))
}

/// The oldest revisions beyond the limit that nothing uses.
fn surplus<'a>(owned: &'a [Revision], live: &BTreeSet<String>, limit: i32) -> Vec<&'a Revision> {
    let unused: Vec<&Revision> = owned.iter().filter(|revision| !live.contains(name(&***revision))).collect();
    let surplus = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    unused.into_iter().take(surplus).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;

    fn wanted(image: &str) -> PodTemplateSpec {
        let template = json!({"metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": image}]}});
        serde_json::from_value(template).expect("a template")
    }

    fn owner() -> StatefulSet {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n", "uid": "u",
            "annotations": {"a": "b"}}}))
        .expect("a set")
    }

    #[test]
    fn a_revision_gives_the_template_back() {
        let new = new_revision(&owner(), &wanted("a:1"), 3, 0, &Hash::Data);
        assert_eq!(template(&new), Some(wanted("a:1")));
        assert!(keeps(&new, &wanted("a:1")) && !keeps(&new, &wanted("a:2")));
        let labels = new.metadata.labels.clone().expect("set");
        assert_eq!(new.metadata.name.clone(), Some(format!("web-{}", labels[DATA_HASH])));
        assert_eq!(labels["app"], "a");
        let again = new_revision(&owner(), &wanted("a:1"), 3, 1, &Hash::Data);
        assert_ne!(again.metadata.name, new.metadata.name);
        let of_set = new_revision(&owner(), &wanted("a:1"), 3, 0, &Hash::Template("label"));
        assert_eq!(of_set.metadata.labels.expect("set")["label"], crate::hash::pod_template_hash(&wanted("a:1"), None));
    }

    #[test]
    fn what_k3s_wrote_is_known_again() {
        let data = json!({"spec": {"template": {"$patch": "replace",
            "metadata": {"creationTimestamp": null, "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "a:1", "resources": {}}]}}}});
        let old = ControllerRevision { data: Some(RawExtension(data)), revision: 1, ..ControllerRevision::default() };
        assert!(keeps(&old, &wanted("a:1")));
        let mut same = wanted("a:1");
        same.spec.as_mut().expect("set").containers[0].resources = Some(Default::default());
        assert!(keeps(&old, &same));
    }

    #[test]
    fn only_unused_revisions_beyond_the_limit_go() {
        let owned: Vec<Revision> = (1..=5)
            .map(|number| {
                let mut revision = new_revision(&owner(), &wanted("a"), number, 0, &Hash::Data);
                revision.metadata.name = Some(format!("r{number}"));
                Arc::new(revision)
            })
            .collect();
        let live = BTreeSet::from(["r1".to_owned(), "r5".to_owned()]);
        let names = |limit| -> Vec<i64> { surplus(&owned, &live, limit).iter().map(|it| it.revision).collect() };
        assert_eq!((names(3), names(2), names(0)), (vec![], vec![2], vec![2, 3, 4]));
    }
}
