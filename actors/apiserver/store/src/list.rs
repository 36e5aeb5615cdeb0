//! Lists: from a snapshot of the cache wherever that shows the wanted moment, else from the storage.
//!
//! ```text
//! latest          the cache, once it is as far as the store       any             the cache as it is
//! not older than  the cache, once it is that far                  exactly, token  a kept snapshot, the cache if nothing
//!                                                                                 changed since, else the storage
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use k3sd_client::storage::{List, Revision, StorageError};
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use k3sd_runtime::Moment;
use tokio::time::timeout;

use crate::cache::{Board, Command};
use crate::codec::decode;
use crate::error::status;
use crate::map::relative_key;
use crate::objects::{FRESH_LIMIT, ObjectStore};
use crate::query::{ListQuery, Page, ReadAt, Selection};
use crate::snapshot::Snapshot;
use crate::token::Token;

/// What a client is told when the pages that follow are gone, with a token that goes on all the same.
const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can \
start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of \
the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
deleted between the time the first chunk was returned and now may show up in the list.";

/// Snapshots that are kept for lists that are read in pages. They share what did not change since.
const KEPT_MAX: usize = 8;

/// How long they are kept after the last page.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Keys that are read from the storage at once, at least and at most.
const STORAGE_PAGE: std::ops::RangeInclusive<usize> = 500..=5000;

/// A snapshot of which some reader wants the next page.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    revision: Revision,
    last_used: Moment,
    snapshot: Arc<Snapshot>,
}

/// Where a page begins and what it is to hold.
struct Cut<'a> {
    query: &'a ListQuery,
    selection: Selection,
    /// What all keys begin with, below the resource.
    root: Vec<u8>,
    /// The first key that is wanted; not before the root.
    from: Vec<u8>,
    limit: usize,
}

impl<'a> Cut<'a> {
    fn new(query: &'a ListQuery, board: &Board, start: Option<&str>) -> Self {
        let namespace = query.namespace.as_deref().filter(|_| board.stored.namespaced);
        let root = namespace.map_or(Vec::new(), |namespace| relative_key(namespace, ""));
        let mut from = root.clone();
        from.extend_from_slice(start.unwrap_or_default().as_bytes());
        let limit = query.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        Self { query, selection: query.selection(), root, from, limit }
    }

    /// The key behind all that begin with the root.
    fn end(&self) -> Option<Vec<u8>> {
        let mut end = self.root.clone();
        *end.last_mut()? += 1; // A slash.
        Some(end)
    }

    /// The token of the page behind an object.
    fn behind(&self, last: &Object, revision: Revision) -> String {
        let key = relative_key(last.namespace(), last.name());
        let key = key.strip_prefix(self.root.as_slice()).unwrap_or(&key);
        Token::behind(&String::from_utf8_lossy(key), Some(revision)).encode()
    }
}

impl ObjectStore {
    /// Objects in the order of their keys. All pages of a list show one moment.
    ///
    /// # Errors
    /// 400 for a token that is none, 410 for a moment that is gone, 504 for one that does not come in time, 503 while the
    /// store is away.
    pub async fn list(&self, query: &ListQuery) -> Result<Page, Status> {
        let token = query.continue_token.as_deref().filter(|token| !token.is_empty());
        let token = token.map(Token::decode).transpose()?;
        if token.is_some() && !matches!(query.at, ReadAt::Latest | ReadAt::Any) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let at = match &token {
            Some(Token { revision: Some(revision), .. }) => ReadAt::Exactly(*revision),
            Some(_) => ReadAt::Latest,
            None => query.at,
        };
        let cut = Cut::new(query, &self.board, token.as_ref().map(|token| token.start.as_str()));
        let answer = match at {
            ReadAt::Latest => match self.fresh(self.newest().await?).await {
                Some((snapshot, revision)) => {
                    self.board.counts.consistent.fetch_add(1, Relaxed);
                    Ok(self.page(&snapshot, &cut, revision))
                }
                None => {
                    self.board.counts.too_late.fetch_add(1, Relaxed);
                    self.stored_page(&cut, None).await
                }
            },
            ReadAt::Any => match timeout(FRESH_LIMIT, self.board.filled()).await {
                Ok(_) => {
                    let (snapshot, revision) = self.board.at_hand();
                    Ok(self.page(&snapshot, &cut, revision))
                }
                Err(_) => self.stored_page(&cut, None).await,
            },
            ReadAt::NotOlderThan(revision) => {
                let (snapshot, revision) = self.not_older_than(revision).await?;
                Ok(self.page(&snapshot, &cut, revision))
            }
            ReadAt::Exactly(revision) => match self.snapshot_at(revision) {
                Some(snapshot) => Ok(self.page(&snapshot, &cut, revision)),
                None => self.stored_page(&cut, Some(revision)).await,
            },
        };
        answer.map_err(|error| match (&token, &error) {
            (Some(token), StorageError::Compacted { .. }) => {
                let again = Token { revision: None, start: token.start.clone() };
                Status::expired(CONTINUE_EXPIRED).with_continue(again.encode())
            }
            _ => status(&error),
        })
    }

    /// The resource as it was just then, if that is still in memory.
    fn snapshot_at(&self, revision: Revision) -> Option<Arc<Snapshot>> {
        let kept = self.board.kept.borrow().iter().find(|kept| kept.revision == revision).cloned();
        if let Some(kept) = kept {
            return Some(kept.snapshot);
        }
        let (snapshot, good_for) = self.board.at_hand();
        (snapshot.filled && snapshot.revision <= revision && revision <= good_for).then_some(snapshot)
    }

