//! How one event becomes one line, in each of the three styles.
//!
//! Invariant: one event is one line, whatever the message holds. Control characters arrive escaped, and `actor` stands
//! before anything that a peer may have had a say in, so a message can forge neither a line nor its origin.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k3sd_runtime::Clock;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The actor of a line that no actor wrote: start-up, signal handling, a library's own thread.
const NO_ACTOR: &str = "-";

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// For people. Colours only on a terminal that wants them.
    Text {
        /// Whether to write ANSI colours.
        colours: bool,
    },
    /// One JSON object per line.
    Json,
    /// A syslog priority and no timestamp: journald adds its own.
    Journald,
}

/// Formats events in one style. `actor` tells which actor is running on this thread.
#[derive(Clone, Debug)]
pub(crate) struct Formatter {
    pub(crate) style: Style,
    pub(crate) clock: Clock,
    pub(crate) actor: fn() -> Option<Arc<str>>,
}

impl Formatter {
    /// A whole line with an end, for what the log itself has to say.
    pub(crate) fn notice(&self, level: Level, target: &str, message: &str) -> String {
        let mut line = String::new();
        let fields = Collected { message: message.to_owned(), ..Collected::default() };
        self.write(&mut line, level, target, fields).expect("writing to a String cannot fail");
        line
    }

    fn write(&self, out: &mut dyn fmt::Write, level: Level, target: &str, event: Collected) -> fmt::Result {
        let path = (self.actor)();
        let actor = path.as_deref().unwrap_or(NO_ACTOR);
        match self.style {
            Style::Text { colours } => {
                let paint = Paint { colours };
                paint.write(out, DIM, &timestamp(&self.clock))?;
                out.write_char(' ')?;
                paint.write(out, colour_of(level), &format!("{level:5}"))?;
                write!(out, " {}={} ", paint.of(DIM, "actor"), paint.of(CYAN, &escaped(actor)))?;
                write!(out, "{}: {}", paint.of(DIM, target), escaped(&event.message))?;
                for (key, value) in &event.fields {
                    write!(out, " {}={}", paint.of(DIM, key), quoted(value))?;
                }
            }
            Style::Journald => {
                write!(out, "<{}>actor={} {target}: {}", priority(level), escaped(actor), escaped(&event.message))?;
                for (key, value) in &event.fields {
                    write!(out, " {key}={}", quoted(value))?;
                }
            }
            Style::Json => {
                let line = JsonLine {
                    ts: timestamp(&self.clock),
                    level: level.as_str(),
                    target,
                    actor,
                    message: &event.message,
                    fields: event.fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                };
                out.write_str(&serde_json::to_string(&line).map_err(|_| fmt::Error)?)?;
            }
        }
        out.write_char('\n')
    }
}

impl<S, N> FormatEvent<S, N> for Formatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut collected = Collected::default();
        event.record(&mut collected);
        self.write(&mut writer, *event.metadata().level(), event.metadata().target(), collected)
    }
}

/// The shape of a JSON line; the order of the fields is the order on the line.
#[derive(serde::Serialize)]
struct JsonLine<'a> {
    ts: String,
    level: &'a str,
    target: &'a str,
    actor: &'a str,
    message: &'a str,
    fields: Map<String, Value>,
}

/// The fields of an event, in the order they were written, with their types.
#[derive(Default)]
struct Collected {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Collected {
    fn put(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity and no NaN; as text they at least stay visible.
        let number = serde_json::Number::from_f64(value);
        self.put(field, number.map_or_else(|| Value::String(value.to_string()), Value::Number));
    }

    /// Our errors never print their source, so whoever logs one prints the whole chain.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.put(field, Value::String(text));
    }
}

/// The wall clock as RFC 3339 with milliseconds, in UTC.
pub(crate) fn timestamp(clock: &Clock) -> String {
    format!("{:.3}", wall(clock))
}

/// The wall clock. One that is beyond the year 9999 counts as its last moment rather than as a reason to fail.
pub(crate) fn wall(clock: &Clock) -> Timestamp {
    let nanos = i128::try_from(clock.wall().as_nanos()).unwrap_or(i128::MAX);
    Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::MAX)
}

/// Syslog's severity, as journald reads it from the start of a line.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

const DIM: &str = "2";
const CYAN: &str = "36";

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "1;31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "34",
    }
}

/// Colours, or their absence.
#[derive(Clone, Copy)]
struct Paint {
    colours: bool,
}

