//! The engine's log, cut into pieces.
//!
//! The engine holds its log open and outlives us, so the file is copied and emptied, not moved. It is opened for
//! appending, so that what comes next begins at the new start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

/// The largest log, and how many older ones are kept, and for how long.
const LOG_BYTES_MAX: u64 = 50 << 20;
const BACKUPS_MAX: usize = 3;
const BACKUP_AGE_MAX: Duration = Duration::from_secs(28 * 24 * 3600);

/// Cuts the log when it is too large. `wall` is the time since 1970.
pub(crate) fn rotate(log: &Path, wall: Duration) -> io::Result<()> {
    rotate_at(log, wall, LOG_BYTES_MAX)
}

fn rotate_at(log: &Path, wall: Duration, bytes_max: u64) -> io::Result<()> {
    let size = match fs::metadata(log) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if size >= bytes_max {
        let backup = backup_name(log, wall);
        let half = backup.with_extension("partial");
        let mut packed = GzEncoder::new(File::create(&half)?, Compression::fast());
        io::copy(&mut File::open(log)?, &mut packed)?;
        packed.finish()?.sync_all()?;
        fs::rename(&half, &backup)?;
        OpenOptions::new().write(true).open(log)?.set_len(0)?;
    }
    prune(log, wall)
}

fn stem(log: &Path) -> String {
    log.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn backup_name(log: &Path, wall: Duration) -> PathBuf {
    let time = Timestamp::from_millisecond(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)).unwrap_or_default();
    log.with_file_name(format!("{}-{}.log.gz", stem(log), time.strftime("%Y-%m-%dT%H-%M-%S.%3f")))
}

/// Removes what is too old or too much, and what a copy that was cut short left.
fn prune(log: &Path, wall: Duration) -> io::Result<()> {
    let prefix = format!("{}-", stem(log));
    let mut backups = Vec::new();
    for entry in fs::read_dir(log.parent().unwrap_or(Path::new("/")))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".log.gz") {
            backups.push(entry.path());
        } else if name.starts_with(&prefix) && name.ends_with(".log.partial") {
            fs::remove_file(entry.path())?;
        }
    }
    // The names sort by time.
    backups.sort();
    let oldest = backup_name(log, wall.saturating_sub(BACKUP_AGE_MAX));
    let surplus = backups.len().saturating_sub(BACKUPS_MAX);
    for (position, backup) in backups.iter().enumerate() {
        if position < surplus || *backup < oldest {
            fs::remove_file(backup)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_large_log_is_packed_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("containerd.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let day = Duration::from_secs(24 * 3600);
        for round in 0..6_u32 {
            write!(writer, "round {round} {}", "x".repeat(100)).unwrap();
            rotate_at(&log, day * (20_000 + round), 50).unwrap();
            assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        }
        rotate_at(&log, day * 20_006, 50).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names[0], "containerd-2024-10-07T00-00-00.000.log.gz");
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(dir.path().join(&names[2])).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.starts_with("round 5"), "{text}");
        rotate_at(&log, day * 20_100, 50).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "all of them are too old");
    }
}
