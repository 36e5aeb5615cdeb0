//! Reads a kind from the API and keeps nothing of it: a list, then changes as they come, each read at once into what
//! answers need.
//!
//! An informer keeps whole objects, which for ten thousand Services and their EndpointSlices is several times what this DNS
//! may take altogether. So it reads by itself; the rules are the informers': list in pages, watch from there, list again
//! when history is gone, and wait longer after each failure.

use std::borrow::Cow;
use std::pin::Pin;
use std::time::Duration;

use futures_util::io::AsyncBufReadExt as _;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use k3sd_runtime::{Backoff, Clock, Rng};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Objects of a page of a list.
const PAGE_OBJECTS: u32 = 500;
/// Changes that are handed on together.
const BATCH: usize = 256;
/// How long the server is asked to serve a watch, and how much longer silence is borne.
const WATCH_SECONDS: u32 = 290;
const SILENCE_LIMIT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 30);
/// The waits after failures. Names are needed early, and rights may come a moment after the start.
const RETRY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(100),
    delay_max: Duration::from_secs(5),
    factor: 2.0,
    jitter: 0.5,
    reset_after: Duration::MAX,
};

/// What is read, and how. `T` is what is left of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<T> {
    /// The path of the API, such as `/api/v1/services`.
    pub(crate) path: &'static str,
    /// Only those with such fields.
    pub(crate) fields: Option<&'static str>,
    /// Reads an object, or that it is gone; `None` if it is of no use.
    pub(crate) read: fn(&str, bool) -> serde_json::Result<Option<T>>,
}

/// What is heard.
#[derive(Debug)]
pub(crate) enum Heard<T> {
    /// Part of all that there is.
    Listed {
        /// The list begins with it.
        is_first: bool,
        /// The list ends with it.
        is_last: bool,
        /// Objects.
        objects: Vec<T>,
    },
    /// Changes, in order.
    Changed(Vec<T>),
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_: Option<String>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    metadata: ListMeta,
    code: Option<u16>,
}

type Lines = Pin<Box<dyn Stream<Item = std::io::Result<String>> + Send>>;

/// Where the reader is.
enum State {
    List { token: Option<String> },
    Open { version: String },
    Follow { version: String, lines: Lines },
}

struct Reader<T> {
    client: Client,
    source: Source<T>,
    clock: Clock,
    rng: Rng,
    failures: u32,
    state: State,
}

/// Why reading goes on elsewhere.
enum Trouble {
    /// History is gone.
    Expired,
    /// Something that may pass.
    Failed(String),
}

/// Reads for ever.
pub(crate) fn feed<T: Send + 'static>(
    client: Client,
    source: Source<T>,
    clock: Clock,
    rng: Rng,
) -> Pin<Box<dyn Stream<Item = Heard<T>> + Send>> {
    let reader = Reader { client, source, clock, rng, failures: 0, state: State::List { token: None } };
    Box::pin(stream::unfold(reader, |mut reader| async move {
        loop {
            match reader.step().await {
                Ok(Some(heard)) => return Some((heard, reader)),
                Ok(None) => {}
                Err(Trouble::Expired) => reader.state = State::List { token: None },
                Err(Trouble::Failed(error)) => reader.wait(&error).await,
            }
        }
    }))
}

impl<T> Reader<T> {
    async fn wait(&mut self, error: &str) {
        tracing::debug!(path = self.source.path, error, "the API can't be read; trying again");
        self.failures = self.failures.saturating_add(1);
        let delay = RETRY.delay(self.failures, &mut self.rng);
        self.clock.sleep_until(self.clock.now() + delay).await;
    }

    async fn step(&mut self) -> Result<Option<Heard<T>>, Trouble> {
        match std::mem::replace(&mut self.state, State::List { token: None }) {
            State::List { token } => self.list(token).await.map(Some),
            State::Open { version } => {
                let opened = self.open(&version).await;
                self.state = match opened {
                    Ok(lines) => State::Follow { version, lines },
                    Err(trouble) => {
                        self.state = State::Open { version };
                        return Err(trouble);
                    }
                };
                Ok(None)
            }
            State::Follow { version, lines } => self.follow(version, lines).await,
        }
    }

