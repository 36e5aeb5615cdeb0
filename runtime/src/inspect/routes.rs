//! From a request to its answer. Answers are made without waiting; only streams go on afterwards.

use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::look;
use super::request::{self, Asked, Deed, Kill, Refused};
use super::wire::{Done, Event, Refusal, Show, Tree, VERSION};
use crate::cell::{AnyCell, Kind, Signal, lock};
use crate::events::Happened;
use crate::machine::Seen;
use crate::system::{ROOT, System};

/// Trace records kept for a slow reader; those beyond are left out rather than slowing the actor down.
const TRACE_BUFFER: usize = 1024;

/// Nothing is told before the root has started.
const NOT_STARTED: &str = "the tree has not started yet";

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What one connection needs for its answer.
pub(super) struct Desk {
    pub(super) system: System,
    /// The path of the inspector itself.
    pub(super) inspector: String,
    pub(super) control: bool,
    /// All places are taken: the answer is a refusal.
    pub(super) full: bool,
    /// The answer goes on for as long as the other end reads.
    pub(super) streaming: AtomicBool,
    /// A signal that ends this connection too, so it waits until the answer is out.
    pub(super) parting: Mutex<Option<(Arc<dyn AnyCell>, Signal)>>,
}

impl Desk {
    pub(super) fn answer<B: Body>(&self, request: &Request<B>) -> Answer {
        let uri = request.uri();
        let answer = match request::read(request.method(), uri.path(), uri.query().unwrap_or_default()) {
            _ if self.full => {
                Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections to the inspector; try again"))
            }
            Ok(asked) => self.carry_out(asked),
            Err(refused) => Err(refused),
        };
        answer.unwrap_or_else(|refused| refusal(&refused))
    }

    fn carry_out(&self, asked: Asked) -> Result<Answer, Refused> {
        match asked {
            Asked::Tree => self.tree(),
            Asked::Actor { path } => {
                let actor = look::show(&self.system, self.find(&path)?);
                json(StatusCode::OK, &Show { version: VERSION, at_unix_ms: self.unix_ms(), actor })
            }
            Asked::Events => Ok(self.stream(self.events())),
            Asked::Trace { path, messages, duration } => {
                let records = self.trace(&path, messages, duration)?;
                Ok(self.stream(records))
            }
            Asked::Control { path, deed } => self.control(&path, deed),
        }
    }

    fn unix_ms(&self) -> u64 {
        look::millis(self.system.clock().wall())
    }

    fn find(&self, path: &str) -> Result<Arc<dyn AnyCell>, Refused> {
        look::find(&self.system, path)
            .ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, format!("there is no actor {path}")))
    }

    fn tree(&self) -> Result<Answer, Refused> {
        let root =
            look::tree(&self.system).ok_or_else(|| Refused::new(StatusCode::SERVICE_UNAVAILABLE, NOT_STARTED))?;
        let alive = self.system.alive();
        let tree = Tree { version: VERSION, at_unix_ms: self.unix_ms(), pid: std::process::id(), alive, root };
        json(StatusCode::OK, &tree)
    }

    fn events(&self) -> impl Stream<Item = Bytes> + Send + use<> {
        let clock = self.system.clock().clone();
        let hello = look::line(&clock, "listening");
        let events = stream::unfold((self.system.events(), clock), |(mut events, clock)| async move {
            let told = match events.recv().await {
                Ok(event) => look::event(&clock, &event),
                Err(RecvError::Lagged(count)) => Event { count: Some(count), ..look::line(&clock, "missed") },
                Err(RecvError::Closed) => return None,
            };
            Some((line(&told), (events, clock)))
        });
        stream::once(ready(line(&hello))).chain(events)
    }

    fn trace(
        &self,
        path: &str,
        messages: u64,
        duration: Duration,
    ) -> Result<impl Stream<Item = Bytes> + Send + use<>, Refused> {
        let cell = self.find(path)?;
        if cell.node().meta().kind == Kind::Task {
            return Err(Refused::new(StatusCode::CONFLICT, format!("{path} is a task: it handles no messages")));
        }
        let clock = self.system.clock().clone();
        let ends = clock.instant(clock.now() + duration);
        let (sender, receiver) = mpsc::channel(TRACE_BUFFER);
        cell.node().add_trace(sender);
        Ok(stream::unfold((receiver, clock, messages), move |(mut receiver, clock, left)| async move {
            let left = left.checked_sub(1)?;
            let record = timeout_at(ends, receiver.recv()).await.ok().flatten()?;
            Some((line(&look::trace(&clock, &record)), (receiver, clock, left)))
        }))
    }

    fn control(&self, path: &str, deed: Deed) -> Result<Answer, Refused> {
        let forbidden = |error: String| Err(Refused::new(StatusCode::FORBIDDEN, error));
        if !self.control {
            let error = format!("{} is refused: the daemon runs without --debug-actor-control", deed.word());
            return forbidden(error);
        }
        if path == ROOT {
            return forbidden(format!("{} is refused for the root: nothing would be left to start it", deed.word()));
        }
        let own = path.strip_prefix(&*self.inspector).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if own && deed == Deed::Suspend {
            return forbidden("suspend is refused for the inspector: nobody could tell it to resume".to_owned());
        }
        let cell = self.find(path)?;
        let node = cell.node();
        let seen = Seen::from_u8(node.state.load(Relaxed));
        if matches!(seen, Seen::Down | Seen::Backoff) {
            return Err(Refused::new(StatusCode::CONFLICT, format!("{path} is not running, but {}", seen.word())));
        }
        if !matches!(deed, Deed::Kill(_)) && node.meta().kind == Kind::Task {
            let error = format!("{path} is a task: it handles no messages that could be held back");
            return Err(Refused::new(StatusCode::CONFLICT, error));
        }
        let incarnation = node.incarnation.load(Relaxed);
        let (signal, happened) = match deed {
            Deed::Kill(Kill::Kill) => (Signal::Kill, None),
            Deed::Kill(Kill::Panic) => (Signal::Panic, None),
            Deed::Kill(Kill::Stop) => (Signal::Stop, None),
            Deed::Suspend => (Signal::Suspend, Some(Happened::Suspended)),
            Deed::Resume => (Signal::Resume, Some(Happened::Resumed)),
        };
        tracing::warn!(subject = path, deed = deed.word(), "asked through the inspection socket");
        if let Some(happened) = happened {
            cell.signal(signal);
            self.system.happened(node, || happened);
        } else if own {
            *lock(&self.parting) = Some((cell.clone(), signal));
        } else {
            cell.signal(signal);
        }
        let done = Done { version: VERSION, done: deed.word().into(), path: path.to_owned(), incarnation };
        json(StatusCode::OK, &done)
    }

    /// Does what had to wait until the answer was out.
    pub(super) fn part(&self) {
        let parting = lock(&self.parting).take();
        if let Some((cell, signal)) = parting {
            cell.signal(signal);
        }
    }

    fn stream(&self, lines: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
        self.streaming.store(true, Relaxed);
        let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
        let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        answer
    }
}

/// A JSON object on a line of its own. Our types always serialize; should one not, the line is left empty.
fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Answer, Refused> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("no JSON for this: {error}")))?;
    Ok(whole(status, text.into()))
}

fn whole(status: StatusCode, text: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(text).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn refusal(refused: &Refused) -> Answer {
    let mut answer = whole(refused.status, line(&Refusal { version: VERSION, error: refused.error.clone() }));
    if let Some(allow) = refused.allow {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    answer
}
