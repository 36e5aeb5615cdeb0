//! Which files are due, and when those that failed are tried again: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_runtime::{Backoff, Moment, Rng};

use crate::files::{Found, Look};

/// The waits after a file failed; at most as long as K3s waits between two looks.
const RETRY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(500),
    delay_max: Duration::from_secs(15),
    factor: 2.0,
    jitter: 0.1,
    reset_after: Duration::from_secs(120),
};

/// What is remembered of a file.
#[derive(Debug)]
enum Known {
    /// It was done in this state.
    Done(Found),
    Failed {
        found: Found,
        failures: u32,
        due: Moment,
        /// What was said of it.
        told: String,
    },
}

/// A file to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub path: String,
    /// Whether it is applied even if it is what was applied last: once after the start, since the cluster may be another.
    pub forced: bool,
}

/// What is remembered of all files; it begins anew with each life.
#[derive(Debug, Default)]
pub(super) struct Memory {
    files: BTreeMap<String, Known>,
    /// Files that were done at least once.
    seen: std::collections::BTreeSet<String>,
}

impl Memory {
    /// What of these is to be looked at now, in their order. Files that are gone are forgotten.
    pub(super) fn due(&mut self, look: &Look, now: Moment) -> Vec<Due> {
        self.files.retain(|path, _| look.files.contains_key(path));
        self.seen.retain(|path| look.files.contains_key(path));
        let is_due = |path: &String, found: &Found| match self.files.get(path) {
            None => true,
            Some(Known::Done(known)) => known != found || found.is_timeless(),
            Some(Known::Failed { found: known, due, .. }) => known != found || *due <= now,
        };
        let due = look.files.iter().filter(|(path, found)| is_due(path, found));
        due.map(|(path, _)| Due { path: path.clone(), forced: !self.seen.contains(path) }).collect()
    }

    /// It is as it should be.
    pub(super) fn done(&mut self, path: &str, found: Found) {
        self.seen.insert(path.to_owned());
        self.files.insert(path.to_owned(), Known::Done(found));
    }

    /// It failed; says whether that is news.
    pub(super) fn failed(&mut self, path: &str, found: Found, reason: &str, now: Moment, rng: &mut Rng) -> bool {
        let before = match self.files.get(path) {
            Some(Known::Failed { found: known, failures, told, .. }) if *known == found => Some((*failures, told)),
            _ => None,
        };
        let is_news = before.is_none_or(|(_, told)| told != reason);
        let failures = before.map_or(0, |(failures, _)| failures).saturating_add(1);
        let due = now + RETRY.delay(failures, rng);
        let failed = Known::Failed { found, failures, due, told: reason.to_owned() };
        self.files.insert(path.to_owned(), failed);
        is_news
    }

    /// Whether this reason was given for the file already.
    pub(super) fn was_told(&self, path: &str, reason: &str) -> bool {
        matches!(self.files.get(path), Some(Known::Failed { told, .. }) if told == reason)
    }

    /// When the next file is to be tried again.
    pub(super) fn next_due(&self) -> Option<Moment> {
        let dues = self.files.values().filter_map(|known| match known {
            Known::Failed { due, .. } => Some(*due),
            Known::Done(_) => None,
        });
        dues.min()
    }

    /// The files that failed last, each with why.
    pub(super) fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, known)| match known {
            Known::Failed { told, .. } => Some((path.as_str(), told.as_str())),
            Known::Done(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Stamp;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn look(files: &[(&str, i64)]) -> Look {
        let found = |seconds: i64| Found { stamp: Stamp::of(seconds), removable: true };
        let files = files.iter().map(|(path, seconds)| ((*path).to_owned(), found(*seconds))).collect();
        Look { files, ..Look::default() }
    }

    fn names(due: &[Due]) -> Vec<(&str, bool)> {
        due.iter().map(|due| (due.path.as_str(), due.forced)).collect()
    }

    #[test]
    fn files_are_due_once_and_when_they_change() {
        let mut memory = Memory::default();
        let first = look(&[("a", 1), ("b", 1), ("c", 0)]);
        assert_eq!(names(&memory.due(&first, at(0))), [("a", true), ("b", true), ("c", true)]);
        for (path, found) in &first.files {
            memory.done(path, *found);
        }
        assert_eq!(names(&memory.due(&first, at(0))), [("c", false)], "its time says nothing");
        let second = look(&[("a", 2), ("b", 1)]);
        assert_eq!(names(&memory.due(&second, at(0))), [("a", false)]);
        memory.done("a", second.files["a"]);
        assert!(memory.due(&look(&[("b", 1)]), at(0)).is_empty());
        assert_eq!(names(&memory.due(&second, at(0))), [("a", true)], "it was away");
    }

    #[test]
    fn failures_wait_longer_and_are_news_once() {
        let (mut memory, mut rng) = (Memory::default(), Rng::seeded(1));
        let look = look(&[("a", 1)]);
        let found = look.files["a"];
        assert!(memory.failed("a", found, "why", at(0), &mut rng));
        assert!(memory.due(&look, at(100)).is_empty());
        let due = memory.next_due().unwrap();
        assert!(due >= at(400) && due <= at(600), "{due:?}");
        assert_eq!(names(&memory.due(&look, at(600))), [("a", true)]);
        assert!(!memory.failed("a", found, "why", at(600), &mut rng));
        assert!(memory.was_told("a", "why") && !memory.was_told("a", "other"));
        assert!(memory.next_due().unwrap() > at(1400));
        assert!(memory.failed("a", found, "other", at(2000), &mut rng));
        for _ in 0..20 {
            memory.failed("a", found, "other", at(3000), &mut rng);
        }
        assert!(memory.next_due().unwrap() <= at(3000 + 16_500));
        assert_eq!(memory.notes().collect::<Vec<_>>(), [("a", "other")]);
        memory.done("a", found);
        assert_eq!(memory.next_due(), None);
    }
}
