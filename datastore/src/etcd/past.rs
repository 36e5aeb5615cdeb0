//! A watcher's way through the past: what the follower keeps, and streams from etcd for what is older.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use super::Link;
use super::feed::{Feed, FeedEnd};
use crate::backend::BoxFuture;
use crate::error::{Op, StoreError, check_watchable};
use crate::types::{Event, KeyRange, Revision};
use crate::watch::{Joined, Page, Pager};

/// What a reader of the past hands over, behind where it has come to.
type Read = Result<(Vec<Arc<Event>>, Revision), FeedEnd>;

/// See the module's page.
pub(super) struct EtcdPager {
    pub link: Arc<Link>,
    pub range: KeyRange,
    pub events_waiting_max: usize,
    /// A stream under way, and the revision it comes to next.
    pub reader: Mutex<Option<Reader>>,
}

/// A stream that somebody reads, one answer ahead: a wait for it may be given up without losing what has come.
pub(super) struct Reader {
    next: Revision,
    pages: mpsc::Receiver<Read>,
}

impl Reader {
    async fn start(link: &Arc<Link>, from: Revision) -> Result<Self, StoreError> {
        let (sender, pages) = mpsc::channel(1);
        // It keeps no store open, and ends with the watcher.
        let reading = link.clone();
        let read = async move {
            let mut feed = match Feed::open(&reading.cluster, from).await {
                Ok(feed) => feed,
                Err(end) => return sender.send(Err(end)).await.unwrap_or_default(),
            };
            loop {
                let read = tokio::select! {
                    read = feed.next() => read,
                    () = sender.closed() => return,
                };
                let over = read.is_err();
                let read = read.map(|events| (events, feed.next_revision()));
                if sender.send(read).await.is_err() || over {
                    return;
                }
            }
        };
        link.cluster.spawn(read).await?;
        Ok(Self { next: from, pages })
    }
}

impl EtcdPager {
    /// The next events of any key from `from` on, and the revision behind them.
    async fn read(&self, from: Revision) -> Result<(Vec<Arc<Event>>, Revision), StoreError> {
        let mut reader = self.reader.lock().await;
        loop {
            let current = match reader.as_mut() {
                Some(reader) if reader.next == from => reader,
                _ => reader.insert(Reader::start(&self.link, from).await?),
            };
            match current.pages.recv().await {
                Some(Ok((events, next))) => {
                    current.next = next;
                    return Ok((events, next));
                }
                Some(Err(FeedEnd::Compacted)) => {
                    *reader = None;
                    // It is, or was so nearly that what was there before is gone.
                    let compacted = self.link.compacted(Op::Watch).await?.max(from);
                    return Err(StoreError::Compacted { requested: from, compacted });
                }
                Some(Err(FeedEnd::Closed)) | None if self.link.cluster.is_closed() => {
                    return Err(StoreError::Closed);
                }
                Some(Err(_)) | None => {
                    *reader = None;
                    // This asks until some member answers, or fails when none does.
                    self.link.revision(Op::Watch).await?;
                }
            }
        }
    }
}

impl Pager for EtcdPager {
    fn page(&self, from: Revision, to: Option<Revision>) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let link = &self.link;
            let compacted = link.compacted_known();
            if from <= compacted.max(Revision::ZERO) {
                check_watchable(from, link.compacted(Op::Watch).await?)?;
            }
            if let Some(page) = link.live.page(&self.range, from, to, compacted)? {
                return Ok(page);
            }
            let current = link.live.current();
            let to = to.unwrap_or(current).min(current);
            // History begins with the first change, which is the second revision.
            let from = from.max(Revision::new(2));
            if from > to {
                return Ok(Page { events: Vec::new(), scanned: to, current });
            }
            let (events, next) = self.read(from).await?;
            let wanted = |event: &Arc<Event>| event.revision() <= to && self.range.contains(&event.kv.key);
            let events = events.into_iter().filter(wanted).collect();
            Ok(Page { events, scanned: next.previous().min(to), current })
        })
    }

    fn join(&self) -> BoxFuture<'_, Result<Joined, StoreError>> {
        Box::pin(async move {
            let now = self.link.revision(Op::Watch).await?;
            self.link.live.join(now, self.range.clone(), self.events_waiting_max).await
        })
    }
}
