//! What the table is asked, and told.
//!
//! A read is one question of several statements: a snapshot, its bounds, what was asked for. Servers take turns by a
//! lock on the row of the compaction marker, which a kine that compacts has as well. The writer's transactions see what
//! is committed at each statement, and lock no gaps between rows, in which others would wait.
//!
//! Revisions of ours are given out by ourselves, as the next number after the newest row. If a kine has drawn that
//! number already, one of the two rows is refused, and nothing has happened; ours is tried again. Where the writer is to
//! be alone it is the same: a row in the place of a missing one waits for an insert under way there.

use mysql_async::{Row, Value};

use super::fault::MySqlFault;
use super::names::{inside, literal, name};
use super::session::{Columns, Session};
use crate::table::{self, Bounds, EventRow, NewRow, Scan, Size, StoredRow};
use crate::types::{Key, KeyRange, Revision};

/// The most bytes of values that one statement adds, unless a single row has more.
const INSERT_BYTES_MAX: usize = 4 << 20;

/// The two columns that tell of the state of the table.
macro_rules! bounds {
    () => {
        "(SELECT max(id) FROM kine) AS revision,
         (SELECT max(prev_revision) FROM kine WHERE name = 'compact_rev_key') AS compacted"
    };
}

/// What [`stored`] reads.
macro_rules! stored_columns {
    ($value:literal) => {
        concat!("kv.id, kv.name, kv.created, kv.deleted, kv.create_revision, kv.lease, ", $value)
    };
}

const BOUNDS: &str = concat!("SELECT ", bounds!());
const STORED: &str = stored_columns!("kv.value");
const STORED_KEYS: &str = stored_columns!("NULL");
const EVENT: &str = concat!(
    stored_columns!("kv.value"),
    ", kv.prev_revision, kv.old_value, prev.created, prev.create_revision, prev.lease"
);
const SIZE: &str = "SELECT data_length + index_length, data_free FROM information_schema.tables
    WHERE table_schema = database() AND table_name = 'kine'";

const BEGIN: &str = "START TRANSACTION;
    SELECT id FROM kine WHERE name = 'compact_rev_key' ORDER BY id LIMIT 1 FOR UPDATE";
const COLUMNS: &str = "(id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)";
const PLACES: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Reads the columns of [`STORED`]; none when a join found nothing.
fn stored(columns: &mut Columns) -> Result<Option<StoredRow>, MySqlFault> {
    let Some(id) = columns.number()? else { return Ok(None) };
    Ok(Some(StoredRow {
        id,
        key: Key::new(columns.bytes()?),
        created: columns.number_or_zero()? != 0,
        deleted: columns.number_or_zero()? != 0,
        create_revision: columns.number_or_zero()?,
        lease: columns.number_or_zero()?,
        value: columns.bytes()?,
    }))
}

/// Reads the columns of [`EVENT`].
fn event(row: Row) -> Result<Option<EventRow>, MySqlFault> {
    let mut columns = Columns::new(row);
    let Some(row) = stored(&mut columns)? else { return Ok(None) };
    Ok(Some(EventRow {
        row,
        prev_revision: columns.number_or_zero()?,
        old_value: columns.bytes()?,
        prev_created: columns.number_or_zero()? != 0,
        prev_create_revision: columns.number_or_zero()?,
        prev_lease: columns.number_or_zero()?,
    }))
}

/// Reads the columns of [`BOUNDS`].
fn bounds_of(columns: &mut Columns) -> Result<Bounds, MySqlFault> {
    let revision = Revision::new(columns.number_or_zero()?);
    Ok(Bounds { revision, compacted: Revision::new(columns.number_or_zero()?) })
}

fn stored_rows(rows: Vec<Row>) -> Result<Vec<StoredRow>, MySqlFault> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        found.extend(stored(&mut Columns::new(row))?);
    }
    Ok(found)
}

/// The newest row of each live key of a range up to a revision, for somebody who wants all of them: the numbers come
/// from an index alone.
fn newest_live(columns: &str, range: &KeyRange, up_to: i64) -> String {
    let inside = inside(range, "name").unwrap_or_else(|| "false".to_owned());
    format!(
        "SELECT {columns} FROM (SELECT max(id) AS id FROM kine WHERE {inside} AND id <= {up_to} GROUP BY name) AS newest
         JOIN kine AS kv ON kv.id = newest.id WHERE kv.deleted = 0 AND kv.name <> 'compact_rev_key'"
    )
}

/// The same for somebody who wants the first ones: a walk along an index in the order of names, which a limit ends.
fn first_live(columns: &str, range: &KeyRange, up_to: i64) -> String {
    let inside = inside(range, "kv.name").unwrap_or_else(|| "false".to_owned());
    format!(
        "SELECT {columns} FROM kine AS kv FORCE INDEX (kine_name_id_index)
         LEFT JOIN kine AS later FORCE INDEX (kine_name_id_index)
            ON later.name = kv.name AND later.id > kv.id AND later.id <= {up_to}
         WHERE {inside} AND kv.id <= {up_to} AND kv.deleted = 0 AND kv.name <> 'compact_rev_key' AND later.id IS NULL"
    )
}

