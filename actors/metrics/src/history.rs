//! Rates from the last two texts of each node, by metrics-server's rules. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::{PodKey, Point, Scrape};

/// Texts come about this far apart; nanoseconds.
const RESOLUTION: i64 = 15_000_000_000;
/// A container this young is measured from its start; younger ones say too little. Nanoseconds.
const FRESH_MIN: i64 = 10_000_000_000;

/// What something uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Billionths of a processor.
    pub(crate) cpu: u64,
    /// Bytes.
    pub(crate) memory: u64,
}

/// What a node or a pod uses, and when that was so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading<U> {
    /// Nanoseconds since 1970.
    pub(crate) at: i64,
    /// Over how long processor time was measured; nanoseconds.
    pub(crate) window: i64,
    pub(crate) usage: U,
}

/// By container.
pub(crate) type Containers = BTreeMap<String, Usage>;

/// What is known at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readings {
    pub(crate) nodes: BTreeMap<String, Reading<Usage>>,
    pub(crate) pods: BTreeMap<PodKey, Reading<Containers>>,
}

/// The last point, and one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    last: Point,
    before: Option<Point>,
}

impl Pair {
    /// The same after another text.
    fn next(known: Option<&Self>, point: Point) -> Self {
        let age = point.at.saturating_sub(point.started);
        if point.started > 0 && (FRESH_MIN..RESOLUTION).contains(&age) {
            let start = Point { at: point.started, cpu: 0, ..point };
            return Self { last: point, before: Some(start) };
        }
        match known {
            // Another container has that name now.
            Some(known) if known.last.started != point.started => Self { last: point, before: None },
            Some(known) if point.at > known.last.at => Self { last: point, before: Some(known.last) },
            // The kubelet told the same once more.
            Some(known) => Self { last: point, before: known.before },
            None => Self { last: point, before: None },
        }
    }

    /// What was used between the two.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate, of which nobody reads sixteen digits; it isn't negative"
    )]
    fn reading(&self) -> Option<Reading<Usage>> {
        let before = self.before?;
        let window = self.last.at.checked_sub(before.at).filter(|window| *window > 0)?;
        let used = self.last.cpu.checked_sub(before.cpu)?;
        let cpu = (used as f64 * 1e9 / window as f64) as u64;
        Some(Reading { at: self.last.at, window, usage: Usage { cpu, memory: self.last.memory } })
    }
}

#[derive(Clone, Debug, Default)]
struct NodeHistory {
    node: Option<Pair>,
    pods: BTreeMap<PodKey, BTreeMap<String, Pair>>,
}

/// The last two texts of each node.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(BTreeMap<String, NodeHistory>);

impl History {
    /// Takes a text in.
    pub(crate) fn take(&mut self, node: &str, scrape: Scrape) {
        let known = self.0.entry(node.to_owned()).or_default();
        known.node = scrape.node.map(|point| Pair::next(known.node.as_ref(), point)).or(known.node);
        let mut before = std::mem::take(&mut known.pods);
        known.pods = scrape
            .pods
            .into_iter()
            .map(|(key, containers)| {
                let mut known = before.remove(&key).unwrap_or_default();
                let pair = |(name, point): (String, Point)| {
                    let pair = Pair::next(known.remove(&name).as_ref(), point);
                    (name, pair)
                };
                (key, containers.into_iter().map(pair).collect())
            })
            .collect();
    }

    /// Forgets nodes that aren't there any more, and those that said nothing.
    pub(crate) fn keep(&mut self, nodes: &BTreeSet<String>) {
        self.0.retain(|node, _| nodes.contains(node));
    }

    /// What is known now.
    pub(crate) fn readings(&self) -> Readings {
        let nodes = self.0.iter().filter_map(|(name, known)| Some((name.clone(), known.node?.reading()?)));
        let pods = self.0.values().flat_map(|known| &known.pods);
        let pods = pods.filter_map(|(key, containers)| Some((key.clone(), pod(containers)?)));
        Readings { nodes: nodes.collect(), pods: pods.collect() }
    }
}

