//! What the table is asked, and told. Each read is one statement, so that it sees one state of the table, and brings
//! the bounds of that state with it.
//!
//! Servers take turns with an advisory lock. Whether a missing revision is of a transaction that failed, or of a kine
//! that is not done yet, is told by a lock on the table: whoever draws a number holds a lock on it.

use bytes::Bytes;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::connect::Session;
use super::text::{NameRange, name};
use crate::table::{self, Bounds, EventRow, NewRow, Scan, Size, StoredRow};
use crate::types::{Key, KeyRange, Revision};

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

/// One server after the other; the number stands for "kine" and for nothing else.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(1802071653)";
/// Waits for every insert under way, and lets none begin.
const LOCK_TABLE: &str = "LOCK TABLE kine IN SHARE ROW EXCLUSIVE MODE";
const NEWEST: &str = "SELECT DISTINCT ON (name) id, name, created, create_revision, lease, value, deleted
    FROM kine WHERE name = ANY($1::text[]) ORDER BY name, id DESC";
const DRAW: &str = "SELECT nextval(pg_get_serial_sequence('kine', 'id')) FROM generate_series(1, $1::bigint)";
/// Where the numbers go on when nobody else can draw one.
const JUMP: &str = "SELECT setval(pg_get_serial_sequence('kine', 'id'), $1::bigint)";
const INSERT: &str = "INSERT INTO kine
    (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::int[], $4::int[], $5::bigint[], $6::bigint[], $7::int[],
        $8::bytea[], $9::bytea[])";
/// Rows that were replaced by a row of the step. The marker's `prev_revision` is no row.
const DELETE_REPLACED: &str = "DELETE FROM kine AS old USING kine AS new WHERE old.id = new.prev_revision
    AND new.id > $1 AND new.id <= $2 AND new.prev_revision <> 0 AND new.name <> 'compact_rev_key'";
/// Deletes of the step, and fillers of gaps. The newest row stays in any case: it is the revision of the store.
const DELETE_DELETED: &str = "DELETE FROM kine WHERE id > $1 AND id <= $2 AND deleted <> 0 AND id < $3";
const MOVE_MARKER: &str = "UPDATE kine SET prev_revision = $1 WHERE name = 'compact_rev_key'";

fn number(row: &Row, column: usize) -> Result<i64, Error> {
    Ok(row.try_get::<_, Option<i64>>(column)?.unwrap_or_default())
}

fn small(row: &Row, column: usize) -> Result<i32, Error> {
    Ok(row.try_get::<_, Option<i32>>(column)?.unwrap_or_default())
}

fn bytes(row: &Row, column: usize) -> Result<Bytes, Error> {
    Ok(row.try_get::<_, Option<&[u8]>>(column)?.map_or_else(Bytes::new, Bytes::copy_from_slice))
}

/// Reads `id, name, created, create_revision, lease, value` from this column on, and `deleted` if there is such a
/// column behind them; none when the join found nothing.
fn stored(row: &Row, at: usize) -> Result<Option<StoredRow>, Error> {
    let Some(id) = row.try_get::<_, Option<i64>>(at)? else { return Ok(None) };
    Ok(Some(StoredRow {
        id,
        key: Key::from(row.try_get::<_, Option<&str>>(at + 1)?.unwrap_or_default()),
        created: small(row, at + 2)? != 0,
        deleted: row.len() > at + 6 && small(row, at + 6)? != 0,
        create_revision: number(row, at + 3)?,
        lease: small(row, at + 4)?.into(),
        value: bytes(row, at + 5)?,
    }))
}

/// Reads a row of [`EVENTS`].
fn event(row: &Row) -> Result<Option<EventRow>, Error> {
    let Some(stored) = stored(row, 2)? else { return Ok(None) };
    Ok(Some(EventRow {
        row: stored,
        prev_revision: number(row, 9)?,
        old_value: bytes(row, 10)?,
        prev_created: small(row, 11)? != 0,
        prev_create_revision: number(row, 12)?,
        prev_lease: small(row, 13)?.into(),
    }))
}

/// The first two columns of whatever there is.
fn bounds_of(rows: &[Row]) -> Result<Bounds, Error> {
    let Some(row) = rows.first() else { return Ok(Bounds { revision: Revision::ZERO, compacted: Revision::ZERO }) };
    Ok(Bounds { revision: Revision::new(number(row, 0)?), compacted: Revision::new(number(row, 1)?) })
}

/// The names of a range; of an empty one, those between a text and itself.
fn names(range: &KeyRange) -> NameRange {
    NameRange::new(range).unwrap_or_else(|| NameRange { start: String::new(), end: Some(String::new()) })
}

impl Session {
    /// Takes numbers from the sequence.
    async fn draw(&self, count: i64) -> Result<Vec<i64>, Error> {
        self.query(DRAW, &[&count]).await?.iter().map(|row| row.try_get(0)).collect()
    }
}

impl table::Session for Session {
    type Error = Error;

    fn is_closed(&self) -> bool {
        self.has_ended()
    }

