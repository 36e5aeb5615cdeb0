//! What a reader asks the database. Every question is answered from one snapshot, with the revision it shows.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Statement};

use super::count::{Counter, Counts};
use super::fault::store_error;
use super::list::Lister;
use super::row::{Arena, End, Name, event, key_value};
use crate::error::{Op, StoreError, check_readable, check_watchable, is_reserved};
use crate::request::{CountRequest, CountResponse, GetRequest, GetResponse, ListRequest, ListResponse, Status};
use crate::types::{Event, KeyRange, Revision};
use crate::watch::Page;

/// How many revisions a page looks at: few enough to take a millisecond, enough to make the way there worth it.
const PAGE_REVISIONS: i64 = 500;

/// Where compacted history ends, of the one row that says so.
const COMPACTED: &str = "SELECT coalesce(max(prev_revision), 0) FROM kine WHERE name = 'compact_rev_key'";
/// The newest row is the revision of the store.
const REVISION: &str = "SELECT coalesce(max(id), 0) FROM kine";

/// The newest row of each name of a range, up to a revision: in the order of the index, so that a limit ends the walk.
/// `CROSS JOIN` keeps SQLite from turning the order around.
macro_rules! newest {
    ($columns:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM (SELECT max(id) AS id FROM kine INDEXED BY kine_name_id_index
                WHERE name >= ?1 AND name < ?2 AND id <= ?3 GROUP BY name) AS newest
              CROSS JOIN kine AS kv ON kv.id = newest.id WHERE kv.deleted = 0 AND kv.name != 'compact_rev_key'",
            $rest
        )
    };
}

const LIST: &str = newest!(
    "kv.id, kv.name, kv.created, kv.create_revision, kv.lease, kv.value",
    " AND (?4 = 0 OR kv.lease > 0) LIMIT ?5"
);
const LIST_KEYS: &str =
    newest!("kv.id, kv.name, kv.created, kv.create_revision, kv.lease, NULL", " AND (?4 = 0 OR kv.lease > 0) LIMIT ?5");

/// Deleted rows are told apart by the last column.
const GET: &str = "SELECT id, name, created, create_revision, lease, value, deleted FROM kine
    WHERE name = ?1 AND id <= ?2 ORDER BY id DESC LIMIT 1";

/// Changes in order. The plus signs keep SQLite from walking an index by name, out of order. What a key held before is
/// written again only by kine, and by a delete; the row that says it is there as long as the change may be asked for.
const EVENTS: &str = "SELECT kv.id, kv.name, kv.created, kv.create_revision, kv.lease, kv.value, kv.deleted,
        kv.prev_revision, coalesce(kv.old_value, prev.value), prev.created, prev.create_revision, prev.lease
    FROM kine AS kv LEFT JOIN kine AS prev ON prev.id = kv.prev_revision
    WHERE kv.id >= ?1 AND kv.id <= ?2 AND +kv.name >= ?3 AND +kv.name < ?4 AND +kv.name != 'compact_rev_key'
    ORDER BY kv.id";

/// The prepared questions of one connection.
pub(super) struct Queries<'c> {
    connection: &'c Connection,
    path: &'c Path,
    revision: Statement<'c>,
    compacted: Statement<'c>,
    get: Statement<'c>,
    list: Statement<'c>,
    list_keys: Statement<'c>,
    lister: Lister<'c>,
    counter: Counter<'c>,
    events: Statement<'c>,
}

/// What the snapshot shows.
#[derive(Clone, Copy)]
struct Snapshot {
    revision: Revision,
    compacted: Revision,
}

