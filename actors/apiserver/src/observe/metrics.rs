//! Numbers under the names that dashboards know from kube-apiserver, in Prometheus' text format 0.0.4.
//!
//! What is counted per kind of request is one series of atomic counters, found in an immutable index. Only the first
//! request of a kind changes the index. There are no more series than there are kinds of requests for what is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

use k3sd_runtime::exposition::{self, Histogram, Sizes, head, line};

/// Upper bounds in milliseconds of the buckets for the time that requests take.
const BUCKETS_MS: [u64; 22] = [
    5, 25, 50, 100, 200, 400, 600, 800, 1000, 1250, 1500, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 15_000, 20_000,
    30_000, 60_000,
];
/// The same for the time that certificates of clients are still valid: from half an hour to a year, in milliseconds.
const VALIDITY_MS: [u64; 14] = [
    0,
    1_800_000,
    3_600_000,
    7_200_000,
    21_600_000,
    43_200_000,
    86_400_000,
    172_800_000,
    345_600_000,
    604_800_000,
    2_592_000_000,
    7_776_000_000,
    15_552_000_000,
    31_104_000_000,
];
/// Upper bounds in bytes of the buckets for how long answers are.
const ANSWER_BYTES: [u64; 7] = [1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
/// The same for events.
const EVENT_BYTES: [u64; 8] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072];
/// The label that only some numbers of requests have; it is the last one of a series.
const DRY_RUN: &str = ",dry_run=";
/// The codes that answers have; what is none of them counts as the last.
const CODES: [u16; 21] =
    [101, 200, 201, 202, 301, 304, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 503, 504];
/// Beyond so many kinds of requests further ones are counted together.
const SERIES_MAX: usize = 20_000;

/// One kind of request.
#[derive(Debug)]
pub(crate) struct Series {
    codes: [AtomicU64; CODES.len()],
    times: Histogram<{ BUCKETS_MS.len() }>,
    sizes: Sizes<{ ANSWER_BYTES.len() }>,
    long_running: AtomicI64,
    events: Sizes<{ EVENT_BYTES.len() }>,
}

impl Default for Series {
    fn default() -> Self {
        let (times, sizes, events) = (Histogram::new(&BUCKETS_MS), Sizes::new(&ANSWER_BYTES), Sizes::new(&EVENT_BYTES));
        Self { codes: Default::default(), times, sizes, long_running: AtomicI64::new(0), events }
    }
}

impl Series {
    /// An answer is out, or its head is, if it has no end.
    pub(crate) fn answered(&self, code: u16, took: Option<Duration>, bytes: u64) {
        self.codes[place_of(code)].fetch_add(1, Relaxed);
        let Some(took) = took else { return };
        self.times.observe(took);
        self.sizes.observe(bytes);
    }

    /// An event of so many bytes was sent.
    pub(crate) fn sent_event(&self, bytes: usize) {
        self.events.observe(bytes as u64);
    }
}

/// Where a code is counted.
fn place_of(code: u16) -> usize {
    CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1)
}

/// Counts a request without end as under way for as long as this lives.
pub(crate) struct LongRunning(Arc<Series>);

impl LongRunning {
    pub(crate) fn begin(series: &Arc<Series>) -> Self {
        series.long_running.fetch_add(1, Relaxed);
        Self(series.clone())
    }
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.long_running.fetch_sub(1, Relaxed);
    }
}

