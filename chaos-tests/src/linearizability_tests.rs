//! Histories of which one can see what they are.

use super::*;
use crate::history::Expected::{Absent, Anything, At};
use crate::testbed::{READ, Testbed, delete, operation, put, read, unknown, version, written};

fn judge(operations: Vec<Operation>) -> Vec<Violation> {
    check(&History { operations, ..History::default() })
}

/// Like [`judge`], for what has to fail: the words of it.
fn wrong(operations: Vec<Operation>) -> String {
    let violations = judge(operations);
    assert!(!violations.is_empty(), "it passes");
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn one_after_the_other() {
    let first = version(1, 10);
    let second = Version { created: 1, ..version(2, 20) };
    let operations = vec![
        operation(0, (0, 1), READ, read(0, None)),
        operation(0, (2, 3), put(Absent, 10), written(1, None)),
        operation(1, (4, 5), READ, read(1, Some(first))),
        operation(1, (6, 7), put(At(1), 20), written(2, Some(first))),
        operation(0, (8, 9), put(At(1), 30), Outcome::Unchanged { at: 2, found: Some(second) }),
        operation(0, (10, 11), delete(At(2)), written(3, Some(second))),
        operation(1, (12, 13), delete(Anything), Outcome::Unchanged { at: 3, found: None }),
        operation(1, (14, 15), READ, read(3, None)),
    ];
    assert_eq!(judge(operations), []);
}

#[test]
fn what_overlaps_may_come_in_either_order() {
    let read_at = |time, found| operation(1, time, READ, read(1, found));
    let write = operation(0, (10, 20), put(Anything, 10), written(1, None));
    for found in [None, Some(version(1, 10))] {
        assert_eq!(judge(vec![write.clone(), read_at((11, 12), found)]), []);
    }
    // But once one has seen it, so does everybody later.
    let (seen, unseen) = (read_at((11, 12), Some(version(1, 10))), read_at((13, 14), None));
    assert!(wrong(vec![write, seen, unseen]).contains("not linearizable"));
}

#[test]
fn a_stale_read_is_found() {
    let operations = vec![
        operation(0, (0, 1), put(Absent, 10), written(1, None)),
        operation(0, (2, 3), put(At(1), 20), written(2, Some(version(1, 10)))),
        operation(1, (4, 5), READ, read(2, Some(version(1, 10)))),
    ];
    let said = wrong(operations);
    assert!(said.contains("none of these can follow\n  client 1"), "{said}");
}

#[test]
fn a_lost_update_is_found() {
    let first = version(1, 10);
    let mut operations = vec![
        operation(0, (0, 1), put(Absent, 10), written(1, None)),
        operation(0, (2, 9), put(At(1), 20), written(2, Some(first))),
        operation(1, (3, 8), put(At(1), 30), written(3, Some(first))),
    ];
    assert!(wrong(operations.clone()).contains("not linearizable"));
    // An acknowledged write that is gone.
    operations.truncate(2);
    operations.push(operation(1, (10, 11), READ, read(2, Some(first))));
    wrong(operations);
}

#[test]
fn a_revision_that_goes_back_or_comes_twice_is_found() {
    let first = version(5, 10);
    let second = |revision| operation(0, (2, 3), put(At(5), 20), written(revision, Some(first)));
    for (revision, fine) in [(6, true), (5, false), (4, false)] {
        let first = operation(0, (0, 1), put(Absent, 10), written(5, None));
        assert_eq!(judge(vec![first, second(revision)]).is_empty(), fine, "{revision}");
    }
    let read_at = |revision| operation(1, (4, 5), READ, read(revision, Some(version(revision, 20))));
    let first = operation(0, (0, 1), put(Absent, 10), written(5, None));
    assert!(wrong(vec![first, second(6), read_at(7)]).contains("seen at revision"));
}

#[test]
fn a_deleted_key_that_is_back_is_found() {
    let first = version(1, 10);
    let operations = vec![
        operation(0, (0, 1), put(Absent, 10), written(1, None)),
        operation(0, (2, 3), delete(At(1)), written(2, Some(first))),
        operation(1, (4, 5), READ, read(2, Some(first))),
    ];
    wrong(operations);
}

#[test]
fn a_write_without_an_answer_may_come_late_or_never() {
    let first = version(1, 10);
    let start = operation(0, (0, 1), put(Absent, 10), written(1, None));
    let vague = operation(0, (2, 3), put(At(1), 20), unknown());
    let later = Version { created: 1, ..version(2, 20) };
    let read_at = |time, found| operation(1, time, READ, read(1, found));
    let history = |tail: &[Operation]| [&[start.clone(), vague.clone()], tail].concat();
    assert_eq!(judge(history(&[read_at((10, 11), Some(first))])), [], "never");
    assert_eq!(judge(history(&[read_at((10, 11), Some(later))])), [], "at once");
    let late = [read_at((10, 11), Some(first)), read_at((100, 101), Some(later))];
    assert_eq!(judge(history(&late)), [], "long after");
    // But not twice, not before it was asked for, and not after its condition no longer holds.
    let gone = [read_at((10, 11), Some(later)), read_at((12, 13), Some(first))];
    wrong(history(&gone));
    let mut early = history(&[]);
    early.push(operation(1, (0, 1), READ, read(2, Some(later))));
    wrong(early);
    let overtaken = operation(2, (4, 5), put(At(1), 30), written(2, Some(first)));
    wrong(history(&[overtaken, read_at((6, 7), Some(Version { revision: 3, ..later }))]));
}

#[test]
fn a_delete_without_an_answer_may_come_late_or_never() {
    let first = version(1, 10);
    let start = operation(0, (0, 1), put(Absent, 10), written(1, None));
    let vague = |client| operation(client, (2, 3), delete(Anything), unknown());
    let read_at = |time, found| operation(1, time, READ, read(1, found));
    assert_eq!(judge(vec![start.clone(), vague(0), read_at((4, 5), None)]), []);
    assert_eq!(judge(vec![start.clone(), vague(0), read_at((4, 5), Some(first)), read_at((6, 7), None)]), []);
    wrong(vec![start.clone(), vague(0), read_at((4, 5), None), read_at((6, 7), Some(first))]);
    // Each of two does it once.
    let again = operation(2, (5, 6), put(Absent, 20), written(3, None));
    let twice = |deletes: usize| {
        let mut all = vec![start.clone(), read_at((4, 5), None), again.clone(), read_at((7, 8), None)];
        all.extend((0..deletes).map(vague));
        judge(all).is_empty()
    };
    assert!(twice(2) && twice(3));
    assert!(!twice(1));
}

#[test]
fn a_condition_that_holds_is_not_refused() {
    let operations = vec![
        operation(0, (0, 1), put(Absent, 10), written(1, None)),
        operation(0, (2, 3), put(At(1), 20), Outcome::Unchanged { at: 1, found: Some(version(1, 10)) }),
    ];
    assert!(wrong(operations).contains("refused though its condition holds"));
}

#[test]
fn lists_are_reads_of_every_key() {
    let list = |time, found: &[(Key, Version)]| {
        let found = found.iter().copied().collect();
        operation(1, time, Action::List { at: None }, Outcome::Listed { at: 1, found })
    };
    let write = operation(0, (0, 1), put(Absent, 10), written(1, None));
    assert_eq!(judge(vec![write.clone(), list((2, 3), &[(0, version(1, 10))])]), []);
    wrong(vec![write, list((2, 3), &[])]);
}

#[test]
fn what_takes_too_long_is_no_pass() {
    let violations = check_within(&Testbed::run(1, 200), 100);
    assert!(violations.iter().all(|violation| matches!(violation, Violation::Undecided { .. })));
    assert_eq!(violations.len(), 2, "{violations:?}");
}

#[test]
fn right_histories_pass_and_long_ones_are_quick() {
    for seed in 0..300 {
        assert_eq!(check(&Testbed::run(seed, 120)), [], "seed {seed}");
    }
    assert_eq!(check(&Testbed::run(0, 20_000)), []);
}

/// Makes a read stale: it shows what the answer of a later write had replaced before the read began.
#[test]
fn one_stale_read_anywhere_is_found() {
    let mut made = 0;
    for seed in 0..300 {
        let mut history = Testbed::run(seed, 120);
        let replaced: Vec<(Nanos, Version)> = history
            .operations
            .iter()
            .filter(|operation| matches!(operation.action, Action::Put { key: 0, .. }))
            .filter_map(|operation| match operation.outcome {
                Outcome::Written { prev: Some(prev), .. } => Some((operation.returned, prev)),
                _ => None,
            })
            .collect();
        let stale = history.operations.iter_mut().find_map(|operation| {
            let Action::Read { key: 0, at: None } = operation.action else { return None };
            let (_, old) = replaced.iter().find(|(returned, _)| *returned < operation.called)?;
            Some((operation, *old))
        });
        let Some((operation, old)) = stale else { continue };
        operation.outcome = read(operation.revision().expect("a read has one"), Some(old));
        made += 1;
        assert!(!check(&history).is_empty(), "seed {seed} passes with {old:?} read late");
    }
    assert!(made > 200, "{made}");
}

/// Says of an acknowledged write that another one came out of it.
#[test]
fn one_wrong_acknowledgement_anywhere_is_found() {
    let mut made = 0;
    for seed in 0..300 {
        let mut history = Testbed::run(seed, 120);
        let target =
            history.operations.iter_mut().find_map(|operation| match (&operation.action, &mut operation.outcome) {
                (Action::Put { expected: At(_), .. }, Outcome::Written { prev: prev @ Some(_), .. }) => Some(prev),
                _ => None,
            });
        let Some(prev) = target else { continue };
        *prev = None;
        made += 1;
        assert!(!check(&history).is_empty(), "seed {seed}");
    }
    assert!(made > 200, "{made}");
}
