//! Whether each watcher was told of every change of its keys once and in order, over all the streams it had, or was told
//! that some are gone.

use std::collections::BTreeMap;

use crate::history::{Event, History, Nanos, Revision, Seen, Watch};

/// What a watcher was told, and when.
pub(crate) fn events(watch: &Watch) -> impl Iterator<Item = (&Event, Nanos)> {
    watch.seen.iter().filter_map(|seen| match seen {
        Seen::Event(event, time) => Some((event, *time)),
        _ => None,
    })
}

/// Compares every watcher with the log of all of them.
pub(crate) fn check(history: &History, log: &BTreeMap<Revision, Event>, findings: &mut Vec<String>) {
    for watch in &history.watches {
        let mut follower = Follower { watch, log, next: None, findings };
        for seen in &watch.seen {
            follower.take(seen);
        }
        if let (true, Some(next)) = (watch.to_the_end, follower.next) {
            follower.passed(next, history.end_revision);
        }
    }
}

/// One watcher's way through the log.
struct Follower<'h> {
    watch: &'h Watch,
    log: &'h BTreeMap<Revision, Event>,
    /// The first revision that it has not been told of yet.
    next: Option<Revision>,
    findings: &'h mut Vec<String>,
}

impl Follower<'_> {
    fn complain(&mut self, what: &str) {
        self.findings.push(format!("watch {}: {what}", self.watch.name));
    }

    fn take(&mut self, seen: &Seen) {
        match *seen {
            Seen::Asked { from } => match self.next {
                // Who asks again for what it has, or leaves something out, is not the store's fault but the test's.
                Some(next) if from != next => self.complain(&format!("asked from {from} instead of {next}")),
                _ => self.next = Some(from),
            },
            Seen::Event(event, _) => {
                let Some(next) = self.next else { return self.complain("was told without asking") };
                let revision = event.revision;
                if revision < next {
                    self.complain(&format!("was told of {revision}, and had everything before {next}"));
                } else if !self.watch.follows(event.key) {
                    self.complain(&format!("was told of another key: {event:?}"));
                } else {
                    self.passed(next, revision - 1);
                    self.next = Some(revision + 1);
                }
            }
            Seen::Progress(revision) => {
                let Some(next) = self.next else { return self.complain("was told without asking") };
                // It may be told again what it knows, in particular just after it asked.
                if revision >= next {
                    self.passed(next, revision);
                    self.next = Some(revision + 1);
                }
            }
            Seen::Skipped { compacted, to } => {
                let next = self.next.unwrap_or_default();
                if compacted < next {
                    self.complain(&format!("was refused {next} though only what is before {compacted} is gone"));
                }
                self.next = Some(to + 1);
            }
        }
    }

    /// It was told of nothing in this range of revisions, so there should be nothing.
    fn passed(&mut self, from: Revision, to: Revision) {
        if from > to {
            return;
        }
        let missed = self.log.range(from..=to).find(|(_, event)| self.watch.follows(event.key));
        if let Some((_, event)) = missed {
            self.complain(&format!("was not told of {event:?}"));
        }
    }
}
