//! What the node says about itself: ready or not, and short of what.

use jiff::Timestamp;
use k3sd_cri::v1::RuntimeCondition;
use k3sd_runtime::Moment;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::eviction::Pressures;

/// For so long a runtime may be silent.
const RUNTIME_SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// What is known of the container runtime.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeHealth {
    /// When it last answered that it is there.
    pub answered: Option<Moment>,
    /// The problem that it named.
    pub runtime: Option<String>,
    /// The problem of its network.
    pub network: Option<String>,
}

impl RuntimeHealth {
    /// Takes in an answer to CRI's `Status`.
    pub fn heard(&mut self, conditions: &[RuntimeCondition], now: Moment) {
        let problem = |type_: &str, what: &str| match conditions.iter().find(|condition| condition.r#type == type_) {
            Some(found) if found.status => None,
            Some(found) => {
                let (reason, message) = (&found.reason, &found.message);
                Some(format!("{what}: {type_}=false reason:{reason} message:{message}"))
            }
            None => Some(format!("{what}: {type_}=false reason: message:")),
        };
        self.network = problem("NetworkReady", "container runtime network not ready");
        self.runtime = problem("RuntimeReady", "container runtime not ready");
        // A runtime that isn't ready does without the rest of the looks.
        if self.runtime.is_none() {
            self.answered = Some(now);
        }
    }

    /// What keeps the node from being ready, in upstream's words and order.
    #[must_use]
    pub fn problems(&self, now: Moment) -> Vec<String> {
        let mut all = Vec::new();
        match self.answered {
            None => all.push("container runtime status check may not have completed yet".to_owned()),
            Some(answered) if now.since(answered) > RUNTIME_SILENCE_MAX => {
                all.push("container runtime is down".to_owned());
            }
            Some(_) => {}
        }
        all.extend(self.runtime.clone());
        all.extend(self.network.clone());
        all
    }
}

/// Errors as Go joins them: one as it is, several in brackets, none twice.
#[must_use]
pub fn joined(problems: &[String]) -> Option<String> {
    let mut distinct: Vec<&str> = Vec::new();
    for problem in problems {
        if !distinct.contains(&problem.as_str()) {
            distinct.push(problem);
        }
    }
    match distinct[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        _ => Some(format!("[{}]", distinct.join(", "))),
    }
}

/// A time as the API has it, to the second.
pub(crate) fn time(wall: Timestamp) -> Time {
    Time(Timestamp::from_second(wall.as_second()).unwrap_or(wall))
}

/// The four conditions, in upstream's order. The time of a change is that of the condition before, if it said the same.
#[must_use]
pub fn conditions(
    before: &[NodeCondition],
    pressures: Pressures,
    problems: &[String],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let pressure = |type_: &str, is: bool, under: (&str, &str), without: (&str, &str)| {
        let (reason, message) = if is { under } else { without };
        condition(before, type_, is, reason, message.to_owned(), now)
    };
    let trouble = joined(problems);
    let (is_ready, reason) = if trouble.is_none() { (true, "KubeletReady") } else { (false, "KubeletNotReady") };
    let message = trouble.unwrap_or_else(|| "kubelet is posting ready status".to_owned());
    vec![
        pressure(
            "MemoryPressure",
            pressures.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            pressures.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            pressures.pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        condition(before, "Ready", is_ready, reason, message, now),
    ]
}

fn condition(
    before: &[NodeCondition],
    type_: &str,
    is: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) -> NodeCondition {
    let status = if is { "True" } else { "False" };
    let same = before.iter().find(|other| other.type_ == type_ && other.status == status);
    let since = same.and_then(|other| other.last_transition_time.clone()).unwrap_or_else(|| time(now));
    NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(time(now)),
        last_transition_time: Some(since),
    }
}

/// The events that say what is another than before: each a reason. As upstream, none at the first look.
#[must_use]
pub fn changes(before: &[NodeCondition], now: &[NodeCondition]) -> Vec<&'static str> {
    let rows = [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ];
    let status = |all: &[NodeCondition], type_: &str| {
        all.iter().find(|condition| condition.type_ == type_).map(|condition| condition.status.clone())
    };
    let change = |&(type_, when_true, when_false): &(&str, &'static str, &'static str)| {
        let (old, new) = (status(before, type_), status(now, type_)?);
        if old.as_ref() == Some(&new) || (old.is_none() && type_ == "Ready") {
            return None;
        }
        Some(if new == "True" { when_true } else { when_false })
    };
    rows.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seconds(seconds: u64) -> Moment {
        Moment::START + std::time::Duration::from_secs(seconds)
    }

    fn cri(type_: &str, status: bool, message: &str) -> RuntimeCondition {
        let reason = if status { "" } else { "NetworkPluginNotReady" };
        RuntimeCondition { r#type: type_.to_owned(), status, reason: reason.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn a_runtime_is_healthy_silent_or_in_trouble() {
        let mut health = RuntimeHealth::default();
        assert_eq!(health.problems(seconds(0)), ["container runtime status check may not have completed yet"]);
        health.heard(&[cri("RuntimeReady", true, ""), cri("NetworkReady", true, "")], seconds(10));
        assert!(health.problems(seconds(40)).is_empty());
        assert_eq!(health.problems(seconds(41)), ["container runtime is down"]);
        health.heard(&[cri("RuntimeReady", true, ""), cri("NetworkReady", false, "cni is away")], seconds(50));
        let network =
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni is away";
        assert_eq!(health.problems(seconds(50)), [network]);
        health.heard(&[], seconds(60));
        assert_eq!(health.problems(seconds(60)).len(), 2);
    }

    #[test]
    fn problems_are_joined_as_go_does() {
        let rows: [(&[&str], Option<&str>); 4] =
            [(&[], None), (&["a"], Some("a")), (&["a", "a"], Some("a")), (&["a", "b"], Some("[a, b]"))];
        for (problems, expected) in rows {
            let problems: Vec<String> = problems.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(joined(&problems).as_deref(), expected);
        }
    }

    #[test]
    fn a_change_is_dated_and_told_of() {
        let good = conditions(&[], Pressures::default(), &[], at(100));
        let types: Vec<_> = good.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
        assert_eq!(good[3].message.as_deref(), Some("kubelet is posting ready status"));
        assert_eq!(changes(&[], &good), ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"]);
        let pressures = Pressures { disk: true, ..Pressures::default() };
        let bad = conditions(&good, pressures, &["broken".to_owned()], at(200));
        assert_eq!(changes(&good, &bad), ["NodeHasDiskPressure", "NodeNotReady"]);
        let transition = |index: usize| bad[index].last_transition_time.clone().unwrap().0.as_second();
        assert_eq!((transition(0), transition(1), transition(3)), (100, 200, 200));
        assert_eq!((bad[3].reason.as_deref(), bad[3].message.as_deref()), (Some("KubeletNotReady"), Some("broken")));
        assert_eq!(bad[0].last_heartbeat_time.clone().unwrap().0.as_second(), 200);
    }
}
