//! Times as Go writes them, in documents.

use std::time::Duration;

use k3sd_client::arguments::duration;
use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

/// Writes a time as Go would, such as `4h0m0s`.
pub(super) fn go(span: Duration) -> String {
    let (seconds, nanos) = (span.as_secs(), span.subsec_nanos());
    if seconds == 0 && nanos > 0 {
        let (unit, name) = match nanos {
            1_000_000.. => (1_000_000, "ms"),
            1000.. => (1000, "µs"),
            _ => (1, "ns"),
        };
        return format!("{}{name}", f64::from(nanos) / f64::from(unit));
    }
    let fraction = format!("{nanos:09}");
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}{dot}{fraction}s"),
        (0, _) => format!("{minutes}m{rest}{dot}{fraction}s"),
        _ => format!("{hours}h{minutes}m{rest}{dot}{fraction}s"),
    }
}

pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    go(*span).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration(&text).map_err(|wanted| serde::de::Error::custom(format!("{text:?} is not {wanted}")))
}

/// The same, of what may be missing.
pub(super) mod optional {
    use super::{Deserializer, Duration, Serializer, deserialize as read, serialize as write};

    pub(in crate::config) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        write(&span.unwrap_or_default(), serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        read(deserializer).map(Some)
    }
}
