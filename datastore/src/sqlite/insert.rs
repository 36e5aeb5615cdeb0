//! Appends rows to the table. Many at a time where there are many: what a statement costs by itself, the counter of
//! numbers that SQLite writes after each of them included, is then shared by its rows.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement, ToSql};

use crate::types::{Event, EventKind};

/// How many rows the greater statement has.
const ROWS: usize = 16;
/// The columns of a row, in the order in which they are bound.
const COLUMNS: usize = 9;

/// An event, and the number of the row before it; zero if there is none.
#[derive(Clone, Copy)]
pub(super) struct Row<'e> {
    pub(super) event: &'e Event,
    pub(super) replaced: i64,
}

pub(super) struct Inserter<'c> {
    one: Statement<'c>,
    many: Statement<'c>,
}

fn statement(rows: usize) -> String {
    let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?)"; rows].join(", ");
    format!(
        "INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
         VALUES {values}"
    )
}

impl<'c> Inserter<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self { one: connection.prepare(&statement(1))?, many: connection.prepare(&statement(ROWS))? })
    }

    /// Appends the rows, in order.
    pub(super) fn insert<'e>(&mut self, rows: impl Iterator<Item = Row<'e>>) -> rusqlite::Result<()> {
        let rows: Vec<Row<'_>> = rows.collect();
        let (many, rest) = rows.as_chunks::<ROWS>();
        for rows in many {
            execute(&mut self.many, rows)?;
        }
        for row in rest {
            execute(&mut self.one, std::slice::from_ref(row))?;
        }
        Ok(())
    }
}

fn execute(statement: &mut Statement<'_>, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    for (number, row) in rows.iter().enumerate() {
        for (column, value) in columns(row).into_iter().enumerate() {
            statement.raw_bind_parameter(number * COLUMNS + column + 1, Bound(value))?;
        }
    }
    statement.raw_execute()?;
    Ok(())
}

struct Bound<'v>(ValueRef<'v>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

fn columns<'e>(Row { event, replaced }: &Row<'e>) -> [ValueRef<'e>; COLUMNS] {
    let Event { kind, kv, prev } = event;
    let flag = |set: bool| ValueRef::Integer(set.into());
    let deleted = *kind == EventKind::Delete;
    // Not for an update: that would write every value twice, and the row before has it for as long as it is needed.
    let old_value = prev.as_ref().filter(|_| deleted).map_or(ValueRef::Null, |prev| ValueRef::Blob(&prev.value));
    // kine leaves the creation of a row that creates or deletes at 0.
    let create_revision = if *kind == EventKind::Update { kv.create_revision.get() } else { 0 };
    [
        ValueRef::Integer(kv.mod_revision.get()),
        // SQLite stores the bytes as they are, and compares them as bytes.
        ValueRef::Text(kv.key.as_bytes()),
        flag(*kind == EventKind::Create),
        flag(deleted),
        ValueRef::Integer(create_revision),
        ValueRef::Integer(*replaced),
        ValueRef::Integer(kv.ttl.as_seconds().into()),
        if deleted { ValueRef::Null } else { ValueRef::Blob(&kv.value) },
        old_value,
    ]
}
