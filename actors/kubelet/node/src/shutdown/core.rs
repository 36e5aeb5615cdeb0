//! Who has to end when, and how long it may take: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::KubeletConfiguration;

/// From this priority on a pod counts as critical: that of `system-cluster-critical`.
const CRITICAL: i32 = 2_000_000_000;

/// How long pods from one priority up to the next have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The lowest priority that it is for.
    pub priority: i32,
    /// How long they have.
    pub grace: Duration,
}

/// A pod that has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Its uid on this node.
    pub uid: String,
    /// How long it has, in seconds.
    pub grace_seconds: i64,
}

/// Pods that end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How long they are waited for.
    pub grace: Duration,
    /// The pods.
    pub pods: Vec<Ends>,
}

/// What a configuration asks for, the lowest priority first; nothing if the machine's end is nothing to it.
#[must_use]
pub fn periods(config: &KubeletConfiguration) -> Vec<Period> {
    let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if !config.shutdown_grace_period_by_pod_priority.is_empty() {
        let rows = config.shutdown_grace_period_by_pod_priority.iter();
        let mut periods: Vec<Period> = rows
            .map(|row| Period { priority: row.priority, grace: seconds(row.shutdown_grace_period_seconds) })
            .collect();
        periods.sort_by_key(|period| period.priority);
        return periods;
    }
    let (all, critical) = (config.shutdown_grace_period, config.shutdown_grace_period_critical_pods);
    match all.checked_sub(critical).filter(|_| !all.is_zero()) {
        Some(others) => {
            vec![Period { priority: 0, grace: others }, Period { priority: CRITICAL, grace: critical }]
        }
        None => Vec::new(),
    }
}

/// How long all of it takes at most.
#[must_use]
pub fn total(periods: &[Period]) -> Duration {
    periods.iter().map(|period| period.grace).sum()
}

/// The order in which pods end: those of the lowest priorities first, each within its own grace or that of its group,
/// whichever is shorter. `pods` are uid, priority and grace in seconds.
#[must_use]
pub fn groups(periods: &[Period], pods: impl IntoIterator<Item = (String, i32, i64)>) -> Vec<Group> {
    let mut by_period: BTreeMap<usize, Vec<Ends>> = BTreeMap::new();
    for (uid, priority, own) in pods {
        // Who is below all of them is among the lowest.
        let at = periods.iter().rposition(|period| period.priority <= priority).unwrap_or(0);
        let Some(period) = periods.get(at) else { continue };
        let most = i64::try_from(period.grace.as_secs()).unwrap_or(i64::MAX);
        by_period.entry(at).or_default().push(Ends { uid, grace_seconds: own.min(most) });
    }
    by_period.into_iter().map(|(at, pods)| Group { grace: periods[at].grace, pods }).collect()
}

/// The setting that has logind wait for so long, as its file has it.
#[must_use]
pub(super) fn login_settings(total: Duration) -> String {
    let seconds = total.as_secs() + u64::from(total.subsec_nanos() > 0);
    format!("# Written by the kubelet: pods need this long to end.\n[Login]\nInhibitDelayMaxSec={seconds}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ShutdownPeriod;

    fn period(priority: i32, seconds: u64) -> Period {
        Period { priority, grace: Duration::from_secs(seconds) }
    }

    #[test]
    fn settings_become_periods() {
        let off = KubeletConfiguration::default();
        assert_eq!(periods(&off), []);
        let seconds = Duration::from_secs;
        let two = KubeletConfiguration {
            shutdown_grace_period: seconds(30),
            shutdown_grace_period_critical_pods: seconds(10),
            ..KubeletConfiguration::default()
        };
        assert_eq!(periods(&two), [period(0, 20), period(CRITICAL, 10)]);
        assert_eq!(total(&periods(&two)), seconds(30));
        let row = |priority, seconds| ShutdownPeriod { priority, shutdown_grace_period_seconds: seconds };
        let many = KubeletConfiguration {
            shutdown_grace_period_by_pod_priority: vec![row(100, 5), row(0, 60), row(-10, 7)],
            ..KubeletConfiguration::default()
        };
        assert_eq!(periods(&many), [period(-10, 7), period(0, 60), period(100, 5)]);
    }

    #[test]
    fn the_least_important_go_first_and_nobody_has_more_than_its_group() {
        let periods = [period(0, 20), period(100, 5), period(CRITICAL, 10)];
        let pods = [
            ("low", -1, 30),
            ("plain", 0, 3),
            ("middle", 99, 30),
            ("high", 100, 30),
            ("critical", CRITICAL + 1000, 30),
        ];
        let found = groups(&periods, pods.map(|(uid, priority, own)| (uid.to_owned(), priority, own)));
        let shown: Vec<(u64, Vec<(&str, i64)>)> = found
            .iter()
            .map(|group| {
                let pods = group.pods.iter().map(|pod| (pod.uid.as_str(), pod.grace_seconds));
                (group.grace.as_secs(), pods.collect())
            })
            .collect();
        let expected = vec![
            (20, vec![("low", 20), ("plain", 3), ("middle", 20)]),
            (5, vec![("high", 5)]),
            (10, vec![("critical", 10)]),
        ];
        assert_eq!(shown, expected);
        assert_eq!(groups(&periods, []), [], "nobody is waited for");
        assert_eq!(groups(&[], [("a".to_owned(), 0, 1)]), []);
    }

    #[test]
    fn logind_is_told_in_whole_seconds() {
        assert!(login_settings(Duration::from_millis(1500)).ends_with("[Login]\nInhibitDelayMaxSec=2\n"));
    }
}
