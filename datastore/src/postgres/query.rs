//! Reads. Each is one statement, so that it sees one state of the table, and brings the bounds of that state with it.

use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::connect::Session;
use super::text::{NameRange, name};
use crate::error::{StoreError, check_readable, check_watchable, is_reserved};
use crate::request::{CountRequest, CountResponse, GetRequest, GetResponse, ListRequest, ListResponse, Status};
use crate::types::{Event, EventKind, Key, KeyRange, KeyValue, Revision, Ttl};
use crate::watch::Page;

/// How many revisions a page looks at.
const PAGE_REVISIONS: i64 = 500;

/// The state of the table in one row, and what is asked for beside it.
macro_rules! with_bounds {
    ($columns:literal, $($rest:expr),+) => {
        concat!(
            "SELECT bounds.revision, bounds.compacted, ", $columns, " FROM (SELECT
                (SELECT coalesce(max(id), 0) FROM kine) AS revision,
                (SELECT coalesce(max(prev_revision), 0) FROM kine WHERE name = 'compact_rev_key') AS compacted
             ) AS bounds LEFT JOIN LATERAL (", $($rest),+, ") AS kv ON true"
        )
    };
}

/// The newest row of each name of a range, up to a revision: in the order of kine's index for lists, so that a limit
/// ends the walk.
macro_rules! newest {
    ($columns:literal, $end:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM (SELECT DISTINCT ON (name) * FROM kine
                WHERE id <= $1 AND name >= $2",
            $end,
            " ORDER BY name, id DESC) AS n
             WHERE n.deleted = 0 AND n.name <> 'compact_rev_key'",
            $rest
        )
    };
}

const BOUNDS: &str = "SELECT (SELECT coalesce(max(id), 0) FROM kine) AS revision,
    (SELECT coalesce(max(prev_revision), 0) FROM kine WHERE name = 'compact_rev_key') AS compacted";
const STATUS: &str = with_bounds!("kv.size", "SELECT pg_total_relation_size('kine') AS size");
const GET: &str = with_bounds!(
    "kv.id, kv.name, kv.created, kv.create_revision, kv.lease, kv.value, kv.deleted",
    "SELECT * FROM kine WHERE name = $2 AND id <= $1 ORDER BY id DESC LIMIT 1"
);
const LIST: &str = with_bounds!(
    "kv.id, kv.name, kv.created, kv.create_revision, kv.lease, kv.value",
    newest!("*", " AND name < $5", " AND ($3 OR n.lease > 0) LIMIT $4")
);
const LIST_OPEN: &str = with_bounds!(
    "kv.id, kv.name, kv.created, kv.create_revision, kv.lease, kv.value",
    newest!("*", "", " AND ($3 OR n.lease > 0) LIMIT $4")
);
const LIST_KEYS: &str = with_bounds!(
    "kv.id, kv.name, kv.created, kv.create_revision, kv.lease, NULL::bytea",
    newest!("*", " AND name < $5", " AND ($3 OR n.lease > 0) LIMIT $4")
);
const LIST_KEYS_OPEN: &str = with_bounds!(
    "kv.id, kv.name, kv.created, kv.create_revision, kv.lease, NULL::bytea",
    newest!("*", "", " AND ($3 OR n.lease > 0) LIMIT $4")
);
const COUNT: &str = with_bounds!("kv.count", newest!("count(*) AS count", " AND name < $3", ""));
const COUNT_OPEN: &str = with_bounds!("kv.count", newest!("count(*) AS count", "", ""));
const EVENTS: &str = with_bounds!(
    "kv.id, kv.name, kv.created, kv.create_revision, kv.lease, kv.value, kv.deleted, kv.prev_revision, kv.old_value,
     kv.prev_created, kv.prev_create_revision, kv.prev_lease",
    "SELECT e.*, p.created AS prev_created, p.create_revision AS prev_create_revision, p.lease AS prev_lease
     FROM kine AS e LEFT JOIN kine AS p ON p.id = e.prev_revision
     WHERE e.id >= $1 AND e.id <= $2 ORDER BY e.id"
);

