//! Putting answers into columns and units that people read.

use std::time::Duration;

use k3sd_runtime::inspect::wire::Actor;

/// Text from elsewhere, safe on a terminal: what would move the cursor or turn the reading direction is spelled out.
pub(super) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A span in the two units that matter.
pub(super) fn span(span: Duration) -> String {
    let (seconds, micros) = (span.as_secs(), span.subsec_micros());
    match seconds {
        0 if micros < 1000 => format!("{micros}us"),
        0 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        1..=59 => format!("{seconds}.{}s", micros / 100_000),
        60..=3599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A time for people, in UTC.
pub(super) fn time(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    timestamp.map_or_else(|| format!("{unix_ms} ms after 1970"), |timestamp| format!("{timestamp:.3}"))
}

/// What an actor is: a supervisor's strategy, or its kind.
pub(super) fn role(actor: &Actor) -> &str {
    actor.strategy.as_deref().unwrap_or(&actor.kind)
}

/// Rows as columns, two blanks apart. Columns listed in `right` hold numbers.
pub(super) fn columns(rows: &[Vec<String>], right: &[usize]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if at == 0 { "" } else { "  " };
            let cell = if right.contains(&at) { format!("{cell:>width$}") } else { format!("{cell:width$}") };
            line.push_str(gap);
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled_out() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(shown("\u{9b}\u{202e}ä"), "\\u{9b}\\u{202e}ä");
    }

    #[test]
    fn spans_are_short() {
        for (millis, text) in
            [(0, "0us"), (5, "5.0ms"), (1250, "1.2s"), (61_000, "1m01s"), (7_500_000, "2h05m"), (90_000_000, "1d01h")]
        {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!(span(Duration::from_micros(999)), "999us");
    }

    #[test]
    fn times_are_in_utc_and_odd_ones_harmless() {
        assert_eq!(time(1_893_456_000_250), "2030-01-01T00:00:00.250Z");
        assert!(time(u64::MAX).ends_with("after 1970"));
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["ä".to_owned(), "1".to_owned()], vec!["long".to_owned(), "100".to_owned()]];
        assert_eq!(columns(&rows, &[1]), "ä       1\nlong  100\n");
    }
}
