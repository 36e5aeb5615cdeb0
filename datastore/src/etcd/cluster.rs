//! The members of a cluster as one place to call: the next one when one is away, deadlines for each attempt, a new
//! token when the old one is not taken any more.
//!
//! Calls go to one member, the preferred one, and to the next when that one fails; it stays preferred then. Every
//! attempt ends in time: connecting, because a machine that is gone says nothing; calling, because a member that is cut
//! off from the others may not answer.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::{Response, Status};

use super::address::{Address, Login};
use super::fault::{Fault, Late, chain};
use super::line::{ConnectError, Line, Token};
use super::wire::auth_client::AuthClient;
use super::wire::kv_client::KvClient;
use super::wire::{AuthenticateRequest, RangeRequest};
use super::{EtcdOptions, convert};
use crate::background::Spawner;
use crate::error::{Op, Source, StoreError};

/// How long to wait for a member that says nothing: less than a person waits, more than a slow handshake takes.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long a member may take for a read before another one is asked. When all of them have been, they get as much more
/// time: a slow network is not mistaken for a dead cluster.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// How long it may take for a write: etcd itself gives up after 7 s by default, and what it says then is better than
/// our guess.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long a compaction may take.
const COMPACT_LIMIT: Duration = Duration::from_secs(300);
/// How soon a member that was away is tried again. Whoever waited for the attempt that failed waits for no other.
const HOLD_OFF: Duration = Duration::from_millis(200);
/// The first and the longest pause after all members have failed.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// See the module's page.
pub(super) struct Cluster {
    members: Vec<Member>,
    preferred: AtomicUsize,
    tls: TlsConnector,
    login: Option<Login>,
    token: Token,
    /// Whoever logs in: one for all, because a password is dear to check.
    logging_in: Mutex<()>,
    spawner: Spawner,
    patience: Duration,
}

struct Member {
    address: Address,
    line: Mutex<Kept>,
}

/// What is known of the way to a member.
#[derive(Default)]
struct Kept {
    line: Option<Line>,
    /// When it was away, and why.
    away: Option<(Instant, String)>,
}

/// A line, and to which member.
#[derive(Clone)]
pub(super) struct Place {
    pub line: Line,
    member: usize,
}

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing.
    Yes,
    /// If it was lost, it may have been carried out.
    No,
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// The revision that it names is compacted.
    Compacted,
    /// The revision that it names has not come yet.
    Future,
    /// The lease that it names has ended or is taken.
    Lease,
    /// Anything else.
    Store(StoreError),
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl CallError {
    /// For calls that name neither revision nor lease.
    pub(super) fn into_store(self, op: Op) -> StoreError {
        match self {
            Self::Store(error) => error,
            other => StoreError::Database { op, source: Arc::new(io::Error::other(format!("{other:?} out of place"))) },
        }
    }
}

impl Cluster {
    pub(super) fn new(options: &EtcdOptions, spawner: Spawner) -> Result<Self, StoreError> {
        let mut members = Vec::new();
        let mut login = None;
        for endpoint in &options.endpoints {
            let (address, with) = Address::parse(endpoint)?;
            login = login.or(with);
            members.push(Member { address, line: Mutex::default() });
        }
        if members.is_empty() {
            return Err(StoreError::invalid("there is no etcd endpoint"));
        }
        let unusable = |error| StoreError::Database { op: Op::Open, source: Arc::new(error) };
        let tls = options.tls.connector().map_err(unusable)?;
        let (preferred, token) = (AtomicUsize::new(0), Token::default());
        let (logging_in, patience) = (Mutex::default(), options.patience);
        Ok(Self { members, preferred, tls, login, token, logging_in, spawner, patience })
    }

    /// Whether nobody works for the store any more.
    pub(super) fn is_closed(&self) -> bool {
        self.spawner.is_closed()
    }