/// What the table showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub revision: Revision,
    pub compacted: Revision,
}

fn number(row: &Row, column: usize) -> Result<i64, Error> {
    Ok(row.try_get::<_, Option<i64>>(column)?.unwrap_or_default())
}

fn small(row: &Row, column: usize) -> Result<i32, Error> {
    Ok(row.try_get::<_, Option<i32>>(column)?.unwrap_or_default())
}

fn bytes(row: &Row, column: usize) -> Result<Bytes, Error> {
    Ok(row.try_get::<_, Option<&[u8]>>(column)?.map_or_else(Bytes::new, Bytes::copy_from_slice))
}

fn ttl(row: &Row, column: usize) -> Result<Ttl, Error> {
    Ok(Ttl::seconds(u32::try_from(small(row, column)?).unwrap_or_default()))
}

/// A row that creates a key is its own creation; any other names it.
fn creation(created: bool, id: Revision, create_revision: i64) -> Revision {
    if created || create_revision == 0 { id } else { Revision::new(create_revision) }
}

/// Reads `id, name, created, create_revision, lease, value` from this column on; none when the join found nothing.
pub(super) fn key_value(row: &Row, at: usize) -> Result<Option<KeyValue>, Error> {
    let Some(id) = row.try_get::<_, Option<i64>>(at)? else { return Ok(None) };
    let mod_revision = Revision::new(id);
    Ok(Some(KeyValue {
        key: Key::from(row.try_get::<_, Option<&str>>(at + 1)?.unwrap_or_default()),
        value: bytes(row, at + 5)?,
        create_revision: creation(small(row, at + 2)? != 0, mod_revision, number(row, at + 3)?),
        mod_revision,
        ttl: ttl(row, at + 4)?,
    }))
}

/// Reads a row of [`EVENTS`].
fn event(row: &Row) -> Result<Option<Event>, Error> {
    let Some(kv) = key_value(row, 2)? else { return Ok(None) };
    let (created, deleted, prev_revision) = (small(row, 4)? != 0, small(row, 8)? != 0, number(row, 9)?);
    let prev = if created || prev_revision == 0 {
        None
    } else {
        let mod_revision = Revision::new(prev_revision);
        Some(KeyValue {
            key: kv.key.clone(),
            value: bytes(row, 10)?,
            create_revision: creation(small(row, 11)? != 0, mod_revision, number(row, 12)?),
            mod_revision,
            ttl: ttl(row, 13)?,
        })
    };
    if deleted {
        return Ok(Some(Event::delete(kv.key, kv.mod_revision, prev)));
    }
    let kind = if created { EventKind::Create } else { EventKind::Update };
    Ok(Some(Event { kind, kv, prev }))
}

fn bounds_of(rows: &[Row]) -> Result<Bounds, Error> {
    let Some(row) = rows.first() else { return Ok(Bounds { revision: Revision::ZERO, compacted: Revision::ZERO }) };
    Ok(Bounds { revision: Revision::new(number(row, 0)?), compacted: Revision::new(number(row, 1)?) })
}

/// What a read came to: an answer or a refusal, unless the database failed.
pub(super) type Answer<T> = Result<Result<T, StoreError>, Error>;

impl Session {
    pub(super) async fn bounds(&self) -> Result<Bounds, Error> {
        bounds_of(&self.query(BOUNDS, &[]).await?)
    }

    pub(super) async fn status(&self) -> Answer<Status> {
        let rows = self.query(STATUS, &[]).await?;
        let Bounds { revision, compacted } = bounds_of(&rows)?;
        let size = rows.first().map_or(Ok(0), |row| number(row, 2))?;
        Ok(Ok(Status { revision, compacted, size_bytes: size.unsigned_abs(), ..Status::default() }))
    }

