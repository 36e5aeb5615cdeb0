//! A client that follows a collection as the protocol says: list, watch from there, after 410 list again.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::Value;
use tokio::time::sleep;

use super::client::{Answer, Client};
use super::load::{Notes, PAUSE, Phase, Shared};
use super::record::{Event, Failure, Scope, Span, State, Trouble, Watch, Who, list, object, revision};

/// What ended a watch.
enum End {
    /// It may go on from the last revision.
    Again,
    /// History is gone.
    Expired,
    /// Nobody wants it any more, or it has seen all there is.
    Done,
}

struct Watcher {
    shared: Shared,
    client: Client,
    scope: Scope,
    notes: Notes,
    spans: Vec<Span>,
    state: State,
    last: u64,
}

/// Follows until everything was seen. The first list is one from memory if `from_memory`.
pub(super) async fn run(shared: Shared, scope: Scope, from_memory: bool) -> Notes {
    let client = shared.server.client();
    let (notes, spans, state) = (Notes::default(), Vec::new(), State::new());
    let mut watcher = Watcher { shared, client, scope, notes, spans, state, last: 0 };
    watcher.follow(from_memory).await;
    watcher.notes.watch = Some(Watch { scope: watcher.scope, spans: watcher.spans });
    watcher.notes
}

impl Watcher {
    async fn follow(&mut self, mut from_memory: bool) {
        let mut end = End::Expired;
        loop {
            end = match end {
                End::Expired if self.is_over() => return,
                End::Expired if self.list(from_memory).await => {
                    from_memory = false;
                    self.watch().await
                }
                End::Expired => End::Expired,
                End::Again => self.watch().await,
                End::Done => return,
            };
        }
    }

    fn is_over(&self) -> bool {
        matches!(*self.shared.phase.borrow(), Phase::Over)
    }

    fn is_complete(&mut self) -> bool {
        match &*self.shared.phase.borrow_and_update() {
            Phase::Settle(end) => {
                let wanted = end.iter().filter(|(name, _)| self.scope.has(name));
                wanted.eq(self.state.iter())
            }
            _ => false,
        }
    }

    fn path(&self) -> String {
        match &self.scope {
            Scope::All => "/api/v1/configmaps?".to_owned(),
            Scope::Namespace(namespace) => format!("/api/v1/namespaces/{namespace}/configmaps?"),
            Scope::One(name) => {
                let (namespace, name) = name.split_once('/').unwrap_or_default();
                format!("/api/v1/namespaces/{namespace}/configmaps?fieldSelector=metadata.name%3D{name}&")
            }
        }
    }

    fn failed(&mut self, what: String, called: u64, trouble: Trouble) {
        let returned = self.shared.origin.now();
        self.notes.failures.push(Failure { who: Who::Watcher, what, called, returned, trouble });
    }

    async fn list(&mut self, is_any_age: bool) -> bool {
        let acknowledged = self.shared.acknowledged.load(SeqCst);
        let path = format!("{}resourceVersion={}", self.path(), if is_any_age { "0" } else { "" });
        let called = self.shared.origin.now();
        let trouble = match self.client.get(&path).await {
            Ok(Answer { status: 200, body }) => match list(&body) {
                Some((revision, list)) => {
                    (self.state, self.last) = (list.clone(), revision);
                    self.spans.push(Span { revision, acknowledged, is_any_age, list, events: Vec::new() });
                    return true;
                }
                None => Trouble::Error(Answer { status: 200, body }),
            },
            Ok(answer) => Trouble::Error(answer),
            Err(why) => Trouble::None(why),
        };
        self.failed(format!("GET {path}"), called, trouble);
        sleep(PAUSE).await;
        false
    }

    async fn watch(&mut self) -> End {
        if self.is_over() || self.is_complete() {
            return End::Done;
        }
        let own = self.path();
        let path = format!("{own}watch=1&allowWatchBookmarks=true&timeoutSeconds=20&resourceVersion={}", self.last);
        let called = self.shared.origin.now();
        let mut lines = match self.client.watch(&path).await {
            Ok(Ok(lines)) => lines,
            Ok(Err(answer)) if answer.status == 410 => return End::Expired,
            other => {
                let trouble = match other {
                    Ok(Err(answer)) => Trouble::Error(answer),
                    Err(why) => Trouble::None(why),
                    Ok(Ok(_)) => return End::Again,
                };
                self.failed(format!("GET {path}"), called, trouble);
                sleep(PAUSE).await;
                return End::Again;
            }
        };
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                changed = self.shared.phase.changed() => {
                    if changed.is_err() || self.is_over() || self.is_complete() {
                        return End::Done;
                    }
                    continue;
                }
            };
            match line {
                Ok(Some(line)) => {
                    if let Some(end) = self.take(&line) {
                        return end;
                    }
                    if self.is_complete() {
                        return End::Done;
                    }
                }
                // A watch may end at any time; its client goes on.
                Ok(None) | Err(_) => return End::Again,
            }
        }
    }

    fn take(&mut self, line: &Value) -> Option<End> {
        let content = &line["object"];
        let kind = line["type"].as_str().unwrap_or_default();
        if kind == "ERROR" {
            return Some(match content["code"].as_u64() {
                Some(410) => End::Expired,
                Some(500..=504) => End::Again,
                _ => {
                    self.notes.findings.push(format!("an odd end of a watch: {line}"));
                    End::Expired
                }
            });
        }
        let event = match (kind, object(content)) {
            ("BOOKMARK", _) => revision(content).map(Event::Bookmark),
            ("ADDED", Some((name, version))) => Some(Event::Added(name, version)),
            ("MODIFIED", Some((name, version))) => Some(Event::Modified(name, version)),
            ("DELETED", Some((name, version))) => Some(Event::Deleted(name, version)),
            _ => None,
        };
        let Some(event) = event else {
            self.notes.findings.push(format!("an odd event: {line}"));
            return Some(End::Expired);
        };
        self.last = event.revision();
        match &event {
            Event::Bookmark(_) => {}
            Event::Added(name, version) | Event::Modified(name, version) => {
                self.state.insert(name.clone(), *version);
            }
            Event::Deleted(name, _) => drop(self.state.remove(name)),
        }
        if let Some(span) = self.spans.last_mut() {
            span.events.push(event);
        }
        None
    }
}