impl Paint {
    fn of(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(self, out: &mut dyn fmt::Write, code: &str, text: &str) -> fmt::Result {
        if self.colours { write!(out, "\x1b[{code}m{text}\x1b[0m") } else { out.write_str(text) }
    }
}

/// Whether a character could end the line, move the cursor or reorder what is shown.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with every unsafe character spelled out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// A field's value: bare when no reader could take it for anything else, in quotes otherwise.
fn quoted(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let bare = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || is_unsafe(c) || "\"=".contains(c));
    if bare {
        return text.clone();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_unsafe(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use tracing::{debug, error, info, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// A writer whose lines the test reads afterwards.
    #[derive(Clone)]
    struct Capture(mpsc::Sender<Vec<u8>>);

    impl io::Write for Capture {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn in_kine() -> Option<Arc<str>> {
        Some(Arc::from("server/kine"))
    }

    fn outside() -> Option<Arc<str>> {
        None
    }

    /// What `body` logs in this style. The simulated clock stands still at the start of 2030.
    fn logged(style: Style, actor: fn() -> Option<Arc<str>>, body: fn()) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _paused = runtime.enter();
        let (sender, lines) = mpsc::channel();
        let capture = Capture(sender);
        let formatter = Formatter { style, clock: Clock::simulated(1), actor };
        let layer = tracing_subscriber::fmt::layer().event_format(formatter).with_writer(move || capture.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), body);
        lines.try_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    const PLAIN: Style = Style::Text { colours: false };

    #[test]
    fn text_names_time_level_actor_target_and_fields() {
        let line = logged(PLAIN, in_kine, || info!(target: "k3sd_kine", rows = 3, table = "kine", "compacted"));
        assert_eq!(line, "2030-01-01T00:00:00.000Z INFO  actor=server/kine k3sd_kine: compacted rows=3 table=kine\n");
    }

    #[test]
    fn a_line_from_outside_any_actor_says_so() {
        let line = logged(PLAIN, outside, || warn!(target: "k3sd", "starting"));
        assert_eq!(line, "2030-01-01T00:00:00.000Z WARN  actor=- k3sd: starting\n");
    }

    #[test]
    fn text_has_colours_only_when_asked() {
        let line = logged(Style::Text { colours: true }, outside, || error!(target: "k3sd", "gone"));
        assert!(line.contains("\x1b[1;31mERROR\x1b[0m"), "{line:?}");
        assert!(!logged(PLAIN, outside, || error!("gone")).contains('\x1b'));
    }

    #[test]
    fn a_message_can_forge_neither_a_line_nor_a_colour() {
        let line =
            logged(PLAIN, outside, || info!(target: "k3sd", name = "a\nb \u{202e}c", "x\n2030 \x1b[2J\r\u{2028}y"));
        assert_eq!(
            line,
            "2030-01-01T00:00:00.000Z INFO  actor=- k3sd: x\\n2030 \\u{1b}[2J\\r\\u{2028}y name=\"a\\nb \\u{202e}c\"\n"
        );
    }

    #[test]
    fn values_that_could_be_taken_for_two_fields_are_quoted() {
        let line =
            logged(PLAIN, outside, || info!(target: "k3sd", peer = "a actor=root", empty = "", quote = "\"", "m"));
        assert!(line.ends_with(" m peer=\"a actor=root\" empty=\"\" quote=\"\\\"\"\n"), "{line:?}");
    }

    #[test]
    fn journald_gets_a_priority_and_no_time() {
        assert_eq!(
            logged(Style::Journald, in_kine, || warn!(target: "k3sd_kine", lag_ms = 20, "slow\ndisk")),
            "<4>actor=server/kine k3sd_kine: slow\\ndisk lag_ms=20\n"
        );
        let starts = logged(Style::Journald, outside, || {
            error!("e");
            info!("i");
            debug!("d");
        });
        let starts: Vec<&str> = starts.lines().map(|line| &line[..3]).collect();
        assert_eq!(starts, ["<3>", "<6>", "<7>"]);
    }

    #[test]
    fn json_keeps_types_and_stays_one_line() {
        let line = logged(Style::Json, in_kine, || {
            info!(target: "k3sd_kine", rows = 3, ok = true, ratio = 0.5, nan = f64::NAN, "a \"b\"\nc");
        });
        assert_eq!(line.matches('\n').count(), 1);
        assert!(
            line.starts_with("{\"ts\":\"2030-01-01T00:00:00.000Z\",\"level\":\"INFO\",\"target\":\"k3sd_kine\""),
            "{line}"
        );
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["actor"], "server/kine");
        assert_eq!(value["message"], "a \"b\"\nc");
        assert_eq!(value["fields"], serde_json::json!({"rows": 3, "ok": true, "ratio": 0.5, "nan": "NaN"}));
    }

    #[test]
    fn an_error_is_printed_with_all_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("write state")]
        struct Outer(#[source] io::Error);

        let line = logged(PLAIN, outside, || {
            let error = Outer(io::Error::other("disk is full"));
            error!(target: "k3sd", error = &error as &dyn Error, "giving up");
        });
        assert!(line.ends_with("giving up error=\"write state: disk is full\"\n"), "{line:?}");
    }
}
