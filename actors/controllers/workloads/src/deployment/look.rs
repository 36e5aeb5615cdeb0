//! One look at a Deployment: what is decided is carried out, and the status is written once at its end.

use std::sync::Arc;

use k3sd_client::controller::indexes::BY_CONTROLLER;
use k3sd_client::controller::owners::{controller_ref, is_controlled_by};
use k3sd_client::controller::{Failure, Turn, pods};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::rollout::{self, Set, Size, replicas, size};
use super::sets::{self, HASH, REVISION};
use super::{Deployments, status};
use crate::hash::pod_template_hash;
use crate::support::{
    annotation, is_namespace_terminating, message, name, namespace, reason, this_one, uid, unless_gone,
};

/// The ReplicaSet of the template that is wanted, if there is one, and the others.
struct Found {
    new: Option<Set>,
    old: Vec<Set>,
}

/// See the module's page.
pub(super) struct Look<'a> {
    controller: &'a Deployments,
    shown: &'a Deployment,
    /// What the Deployment is to say of itself in the end.
    deployment: Deployment,
    pub(super) turn: &'a mut Turn,
}

impl<'a> Look<'a> {
    pub(super) fn new(controller: &'a Deployments, shown: &'a Deployment, turn: &'a mut Turn) -> Self {
        Self { controller, shown, deployment: shown.clone(), turn }
    }

    fn status(&mut self) -> &mut DeploymentStatus {
        self.deployment.status.get_or_insert_default()
    }

    fn sets(&self) -> Api<ReplicaSet> {
        self.controller.access.of(namespace(self.shown))
    }

    /// Only says that it was looked at.
    pub(super) async fn observed(&mut self) -> Result<(), Failure> {
        self.status().observed_generation = self.shown.metadata.generation;
        self.save().await
    }

    /// Does what is due for a Deployment that has these ReplicaSets.
    pub(super) async fn look(&mut self, owned: Vec<Set>) -> Result<(), Failure> {
        let outcome = self.roll(owned).await;
        // What was found out is told even if something failed.
        let saved = self.save().await;
        outcome.and(saved)
    }

    async fn roll(&mut self, owned: Vec<Set>) -> Result<(), Failure> {
        let now = self.turn.now();
        if self.shown.metadata.deletion_timestamp.is_some() {
            let found = self.find(owned, false).await?;
            return self.count(&found);
        }
        let mut status = self.deployment.status.take().unwrap_or_default();
        status::note_pause(&self.deployment, &mut status, now);
        self.deployment.status = Some(status);
        if status::is_paused(self.shown) || sets::is_scaling(self.shown, &owned) {
            let mut found = self.find(owned, false).await?;
            self.scale(&mut found).await?;
            if status::is_paused(self.shown) {
                self.forget(&found.old).await?;
            }
            return self.count(&found);
        }
        let found = if rollout::is_rolling(self.shown) {
            self.replace_gradually(owned).await?
        } else {
            self.replace_at_once(owned).await?
        };
        self.tell(&found);
        Ok(())
    }

    async fn replace_gradually(&mut self, owned: Vec<Set>) -> Result<Found, Failure> {
        let mut found = self.find(owned, true).await?;
        let Some(new) = found.new.clone() else { return Ok(found) };
        let total = rollout::sum(found.old.iter().chain([&new]), size);
        let wanted = rollout::new_size(self.shown, total, size(&new));
        if self.resize(&mut found, vec![(name(&*new).to_owned(), wanted)]).await? {
            return Ok(found);
        }
        let sizes = rollout::old_sizes(self.shown, &new, &found.old);
        if !self.resize(&mut found, sizes).await? {
            self.forget_if_complete(&found).await?;
        }
        Ok(found)
    }

    async fn replace_at_once(&mut self, owned: Vec<Set>) -> Result<Found, Failure> {
        let mut found = self.find(owned.clone(), false).await?;
        let none = rollout::active(&found.old).into_iter().map(|set| (name(&**set).to_owned(), 0)).collect();
        if self.resize(&mut found, none).await? || self.has_old_pods(&found) {
            return Ok(found);
        }
        if found.new.is_none() {
            found = self.find(owned, true).await?;
        }
        let all = found.new.iter().map(|set| (name(&**set).to_owned(), replicas(self.shown))).collect();
        self.resize(&mut found, all).await?;
        self.forget_if_complete(&found).await?;
        Ok(found)
    }

