//! What of a log is wanted.

use jiff::Timestamp;
use k3sd_objects::query::Query;

use super::line::Output;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// To wait for more at the end.
    pub(crate) follow: bool,
    /// That of the container before.
    pub(crate) previous: bool,
    /// The time before each line.
    pub(crate) timestamps: bool,
    /// Nothing that is older.
    pub(crate) since: Option<Timestamp>,
    /// Nothing that is older than so many seconds; counted from now when the log is opened.
    pub(crate) since_seconds: Option<i64>,
    /// So many lines from the end.
    pub(crate) tail: Option<u64>,
    /// So many bytes at most.
    pub(crate) bytes_max: Option<u64>,
    /// Only what was written there.
    pub(crate) output: Option<Output>,
}

/// The answer to options that make no sense.
const INVALID: &str = "{\"message\": \"Invalid request.\"}";

impl LogOptions {
    /// Reads them from a query.
    ///
    /// # Errors
    /// The text of the answer, which is 422: a number or a time that is none, or two that can't go together.
    pub(crate) fn parse(query: &Query) -> Result<Self, &'static str> {
        let number = |key: &str, min: i64| match query.first(key).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.parse::<i64>() {
                Ok(number) if number >= min => Ok(Some(number)),
                _ => Err(INVALID),
            },
        };
        let since_seconds = number("sinceSeconds", 1)?;
        let since = match query.first("sinceTime").filter(|value| !value.is_empty()) {
            None => None,
            Some(value) => Some(value.parse::<Timestamp>().map_err(|_| INVALID)?),
        };
        let output = match query.first("stream").unwrap_or("All") {
            "All" | "" => None,
            "Stdout" => Some(Output::Stdout),
            "Stderr" => Some(Output::Stderr),
            _ => return Err(INVALID),
        };
        let tail = number("tailLines", 0)?;
        if since_seconds.is_some() && since.is_some() || tail.is_some() && output.is_some() {
            return Err(INVALID);
        }
        let unsigned = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        Ok(Self {
            follow: query.is_true("follow"),
            previous: query.is_true("previous"),
            timestamps: query.is_true("timestamps"),
            since,
            since_seconds,
            tail: unsigned(tail),
            bytes_max: unsigned(number("limitBytes", 1)?),
            output,
        })
    }

    /// Nothing older than this is wanted, if it is `now`.
    pub(crate) fn since_at(&self, now: Timestamp) -> Option<Timestamp> {
        let seconds = self
            .since_seconds
            .map(|seconds| now.checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
        self.since.or(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<LogOptions, &'static str> {
        LogOptions::parse(&Query::parse(query))
    }

    #[test]
    fn options_are_read() {
        let wanted = LogOptions {
            follow: true,
            timestamps: true,
            since_seconds: Some(60),
            tail: Some(0),
            bytes_max: Some(7),
            ..LogOptions::default()
        };
        let query = "follow=true&timestamps=1&previous=false&sinceSeconds=60&tailLines=0&limitBytes=7&stream=All";
        assert_eq!(parse(query), Ok(wanted));
        assert_eq!(parse(""), Ok(LogOptions::default()));
        assert_eq!(parse("stream=Stderr").unwrap().output, Some(Output::Stderr));
    }

    #[test]
    fn nonsense_is_refused() {
        for query in [
            "sinceSeconds=0",
            "sinceSeconds=a",
            "tailLines=-1",
            "limitBytes=0",
            "sinceTime=yesterday",
            "sinceSeconds=1&sinceTime=2030-01-01T00:00:00Z",
            "stream=stdout",
            "stream=Stdout&tailLines=1",
            "tailLines=99999999999999999999",
        ] {
            assert_eq!(parse(query), Err(INVALID), "{query}");
        }
    }

    #[test]
    fn seconds_count_back_from_now() {
        let now: Timestamp = "2030-01-01T00:01:00Z".parse().unwrap();
        let since = |query| parse(query).unwrap().since_at(now).map(|since| since.to_string());
        assert_eq!(since("sinceSeconds=60").as_deref(), Some("2030-01-01T00:00:00Z"));
        assert_eq!(since("sinceTime=2030-01-01T00:00:30Z").as_deref(), Some("2030-01-01T00:00:30Z"));
        assert_eq!(since("sinceSeconds=9223372036854775807").map(|_| ()), Some(()));
        assert_eq!(since(""), None);
    }
}
