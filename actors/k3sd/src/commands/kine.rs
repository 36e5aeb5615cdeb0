//! `kine`: the datastore alone, until a signal.

use std::process::ExitCode;
use std::time::Duration;

use k3sd_kine::{Certificates, Socket, bind, metrics_tree};
use k3sd_runtime::inspect;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Spec, Strategy, subtree};

use crate::cli::{KineOptions, MetricsOptions};
use crate::run::{RunError, daemon};

/// Serves until it is told to stop. The root is that of the server: the inspector first, to look at the rest with. The
/// numbers come before the datastore, which may be long in opening, and don't care whether it is there.
///
/// # Errors
/// See [`RunError`].
pub fn run(options: KineOptions) -> Result<ExitCode, RunError> {
    let KineOptions { kine, listen, tls, metrics, log, inspect, warnings } = options;
    let certificates = tls.map(Certificates::for_clients).transpose().map_err(RunError::Certificates)?;
    daemon(&log, &warnings, &inspect, async move |_, inspector| {
        let socket = bind(&listen).await.map_err(|source| RunError::Listen { address: listen.clone(), source })?;
        tracing::info!(address = ?listen, tls = certificates.is_some(), store = kine.store.word(), "serving etcd's clients");
        let socket = match certificates {
            Some(certificates) => socket.with_tls(certificates),
            None => socket,
        };
        let kine = k3sd_kine::tree(kine, vec![Lend::new(socket)]);
        let mut root = Spec::new(Strategy::OneForOne)
            .budget(5, Duration::from_secs(30))
            .child(subtree("inspector", inspect::tree(inspector)));
        if let Some(metrics) = metrics
            && let Some(socket) = metrics_socket(metrics).await?
        {
            root = root.child(subtree("metrics", metrics_tree(kine.metrics, Lend::new(socket))));
        }
        Ok(root.child(subtree("kine", kine.spec)))
    })
}

async fn metrics_socket(options: MetricsOptions) -> Result<Option<Socket>, RunError> {
    let MetricsOptions { address, demanded, tls } = options;
    let certificates = tls.map(Certificates::for_metrics).transpose().map_err(RunError::Certificates)?;
    match (bind(&address).await, certificates) {
        (Ok(socket), Some(certificates)) => Ok(Some(socket.with_tls(certificates))),
        (Ok(socket), None) => Ok(Some(socket)),
        (Err(source), _) if demanded => Err(RunError::Listen { address, source }),
        (Err(error), _) => {
            tracing::warn!(%error, ?address, "numbers are not served; --metrics-bind-address says where else, or 0");
            Ok(None)
        }
    }
}
