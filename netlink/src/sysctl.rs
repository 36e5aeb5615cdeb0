//! Settings below /proc/sys. Those below `net/` are the calling thread's namespace's; see [`crate::Namespace::enter`].

use std::io;
use std::path::{Path, PathBuf};

use crate::error::NetlinkError;

/// Where a key is, if it is one: interface names may hold dots, so the parts are separated by slashes.
fn path(key: &str) -> Result<PathBuf, NetlinkError> {
    let good = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if !key.split('/').all(good) {
        return Err(NetlinkError::Invalid(format!("{key:?} is not the key of a sysctl")));
    }
    Ok(Path::new("/proc/sys").join(key))
}

/// The value of a key as `net/ipv4/ip_forward`, without its line end; `None` when this kernel has no such setting.
///
/// # Errors
/// It can't be read, or is no key.
pub fn read_sysctl(key: &str) -> Result<Option<String>, NetlinkError> {
    match std::fs::read_to_string(path(key)?) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NetlinkError::Sysctl { key: key.to_owned(), source }),
    }
}

/// Sets a key unless it has the value already, so that a read-only /proc/sys which is as it should be is good enough.
/// Says whether it changed anything.
///
/// # Errors
/// There is no such key, or it can't be written.
pub fn write_sysctl(key: &str, value: &str) -> Result<bool, NetlinkError> {
    if read_sysctl(key)?.as_deref() == Some(value) {
        return Ok(false);
    }
    let written = std::fs::write(path(key)?, value);
    written.map(|()| true).map_err(|source| NetlinkError::Sysctl { key: key.to_owned(), source })
}
