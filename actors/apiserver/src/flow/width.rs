//! How much work a request is, in seats and in time: upstream's estimates. Pure.
//!
//! A list takes a seat for each 100 kB that it reads at once. A write takes one, and while its event is told to many
//! watchers several: they are kept for a moment after the answer.

use std::time::Duration;

/// What one seat of a list stands for.
const SEAT_BYTES: u64 = 100_000;
/// Lists from a cache are written as they are sent, so that they never have more than this in hand.
const CACHED_BYTES_MAX: u64 = 1_000_000;
/// The most seats of a list, whatever its level would give.
const LIST_SEATS_MAX: usize = 100;
/// The same for a write.
const WRITE_SEATS_MAX: usize = 10;
/// How many watchers one seat stands for.
const SEAT_WATCHERS: usize = 10;
/// How long it takes to tell as many as that.
const TELLING: Duration = Duration::from_millis(5);
/// The part of its own seats, in percent, that a level gives to one request.
const SHARE_PERCENT: usize = 15;

/// What a request takes of its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Width {
    /// How many seats.
    pub(crate) seats: usize,
    /// How long they are kept after the answer.
    pub(crate) lingers: Duration,
}

/// What a list is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// How many objects there are of the resource.
    pub(crate) objects: u64,
    /// How long they are on average.
    pub(crate) object_bytes: u64,
    /// How many of them are wanted at most; zero is all.
    pub(crate) limit: u64,
    /// Whether only some are wanted, by labels or fields.
    pub(crate) selects: bool,
    /// Whether it is about one object by its name.
    pub(crate) single: bool,
    /// Whether the cache answers.
    pub(crate) cached: bool,
}

impl Width {
    /// Of most requests.
    pub(crate) const ONE: Self = Self { seats: 1, lingers: Duration::ZERO };

    /// Of a list, at a level that gives so many seats to one request.
    pub(crate) fn list(listing: &Listing, level_max: Option<usize>) -> Self {
        let wanted = if listing.limit == 0 { listing.objects } else { listing.limit.min(listing.objects) };
        let read = match listing {
            Listing { single: true, .. } => 1,
            Listing { cached: false, selects: true, .. } => wanted.max(listing.objects / 2),
            _ => wanted,
        };
        let bytes = read.saturating_mul(listing.object_bytes);
        let bytes = if listing.cached { bytes.min(CACHED_BYTES_MAX) } else { bytes };
        let seats = usize::try_from(bytes.div_ceil(SEAT_BYTES)).unwrap_or(usize::MAX);
        let most = level_max.unwrap_or(LIST_SEATS_MAX).min(LIST_SEATS_MAX);
        Self { seats: seats.clamp(1, most.max(1)), ..Self::ONE }
    }

    /// Of a list that can't be understood, and will be refused.
    pub(crate) fn widest_list(level_max: Option<usize>) -> Self {
        Self { seats: level_max.unwrap_or(LIST_SEATS_MAX).clamp(1, LIST_SEATS_MAX), ..Self::ONE }
    }

    /// Of a write that so many watchers hear of. Where the level gives fewer seats than that takes, they are kept longer.
    pub(crate) fn write(watchers: usize, level_max: Option<usize>) -> Self {
        if watchers < SEAT_WATCHERS {
            return Self::ONE;
        }
        let seats = watchers.div_ceil(SEAT_WATCHERS);
        let most = level_max.unwrap_or(WRITE_SEATS_MAX).clamp(1, WRITE_SEATS_MAX);
        if seats <= most {
            return Self { seats, lingers: TELLING };
        }
        let work = TELLING.saturating_mul(u32::try_from(seats).unwrap_or(u32::MAX));
        Self { seats: most, lingers: work / u32::try_from(most).unwrap_or(1) }
    }
}

/// How many seats a level with queues gives to one request: a share of its own seats, and no more than leaves seats for
/// every queue of a flow.
pub(crate) fn level_max(nominal: usize, hand: usize) -> usize {
    let share = nominal.saturating_mul(SHARE_PERCENT).div_ceil(100);
    share.min(nominal / hand.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_a_seat_for_each_100_kilobytes() {
        let pods = Listing { objects: 10_000, object_bytes: 4096, cached: true, ..Listing::default() };
        for (listing, level_max, seats) in [
            (Listing { objects: 24, ..pods }, None, 1),
            (Listing { objects: 25, ..pods }, None, 2),
            // From the cache no more than a megabyte is in hand.
            (pods, None, 10),
            (pods, Some(4), 4),
            (Listing { cached: false, ..pods }, None, 100),
            (Listing { limit: 50, ..pods }, None, 3),
            (Listing { limit: 50, cached: false, ..pods }, None, 3),
            // Half of them are read to find as many.
            (Listing { limit: 50, selects: true, cached: false, objects: 1000, ..pods }, None, 21),
            (Listing { limit: 50, selects: true, ..pods }, None, 3),
            (Listing { single: true, ..pods }, None, 1),
            (Listing { objects: 0, ..pods }, Some(0), 1),
        ] {
            assert_eq!(Width::list(&listing, level_max), Width { seats, ..Width::ONE }, "{listing:?}");
        }
        assert_eq!((Width::widest_list(None).seats, Width::widest_list(Some(7)).seats), (100, 7));
    }

    #[test]
    fn a_write_takes_seats_for_its_watchers() {
        let millis = Duration::from_millis;
        for (watchers, level_max, seats, lingers) in [
            (0, None, 1, Duration::ZERO),
            (9, None, 1, Duration::ZERO),
            (10, None, 1, millis(5)),
            (11, None, 2, millis(5)),
            (100, None, 10, millis(5)),
            (1000, None, 10, millis(50)),
            (100, Some(2), 2, millis(25)),
        ] {
            assert_eq!(Width::write(watchers, level_max), Width { seats, lingers }, "{watchers} {level_max:?}");
        }
    }

    #[test]
    fn one_request_gets_no_more_than_a_share_of_its_level() {
        // workload-low, system, leader-election and catch-all of a server of 600 seats.
        assert_eq!([level_max(245, 6), level_max(74, 6), level_max(25, 4), level_max(1, 6)], [37, 12, 4, 1]);
    }
}
