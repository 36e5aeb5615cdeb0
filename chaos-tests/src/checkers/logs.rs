//! Logs of containers as users read them, against what the containers wrote; and what the node tells of itself.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fakes::cri::Greeting;

/// A log that somebody was given while things went wrong.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The pod that it was asked of, by name, in the namespace `default`.
    pub pod: String,
    /// The container.
    pub container: String,
    /// The uids of pods which had this name, and were gone when the log was asked for.
    pub gone: BTreeSet<String>,
    /// What came.
    pub text: String,
}

/// What is wrong with it: all that is there has to be what one container of this name has written, in a pod of this
/// name that isn't gone. Whoever has written nothing yet has an empty log.
#[must_use]
pub fn check_given(given: &Given) -> Vec<String> {
    let Given { pod, container, gone, text } = given;
    let whose = format!("the log of {container} in pod {pod}");
    let mut findings = Vec::new();
    for line in text.lines() {
        match Greeting::parse(line) {
            None => findings.push(format!("{whose} has {line:?}, which nobody wrote")),
            Some(said) if (&*said.namespace, &said.pod, &said.name) != ("default", pod, container) => {
                findings.push(format!("{whose} has another one's line: {line}"));
            }
            Some(said) if gone.contains(&said.uid) => {
                findings.push(format!("{whose} is that of a pod which was gone: {line}"));
            }
            Some(_) => {}
        }
    }
    if text.lines().count() > 1 {
        findings.push(format!("{whose} is that of several: {text:?}"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(format!("{whose} breaks off: {text:?}"));
    }
    findings
}

/// What came of a request, or why nothing did.
pub type Answer = Result<String, String>;

/// What the node tells when all is at rest, to who asks through the API.
#[derive(Clone, Debug)]
pub struct Told {
    /// What each container that runs wrote, and its log.
    pub logs: Vec<(Greeting, Answer)>,
    /// `/healthz`.
    pub health: Answer,
    /// `/stats/summary`.
    pub summary: Answer,
}

/// What is wrong with it: each log ends with what its container wrote, the node is well, and its figures are those of
/// exactly the pods that run.
#[must_use]
pub fn check(told: &Told) -> Vec<String> {
    let mut findings = Vec::new();
    for (said, answer) in &told.logs {
        let whose = format!("the log of {} in pod {}", said.name, said.pod);
        match answer {
            Err(why) => findings.push(format!("{whose} can't be read: {why}")),
            Ok(text) if text.lines().next_back() == Some(&said.to_string()) => {}
            Ok(text) => findings.push(format!("{whose} is {text:?} instead of {said}")),
        }
    }
    if told.health.as_deref() != Ok("ok") {
        findings.push(format!("the node is not well: {:?}", told.health));
    }
    match told.summary.as_deref().map(serde_json::from_str::<Value>) {
        Ok(Ok(summary)) => {
            let pods = summary["pods"].as_array().into_iter().flatten();
            let found: BTreeSet<&str> = pods.filter_map(|pod| pod["podRef"]["uid"].as_str()).collect();
            let wanted: BTreeSet<&str> = told.logs.iter().map(|(said, _)| said.uid.as_str()).collect();
            if found != wanted {
                findings.push(format!("the node's figures are of pods {found:?} instead of {wanted:?}"));
            }
        }
        other => findings.push(format!("the node shows no figures: {other:?}")),
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(pod: &str, uid: &str, name: &str) -> Greeting {
        let [namespace, pod, uid, name] = ["default", pod, uid, name].map(str::to_owned);
        Greeting { namespace, pod, uid, name, attempt: 1, id: "id".to_owned() }
    }

    #[test]
    fn lines_of_others_are_found() {
        let check = |text: String| {
            let gone = BTreeSet::from(["old".to_owned()]);
            check_given(&Given { pod: "p".to_owned(), container: "c".to_owned(), gone, text })
        };
        let own = said("p", "u", "c");
        assert_eq!(Greeting::parse(&own.to_string()), Some(own.clone()));
        assert_eq!(check(String::new()), Vec::<String>::new());
        assert_eq!(check(format!("{own}\n")), Vec::<String>::new());
        for (what, text) in [
            ("nobody wrote", "words\n".to_owned()),
            ("another one's line", format!("{}\n", said("q", "u", "c"))),
            ("another one's line", format!("{}\n", said("p", "u", "d"))),
            ("a pod which was gone", format!("{}\n", said("p", "old", "c"))),
            ("that of several", format!("{own}\n{own}\n")),
            ("breaks off", own.to_string()),
        ] {
            let findings = check(text);
            assert!(findings.iter().any(|finding| finding.contains(what)), "{what}: {findings:?}");
        }
    }

    type Spoil = fn(&mut Told);

    #[test]
    fn whatever_can_not_be_read_at_rest_is_found() {
        let own = said("p", "u", "c");
        let summary = json!({"node": {}, "pods": [{"podRef": {"uid": "u"}}]}).to_string();
        let good = Told {
            logs: vec![(own.clone(), Ok(format!("{}\n{own}\n", said("p", "u", "x"))))],
            health: Ok("ok".to_owned()),
            summary: Ok(summary),
        };
        assert_eq!(check(&good), Vec::<String>::new());
        let spoilt: [(&str, Spoil); 6] = [
            ("can't be read: 500", |told| told.logs[0].1 = Err("500".to_owned())),
            ("instead of default p u c 1 id", |told| told.logs[0].1 = Ok(String::new())),
            ("is not well", |told| told.health = Ok("[-]syncloop failed".to_owned())),
            ("no figures", |told| told.summary = Err("500".to_owned())),
            ("no figures", |told| told.summary = Ok("<html>".to_owned())),
            ("of pods {} instead of {\"u\"}", |told| told.summary = Ok("{\"pods\":[]}".to_owned())),
        ];
        for (what, spoil) in spoilt {
            let mut told = good.clone();
            spoil(&mut told);
            let findings = check(&told);
            assert!(findings.iter().any(|finding| finding.contains(what)), "{what}: {findings:?}");
        }
    }
}
