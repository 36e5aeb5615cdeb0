//! What a reader asks the database. Every question is answered from one snapshot, with the revision it shows.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, Statement};
use tokio::sync::mpsc;

use super::Read;
use super::cache::RowCache;
use super::fault::store_error;
use super::index::{Index, Pruned};
use super::row::{End, Held, Name, event};
use super::rows::{Rows, follow};
use super::share::Work;
use crate::error::{Op, StoreError, check_readable, check_watchable, is_reserved};
use crate::request::{CountRequest, CountResponse, GetRequest, GetResponse, ListRequest, ListResponse, Status};
use crate::types::{Event, Key, KeyRange, KeyValue, Revision};
use crate::watch::Page;

/// How many revisions a page looks at: few enough to take a millisecond, enough to make the way there worth it.
const PAGE_REVISIONS: i64 = 500;

/// Lists of more rows leave nothing in the cache, nor do those with a limit, which are pages of longer ones: one list of
/// everything would be all that is in it.
const CACHED_ROWS_MAX: usize = 1024;

/// Where compacted history ends, of the one row that says so.
const COMPACTED: &str = "SELECT coalesce(max(prev_revision), 0) FROM kine WHERE id = ?1";
/// The newest row is the revision of the store.
const REVISION: &str = "SELECT coalesce(max(id), 0) FROM kine";

/// Changes in order. What a key held before is written again only by kine, and by a delete; the row that says it is
/// there as long as the change may be asked for.
const EVENTS: &str = "SELECT kv.id, kv.name, kv.created, kv.create_revision, kv.lease, kv.value, kv.deleted,
        kv.prev_revision, coalesce(kv.old_value, prev.value), prev.created, prev.create_revision, prev.lease
    FROM kine AS kv LEFT JOIN kine AS prev ON prev.id = kv.prev_revision
    WHERE kv.id >= ?1 AND kv.id <= ?2 AND kv.name >= ?3 AND kv.name < ?4 AND kv.name != 'compact_rev_key'
    ORDER BY kv.id";

/// What the questions of all connections go by.
#[derive(Clone, Debug)]
pub(super) struct Guide {
    pub(super) path: Arc<Path>,
    pub(super) index: Arc<Index>,
    pub(super) cache: Arc<RowCache>,
    /// The number of the row that says how far history is dropped.
    pub(super) marker: i64,
}

/// The prepared questions of one connection.
pub(super) struct Queries<'c> {
    connection: &'c Connection,
    guide: Guide,
    begin: Statement<'c>,
    end: Statement<'c>,
    revision: Statement<'c>,
    compacted: Statement<'c>,
    events: Statement<'c>,
    pub(super) rows: Rows<'c>,
    /// How to ask other readers for help, if there are any.
    helpers: Option<mpsc::WeakSender<Read>>,
}

/// What the snapshot shows.
#[derive(Clone, Copy)]
struct Snapshot {
    revision: Revision,
    compacted: Revision,
}

