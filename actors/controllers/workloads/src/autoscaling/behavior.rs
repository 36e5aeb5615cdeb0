//! How fast the number of pods may change: pure, over what was asked for and done lately.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer::ObjectKey;
use k3sd_objects::selector::LabelSelector;
use k3sd_runtime::Moment;
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};
use k8s_openapi::api::core::v1::Pod;

use crate::support::Labels;

/// Without rules: at most twice as many at once, and at least these.
const LIMIT_FACTOR: i32 = 2;
const LIMIT_MIN: i32 = 4;
/// The longest period and window that the API allows; nothing older matters.
const MEMORY: Duration = Duration::from_secs(3600);

/// What was asked for and done lately, of one autoscaler. Forgotten with the loop, which then begins at the number there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Memory {
    asked: Vec<(Moment, i32)>,
    /// By how much the number was changed.
    done: Vec<(Moment, i32)>,
    /// Whose pods it counts.
    counts: Option<(ObjectKey, LabelSelector)>,
}

/// Memories by the `uid` of autoscalers.
#[derive(Debug, Default)]
pub(super) struct Memories(BTreeMap<String, Memory>);

impl Memories {
    /// That of one; of a new one it knows the number that there is.
    pub(super) fn of(&mut self, uid: &str, current: i32, now: Moment) -> &mut Memory {
        self.0.retain(|_, memory| memory.asked.last().is_some_and(|(last, _)| now.since(*last) < MEMORY));
        let memory = self.0.entry(uid.to_owned()).or_default();
        if memory.asked.is_empty() {
            memory.asked.push((now, current));
        }
        memory
    }

    /// An autoscaler that isn't there any more counts no pods.
    pub(super) fn forget(&mut self, gone: &ObjectKey) {
        self.0.retain(|_, memory| memory.counts.as_ref().is_none_or(|(key, _)| key != gone));
    }

    /// The autoscalers beside this one that count one of these pods too.
    pub(super) fn rivals(&self, own: &ObjectKey, pods: &[Arc<Pod>]) -> Vec<ObjectKey> {
        let none = Labels::new();
        let matches = |selector: &LabelSelector| {
            pods.iter().any(|pod| {
                let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
                selector.matches(|key| labels.get(key).map(String::as_str))
            })
        };
        let others = self.0.values().filter_map(|memory| memory.counts.as_ref());
        let others = others.filter(|(key, _)| key.namespace == own.namespace && key.name != own.name);
        others.filter(|(_, selector)| matches(selector)).map(|(key, _)| key.clone()).collect()
    }
}

impl Memory {
    /// Whose pods it counts.
    pub(super) fn counts(&mut self, own: ObjectKey, selector: LabelSelector) {
        self.counts = Some((own, selector));
    }

    fn forget(&mut self, now: Moment) {
        self.asked.retain(|(at, _)| now.since(*at) < MEMORY);
        self.done.retain(|(at, _)| now.since(*at) < MEMORY);
    }

    /// The number was changed.
    pub(super) fn did(&mut self, from: i32, to: i32, now: Moment) {
        self.done.push((now, to - from));
    }

    /// By how much the number grew, and by how much it shrank, within a period.
    fn changed(&self, seconds: i32, now: Moment) -> (i32, i32) {
        let period = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let lately = self.done.iter().filter(|(at, _)| now.since(*at) < period);
        lately.fold((0, 0), |(grown, shrunk), (_, by)| (grown + (*by).max(0), shrunk + (-by).max(0)))
    }
}

/// A number with the reason for it, for the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    /// How many pods there are to be.
    pub(super) replicas: i32,
    /// Whether an earlier wish holds it where it is: reason and message of the condition.
    pub(super) able: (&'static str, &'static str),
    /// Whether a bound was met, and which: status, reason and message of the condition.
    pub(super) limited: (bool, &'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const HELD_UP: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const HELD_DOWN: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_FAST_UP: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

/// The bounds of an autoscaler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) current: i32,
    pub(super) min: i32,
    pub(super) max: i32,
    /// How long what was asked for keeps the number up, if the autoscaler doesn't say.
    pub(super) window: Duration,
}

