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
