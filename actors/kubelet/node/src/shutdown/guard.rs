//! Holds the machine's end up until pods have ended.
//!
//! Owns:    the inhibitor, and whether the node says that it goes down.
//! Needs:   the system's message bus with logind on it, the pods, whoever can end them.
//! Restart: permanent. It takes an inhibitor again; on a machine that is going down it ends what still runs.
//! Fails:   never. Without logind it says so once, and tries again later and later.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k3sd_client::controller::pods::is_finished;
use k3sd_client::events::Recorder;
use k3sd_kubelet_base::Pods;
use k3sd_runtime::{ActorError, Clock, TaskHandle};
use tokio::sync::watch;

use super::core::{Group, groups, total};
use super::login::{Login, LoginError};
use super::{MESSAGE, REASON, ShutdownConfig};
use crate::eviction::{Evict, Eviction};
use crate::status::reference;

/// How long logind may take to answer, with its settings read anew.
const LIMIT: Duration = Duration::from_secs(30);
/// How soon it is tried again after a failure: doubling, up to the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What the task is started with.
#[derive(Clone)]
pub(crate) struct ShutdownArgs {
    pub(crate) config: Arc<ShutdownConfig>,
    pub(crate) node: String,
    pub(crate) pods: Pods,
    pub(crate) evict: Arc<dyn Evict>,
    pub(crate) recorder: Recorder,
    pub(crate) is_ending: Arc<watch::Sender<bool>>,
}

/// The body of the task.
pub(crate) async fn run(handle: TaskHandle, args: ShutdownArgs) -> Result<(), ActorError> {
    let clock = handle.system().clock().clone();
    let mut pause = RETRY_MIN;
    loop {
        let began = clock.now();
        let Err(error) = guard(&clock, &args).await;
        if clock.now().since(began) > RETRY_MAX {
            pause = RETRY_MIN;
        }
        if pause == RETRY_MIN {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "pods can't be ended before the machine goes down; trying again");
        }
        clock.sleep_until(clock.now() + pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Listens, and does what is to be done, until logind can't be heard any more.
async fn guard(clock: &Clock, args: &ShutdownArgs) -> Result<Infallible, LoginError> {
    let wanted = total(&args.config.periods);
    let opening = async {
        let login = Login::open(clock, &args.config.bus, &args.config.login_settings, wanted).await?;
        let is_ending = login.is_ending().await?;
        let lock = if is_ending { None } else { Some(login.inhibit().await?) };
        Ok::<_, LoginError>((login, is_ending, lock))
    };
    let (mut login, was_ending, mut lock) = within(clock, opening).await?;
    tracing::info!(?wanted, "pods will be ended before the machine goes down");
    // A machine that went down and didn't may have been said to go down by the life of this task before.
    let mut next = (was_ending || *args.is_ending.borrow()).then_some(was_ending);
    loop {
        let is_ending = match next.take() {
            Some(is_ending) => is_ending,
            None => login.prepares().await?,
        };
        tell(args, is_ending);
        if is_ending {
            next = end_pods(clock, args, &mut login).await;
            // The machine may go.
            drop::<Option<OwnedFd>>(lock.take());
        } else if lock.is_none() {
            lock = Some(within(clock, login.inhibit()).await?);
        }
    }
}

async fn within<T>(clock: &Clock, asked: impl Future<Output = Result<T, LoginError>>) -> Result<T, LoginError> {
    tokio::select! {
        answer = asked => answer,
        () = clock.sleep_until(clock.now() + LIMIT) => Err(LoginError::Late),
    }
}

fn tell(args: &ShutdownArgs, is_ending: bool) {
    let what = if is_ending { "shutdown event" } else { "shutdown cancellation" };
    tracing::warn!(is_ending, "logind tells of the machine's end");
    let text = format!("Shutdown manager detected {what}");
    args.recorder.about(reference(&args.node), "Normal", "Shutdown", text);
    args.is_ending.send_replace(is_ending);
}

/// Ends all pods, group by group. What logind said instead, if it changed its mind: who was told to end goes on ending.
async fn end_pods(clock: &Clock, args: &ShutdownArgs, login: &mut Login) -> Option<bool> {
    let ending = async {
        for group in order(args) {
            end(clock, args, group).await;
        }
    };
    let changed = async {
        match login.prepares().await {
            Ok(is_ending) => is_ending,
            // The pods have their time all the same.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = ending => None,
        is_ending = changed => Some(is_ending),
    }
}

fn order(args: &ShutdownArgs) -> Vec<Group> {
    let pods = args.pods.borrow().clone();
    let alive = pods.pods.values().filter(|view| !is_finished(&view.pod));
    let facts = alive.map(|view| {
        let spec = view.pod.spec.as_ref();
        let own = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        (view.uid.clone(), spec.and_then(|spec| spec.priority).unwrap_or(0), own)
    });
    groups(&args.config.periods, facts)
}

async fn end(clock: &Clock, args: &ShutdownArgs, group: Group) {
    let (count, limit) = (group.pods.len(), clock.now() + group.grace);
    tracing::info!(count, grace = ?group.grace, "pods end before the machine does");
    let each = group.pods.into_iter().map(|pod| {
        let (message, grace_seconds) = (MESSAGE.to_owned(), pod.grace_seconds);
        args.evict.evict(Eviction { uid: pod.uid, reason: REASON, message, grace_seconds })
    });
    tokio::select! {
        _ = join_all(each) => {}
        () = clock.sleep_until(limit) => tracing::warn!(count, "not all of them ended in their time"),
    }
}
