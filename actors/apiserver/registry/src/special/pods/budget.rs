//! Whether a pod may be evicted: what the disruption budget over it says, and what it is charged.

use jiff::Timestamp;
use k3sd_objects::selector::LabelSelector;
use k3sd_objects::status::{Cause, CauseKind, Qualified, Reason, Status};
use serde_json::{Value, json};

use super::conditions;
use crate::special::read::{map_mut, number, text};

/// How many evictions a budget remembers that its controller hasn't seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;
/// Seconds after which a budget that is behind may have caught up.
const RETRY_SECONDS: i32 = 10;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What the budgets over a pod say to its eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody minds.
    Free,
    /// It may go as long as nobody writes it: it isn't healthy, so nothing is lost with it.
    Unhealthy,
    /// It may go once this budget is charged.
    Charge,
}

/// Whether the pod may go without a look at budgets: what it did is done, or it never began.
pub(crate) fn is_beyond_budgets(pod: &Value) -> bool {
    ["Succeeded", "Failed", "Pending"].contains(&text(pod, "/status/phase")) || is_terminating(pod)
}

/// Whether it matters that nobody writes the pod between look and deletion: one that didn't begin may begin.
pub(crate) fn may_become_ready(pod: &Value) -> bool {
    !["Succeeded", "Failed"].contains(&text(pod, "/status/phase")) && !is_terminating(pod)
}

fn is_terminating(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

/// Whether the budget is about the pod, which is in its namespace. A budget without a selector, or with an empty one, is
/// about none.
pub(crate) fn covers(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    let Ok(selector) = LabelSelector::from_object(Some(selector).filter(|selector| !selector.is_null())) else {
        return false;
    };
    let label = |key: &str| pod["metadata"]["labels"][key].as_str();
    !selector.is_nothing() && !selector.requirements().is_empty() && selector.matches(label)
}

/// What the budgets over a pod say.
///
/// # Errors
/// 500 for several of them.
pub(crate) fn verdict(pod: &Value, budgets: &[Value]) -> Result<Verdict, Status> {
    let budget = match budgets {
        [] => return Ok(Verdict::Free),
        [budget] => budget,
        _ => {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::failure(500, Reason::Unknown, why));
        }
    };
    if !conditions::is_true(pod, "Ready") {
        let (healthy, desired) = (number(budget, "/status/currentHealthy"), number(budget, "/status/desiredHealthy"));
        let enough = healthy >= desired && desired > 0;
        if enough || text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow" {
            return Ok(Verdict::Unhealthy);
        }
    }
    Ok(Verdict::Charge)
}

/// The budget with one more pod disrupted.
///
/// # Errors
/// 429 if it allows none, or if its controller is behind; 403 if its status is nonsense.
pub(crate) fn charge(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, Status> {
    let name = text(budget, "/metadata/name");
    if number(budget, "/status/observedGeneration") < number(budget, "/metadata/generation") {
        return Err(behind(name));
    }
    let about = Qualified::new("policy", "poddisruptionbudget");
    let allowed = number(budget, "/status/disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(about, name, "pdb disruptions allowed is negative"));
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(about, name, why));
    }
    if allowed == 0 {
        let (desired, healthy) = (number(budget, "/status/desiredHealthy"), number(budget, "/status/currentHealthy"));
        let why = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(refusal(0, why));
    }
    let mut charged = budget.clone();
    charged["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if allowed == 1 {
        set_insufficient(&mut charged, now);
    }
    map_mut(&mut charged["status"], "disruptedPods").insert(pod.to_owned(), json!(conditions::time(now)));
    Ok(charged)
}

/// 429: the controller of the budget has to look first.
pub(crate) fn behind(name: &str) -> Status {
    refusal(RETRY_SECONDS, format!("The disruption budget {name} is still being processed by the server."))
}

fn refusal(retry_after_seconds: i32, why: String) -> Status {
    Status::too_many_requests(REFUSED, retry_after_seconds).with_cause(Cause::new(CauseKind::DisruptionBudget, why, ""))
}

