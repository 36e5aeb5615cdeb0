//! HorizontalPodAutoscalers: as many pods as what is measured asks for.
//!
//! Owns:    the status of each autoscaler, and the number of pods of what it scales.
//! Needs:   copies of autoscalers and pods; the APIs that measure, each of which may be missing.
//! Restart: permanent. It begins at the number there is; what was asked for before that is forgotten.
//! Fails:   never by itself; an autoscaler that knows too little says so in its conditions.

mod behavior;
mod calculator;
mod conditions;
mod measure;
mod metrics;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k3sd_client::controller::indexes::{by_controller, orphans};
use k3sd_client::controller::setup::{AutoscalingConfig, Setup};
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_objects::selector::LabelSelector;
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use tokio::sync::watch;

use self::behavior::{Bounds, Decided, Memories, decide};
use self::calculator::Terms;
use self::conditions::{ABLE, ACTIVE, LIMITED, set};
use self::measure::{Measured, Place};
use crate::scaling::{self, Target};
use crate::support::{self, Access, message, name, namespace, uid};

const COMPONENT: &str = "horizontal-pod-autoscaler";

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let scalers: Informer<HorizontalPodAutoscaler> = setup.informers.informer();
    let pods: Informer<Pod> = setup.informers.indexed(vec![by_controller(), orphans()]);
    let recorder = setup.recorder.component(COMPONENT);
    let controller = Autoscalers {
        access: Access::new(setup.connect(COMPONENT)),
        scalers: scalers.clone(),
        pods: pods.clone(),
        recorder: recorder.clone(),
        memories: watch::Sender::default(),
        config: setup.config.autoscaling,
    };
    let looped = Loop::new(controller, setup.leading.clone())
        .watch(&scalers, |old: Option<&HorizontalPodAutoscaler>, new, keys| {
            // The status is written here, and each look costs several requests.
            if old.zip(new).is_none_or(|(old, new)| old.spec != new.spec || old.metadata.uid != new.metadata.uid) {
                support::itself(old, new, keys);
            }
        })
        .needs(&pods);
    support::quarantine(looped, &recorder, &scalers).child("horizontalpodautoscaling")
}

struct Autoscalers {
    access: Access,
    scalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    recorder: Recorder,
    memories: watch::Sender<Memories>,
    config: AutoscalingConfig,
}

impl Controller for Autoscalers {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let Some(scalers) = self.scalers.snapshot() else { return Ok(()) };
        let Some(shown) = scalers.get(&key.namespace, &key.name) else {
            self.memories.send_modify(|memories| memories.forget(key));
            return Ok(());
        };
        let Some(spec) = &shown.spec else { return Ok(()) };
        let mut look = Look { controller: self, shown, status: shown.status.clone().unwrap_or_default(), turn };
        look.look(spec).await;
        let told = look.tell().await;
        // Nobody tells of what is measured.
        turn.again(self.config.sync_period);
        told
    }
}

/// One look at an autoscaler. What goes wrong is said in its status and in Events; the next look comes all the same.
struct Look<'a> {
    controller: &'a Autoscalers,
    shown: &'a HorizontalPodAutoscaler,
    status: HorizontalPodAutoscalerStatus,
    turn: &'a mut Turn,
}

