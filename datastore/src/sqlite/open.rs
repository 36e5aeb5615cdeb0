//! Opening the file: look whether it is whole, give it kine's layout, and set the connection up for durable writes.

use std::cmp::Reverse;
use std::fs;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{
    Connection, MAIN_DB, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, wal::CheckpointMode,
};

use super::fault::store_error;
use super::index::Index;
use super::options::SqliteOptions;
use super::rows::{Marker, follow};
use super::wal::Log;
use crate::error::{COMPACT_REV_KEY, GAP_PREFIX, Op, StoreError};

/// The page cache of the writer: as much as that of rows, within these bounds. A commit of the greatest size changes some
/// thousand pages; what does not fit is written to the log before its time, and read again.
const WRITER_CACHE_BYTES: RangeInclusive<usize> = (4 << 20)..=(16 << 20);

/// How long to wait for another process that holds the file, before saying so.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The smallest page, and so the smallest database, that SQLite knows.
const PAGE_BYTES_LEAST: u64 = 512;

/// kine's table. Its columns, their order and their types are what makes a file move between kine and us.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS kine (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER, create_revision INTEGER,
    prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB)";

/// The columns of the table.
const COLUMNS: &[&str] =
    &["id", "name", "created", "deleted", "create_revision", "prev_revision", "lease", "value", "old_value"];

/// kine's indexes. Each costs every write about as much as the row itself, and answers what the index in memory answers,
/// or only kine asks; kine makes those that are missing whenever it starts. The unique one keeps two writers from
/// replacing the same row, which here one writer does within one transaction.
const INDEXES_OF_KINE: &[&str] = &[
    "kine_name_index",
    "kine_name_id_index",
    "kine_id_deleted_index",
    "kine_prev_revision_index",
    "kine_name_prev_revision_uindex",
    "kine_id_compact_rev_key_with_prev_revision_index",
];

/// What `PRAGMA auto_vacuum` says when free pages can be given back piece by piece.
const AUTO_VACUUM_INCREMENTAL: i64 = 2;

/// A file that is ready.
#[derive(Debug)]
pub(super) struct Opened {
    /// The writer's.
    pub(super) connection: Connection,
    /// All of its rows.
    pub(super) index: Index,
    /// The number of the row that says how far history is dropped.
    pub(super) marker: i64,
}

/// Opens the file for the writer, and makes it ready.
pub(super) fn open_for_writing(options: &SqliteOptions) -> Result<Opened, StoreError> {
    let path = &options.path;
    let fault = |error| store_error(Op::Open, path, error);
    let system = |error| StoreError::Database { op: Op::Open, source: Arc::new(error) };
    let bytes = create_file(path).map_err(system)?;
    let fresh = bytes == 0;
    if let Some(detail) = if fresh { None } else { missing(path, bytes).map_err(system)? } {
        return Err(StoreError::Damaged { path: path.clone(), detail });
    }
    let crashed = has_log(path);
    let mut connection = connect(options).map_err(fault)?;
    if !fresh && options.integrity_check {
        check(&connection, path, crashed)?;
    }
    prepare_space(&connection, path, fresh, options.convert && !options.keep_log)?;
    set_up(&connection).map_err(fault)?;
    let cache_bytes = options.cache_bytes_max.clamp(*WRITER_CACHE_BYTES.start(), *WRITER_CACHE_BYTES.end());
    // Below zero it counts in KiB, and not in pages.
    connection.pragma_update(None, "cache_size", -i64::try_from(cache_bytes >> 10).unwrap_or(0)).map_err(fault)?;
    check_layout(&connection, path)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
    let index = Index::default();
    let laid_out = lay_out(&transaction, &index);
    let marker = laid_out.and_then(|marker| transaction.commit().map(|()| marker)).map_err(fault)?;
    // Looking through the file has filled the cache with pages that nobody may ask for again.
    connection.execute_batch("PRAGMA shrink_memory").map_err(fault)?;
    let opened = Opened { connection, index, marker };
    if options.keep_log {
        return Ok(opened);
    }
    // A log of another process, or of our past, may be of any length. On a full disk it stays, and reads are possible.
    match opened.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE).map_err(fault) {
        Ok(_) | Err(StoreError::Full { .. }) => Ok(opened),
        Err(error) => Err(error),
    }
}

/// Opens the file for a reader, or for whoever moves the log into the file.
pub(super) fn open_beside(options: &SqliteOptions, reads_only: bool) -> Result<Connection, StoreError> {
    let open = || {
        let connection = connect(options)?;
        set_up(&connection)?;
        // The file is opened for writing in any case: even a reader writes to the index of the log.
        connection.pragma_update(None, "query_only", reads_only)?;
        Ok(connection)
    };
    open().map_err(|error| store_error(Op::Open, &options.path, error))
}

