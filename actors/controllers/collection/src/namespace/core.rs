//! What is said about a namespace that goes: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How long a namespace that goes is left alone where other servers write too: what they let into it before they learned
/// that it goes is there by then. Upstream's.
const OTHERS_DELAY: Duration = Duration::from_secs(5);
/// Seconds that finalizers are given before somebody looks again.
pub const FINALIZER_SECONDS: i64 = 15;

/// What was found when everything was asked to go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Why the resources couldn't all be found.
    pub discovery: Option<String>,
    /// Why some content couldn't be deleted.
    pub failures: Vec<String>,
    /// How many objects are left, by plural and group.
    pub content: BTreeMap<(String, String), usize>,
    /// How many objects have a finalizer, by its name.
    pub finalizers: BTreeMap<String, usize>,
    /// Seconds after which more may be gone; zero if nothing is waited for.
    pub estimate: i64,
}

impl Remains {
    /// Takes in what is left of a resource after its deletion was asked for: the finalizers of each object. `grace` is
    /// what its objects may need to end, in seconds.
    pub fn count(
        &mut self,
        (plural, group): (&str, &str),
        grace: i64,
        namespace: &str,
        left: &[Vec<String>],
        version: &str,
    ) {
        if left.is_empty() {
            return;
        }
        self.content.insert((plural.to_owned(), group.to_owned()), left.len());
        for finalizer in left.iter().flatten() {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        if grace > 0 {
            self.estimate = self.estimate.max(grace);
        } else if left.iter().any(|finalizers| !finalizers.is_empty()) {
            self.estimate = self.estimate.max(FINALIZER_SECONDS);
        } else {
            let resource = format!("{group}/{version}, Resource={plural}");
            self.failures.push(format!("unexpected items still remain in namespace: {namespace} for gvr: {resource}"));
        }
    }

    /// Why the namespace can't go yet and somebody should look again soon.
    pub fn failure(&self) -> Option<String> {
        let all: Vec<&str> = self.discovery.iter().chain(&self.failures).map(String::as_str).collect();
        match &all[..] {
            [] => None,
            [one] => Some((*one).to_owned()),
            several => Some(format!("[{}]", several.join(", "))),
        }
    }

    /// Each type of condition: whether it is so, the reason, and what is said.
    fn conditions(&self) -> [(&'static str, bool, &'static str, String); 5] {
        let joined = |parts: Vec<String>| parts.join(", ");
        let mut failures = self.failures.clone();
        failures.sort();
        let content = self
            .content
            .iter()
            .map(|((plural, group), left)| format!("{plural}.{group} has {left} resource instances"));
        let mut content: Vec<String> = content.collect();
        content.sort();
        let finalizers =
            self.finalizers.iter().map(|(finalizer, left)| format!("{finalizer} in {left} resource instances"));
        let finalizers: Vec<String> = finalizers.collect();
        let failed = |failed: bool, kind, reason, text: String, fine: (&'static str, &'static str)| match failed {
            true => (kind, true, reason, text),
            false => (kind, false, fine.0, fine.1.to_owned()),
        };
        [
            failed(
                self.discovery.is_some(),
                "NamespaceDeletionDiscoveryFailure",
                "DiscoveryFailed",
                self.discovery.clone().unwrap_or_default(),
                ("ResourcesDiscovered", "All resources successfully discovered"),
            ),
            // Discovery tells group and version apart; there is nothing to parse.
            failed(
                false,
                "NamespaceDeletionGroupVersionParsingFailure",
                "GroupVersionParsingFailed",
                String::new(),
                ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ),
            failed(
                !failures.is_empty(),
                "NamespaceDeletionContentFailure",
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    failures.len(),
                    joined(failures.clone())
                ),
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            failed(
                !content.is_empty(),
                "NamespaceContentRemaining",
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", joined(content)),
                ("ContentRemoved", "All content successfully removed"),
            ),
            failed(
                !finalizers.is_empty(),
                "NamespaceFinalizersRemaining",
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {}", joined(finalizers)),
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            ),
        ]
    }
}

/// The conditions with what was found; `None` if they say that already.
pub fn conditions(old: &[NamespaceCondition], remains: &Remains, now: Timestamp) -> Option<Vec<NamespaceCondition>> {
    let mut all = old.to_vec();
    for (type_, holds, reason, message) in remains.conditions() {
        let status = if holds { "True" } else { "False" };
        let same_status = all.iter().find(|known| known.type_ == type_ && known.status == status);
        let since = same_status.and_then(|known| known.last_transition_time.clone()).unwrap_or(Time(now));
        let condition = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since),
        };
        match all.iter_mut().find(|known| known.type_ == type_) {
            Some(known) => *known = condition,
            None => all.push(condition),
        }
    }
    (all != old).then_some(all)
}

/// What is said when some servers don't tell which resources they have.
pub fn discovery_failure(missing: &[String]) -> Option<String> {
    let each: Vec<String> =
        missing.iter().map(|version| format!("{version}: stale GroupVersion discovery: {version}")).collect();
    let text = || {
        let error = format!("unable to retrieve the complete list of server APIs: {}", each.join(", "));
        format!("Discovery failed for some groups, {} failing: {error}", each.len())
    };
    (!missing.is_empty()).then(text)
}