impl<'c> Queries<'c> {
    pub(super) fn prepare(connection: &'c Connection, path: &'c Path, counts: Counts) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            path,
            revision: connection.prepare(REVISION)?,
            compacted: connection.prepare(COMPACTED)?,
            get: connection.prepare(GET)?,
            list: connection.prepare(LIST)?,
            list_keys: connection.prepare(LIST_KEYS)?,
            lister: Lister::prepare(connection)?,
            counter: Counter::prepare(connection, counts)?,
            events: connection.prepare(EVENTS)?,
        })
    }

    /// The revision of the store, and that of the last compaction. For the writer, which is in a transaction or alone.
    pub(super) fn bounds(&mut self) -> rusqlite::Result<(Revision, Revision)> {
        let revision = self.revision.query_row([], |row| row.get(0))?;
        let compacted = self.compacted.query_row([], |row| row.get(0))?;
        Ok((Revision::new(revision), Revision::new(compacted)))
    }

    /// Runs one question within a read transaction of its own.
    fn snapshot<T>(
        &mut self,
        op: Op,
        ask: impl FnOnce(&mut Self, Snapshot) -> Result<rusqlite::Result<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let path = self.path;
        let fault = |error| store_error(op, path, error);
        self.connection.execute_batch("BEGIN").map_err(fault)?;
        let answer = match self.bounds() {
            Ok((revision, compacted)) => ask(self, Snapshot { revision, compacted }),
            Err(error) => Ok(Err(error)),
        };
        // Ending a read cannot fail in a way that matters: the answer is there, and the next BEGIN would complain.
        let ended = self.connection.execute_batch("ROLLBACK");
        let answer = answer?.map_err(fault)?;
        ended.map_err(fault)?;
        Ok(answer)
    }

    pub(super) fn get(&mut self, request: &GetRequest) -> Result<GetResponse, StoreError> {
        self.snapshot(Op::Get, |queries, Snapshot { revision, compacted }| {
            check_readable(request.at, compacted, revision)?;
            let at = request.at.unwrap_or(revision).get();
            let row = queries.get.query_row((Name(&request.key), at), |row| {
                let deleted = row.get::<_, i64>(6)? != 0;
                if deleted { Ok(None) } else { key_value(row, Bytes::copy_from_slice).map(Some) }
            });
            Ok(row.optional().map(|kv| GetResponse { revision, kv: kv.flatten().filter(|kv| !is_reserved(&kv.key)) }))
        })
    }

    pub(super) fn list(&mut self, request: &ListRequest) -> Result<ListResponse, StoreError> {
        self.snapshot(Op::List, |queries, Snapshot { revision, compacted }| {
            check_readable(request.at, compacted, revision)?;
            let at = request.at.unwrap_or(revision);
            let rest = request.after.as_ref().map(|after| request.range.after(after));
            let range = rest.as_ref().unwrap_or(&request.range);
            if request.limit.is_none() && !request.keys_only && !request.expiring_only {
                match queries.lister.list(range, at) {
                    Ok(Some(kvs)) => return Ok(Ok(ListResponse { revision, kvs, more: false })),
                    Ok(None) => {}
                    Err(error) => return Ok(Err(error)),
                }
            }
            // One more than asked for tells whether there are more. Below zero is no limit.
            let limit =
                request.limit.map_or(-1, |limit| i64::try_from(limit).map_or(-1, |limit| limit.saturating_add(1)));
            let statement = if request.keys_only { &mut queries.list_keys } else { &mut queries.list };
            let asked = (Name(range.start()), End(range), at.get(), request.expiring_only, limit);
            let mut arena = Arena::default();
            let rows = statement.query_map(asked, |row| key_value(row, |bytes| arena.keep(bytes)));
            Ok(rows.and_then(Iterator::collect).map(|mut kvs: Vec<_>| {
                let more = request.limit.is_some_and(|limit| kvs.len() > limit);
                kvs.truncate(request.limit.unwrap_or(usize::MAX));
                ListResponse { revision, kvs, more }
            }))
        })
    }

    pub(super) fn count(&mut self, request: &CountRequest) -> Result<CountResponse, StoreError> {
        self.snapshot(Op::Count, |queries, Snapshot { revision, compacted }| {
            check_readable(request.at, compacted, revision)?;
            let count = queries.counter.count(&request.range, request.at.unwrap_or(revision), compacted);
            Ok(count.map(|count| CountResponse { revision, count: count.unsigned_abs() }))
        })
    }

    pub(super) fn page(&mut self, range: &KeyRange, from: Revision, to: Option<Revision>) -> Result<Page, StoreError> {
        self.snapshot(Op::Watch, |queries, Snapshot { revision, compacted }| {
            check_watchable(from, compacted)?;
            let to = to.unwrap_or(revision).min(revision);
            let scanned = to.min(Revision::new(from.get().saturating_add(PAGE_REVISIONS - 1)));
            let events = queries.events(range, from, scanned);
            Ok(events.map(|events| Page { events, scanned, current: revision }))
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
        let real = rows.filter(|event| !event.as_ref().is_ok_and(|event| is_reserved(&event.kv.key)));
        real.map(|event| event.map(Arc::new)).collect()
    }

    pub(super) fn status(&mut self, log: &Path) -> Result<Status, StoreError> {
        self.snapshot(Op::Status, |queries, Snapshot { revision, compacted }| {
            let number = |pragma| queries.connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
            let log_bytes = std::fs::metadata(log).map_or(0, |meta| meta.len());
            let numbers = || -> rusqlite::Result<Status> {
                let page_bytes = number("PRAGMA page_size")?.unsigned_abs();
                let pages = number("PRAGMA page_count")?.unsigned_abs();
                let free_bytes = number("PRAGMA freelist_count")?.unsigned_abs() * page_bytes;
                Ok(Status { revision, compacted, size_bytes: pages * page_bytes + log_bytes, free_bytes, log_bytes })
            };
            Ok(numbers())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{SqliteOptions, count, list, open};

    /// A list with a limit must not sort or collect the whole range, and no read may walk the whole table.
    #[test]
    fn every_read_walks_an_index_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let connection = open::open_for_writing(&SqliteOptions::new(directory.path().join("state.db"))).unwrap();
        let ours = [LIST, LIST_KEYS, GET, EVENTS, COMPACTED, REVISION];
        for query in ours.into_iter().chain(count::QUESTIONS).chain(list::QUESTIONS) {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            for number in 1..=explain.parameter_count() {
                explain.raw_bind_parameter(number, 1).unwrap();
            }
            let mut rows = explain.raw_query();
            while let Some(row) = rows.next().unwrap() {
                let step: String = row.get(3).unwrap();
                assert!(!step.contains("TEMP B-TREE") && !step.contains("SCAN kine"), "{query}: {step}");
            }
        }
    }
}
