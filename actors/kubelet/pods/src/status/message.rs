//! A container's last words: what it wrote to its file, or the end of its log.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Bytes that are taken from the file.
pub const FILE_BYTES_MAX: u64 = 4096;
/// Bytes that are taken from the log.
pub const LOG_BYTES_MAX: usize = 2048;
/// Lines that are taken from the log.
pub const LOG_LINES_MAX: usize = 80;
/// Bytes of the log that are looked at: each line has a time and a stream before its text.
const LOOK_BYTES: u64 = 16 << 10;

/// Reads what the container wrote to the file for its last words; nothing if it wrote none. The file is ours, and bounded
/// here: a container may write as much as it likes.
#[must_use]
pub fn from_file(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads the end of a log.
#[must_use]
pub fn from_log(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOOK_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOOK_BYTES).read_to_end(&mut bytes).ok()?;
    let text = tail(&String::from_utf8_lossy(&bytes), length > LOOK_BYTES);
    (!text.is_empty()).then_some(text)
}

/// The last lines of a log's end, without times and streams. The first line may be cut.
fn tail(log: &str, cut: bool) -> String {
    let lines = log.split_inclusive('\n').skip(usize::from(cut));
    let texts: Vec<String> = lines
        .filter_map(|line| {
            let mut parts = line.splitn(4, ' ');
            let tag = parts.nth(2)?;
            let text = parts.next()?.trim_end_matches('\n');
            // A part of a long line goes on in the next.
            Some(if tag.starts_with('P') { text.to_owned() } else { format!("{text}\n") })
        })
        .collect();
    let from = texts.len().saturating_sub(LOG_LINES_MAX);
    let text = texts[from..].concat();
    let start = text.len().saturating_sub(LOG_BYTES_MAX);
    let start = (start..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_found() {
        let log =
            "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P tw\n2026-01-01T00:00:00Z stderr F o x\n";
        assert_eq!(tail(log, false), "one\ntwo x\n");
        assert_eq!(tail(log, true), "two x\n");
        assert_eq!(tail("garbage\n", false), "");
        let many: String = (0..100).map(|i| format!("t stdout F {i}\n")).collect();
        assert!(tail(&many, false).starts_with("20\n"));
        let long: String = (0..70).map(|_| format!("t stdout F {}\n", "ä".repeat(50))).collect();
        assert!(tail(&long, false).len() <= LOG_BYTES_MAX);
    }

    #[test]
    fn files_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m");
        assert_eq!(from_file(&path), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(from_file(&path), None);
        std::fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(from_file(&path).unwrap().len(), 4096);
        assert_eq!(from_file(directory.path()), None);
        std::fs::write(&path, "2026 stdout F end\n").unwrap();
        assert_eq!(from_log(&path).as_deref(), Some("end\n"));
    }
}
