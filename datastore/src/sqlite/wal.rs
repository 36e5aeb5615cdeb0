//! What a write-ahead log has in it, as far as SQLite will follow it: its file format, section 4 of "Database File
//! Format" at sqlite.org. Only read, and only before the database is opened.
//!
//! SQLite reads a page that neither the log nor the file has as zeroes, and no check of its own finds that out.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// The log begins with one of these; they say how its sums are made.
const MAGIC_LITTLE_ENDIAN: u32 = 0x377f_0682;
const MAGIC_BIG_ENDIAN: u32 = 0x377f_0683;
/// The log's own header, and what each page has in front of it.
const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// SQLite keeps locks at this place of the file, and nothing else in the page around it.
const LOCK_BYTE: u64 = 1 << 30;

/// The committed part of a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log {
    page_bytes: u64,
    /// How many pages the database has.
    page_count: u64,
    /// Those of them that the log has.
    pages: HashSet<u64>,
}

impl Log {
    /// Reads a log. There is nothing in it when not a single commit is whole.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
        let mut header = [0; HEADER_BYTES];
        if !fill(&mut file, &mut header)? {
            return Ok(None);
        }
        let Some(mut sum) = Sum::new(number(&header, 0)) else { return Ok(None) };
        sum.add(&header[..24]);
        let page_bytes = number(&header, 8);
        if !sum.is(&header[24..]) || !(512..=65_536).contains(&page_bytes) || !page_bytes.is_power_of_two() {
            return Ok(None);
        }
        let mut page = vec![0; page_bytes as usize];
        let (mut log, mut pages, mut frame) = (None, HashSet::new(), [0; FRAME_HEADER_BYTES]);
        while fill(&mut file, &mut frame)? && fill(&mut file, &mut page)? {
            sum.add(&frame[..8]);
            sum.add(&page);
            // Another salt: what follows is older than the log's last beginning.
            if frame[8..16] != header[16..24] || !sum.is(&frame[16..]) {
                break;
            }
            pages.insert(u64::from(number(&frame, 0)));
            let page_count = u64::from(number(&frame, 4));
            if page_count > 0 {
                log = Some(page_count);
            }
        }
        Ok(log.map(|page_count| Self { page_bytes: page_bytes.into(), page_count, pages }))
    }

    /// How many pages of the database are neither in the log nor in a file of this length.
    pub(super) fn missing(&self, file_bytes: u64) -> usize {
        let lock_page = LOCK_BYTE / self.page_bytes + 1;
        let beyond = file_bytes / self.page_bytes + 1..=self.page_count;
        beyond.filter(|page| *page != lock_page && !self.pages.contains(page)).count()
    }
}

/// Reads as much as there is room for. False when there is not so much.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(four)
}

/// The sum over everything from the log's beginning on.
struct Sum {
    read: fn([u8; 4]) -> u32,
    sums: [u32; 2],
}

impl Sum {
    fn new(magic: u32) -> Option<Self> {
        let read = match magic {
            MAGIC_LITTLE_ENDIAN => u32::from_le_bytes,
            MAGIC_BIG_ENDIAN => u32::from_be_bytes,
            _ => return None,
        };
        Some(Self { read, sums: [0, 0] })
    }

    fn add(&mut self, bytes: &[u8]) {
        let [mut one, mut two] = self.sums;
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add((self.read)([pair[0], pair[1], pair[2], pair[3]])).wrapping_add(two);
            two = two.wrapping_add((self.read)([pair[4], pair[5], pair[6], pair[7]])).wrapping_add(one);
        }
        self.sums = [one, two];
    }

    fn is(&self, stored: &[u8]) -> bool {
        self.sums == [number(stored, 0), number(stored, 4)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log as SQLite writes it, beside the file it belongs to.
    fn written(rows: usize) -> (tempfile::TempDir, rusqlite::Connection) {
        let directory = tempfile::tempdir().expect("a directory");
        let connection = rusqlite::Connection::open(directory.path().join("x.db")).expect("it opens");
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (value BLOB)")
            .expect("it is made");
        for _ in 0..rows {
            connection.execute("INSERT INTO t VALUES (zeroblob(10000))", []).expect("it is written");
        }
        (directory, connection)
    }

    #[test]
    fn every_page_is_in_the_log_or_in_the_file() {
        let (directory, connection) = written(20);
        let read = || Log::read(&directory.path().join("x.db-wal")).expect("it is there").expect("a commit");
        let log = read();
        let count: u64 =
            connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).expect("a number") as u64;
        assert_eq!((log.page_bytes, log.page_count), (4096, count));
        assert_eq!(log.missing(0), 0, "nothing was copied into the file yet, and the log has it all");
        // A log that begins anew has only what was written since.
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).expect("it is copied");
        connection.execute("INSERT INTO t VALUES (1)", []).expect("it is written");
        let log = read();
        assert_eq!(log.missing(count * 4096), 0);
        assert!(log.missing(4096) > 10, "{log:?}");
        assert_eq!(log.missing(count * 4096 - 1), log.missing((count - 1) * 4096), "part of a page is no page");
    }

    #[test]
    fn a_log_is_followed_as_far_as_it_is_whole() {
        let (directory, _connection) = written(5);
        let path = directory.path().join("x.db-wal");
        let whole = std::fs::read(&path).expect("it is there");
        let pages = |bytes: &[u8]| {
            std::fs::write(directory.path().join("other"), bytes).expect("it is written");
            Log::read(&directory.path().join("other")).expect("it is there").map(|log| log.page_count)
        };
        let all = pages(&whole);
        assert!(all > pages(&whole[..whole.len() - 1]) && pages(&whole[..whole.len() - 1]).is_some());
        let mut flipped = whole.clone();
        flipped[HEADER_BYTES + FRAME_HEADER_BYTES + 7] ^= 1;
        assert_eq!((pages(&flipped), pages(&whole[..40]), pages(b"")), (None, None, None));
    }
}
