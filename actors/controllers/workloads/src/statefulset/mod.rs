//! StatefulSets: pods that are known by their number, each with claims of its own.
//!
//! Owns:    the pods and ControllerRevisions whose controller is a StatefulSet, the claims made for them, its status.
//! Needs:   copies of StatefulSets, pods, ControllerRevisions and claims.
//! Restart: permanent. Names say which pod is which, so none is made twice.
//! Fails:   never by itself; a set waits for a pod that isn't well, as long as that takes.

mod core;
mod identity;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use k3sd_client::controller::fan_out::slow_start;
use k3sd_client::controller::indexes::{BY_CONTROLLER, ORPHANS, by_controller, orphans};
use k3sd_client::controller::owners::{claim_all, controller_of};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, controller_key, pods};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::PostParams;

use self::core::{Action, Shared, Wanted, Why, plan, status};
use self::identity::{REVISION, is_member};
use crate::revisions::{Hash, History, Revision, template};
use crate::support::{self, Access, Matcher, label, message, name, selects_all, this_one, uid, unless_gone};

const COMPONENT: &str = "statefulset-controller";
const GROUP: &str = "apps";
const KIND: &str = "StatefulSet";

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let sets: Informer<StatefulSet> = setup.informers.informer();
    let pods: Informer<Pod> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let revisions: Informer<ControllerRevision> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let claims: Informer<PersistentVolumeClaim> = setup.informers.informer();
    let recorder = setup.recorder.component(COMPONENT);
    let controller = StatefulSets {
        access: Access::new(setup.connect(COMPONENT)),
        sets: sets.clone(),
        pods: pods.clone(),
        revisions: revisions.clone(),
        claims: claims.clone(),
        recorder: recorder.clone(),
    };
    let (known, claimants) = (sets.clone(), sets.clone());
    let looped = Loop::new(controller, setup.leading.clone())
        .watch(&sets, support::itself)
        .watch(&pods, move |old: Option<&Pod>, new, keys| concerned(&known, old, new, keys))
        .watch(&revisions, revised)
        .watch(&claims, move |old: Option<&PersistentVolumeClaim>, new, keys| gone_claim(&claimants, old, new, keys));
    support::quarantine(looped, &recorder, &sets).child("statefulset")
}

/// The set whose revision is another: it waits for what it wrote.
fn revised(old: Option<&ControllerRevision>, new: Option<&ControllerRevision>, keys: &mut Vec<ObjectKey>) {
    keys.extend(new.or(old).and_then(|revision| controller_key(revision, GROUP, KIND)));
}

/// The sets that a change of a pod concerns.
fn concerned(sets: &Informer<StatefulSet>, old: Option<&Pod>, new: Option<&Pod>, keys: &mut Vec<ObjectKey>) {
    for pod in [old, new].into_iter().flatten() {
        keys.extend(controller_key(pod, GROUP, KIND));
    }
    let Some(orphan) = new.filter(|pod| controller_of(&pod.metadata).is_none()) else { return };
    // Only a set that gives such names takes it.
    let Some((set, _)) = name(orphan).rsplit_once('-') else { return };
    let key = ObjectKey { namespace: support::namespace(orphan).to_owned(), name: set.to_owned() };
    keys.extend(sets.snapshot().is_some_and(|sets| sets.get(&key.namespace, &key.name).is_some()).then_some(key));
}

/// A set may wait for a claim that is to go: one of its own, or one that goes with an earlier pod of its name, which is
/// then its owner.
fn gone_claim(
    sets: &Informer<StatefulSet>,
    old: Option<&PersistentVolumeClaim>,
    new: Option<&PersistentVolumeClaim>,
    keys: &mut Vec<ObjectKey>,
) {
    let Some(gone) = old.filter(|_| new.is_none()) else { return };
    let namespace = support::namespace(gone);
    let key = |set: &str| ObjectKey { namespace: namespace.to_owned(), name: set.to_owned() };
    let owners = gone.metadata.owner_references.iter().flatten().filter(|owner| owner.kind == "Pod");
    keys.extend(owners.filter_map(|owner| owner.name.rsplit_once('-')).map(|(set, _)| key(set)));
    let Some(sets) = sets.snapshot() else { return };
    let has = |(template, set): &(&str, &str)| {
        sets.get(namespace, set).is_some_and(|set| identity::has_template(set, template))
    };
    keys.extend(identity::claimants(name(gone)).filter(has).map(|(_, set)| key(set)));
}

struct StatefulSets {
    access: Access,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    revisions: Informer<ControllerRevision>,
    claims: Informer<PersistentVolumeClaim>,
    recorder: Recorder,
}

/// The revisions between which the pods are.
struct Between {
    current: Revision,
    updated: Revision,
    collisions: i32,
}