/// How many bytes the file has, which is none if it was not there. Values hold secrets, so only the owner may read it.
fn create_file(path: &Path) -> std::io::Result<u64> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    Ok(file.metadata()?.len())
}

/// What the file lacks, if it is too short. SQLite itself takes a short file for an empty database and begins anew, and
/// fills up with zeroes what is not there. The log may have what is missing, and then it is not.
fn missing(path: &Path, bytes: u64) -> std::io::Result<Option<String>> {
    let partial = || Some(format!("{bytes} bytes are no whole number of pages"));
    if bytes < PAGE_BYTES_LEAST {
        return Ok(partial());
    }
    let log = if has_log(path) { Log::read(&beside(path, "-wal"))? } else { None };
    if let Some(log) = log {
        let pages = log.missing(bytes);
        return Ok((pages > 0).then(|| format!("{pages} pages are missing behind its {bytes} bytes")));
    }
    let mut header = [0; 18];
    fs::File::open(path)?.read_exact(&mut header)?;
    // Two bytes cannot hold 65,536, for which 1 stands.
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    // Whatever this is, it is not the length that is wrong; SQLite says what is.
    let whole = page_bytes < PAGE_BYTES_LEAST || bytes.is_multiple_of(page_bytes);
    Ok(if whole { None } else { partial() })
}

/// Whether the last process left a log: it had no time to close the store.
fn has_log(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// A file that SQLite keeps beside the database.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(ending);
    name.into()
}

fn connect(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    // One thread per connection, so SQLite needs no lock around it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags)?;
    connection.busy_timeout(LOCK_WAIT)?;
    // Otherwise the last connection empties the log when it is closed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, options.keep_log)?;
    Ok(connection)
}

/// Refuses a file that isn't whole. After a crash the file is compared with its log, too: SQLite follows a damaged log
/// as far as it is whole, while pages of what comes behind may be in the file already, and the mixture of the two is a
/// state that never was.
fn check(connection: &Connection, path: &Path, crashed: bool) -> Result<(), StoreError> {
    let damaged = |detail: String| Err(StoreError::Damaged { path: path.to_owned(), detail });
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match found.map_err(|error| store_error(Op::Open, path, error))?.as_str() {
        "ok" => {}
        detail => return damaged(detail.trim_start_matches("*** ").to_owned()),
    }
    if crashed {
        // A file that says nothing by itself has everything in its log.
        let alone = open_without_log(path).map(|file| Progress::of(&file)).unwrap_or_default();
        let together = Progress::of(connection);
        if alone.last > together.last || alone.compacted > together.compacted {
            let Progress { last, compacted } = alone;
            return damaged(format!(
                "it has revision {last} and is compacted up to {compacted}, and its log ends before that, at {} and {}",
                together.last, together.compacted
            ));
        }
    }
    Ok(())
}

/// How far a file has come. Each commit of a write moves the first, each step of a compaction the second.
#[derive(Default)]
struct Progress {
    last: i64,
    compacted: i64,
}

impl Progress {
    fn of(connection: &Connection) -> Self {
        let number = |question| connection.query_row(question, [], |row| row.get::<_, i64>(0)).unwrap_or_default();
        // The marker is the first row, or one of the first.
        let compacted = "SELECT prev_revision FROM kine WHERE name = 'compact_rev_key' ORDER BY id LIMIT 1";
        Self { last: number("SELECT seq FROM sqlite_sequence WHERE name = 'kine'"), compacted: number(compacted) }
    }
}

/// Opens the file for reading as if it had no log.
fn open_without_log(path: &Path) -> rusqlite::Result<Connection> {
    let mut name = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(char::from(*byte)),
            // As in a URL, or a question mark would end the name.
            byte => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(name, flags)
}

/// Makes sure that deleted rows give their space back. That is decided when the file is made, or by rewriting it.
fn prepare_space(connection: &Connection, path: &Path, fresh: bool, convert: bool) -> Result<(), StoreError> {
    let fault = |error| store_error(Op::Open, path, error);
    let mode = |name| connection.query_row(name, [], |row| row.get::<_, i64>(0));
    if fresh {
        return connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(fault);
    }
    if !convert || mode("PRAGMA auto_vacuum").map_err(fault)? == AUTO_VACUUM_INCREMENTAL {
        return Ok(());
    }
    // Without the log, which would grow by the size of the whole file.
    let rewrite = || {
        connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM")
    };
    match rewrite().map_err(fault) {
        Ok(()) => Ok(()),
        Err(error @ (StoreError::Damaged { .. } | StoreError::Locked { .. })) => Err(error),
        Err(error) => {
            tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error,
                "the database could not be rewritten and keeps the space of what is deleted");
            Ok(())
        }
    }
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // Each commit waits for the disk. Moving the log into the file is done apart from commits.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2000",
    )
}

