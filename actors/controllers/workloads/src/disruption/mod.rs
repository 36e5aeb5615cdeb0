//! PodDisruptionBudgets: how many pods may be evicted now; and pods that were to be disrupted, but weren't.
//!
//! Owns:    the status of each budget; the condition `DisruptionTarget` of pods when it turned out untrue.
//! Needs:   copies of budgets, pods and of what makes pods.
//! Restart: permanent. It counts again; evictions that are under way are noted in the status.
//! Fails:   never by itself; when it can't count, nothing may be evicted.

mod core;
mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_client::controller::indexes::{by_controller, orphans};
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn, pods};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use self::core::{Ask, DISRUPTION_TARGET, disrupted, failed, stale_at, status};
use self::scale::Scales;
use crate::support::{self, Access, Matcher, message, name, namespace, unless_gone};

const ACCOUNT: &str = "disruption-controller";
const COMPONENT: &str = "controllermanager";

/// Both loops.
pub(crate) fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let budgets: Informer<PodDisruptionBudget> = setup.informers.informer();
    let pods: Informer<Pod> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let recorder = setup.recorder.component(COMPONENT);
    let controller = Budgets {
        access: Access::new(setup.connect(ACCOUNT)),
        budgets: budgets.clone(),
        pods: pods.clone(),
        scales: Scales::new(setup),
        recorder: recorder.clone(),
    };
    let known = budgets.clone();
    let counting = Loop::new(controller, setup.leading.clone())
        .watch(&budgets, support::itself)
        .watch(&pods, move |old: Option<&Pod>, new, keys| concerned(&known, old, new, keys));
    let words = Words { access: Access::new(setup.connect(ACCOUNT)), pods: pods.clone() };
    let believing = Loop::new(words, setup.leading.clone()).watch(&pods, |_, new: Option<&Pod>, keys| {
        keys.extend(new.filter(|pod| stale_at(pod).is_some()).map(ObjectKey::of));
    });
    let counting = support::quarantine(counting, &recorder, &budgets).child("disruption");
    vec![counting, believing.child("disruption-target")]
}

/// The budgets that a change of a pod concerns.
fn concerned(budgets: &Informer<PodDisruptionBudget>, old: Option<&Pod>, new: Option<&Pod>, keys: &mut Vec<ObjectKey>) {
    let Some(shown) = budgets.snapshot() else { return };
    let Some(pod) = new.or(old) else { return };
    if shown.is_empty() || old.zip(new).is_some_and(|(old, new)| is_same_to_budgets(old, new)) {
        return;
    }
    for budget in shown.of_namespace(namespace(pod)) {
        let selector = selector(budget);
        if [old, new].into_iter().flatten().any(|pod| selector.matches(pod.metadata.labels.as_ref())) {
            keys.push(ObjectKey::of(&**budget));
        }
    }
}

fn is_same_to_budgets(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels == new.metadata.labels
        && old.metadata.owner_references == new.metadata.owner_references
        && pods::is_terminating(old) == pods::is_terminating(new)
        && pods::is_ready(old) == pods::is_ready(new)
}

fn selector(budget: &PodDisruptionBudget) -> Matcher {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.map_or_else(Matcher::nothing, Matcher::new)
}

struct Budgets {
    access: Access,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
    recorder: Recorder,
}

impl Controller for Budgets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(budgets), Some(pods)) = (self.budgets.snapshot(), self.pods.snapshot()) else { return Ok(()) };
        let Some(budget) = budgets.get(&key.namespace, &key.name) else { return Ok(()) };
        let selector = selector(budget);
        let all = pods.of_namespace(&key.namespace);
        let matching: Vec<Arc<Pod>> =
            all.filter(|pod| selector.matches(pod.metadata.labels.as_ref())).cloned().collect();
        if matching.is_empty() {
            self.recorder.normal(&**budget, "NoPods", "No matching pods found");
        }
        match self.counted(budget, &matching, turn).await {
            Ok(status) => self.tell(budget, status, turn).await,
            Err(failure) => {
                let text = format!("Failed to calculate the number of expected pods: {}", message(&failure));
                self.recorder.warning(&**budget, "CalculateExpectedPodCountFailed", text);
                let told = self.tell(budget, failed(budget, &message(&failure), turn.now()), turn).await;
                told.and(Err(failure))
            }
        }
    }
}

