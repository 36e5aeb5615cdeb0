//! What a request asks for, as a type. Pure: every refusal is a plain unit test.

use std::borrow::Cow;
use std::time::Duration;

use hyper::{Method, StatusCode};

use crate::system::ROOT;

/// Most messages of one trace: it costs the traced actor time.
pub const TRACE_MESSAGES_MAX: u64 = 100_000;

/// Longest time of one trace.
pub const TRACE_DURATION_MAX: Duration = Duration::from_secs(3600);

/// In which way an actor is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// Dropped at its next await.
    Kill,
    /// Panics at its next await.
    Panic,
    /// Finishes the message in hand and ends.
    Stop,
}

impl Kill {
    const ALL: [Self; 3] = [Self::Kill, Self::Panic, Self::Stop];

    /// The word used on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Panic => "panic",
            Self::Stop => "stop",
        }
    }
}

/// What is done to an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Kill(Kill),
    Suspend,
    Resume,
}

impl Deed {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Kill(how) => how.word(),
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Tree,
    Actor { path: String },
    Events,
    Trace { path: String, messages: u64, duration: Duration },
    Control { path: String, deed: Deed },
}

/// An answer that is not a success.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) error: String,
    /// The method that would be right.
    pub(super) allow: Option<&'static str>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), allow: None }
    }

    fn query(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

/// Understands a request, or says what is wrong with it.
pub(super) fn read(method: &Method, path: &str, query: &str) -> Result<Asked, Refused> {
    let unknown = || Refused::new(StatusCode::NOT_FOUND, "there is no such page; see /v1/tree");
    let rest = path.strip_prefix("/v1/").ok_or_else(unknown)?;
    let (page, actor) = rest.split_once('/').map_or((rest, None), |(page, actor)| (page, Some(actor)));
    let right = match (page, actor.is_some()) {
        ("tree" | "events", false) | ("actors" | "trace", true) => Method::GET,
        ("kill" | "suspend" | "resume", true) => Method::POST,
        _ => return Err(unknown()),
    };
    if *method != right {
        let allow = if right == Method::GET { "GET" } else { "POST" };
        let error = format!("/v1/{page} takes {allow}");
        return Err(Refused { allow: Some(allow), ..Refused::new(StatusCode::METHOD_NOT_ALLOWED, error) });
    }
    let path = actor_path(actor.unwrap_or_default())?;
    let mut query = Query::read(query)?;
    let asked = match page {
        "tree" => Asked::Tree,
        "events" => Asked::Events,
        "actors" => Asked::Actor { path },
        "trace" => {
            let millis_max = u64::try_from(TRACE_DURATION_MAX.as_millis()).unwrap_or(u64::MAX);
            let messages = query.number("limit", TRACE_MESSAGES_MAX)?;
            let duration = Duration::from_millis(query.number("for_ms", millis_max)?);
            Asked::Trace { path, messages, duration }
        }
        "kill" => Asked::Control { path, deed: Deed::Kill(query.how()?) },
        "suspend" => Asked::Control { path, deed: Deed::Suspend },
        _ => Asked::Control { path, deed: Deed::Resume },
    };
    query.done().map(|()| asked)
}

/// The path of an actor; slashes around it don't matter, and nothing names the root.
fn actor_path(text: &str) -> Result<String, Refused> {
    let decoded = decode(text)?;
    let trimmed = decoded.trim_matches('/');
    Ok(if trimmed.is_empty() { ROOT.to_owned() } else { trimmed.to_owned() })
}

fn decode(text: &str) -> Result<Cow<'_, str>, Refused> {
    if !text.contains('%') {
        return Ok(text.into());
    }
    let broken = || Refused::query("a percent sign has to be followed by two hexadecimal digits of UTF-8");
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(broken);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            decoded.push(u8::try_from(value).map_err(|_| broken())?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| broken())
}