    async fn bounds(&self) -> Result<Bounds, Error> {
        bounds_of(&self.query(BOUNDS, &[]).await?)
    }

    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<(Bounds, Option<StoredRow>), Error> {
        // No row has an empty name, so that is how to ask for a key that can't be there.
        let name = name(key).unwrap_or_default();
        let at = at.map_or(i64::MAX, Revision::get);
        let rows = self.query(GET, &[&at, &name]).await?;
        let row = rows.first().map_or(Ok(None), |row| stored(row, 2))?;
        Ok((bounds_of(&rows)?, row))
    }

    async fn list(&self, scan: &Scan) -> Result<(Bounds, Vec<StoredRow>), Error> {
        let range = names(&scan.range);
        let (at, all) = (scan.up_to(), !scan.expiring_only);
        // NULL is no limit.
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&at, &range.start, &all, &scan.limit];
        values.extend(range.end.as_ref().map(|end| end as &(dyn ToSql + Sync)));
        let text = match (scan.keys_only, range.end.is_some()) {
            (false, true) => LIST,
            (false, false) => LIST_OPEN,
            (true, true) => LIST_KEYS,
            (true, false) => LIST_KEYS_OPEN,
        };
        let rows = self.query(text, &values).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            found.extend(stored(row, 2)?);
        }
        Ok((bounds_of(&rows)?, found))
    }

    async fn count(&self, range: &KeyRange, at: Option<Revision>) -> Result<(Bounds, u64), Error> {
        let range = names(range);
        let at = at.map_or(i64::MAX, Revision::get);
        let rows = match &range.end {
            Some(end) => self.query(COUNT, &[&at, &range.start, end]).await?,
            None => self.query(COUNT_OPEN, &[&at, &range.start]).await?,
        };
        let count = rows.first().map_or(Ok(0), |row| number(row, 2))?;
        Ok((bounds_of(&rows)?, count.unsigned_abs()))
    }

    async fn size(&self) -> Result<(Bounds, Size), Error> {
        let rows = self.query(STATUS, &[]).await?;
        let total = rows.first().map_or(Ok(0), |row| number(row, 2))?;
        Ok((bounds_of(&rows)?, Size { total: total.unsigned_abs(), free: 0 }))
    }

    async fn events(&self, from: Revision, to: Revision) -> Result<(Bounds, Vec<EventRow>), Error> {
        let rows = self.query(EVENTS, &[&from.get(), &to.get()]).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            events.extend(event(row)?);
        }
        Ok((bounds_of(&rows)?, events))
    }

    async fn begin(&self, alone: bool) -> Result<(), Error> {
        self.batch("BEGIN").await?;
        self.batch(LOCK).await?;
        if alone {
            self.batch(LOCK_TABLE).await?;
        }
        Ok(())
    }

    async fn newest(&self, keys: &[&Key]) -> Result<(Bounds, Vec<StoredRow>), Error> {
        let names: Vec<&str> = keys.iter().filter_map(|key| name(key)).collect();
        let values: [&(dyn ToSql + Sync); 1] = [&names];
        let (bounds, rows) = tokio::try_join!(table::Session::bounds(self), self.query(NEWEST, &values))?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            found.extend(stored(row, 0)?);
        }
        Ok((bounds, found))
    }

    async fn given_out(&self, newest: Revision) -> Result<Revision, Error> {
        // The sequence is behind the newest row, or at what may still be drawn.
        let next = self.draw(1).await?.first().copied().unwrap_or_default();
        Ok(newest.max(Revision::new(next - 1)))
    }

    async fn claim(&self, last: Revision, count: usize, alone: bool) -> Result<bool, Error> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        if alone {
            self.query(JUMP, &[&(last.get() + count).max(1)]).await?;
            return Ok(true);
        }
        Ok(count == 0 || self.draw(count).await? == (last.get() + 1..=last.get() + count).collect::<Vec<_>>())
    }

    async fn insert(&self, rows: &[NewRow<'_>]) -> Result<(), Error> {
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        let created: Vec<i32> = rows.iter().map(|row| row.created.into()).collect();
        let deleted: Vec<i32> = rows.iter().map(|row| row.deleted.into()).collect();
        let creations: Vec<i64> = rows.iter().map(|row| row.create_revision).collect();
        let prevs: Vec<i64> = rows.iter().map(|row| row.prev_revision).collect();
        let leases: Vec<i32> = rows.iter().map(|row| row.lease).collect();
        let values: Vec<Option<&[u8]>> = rows.iter().map(|row| row.value).collect();
        let old_values: Vec<Option<&[u8]>> = rows.iter().map(|row| row.old_value).collect();
        let columns: [&(dyn ToSql + Sync); 9] =
            [&ids, &names, &created, &deleted, &creations, &prevs, &leases, &values, &old_values];
        self.query(INSERT, &columns).await.map(drop)
    }

    async fn drop_history(&self, after: Revision, to: Revision, newest: Revision) -> Result<(), Error> {
        self.query(DELETE_REPLACED, &[&after.get(), &to.get()]).await?;
        self.query(DELETE_DELETED, &[&after.get(), &to.get(), &newest.get()]).await?;
        self.query(MOVE_MARKER, &[&to.get()]).await.map(drop)
    }

    async fn commit(&self) -> Result<(), Error> {
        self.batch("COMMIT").await
    }

    async fn rollback(&self) -> Result<(), Error> {
        self.batch("ROLLBACK").await
    }
}
