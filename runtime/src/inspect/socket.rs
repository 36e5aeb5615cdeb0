//! The socket file: made so that nobody but its owner ever gets through to it.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_socket, connect, listen, socket_with,
};
use tokio::net::UnixListener;

/// Connections the kernel keeps for us while the listener restarts.
const BACKLOG: i32 = 128;

/// Opens the inspection socket at `path`, readable and writable for its owner only. Needs a tokio runtime around it.
///
/// It listens under a draft name first and takes its place by a rename, so nobody meets it half made, and a socket that a
/// dead process left behind is replaced at once.
///
/// # Errors
/// When somebody answers on a socket there, when something else than a socket is there, and when the file system says no.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    // The final name must be one that a client can connect to, too.
    let address = SocketAddrUnix::new(path).map_err(|errno| about(path, "is no name for a socket", errno))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    refuse_if_taken(path, &address)?;
    let draft = folder.join(format!(".{}", std::process::id()));
    remove_if_there(&draft)?;
    let made = make(&draft).and_then(|listener| fs::rename(&draft, path).map(|()| listener));
    if made.is_err() {
        // The first error is the one to tell.
        remove_if_there(&draft).ok();
    }
    UnixListener::from_std(made?)
}

fn about(path: &Path, what: &str, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("{} {what}: {error}", path.display()))
}

fn new_socket() -> io::Result<rustix::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// The mode is set before anybody can connect: until `listen` the kernel refuses all.
fn make(draft: &PathBuf) -> io::Result<StdListener> {
    let socket = new_socket()?;
    bind_socket(&socket, &SocketAddrUnix::new(draft)?)?;
    fs::set_permissions(draft, Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

fn refuse_if_taken(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            let text = format!("{} is there already, and is no socket", path.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        Ok(_) => {}
    }
    match connect(&new_socket()?, address) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()), // Nobody is left behind it.
        // A full queue of a listener that is alive says EAGAIN.
        Ok(()) | Err(Errno::AGAIN) => {
            let text = format!("another process answers on {}; only one can", path.display());
            Err(io::Error::new(ErrorKind::AddrInUse, text))
        }
        Err(errno) => Err(about(path, "could not be tried", errno)),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