/// What becomes of a wish.
pub(super) fn decide(
    memory: &mut Memory,
    bounds: Bounds,
    wish: i32,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    now: Moment,
) -> Decided {
    memory.forget(now);
    let (stable, held) = match behavior {
        None => stabilized(memory, bounds.current, wish, (Duration::ZERO, bounds.window), now, false),
        Some(behavior) => {
            let window = |rules: Option<&HPAScalingRules>, default: Duration| {
                let seconds = rules.and_then(|rules| rules.stabilization_window_seconds);
                seconds.map_or(default, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
            };
            let up = window(behavior.scale_up.as_ref(), Duration::ZERO);
            let down = window(behavior.scale_down.as_ref(), bounds.window);
            stabilized(memory, bounds.current, wish, (up, down), now, true)
        }
    };
    memory.asked.push((now, wish));
    let able = if stable == wish { READY } else { held };
    let (replicas, why) = match behavior {
        None => within(bounds, stable),
        Some(behavior) => at_a_rate(memory, bounds, stable, behavior, now),
    };
    Decided { replicas, able, limited: (replicas != stable, why.0, why.1) }
}

/// The wish, unless wishes of the window were higher (when it shrinks) or lower (when it grows).
fn stabilized(
    memory: &Memory,
    current: i32,
    wish: i32,
    (up, down): (Duration, Duration),
    now: Moment,
    by_rules: bool,
) -> (i32, (&'static str, &'static str)) {
    let lately = |window: Duration| {
        let wishes = memory.asked.iter().filter(move |(at, _)| now.since(*at) < window);
        wishes.map(|(_, wish)| *wish)
    };
    let highest = lately(down).fold(wish, i32::max);
    if !by_rules {
        return (highest, HELD_UP);
    }
    let lowest = lately(up).fold(wish, i32::min);
    (current.max(lowest).min(highest), if wish >= current { HELD_DOWN } else { HELD_UP })
}

fn within(bounds: Bounds, wish: i32) -> (i32, (&'static str, &'static str)) {
    let limit = bounds.current.saturating_mul(LIMIT_FACTOR).max(LIMIT_MIN);
    let (max, why) = if bounds.max > limit { (limit, TOO_FAST_UP) } else { (bounds.max, TOO_MANY) };
    if wish < bounds.min {
        (bounds.min, TOO_FEW)
    } else if wish > max {
        (max, why)
    } else {
        (wish, WITHIN)
    }
}

fn at_a_rate(
    memory: &Memory,
    bounds: Bounds,
    wish: i32,
    behavior: &HorizontalPodAutoscalerBehavior,
    now: Moment,
) -> (i32, (&'static str, &'static str)) {
    if wish > bounds.current {
        let limit = rate(memory, bounds.current, behavior.scale_up.as_ref(), true, now).max(bounds.current);
        let (max, why) = if bounds.max > limit { (limit, TOO_FAST_UP) } else { (bounds.max, TOO_MANY) };
        return if wish > max { (max, why) } else { (wish, WITHIN) };
    }
    if wish < bounds.current {
        let limit = rate(memory, bounds.current, behavior.scale_down.as_ref(), false, now).min(bounds.current);
        let (min, why) = if bounds.min < limit { (limit, TOO_FAST_DOWN) } else { (bounds.min, TOO_FEW) };
        return if wish < min { (min, why) } else { (wish, WITHIN) };
    }
    (wish, WITHIN)
}

/// How far the number may go up or down now.
fn rate(memory: &Memory, current: i32, rules: Option<&HPAScalingRules>, up: bool, now: Moment) -> i32 {
    let policy = |kind: &str, value| HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 };
    let default = if up { vec![policy("Pods", 4), policy("Percent", 100)] } else { vec![policy("Percent", 100)] };
    let policies = rules.and_then(|rules| rules.policies.clone()).unwrap_or(default);
    let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let limits = policies.iter().map(|policy| {
        let (grown, shrunk) = memory.changed(policy.period_seconds, now);
        let begin = current - grown + shrunk;
        let way = if up { 1.0 } else { -1.0 };
        if policy.type_ == "Pods" {
            return if up { begin.saturating_add(policy.value) } else { begin.saturating_sub(policy.value) };
        }
        let exact = f64::from(begin) * (1.0 + way * f64::from(policy.value) / 100.0);
        #[expect(clippy::cast_possible_truncation, reason = "a float is cut off at the bounds of the integer")]
        let limit = if up { exact.ceil() as i32 } else { exact as i32 };
        limit
    });
    // Of several policies, `Max` is the one that allows the largest change.
    let found = if (select == "Max") == up { limits.max() } else { limits.min() };
    found.unwrap_or(current)
}
