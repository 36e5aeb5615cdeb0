//! Whether what the clients of the API server noted can be true of a server that keeps its word.

use std::collections::{BTreeMap, BTreeSet};

use super::client::NoAnswer;
use super::record::{Event, Failure, Mark, Record, Span, State, Strike, Trouble, Watch, Who};

/// How many findings are printed; one fault makes many.
const FINDINGS_MAX: usize = 12;

/// Each change that anybody was told of: at a revision, of which object, to what; `None` is its deletion.
type Log = BTreeMap<u64, (String, Option<Mark>)>;

/// Judges.
///
/// # Panics
/// When something is wrong.
pub fn judge(record: &Record) {
    let mut findings = check(record);
    let count = findings.len();
    findings.truncate(FINDINGS_MAX);
    assert!(findings.is_empty(), "{count} things are wrong:\n{}", findings.join("\n"));
}

/// Everything that is wrong, for people.
#[must_use]
pub fn check(record: &Record) -> Vec<String> {
    let mut findings = record.findings.clone();
    if record.believed != ours(&record.end) {
        let (believed, end) = (&record.believed, ours(&record.end));
        findings.push(format!("in the end there is {end:?}, and writers were told of {believed:?}"));
    }
    let log = log(record, &mut findings);
    check_writes(record, &log, &mut findings);
    for (number, watch) in record.watches.iter().enumerate() {
        let mut own = Vec::new();
        check_watch(watch, &log, &record.end, &mut own);
        findings.extend(own.into_iter().map(|finding| format!("watcher {number} of {:?}: {finding}", watch.scope)));
    }
    check_failures(record, &mut findings);
    findings
}

/// The objects that the writers own.
fn ours(state: &State) -> State {
    state.iter().filter(|(_, version)| version.mark != 0).map(|(name, version)| (name.clone(), *version)).collect()
}

fn log(record: &Record, findings: &mut Vec<String>) -> Log {
    let mut log = Log::new();
    let mut note = |revision: u64, name: &str, mark: Option<Mark>| {
        let change = (name.to_owned(), mark);
        if let Some(before) = log.insert(revision, change.clone())
            && before != change
        {
            findings.push(format!("revision {revision} is {before:?} for one and {change:?} for another"));
        }
    };
    for write in &record.writes {
        if let (true, Some(revision)) = (write.is_acknowledged, write.revision) {
            note(revision, &write.name, write.mark);
        }
    }
    for event in record.watches.iter().flat_map(|watch| &watch.spans).flat_map(|span| &span.events) {
        match event {
            Event::Bookmark(_) => {}
            Event::Added(name, version) | Event::Modified(name, version) => {
                note(version.revision, name, Some(version.mark));
            }
            Event::Deleted(name, version) => note(version.revision, name, None),
        }
    }
    log
}

/// Every change was asked for, and what one writer did to an object happened in its order: nothing comes back.
fn check_writes(record: &Record, log: &Log, findings: &mut Vec<String>) {
    let asked: BTreeSet<(&str, Mark)> =
        record.writes.iter().filter_map(|write| Some((write.name.as_str(), write.mark?))).collect();
    let mut newest: BTreeMap<&str, Mark> = BTreeMap::new();
    for (revision, (name, mark)) in log {
        let Some(mark) = *mark else { continue };
        if mark == 0 {
            continue;
        }
        if !asked.contains(&(name.as_str(), mark)) {
            findings.push(format!("revision {revision} has {name} with {mark}, which nobody wrote"));
        }
        if newest.insert(name, mark).is_some_and(|before| before >= mark) {
            findings.push(format!("revision {revision} has {name} with {mark} again"));
        }
    }
}

fn check_watch(watch: &Watch, log: &Log, end: &State, findings: &mut Vec<String>) {
    let mut seen = 0;
    let mut state = State::new();
    for span in &watch.spans {
        if span.revision < seen && !span.is_any_age {
            findings.push(format!("a list at {} after {seen}", span.revision));
        }
        if span.revision < span.acknowledged && !span.is_any_age {
            findings.push(format!("a list at {}, and {} was acknowledged", span.revision, span.acknowledged));
        }
        (seen, state) = check_span(watch, span, log, findings);
    }
    let wanted: State =
        end.iter().filter(|(name, _)| watch.scope.has(name)).map(|(name, version)| (name.clone(), *version)).collect();
    if state != wanted {
        findings.push(format!("it ends at {seen} with {state:?} instead of {wanted:?}"));
    }
}

/// Follows a span. Returns how far it came, and what is there then.
fn check_span(watch: &Watch, span: &Span, log: &Log, findings: &mut Vec<String>) -> (u64, State) {
    let mut state = span.list.clone();
    let (mut last, mut revisions) = (span.revision, BTreeSet::new());
    for event in &span.events {
        let revision = event.revision();
        let (is_known, is_wanted) = match event {
            Event::Bookmark(_) => (true, revision >= last),
            Event::Added(name, version) => (state.insert(name.clone(), *version).is_none(), revision > last),
            Event::Modified(name, version) => (state.insert(name.clone(), *version).is_some(), revision > last),
            Event::Deleted(name, _) => (state.remove(name).is_some(), revision > last),
        };
        if !is_known {
            findings.push(format!("{event:?} does not fit what was there before"));
        }
        if !is_wanted {
            findings.push(format!("{event:?} after {last}"));
        }
        last = last.max(revision);
        if !matches!(event, Event::Bookmark(_)) {
            revisions.insert(revision);
        }
    }
    if span.revision < last {
        let missed = log.range(span.revision + 1..=last).filter(|(_, (name, _))| watch.scope.has(name));
        for (revision, change) in missed.filter(|(revision, _)| !revisions.contains(revision)) {
            findings.push(format!("nothing of {change:?} at {revision}, between {} and {last}", span.revision));
        }
    }
    (last, state)
}

