//! Which images go: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k3sd_runtime::Moment;

/// When images go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImagePolicy {
    /// The part of the disk in use from which on they go, in percent.
    pub high_percent: u8,
    /// The part down to which they go.
    pub low_percent: u8,
    /// How long one is there at least.
    pub age_min: Duration,
    /// How long one may be unused; zero for ever.
    pub unused_max: Duration,
}

/// An image, as the runtime describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFact {
    /// Its id.
    pub id: String,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Whether the runtime keeps it.
    pub is_pinned: bool,
}

/// What is remembered of an image: when it was first seen, and last in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    first_seen: Moment,
    last_used: Option<Moment>,
}

/// What is remembered of all images.
#[derive(Clone, Debug, Default)]
pub struct Records(BTreeMap<String, Record>);

impl Records {
    /// Takes in what there is, and which images containers were made of.
    pub fn look(&mut self, images: &[ImageFact], in_use: &BTreeSet<String>, now: Moment) {
        let there: BTreeSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.0.retain(|id, _| there.contains(id.as_str()));
        for image in images {
            let record = self.0.entry(image.id.clone()).or_insert(Record { first_seen: now, last_used: None });
            if in_use.contains(&image.id) {
                record.last_used = Some(now);
            }
        }
    }

    /// Images that may go, those first that were unused longest; of those never used, the oldest.
    fn candidates<'a>(&self, images: &'a [ImageFact], in_use: &BTreeSet<String>) -> Vec<(&'a ImageFact, Record)> {
        let free = images.iter().filter(|image| !image.is_pinned && !in_use.contains(&image.id));
        let mut all: Vec<_> = free.filter_map(|image| Some((image, *self.0.get(&image.id)?))).collect();
        all.sort_by(|(one, first), (other, second)| {
            (first.last_used, first.first_seen, &one.id).cmp(&(second.last_used, second.first_seen, &other.id))
        });
        all
    }
}

/// How much has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// As many bytes as it takes to come down to the lower mark, if the disk is fuller than the upper one.
    Marks {
        /// Bytes of the file system.
        capacity: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// Everything that isn't used.
    All,
}

impl Wanted {
    /// How many bytes that is; `None` if nothing has to go.
    #[must_use]
    pub fn bytes(self, policy: &ImagePolicy) -> Option<u64> {
        let Self::Marks { capacity, available } = self else { return Some(u64::MAX) };
        if capacity == 0 {
            return None;
        }
        let available = available.min(capacity);
        let part = |percent: u8| u128::from(capacity) * u128::from(percent) / 100;
        let used_percent = 100 - u64::try_from(u128::from(available) * 100 / u128::from(capacity)).unwrap_or(100);
        if used_percent < u64::from(policy.high_percent) {
            return None;
        }
        let wanted = part(100 - policy.low_percent.min(100)).saturating_sub(u128::from(available));
        u64::try_from(wanted).ok().filter(|bytes| *bytes > 0)
    }
}

/// Which images go, in this order, to free so many bytes.
#[must_use]
pub fn plan(
    images: &[ImageFact],
    in_use: &BTreeSet<String>,
    records: &Records,
    policy: &ImagePolicy,
    bytes: u64,
    now: Moment,
) -> Vec<ImageFact> {
    let (mut chosen, mut freed) = (Vec::new(), 0_u64);
    for (image, record) in records.candidates(images, in_use) {
        if freed >= bytes {
            break;
        }
        if now.since(record.first_seen) < policy.age_min {
            continue;
        }
        freed = freed.saturating_add(image.bytes);
        chosen.push(image.clone());
    }
    chosen
}

/// Which images go because nobody has used them for too long. What was used before `started` isn't known, so that none
/// goes before it could have been seen in use.
#[must_use]
pub fn too_old(
    images: &[ImageFact],
    in_use: &BTreeSet<String>,
    records: &Records,
    policy: &ImagePolicy,
    started: Moment,
    now: Moment,
) -> Vec<ImageFact> {
    if policy.unused_max.is_zero() || now.since(started) <= policy.unused_max {
        return Vec::new();
    }
    let old = |record: &Record| now.since(record.last_used.unwrap_or(record.first_seen)) > policy.unused_max;
    let all = records.candidates(images, in_use).into_iter();
    all.filter(|(_, record)| old(record)).map(|(image, _)| image.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: ImagePolicy = ImagePolicy {
        high_percent: 85,
        low_percent: 80,
        age_min: Duration::from_secs(120),
        unused_max: Duration::from_secs(3600),
    };

    fn image(id: &str, bytes: u64) -> ImageFact {
        ImageFact { id: id.to_owned(), bytes, is_pinned: false }
    }

    fn used(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    fn ids(images: Vec<ImageFact>) -> Vec<String> {
        images.into_iter().map(|image| image.id).collect()
    }

    #[test]
    fn the_marks_say_how_much() {
        let rows = [
            (1000, 500, None),
            (1000, 160, None),
            (1000, 159, Some(41)),
            (1000, 150, Some(50)),
            (1000, 0, Some(200)),
            (0, 0, None),
            (1000, 2000, None),
        ];
        for (capacity, available, expected) in rows {
            assert_eq!(Wanted::Marks { capacity, available }.bytes(&POLICY), expected, "{available} of {capacity}");
        }
        assert_eq!(Wanted::All.bytes(&POLICY), Some(u64::MAX));
    }

    #[test]
    fn those_unused_longest_go_first() {
        let images = [image("used", 9), image("late", 10), image("early", 10), image("never", 10), image("new", 10)];
        let mut records = Records::default();
        records.look(&images[..4], &used(&["used", "late", "early"]), at(0));
        records.look(&images[..4], &used(&["used", "late"]), at(60));
        records.look(&images, &used(&["used"]), at(200));
        let planned = |bytes| ids(plan(&images, &used(&["used"]), &records, &POLICY, bytes, at(260)));
        assert_eq!(planned(u64::MAX), ["never", "early", "late"]);
        assert_eq!(planned(11), ["never", "early"]);
        assert!(planned(0).is_empty());
    }

    #[test]
    fn pinned_images_stay() {
        let images = [ImageFact { is_pinned: true, ..image("pause", 1) }, image("a", 1)];
        let mut records = Records::default();
        records.look(&images, &used(&[]), at(0));
        assert_eq!(ids(plan(&images, &used(&[]), &records, &POLICY, u64::MAX, at(120))), ["a"]);
    }

    #[test]
    fn old_ones_go_when_they_could_have_been_seen_in_use() {
        let images = [image("old", 1), image("recent", 1), image("running", 1)];
        let mut records = Records::default();
        records.look(&images, &used(&[]), at(0));
        records.look(&images, &used(&["recent"]), at(3000));
        let old = |started, now| ids(too_old(&images, &used(&["running"]), &records, &POLICY, at(started), at(now)));
        assert_eq!(old(0, 3601), ["old"]);
        assert!(old(0, 3600).is_empty());
        assert!(old(100, 3601).is_empty());
        let off = ImagePolicy { unused_max: Duration::ZERO, ..POLICY };
        assert!(too_old(&images, &used(&[]), &records, &off, at(0), at(99_999)).is_empty());
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut records = Records::default();
        records.look(&[image("a", 1)], &used(&[]), at(0));
        records.look(&[], &used(&[]), at(10));
        assert!(records.0.is_empty());
    }
}