    /// Whether pods of earlier templates still run.
    fn has_old_pods(&self, found: &Found) -> bool {
        let Some(pods) = self.controller.pods.snapshot() else { return true };
        found.old.iter().any(|set| {
            let (has, ..) = rollout::counts(set);
            has > 0 || pods.by(BY_CONTROLLER, uid(&**set)).any(|pod| !pods::is_finished(pod))
        })
    }

    /// Tells new and old apart, makes the new one if it has to (`create`), and settles revisions.
    async fn find(&mut self, owned: Vec<Set>, create: bool) -> Result<Found, Failure> {
        let (new, old) = sets::split(self.shown, owned);
        let next = sets::next_revision(&old);
        let new = match new {
            Some(new) => Some(self.settle(new, next).await?),
            None if create => Some(self.create(&old, next).await?),
            None => None,
        };
        Ok(Found { new, old })
    }

    /// The new ReplicaSet is there: it says what the Deployment says, and the Deployment has its revision.
    async fn settle(&mut self, new: Set, next: i64) -> Result<Set, Failure> {
        let mut set = (*new).clone();
        let noted = sets::note(self.shown, &mut set, next, true);
        let seconds = self.shown.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let spec = set.spec.get_or_insert_default();
        let slower = spec.min_ready_seconds.unwrap_or(0) != seconds.unwrap_or(0);
        spec.min_ready_seconds = seconds;
        let new = if noted || slower { self.update(&set).await? } else { new };
        let revision = annotation(&*new, REVISION).map(str::to_owned);
        self.note_revision(revision);
        let text = format!("Found new replica set \"{}\"", name(&*new));
        let is_silent = status::condition(self.status(), status::PROGRESSING).is_none();
        if is_silent {
            self.note_progress("True", status::FOUND, &text);
        }
        Ok(new)
    }

    async fn create(&mut self, old: &[Set], next: i64) -> Result<Set, Failure> {
        let collisions = self.status().collision_count;
        let Some(mut set) = new_set(self.shown, collisions) else {
            return Err(Failure::other("the Deployment has no spec"));
        };
        let wanted = rollout::new_size(self.shown, rollout::sum(old, size), 0);
        set.spec.get_or_insert_default().replicas = Some(wanted);
        sets::note(self.shown, &mut set, next, false);
        let made = self.sets().create(&PostParams::default(), &set).await.map_err(Failure::from);
        let made = match made {
            Ok(made) => made,
            Err(failure) if reason(&failure) == "AlreadyExists" => return self.collided(&set, failure, next).await,
            Err(failure) => {
                if !is_namespace_terminating(&failure) {
                    let text = format!("Failed to create new replica set \"{}\": {}", name(&set), message(&failure));
                    self.note_progress("False", status::NOT_CREATED, &text);
                    self.controller.recorder.warning(self.shown, status::NOT_CREATED, text);
                }
                return Err(failure);
            }
        };
        self.turn.wrote(&self.controller.sets, &made);
        if wanted > 0 {
            let text = format!("Scaled up replica set {} from 0 to {wanted}", name(&made));
            self.controller.recorder.normal(self.shown, "ScalingReplicaSet", text);
        }
        self.note_revision(Some(next.to_string()));
        self.note_progress("True", status::CREATED, &format!("Created new replica set \"{}\"", name(&made)));
        Ok(Arc::new(made))
    }