/// Why a question has no answer.
enum Trouble {
    Store(StoreError),
    Sqlite(rusqlite::Error),
    Pruned(Revision),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Pruned> for Trouble {
    fn from(Pruned(compacted): Pruned) -> Self {
        Self::Pruned(compacted)
    }
}

/// Adds what its row says to a key, with or without the value.
fn complete(kv: &mut KeyValue, held: Held, keys_only: bool) {
    (kv.create_revision, kv.ttl) = (held.create_revision, held.ttl);
    if !keys_only {
        kv.value = held.value;
    }
}

impl<'c> Queries<'c> {
    pub(super) fn prepare(connection: &'c Connection, guide: &Guide) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            guide: guide.clone(),
            begin: connection.prepare("BEGIN")?,
            end: connection.prepare("ROLLBACK")?,
            revision: connection.prepare(REVISION)?,
            compacted: connection.prepare(COMPACTED)?,
            events: connection.prepare(EVENTS)?,
            rows: Rows::prepare(connection)?,
            helpers: None,
        })
    }

    /// With the queue of all readers, some of whom may have nothing to do.
    pub(super) fn helped(self, by: mpsc::WeakSender<Read>) -> Self {
        Self { helpers: Some(by), ..self }
    }

    /// The revision of the store, and that of the last compaction. For the writer, which is in a transaction or alone.
    pub(super) fn bounds(&mut self) -> rusqlite::Result<(Revision, Revision)> {
        let revision = self.revision.query_row([], |row| row.get(0))?;
        let compacted = self.compacted.query_row([self.guide.marker], |row| row.get(0))?;
        Ok((Revision::new(revision), Revision::new(compacted)))
    }

    /// Runs one question about a revision, or about now, within a read transaction of its own.
    fn snapshot<T>(
        &mut self,
        op: Op,
        at: Option<Revision>,
        mut ask: impl FnMut(&mut Self, Snapshot) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        loop {
            let begun = self.begin.execute([]).map_err(Trouble::Sqlite);
            let answer = begun.and_then(|_| {
                let (revision, compacted) = self.bounds()?;
                if revision > self.guide.index.newest() {
                    // Somebody else writes to the file. What we write is in the index before it is in the file.
                    follow(self.connection, &self.guide.index)?;
                }
                ask(self, Snapshot { revision, compacted })
            });
            let ended = self.end.execute([]).map_err(Trouble::Sqlite);
            return match (answer, at) {
                (Err(Trouble::Store(error)), _) => Err(error),
                (Err(Trouble::Pruned(compacted)), Some(requested)) => {
                    Err(StoreError::Compacted { requested, compacted })
                }
                // A compaction has come by the snapshot, and the present with it.
                (Err(Trouble::Pruned(_)), None) => continue,
                (Err(Trouble::Sqlite(error)), _) => Err(store_error(op, &self.guide.path, error)),
                (Ok(answer), _) => match ended {
                    Err(Trouble::Sqlite(error)) => Err(store_error(op, &self.guide.path, error)),
                    _ => Ok(answer),
                },
            };
        }
    }

    pub(super) fn get(&mut self, request: &GetRequest) -> Result<GetResponse, StoreError> {
        self.snapshot(Op::Get, request.at, |queries, Snapshot { revision, compacted }| {
            check_readable(request.at, compacted, revision)?;
            let version = queries.guide.index.at(&request.key, request.at.unwrap_or(revision))?;
            let kv = match version.filter(|version| !version.deleted) {
                Some(version) => queries.current(&request.key, version.revision)?,
                None => None,
            };
            Ok(GetResponse { revision, kv })
        })
    }

    /// What a key holds from a revision on.
    fn current(&mut self, key: &Key, revision: Revision) -> rusqlite::Result<Option<KeyValue>> {
        if let Some(held) = self.guide.cache.get(revision) {
            return Ok(Some(held.of(key.clone(), revision)));
        }
        let held = self.rows.get(revision)?;
        self.guide.cache.add(held.clone().map(|held| (revision, held)).into_iter());
        Ok(held.map(|held| held.of(key.clone(), revision)))
    }

    pub(super) fn list(&mut self, request: &ListRequest) -> Result<ListResponse, StoreError> {
        self.snapshot(Op::List, request.at, |queries, Snapshot { revision, compacted }| {
            check_readable(request.at, compacted, revision)?;
            let mut kvs = queries.live(request, request.at.unwrap_or(revision))?;
            let more = request.limit.is_some_and(|limit| kvs.len() > limit);
            kvs.truncate(request.limit.unwrap_or(usize::MAX));
            Ok(ListResponse { revision, kvs, more })
        })
    }

    /// The keys that a list asks for, and one more to tell whether there are more.
    fn live(&mut self, request: &ListRequest, at: Revision) -> Result<Vec<KeyValue>, Trouble> {
        let most = request.limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
        let mut rest = request.after.as_ref().map_or_else(|| request.range.clone(), |after| request.range.after(after));
        let mut kvs = Vec::new();
        loop {
            let wanted = most - kvs.len();
            let names = self.guide.index.select(&rest, at, wanted)?;
            let last = names.last().filter(|_| names.len() == wanted).map(|kv| kv.key.clone());
            let mut found = self.complete(names, request)?;
            found.retain(|kv| !request.expiring_only || !kv.ttl.is_none());
            if kvs.is_empty() {
                kvs = found;
            } else {
                kvs.append(&mut found);
            }
            match last {
                Some(last) if kvs.len() < most => rest = rest.after(&last),
                _ => return Ok(kvs),
            }
        }
    }

    /// Completes keys that have their name and `mod_revision`, with or without values. They keep their order; those
    /// without a row go. The rows are read in the order in which they lie: in that of names each would be on a page of
    /// its own.
    fn complete(&mut self, mut kvs: Vec<KeyValue>, request: &ListRequest) -> rusqlite::Result<Vec<KeyValue>> {
        let keys_only = request.keys_only;
        let known = self.guide.cache.get_many(kvs.iter().map(|kv| kv.mod_revision));
        let mut order = Vec::new();
        for (place, known) in known.into_iter().enumerate() {
            match known {
                Some(held) => complete(&mut kvs[place], held, keys_only),
                None => order.push(place),
            }
        }
        order.sort_unstable_by_key(|place| kvs[*place].mod_revision);
        let revisions: Vec<_> = order.iter().map(|place| kvs[*place].mod_revision).collect();
        let found = self.read(revisions.clone(), keys_only)?;
        if !keys_only && request.limit.is_none() && kvs.len() <= CACHED_ROWS_MAX {
            let copy = |held: &Held| Held { value: Bytes::copy_from_slice(&held.value), ..held.clone() };
            let rows = revisions.into_iter().zip(&found);
            self.guide.cache.add(rows.filter_map(|(revision, held)| Some((revision, copy(held.as_ref()?)))));
        }
        let missing = found.iter().any(Option::is_none);
        for (place, held) in order.into_iter().zip(found) {
            match held {
                Some(held) => complete(&mut kvs[place], held, keys_only),
                None => kvs[place].mod_revision = Revision::ZERO,
            }
        }
        if missing {
            kvs.retain(|kv| kv.mod_revision != Revision::ZERO);
        }
        Ok(kvs)
    }

    /// Reads rows, in their order; with others if there are many.
    fn read(&mut self, revisions: Vec<Revision>, keys_only: bool) -> rusqlite::Result<Vec<Option<Held>>> {
        if revisions.is_empty() {
            return Ok(Vec::new());
        }
        let work = Work::new(revisions, keys_only);
        if work.is_for_many() {
            self.ask_for_help(&work);
        }
        work.finish(&mut self.rows)
    }

    /// Has another reader take part, unless there are other questions to answer.
    fn ask_for_help(&self, work: &Arc<Work>) {
        let Some(helpers) = self.helpers.as_ref().and_then(mpsc::WeakSender::upgrade) else { return };
        if helpers.capacity() == helpers.max_capacity() {
            let work = work.clone();
            // Whoever finds the queue full or closed does it alone.
            helpers.try_send(Box::new(move |queries| queries.help(&work))).unwrap_or_default();
        }
    }

    /// Takes part in another reader's work, in a snapshot of its own.
    fn help(&mut self, work: &Work) {
        if work.is_left() && self.begin.execute([]).is_ok() {
            // What goes wrong here, the other one does again, and tells.
            work.join_in(&mut self.rows).unwrap_or_default();
            self.end.execute([]).unwrap_or_default();
        }
    }

    pub(super) fn count(&mut self, request: &CountRequest) -> Result<CountResponse, StoreError> {
        self.snapshot(Op::Count, request.at, |queries, Snapshot { revision, compacted }| {
            check_readable(request.at, compacted, revision)?;
            let count = queries.guide.index.count(&request.range, request.at.unwrap_or(revision))?;
            Ok(CountResponse { revision, count: count as u64 })
        })
    }

    pub(super) fn page(&mut self, range: &KeyRange, from: Revision, to: Option<Revision>) -> Result<Page, StoreError> {
        self.snapshot(Op::Watch, None, |queries, Snapshot { revision, compacted }| {
            check_watchable(from, compacted)?;
            let to = to.unwrap_or(revision).min(revision);
            let scanned = to.min(Revision::new(from.get().saturating_add(PAGE_REVISIONS - 1)));
            let events = queries.events(range, from, scanned)?;
            Ok(Page { events, scanned, current: revision })
        })
    }

    /// The changes of a range between two revisions, both included.
    pub(super) fn events(
        &mut self,
        range: &KeyRange,
        from: Revision,
        to: Revision,
    ) -> rusqlite::Result<Vec<Arc<Event>>> {
        let rows = self.events.query_map((from.get(), to.get(), Name(range.start()), End(range)), event)?;
        // What fills a gap in the revisions is nobody's event.
        let real = rows.filter(|event| !event.as_ref().is_ok_and(|event| is_reserved(event.kv.key.as_bytes())));
        real.map(|event| event.map(Arc::new)).collect()
    }

    pub(super) fn status(&mut self, log: &Path) -> Result<Status, StoreError> {
        self.snapshot(Op::Status, None, |queries, Snapshot { revision, compacted }| {
            let number = |pragma| queries.connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
            let log_bytes = std::fs::metadata(log).map_or(0, |meta| meta.len());
            let page_bytes = number("PRAGMA page_size")?.unsigned_abs();
            let pages = number("PRAGMA page_count")?.unsigned_abs();
            let free_bytes = number("PRAGMA freelist_count")?.unsigned_abs() * page_bytes;
            Ok(Status { revision, compacted, size_bytes: pages * page_bytes + log_bytes, free_bytes, log_bytes })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{SqliteOptions, open, rows};

    /// No read may walk the whole table, nor sort anything.
    #[test]
    fn every_read_goes_to_its_rows_by_their_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let opened = open::open_for_writing(&SqliteOptions::new(directory.path().join("state.db"))).unwrap();
        for query in [EVENTS, COMPACTED, REVISION].into_iter().chain(rows::QUESTIONS) {
            let mut explain = opened.connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            for number in 1..=explain.parameter_count() {
                explain.raw_bind_parameter(number, 1).unwrap();
            }
            let mut rows = explain.raw_query();
            while let Some(row) = rows.next().unwrap() {
                let step: String = row.get(3).unwrap();
                assert!(!step.contains("TEMP B-TREE") && !step.contains("SCAN"), "{query}: {step}");
            }
        }
    }
}
