//! Logs that have grown: the file is moved away, older ones are packed, the oldest go.
//!
//! ```text
//! 0.log                      written by the runtime
//! 0.log.20261121-150000      moved away last; still as it was, since somebody may be reading it
//! 0.log.20261121-140000.gz   before that
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// When logs are moved away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// Bytes that a log may have.
    pub bytes_max: u64,
    /// Files of one container, the one that is written to with them.
    pub files_max: u32,
}

/// The ending of a file that is being packed.
const UNFINISHED: &str = ".tmp";
/// The ending of one that was.
const PACKED: &str = ".gz";

/// What was moved away, to be put back when nobody opens the log anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The log.
    pub log: PathBuf,
    /// Where it is now.
    pub moved: PathBuf,
}

impl Rotated {
    /// Puts the log back.
    ///
    /// # Errors
    /// The kernel's. A log that is there again stays.
    pub fn undo(&self) -> io::Result<()> {
        if self.log.exists() { Ok(()) } else { fs::rename(&self.moved, &self.log) }
    }
}

/// Whether [`rotate`] would have something to do, or to complain of.
pub(super) fn needs_rotation(log: &Path, policy: LogPolicy) -> bool {
    match fs::symlink_metadata(log) {
        Ok(found) => found.is_file() && found.len() >= policy.bytes_max,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Moves a log away if it is too large; `None` if it isn't, or isn't there. The runtime has to open it anew after that.
/// Blocks: it reads and packs files.
///
/// # Errors
/// The kernel's; the log is where it was then.
pub fn rotate(log: &Path, policy: LogPolicy, now: Timestamp) -> io::Result<Option<Rotated>> {
    let bytes = match fs::symlink_metadata(log) {
        Ok(found) if found.is_file() => found.len(),
        Ok(_) => return Ok(None), // Whatever somebody put there, it isn't what the runtime writes.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if bytes < policy.bytes_max {
        return Ok(None);
    }
    let mut older = tidy(log)?;
    // One place for the log itself, one for what is moved away now.
    let kept = usize::try_from(policy.files_max).unwrap_or(2).saturating_sub(2);
    while older.len() > kept {
        fs::remove_file(older.remove(0))?;
    }
    for path in older.iter().filter(|path| !has_ending(path, PACKED)) {
        pack(path)?;
    }
    let moved = beside(log, &format!(".{}", now.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S")));
    fs::rename(log, &moved)?;
    Ok(Some(Rotated { log: log.to_owned(), moved }))
}

/// Removes all that was moved away of a log.
///
/// # Errors
/// The kernel's.
pub(super) fn remove_older(log: &Path) -> io::Result<()> {
    older(log)?.iter().try_for_each(fs::remove_file)
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(ending.as_bytes())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Files that were moved away, by their names, which are their times.
fn older(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let mut prefix = name.to_owned();
    prefix.push(".");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) && entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The same, after what a crash has left was removed: files half packed, and those that are there packed as well.
fn tidy(log: &Path) -> io::Result<Vec<PathBuf>> {
    let all = older(log)?;
    let (waste, kept): (Vec<PathBuf>, Vec<PathBuf>) =
        all.iter().cloned().partition(|path| has_ending(path, UNFINISHED) || all.contains(&beside(path, PACKED)));
    waste.iter().try_for_each(fs::remove_file)?;
    Ok(kept)
}

fn pack(path: &Path) -> io::Result<()> {
    let unfinished = beside(path, UNFINISHED);
    let mut encoder = GzEncoder::new(File::create(&unfinished)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::set_permissions(&unfinished, fs::metadata(path)?.permissions())?;
    fs::rename(&unfinished, beside(path, PACKED))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const POLICY: LogPolicy = LogPolicy { bytes_max: 10, files_max: 4 };

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_log_moves_on_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("0.log");
        assert_eq!(rotate(&log, POLICY, at(0)).unwrap(), None);
        fs::write(&log, "short").unwrap();
        assert_eq!(rotate(&log, POLICY, at(0)).unwrap(), None);
        assert!(!needs_rotation(&log, POLICY));
        for second in 0..5 {
            fs::write(&log, format!("line {second}\n").repeat(3)).unwrap();
            assert!(needs_rotation(&log, POLICY));
            assert!(rotate(&log, POLICY, at(second)).unwrap().is_some());
        }
        let expected = ["0.log.19700101-000002.gz", "0.log.19700101-000003.gz", "0.log.19700101-000004"];
        assert_eq!(names(directory.path()), expected);
        let mut text = String::new();
        let packed = File::open(directory.path().join(expected[0])).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "line 2\n".repeat(3));
        remove_older(&log).unwrap();
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn what_a_crash_has_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(directory.path().join(name), "0123456789").unwrap();
        ["0.log", "0.log.1.tmp", "0.log.2", "0.log.2.gz", "1.log.3"].into_iter().for_each(write);
        rotate(&directory.path().join("0.log"), POLICY, at(0)).unwrap();
        assert_eq!(names(directory.path()), ["0.log.19700101-000000", "0.log.2.gz", "1.log.3"]);
    }

    #[test]
    fn a_log_can_be_put_back_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("0.log");
        fs::write(&log, "0123456789").unwrap();
        let rotated = rotate(&log, POLICY, at(0)).unwrap().unwrap();
        rotated.undo().unwrap();
        assert_eq!(names(directory.path()), ["0.log"]);
        let link = directory.path().join("1.log");
        std::os::unix::fs::symlink(&log, &link).unwrap();
        assert_eq!(rotate(&link, POLICY, at(0)).unwrap(), None);
    }
}
