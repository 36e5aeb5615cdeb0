//! A log file that starts anew when it is full, and the sweep that keeps few, compressed, young backups of it.
//!
//! Beside `k3sd.log` lie `k3sd-2030-01-01T00-00-00.000.log` (just rotated) and `k3sd-….log.gz` (compressed). The sweep
//! touches only names of exactly this form. Each of its steps may be cut short by a crash and is made good by the next one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The moment of rotation in a backup's name; sorts as text in order of time.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// Log lines may name hosts, users and paths: nobody but the owner reads them.
const FILE_MODE: u32 = 0o600;

/// When a file is full, and how many full ones stay for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A line that would take the file beyond this goes to a new one.
    pub(crate) file_bytes_max: u64,
    /// Backups beyond this many are deleted, oldest first.
    pub(crate) backups_max: usize,
    /// Backups older than this are deleted.
    pub(crate) backup_age_max: Duration,
}

impl Limits {
    /// K3s's rule for `--log`: 50 MB, 3 backups, 28 days.
    pub(crate) const K3S: Self =
        Self { file_bytes_max: 50 << 20, backups_max: 3, backup_age_max: Duration::from_secs(28 * 24 * 60 * 60) };
}

/// The open log file.
#[derive(Debug)]
pub(crate) struct RotatingFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    limits: Limits,
}

impl RotatingFile {
    /// Opens or creates the file, and its directory; an existing file is continued.
    pub(crate) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, limits })
    }

    /// Writes `line` whole, to a new file when this one is full. Returns whether that left a backup to sweep.
    ///
    /// On an error nothing of the line is left in the file, as far as the disk allows.
    pub(crate) fn write(&mut self, line: &[u8], now: Timestamp) -> io::Result<bool> {
        let full = self.bytes > 0 && self.bytes + line.len() as u64 > self.limits.file_bytes_max;
        if full {
            fs::rename(&self.path, free_backup_name(&self.path, now))?;
            self.file = append_to(&self.path)?;
            self.bytes = 0;
        }
        if let Err(error) = self.file.write_all(line) {
            // Half a line would swallow the next one. When even this fails the reader sees one torn line.
            self.file.set_len(self.bytes).ok();
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(full)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// Deletes the backups of `path` that are too many or too old, and compresses those that are left.
pub(crate) fn sweep(path: &Path, limits: Limits, now: Timestamp) -> io::Result<()> {
    let mut backups = backups_of(path)?;
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.rotated));
    let age_max = SignedDuration::try_from(limits.backup_age_max).unwrap_or(SignedDuration::MAX);
    for (newer, backup) in backups.iter().enumerate() {
        if newer >= limits.backups_max || now.duration_since(backup.rotated) > age_max {
            fs::remove_file(&backup.path)?;
        } else if !backup.compressed {
            compress(&backup.path)?;
        }
    }
    Ok(())
}

/// Replaces the file by its compressed form; the original goes last, so a crash loses nothing.
fn compress(path: &Path) -> io::Result<()> {
    let target = with_suffix(path, ".gz");
    let unfinished = with_suffix(path, ".gz.part");
    let output = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&unfinished)?;
    let mut encoder = GzEncoder::new(output, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&unfinished, &target)?;
    fs::remove_file(path)
}

/// One rotated file.
struct Backup {
    path: PathBuf,
    rotated: Timestamp,
    compressed: bool,
}

fn backups_of(path: &Path) -> io::Result<Vec<Backup>> {
    let (directory, stem, extension) = parts(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let (plain, compressed) = name.strip_suffix(".gz").map_or((name, false), |plain| (plain, true));
        let stamp = plain
            .strip_prefix(stem.as_str())
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.strip_suffix(extension.as_str()));
        let rotated = stamp.and_then(|stamp| DateTime::strptime(STAMP, stamp).ok());
        if let Some(rotated) = rotated.and_then(|moment| moment.to_zoned(TimeZone::UTC).ok()) {
            found.push(Backup { rotated: rotated.timestamp(), compressed, path });
        }
    }
    Ok(found)
}

/// A name for the full file that no backup has yet: two rotations may fall into one millisecond.
fn free_backup_name(path: &Path, now: Timestamp) -> PathBuf {
    let (directory, stem, extension) = parts(path);
    let mut moment = now;
    loop {
        let candidate = directory.join(format!("{stem}-{}{extension}", moment.strftime(STAMP)));
        if !candidate.exists() && !with_suffix(&candidate, ".gz").exists() {
            return candidate;
        }
        moment = moment.saturating_add(SignedDuration::from_millis(1)).expect("a signed duration is no calendar unit");
    }
}

