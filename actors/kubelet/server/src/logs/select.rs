//! What a reader gets of the lines of a log: pure.

use bytes::{BufMut as _, BytesMut};
use jiff::Timestamp;

use super::line::Line;
use super::options::LogOptions;

/// Chooses from the lines of a log, and writes what is chosen as the reader wants it.
#[derive(Debug)]
pub(crate) struct Selection {
    options: LogOptions,
    since: Option<Timestamp>,
    /// How many lines may be shown; nothing for any number.
    lines_left: Option<u64>,
    bytes_left: Option<u64>,
    /// Whether the next line begins one.
    at_start: bool,
}

impl Selection {
    /// For these options, at this time.
    pub(crate) fn new(options: LogOptions, now: Timestamp) -> Self {
        // Who follows counted lines from the end to find where to begin, and then wants all.
        let lines_left = options.tail.filter(|_| !options.follow);
        Self { since: options.since_at(now), lines_left, bytes_left: options.bytes_max, at_start: true, options }
    }

    /// Whether nothing more is wanted.
    pub(crate) fn is_done(&self) -> bool {
        self.lines_left == Some(0) || self.bytes_left == Some(0)
    }

    /// Adds what is wanted of a line of the file. A line that is none is left out.
    pub(crate) fn take(&mut self, raw: &[u8], out: &mut BytesMut) {
        if self.is_done() {
            return;
        }
        let Ok(line) = Line::parse(raw) else { return };
        let at_start = std::mem::replace(&mut self.at_start, !line.goes_on());
        if let Some(left) = &mut self.lines_left {
            *left -= 1;
        }
        let is_old = self.since.is_some_and(|since| line.time < since);
        if is_old || self.options.output.is_some_and(|output| output != line.output) {
            return;
        }
        if self.options.timestamps && at_start {
            self.put(format!("{:.9} ", line.time).as_bytes(), out);
        }
        self.put(line.content, out);
    }

    fn put(&mut self, bytes: &[u8], out: &mut BytesMut) {
        let fits = self.bytes_left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX).min(bytes.len());
        if let Some(left) = &mut self.bytes_left {
            *left -= fits as u64;
        }
        out.put_slice(&bytes[..fits]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&[u8]; 4] = [
        b"2030-01-01T00:00:00.5Z stdout F one\n",
        b"2030-01-01T00:00:01Z stderr P tw\n",
        b"2030-01-01T00:00:01Z stderr F o\n",
        b"2030-01-01T00:00:02.000000001Z stdout F three\n",
    ];

    fn shown(options: LogOptions) -> String {
        let now = "2030-01-01T00:00:02Z".parse().unwrap();
        let mut selection = Selection::new(options, now);
        let mut out = BytesMut::new();
        for line in LINES.into_iter().chain([&b"garbage\n"[..]]) {
            selection.take(line, &mut out);
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_is_shown() {
        let all = LogOptions::default();
        assert_eq!(shown(all.clone()), "one\ntwo\nthree\n");
        let timestamps = LogOptions { timestamps: true, ..all.clone() };
        assert_eq!(
            shown(timestamps),
            "2030-01-01T00:00:00.500000000Z one\n2030-01-01T00:00:01.000000000Z two\n2030-01-01T00:00:02.000000001Z three\n"
        );
        assert_eq!(shown(LogOptions { since_seconds: Some(1), ..all.clone() }), "two\nthree\n");
        assert_eq!(shown(LogOptions { bytes_max: Some(5), ..all.clone() }), "one\nt");
        assert_eq!(shown(LogOptions { tail: Some(1), ..all.clone() }), "one\n");
        assert_eq!(shown(LogOptions { tail: Some(1), follow: true, ..all.clone() }), "one\ntwo\nthree\n");
        let stderr = LogOptions { output: Some(super::super::line::Output::Stderr), ..all };
        assert_eq!(shown(stderr), "two\n");
    }
}
