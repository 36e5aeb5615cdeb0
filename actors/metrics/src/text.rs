//! Reads what a kubelet says at `/metrics/resource`. Pure; the text comes from outside.

use std::collections::BTreeMap;

/// What was used up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    /// When it was measured; nanoseconds since 1970.
    pub(crate) at: i64,
    /// Processor time since the start, in nanoseconds.
    pub(crate) cpu: u64,
    /// Working set, in bytes.
    pub(crate) memory: u64,
    /// When it was started, nanoseconds since 1970; 0 where that isn't known.
    pub(crate) started: i64,
}

/// Namespace and name.
pub(crate) type PodKey = (String, String);

/// One text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scrape {
    pub(crate) node: Option<Point>,
    /// Containers by name. Pods of which anything is missing aren't there.
    pub(crate) pods: BTreeMap<PodKey, BTreeMap<String, Point>>,
}

const NANOS: f64 = 1e9;

/// A number as nanoseconds or the like; nothing for what is no sensible amount.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
fn amount(value: f64, factor: f64) -> Option<u64> {
    let value = value * factor;
    (value.is_finite() && (0.0..9.2e18).contains(&value)).then(|| value.round() as u64)
}

/// Reads a text. Lines that make no sense are left out. `now` (nanoseconds since 1970) is the time of lines without one.
pub(crate) fn parse(text: &str, now: i64) -> Scrape {
    let mut node = Part::default();
    let mut pods: BTreeMap<PodKey, BTreeMap<String, Part>> = BTreeMap::new();
    for line in text.lines() {
        let Some((name, labels, value, at)) = sample(line) else { continue };
        let at = at.unwrap_or(now);
        let part = if name.starts_with("node_") {
            &mut node
        } else if name.starts_with("container_") {
            let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone());
            let (Some(namespace), Some(pod), Some(container)) = (label("namespace"), label("pod"), label("container"))
            else {
                continue;
            };
            pods.entry((namespace, pod)).or_default().entry(container).or_default()
        } else {
            continue;
        };
        match name {
            "node_cpu_usage_seconds_total" | "container_cpu_usage_seconds_total" => {
                part.cpu = amount(value, NANOS);
                part.at = at;
            }
            "node_memory_working_set_bytes" | "container_memory_working_set_bytes" => {
                part.memory = amount(value, 1.0);
                part.at = if part.cpu.is_some() { part.at } else { at };
            }
            "container_start_time_seconds" => {
                part.started = amount(value, NANOS).and_then(|nanos| i64::try_from(nanos).ok()).unwrap_or(0);
            }
            _ => {}
        }
    }
    let whole = |containers: BTreeMap<String, Part>| {
        // A container that is about to start, or just ended, has no numbers; its pod's sum would be wrong.
        let points = containers.into_iter().map(|(name, part)| Some((name, part.point()?)));
        points.collect::<Option<BTreeMap<String, Point>>>()
    };
    let pods = pods.into_iter().filter_map(|(key, containers)| Some((key, whole(containers)?)));
    Scrape { node: node.point(), pods: pods.collect() }
}

#[derive(Default)]
struct Part {
    at: i64,
    cpu: Option<u64>,
    memory: Option<u64>,
    started: i64,
}

impl Part {
    fn point(&self) -> Option<Point> {
        let (cpu, memory) = (self.cpu.filter(|cpu| *cpu > 0)?, self.memory.filter(|memory| *memory > 0)?);
        Some(Point { at: self.at, cpu, memory, started: self.started })
    }
}

/// Name, labels, value, and the time in nanoseconds.
type Sample<'a> = (&'a str, Vec<(&'a str, String)>, f64, Option<i64>);

/// Reads a line: `name{label="value",…} value [milliseconds]`.
fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        (labels, rest) = read_labels(inner)?;
    }
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let at = match words.next() {
        None => None,
        Some(milliseconds) => Some(milliseconds.parse::<i64>().ok()?.checked_mul(1_000_000)?),
    };
    Some((name, labels, value, at))
}

/// Labels with their values, and what stands behind the brace.
type Labels<'a> = (Vec<(&'a str, String)>, &'a str);

/// Reads labels up to the closing brace.
fn read_labels(mut text: &str) -> Option<Labels<'_>> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim(), value));
        text = rest.get(end..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP container_cpu_usage_seconds_total Processor time of the container, in seconds.
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="c",namespace="n",pod="p"} 4.710169 1763741000123
container_cpu_usage_seconds_total{container="new",namespace="n",pod="q"} 0 1763741000123
container_memory_working_set_bytes{container="c",namespace="n",pod="p"} 1.2300288e+07 1763741000124
container_memory_working_set_bytes{container="new",namespace="n",pod="q"} 4096 1763741000124
container_start_time_seconds{container="c",namespace="n",pod="p"} 1.763740999e+09
node_cpu_usage_seconds_total 12.5 1763741000100
node_memory_working_set_bytes 1048576 1763741000100
pod_cpu_usage_seconds_total{namespace="n",pod="p"} 9 1763741000100
resource_scrape_error 0
"#;

    #[test]
    fn a_kubelets_text_is_read() {
        let found = parse(TEXT, 7);
        let node = Point { at: 1_763_741_000_100_000_000, cpu: 12_500_000_000, memory: 1_048_576, started: 0 };
        assert_eq!(found.node, Some(node));
        let container = Point {
            at: 1_763_741_000_123_000_000,
            cpu: 4_710_169_000,
            memory: 12_300_288,
            started: 1_763_740_999_000_000_000,
        };
        let pods = BTreeMap::from([(("n".into(), "p".into()), BTreeMap::from([("c".into(), container)]))]);
        assert_eq!(found.pods, pods, "a pod without numbers is left out");
    }

    #[test]
    fn nonsense_is_left_out() {
        for text in [
            "",
            "\u{0}",
            "node_cpu_usage_seconds_total",
            "node_cpu_usage_seconds_total x",
            "node_cpu_usage_seconds_total NaN\nnode_memory_working_set_bytes +Inf",
            "node_cpu_usage_seconds_total -1\nnode_memory_working_set_bytes 1",
            "container_cpu_usage_seconds_total{container=\"c",
            "container_cpu_usage_seconds_total{container=\"c\\",
            "container_cpu_usage_seconds_total{=\"\"} 1",
            "node_cpu_usage_seconds_total 1 99999999999999999999",
            "container_cpu_usage_seconds_total{container=\"ä\\\"ö\",namespace=\"n\",pod=\"p\"} 1",
        ] {
            assert_eq!(parse(text, 0), Scrape::default(), "{text:?}");
        }
        let text = "node_cpu_usage_seconds_total 1\nnode_memory_working_set_bytes 2";
        assert_eq!(parse(text, 7).node, Some(Point { at: 7, cpu: 1_000_000_000, memory: 2, started: 0 }));
    }
}