/// Numbers that few labels tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tally {
    /// Attempts to be known, by outcome.
    Authentication(&'static str),
    /// Those who were known, by what told.
    AuthenticatedBy(&'static str),
    /// Decisions, by outcome.
    Authorization(&'static str),
    /// Requests that were ended by us before their time, by the code that told so.
    Terminated(&'static str),
    /// Requests that waited for a place or were sent away.
    Dropped(&'static str),
}

impl Tally {
    fn row(self) -> (&'static str, &'static str, String) {
        match self {
            Self::Authentication(result) => {
                ("authentication_attempts", "Attempts to be known.", format!("result=\"{result}\""))
            }
            Self::AuthenticatedBy(by) => {
                ("authenticated_user_requests", "Requests of those who are known.", format!("username=\"{by}\""))
            }
            Self::Authorization(result) => {
                ("authorization_attempts_total", "Decisions about requests.", format!("result=\"{result}\""))
            }
            Self::Terminated(code) => (
                "apiserver_request_terminations_total",
                "Requests that the server ended before they were answered.",
                format!("code=\"{code}\",component=\"apiserver\""),
            ),
            Self::Dropped(kind) => (
                "apiserver_dropped_requests_total",
                "Requests that were sent away because there were too many.",
                format!("request_kind=\"{kind}\""),
            ),
        }
    }
}

/// The buckets of [`Calls`], in milliseconds.
const CALL_BUCKETS_MS: [u64; 12] = [5, 25, 100, 250, 500, 1000, 2000, 4000, 8000, 15_000, 30_000, 60_000];
/// Where parts of this process find the server, in numbers of theirs.
const OWN_HOST: &str = "localhost";

/// Requests of one method by parts of this process.
#[derive(Debug)]
struct Calls {
    codes: [AtomicU64; CODES.len()],
    times: Histogram<{ CALL_BUCKETS_MS.len() }>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { codes: Default::default(), times: Histogram::new(&CALL_BUCKETS_MS) }
    }
}

type Index<K, V> = watch::Sender<Arc<BTreeMap<K, Arc<V>>>>;

/// All numbers of a server. Shared by whoever counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Index<Box<str>, Series>,
    tallies: Index<Tally, AtomicU64>,
    calls: Index<&'static str, Calls>,
    validity: Histogram<{ VALIDITY_MS.len() }>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: watch::Sender::new(Arc::default()),
            tallies: watch::Sender::new(Arc::default()),
            calls: watch::Sender::new(Arc::default()),
            validity: Histogram::new(&VALIDITY_MS),
        }
    }
}

/// Finds an entry, or adds it.
fn entry<K: Ord + Clone, V: Default>(index: &Index<K, V>, key: &K) -> Arc<V> {
    if let Some(found) = index.borrow().get(key) {
        return found.clone();
    }
    let mut added = None;
    index.send_modify(|index| {
        let found = Arc::make_mut(index).entry(key.clone()).or_default();
        added = Some(found.clone());
    });
    added.expect("the closure ran")
}

impl Metrics {
    /// The series of a kind of requests, by its labels. These must come from what is served, not from what is asked.
    pub(crate) fn series(&self, labels: String) -> Arc<Series> {
        let key = if self.requests.borrow().len() < SERIES_MAX { labels.into_boxed_str() } else { Box::default() };
        entry(&self.requests, &key)
    }

    /// Counts one.
    pub(crate) fn count(&self, tally: Tally) {
        entry(&self.tallies, &tally).fetch_add(1, Relaxed);
    }

    /// A part of this process asked something, and has its answer, or the head of it.
    pub(crate) fn called(&self, method: &'static str, code: u16, took: Duration) {
        let calls = entry(&self.calls, &method);
        calls.codes[place_of(code)].fetch_add(1, Relaxed);
        calls.times.observe(took);
    }

    fn write_calls(&self, text: &mut String) {
        let calls = self.calls.borrow().clone();
        head(text, "rest_client_requests_total", "counter", "Requests of parts of this process.");
        for (method, calls) in calls.iter() {
            for (code, count) in CODES.iter().zip(&calls.codes) {
                let (count, labels) =
                    (count.load(Relaxed), format!("code=\"{code}\",host=\"{OWN_HOST}\",method=\"{method}\""));
                if count > 0 {
                    line(text, "rest_client_requests_total", &labels, count);
                }
            }
        }
        let name = "rest_client_request_duration_seconds";
        head(text, name, "histogram", "How long their answers took.");
        for (method, calls) in calls.iter() {
            calls.times.write(text, name, &format!("host=\"{OWN_HOST}\",verb=\"{method}\""));
        }
    }