/// Revisions before the first one are asked for like any other, and the column has no sign.
fn unsigned(revision: i64) -> i64 {
    revision.max(0)
}

impl Session {
    /// The bounds of a state, and the rows that a question finds in it. In a transaction of the writer, whose turn it
    /// is, the question may find rows that are newer than the bounds.
    async fn snapshot(&self, text: &str) -> Result<(Bounds, Vec<Row>), MySqlFault> {
        let sets = if self.is_in_transaction() {
            self.query(&format!("{BOUNDS}; {text}")).await?
        } else {
            let question = format!("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY; {BOUNDS}; {text}; COMMIT");
            match self.query(&question).await {
                // The first statement has no rows.
                Ok(sets) => sets.into_iter().skip(1).collect(),
                Err(error) => {
                    // What comes behind the error was not done, so the snapshot is still there.
                    self.give_up().await;
                    return Err(error);
                }
            }
        };
        let mut sets = sets.into_iter();
        let bounds = one_row(sets.next()).map_or(Ok(Bounds::default()), |mut columns| bounds_of(&mut columns))?;
        Ok((bounds, sets.next().unwrap_or_default()))
    }
}

fn one_row(set: Option<Vec<Row>>) -> Option<Columns> {
    set.and_then(|rows| rows.into_iter().next()).map(Columns::new)
}

impl table::Session for Session {
    type Error = MySqlFault;

    fn is_closed(&self) -> bool {
        self.is_given_up()
    }

    async fn bounds(&self) -> Result<Bounds, MySqlFault> {
        let sets = self.query(BOUNDS).await?;
        one_row(sets.into_iter().next()).map_or(Ok(Bounds::default()), |mut columns| bounds_of(&mut columns))
    }

    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<(Bounds, Option<StoredRow>), MySqlFault> {
        // No row has an empty name, so that is how to ask for a key that can't be there.
        let (name, up_to) = (literal(name(key).unwrap_or_default()), unsigned(at.map_or(i64::MAX, Revision::get)));
        let text = format!(
            "SELECT {STORED} FROM kine AS kv WHERE kv.name = {name} AND kv.id <= {up_to} ORDER BY kv.id DESC LIMIT 1"
        );
        let (bounds, rows) = self.snapshot(&text).await?;
        Ok((bounds, stored_rows(rows)?.pop()))
    }

    async fn list(&self, scan: &Scan) -> Result<(Bounds, Vec<StoredRow>), MySqlFault> {
        let columns = if scan.keys_only { STORED_KEYS } else { STORED };
        let live = if scan.limit.is_some() { first_live } else { newest_live };
        let mut text = live(columns, &scan.range, unsigned(scan.up_to()));
        if scan.expiring_only {
            text.push_str(" AND kv.lease > 0");
        }
        if let Some(limit) = scan.limit {
            text.push_str(&format!(" ORDER BY kv.name LIMIT {}", unsigned(limit)));
        }
        let (bounds, rows) = self.snapshot(&text).await?;
        Ok((bounds, stored_rows(rows)?))
    }

    async fn count(&self, range: &KeyRange, at: Option<Revision>) -> Result<(Bounds, u64), MySqlFault> {
        let text = newest_live("count(*)", range, unsigned(at.map_or(i64::MAX, Revision::get)));
        let (bounds, rows) = self.snapshot(&text).await?;
        let count = one_row(Some(rows)).map_or(Ok(0), |mut columns| columns.number_or_zero())?;
        Ok((bounds, count.unsigned_abs()))
    }

    async fn size(&self) -> Result<(Bounds, Size), MySqlFault> {
        let (bounds, rows) = self.snapshot(SIZE).await?;
        let Some(mut columns) = one_row(Some(rows)) else { return Ok((bounds, Size::default())) };
        let mut bytes = || Ok::<_, MySqlFault>(columns.number_or_zero()?.unsigned_abs());
        Ok((bounds, Size { total: bytes()?, free: bytes()? }))
    }

