//! A store on an etcd cluster, which other servers and other programs may use at the same time.
//!
//! ```text
//!   reads, writes, compaction ──▶ cluster ──lines──▶ members      follower ◀──stream of all events── a member
//!                                                                     └──▶ watchers
//! ```
//!
//! etcd keeps the contract by itself; this store finds a member that answers, tells what is known about a call that
//! broke off, and shares one stream of events among all watchers. So a watcher costs etcd nothing, and a slow one holds
//! nobody up. A write is acknowledged when etcd has it and when its event has come, which are about the same moment.
//!
//! * A call goes to one member and, when that fails, to the next. A write is repeated only if the first attempt can't
//!   have been carried out: it never left, or the member said that it did not begin. Everything else is
//!   [`StoreError::Unknown`].
//! * Times to live are leases, so etcd ends the keys and nobody here has to; see `lease.rs`. Ending them a second time,
//!   as [`ExpiryQueue`](crate::ExpiryQueue) proposes, does no harm: the delete names the revision, and finds it gone.
//! * The stream has every key, so whoever logs in needs the right to read all of them.
//!
//! The messages are made from `etcd.proto`, and hyper carries them: a crate for the whole of etcd's interface would not
//! say whether a write was sent, nor which part of a long answer is the last.

mod address;
mod cluster;
mod convert;
mod fault;
mod feed;
mod follow;
mod lease;
mod line;
mod past;
mod query;
mod tls;
mod write;

/// The messages and calls of etcd's interface.
mod wire {
    #![expect(unreachable_pub, clippy::allow_attributes, reason = "generated; documented in the .proto file")]
    tonic::include_proto!("etcdserverpb");
}

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use self::cluster::Cluster;
use self::feed::{Feed, FeedEnd};
use self::follow::Live;
use self::lease::LeaseNumbers;
use self::past::EtcdPager;
use self::query::first_revision;
pub use self::tls::EtcdTls;
use crate::backend::Backend;
use crate::background::Background;
use crate::dsn::without_login;
use crate::error::{Op, StoreError};
use crate::request::{
    CompactResponse, CountRequest, CountResponse, GetRequest, GetResponse, ListRequest, ListResponse, Status,
    WatchRequest, WriteRequest, WriteResponse,
};
use crate::types::{Key, Revision};
use crate::watch::Watcher;

/// How long to try when no member can be reached: longer than a restart or an election takes.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);
/// The first and the longest pause between attempts to open the store.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How to open a store on an etcd cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// Its members, as [`Dsn::Etcd`](crate::Dsn::Etcd) has them: `http://`, `https://`, `unix://` or `unixs://`. A
    /// `user:password@` in front of a host is for all of them.
    pub endpoints: Vec<String>,
    /// Certificates that were given beside them.
    pub tls: EtcdTls,
    /// How long an operation waits for a cluster that can't be reached, before it fails.
    pub patience: Duration,
}

impl EtcdOptions {
    /// With the defaults.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, tls: EtcdTls::default(), patience: PATIENCE_DEFAULT }
    }
}

/// Without the login that an endpoint may have.
impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoints, tls, patience } = self;
        let endpoints: Vec<_> = endpoints.iter().map(|endpoint| without_login(endpoint)).collect();
        let mut shown = f.debug_struct("EtcdOptions");
        shown.field("endpoints", &endpoints).field("tls", tls).field("patience", patience).finish()
    }
}

/// A store on an etcd cluster. Cloning it shares the store; with its last clone it is closed.
#[derive(Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Etcd")
    }
}

struct Shared {
    link: Arc<Link>,
    /// The follower sees when it is dropped.
    _open: watch::Sender<()>,
}

/// The way to the cluster. Watchers have it too, and keep no store open with it.
struct Link {
    cluster: Cluster,
    live: Arc<Live>,
    leases: LeaseNumbers,
    /// How far history goes back, as far as that is known.
    compacted: AtomicI64,
}

impl Etcd {
    /// Connects, and starts to follow events in a task of the event loop that this is called in, which has to outlive
    /// the store. Tries again within the patience.
    ///
    /// # Errors
    /// As [`Etcd::assemble`].
    pub async fn open(options: EtcdOptions) -> Result<Self, StoreError> {
        let deadline = Instant::now() + options.patience;
        let mut pause = BACKOFF_MIN;
        loop {
            match Self::assemble(options.clone()).await {
                Ok((store, background)) => {
                    tokio::spawn(background.run());
                    return Ok(store);
                }
                Err(StoreError::Unreachable { .. }) if Instant::now() + pause < deadline => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// The same without a task, and without patience for a cluster that is away. The store works while somebody polls
    /// [`Background::run`].
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when no member answers, [`StoreError::Database`] when one refuses, or when a file
    /// for TLS can't be used, [`StoreError::Invalid`] when an endpoint can't be understood.
    pub async fn assemble(options: EtcdOptions) -> Result<(Self, Background), StoreError> {
        let (spawner, mut background) = Background::new();
        let cluster = Cluster::new(&options, spawner)?;
        let starting = async {
            let revision = first_revision(&cluster).await?;
            // Whether that is allowed shows only now.
            let feed = Feed::open(&cluster, revision.next()).await;
            let feed = feed.map_err(|end| match end {
                FeedEnd::Closed => StoreError::Closed,
                FeedEnd::Broken(source) => StoreError::Unreachable { op: Op::Open, source },
                end @ (FeedEnd::Denied(_) | FeedEnd::Compacted) => {
                    StoreError::Database { op: Op::Open, source: Arc::new(end) }
                }
            })?;
            let (live, follower) = Live::new(revision);
            let (open, closing) = watch::channel(());
            let (leases, compacted) = (LeaseNumbers::new(), AtomicI64::new(Revision::ZERO.get()));
            let link = Arc::new(Link { cluster, live, leases, compacted });
            link.cluster.spawn(follower.run(feed, link.clone(), closing)).await?;
            Ok(Self { shared: Arc::new(Shared { link, _open: open }) })
        };
        let store = background.until(starting).await?;
        Ok((store, background))
    }
}

impl Backend for Etcd {
    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, StoreError> {
        self.shared.link.write(request).await
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, StoreError> {
        self.shared.link.get(request).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, StoreError> {
        self.shared.link.list(request).await
    }

    async fn count(&self, request: CountRequest) -> Result<CountResponse, StoreError> {
        self.shared.link.count(request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        let WatchRequest { range, from, events_waiting_max } = request;
        let (link, reader) = (self.shared.link.clone(), Mutex::default());
        let pager = EtcdPager { link, range: range.clone(), events_waiting_max, reader };
        Watcher::start(range, from, Box::new(pager)).await
    }

    async fn progress(&self) -> Result<Revision, StoreError> {
        let link = &self.shared.link;
        let now = link.revision(Op::Watch).await?;
        link.live.progress(now).await
    }

    async fn compact(&self, target: Revision) -> Result<CompactResponse, StoreError> {
        self.shared.link.compact(target).await
    }

    async fn status(&self) -> Result<Status, StoreError> {
        self.shared.link.status().await
    }

    async fn renew(&self, key: Key) -> Result<(), StoreError> {
        self.shared.link.renew(&key).await
    }
}
