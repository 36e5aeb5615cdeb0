//! The directory of manifests: what is in it, what is written into it, and how a change is noticed.
//!
//! All of this blocks, so it is done on a thread of its own.

mod look;
pub(crate) mod names;
mod watch;
mod write;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

#[cfg(test)]
pub(crate) use self::look::Stamp;
pub(crate) use self::look::{Found, Look, look, relative};
pub(crate) use self::watch::Watch;
pub(crate) use self::write::write_packaged;

/// The longest file: one object is at most a few megabytes, and nobody writes dozens of those into one file.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Reads a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("the file is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