/// What is left of the time in which what other servers have let in arrives; `None` when it is over. A time of deletion
/// that lies ahead is of a clock that goes wrong, and isn't waited for.
pub fn others_wait(deleted_at: Timestamp, now: Timestamp) -> Option<Duration> {
    let gone = Duration::try_from(now.duration_since(deleted_at)).ok()?;
    OTHERS_DELAY.checked_sub(gone).filter(|left| !left.is_zero())
}

/// How long the pods of a namespace may need to end, in seconds; zero if they should have by now.
pub fn pod_grace<'a>(pods: impl Iterator<Item = &'a Pod>, deleted_at: Timestamp, now: Timestamp) -> i64 {
    let runs = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    };
    let grace = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(0);
    let longest = pods.filter(runs).map(grace).max().unwrap_or(0);
    if now.duration_since(deleted_at).as_secs() >= longest { 0 } else { longest }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn said(remains: &Remains) -> Vec<String> {
        let all = conditions(&[], remains, NOW).expect("all are new");
        all.iter()
            .map(|c| {
                format!("{} {} {}", c.status, c.reason.as_deref().unwrap_or(""), c.message.as_deref().unwrap_or(""))
            })
            .collect()
    }

    #[test]
    fn conditions_have_the_words_of_upstream() {
        assert_eq!(
            said(&Remains::default()),
            [
                "False ResourcesDiscovered All resources successfully discovered",
                "False ParsedGroupVersions All legacy kube types successfully parsed",
                "False ContentDeleted All content successfully deleted, may be waiting on finalization",
                "False ContentRemoved All content successfully removed",
                "False ContentHasNoFinalizers All content-preserving finalizers finished",
            ]
        );
        let mut remains =
            Remains { discovery: discovery_failure(&["metrics.k8s.io/v1beta1".to_owned()]), ..Remains::default() };
        let held = vec!["example.com/hold".to_owned()];
        remains.count(("pods", ""), 30, "a", &[vec![], held.clone()], "v1");
        remains.count(("leases", "coordination.k8s.io"), 0, "a", std::slice::from_ref(&held), "v1");
        assert_eq!((remains.estimate, remains.failures.len()), (30, 0));
        remains.count(("things", "x.io"), 0, "a", &[vec![]], "v1");
        assert_eq!(
            said(&remains),
            [
                "True DiscoveryFailed Discovery failed for some groups, 1 failing: unable to retrieve the complete list of \
                 server APIs: metrics.k8s.io/v1beta1: stale GroupVersion discovery: metrics.k8s.io/v1beta1",
                "False ParsedGroupVersions All legacy kube types successfully parsed",
                "True ContentDeletionFailed Failed to delete all resource types, 1 remaining: unexpected items still remain \
                 in namespace: a for gvr: x.io/v1, Resource=things",
                "True SomeResourcesRemain Some resources are remaining: leases.coordination.k8s.io has 1 resource \
                 instances, pods. has 2 resource instances, things.x.io has 1 resource instances",
                "True SomeFinalizersRemain Some content in the namespace has finalizers remaining: example.com/hold in 2 \
                 resource instances",
            ]
        );
    }

    #[test]
    fn conditions_change_when_something_does() {
        let old = conditions(&[], &Remains::default(), NOW).expect("new");
        let later: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        assert_eq!(conditions(&old, &Remains::default(), later), None);
        let mut remains = Remains::default();
        remains.count(("pods", ""), 5, "a", &[vec![]], "v1");
        let new = conditions(&old, &remains, later).expect("content remains");
        let since = |all: &[NamespaceCondition]| -> Vec<Timestamp> {
            all.iter().map(|condition| condition.last_transition_time.as_ref().expect("set").0).collect()
        };
        assert_eq!(since(&new), [NOW, NOW, NOW, later, NOW]);
    }

    #[test]
    fn what_other_servers_let_in_is_waited_for() {
        let at = |millis: i64| Timestamp::from_millisecond(millis).expect("a time");
        for (now, left) in [(0, Some(5000)), (1500, Some(3500)), (5000, None), (90_000, None), (-1, None)] {
            assert_eq!(others_wait(NOW, at(now)), left.map(Duration::from_millis), "{now}");
        }
    }

    #[test]
    fn pods_that_run_are_given_their_time() {
        let pod = |phase: &str, seconds: i64| -> Pod {
            serde_json::from_value(
                json!({"metadata": {}, "spec": {"containers": [], "terminationGracePeriodSeconds": seconds},
                "status": {"phase": phase}}),
            )
            .expect("a pod")
        };
        let pods = [pod("Running", 30), pod("Succeeded", 300), pod("Pending", 5)];
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("a time");
        assert_eq!(pod_grace(pods.iter(), NOW, at(3)), 30);
        assert_eq!(pod_grace(pods.iter(), NOW, at(30)), 0);
        assert_eq!(pod_grace([].iter(), NOW, at(0)), 0);
    }
}
