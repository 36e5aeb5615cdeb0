//! `kine`: the datastore alone, until a signal.

use std::process::ExitCode;
use std::time::Duration;

use k3sd_kine::{Certificates, bind};
use k3sd_runtime::inspect;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Spec, Strategy, subtree};

use crate::cli::KineOptions;
use crate::run::{RunError, daemon};

/// Serves until it is told to stop. The root is that of the server: the inspector first, to look at the rest with.
///
/// # Errors
/// See [`RunError`].
pub fn run(options: KineOptions) -> Result<ExitCode, RunError> {
    let KineOptions { kine, listen, tls, log, inspect, warnings } = options;
    let certificates = tls.map(Certificates::for_clients).transpose().map_err(RunError::Certificates)?;
    daemon(&log, &warnings, &inspect, async move |inspector| {
        let socket = bind(&listen).await.map_err(|source| RunError::Listen { address: listen.clone(), source })?;
        let socket = match certificates {
            Some(certificates) => socket.with_tls(certificates),
            None => socket,
        };
        let kine = k3sd_kine::tree(kine, vec![Lend::new(socket)]);
        Ok(Spec::new(Strategy::OneForOne)
            .budget(5, Duration::from_secs(30))
            .child(subtree("inspector", inspect::tree(inspector)))
            .child(subtree("kine", kine.spec)))
    })
}
