//! Waiting for a descriptor of the kernel's that is no socket.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ends when there is something to read; at once where the descriptor can't be waited for. Gives it back.
pub(crate) async fn readable(fd: OwnedFd) -> Option<OwnedFd> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types that may change their descriptor; `OwnedFd` can't"
    )]
    let fd = AsyncFd::with_interest(fd, Interest::READABLE).ok()?;
    fd.readable().await.map(drop).ok();
    Some(fd.into_inner())
}
