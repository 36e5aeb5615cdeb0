//! Which address is next. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::ranges::{Range, RangeSet, next};

/// The first free address behind `last`, going round; never a gateway. `None` when all are taken.
///
/// The last one handed out is the last to come again: who still talks to a pod that is gone must not meet another.
pub(super) fn pick<'a>(
    set: &'a RangeSet,
    last: Option<IpAddr>,
    taken: &BTreeSet<IpAddr>,
) -> Option<(IpAddr, &'a Range)> {
    let begin = last.and_then(|last| set.0.iter().position(|range| range.contains(last)).map(|at| (at, last)));
    let free = |address: &IpAddr, range: &Range| *address != range.gateway && !taken.contains(address);
    let count = set.0.len();
    let (at, last) = begin.map_or((0, None), |(at, last)| (at, Some(last)));
    // Behind the last one, then the other ranges, then what is in front of it and itself.
    for round in 0..=count {
        let range = &set.0[(at + round) % count];
        let (from, to) = match (round, last) {
            (0, Some(last)) if last == range.end => continue,
            (0, Some(last)) => (next(last)?, range.end),
            (round, Some(last)) if round == count => (range.start, last),
            _ => (range.start, range.end),
        };
        if let Some(address) = addresses(from, to).find(|address| free(address, range)) {
            return Some((address, range));
        }
    }
    None
}

fn addresses(from: IpAddr, to: IpAddr) -> impl Iterator<Item = IpAddr> {
    std::iter::successors(Some(from), move |address| next(*address).filter(|next| *next <= to))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::ranges::RangeConfig;
    use super::*;

    const SET: [(&str, u8, u8); 2] = [("10.0.0.0/28", 1, 14), ("10.0.1.0/28", 3, 5)];

    fn set() -> RangeSet {
        let range = |(subnet, start, end): (&str, u8, u8)| {
            let third = if subnet.starts_with("10.0.1") { 1 } else { 0 };
            let at = |last| Some(Ipv4Addr::new(10, 0, third, last).into());
            RangeConfig { subnet: Some(subnet.to_owned()), range_start: at(start), range_end: at(end), gateway: None }
        };
        RangeSet::new(&SET.map(range)).unwrap()
    }

    /// All that may be handed out, in order: the first one of the first range is its gateway.
    fn all() -> Vec<IpAddr> {
        let first = (2..=14).map(|last| Ipv4Addr::new(10, 0, 0, last));
        first.chain((3..=5).map(|last| Ipv4Addr::new(10, 0, 1, last))).map(IpAddr::from).collect()
    }

    proptest! {
        /// It is the next free one in the circle, and there is one as long as one is free.
        #[test]
        fn the_next_free_one(taken in proptest::collection::btree_set(0_usize..16, 0..=16), last in 0_usize..16) {
            let (all, set) = (all(), set());
            let taken: BTreeSet<IpAddr> = taken.into_iter().map(|at| all[at]).collect();
            let expected = (1..=16).map(|step| all[(last + step) % 16]).find(|address| !taken.contains(address));
            prop_assert_eq!(pick(&set, Some(all[last]), &taken).map(|(address, _)| address), expected);
            let from_start = all.iter().copied().find(|address| !taken.contains(address));
            prop_assert_eq!(pick(&set, None, &taken).map(|(address, _)| address), from_start);
        }
    }
}