    /// A request came with a certificate that is valid for so long still.
    pub(crate) fn certificate(&self, left: Duration) {
        self.validity.observe(left);
    }

    /// Everything as text. `more` adds what others know.
    pub(crate) fn text(&self, more: impl FnOnce(&mut String)) -> String {
        let mut text = String::new();
        self.write_requests(&mut text);
        let mut last = "";
        for (tally, count) in self.tallies.borrow().iter() {
            let (name, help, labels) = tally.row();
            if name != last {
                head(&mut text, name, "counter", help);
            }
            last = name;
            line(&mut text, name, &labels, count.load(Relaxed));
        }
        let name = "apiserver_client_certificate_expiration_seconds";
        head(&mut text, name, "histogram", "How long the certificates of requests are still valid.");
        self.validity.write(&mut text, name, "");
        self.write_calls(&mut text);
        more(&mut text);
        exposition::write_process(&mut text, std::path::Path::new("/proc"));
        text
    }

    fn write_requests(&self, text: &mut String) {
        let index = self.requests.borrow().clone();
        let all = || index.iter().map(|(labels, series)| (&**labels, &**series));
        head(text, "apiserver_request_total", "counter", "Requests that were answered.");
        for (labels, series) in all() {
            for (code, count) in CODES.iter().zip(&series.codes) {
                let count = count.load(Relaxed);
                if count > 0 {
                    line(text, "apiserver_request_total", &format!("code=\"{code}\",{labels}"), count);
                }
            }
        }
        for name in ["apiserver_request_duration_seconds", "apiserver_request_sli_duration_seconds"] {
            head(text, name, "histogram", "How long requests took, those without end left out.");
            for (labels, series) in all().filter(|(_, series)| series.times.count() > 0) {
                series.times.write(text, name, labels);
            }
        }
        // Two series that only differ in whether they kept what was written are one here.
        let sizes =
            summed(all().filter(|(_, series)| series.times.count() > 0), without_dry_run, |series| &series.sizes);
        head(text, "apiserver_response_sizes", "histogram", "How long answers were, in bytes.");
        sizes.iter().for_each(|(labels, sizes)| sizes.write(text, "apiserver_response_sizes", labels));
        head(text, "apiserver_longrunning_requests", "gauge", "Requests without end that are under way.");
        let mut running: BTreeMap<String, i64> = BTreeMap::new();
        for (labels, series) in all().filter(|(labels, _)| labels.contains("verb=\"WATCH\"")) {
            *running.entry(without_dry_run(labels)).or_default() += series.long_running.load(Relaxed);
        }
        running.iter().for_each(|(labels, count)| line(text, "apiserver_longrunning_requests", labels, count));
        let events =
            summed(all().filter(|(_, series)| series.events.count() > 0), of_resource, |series| &series.events);
        head(text, "apiserver_watch_events_total", "counter", "Events that were sent to watchers.");
        events.iter().for_each(|(labels, events)| line(text, "apiserver_watch_events_total", labels, events.count()));
        head(text, "apiserver_watch_events_sizes", "histogram", "How long these events were, in bytes.");
        events.iter().for_each(|(labels, events)| events.write(text, "apiserver_watch_events_sizes", labels));
    }
}

/// The sizes of series, added up where fewer labels don't tell them apart any more.
fn summed<'a, const N: usize>(
    all: impl Iterator<Item = (&'a str, &'a Series)>,
    labels: fn(&str) -> String,
    sizes: fn(&Series) -> &Sizes<N>,
) -> BTreeMap<String, Sizes<N>> {
    let mut summed: BTreeMap<String, Sizes<N>> = BTreeMap::new();
    for (all_labels, series) in all {
        let found = sizes(series);
        summed.entry(labels(all_labels)).or_insert_with(|| found.empty()).absorb(found);
    }
    summed
}

fn without_dry_run(labels: &str) -> String {
    labels.split_once(DRY_RUN).map_or(labels, |(labels, _)| labels).to_owned()
}