impl Controller for StatefulSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let Some(sets) = self.sets.snapshot() else { return Ok(()) };
        let Some(set) = sets.get(&key.namespace, &key.name) else { return Ok(()) };
        let Some(spec) = &set.spec else { return Ok(()) };
        // While the garbage collector takes it apart, nothing is made again.
        if selects_all(&spec.selector) || set.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let (selector, set_api) = (Matcher::new(&spec.selector), self.access.of::<StatefulSet>(&key.namespace));
        let history = History {
            owner: &**set,
            owners: &set_api,
            api: self.access.of(&key.namespace),
            copies: &self.revisions,
            hash: Hash::Data,
        };
        let mut owned_revisions = history.owned(&selector, turn).await?;
        let owned = self.claimed(set, &set_api, &selector, turn).await?;
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let updated = history.latest(&mut owned_revisions, &spec.template, &mut collisions, turn).await?;
        let shown = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current = owned_revisions.iter().find(|revision| shown == Some(name(&***revision)));
        let between = Between { current: current.unwrap_or(&updated).clone(), updated, collisions };
        let done = self.act(set, &owned, &between, turn).await;
        self.tell(set, &set_api, &owned, &between, turn).await?;
        done?;
        let used = owned.iter().filter_map(|pod| label(&**pod, REVISION).map(str::to_owned));
        let between = [name(&*between.current).to_owned(), name(&*between.updated).to_owned()];
        let live: BTreeSet<String> = used.chain(between).collect();
        let limit = spec.revision_history_limit.unwrap_or(10);
        history.forget(&owned_revisions, &live, limit, turn).await
    }
}

impl StatefulSets {
    async fn claimed(
        &self,
        set: &StatefulSet,
        sets: &Api<StatefulSet>,
        selector: &Matcher,
        turn: &mut Turn,
    ) -> Result<Vec<Shared>, Failure> {
        let Some(shown) = self.pods.snapshot() else { return Ok(Vec::new()) };
        let candidates = shown.by(BY_CONTROLLER, uid(set)).chain(shown.by(ORPHANS, support::namespace(set))).cloned();
        let matches = |pod: &Pod| is_member(set, pod) && selector.matches(pod.metadata.labels.as_ref());
        let api = self.access.of(support::namespace(set));
        claim_all((set, sets), (&api, &self.pods), candidates, matches, turn).await
    }

