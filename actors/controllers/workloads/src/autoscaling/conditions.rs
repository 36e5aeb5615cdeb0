//! What an autoscaler says of itself: pure.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// It can read and write the number of pods.
pub(super) const ABLE: &str = "AbleToScale";
/// It knows enough to decide.
pub(super) const ACTIVE: &str = "ScalingActive";
/// A bound holds the number back.
pub(super) const LIMITED: &str = "ScalingLimited";

/// Sets a condition; the time is that of the last change from true to false or back.
pub(super) fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    is: bool,
    reason: &str,
    text: &str,
    now: Timestamp,
) {
    let value = if is { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let known = match conditions.iter().position(|condition| condition.type_ == kind) {
        Some(at) => &mut conditions[at],
        None => {
            conditions.push(HorizontalPodAutoscalerCondition { type_: kind.to_owned(), ..Default::default() });
            let last = conditions.len() - 1;
            &mut conditions[last]
        }
    };
    if known.status != value {
        value.clone_into(&mut known.status);
        known.last_transition_time = Some(Time(now));
    }
    known.reason = Some(reason.to_owned());
    known.message = Some(text.to_owned());
}
