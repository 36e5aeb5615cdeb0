//! A watch as its client reads it: frames, each sent as soon as there is nothing more to send with it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use k3sd_apiserver_store::{Resource, Watch, WatchItem, WatchKind};
use k3sd_apiserver_wire::negotiate::{Format, Media};
use k3sd_apiserver_wire::watch::{Frames, error};
use k3sd_objects::status::Status;
use k3sd_runtime::Clock;

use crate::front::Changes;
use crate::observe::{LongRunning, Series};

/// What stands before an event in protobuf, where frames don't know their length by themselves.
const LENGTH_BYTES: usize = 4;
/// Frames that are ready together are sent together, up to about so many bytes.
const TOGETHER_BYTES: usize = 32 * 1024;

struct Watching {
    watch: Watch,
    format: Format,
    frames: Frames,
    clock: Clock,
    draining: tokio::sync::watch::Receiver<bool>,
    series: Arc<Series>,
    /// Whether each event goes alone, and without what tells it from the next one.
    alone: bool,
    _running: LongRunning,
    ended: bool,
}

/// Who watches, and what.
pub(crate) struct Watched {
    pub(crate) watch: Watch,
    pub(crate) format: Format,
    pub(crate) resource: Arc<Resource>,
    pub(crate) clock: Clock,
    pub(crate) draining: tokio::sync::watch::Receiver<bool>,
    pub(crate) series: Arc<Series>,
}

/// The frames of a watch until it ends, or the server drains. `alone` is for whoever knows where a message ends: then
/// each event is one, without what tells it from the next.
pub(crate) fn changes(watched: Watched, alone: bool) -> Changes {
    let Watched { watch, format, resource, clock, draining, series } = watched;
    let (frames, _running) = (Frames::new(format, resource), LongRunning::begin(&series));
    let watching = Watching { watch, format, frames, clock, draining, series, alone, _running, ended: false };
    Box::pin(futures_util::stream::unfold(watching, |mut watching| async move {
        watching.next().await.map(|bytes| (bytes, watching))
    }))
}

/// A watch that ends with its first event, which tells why.
pub(crate) fn refused(format: Format, status: &Status, alone: bool) -> Changes {
    let frame = error(format, status);
    let frame = if alone { bare(format, frame) } else { frame };
    Box::pin(futures_util::stream::iter([frame]))
}

/// An event without what tells it from the next.
fn bare(format: Format, mut frame: Bytes) -> Bytes {
    let skipped = if format.media == Media::Protobuf { LENGTH_BYTES.min(frame.len()) } else { 0 };
    frame.split_off(skipped)
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let item = tokio::select! {
            biased;
            item = self.watch.next() => item?,
            // A sender that is gone has drained everybody.
            _ = self.draining.wait_for(|draining| *draining) => return None,
        };
        let first = self.frame(&item);
        if self.alone {
            return Some(bare(self.format, first));
        }
        // What comes alone, as most events do, is passed on as it is, shared with all who watch the same.
        let Some(second) = self.more(first.len()) else { return Some(first) };
        let mut together = BytesMut::with_capacity(TOGETHER_BYTES);
        together.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(item) = next {
            together.extend_from_slice(&self.frame(&item));
            next = self.more(together.len());
        }
        Some(together.freeze())
    }

    /// What is there already, if it fits behind so many bytes.
    fn more(&mut self, bytes: usize) -> Option<WatchItem> {
        if self.ended || bytes >= TOGETHER_BYTES {
            return None;
        }
        let next = self.watch.next().now_or_never()?;
        self.ended = next.is_none();
        next
    }

    fn frame(&mut self, item: &WatchItem) -> Bytes {
        self.ended |= matches!(item.kind, WatchKind::Error(_));
        let now = i64::try_from(self.clock.wall().as_secs()).unwrap_or(i64::MAX);
        let frame = self.frames.next(item, now).unwrap_or_else(|status| {
            self.ended = true;
            error(self.format, &status)
        });
        self.series.sent_event(frame.len());
        frame
    }
}