impl Look<'_> {
    fn note(&mut self, kind: &str, is: bool, reason: &str, text: &str) {
        set(&mut self.status, kind, is, reason, text, self.turn.now());
    }

    fn warn(&self, reason: &str, text: impl Into<String>) {
        self.controller.recorder.warning(self.shown, reason, text);
    }

    async fn look(&mut self, spec: &HorizontalPodAutoscalerSpec) {
        let client = self.controller.access.client();
        let wanted = &spec.scale_target_ref;
        let api_version = wanted.api_version.as_deref().unwrap_or("v1");
        let target = Target { api_version, kind: &wanted.kind, name: &wanted.name };
        let found = match scaling::find(&client, namespace(self.shown), &target).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(format!("{} \"{}\" not found, or it has no scale", wanted.kind, wanted.name)),
            Err(failure) => Err(message(&failure)),
        };
        let (api, scale) = match found {
            Ok(found) => found,
            Err(why) => {
                self.warn("FailedGetScale", why.clone());
                let text = format!("the HPA controller was unable to get the target's current scale: {why}");
                return self.note(ABLE, false, "FailedGetScale", &text);
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        self.note(ABLE, true, "SucceededGetScale", text);
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let window = self.controller.config.downscale_stabilization;
        let bounds = Bounds { current, min: spec.min_replicas.unwrap_or(1), max: spec.max_replicas, window };
        self.status.current_replicas = Some(current);
        let Some((replicas, reason)) = self.wish(spec, &scale, bounds).await else { return };
        if replicas != current && self.rescale(&api, scale, replicas, &reason).await {
            self.status.last_scale_time = Some(Time(self.turn.now()));
            self.remember(|memories, now, uid| memories.of(uid, current, now).did(current, replicas, now));
        } else if replicas != current {
            return;
        }
        self.status.desired_replicas = replicas;
    }

    fn remember<T>(&mut self, with: impl FnOnce(&mut Memories, k3sd_runtime::Moment, &str) -> T) -> Option<T> {
        let (now, mut outcome) = (self.turn.moment(), None);
        self.controller.memories.send_modify(|memories| outcome = Some(with(memories, now, uid(self.shown))));
        outcome
    }

    /// How many pods there are to be, and why. `None`: too little is known to say.
    async fn wish(
        &mut self,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        bounds: Bounds,
    ) -> Option<(i32, String)> {
        let Bounds { current, min, max, .. } = bounds;
        self.remember(|memories, now, uid| _ = memories.of(uid, current, now));
        if current == 0 && min != 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            self.note(ACTIVE, false, "ScalingDisabled", text);
            self.status.current_metrics = None;
            return Some((0, String::new()));
        }
        if current > max {
            return Some((max, "Current number of replicas above Spec.MaxReplicas".to_owned()));
        }
        if current < min {
            return Some((min, "Current number of replicas below Spec.MinReplicas".to_owned()));
        }
        let (wish, which) = self.measured(spec, scale).await?;
        let reason =
            if wish > current { format!("{which} above target") } else { "All metrics below target".to_owned() };
        let behavior = spec.behavior.as_ref();
        let decided: Decided =
            self.remember(|memories, now, uid| decide(memories.of(uid, current, now), bounds, wish, behavior, now))?;
        self.note(ABLE, true, decided.able.0, decided.able.1);
        let (is_limited, limit, text) = decided.limited;
        self.note(LIMITED, is_limited, limit, text);
        Some((decided.replicas, reason))
    }

    /// The largest number that something measured asks for, and what that is.
    async fn measured(&mut self, spec: &HorizontalPodAutoscalerSpec, scale: &Scale) -> Option<(i32, String)> {
        let selector = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        if selector.is_empty() {
            self.warn("SelectorRequired", "selector is required");
            self.note(ACTIVE, false, "InvalidSelector", "the HPA target's scale is missing a selector");
            return None;
        }
        let pods = self.counted(&selector)?;
        let client = self.controller.access.client();
        let place = Place {
            client: &client,
            namespace: namespace(self.shown),
            selector: &selector,
            pods,
            terms: Terms { now: self.turn.now(), config: self.controller.config },
            current: scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0),
            running: scale.status.as_ref().map_or(0, |status| status.replicas),
        };
        let (mut best, mut statuses, mut failed): (Option<(i32, String)>, Vec<MetricStatus>, _) =
            (None, Vec::new(), Vec::new());
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        for metric in metrics {
            match place.measure(metric).await {
                Ok(Measured { proposal, name, status }) => {
                    statuses.push(status);
                    if best.as_ref().is_none_or(|(replicas, _)| proposal.replicas > *replicas) {
                        best = Some((proposal.replicas, name));
                    }
                }
                Err(unmeasured) => {
                    statuses.push(MetricStatus::default());
                    self.warn(unmeasured.reason, unmeasured.text.clone());
                    failed.push(unmeasured);
                }
            }
        }
        self.status.current_metrics = (!statuses.is_empty()).then_some(statuses);
        let shrinks = best.as_ref().is_none_or(|(replicas, _)| *replicas < place.current);
        if let Some(first) = failed.first() {
            // What isn't known might have asked for more: only fewer pods are out of the question.
            let count = format!("{} invalid out of {}", failed.len(), metrics.len());
            let text = format!("invalid metrics ({count}), first error is: {}", first.text);
            if shrinks {
                self.warn("FailedComputeMetricsReplicas", text);
                let text = format!("the HPA was unable to compute the replica count: {}", first.text);
                self.note(ACTIVE, false, first.reason, &text);
                return None;
            }
        }
        let (replicas, which) = best?;
        let text = format!("the HPA was able to successfully calculate a replica count from {which}");
        self.note(ACTIVE, true, "ValidMetricFound", &text);
        Some((replicas, which))
    }

    /// The pods that it counts; none if that can't be said.
    fn counted(&mut self, text: &str) -> Option<Vec<Arc<Pod>>> {
        let selector: LabelSelector = match text.parse() {
            Ok(selector) => selector,
            Err(error) => {
                let text = format!("couldn't convert selector into a corresponding internal selector object: {error}");
                self.warn("InvalidSelector", text.clone());
                self.note(ACTIVE, false, "InvalidSelector", &text);
                return None;
            }
        };
        let (pods, own) = (self.selected(&selector), ObjectKey::of(self.shown));
        let current = self.status.current_replicas.unwrap_or(0);
        let rivals = self.remember(|memories, now, uid| {
            memories.of(uid, current, now).counts(own.clone(), selector);
            memories.rivals(&own, &pods)
        })?;
        if rivals.is_empty() {
            return Some(pods);
        }
        let all: Vec<String> = [own].iter().chain(&rivals).map(ToString::to_string).collect();
        let text = format!("pods by selector {text} are controlled by multiple HPAs: [{}]", all.join(" "));
        self.warn("AmbiguousSelector", text.clone());
        self.note(ACTIVE, false, "AmbiguousSelector", &text);
        None
    }

    fn selected(&self, selector: &LabelSelector) -> Vec<Arc<Pod>> {
        let Some(shown) = self.controller.pods.snapshot() else { return Vec::new() };
        let none = support::Labels::new();
        let matches = |pod: &&Arc<Pod>| {
            let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
            selector.matches(|key| labels.get(key).map(String::as_str))
        };
        shown.of_namespace(namespace(self.shown)).filter(matches).cloned().collect()
    }

    /// Writes the number; says whether that worked.
    async fn rescale(&mut self, api: &Api<DynamicObject>, mut scale: Scale, replicas: i32, reason: &str) -> bool {
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        match scaling::replace(&self.controller.access.client(), api, &scale).await {
            Ok(_) => {
                let text = format!("the HPA controller was able to update the target scale to {replicas}");
                self.note(ABLE, true, "SucceededRescale", &text);
                let text = format!("New size: {replicas}; reason: {reason}");
                self.controller.recorder.normal(self.shown, "SuccessfulRescale", text);
                true
            }
            Err(failure) => {
                let why = message(&failure);
                self.warn("FailedRescale", format!("New size: {replicas}; reason: {reason}; error: {why}"));
                let text = format!("the HPA controller was unable to update the target scale: {why}");
                self.note(ABLE, false, "FailedUpdateScale", &text);
                false
            }
        }
    }

    /// Writes the status if there is news.
    async fn tell(&mut self) -> Result<(), Failure> {
        if self.shown.status.as_ref() == Some(&self.status) {
            return Ok(());
        }
        let api: Api<HorizontalPodAutoscaler> = self.controller.access.of(namespace(self.shown));
        let told = HorizontalPodAutoscaler { status: Some(self.status.clone()), ..self.shown.clone() };
        let written = api.replace_status(name(self.shown), &PostParams::default(), &told).await?;
        self.turn.wrote(&self.controller.scalers, &written);
        Ok(())
    }
}