    /// Does what is due, groups of it side by side.
    async fn act(
        &self,
        set: &StatefulSet,
        owned: &[Shared],
        between: &Between,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let names = (name(&*between.current), name(&*between.updated));
        let actions = plan(&Wanted::of(set), owned, names, turn.now());
        self.retain(set, owned, turn).await?;
        let (done, failure) =
            slow_start(actions.len(), async |at| self.carry_out(set, &actions[at], between).await).await;
        for done in done {
            match done {
                Done::Wrote(pod, claims) => {
                    turn.wrote(&self.pods, &*pod);
                    claims.iter().for_each(|claim| turn.wrote(&self.claims, claim));
                }
                Done::Claimed(claims) => claims.iter().for_each(|claim| turn.wrote(&self.claims, claim)),
                Done::Deleted(pod) => turn.deleted(&self.pods, &*pod),
                Done::Waits => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn carry_out(&self, set: &StatefulSet, action: &Action, between: &Between) -> Result<Done, Failure> {
        match action {
            Action::Create { ordinal, current } => self.create(set, *ordinal, *current, between).await,
            Action::Delete(pod, why) => self.delete(set, pod, *why).await,
            Action::Claim(pod) => Ok(Done::Claimed(self.make_claims(set, pod).await?)),
            Action::Identify(pod) => {
                let mut named = (**pod).clone();
                identity::identify(&mut named);
                let api: Api<Pod> = self.access.of(support::namespace(set));
                let written = api.replace(name(&named), &PostParams::default(), &named).await.map_err(Failure::from);
                self.say(set, ("update", "Update"), name(&named), written.as_ref().err());
                Ok(Done::Wrote(Box::new(written?), Vec::new()))
            }
        }
    }

    async fn create(&self, set: &StatefulSet, ordinal: i32, current: bool, between: &Between) -> Result<Done, Failure> {
        let revision = if current { &between.current } else { &between.updated };
        let kept = if current { template(revision) } else { set.spec.as_ref().map(|spec| spec.template.clone()) };
        let Some(template) = kept else { return Err(Failure::other("the revision keeps no template")) };
        let pod = identity::new_pod(set, &template, name(&**revision), ordinal);
        for claim in identity::claims(set, &pod) {
            if self.has_to_go(set, &pod, name(&claim)).await? {
                return Ok(Done::Waits);
            }
        }
        let claims = self.make_claims(set, &pod).await?;
        let api: Api<Pod> = self.access.of(support::namespace(set));
        let made = api.create(&PostParams::default(), &pod).await.map_err(Failure::from);
        if made.as_ref().err().is_none_or(|failure| support::reason(failure) != "AlreadyExists") {
            self.say(set, ("create", "Create"), name(&pod), made.as_ref().err());
        }
        Ok(Done::Wrote(Box::new(made?), claims))
    }

    async fn delete(&self, set: &StatefulSet, pod: &Shared, why: Why) -> Result<Done, Failure> {
        let place = format!("StatefulSet {}/{}", support::namespace(set), name(set));
        match why {
            Why::Failed => {
                let text = format!("{place} is recreating failed Pod {}", name(&**pod));
                self.recorder.warning(set, "RecreatingFailedPod", text);
            }
            Why::Succeeded => {
                let text = format!("{place} is recreating terminated Pod {}", name(&**pod));
                self.recorder.normal(set, "RecreatingTerminatedPod", text);
            }
            Why::Surplus | Why::Outdated => {}
        }
        let api: Api<Pod> = self.access.of(support::namespace(set));
        let gone = unless_gone(api.delete(name(&**pod), &this_one(pod.metadata.uid.as_ref())).await);
        self.say(set, ("delete", "Delete"), name(&**pod), gone.as_ref().err());
        gone.map(|_| Done::Deleted(pod.clone()))
    }

    /// Tells what became of a pod.
    fn say(&self, set: &StatefulSet, (verb, title): (&str, &str), pod: &str, failure: Option<&Failure>) {
        let what = format!("{verb} Pod {pod} in StatefulSet {}", name(set));
        match failure {
            None => self.recorder.normal(set, &format!("Successful{title}"), format!("{what} successful")),
            Some(failure) => {
                let text = format!("{what} failed error: {}", message(failure));
                self.recorder.warning(set, &format!("Failed{title}"), text);
            }
        }
    }

    fn claim(&self, set: &StatefulSet, claim: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.snapshot()?.get(support::namespace(set), claim).cloned()
    }

    /// Whether there is a claim of this name that has to go before the pod is made: one of an earlier pod, or one that is to
    /// be deleted. It would wait for the pod to end, and the pod would never begin.
    async fn has_to_go(&self, set: &StatefulSet, pod: &Pod, claim: &str) -> Result<bool, Failure> {
        let Some(known) = self.claim(set, claim) else { return Ok(false) };
        if identity::is_stale(name(pod), "", &known) || known.metadata.deletion_timestamp.is_some() {
            return Ok(true);
        }
        // The copy may be older than the wish that it go.
        let api: Api<PersistentVolumeClaim> = self.access.of(support::namespace(set));
        let there = api.get_opt(claim).await.map_err(Failure::from)?;
        Ok(there.is_some_and(|there| there.metadata.deletion_timestamp.is_some()))
    }

    /// Makes the claims of a pod that aren't there.
    async fn make_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<Vec<PersistentVolumeClaim>, Failure> {
        let mut made = Vec::new();
        let api: Api<PersistentVolumeClaim> = self.access.of(support::namespace(set));
        for claim in identity::claims(set, pod) {
            if self.claim(set, name(&claim)).is_some() {
                continue;
            }
            let outcome = api.create(&PostParams::default(), &claim).await.map_err(Failure::from);
            let place = format!("Pod {} in StatefulSet {}", name(pod), name(set));
            match outcome {
                Ok(claim) => {
                    let text = format!("create Claim {} {place} success", name(&claim));
                    self.recorder.normal(set, "SuccessfulCreate", text);
                    made.push(claim);
                }
                Err(failure) if support::reason(&failure) == "AlreadyExists" => {}
                Err(failure) => {
                    let text = format!("create Claim {} for {place} failed error: {}", name(&claim), message(&failure));
                    self.recorder.warning(set, "FailedCreate", text);
                    return Err(failure);
                }
            }
        }
        Ok(made)
    }

    /// Has the claims of all pods owned as the retention policy says.
    async fn retain(&self, set: &StatefulSet, owned: &[Shared], turn: &mut Turn) -> Result<(), Failure> {
        let api: Api<PersistentVolumeClaim> = self.access.of(support::namespace(set));
        for pod in owned.iter().filter(|pod| !pods::is_finished(pod)) {
            for wanted in identity::claims(set, pod) {
                let Some(there) = self.claim(set, name(&wanted)) else { continue };
                let owners = identity::owners(set, pod, &there);
                let has = there.metadata.owner_references.clone().filter(|owners| !owners.is_empty());
                if has == owners || identity::is_stale(name(&**pod), uid(&**pod), &there) {
                    continue;
                }
                let mut claim = (*there).clone();
                claim.metadata.owner_references = owners;
                match api.replace(name(&claim), &PostParams::default(), &claim).await.map_err(Failure::from) {
                    Ok(written) => turn.wrote(&self.claims, &written),
                    Err(failure) if failure.code() == Some(404) => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }

    async fn tell(
        &self,
        set: &StatefulSet,
        api: &Api<StatefulSet>,
        owned: &[Shared],
        between: &Between,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let revisions = (name(&*between.current), name(&*between.updated), between.collisions);
        let (new, next) = status(set, owned, revisions, turn.now());
        if let Some(next) = next {
            turn.again_at(next);
        }
        if set.status.as_ref() == Some(&new) {
            return Ok(());
        }
        let told = StatefulSet { status: Some(new), ..set.clone() };
        let written = api.replace_status(name(set), &PostParams::default(), &told).await?;
        turn.wrote(&self.sets, &written);
        Ok(())
    }
}

/// What came of an action.
enum Done {
    Wrote(Box<Pod>, Vec<PersistentVolumeClaim>),
    Claimed(Vec<PersistentVolumeClaim>),
    Deleted(Shared),
    /// A claim has to go first.
    Waits,
}