/// Directory, stem and extension (with its dot) of the log file.
fn parts(path: &Path) -> (PathBuf, String, String) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = path.extension().map(|_| format!(".{}", text(path.extension()))).unwrap_or_default();
    (directory.to_owned(), text(path.file_stem()), extension)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use flate2::read::GzDecoder;

    use super::*;

    const SMALL: Limits = Limits { file_bytes_max: 10, backups_max: 2, backup_age_max: Duration::from_secs(60) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_893_456_000 + second).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_set_aside_and_compressed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/k3sd.log");
        let mut log = RotatingFile::open(&path, SMALL).unwrap();
        assert!(!log.write(b"12345678\n", at(0)).unwrap());
        assert!(!log.write(b"\n", at(1)).unwrap(), "exactly the limit still fits");
        assert!(log.write(b"next\n", at(2)).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"next\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        sweep(&path, SMALL, at(2)).unwrap();
        let directory = path.parent().unwrap();
        assert_eq!(names(directory), ["k3sd-2030-01-01T00-00-02.000.log.gz", "k3sd.log"]);
        let mut text = String::new();
        let packed = File::open(directory.join("k3sd-2030-01-01T00-00-02.000.log.gz")).unwrap();
        GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "12345678\n\n");
    }

    #[test]
    fn a_line_longer_than_a_file_is_written_all_the_same() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k3sd.log");
        let mut log = RotatingFile::open(&path, SMALL).unwrap();
        assert!(!log.write(b"a line of more than ten bytes\n", at(0)).unwrap());
        assert!(log.write(b"b\n", at(0)).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"b\n");
    }

    #[test]
    fn an_existing_file_is_continued_and_counts() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k3sd.log");
        fs::write(&path, b"old line\n").unwrap();
        let mut log = RotatingFile::open(&path, SMALL).unwrap();
        assert!(log.write(b"new\n", at(0)).unwrap());
        assert_eq!(names(home.path()), ["k3sd-2030-01-01T00-00-00.000.log", "k3sd.log"]);
    }

    #[test]
    fn two_rotations_in_one_millisecond_keep_both_backups() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k3sd.log");
        let mut log = RotatingFile::open(&path, SMALL).unwrap();
        for line in ["first 90\n", "second 0\n", "third 90\n"] {
            log.write(line.as_bytes(), at(0)).unwrap();
        }
        assert_eq!(names(home.path()).len(), 3);
        assert_eq!(fs::read(home.path().join("k3sd-2030-01-01T00-00-00.001.log")).unwrap(), b"second 0\n");
    }

    #[test]
    fn the_sweep_deletes_by_number_and_age_and_leaves_other_files_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k3sd.log");
        let make = |name: &str| fs::write(home.path().join(name), b"x").unwrap();
        for second in ["00", "10", "20"] {
            make(&format!("k3sd-2030-01-01T00-00-{second}.000.log.gz"));
        }
        for other in ["k3sd.log", "k3sd-notes.log", "k3sd-2030.log.gz", "other-2030-01-01T00-00-00.000.log.gz"] {
            make(other);
        }
        sweep(&path, SMALL, at(30)).unwrap();
        let kept = names(home.path());
        assert!(!kept.contains(&"k3sd-2030-01-01T00-00-00.000.log.gz".to_owned()), "the third is one too many");
        assert_eq!(kept.len(), 6, "{kept:?}");

        sweep(&path, SMALL, at(75)).unwrap();
        assert!(!names(home.path()).contains(&"k3sd-2030-01-01T00-00-10.000.log.gz".to_owned()), "older than a minute");
        assert_eq!(names(home.path()).len(), 5);
    }

    #[test]
    fn a_sweep_after_a_crash_finishes_the_compression() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k3sd.log");
        let backup = home.path().join("k3sd-2030-01-01T00-00-00.000.log");
        fs::write(&backup, b"whole").unwrap();
        fs::write(with_suffix(&backup, ".gz.part"), b"half").unwrap();
        sweep(&path, SMALL, at(1)).unwrap();
        assert_eq!(names(home.path()), ["k3sd-2030-01-01T00-00-00.000.log.gz"]);
    }
}