    async fn events(&self, from: Revision, to: Revision) -> Result<(Bounds, Vec<EventRow>), MySqlFault> {
        let (from, to) = (unsigned(from.get()), unsigned(to.get()));
        let text = format!(
            "SELECT {EVENT} FROM kine AS kv LEFT JOIN kine AS prev ON prev.id = kv.prev_revision
             WHERE kv.id >= {from} AND kv.id <= {to}"
        );
        let (bounds, rows) = self.snapshot(&text).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            events.extend(event(row)?);
        }
        Ok((bounds, events))
    }

    async fn begin(&self, _alone: bool) -> Result<(), MySqlFault> {
        self.note_transaction(true);
        self.query(BEGIN).await.map(drop)
    }

    async fn newest(&self, keys: &[&Key]) -> Result<(Bounds, Vec<StoredRow>), MySqlFault> {
        let names: Vec<String> = keys.iter().filter_map(|key| name(key)).map(literal).collect();
        if names.is_empty() {
            return Ok((table::Session::bounds(self).await?, Vec::new()));
        }
        // One statement, so that no row is newer than the bounds.
        let text = format!(
            "SELECT bounds.revision, bounds.compacted, {STORED} FROM (SELECT {}) AS bounds
             LEFT JOIN (SELECT max(id) AS id FROM kine WHERE name IN ({}) GROUP BY name) AS newest ON true
             LEFT JOIN kine AS kv ON kv.id = newest.id",
            bounds!(),
            names.join(", ")
        );
        let (mut bounds, mut found) = (Bounds::default(), Vec::new());
        for row in self.query(&text).await?.into_iter().flatten() {
            let mut columns = Columns::new(row);
            bounds = bounds_of(&mut columns)?;
            found.extend(stored(&mut columns)?);
        }
        Ok((bounds, found))
    }

    async fn given_out(&self, newest: Revision) -> Result<Revision, MySqlFault> {
        Ok(newest)
    }

    async fn claim(&self, _last: Revision, _count: usize, _alone: bool) -> Result<bool, MySqlFault> {
        Ok(true)
    }

    async fn insert(&self, rows: &[NewRow<'_>]) -> Result<(), MySqlFault> {
        let mut rest = rows;
        while !rest.is_empty() {
            let (some, others) = rest.split_at(next_statement(rest));
            let text = format!("INSERT INTO kine {COLUMNS} VALUES {}", vec![PLACES; some.len()].join(", "));
            self.execute(&text, some.iter().flat_map(values).collect()).await?;
            rest = others;
        }
        Ok(())
    }

    async fn drop_history(&self, after: Revision, to: Revision, newest: Revision) -> Result<(), MySqlFault> {
        let (after, to, newest) = (unsigned(after.get()), to.get(), newest.get());
        // Rows that were replaced by a row of the step (the marker's `prev_revision` is no row); deletes of the step
        // and fillers of gaps, but never the newest row, which is the revision of the store.
        let text = format!(
            "DELETE replaced FROM kine AS replaced JOIN kine AS newer ON replaced.id = newer.prev_revision
                WHERE newer.id > {after} AND newer.id <= {to} AND newer.prev_revision <> 0
                AND newer.name <> 'compact_rev_key';
             DELETE FROM kine WHERE id > {after} AND id <= {to} AND deleted <> 0 AND id < {newest};
             UPDATE kine SET prev_revision = {to} WHERE name = 'compact_rev_key' ORDER BY prev_revision DESC LIMIT 1"
        );
        self.query(&text).await.map(drop)
    }

    async fn commit(&self) -> Result<(), MySqlFault> {
        self.note_transaction(false);
        self.query("COMMIT").await.map(drop)
    }

    async fn rollback(&self) -> Result<(), MySqlFault> {
        self.note_transaction(false);
        self.query("ROLLBACK").await.map(drop)
    }
}

/// How many of the rows one statement adds: a power of two, so that there are few statements to prepare.
fn next_statement(rows: &[NewRow<'_>]) -> usize {
    let bytes = |row: &NewRow<'_>| row.value.map_or(0, <[u8]>::len) + row.old_value.map_or(0, <[u8]>::len);
    let mut total = 0;
    let fitting = rows.iter().take_while(|row| {
        total += bytes(row);
        total <= INSERT_BYTES_MAX
    });
    let fitting = fitting.count().max(1);
    1 << fitting.ilog2()
}

fn values(row: &NewRow<'_>) -> [Value; 9] {
    let blob = |bytes: Option<&[u8]>| bytes.map_or(Value::NULL, |bytes| Value::Bytes(bytes.to_vec()));
    [
        row.id.into(),
        row.name.into(),
        row.created.into(),
        row.deleted.into(),
        row.create_revision.into(),
        row.prev_revision.into(),
        row.lease.into(),
        blob(row.value),
        blob(row.old_value),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_in_few_kinds_of_statements_of_bounded_size() {
        let row = |bytes: &'static [u8]| NewRow { value: Some(bytes), ..NewRow::filler(1, "k") };
        let sizes = |mut rows: &[NewRow<'_>]| {
            let mut sizes = Vec::new();
            while !rows.is_empty() {
                let size = next_statement(rows);
                sizes.push(size);
                rows = &rows[size..];
            }
            sizes
        };
        assert_eq!(sizes(&[row(b"1"); 13]), [8, 4, 1]);
        static LARGE: [u8; 3 << 20] = [0; 3 << 20];
        assert_eq!(sizes(&[row(&LARGE); 3]), [1, 1, 1]);
        static HUGE: [u8; 5 << 20] = [0; 5 << 20];
        assert_eq!(sizes(&[row(b"1"), row(b"1"), row(b"1"), row(&HUGE)]), [2, 1, 1]);
    }
}