impl Budgets {
    async fn counted(
        &self,
        budget: &PodDisruptionBudget,
        matching: &[Arc<Pod>],
        turn: &mut Turn,
    ) -> Result<PodDisruptionBudgetStatus, Failure> {
        let ask = Ask::of(budget);
        let scale = if ask.needs_scale() { self.expected(budget, matching).await? } else { 0 };
        let Some(bounds) = ask.bounds(matching.len(), scale) else {
            return Err(Failure::other("invalid value for IntOrString: invalid type: string is not a percentage"));
        };
        let (believed, recheck, staying) = disrupted(budget, matching, turn.now());
        for pod in staying {
            let place = format!("{}/{}", namespace(budget), name(budget));
            let text = format!("Pod was expected by PDB {place} to be deleted but it wasn't");
            self.recorder.warning(&*pod, "NotDeleted", text);
        }
        if let Some(recheck) = recheck {
            // What is written down has no fractions of seconds.
            turn.again_at(recheck.saturating_add(jiff::SignedDuration::from_secs(1)).unwrap_or(recheck));
        }
        Ok(status(budget, matching, bounds, believed, turn.now()))
    }

    /// How many pods those who make the matching ones want to have.
    async fn expected(&self, budget: &PodDisruptionBudget, matching: &[Arc<Pod>]) -> Result<i32, Failure> {
        let (mut wanted, mut unmanaged) = (BTreeMap::new(), Vec::new());
        for pod in matching {
            let Some(owner) = k3sd_client::controller::owners::controller_of(&pod.metadata) else {
                unmanaged.push(name(&**pod));
                continue;
            };
            if wanted.contains_key(&owner.uid) {
                continue;
            }
            let found = self.scales.wanted(&self.access, namespace(budget), owner).await?;
            let Some((uid, replicas)) = found else {
                return Err(Failure::other(format!("found no controllers for pod \"{}\"", name(&**pod))));
            };
            // The pods of one ReplicaSet are asked about once, and those of one Deployment count once.
            wanted.insert(owner.uid.clone(), (uid, replicas));
        }
        if !unmanaged.is_empty() {
            let text = format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the \
                 status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account \
                 for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                selector_text(budget)
            );
            self.recorder.warning(budget, "UnmanagedPods", text);
        }
        let owners: BTreeMap<String, i32> = wanted.into_values().collect();
        Ok(owners.into_values().fold(0, i32::saturating_add))
    }

    async fn tell(
        &self,
        budget: &PodDisruptionBudget,
        new: PodDisruptionBudgetStatus,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        if budget.status.as_ref() == Some(&new) {
            return Ok(());
        }
        let api: Api<PodDisruptionBudget> = self.access.of(namespace(budget));
        let told = PodDisruptionBudget { status: Some(new), ..budget.clone() };
        let written = api.replace_status(name(budget), &PostParams::default(), &told).await?;
        turn.wrote(&self.budgets, &written);
        Ok(())
    }
}

fn selector_text(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    let parsed: Option<kube::core::Selector> = selector.and_then(|selector| selector.try_into().ok());
    parsed.map(|selector| selector.to_string()).unwrap_or_default()
}

/// Takes back what pods say that were to be disrupted, but weren't.
struct Words {
    access: Access,
    pods: Informer<Pod>,
}

impl Controller for Words {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let Some(pods) = self.pods.snapshot() else { return Ok(()) };
        let Some(pod) = pods.get(&key.namespace, &key.name) else { return Ok(()) };
        let Some(due) = stale_at(pod) else { return Ok(()) };
        if due > turn.now() {
            turn.again_at(due);
            return Ok(());
        }
        let condition = json!({"type": DISRUPTION_TARGET, "status": "False", "lastTransitionTime": Time(turn.now())});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        let api: Api<Pod> = self.access.of(&key.namespace);
        let written =
            unless_gone(api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        written.iter().for_each(|pod| turn.wrote(&self.pods, pod));
        Ok(())
    }
}