/// Refuses a table of that name that isn't kine's.
fn check_layout(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let names = || -> rusqlite::Result<Vec<String>> {
        connection.prepare("SELECT name FROM pragma_table_info('kine')")?.query_map([], |row| row.get(0))?.collect()
    };
    let found = names().map_err(|error| store_error(Op::Open, path, error))?;
    let missing = COLUMNS.iter().find(|column| !found.iter().any(|name| name == *column));
    match missing {
        Some(column) if !found.is_empty() => {
            let detail = format!("table kine has no column {column}");
            Err(StoreError::Damaged { path: path.to_owned(), detail })
        }
        _ => Ok(()),
    }
}

/// Gives the file its table, and reads it into the index. Returns the number of the marker's row.
fn lay_out(transaction: &Transaction<'_>, index: &Index) -> rusqlite::Result<i64> {
    transaction.execute_batch(TABLE)?;
    for name in INDEXES_OF_KINE {
        transaction.execute_batch(&format!("DROP INDEX IF EXISTS {name}"))?;
    }
    take_over_first_layout(transaction)?;
    let markers = follow(transaction, index)?;
    let marker = one_marker(transaction, markers)?;
    fill_last_revision(transaction)?;
    follow(transaction, index)?;
    Ok(marker)
}

/// The layout before kine, of K3s's first releases: copied once, while there is nothing newer.
fn take_over_first_layout(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let exists = |query| transaction.query_row(query, [], |row| row.get::<_, bool>(0));
    if !exists("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'key_value')")?
        || exists("SELECT EXISTS (SELECT 1 FROM kine)")?
    {
        return Ok(());
    }
    transaction.execute_batch(
        "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
         SELECT name, 1, 0, 0, 0, CASE WHEN ttl > 0 THEN 15 ELSE 0 END, value FROM key_value
         WHERE id IN (SELECT max(id) FROM key_value GROUP BY name) ORDER BY id",
    )
}

/// There has to be one row for the compacted revision. Old releases of kine could leave two; the greater one is right.
fn one_marker(transaction: &Transaction<'_>, mut markers: Vec<Marker>) -> rusqlite::Result<i64> {
    markers.sort_unstable_by_key(|marker| (Reverse(marker.compacted), marker.id));
    for marker in markers.iter().skip(1) {
        transaction.execute("DELETE FROM kine WHERE id = ?1", [marker.id])?;
    }
    if let Some(marker) = markers.first() {
        return Ok(marker.id);
    }
    transaction.execute(
        "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
         VALUES (?1, 1, 0, 0, 0, 0, x'')",
        [COMPACT_REV_KEY],
    )?;
    Ok(transaction.last_insert_rowid())
}

/// The counter may be ahead of the rows, when the newest ones were deleted by hand. Reads take the newest row for the
/// revision of the store, so there has to be one.
fn fill_last_revision(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let last = "SELECT seq FROM sqlite_sequence WHERE name = 'kine' AND seq > (SELECT coalesce(max(id), 0) FROM kine)";
    let Some(last) = transaction.query_row(last, [], |row| row.get::<_, i64>(0)).optional()? else { return Ok(()) };
    transaction.execute(
        "INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease) VALUES (?1, ?2, 0, 1, 0, 0, 0)",
        (last, format!("{GAP_PREFIX}{last}")),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file and its log, of which the file has more than the log says.
    #[test]
    fn a_file_that_is_ahead_of_its_log_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        // What a name in a URL would end at.
        let path = directory.path().join("state ?#%41.db");
        let write = |path: &Path, rows: usize| {
            let opened =
                open_for_writing(&SqliteOptions { keep_log: true, ..SqliteOptions::new(path) }).expect("a store");
            for number in 0..rows {
                let insert = "INSERT INTO kine (name, created, deleted, value) VALUES (?1, 1, 0, zeroblob(2000))";
                opened.connection.execute(insert, [format!("/k/{number}")]).expect("it is written");
            }
            opened
        };
        let opened = write(&path, 20);
        let log = fs::read(beside(&path, "-wal")).expect("a log");
        let refused = |length: usize| {
            let copy = directory.path().join("copy.db");
            fs::copy(&path, &copy).expect("a copy");
            fs::write(beside(&copy, "-wal"), &log[..length]).expect("a copy");
            let found = open_for_writing(&SqliteOptions::new(&copy)).err().map(|error| error.to_string());
            fs::remove_file(beside(&copy, "-shm")).ok();
            found
        };
        assert_eq!(refused(log.len()), None);
        assert_eq!(refused(log.len() / 2), None, "nothing was copied into the file: half of the past is one, too");
        opened.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE).expect("it is copied");
        assert_eq!(refused(log.len()), None);
        let detail = refused(log.len() * 3 / 4).expect("a mixture of two states");
        assert!(detail.contains("it has revision 21 ") && detail.contains("its log ends before that"), "{detail}");
    }
}