/// Writes an actor's path so that it can stand in a request.
pub(super) fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.trim_matches('/').bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The parameters, each to be taken once.
struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    fn read(text: &'a str) -> Result<Self, Refused> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(key)?;
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(Refused::query(format!("{key:?} is given twice")));
            }
            pairs.push((key, decode(value)?));
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, key: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(other, _)| other == key)?;
        Some(self.0.swap_remove(at).1)
    }

    fn number(&mut self, key: &str, max: u64) -> Result<u64, Refused> {
        let value = self.take(key).and_then(|value| value.parse().ok()).filter(|number| (1..=max).contains(number));
        value.ok_or_else(|| Refused::query(format!("{key} has to be given, as a number from 1 to {max}")))
    }

    fn how(&mut self) -> Result<Kill, Refused> {
        let Some(word) = self.take("how") else { return Ok(Kill::Kill) };
        let found = Kill::ALL.into_iter().find(|how| how.word() == word);
        found.ok_or_else(|| Refused::query(format!("how is kill, panic or stop, not {word:?}")))
    }

    fn done(self) -> Result<(), Refused> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(Refused::query(format!("nobody knows a parameter {key:?} here"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, query: &str) -> Result<Asked, u16> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        read(&method, path, query).map_err(|refused| refused.status.as_u16())
    }

    #[test]
    fn requests_are_understood() {
        let path = || "server/kine".to_owned();
        let rows = [
            ("GET", "/v1/tree", "", Asked::Tree),
            ("GET", "/v1/events", "", Asked::Events),
            ("GET", "/v1/actors/server/kine", "", Asked::Actor { path: path() }),
            ("GET", "/v1/actors//server%2Fkine/", "", Asked::Actor { path: path() }),
            ("GET", "/v1/actors/", "", Asked::Actor { path: ROOT.to_owned() }),
            ("GET", "/v1/actors/a%C3%A4%25", "", Asked::Actor { path: "aä%".to_owned() }),
            (
                "GET",
                "/v1/trace/server/kine",
                "for_ms=1500&limit=3",
                Asked::Trace { path: path(), messages: 3, duration: Duration::from_millis(1500) },
            ),
            ("POST", "/v1/kill/server/kine", "", Asked::Control { path: path(), deed: Deed::Kill(Kill::Kill) }),
            ("POST", "/v1/kill/server/kine", "how=stop", Asked::Control { path: path(), deed: Deed::Kill(Kill::Stop) }),
            ("POST", "/v1/suspend/server/kine", "", Asked::Control { path: path(), deed: Deed::Suspend }),
            ("POST", "/v1/resume/server/kine", "", Asked::Control { path: path(), deed: Deed::Resume }),
        ];
        for (method, path, query, asked) in rows {
            assert_eq!(ask(method, path, query), Ok(asked), "{method} {path}?{query}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_right_status() {
        let rows = [
            ("GET", "/", "", 404),
            ("GET", "/v2/tree", "", 404),
            ("GET", "/v1/tree/server", "", 404),
            ("GET", "/v1/actors", "", 404),
            ("POST", "/v1/tree", "", 405),
            ("HEAD", "/v1/tree", "", 405),
            ("GET", "/v1/kill/server", "", 405),
            ("GET", "/v1/tree", "depth=1", 400),
            ("GET", "/v1/actors/%2", "", 400),
            ("GET", "/v1/actors/%ff", "", 400),
            ("GET", "/v1/trace/server", "", 400),
            ("GET", "/v1/trace/server", "limit=5", 400),
            ("GET", "/v1/trace/server", "for_ms=5", 400),
            ("GET", "/v1/trace/server", "limit=0&for_ms=5", 400),
            ("GET", "/v1/trace/server", "limit=5&limit=5&for_ms=5", 400),
            ("GET", "/v1/trace/server", "limit=100001&for_ms=5", 400),
            ("GET", "/v1/trace/server", "limit=5&for_ms=3600001", 400),
            ("GET", "/v1/trace/server", "limit=-1&for_ms=5", 400),
            ("POST", "/v1/kill/server", "how=gently", 400),
        ];
        for (method, path, query, status) in rows {
            assert_eq!(ask(method, path, query), Err(status), "{method} {path}?{query}");
        }
    }

    #[test]
    fn any_path_survives_the_way_through_a_request() {
        for path in ["/", "server/kine", "pods/a b%c?d#e", "ä/ö", "a&b=c"] {
            let request = format!("/v1/actors/{}", encode(path));
            assert_eq!(ask("GET", &request, ""), Ok(Asked::Actor { path: path.to_owned() }), "{request}");
        }
    }
}