    /// Work for the store that is no call.
    pub(super) async fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), StoreError> {
        self.spawner.spawn(work).await.map_err(|_| StoreError::Closed)
    }

    /// A line to a member, the preferred one if that can be had. Asks each of them once.
    pub(super) async fn place(&self) -> Result<Place, ConnectError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = None;
        for offset in 0..self.members.len() {
            let member = (first + offset) % self.members.len();
            match self.line(member).await {
                Ok(line) => {
                    self.prefer(first, member);
                    return Ok(Place { line, member });
                }
                Err(ConnectError::Closed) => return Err(ConnectError::Closed),
                Err(error) => {
                    // Somebody who may come back is worth more hope than somebody who said no.
                    if !matches!(failure, Some(ConnectError::Away(_))) {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or(ConnectError::Closed))
    }

    /// Turns to another member than this one, and forgets the line if it is `broken`.
    pub(super) async fn leave(&self, place: &Place, broken: bool) {
        self.prefer(place.member, (place.member + 1) % self.members.len());
        if broken {
            let mut kept = self.members[place.member].line.lock().await;
            kept.line.take_if(|line| line.is_same(&place.line));
        }
    }

    /// Unless somebody else has turned to another one already.
    fn prefer(&self, before: usize, after: usize) {
        self.preferred.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    async fn line(&self, member: usize) -> Result<Line, ConnectError> {
        let Member { address, line } = &self.members[member];
        let mut kept = line.lock().await;
        if let Some(line) = kept.line.as_ref().filter(|line| !line.is_closed()) {
            return Ok(line.clone());
        }
        if let Some((when, reason)) = &kept.away
            && when.elapsed() < HOLD_OFF
        {
            return Err(ConnectError::Away(io::Error::other(reason.clone())));
        }
        let connected = tokio::time::timeout(CONNECT_LIMIT, self.connect(address)).await;
        let connected = connected.unwrap_or(Err(ConnectError::Away(io::Error::new(io::ErrorKind::TimedOut, Late))));
        *kept = match &connected {
            Ok(line) => Kept { line: Some(line.clone()), away: None },
            Err(ConnectError::Away(error)) => Kept { line: None, away: Some((Instant::now(), error.to_string())) },
            Err(_) => Kept::default(),
        };
        connected
    }

    /// Connects and asks something, because a member may hang up only then: over our certificate, for one.
    async fn connect(&self, address: &Address) -> Result<Line, ConnectError> {
        let line = Line::connect(address, &self.tls, self.token.clone(), &self.spawner).await?;
        let (key, _) = convert::everything();
        // What the others know does not matter, so that a member answers while there is no leader.
        let question = RangeRequest { key, count_only: true, serializable: true, ..RangeRequest::default() };
        match KvClient::new(line.clone()).range(question).await {
            Err(status) if std::error::Error::source(&status).is_some() => Err(match line.refusal() {
                Some(reason) => ConnectError::Refused(io::Error::other(reason.to_owned())),
                None => ConnectError::Away(io::Error::other(chain(&status))),
            }),
            // Any answer is one.
            Ok(_) | Err(_) => Ok(line),
        }
    }

    /// Gets a token for the password, if there is none.
    async fn log_in(&self, line: Line) -> Result<(), Fault> {
        let Some(Login { user, password }) = &self.login else { return Ok(()) };
        let _alone = self.logging_in.lock().await;
        if self.token.get().is_some() {
            return Ok(());
        }
        let request = AuthenticateRequest { name: user.clone(), password: password.expose().to_owned() };
        let answer = AuthClient::new(line).authenticate(request).await.map_err(|status| {
            // Nothing was asked yet, so nothing can have happened.
            match Fault::new(Op::Open, status) {
                Fault::Lost(source) => Fault::Elsewhere(source),
                other => other,
            }
        })?;
        let token = HeaderValue::try_from(answer.into_inner().token);
        let mut token = token.map_err(|error| Fault::Elsewhere(Arc::new(error)))?;
        token.set_sensitive(true);
        self.token.set(token);
        Ok(())
    }

    /// The same, for a call that is not made here.
    pub(super) async fn log_in_once(&self, place: &Place) -> Result<(), Source> {
        self.log_in(place.line.clone()).await.map_err(|fault| match fault {
            Fault::Elsewhere(source) | Fault::Stranger(source) | Fault::Lost(source) => source,
            Fault::Final(error) => Arc::new(error),
            other => Arc::new(io::Error::other(format!("{other:?} out of place"))),
        })
    }

    /// One attempt, and where it was made.
    async fn attempt<T, F>(
        &self,
        op: Op,
        limit: Duration,
        ask: &impl Fn(Line) -> F,
    ) -> (Option<Place>, Result<T, Fault>)
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let place = match self.place().await {
            Ok(place) => place,
            Err(ConnectError::Away(error)) => return (None, Err(Fault::Elsewhere(Arc::new(error)))),
            Err(ConnectError::Refused(error)) => {
                return (None, Err(Fault::Final(StoreError::Database { op, source: Arc::new(error) })));
            }
            Err(ConnectError::Closed) => return (None, Err(Fault::Final(StoreError::Closed))),
        };
        let _turn = place.line.turn().await;
        let asked = async {
            if self.token.get().is_none() {
                self.log_in(place.line.clone()).await?;
            }
            let token = self.token.get();
            let answer = ask(place.line.clone()).await.map_err(|status| Fault::new(op, status));
            if matches!(answer, Err(Fault::Stranger(_))) {
                self.token.forget(token.as_ref());
            }
            answer.map(Response::into_inner)
        };
        let outcome = tokio::time::timeout(limit, asked).await.unwrap_or(Err(Fault::Lost(Arc::new(Late))));
        (Some(place), outcome)
    }

    /// Calls, and calls again within the patience as long as nothing can have happened, or it does no harm.
    pub(super) async fn call<T, F>(&self, op: Op, repeat: Repeat, ask: impl Fn(Line) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(self.patience, op, repeat, ask).await
    }

    /// The same with another patience. Without any, each member is tried at most once.
    pub(super) async fn call_within<T, F>(
        &self,
        patience: Duration,
        op: Op,
        repeat: Repeat,
        ask: impl Fn(Line) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let limit = match (op, repeat) {
            (Op::Compact, Repeat::No) => COMPACT_LIMIT,
            (_, Repeat::No) => WRITE_LIMIT,
            (_, Repeat::Yes) => READ_LIMIT,
        };
        let deadline = Instant::now() + patience;
        let (mut pause, mut attempts) = (BACKOFF_MIN, 0);
        loop {
            let rounds = u32::try_from(attempts / self.members.len()).unwrap_or(u32::MAX);
            let (place, outcome) = self.attempt(op, limit.saturating_mul(rounds.saturating_add(1)), &ask).await;
            let (reason, broken, known) = match outcome {
                Ok(answer) => return Ok(answer),
                Err(Fault::Final(error)) => return Err(error.into()),
                Err(Fault::Compacted) => return Err(CallError::Compacted),
                Err(Fault::Future) => return Err(CallError::Future),
                Err(Fault::Lease) => return Err(CallError::Lease),
                Err(Fault::Elsewhere(reason)) => (reason, false, true),
                // Without a login there is nothing to try again with.
                Err(Fault::Stranger(source)) if self.login.is_none() => {
                    return Err(StoreError::Database { op, source }.into());
                }
                Err(Fault::Stranger(reason)) => (reason, false, true),
                Err(Fault::Lost(reason)) => (reason, true, false),
            };
            if let Some(place) = &place {
                self.leave(place, broken).await;
            }
            if self.is_closed() && known {
                return Err(StoreError::Closed.into());
            }
            if !known && repeat == Repeat::No {
                return Err(StoreError::Unknown { op, reason: chain(&*reason) }.into());
            }
            if Instant::now() + pause > deadline {
                return Err(StoreError::Unreachable { op, source: reason }.into());
            }
            tracing::debug!(%op, reason = chain(&*reason), "etcd is asked again");
            attempts += 1;
            // The others first, and at once, if there is a line to be had.
            if place.is_none() || attempts % self.members.len() == 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF_MAX);
            }
        }
    }
}