/// A pod, if all of its containers are known; of their times the earliest.
fn pod(containers: &BTreeMap<String, Pair>) -> Option<Reading<Containers>> {
    let mut found: Option<Reading<Containers>> = None;
    for (name, pair) in containers {
        let reading = pair.reading()?;
        let so_far =
            found.get_or_insert_with(|| Reading { at: reading.at, window: reading.window, usage: Containers::new() });
        if reading.at < so_far.at {
            (so_far.at, so_far.window) = (reading.at, reading.window);
        }
        so_far.usage.insert(name.clone(), reading.usage);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn point(at: i64, cpu: u64, memory: u64, started: i64) -> Point {
        Point { at: at * SECOND, cpu: cpu * 1_000_000, memory, started: started * SECOND }
    }

    fn pods(containers: &[(&str, Point)]) -> Scrape {
        let containers = containers.iter().map(|(name, point)| ((*name).to_owned(), *point)).collect();
        Scrape { node: None, pods: BTreeMap::from([(("n".to_owned(), "p".to_owned()), containers)]) }
    }

    fn found(history: &History) -> Option<Reading<Containers>> {
        history.readings().pods.into_values().next()
    }

    #[test]
    fn a_nodes_rate_needs_two_texts() {
        let mut history = History::default();
        let node = |at, cpu, memory| Scrape { node: Some(point(at, cpu, memory, 0)), ..Scrape::default() };
        history.take("a", node(100, 5000, 10));
        assert_eq!(history.readings(), Readings::default());
        history.take("a", node(110, 7500, 20));
        let wanted = Reading { at: 110 * SECOND, window: 10 * SECOND, usage: Usage { cpu: 250_000_000, memory: 20 } };
        assert_eq!(history.readings().nodes["a"], wanted);
        // The same once more changes nothing; a counter that went back is a machine that was started again.
        history.take("a", node(110, 7500, 20));
        assert_eq!(history.readings().nodes["a"], wanted);
        history.take("a", node(120, 10, 20));
        assert_eq!(history.readings().nodes.get("a"), None);
        history.keep(&BTreeSet::new());
        assert!(history.0.is_empty());
    }

    #[test]
    fn a_pod_is_known_when_all_its_containers_are() {
        let mut history = History::default();
        history.take("a", pods(&[("x", point(100, 1000, 1, 50))]));
        history.take("a", pods(&[("x", point(115, 1300, 2, 50)), ("y", point(114, 100, 3, 60))]));
        assert_eq!(found(&history), None, "the other container is new");
        history.take("a", pods(&[("x", point(130, 1600, 2, 50)), ("y", point(129, 400, 3, 60))]));
        let pod = found(&history).expect("both are known");
        assert_eq!((pod.at, pod.window), (129 * SECOND, 15 * SECOND), "the earliest");
        assert_eq!(pod.usage["x"], Usage { cpu: 20_000_000, memory: 2 });
        // A container that was started again isn't the one before.
        history.take("a", pods(&[("x", point(145, 1900, 2, 50)), ("y", point(144, 500, 3, 141))]));
        assert_eq!(found(&history), None);
        history.take("a", Scrape::default());
        assert!(history.readings().pods.is_empty());
    }

    #[test]
    fn a_young_container_is_measured_from_its_start() {
        for (age, is_known) in [(9, false), (10, true), (14, true), (15, false)] {
            let mut history = History::default();
            history.take("a", pods(&[("x", point(100, 500, 1, 100 - age))]));
            assert_eq!(found(&history).is_some(), is_known, "{age}");
        }
        let mut history = History::default();
        history.take("a", pods(&[("x", point(100, 500, 1, 90))]));
        assert_eq!(found(&history).expect("known").usage["x"].cpu, 50_000_000);
    }
}
