//! How upstream servers are: which of them rest, and what is told of that. Pure.
//!
//! A line of the log for each question that finds nobody would be a thousand lines a second where an upstream server is
//! away. So what is told is that it has gone, once, and that it is back, with how many questions it left without an answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use k3sd_runtime::Moment;

/// How long a server that failed too often is asked only when no other is left.
const REST: Duration = Duration::from_secs(2);
/// Nothing more is told of a server for so long: one that comes and goes is told of six times a minute at most.
const QUIET: Duration = Duration::from_secs(10);
/// Servers whose health is known; a Corefile has a few.
const SERVERS_MAX: usize = 1024;

/// What is to be told of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It gives no answers any more.
    Down {
        /// Questions without an answer since something was told last.
        failed: u64,
    },
    /// It answers again.
    Up {
        /// Questions without an answer since it was told that it is down.
        failed: u64,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Server {
    /// Questions without an answer in a row.
    failures: u32,
    rests_until: Moment,
    /// What was told last, and when.
    is_told_down: bool,
    told_at: Option<Moment>,
    /// Questions without an answer since then.
    failed: u64,
}

/// All that is known of servers.
#[derive(Debug, Default)]
pub(super) struct Health(HashMap<SocketAddr, Server>);

impl Health {
    /// Whether a server is better left alone.
    pub(super) fn rests(&self, server: SocketAddr, now: Moment) -> bool {
        self.0.get(&server).is_some_and(|known| known.rests_until > now)
    }

    /// Notes whether a server answered. `max_fails` is how many questions in a row it may leave without an answer before
    /// it rests; 0 for any number, and then the first one is news.
    pub(super) fn note(&mut self, server: SocketAddr, is_well: bool, max_fails: u32, now: Moment) -> Option<News> {
        if self.0.len() >= SERVERS_MAX && !self.0.contains_key(&server) {
            self.0.clear();
        }
        let known = self.0.entry(server).or_default();
        if is_well {
            (known.failures, known.rests_until) = (0, Moment::START);
        } else {
            known.failures = known.failures.saturating_add(1);
            known.failed = known.failed.saturating_add(1);
            if max_fails > 0 && known.failures >= max_fails {
                known.rests_until = now + REST;
            }
        }
        let is_down = known.failures >= max_fails.max(1);
        let is_quiet = known.told_at.is_some_and(|told| now.since(told) < QUIET);
        // Between up and down nothing is news.
        if is_down == known.is_told_down || is_quiet || !is_down && !is_well {
            return None;
        }
        (known.is_told_down, known.told_at) = (is_down, Some(now));
        let failed = std::mem::take(&mut known.failed);
        Some(if is_down { News::Down { failed } } else { News::Up { failed } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 53))
    }

    /// What is told when a server does this at these milliseconds.
    fn told(max_fails: u32, events: impl IntoIterator<Item = (u64, bool)>) -> Vec<(u64, News)> {
        let mut health = Health::default();
        let note = |(millis, is_well)| Some((millis, health.note(server(1), is_well, max_fails, at(millis))?));
        events.into_iter().filter_map(note).collect()
    }

    /// What it is, `max_fails`, what a server does at which milliseconds, and what is told then.
    type Row = (&'static str, u32, Vec<(u64, bool)>, Vec<(u64, News)>);

    #[test]
    fn a_change_is_told_once() {
        use News::{Down, Up};
        let away = |from: u64, to: u64| (from..to).map(|millis| (millis, false));
        let back = |at: u64| [(at, true), (at + 1, true)];
        let rows: [Row; 8] = [
            ("well", 2, back(0).into(), vec![]),
            ("one lost question", 2, [(0, false)].into_iter().chain(back(1)).collect(), vec![]),
            ("a flood", 2, away(0, 9_000).collect(), vec![(1, Down { failed: 2 })]),
            (
                "and back",
                2,
                away(0, 20_000).chain(back(20_000)).collect(),
                vec![(1, Down { failed: 2 }), (20_000, Up { failed: 19_998 })],
            ),
            (
                "back soon, told later",
                2,
                away(0, 2).chain(back(100)).chain(back(12_000)).collect(),
                vec![(1, Down { failed: 2 }), (12_000, Up { failed: 0 })],
            ),
            (
                "back and away again in between is no news",
                2,
                away(0, 2).chain(back(100)).chain(away(200, 300)).chain(away(20_000, 20_001)).collect(),
                vec![(1, Down { failed: 2 })],
            ),
            ("it never rests", 0, away(0, 5).collect(), vec![(0, Down { failed: 1 })]),
            ("patience", 4, away(0, 5).collect(), vec![(3, Down { failed: 4 })]),
        ];
        for (what, max_fails, events, expected) in rows {
            assert_eq!(told(max_fails, events), expected, "{what}");
        }
    }

    #[test]
    fn one_that_comes_and_goes_is_told_of_now_and_then() {
        let minute = (0..60_000).map(|millis| (millis, millis % 4 == 3));
        let news = told(2, minute);
        assert!((2..=7).contains(&news.len()), "{news:?}");
    }

    #[test]
    fn who_failed_too_often_rests_and_others_do_not() {
        let mut health = Health::default();
        health.note(server(1), false, 2, at(0));
        assert!(!health.rests(server(1), at(0)));
        health.note(server(1), false, 2, at(10));
        assert!(health.rests(server(1), at(2_009)) && !health.rests(server(1), at(2_010)));
        assert!(!health.rests(server(2), at(11)));
        health.note(server(1), true, 2, at(20));
        assert!(!health.rests(server(1), at(20)));
        for number in 0..5_000_u16 {
            let [high, low] = number.to_be_bytes();
            health.note(SocketAddr::from(([10, 0, high, low], 53)), false, 1, at(30));
        }
        assert!(health.0.len() <= SERVERS_MAX);
    }
}
