//! A right history passes; changed in one place, it does not.

use super::*;
use crate::history::{Seen, Watch};
use crate::testbed::Testbed;

/// Applies a change to many histories. All where it applied have to be found, with these words in what is found.
fn found(words: &str, mut change: impl FnMut(&mut History) -> Option<()>) {
    let mut made = 0;
    for seed in 0..100 {
        let mut history = Testbed::run(seed, 80);
        if change(&mut history).is_none() {
            continue;
        }
        made += 1;
        let findings = check(&history);
        assert!(findings.iter().any(|finding| finding.contains(words)), "seed {seed}: {words:?} not in {findings:#?}");
    }
    assert!(made > 50, "it could be made only {made} times");
}

/// The place of an event in the middle of a watch.
fn middle(watch: &Watch) -> Option<usize> {
    let events: Vec<usize> =
        (0..watch.seen.len()).filter(|place| matches!(watch.seen[*place], Seen::Event(..))).collect();
    (events.len() > 4).then(|| events[events.len() / 2])
}

/// An acknowledged write in the middle.
fn acknowledged(history: &mut History) -> Option<&mut Operation> {
    let count = history.operations.len();
    history.operations[count / 3..].iter_mut().find(|operation| matches!(operation.outcome, Outcome::Written { .. }))
}

#[test]
fn right_histories_pass() {
    for seed in 0..200 {
        assert_eq!(check(&Testbed::run(seed, 150)), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn an_event_that_one_watcher_missed_is_found() {
    for watch in [0, 1] {
        found("was not told of", |history| {
            // Of the key that both follow.
            let place = middle(&history.watches[1])?;
            let Seen::Event(event, _) = history.watches[1].seen[place] else { return None };
            let seen = &mut history.watches[watch].seen;
            seen.retain(|seen| !matches!(seen, Seen::Event(other, _) if other.revision == event.revision));
            Some(())
        });
    }
}

#[test]
fn an_event_that_all_watchers_missed_is_found() {
    found("nobody was told of revision", |history| {
        let place = middle(&history.watches[0])?;
        let Seen::Event(event, _) = history.watches[0].seen[place] else { return None };
        for watch in &mut history.watches {
            watch.seen.retain(|seen| !matches!(seen, Seen::Event(other, _) if other.revision == event.revision));
        }
        Some(())
    });
}

#[test]
fn an_event_that_comes_twice_or_late_is_found() {
    found("and had everything before", |history| {
        let place = middle(&history.watches[0])?;
        let seen = history.watches[0].seen[place];
        history.watches[0].seen.insert(place, seen);
        Some(())
    });
    found("and had everything before", |history| {
        let seen = &mut history.watches[0].seen;
        let place = (0..seen.len() - 1)
            .find(|place| matches!((seen[*place], seen[place + 1]), (Seen::Event(..), Seen::Event(..))))?;
        seen.swap(place, place + 1);
        Some(())
    });
}

#[test]
fn watchers_that_disagree_are_found() {
    found("where another saw", |history| {
        let place = middle(&history.watches[1])?;
        let Seen::Event(event, _) = &mut history.watches[1].seen[place] else { return None };
        event.prev = event.prev.map_or(event.now, |_| None);
        Some(())
    });
}

#[test]
fn a_wrong_previous_value_is_found() {
    found("the log has", |history| {
        let place = middle(&history.watches[0])?;
        let Seen::Event(target, _) = history.watches[0].seen[place] else { return None };
        for watch in &mut history.watches {
            for seen in &mut watch.seen {
                if let Seen::Event(event, _) = seen
                    && event.revision == target.revision
                {
                    event.prev = event.prev.map_or(event.now, |_| None);
                }
            }
        }
        Some(())
    });
}

#[test]
fn a_progress_that_promises_too_much_is_found() {
    found("and had everything before", |history| {
        let place = middle(&history.watches[0])?;
        let Seen::Event(event, _) = history.watches[0].seen[place] else { return None };
        history.watches[0].seen.insert(place, Seen::Progress(event.revision));
        Some(())
    });
}

#[test]
fn an_acknowledged_write_that_is_gone_is_found() {
    found("acknowledged, and no watcher was told", |history| {
        let operation = acknowledged(history)?;
        let revision = operation.revision()?;
        for watch in &mut history.watches {
            watch.seen.retain(|seen| !matches!(seen, Seen::Event(event, _) if event.revision == revision));
        }
        Some(())
    });
}

#[test]
fn a_revision_that_is_given_twice_is_found() {
    found("was given twice", |history| {
        let revision = acknowledged(history)?.revision()?;
        let other = history.operations.iter_mut().rev().find(|operation| {
            matches!(operation.outcome, Outcome::Written { .. }) && operation.revision() != Some(revision)
        })?;
        let Outcome::Written { revision: place, .. } = &mut other.outcome else { return None };
        *place = revision;
        Some(())
    });
}

#[test]
fn a_write_that_was_refused_and_happened_is_found() {
    found("it was told that nothing was changed", |history| {
        acknowledged(history)?.outcome = Outcome::Refused { reason: "no".to_owned() };
        let put = history.operations.iter().any(|operation| {
            matches!((&operation.action, &operation.outcome), (Action::Put { .. }, Outcome::Refused { .. }))
        });
        put.then_some(())
    });
}

#[test]
fn a_change_that_nobody_asked_for_is_found() {
    found("nobody asked for", |history| {
        let revision = acknowledged(history)?.revision()?;
        history.operations.retain(|operation| {
            let vague = matches!(operation.action, Action::Delete { .. }) && operation.revision().is_none();
            operation.revision() != Some(revision) && !vague
        });
        Some(())
    });
}

#[test]
fn a_revision_that_goes_back_in_time_is_found() {
    found("was known", |history| {
        let last = history.operations.iter().map(|operation| operation.returned).max()?;
        let operation = acknowledged(history)?;
        (operation.called, operation.returned) = (last + 1_000, last + 1_001);
        Some(())
    });
    found("told before it was asked for", |history| {
        let operation = acknowledged(history)?;
        operation.called += 1_000_000;
        operation.returned += 1_000_000;
        Some(())
    });
}

#[test]
fn a_read_that_does_not_fit_its_revision_is_found() {
    found("at revision", |history| {
        let mut reads = history.operations.iter_mut().filter(|operation| operation.revision() > Some(5));
        let found = reads.find_map(|operation| match &mut operation.outcome {
            Outcome::Read { found: found @ Some(_), .. } => Some(found),
            _ => None,
        })?;
        *found = None;
        Some(())
    });
}

#[test]
fn a_watcher_that_is_sent_away_is_only_believed_when_history_is_gone() {
    let mut history = Testbed::run(3, 80);
    let end = history.end_revision;
    let skip =
        |compacted| vec![Seen::Asked { from: 5 }, Seen::Skipped { compacted, to: end }, Seen::Asked { from: end + 1 }];
    let sent = Watch { name: "sent".to_owned(), key: None, seen: skip(5), to_the_end: true };
    history.watches.push(sent);
    assert_eq!(check(&history), Vec::<String>::new());
    history.watches[2].seen = skip(4);
    assert!(check(&history)[0].contains("only what is before 4 is gone"), "{:?}", check(&history));
}

#[test]
fn a_store_that_ends_with_something_else_is_found() {
    found("the log ends with", |history| history.end.remove(&0).map(drop));
}
