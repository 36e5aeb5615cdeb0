//! How a SQLite store is opened.

use std::path::PathBuf;

/// Where the file is, and how much it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The database file. It and its directory are created when missing, for their owner only.
    pub path: PathBuf,
    /// Threads that read, each with a connection and 2 MiB of cache. Default 2, at least 1.
    pub readers: usize,
    /// How many of the newest revisions a compaction leaves alone, whatever it is asked for. Default 1000, as kine.
    pub retained_revisions_min: i64,
    /// How long the write-ahead log may get, in bytes. Default 64 MiB, at least 8 MiB; below 48 MiB one commit of the
    /// greatest size may pass it. From three eighths of it on, reads that begin may wait until the log is started over;
    /// from half of it on, writes wait too, for the reads that still run.
    pub log_bytes_max: u64,
    /// How much memory may keep values that were written or read lately, so that they need not be read from the file.
    /// Default 32 MiB; none at 0. Beside it each key takes its own length and some 70 bytes, and the writer's cache of
    /// pages as much again, from 4 to 16 MiB.
    pub cache_bytes_max: usize,
    /// Whether to look through the whole file when opening it. Default on; it costs about a second per GiB. Reading which
    /// keys there are, which is done in any case, costs about 1.5 seconds per million rows.
    pub integrity_check: bool,
    /// Whether a file that can't give back free space (one that kine made) is rewritten once, so that it can. Default
    /// on; it needs as much free space as the file takes, and is left out, with a warning, when there is less.
    pub convert: bool,
    /// Whether the write-ahead log is left to another program, such as one that ships it elsewhere: it is never copied
    /// into the file nor emptied, whatever its length, not even when the file is opened or closed, and the file is not
    /// rewritten. Default off.
    pub keep_log: bool,
}

impl SqliteOptions {
    /// The defaults for a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readers: 2,
            retained_revisions_min: 1000,
            log_bytes_max: 64 << 20,
            cache_bytes_max: 32 << 20,
            integrity_check: true,
            convert: true,
            keep_log: false,
        }
    }
}