    fn page(&self, snapshot: &Arc<Snapshot>, cut: &Cut<'_>, revision: Revision) -> Page {
        let page = page(snapshot, cut, &self.board, revision);
        if page.continue_token.is_some() {
            self.keep(revision, snapshot);
        } else if cut.query.continue_token.is_some() {
            self.board.kept.send_if_modified(|kept| {
                kept.retain(|kept| kept.revision != revision);
                false // Nobody waits for less.
            });
        }
        page
    }

    /// Keeps a snapshot for the next page. One that is dropped too early is no loss: the storage has it too.
    fn keep(&self, revision: Revision, snapshot: &Arc<Snapshot>) {
        let last_used = self.board.clock.now();
        let was_empty = self.board.kept.borrow().is_empty();
        self.board.kept.send_modify(|kept| {
            kept.retain(|kept| kept.revision != revision);
            if kept.len() >= KEPT_MAX {
                kept.remove(0);
            }
            kept.push(Kept { revision, last_used, snapshot: snapshot.clone() });
        });
        if was_empty {
            // The cache sets its alarm. If it has too much to do to be told now, it will look after that.
            drop(self.commands.try_send(Command::Look));
        }
    }

    /// Reads past the cache, as everything was at a revision or is now.
    async fn stored_page(&self, cut: &Cut<'_>, at: Option<Revision>) -> Result<Page, StorageError> {
        let Board { stored, storage, .. } = &*self.board;
        let prefix = |below: &[u8]| Bytes::from([stored.prefix.as_bytes(), below].concat());
        // The key just before the first that is wanted: a token's start ends with a zero byte.
        let after = cut.from.strip_suffix(b"\0").map(prefix);
        let limit = Some(cut.limit.saturating_add(1).clamp(*STORAGE_PAGE.start(), *STORAGE_PAGE.end()));
        let mut read = List { prefix: prefix(&cut.root), at, after, limit, keys_only: false };
        let mut objects: Vec<Object> = Vec::new();
        loop {
            let listed = storage.list(read.clone()).await?;
            let revision = *read.at.get_or_insert(listed.revision);
            for found in &listed.found {
                if objects.len() == cut.limit {
                    let continue_token = objects.last().map(|last| cut.behind(last, revision));
                    return Ok(Page { objects, revision, continue_token, remaining: None });
                }
                let object = decode(stored, &found.key, &found.value, found.modified);
                objects.extend(object.ok().filter(|object| cut.selection.matches(object, &stored.selectable)));
            }
            match listed.found.last().filter(|_| listed.more) {
                Some(last) => read.after = Some(last.key.clone()),
                None => return Ok(Page { objects, revision, continue_token: None, remaining: None }),
            }
        }
    }
}

/// A page of a snapshot.
fn page(snapshot: &Snapshot, cut: &Cut<'_>, board: &Board, revision: Revision) -> Page {
    let selectable = &board.stored.selectable;
    board.counts.lists.fetch_add(1, Relaxed);
    let all = Page { objects: Vec::new(), revision, continue_token: None, remaining: None };
    if let Some(key) = cut.selection.only_key(&board.stored) {
        let found = Some(&key).filter(|key| **key >= cut.from).and_then(|key| snapshot.objects.get(key));
        board.counts.looked_at.fetch_add(found.iter().len() as u64, Relaxed);
        let found = found.filter(|object| cut.selection.matches(object, selectable));
        board.counts.listed.fetch_add(found.iter().len() as u64, Relaxed);
        return Page { objects: found.cloned().into_iter().collect(), ..all };
    }
    let end = cut.end().map_or(snapshot.objects.len(), |end| snapshot.objects.rank(&end));
    let all_left = end - snapshot.objects.rank(&cut.from).min(end);
    let mut left = all_left;
    let mut objects: Vec<Object> = Vec::with_capacity(if cut.selection.is_plain() { left.min(cut.limit) } else { 0 });
    let mut range = snapshot.objects.range(&cut.from);
    while left > 0 && objects.len() < cut.limit {
        let Some(object) = range.next() else { break };
        left -= 1;
        if cut.selection.matches(object, selectable) {
            objects.push(object.clone());
        }
    }
    board.counts.looked_at.fetch_add((all_left - left) as u64, Relaxed);
    board.counts.listed.fetch_add(objects.len() as u64, Relaxed);
    let continue_token = objects.last().filter(|_| left > 0).map(|last| cut.behind(last, revision));
    let is_plain = cut.selection.is_plain() && cut.selection.namespace == cut.query.namespace;
    let remaining = continue_token.as_ref().filter(|_| is_plain).map(|_| left as u64);
    Page { objects, continue_token, remaining, ..all }
}

impl Board {
    /// When a kept snapshot was not asked for long enough.
    pub(crate) fn next_forget(&self) -> Option<Moment> {
        self.kept.borrow().iter().map(|kept| kept.last_used + KEPT_FOR).min()
    }

    /// Forgets snapshots that nobody asked for.
    pub(crate) fn forget(&self, now: Moment) {
        self.kept.send_if_modified(|kept| {
            kept.retain(|kept| kept.last_used + KEPT_FOR > now);
            false // Nobody waits for less.
        });
    }
}