fn set_insufficient(budget: &mut Value, now: Timestamp) {
    let generation = number(budget, "/status/observedGeneration");
    let kept = (!conditions::is_true(budget, "DisruptionAllowed"))
        .then(|| find_condition(budget).map(|one| text(one, "/lastTransitionTime").to_owned()))
        .flatten();
    let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "observedGeneration": generation, "lastTransitionTime": kept.unwrap_or_else(|| conditions::time(now))});
    let list = map_mut(budget, "status").entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|one| text(one, "/type") == "DisruptionAllowed") {
        Some(place) => *place = condition,
        None => list.push(condition),
    }
}

fn find_condition(budget: &Value) -> Option<&Value> {
    let list = crate::special::read::items(budget, "/status/conditions");
    list.iter().find(|one| text(one, "/type") == "DisruptionAllowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2025-01-02T03:04:05Z".parse().expect("time")
    }

    fn pod(ready: &str) -> Value {
        json!({"metadata": {"name": "p", "labels": {"app": "x"}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app": "x"}}}, "status": status})
    }

    #[test]
    fn which_budgets_are_about_a_pod() {
        for (selector, expected) in [
            (json!({"matchLabels": {"app": "x"}}), true),
            (json!({"matchLabels": {"app": "y"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true),
            (json!({}), false),
            (Value::Null, false),
            (json!({"matchExpressions": [{"key": "app", "operator": "Nonsense"}]}), false),
        ] {
            assert_eq!(covers(&json!({"spec": {"selector": selector}}), &pod("True")), expected, "{selector}");
        }
    }

    #[test]
    fn verdicts() {
        let calm = json!({"currentHealthy": 3, "desiredHealthy": 3});
        let short = json!({"currentHealthy": 2, "desiredHealthy": 3});
        let mut always = budget(short.clone());
        always["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        for (pod, budgets, expected) in [
            (pod("True"), vec![], Verdict::Free),
            (pod("True"), vec![budget(calm.clone())], Verdict::Charge),
            (pod("False"), vec![budget(calm)], Verdict::Unhealthy),
            (pod("False"), vec![budget(short)], Verdict::Charge),
            (pod("False"), vec![always.clone()], Verdict::Unhealthy),
            (pod("True"), vec![always], Verdict::Charge),
        ] {
            assert_eq!(verdict(&pod, &budgets), Ok(expected));
        }
        let several = verdict(&pod("True"), &[budget(json!({})), budget(json!({}))]).expect_err("several");
        assert_eq!((several.code, several.reason), (500, Reason::Unknown));
    }

    #[test]
    fn a_charge_is_written_down() {
        let before = budget(json!({"observedGeneration": 2, "disruptionsAllowed": 1, "conditions": [
            {"type": "DisruptionAllowed", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}));
        let after = charge(&before, "p", now()).expect("allowed");
        assert_eq!(
            after["status"],
            json!({"observedGeneration": 2, "disruptionsAllowed": 0,
            "disruptedPods": {"p": "2025-01-02T03:04:05Z"}, "conditions": [{"type": "DisruptionAllowed",
            "status": "False", "reason": "InsufficientPods", "message": "", "observedGeneration": 2,
            "lastTransitionTime": "2025-01-02T03:04:05Z"}]})
        );
    }

    #[test]
    fn refusals() {
        for (status, code, retry, cause) in [
            (
                json!({"observedGeneration": 2, "desiredHealthy": 3, "currentHealthy": 3}),
                429,
                None,
                Some("The disruption budget b needs 3 healthy pods and has 3 currently"),
            ),
            (
                json!({"observedGeneration": 1, "disruptionsAllowed": 1}),
                429,
                Some(10),
                Some("The disruption budget b is still being processed by the server."),
            ),
            (json!({"observedGeneration": 2, "disruptionsAllowed": -1}), 403, None, None),
        ] {
            let refused = charge(&budget(status), "p", now()).expect_err("refused");
            assert_eq!((refused.code, refused.retry_after_seconds()), (code, retry));
            let Some(message) = cause else { continue };
            let details = refused.details.expect("details");
            assert_eq!(details.causes, [Cause::new(CauseKind::DisruptionBudget, message, "")]);
        }
    }
}
