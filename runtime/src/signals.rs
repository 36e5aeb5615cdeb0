//! Stopping a tree from outside: SIGTERM and SIGINT, the first politely, the second at once.

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;
use crate::system::Tree;

/// How a tree that obeys signals came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The root ended by itself: its budget was spent.
    ByItself(Exit),
    /// A signal asked, and every child stopped in order.
    Stopped,
    /// A second signal came before the stop was done; what was left was killed.
    Forced,
}

/// Runs until the tree has ended. The first SIGTERM or SIGINT stops it in order, the second kills it. `stopping` is called
/// when the first comes, to tell whoever has to know.
///
/// # Errors
/// When the signal handlers can't be installed.
pub async fn run_until_signalled(tree: &Tree, stopping: impl FnOnce()) -> std::io::Result<Ended> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async || tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
    let name = tokio::select! {
        exit = tree.ended() => return Ok(Ended::ByItself(exit)),
        name = next() => name,
    };
    tracing::info!(signal = name, "stopping; another signal forces it");
    stopping();
    tree.stop();
    let name = tokio::select! {
        exit = tree.ended() => return Ok(if exit.is_clean() { Ended::Stopped } else { Ended::ByItself(exit) }),
        name = next() => name,
    };
    tracing::warn!(signal = name, "forced; killing what is left");
    tree.kill();
    // A handler that reaches no await can't be killed; the process goes without it.
    let grace = std::time::Duration::from_secs(1);
    tokio::time::timeout(grace, tree.ended()).await.ok();
    Ok(Ended::Forced)
}