    pub(super) async fn get(&self, request: &GetRequest) -> Answer<GetResponse> {
        // No row has an empty name, so that is how to ask for a key that can't be there.
        let name = name(&request.key).unwrap_or_default();
        let at = request.at.map_or(i64::MAX, Revision::get);
        let rows = self.query(GET, &[&at, &name]).await?;
        let Bounds { revision, compacted } = bounds_of(&rows)?;
        if let Err(refusal) = check_readable(request.at, compacted, revision) {
            return Ok(Err(refusal));
        }
        let mut kv = None;
        for row in rows.iter().filter(|_| !is_reserved(&request.key)) {
            kv = if small(row, 8)? == 0 { key_value(row, 2)? } else { None };
        }
        Ok(Ok(GetResponse { revision, kv }))
    }

    pub(super) async fn list(&self, request: &ListRequest) -> Answer<ListResponse> {
        let rest = request.after.as_ref().map(|after| request.range.after(after));
        let range = names(rest.as_ref().unwrap_or(&request.range));
        let at = request.at.map_or(i64::MAX, Revision::get);
        let all = !request.expiring_only;
        // One more than asked for tells whether there are more; NULL is no limit.
        let limit = request.limit.and_then(|limit| i64::try_from(limit).ok()?.checked_add(1));
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&at, &range.start, &all, &limit];
        values.extend(range.end.as_ref().map(|end| end as &(dyn ToSql + Sync)));
        let text = match (request.keys_only, range.end.is_some()) {
            (false, true) => LIST,
            (false, false) => LIST_OPEN,
            (true, true) => LIST_KEYS,
            (true, false) => LIST_KEYS_OPEN,
        };
        let rows = self.query(text, &values).await?;
        let Bounds { revision, compacted } = bounds_of(&rows)?;
        if let Err(refusal) = check_readable(request.at, compacted, revision) {
            return Ok(Err(refusal));
        }
        let mut kvs = Vec::with_capacity(rows.len());
        for row in &rows {
            kvs.extend(key_value(row, 2)?);
        }
        // They come in this order, but no clause of the statement promises it.
        kvs.sort_by(|one, other| one.key.cmp(&other.key));
        let more = request.limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(request.limit.unwrap_or(usize::MAX));
        Ok(Ok(ListResponse { revision, kvs, more }))
    }

    pub(super) async fn count(&self, request: &CountRequest) -> Answer<CountResponse> {
        let range = names(&request.range);
        let at = request.at.map_or(i64::MAX, Revision::get);
        let rows = match &range.end {
            Some(end) => self.query(COUNT, &[&at, &range.start, end]).await?,
            None => self.query(COUNT_OPEN, &[&at, &range.start]).await?,
        };
        let Bounds { revision, compacted } = bounds_of(&rows)?;
        if let Err(refusal) = check_readable(request.at, compacted, revision) {
            return Ok(Err(refusal));
        }
        let count = rows.first().map_or(Ok(0), |row| number(row, 2))?;
        Ok(Ok(CountResponse { revision, count: count.unsigned_abs() }))
    }

    pub(super) async fn page(&self, range: &KeyRange, from: Revision, to: Option<Revision>) -> Answer<Page> {
        let last = from.get().saturating_add(PAGE_REVISIONS - 1);
        let last = to.map_or(last, |to| last.min(to.get()));
        let (bounds, mut events) = self.events(from, Revision::new(last)).await?;
        if let Err(refusal) = check_watchable(from, bounds.compacted) {
            return Ok(Err(refusal));
        }
        events.retain(|event| !is_reserved(&event.kv.key) && range.contains(&event.kv.key));
        let scanned = bounds.revision.min(Revision::new(last));
        Ok(Ok(Page { events, scanned, current: bounds.revision }))
    }

    /// The rows between two revisions, both included, with those that only fill a revision.
    pub(super) async fn events(&self, from: Revision, to: Revision) -> Result<(Bounds, Vec<Arc<Event>>), Error> {
        let rows = self.query(EVENTS, &[&from.get(), &to.get()]).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            events.extend(event(row)?.map(Arc::new));
        }
        events.sort_by_key(|event| event.revision());
        Ok((bounds_of(&rows)?, events))
    }
}

/// The names of a range; of an empty one, those between a text and itself.
fn names(range: &KeyRange) -> NameRange {
    NameRange::new(range).unwrap_or_else(|| NameRange { start: String::new(), end: Some(String::new()) })
}
