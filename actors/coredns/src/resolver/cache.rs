//! What was answered, for as long as it may be said again: pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::Moment;

use super::{Answer, Ask};
use crate::corefile::Cache;
use crate::wire::message::Record;
use crate::wire::{Rcode, kind};

/// Bytes of all answers together, more or less.
const BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
struct Entry {
    answer: Arc<Answer>,
    until: Moment,
    /// Which of the entries under its question it is.
    number: u64,
}

/// Answers by question, the oldest forgotten first when there are too many.
#[derive(Debug, Default)]
pub(super) struct Answers {
    entries: HashMap<Ask, Entry>,
    /// In the order in which they came; some are replaced by now.
    order: VecDeque<(Ask, u64)>,
    bytes: usize,
    numbers: u64,
}

impl Answers {
    /// What may be said again, and for how many seconds more.
    pub(super) fn get(&self, ask: &Ask, now: Moment) -> Option<(Arc<Answer>, u32)> {
        let entry = self.entries.get(ask).filter(|entry| entry.until > now)?;
        let left = entry.until.since(now).as_secs_f64().ceil();
        Some((entry.answer.clone(), left as u32))
    }

    /// Remembers an answer, if it may be. For how many seconds.
    pub(super) fn put(&mut self, ask: &Ask, answer: &Arc<Answer>, now: Moment) -> Option<u32> {
        let cache = ask.cache?;
        let ttl = lifetime(answer, ask.kind, &cache)?;
        self.numbers += 1;
        let entry =
            Entry { answer: answer.clone(), until: now + Duration::from_secs(u64::from(ttl)), number: self.numbers };
        self.bytes += cost(ask, answer);
        if let Some(old) = self.entries.insert(ask.clone(), entry) {
            self.bytes -= cost(ask, &old.answer);
        }
        self.order.push_back((ask.clone(), self.numbers));
        while self.bytes > BYTES_MAX
            || self.entries.len() > cache.capacity.max(1)
            || self.order.len() > 2 * cache.capacity.max(8)
        {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|entry| entry.number == number)
                && let Some(gone) = self.entries.remove(&oldest)
            {
                self.bytes -= cost(&oldest, &gone.answer);
            }
        }
        Some(ttl)
    }

    /// How many there are, some of them too old.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// An entry has its question twice.
fn cost(ask: &Ask, answer: &Answer) -> usize {
    answer.bytes() + 2 * (size_of::<Ask>() + ask.name.wire().len()) + size_of::<Entry>()
}

/// For how many seconds an answer may be said again. `None` if not at all.
pub(super) fn lifetime(answer: &Answer, kind: u16, cache: &Cache) -> Option<u32> {
    let clamp = |ttl: u32, least: u32, most: u32| (most > 0).then(|| ttl.clamp(least.min(most), most));
    match answer.rcode {
        Rcode::NO_ERROR if has_kind(&answer.answers, kind) => {
            let least = answer.records().map(|record| record.ttl).min().unwrap_or_default();
            clamp(least, cache.success_ttl_min, cache.success_ttl)
        }
        Rcode::NO_ERROR | Rcode::NO_SUCH_NAME => {
            let soa = answer.authority.iter().find(|record| record.kind == kind::SOA);
            clamp(soa.map(denial_ttl).unwrap_or_default(), cache.denial_ttl_min, cache.denial_ttl)
        }
        Rcode::SERVER_FAILURE => (cache.failure_ttl > 0).then_some(cache.failure_ttl),
        _ => None,
    }
}

fn has_kind(records: &[Record], kind: u16) -> bool {
    kind == kind::ANY && !records.is_empty() || records.iter().any(|record| record.kind == kind)
}

/// The time that a zone gives to what isn't there.
fn denial_ttl(soa: &Record) -> u32 {
    let end = soa.data.len().checked_sub(4).and_then(|at| soa.data.get(at..));
    let minimum = end.and_then(|end| end.try_into().ok()).map_or(0, u32::from_be_bytes);
    soa.ttl.min(minimum)
}