/// Each failure is one that a death explains, and honest.
fn check_failures(record: &Record, findings: &mut Vec<String>) {
    for failure in &record.failures {
        let strikes = during(&record.strikes, failure);
        let victims: Vec<&str> = strikes.iter().map(|strike| strike.victim.as_str()).collect();
        let complain = |what: &str| {
            let Failure { who, what: request, trouble, .. } = failure;
            let took = failure.returned.saturating_sub(failure.called) / 1_000_000;
            format!("{what}: {who:?}: {request}: {trouble} after {took} ms, while {victims:?} died")
        };
        match &failure.trouble {
            Trouble::None(NoAnswer::Refused) => findings.push(complain("nobody listened")),
            Trouble::None(NoAnswer::Silence) => findings.push(complain("no answer")),
            Trouble::None(NoAnswer::Cut(_)) => {}
            Trouble::Error(answer) => {
                let is_status = answer.body["kind"] == "Status" && answer.body["code"] == answer.status;
                if !is_status || !matches!(answer.status, 500 | 503 | 504) {
                    findings.push(complain("an odd answer"));
                }
            }
        }
        let is_reader = matches!(failure.who, Who::Reader | Who::Newcomer);
        if !strikes.iter().any(|strike| strike.may_fail && (!is_reader || strike.may_fail_reads)) {
            findings.push(complain("nothing explains a failure"));
        }
    }
}

/// Who died while a request was under way, or last before it.
fn during<'s>(strikes: &'s [Strike], failure: &Failure) -> &'s [Strike] {
    let behind = strikes.partition_point(|strike| strike.began <= failure.returned);
    let from = strikes.partition_point(|strike| strike.began <= failure.called).saturating_sub(1);
    &strikes[from.min(behind)..behind]
}

#[cfg(test)]
mod tests {
    use super::super::record::{Scope, Version, Write};
    use super::*;

    const NAME: &str = "default/chaos-0-0";

    fn version(revision: u64) -> Version {
        Version { revision, mark: revision }
    }

    /// One object, made at 2, changed at 3 and 4, and a watcher that saw all of it.
    fn sound() -> Record {
        let write =
            |mark| Write { name: NAME.to_owned(), mark: Some(mark), is_acknowledged: true, revision: Some(mark) };
        let end = State::from([(NAME.to_owned(), version(4))]);
        let events = vec![
            Event::Added(NAME.to_owned(), version(2)),
            Event::Modified(NAME.to_owned(), version(3)),
            Event::Modified(NAME.to_owned(), version(4)),
        ];
        let span = Span { revision: 1, acknowledged: 1, is_any_age: false, list: State::new(), events };
        let watches = vec![Watch { scope: Scope::All, spans: vec![span] }];
        let writes = (2..=4).map(write).collect();
        Record { writes, watches, believed: end.clone(), end, ..Record::default() }
    }

    fn found(what: &str, spoil: impl FnOnce(&mut Record)) {
        let mut record = sound();
        assert_eq!(check(&record), Vec::<String>::new());
        spoil(&mut record);
        let findings = check(&record);
        assert!(findings.iter().any(|finding| finding.contains(what)), "{findings:?}");
    }

    #[test]
    fn what_a_watcher_was_told_wrong_is_found() {
        found("nothing of", |record| drop(record.watches[0].spans[0].events.remove(1)));
        found("after 3", |record| {
            let again = record.watches[0].spans[0].events[1].clone();
            record.watches[0].spans[0].events.insert(2, again);
        });
        found("after 4", |record| record.watches[0].spans[0].events.swap(1, 2));
        found("it ends at 3", |record| drop(record.watches[0].spans[0].events.pop()));
        found("a list at 1, and 3", |record| record.watches[0].spans[0].acknowledged = 3);
    }

    #[test]
    fn a_write_that_is_lost_or_comes_back_is_found() {
        found("in the end there is", |record| record.end.clear());
        found("which nobody wrote", |record| drop(record.writes.pop()));
        found("again", |record| {
            let late = Version { revision: 5, mark: 2 };
            record.watches[0].spans[0].events.push(Event::Modified(NAME.to_owned(), late));
        });
    }

    #[test]
    fn a_failure_that_no_death_explains_is_found() {
        let failure = |trouble| Failure { who: Who::Writer, what: "GET /".to_owned(), called: 5, returned: 6, trouble };
        let strike = |may_fail| Strike { victim: "x".to_owned(), may_fail, may_fail_reads: false, began: 1 };
        let cut = || Trouble::None(NoAnswer::Cut("x".to_owned()));
        found("nothing explains", |record| record.failures.push(failure(cut())));
        found("nothing explains", |record| {
            record.strikes.push(strike(false));
            record.failures.push(failure(cut()));
        });
        found("nobody listened", |record| {
            record.strikes.push(strike(true));
            record.failures.push(failure(Trouble::None(NoAnswer::Refused)));
        });
        let mut record = sound();
        record.strikes.push(strike(true));
        record.failures.push(failure(cut()));
        assert_eq!(check(&record), Vec::<String>::new());
    }
}