    /// There is a ReplicaSet of that name: ours, which the copies don't show yet, or that of another template.
    async fn collided(&mut self, wanted: &ReplicaSet, failure: Failure, next: i64) -> Result<Set, Failure> {
        let there = self.sets().get(name(wanted)).await?;
        let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone());
        let is_same = template(wanted)
            .zip(template(&there))
            .is_some_and(|(wanted, there)| sets::is_same_template(&wanted, &there));
        if is_same && is_controlled_by(&there.metadata, uid(self.shown)) {
            self.note_revision(Some(next.to_string()));
            return Ok(Arc::new(there));
        }
        let collisions = self.status().collision_count.get_or_insert(0);
        *collisions = collisions.saturating_add(1);
        Err(failure)
    }

    fn note_revision(&mut self, revision: Option<String>) {
        let Some(revision) = revision else { return };
        let notes = &mut self.deployment.metadata.annotations;
        notes.get_or_insert_default().insert(REVISION.to_owned(), revision);
    }

    fn note_progress(&mut self, status: &str, reason: &str, text: &str) {
        if status::deadline(self.shown).is_some() {
            let condition = status::new_condition(status::PROGRESSING, status, reason, text, self.turn.now());
            status::set(self.status(), condition);
        }
    }

    /// Follows a change of the wanted number, without beginning or going on with a rollout.
    async fn scale(&mut self, found: &mut Found) -> Result<(), Failure> {
        let sizes = if let Some(only) = rollout::active_or_latest(found.new.as_ref(), &found.old) {
            vec![(name(&**only).to_owned(), replicas(self.shown))]
        } else if rollout::is_saturated(self.shown, found.new.as_ref()) {
            rollout::active(&found.old).into_iter().map(|set| (name(&**set).to_owned(), 0)).collect()
        } else if rollout::is_rolling(self.shown) {
            rollout::proportional(self.shown, found.new.as_ref(), &found.old)
        } else {
            Vec::new()
        };
        self.resize(found, sizes).await.map(|_| ())
    }

    /// Gives sets their sizes, and says whether one has another size now.
    async fn resize(&mut self, found: &mut Found, sizes: Vec<Size>) -> Result<bool, Failure> {
        let mut resized = false;
        for (which, wanted) in sizes {
            let Some(place) = found.old.iter_mut().chain(found.new.as_mut()).find(|set| name(&***set) == which) else {
                continue;
            };
            let from = size(place);
            let mut set = (**place).clone();
            set.spec.get_or_insert_default().replicas = Some(wanted);
            let noted = sets::note_sizes(self.shown, &mut set);
            // Sets that are empty and stay so are history: what was wanted when they weren't, doesn't change.
            if from == wanted && (!noted || wanted == 0) {
                continue;
            }
            *place = self.update(&set).await?;
            if from != wanted {
                resized = true;
                let way = if from < wanted { "up" } else { "down" };
                let text = format!("Scaled {way} replica set {which} from {from} to {wanted}");
                self.controller.recorder.normal(self.shown, "ScalingReplicaSet", text);
            }
        }
        Ok(resized)
    }

    async fn update(&mut self, set: &ReplicaSet) -> Result<Set, Failure> {
        let written = self.sets().replace(name(set), &PostParams::default(), set).await?;
        self.turn.wrote(&self.controller.sets, &written);
        Ok(Arc::new(written))
    }

    async fn forget_if_complete(&mut self, found: &Found) -> Result<(), Failure> {
        if status::is_complete(self.shown, &self.shown.status.clone().unwrap_or_default()) {
            self.forget(&found.old).await?;
        }
        Ok(())
    }

    /// Deletes old sets beyond the limit of the history.
    async fn forget(&mut self, old: &[Set]) -> Result<(), Failure> {
        for set in sets::forgotten(self.shown, old) {
            let params = this_one(set.metadata.uid.as_ref());
            unless_gone(self.sets().delete(name(&*set), &params).await)?;
            self.turn.deleted(&self.controller.sets, &*set);
        }
        Ok(())
    }

    fn count(&mut self, found: &Found) -> Result<(), Failure> {
        let status = status::counted(&self.deployment, found.new.as_ref(), &found.old, self.turn.now());
        self.deployment.status = Some(status);
        Ok(())
    }

    fn tell(&mut self, found: &Found) {
        let status = status::rollout(&self.deployment, found.new.as_ref(), &found.old, self.turn.now());
        if let Some(due) = status::check_at(self.shown, &status) {
            self.turn.again_at(due);
        }
        self.deployment.status = Some(status);
    }

    async fn save(&mut self) -> Result<(), Failure> {
        let shown = self.shown.status.clone().unwrap_or_default();
        let is_news = self.deployment.status.as_ref().is_some_and(|status| *status != shown);
        if !is_news && self.deployment.metadata.annotations == self.shown.metadata.annotations {
            return Ok(());
        }
        let api: Api<Deployment> = self.controller.access.of(namespace(self.shown));
        let written = api.replace_status(name(self.shown), &PostParams::default(), &self.deployment).await?;
        self.turn.wrote(&self.controller.deployments, &written);
        Ok(())
    }
}

/// The ReplicaSet of the template that is wanted.
fn new_set(deployment: &Deployment, collisions: Option<i32>) -> Option<ReplicaSet> {
    let spec = deployment.spec.as_ref()?;
    let hash = pod_template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
    Some(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(sets::set_name(deployment, &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    })
}