#[cfg(test)]
mod tests {
    use super::super::super::corefile::{Forward, Policy};
    use super::*;
    use crate::wire::name::Name;

    const CACHE: Cache =
        Cache { success_ttl: 30, success_ttl_min: 5, denial_ttl: 30, denial_ttl_min: 5, failure_ttl: 5, capacity: 3 };

    fn ask(name: &str) -> Ask {
        let forward = Forward {
            from: vec![Name::root()],
            except: Vec::new(),
            servers: Vec::new(),
            policy: Policy::Random,
            force_tcp: false,
            max_fails: 2,
        };
        Ask {
            name: Name::parse(name).expect("a name"),
            kind: kind::A,
            class: 1,
            signatures: false,
            unchecked: false,
            forward: Arc::new(forward),
            cache: Some(CACHE),
        }
    }

    fn record(kind: u16, ttl: u32, data: &[u8]) -> Record {
        Record { owner: Name::root(), kind, class: 1, ttl, data: data.into() }
    }

    fn found(ttl: u32) -> Answer {
        Answer { answers: vec![record(kind::A, ttl, &[192, 0, 2, 1])], ..Answer::default() }
    }

    #[test]
    fn answers_live_as_long_as_their_shortest_record_within_bounds() {
        for (ttl, expected) in [(0, 5), (7, 7), (3600, 30)] {
            assert_eq!(lifetime(&found(ttl), kind::A, &CACHE), Some(expected));
        }
        let soa = record(kind::SOA, 100, &[0, 0, 0, 0, 12]);
        let nothing = Answer { rcode: Rcode::NO_SUCH_NAME, authority: vec![soa], ..Answer::default() };
        assert_eq!(lifetime(&nothing, kind::A, &CACHE), Some(12));
        let alias = Answer { answers: vec![record(kind::CNAME, 100, &[0])], ..Answer::default() };
        assert_eq!(lifetime(&alias, kind::A, &CACHE), Some(5), "an alias that leads nowhere denies");
        assert_eq!(lifetime(&Answer::failure(), kind::A, &CACHE), Some(5));
        let refused = Answer { rcode: Rcode::REFUSED, ..Answer::default() };
        assert_eq!(lifetime(&refused, kind::A, &CACHE), None);
        assert_eq!(lifetime(&found(9), kind::A, &Cache { success_ttl: 0, ..CACHE }), None);
    }

    #[test]
    fn what_is_too_old_or_too_much_is_forgotten() {
        let mut answers = Answers::default();
        let at = |seconds: u64| Moment::START + Duration::from_secs(seconds);
        assert_eq!(answers.put(&ask("a"), &Arc::new(found(10)), at(0)), Some(10));
        assert_eq!(answers.get(&ask("a"), at(4)).map(|(_, ttl)| ttl), Some(6));
        assert!(answers.get(&ask("a"), at(10)).is_none());
        for name in ["a", "b", "c", "d"] {
            answers.put(&ask(name), &Arc::new(found(10)), at(20));
        }
        assert_eq!(answers.len(), 3);
        assert!(answers.get(&ask("a"), at(21)).is_none() && answers.get(&ask("d"), at(21)).is_some());
        for _ in 0..1000 {
            answers.put(&ask("d"), &Arc::new(found(10)), at(21));
        }
        assert!(answers.order.len() <= 16, "{}", answers.order.len());
        let big = Answer { answers: vec![record(kind::A, 10, &[0; 60_000]); 40], ..Answer::default() };
        for name in ["x", "y", "z"] {
            let wide = Ask { cache: Some(Cache { capacity: 9999, ..CACHE }), ..ask(name) };
            for _ in 0..2 {
                answers.put(&wide, &Arc::new(big.clone()), at(22));
            }
            answers.put(
                &Ask { kind: 2, ..wide.clone() },
                &Arc::new(Answer { rcode: Rcode::NO_SUCH_NAME, ..big.clone() }),
                at(22),
            );
        }
        assert!(answers.bytes <= BYTES_MAX && answers.len() <= 3, "{} in {}", answers.bytes, answers.len());
    }
}