/// What tells resources apart. No value of a label has a comma in it.
fn of_resource(labels: &str) -> String {
    let is_wanted = |label: &&str| ["group=", "resource=", "version="].iter().any(|wanted| label.starts_with(wanted));
    labels.split(',').filter(is_wanted).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind_code_and_time() {
        let metrics = Metrics::default();
        let series = || metrics.series("verb=\"GET\",resource=\"pods\"".to_owned());
        for millis in [1, 30, 90_000] {
            series().answered(200, Some(Duration::from_millis(millis)), 100);
        }
        series().answered(404, Some(Duration::ZERO), 1);
        series().answered(418, None, 0);
        metrics.count(Tally::Authentication("success"));
        metrics.count(Tally::Authentication("success"));
        metrics.called("PATCH", 409, Duration::from_millis(7));
        let text = metrics.text(|text| text.push_str("more 1\n"));
        for line in [
            "apiserver_request_total{code=\"200\",verb=\"GET\",resource=\"pods\"} 3",
            "apiserver_request_total{code=\"404\",verb=\"GET\",resource=\"pods\"} 1",
            "apiserver_request_duration_seconds_bucket{verb=\"GET\",resource=\"pods\",le=\"0.005\"} 2",
            "apiserver_request_duration_seconds_bucket{verb=\"GET\",resource=\"pods\",le=\"60\"} 3",
            "apiserver_request_duration_seconds_bucket{verb=\"GET\",resource=\"pods\",le=\"+Inf\"} 4",
            "apiserver_request_duration_seconds_count{verb=\"GET\",resource=\"pods\"} 4",
            "apiserver_response_sizes_sum{verb=\"GET\",resource=\"pods\"} 301",
            "apiserver_response_sizes_bucket{verb=\"GET\",resource=\"pods\",le=\"1e+06\"} 4",
            "authentication_attempts{result=\"success\"} 2",
            "rest_client_requests_total{code=\"409\",host=\"localhost\",method=\"PATCH\"} 1",
            "rest_client_request_duration_seconds_bucket{host=\"localhost\",verb=\"PATCH\",le=\"0.025\"} 1",
            "more 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn series_become_one_where_fewer_labels_are_asked_for() {
        let metrics = Metrics::default();
        let labels = |scope: &str, dry_run: &str| {
            format!(
                "verb=\"WATCH\",group=\"apps\",resource=\"deployments\",scope=\"{scope}\",version=\"v1\",dry_run=\"{dry_run}\""
            )
        };
        for (scope, dry_run, bytes) in [("cluster", "", 10), ("namespace", "", 2000), ("cluster", "All", 10)] {
            let series = metrics.series(labels(scope, dry_run));
            series.sent_event(bytes);
            series.answered(200, Some(Duration::ZERO), 7);
        }
        let text = metrics.text(|_| {});
        let resource = "group=\"apps\",resource=\"deployments\",version=\"v1\"";
        let cluster = "verb=\"WATCH\",group=\"apps\",resource=\"deployments\",scope=\"cluster\",version=\"v1\"";
        for line in [
            format!("apiserver_watch_events_total{{{resource}}} 3"),
            format!("apiserver_watch_events_sizes_bucket{{{resource},le=\"1024\"}} 2"),
            format!("apiserver_watch_events_sizes_sum{{{resource}}} 2020"),
            format!("apiserver_response_sizes_count{{{cluster}}} 2"),
            format!("apiserver_request_total{{code=\"200\",{cluster},dry_run=\"All\"}} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_goes_on_is_counted_while_it_does() {
        let metrics = Metrics::default();
        let series = metrics.series("verb=\"WATCH\"".to_owned());
        let running = LongRunning::begin(&series);
        assert!(metrics.text(|_| {}).contains("apiserver_longrunning_requests{verb=\"WATCH\"} 1\n"));
        drop(running);
        assert!(metrics.text(|_| {}).contains("apiserver_longrunning_requests{verb=\"WATCH\"} 0\n"));
    }
}
