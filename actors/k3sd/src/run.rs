//! `k3sd server` and `k3sd agent`: from a checked configuration to a tree, and to an exit code.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use k3sd_kine::{KineTree, ListenAddress, StoreConfig, TlsError, bind};
use k3sd_runtime::inspect::{self, InspectorArgs};
use k3sd_runtime::lend::Lend;
use k3sd_runtime::signals::{Ended, run_until_signalled};
use k3sd_runtime::{Clock, Exit, Spec, System, Tree};
use thiserror::Error;

use crate::agent::{AgentArgs, AgentError, agent};
use crate::cli::Environment;
use crate::config::{DatastoreConfig, InspectConfig, LogConfig, RoleConfig, RunConfig, ServerConfig};
use crate::logging::{self, LogError};
use crate::server::{Identity, LoopsArgs, ServerError, apiserver, loops, name_filter, packaged, pki_config};
use crate::tree::{self, ServerParts};

/// Others than the owner have business below it: local volumes, and programs.
const DATA_DIRECTORY_MODE: u32 = 0o755;
/// Tokens, keys and the database are the owner's alone.
const SERVER_DIRECTORY_MODE: u32 = 0o700;

/// Rows that a server's datastore keeps in memory: enough for those that are written again and again. What is read is
/// in the watch caches.
const SERVER_CACHE_BYTES: usize = 2 << 20;