    /// A page of the list. One that fails makes the whole list begin anew.
    async fn list(&mut self, token: Option<String>) -> Result<Heard<T>, Trouble> {
        let is_first = token.is_none();
        let params = ListParams {
            field_selector: self.source.fields.map(str::to_owned),
            limit: Some(PAGE_OBJECTS),
            continue_token: token,
            ..ListParams::default()
        };
        let request =
            Request::new(self.source.path).list(&params).map_err(|error| Trouble::Failed(error.to_string()))?;
        let text = self.client.request_text(request).await.map_err(trouble)?;
        let List { metadata, items } =
            serde_json::from_str(&text).map_err(|error| Trouble::Failed(error.to_string()))?;
        let objects = items.into_iter().flatten().filter_map(|item| self.read(item.get(), false)).collect();
        let token = metadata.continue_.filter(|token| !token.is_empty());
        let is_last = token.is_none();
        self.state = match token {
            Some(token) => State::List { token: Some(token) },
            None => State::Open { version: metadata.resource_version.unwrap_or_default() },
        };
        self.failures = 0;
        Ok(Heard::Listed { is_first, is_last, objects })
    }

    async fn open(&mut self, version: &str) -> Result<Lines, Trouble> {
        let params = WatchParams {
            field_selector: self.source.fields.map(str::to_owned),
            timeout: Some(WATCH_SECONDS),
            ..WatchParams::default()
        };
        let request = Request::new(self.source.path).watch(&params, version);
        let mut request = request.map_err(|error| Trouble::Failed(error.to_string()))?;
        // Compressed, an event would wait for the next.
        let plain = http::header::HeaderValue::from_static("identity");
        request.headers_mut().insert(http::header::ACCEPT_ENCODING, plain);
        let stream = self.client.request_stream(request).await.map_err(trouble)?;
        Ok(Box::pin(Box::pin(stream).lines()))
    }

    /// Waits for what the watch says next, and takes all that it has to say by then.
    async fn follow(&mut self, mut version: String, mut lines: Lines) -> Result<Option<Heard<T>>, Trouble> {
        // Silence for so long is a connection that nobody told to be dead.
        let deadline = self.clock.now() + SILENCE_LIMIT;
        let mut next = tokio::select! {
            next = lines.next() => next,
            () = self.clock.sleep_until(deadline) => None,
        };
        let mut changes = Vec::new();
        let mut ended = Ok(());
        let mut is_open = true;
        for _ in 0..BATCH {
            let Some(line) = next else {
                is_open = false;
                break;
            };
            match line
                .map_err(|error| Trouble::Failed(error.to_string()))
                .and_then(|line| self.event(&line, &mut version))
            {
                Ok(change) => changes.extend(change),
                Err(trouble) => {
                    (ended, is_open) = (Err(trouble), false);
                    break;
                }
            }
            next = match lines.next().now_or_never() {
                Some(next) => next,
                None => break,
            };
        }
        self.failures = if changes.is_empty() { self.failures } else { 0 };
        self.state = if is_open { State::Follow { version, lines } } else { State::Open { version } };
        match ended {
            // What came before is told first; the watch is opened again, and says why it can't be.
            Err(trouble) if changes.is_empty() => Err(trouble),
            _ => Ok((!changes.is_empty()).then_some(Heard::Changed(changes))),
        }
    }

    fn event(&self, line: &str, version: &mut String) -> Result<Option<T>, Trouble> {
        let Ok(Event { kind, object }) = serde_json::from_str::<Event<'_>>(line) else {
            // Cut off where the connection ended.
            return Ok(None);
        };
        let object = object.get();
        let about: Versioned = serde_json::from_str(object).map_err(|error| Trouble::Failed(error.to_string()))?;
        if kind == "ERROR" {
            return Err(match about.code {
                Some(410) => Trouble::Expired,
                code => Trouble::Failed(format!("the watch failed with {code:?}")),
            });
        }
        if let Some(now) = about.metadata.resource_version {
            *version = now;
        }
        Ok(if kind == "BOOKMARK" { None } else { self.read(object, kind == "DELETED") })
    }

    fn read(&self, object: &str, is_gone: bool) -> Option<T> {
        (self.source.read)(object, is_gone).unwrap_or_else(|error| {
            tracing::debug!(path = self.source.path, %error, "an object can't be read, and is left out");
            None
        })
    }
}

fn trouble(error: kube::Error) -> Trouble {
    match &error {
        kube::Error::Api(status) if status.code == 410 => Trouble::Expired,
        _ => Trouble::Failed(error.to_string()),
    }
}
