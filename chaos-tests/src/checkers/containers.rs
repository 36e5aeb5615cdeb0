//! What the container runtime was asked to do, against what it should have been.

use std::collections::{BTreeMap, BTreeSet};

use crate::fakes::cri::{End, Life, Step};

/// The name of containers that may be started once for each pod, as their pods are never to restart them.
pub const ONCE: &str = "once";

/// What became of the last container of a name in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Runs,
    Ended(End),
}

/// What is wrong. Pods whose uids are `kept` were never to go.
#[must_use]
pub fn check(lives: &[Life], kept: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut last: BTreeMap<(&str, &str), Last> = BTreeMap::new();
    for Life { at, pod, name, id, step } in lives {
        let who = || format!("{name} of pod {pod} ({id}) at {} ms", at.as_nanos() / 1_000_000);
        let before = last.get(&(pod.as_str(), name.as_str())).copied();
        match (step, before) {
            (Step::Started, None) | (Step::Ended(_), Some(Last::Runs)) => {}
            (Step::Started, Some(Last::Runs)) => findings.push(format!("{} runs twice", who())),
            (Step::Started, Some(Last::Ended(End::Told))) => {
                findings.push(format!("{} was started again after it was told to end", who()));
            }
            (Step::Started, Some(Last::Ended(End::ByItself(code)))) if name == ONCE => {
                findings.push(format!("{} was started again after it had ended with {code}", who()));
            }
            (Step::Started, Some(Last::Ended(End::ByItself(_)))) => {}
            (Step::Ended(_), None | Some(Last::Ended(_))) => findings.push(format!("{} ended, and didn't run", who())),
        }
        if *step == Step::Ended(End::Told) && kept.contains(pod) {
            findings.push(format!("{} was told to end, and its pod is there yet", who()));
        }
        let now = match step {
            Step::Started => Last::Runs,
            Step::Ended(end) => Last::Ended(*end),
        };
        last.insert((pod, name), now);
    }
    findings
}

#[cfg(test)]
mod tests {
    use k3sd_runtime::Moment;

    use super::*;

    fn found(name: &str, kept: bool, steps: &[Step]) -> Vec<String> {
        let life = |(number, step): (usize, &Step)| Life {
            at: Moment::START,
            pod: "u".to_owned(),
            name: name.to_owned(),
            id: number.to_string(),
            step: *step,
        };
        let lives: Vec<Life> = steps.iter().enumerate().map(life).collect();
        let kept = if kept { BTreeSet::from(["u".to_owned()]) } else { BTreeSet::new() };
        check(&lives, &kept)
    }

    #[test]
    fn starts_and_ends_that_nobody_asked_for_are_found() {
        let (start, told, by_itself) = (Step::Started, Step::Ended(End::Told), Step::Ended(End::ByItself(1)));
        assert_eq!(found("c", true, &[start, by_itself, start]), Vec::<String>::new());
        assert_eq!(found("c", false, &[start, told]), Vec::<String>::new());
        for (name, kept, steps, what) in [
            ("c", false, vec![start, start], "runs twice"),
            ("c", false, vec![start, told, start], "after it was told to end"),
            ("c", true, vec![start, told], "its pod is there yet"),
            (ONCE, false, vec![start, by_itself, start], "after it had ended with 1"),
            ("c", false, vec![told], "didn't run"),
        ] {
            let findings = found(name, kept, &steps);
            assert!(findings.iter().any(|finding| finding.contains(what)), "{what}: {findings:?}");
        }
    }
}