/// Why the daemon did not start, or did not end well.
#[derive(Debug, Error)]
pub enum RunError {
    /// See [`LogError`].
    #[error("set up logging")]
    Log(#[source] LogError),
    /// The threads that actors run on.
    #[error("start the threads that actors run on")]
    Threads(#[source] io::Error),
    /// The inspection socket.
    #[error("open the inspection socket {path:?}")]
    InspectSocket {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory that holds a server's state.
    #[error("make the directory {path:?}")]
    DataDir {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket that clients of the datastore use.
    #[error("listen on {address:?}")]
    Listen {
        /// As configured.
        address: ListenAddress,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What clients of the datastore are to see of us.
    #[error("use the files for TLS")]
    Certificates(#[source] TlsError),
    /// What a server has to know of itself.
    #[error("put the server together")]
    Server(#[source] ServerError),
    /// What the node needs of this machine.
    #[error("put the node together")]
    Agent(#[source] AgentError),
    /// The signals that stop the daemon.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// The root gave up: its children died more often than its budget bears.
    #[error("the tree ended: {0}")]
    Ended(Exit),
}

/// Starts the tree, runs it until a signal or its own end, and tells how the process should exit.
///
/// # Errors
/// See [`RunError`]. Nothing of the tree is left then; the log file and the socket's directory may have been created.
pub fn run(config: &RunConfig, environment: &Environment) -> Result<ExitCode, RunError> {
    let mut kine_socket = None;
    let root = async |system: &System, inspector| {
        let parts = match &config.role {
            RoleConfig::Server(server) => Some(parts(system, config, server, environment, &mut kine_socket).await?),
            RoleConfig::Agent(_) => None,
        };
        Ok(tree::root(config, inspector, parts))
    };
    let ended = daemon(&config.log, &config.warnings, &config.inspect, root);
    if let Some(path) = kine_socket {
        // Gone already, when somebody removed it by hand.
        std::fs::remove_file(path).ok();
    }
    ended
}

/// What a server is made of. `opened` is told of the datastore's socket once it is there.
async fn parts(
    system: &System,
    run: &RunConfig,
    config: &ServerConfig,
    environment: &Environment,
    opened: &mut Option<PathBuf>,
) -> Result<ServerParts, RunError> {
    let data_dir = &run.data_dir;
    let identity = Identity::new(config, system.clock()).map_err(RunError::Server)?;
    let pki = pki_config(config, &identity, data_dir);
    let filter = name_filter(config, &pki.names);
    let kine = kine(data_dir, &config.datastore, opened).await?;
    let pki = k3sd_pki::tree(pki, filter);
    let wanted = config.components.apiserver;
    let measures = wanted && !config.components.disable.contains(packaged::METRICS_SERVER);
    let (metrics, seat) = measures.then(k3sd_metrics::prepare).unzip();
    let apiserver =
        wanted.then(|| apiserver(config, &identity, data_dir, system, &pki, &kine.store, metrics.as_ref())).transpose();
    let apiserver = apiserver.map_err(RunError::Server)?;
    let loops = apiserver.as_ref().map(|apiserver| {
        loops(LoopsArgs {
            config,
            identity: &identity,
            environment,
            data_dir,
            system,
            pipeline: &apiserver.pipeline,
            certificates: &pki.certificates,
            metrics: seat,
        })
    });
    let loops = loops.transpose().map_err(RunError::Server)?;
    let agent = match (&config.node, &apiserver) {
        (Some(node), Some(apiserver)) => {
            let args = AgentArgs {
                server: config,
                node,
                identity: &identity,
                environment,
                data_dir,
                system,
                pipeline: &apiserver.pipeline,
                certificates: &pki.certificates,
                debug: run.log.debug,
            };
            Some(agent(args).await.map_err(RunError::Agent)?)
        }
        // Without an API of its own a server would have to join another one for its node.
        _ => None,
    };
    Ok(ServerParts { pki, kine, apiserver, loops, agent })
}

/// A server's datastore. `opened` is told of the socket once it is there. An external etcd is asked directly by whoever
/// wants it, so nothing listens in front of it.
async fn kine(data_dir: &Path, config: &DatastoreConfig, opened: &mut Option<PathBuf>) -> Result<KineTree, RunError> {
    let folder = data_dir.join("server");
    for (folder, mode) in [(data_dir, DATA_DIRECTORY_MODE), (&folder, SERVER_DIRECTORY_MODE)] {
        let make = DirBuilder::new().recursive(true).mode(mode).create(folder);
        make.map_err(|source| RunError::DataDir { path: folder.to_owned(), source })?;
    }
    let mut kine = config.kine.clone();
    if let StoreConfig::Sqlite(options) = &mut kine.store {
        options.cache_bytes_max = SERVER_CACHE_BYTES;
    }
    let store = kine.store.word();
    if matches!(config.kine.store, StoreConfig::Etcd(_)) {
        tracing::info!(store, "the datastore is asked directly");
        return Ok(k3sd_kine::tree(kine, Vec::new()));
    }
    let path = folder.join("kine.sock");
    let address = ListenAddress::Unix(path.clone());
    let socket = bind(&address).await.map_err(|source| RunError::Listen { address, source })?;
    tracing::info!(store, socket = %path.display(), "serving the datastore");
    *opened = Some(path);
    Ok(k3sd_kine::tree(kine, vec![Lend::new(socket)]))
}

/// The same, for any tree around an inspector.
pub(crate) fn daemon(
    log: &LogConfig,
    warnings: &[String],
    inspect: &InspectConfig,
    root: impl AsyncFnOnce(&System, InspectorArgs) -> Result<Spec, RunError>,
) -> Result<ExitCode, RunError> {
    let clock = Clock::system();
    let log = logging::init(log, &clock).map_err(RunError::Log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Threads)?;
    let ended = threads.block_on(supervise(inspect, clock, root));
    // A blocking call that never returns may not hold up the end of the process.
    threads.shutdown_background();
    let code = match ended? {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::Forced => ExitCode::FAILURE,
        Ended::ByItself(exit) => return Err(RunError::Ended(exit)),
    };
    drop(log);
    Ok(code)
}

async fn supervise(
    inspector: &InspectConfig,
    clock: Clock,
    root: impl AsyncFnOnce(&System, InspectorArgs) -> Result<Spec, RunError>,
) -> Result<Ended, RunError> {
    let path = &inspector.socket;
    let socket = inspect::bind(path).map_err(|source| RunError::InspectSocket { path: path.clone(), source })?;
    let system = System::new(clock);
    let args = InspectorArgs { listener: Lend::new(socket), control: inspector.actor_control };
    let root = root(&system, args).await.inspect_err(|_| {
        std::fs::remove_file(path).ok();
    })?;
    let tree = system.start(root);
    let stopping = || tell_service_manager(&[sd_notify::NotifyState::Stopping]);
    let (ended, ()) = tokio::join!(run_until_signalled(&tree, stopping), announce(&tree));
    // Gone already, when somebody removed it by hand.
    std::fs::remove_file(path).ok();
    let ended = ended.map_err(RunError::Signals)?;
    tracing::info!(ended = ?ended, "the tree has ended");
    Ok(ended)
}

async fn announce(tree: &Tree) {
    if tree.ready().await.is_ok() {
        tracing::info!(actors = tree.system().alive(), "ready");
        tell_service_manager(&[sd_notify::NotifyState::Ready]);
    }
}

/// systemd's readiness protocol; nothing happens when nobody listens.
fn tell_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
