//! The metrics API (`metrics.k8s.io/v1beta1`): what pods and nodes use right now, for `kubectl top` and autoscalers.
//!
//! ```text
//! client ─▶ API server ─▶ MetricsApi ─ read ─▶ scraper ─ GET nodes/N/proxy/metrics/resource ─▶ API server ─▶ kubelets
//!                              ▲                  │
//!                              └── table, lists ◀─┴ History (pure): rates from the last two texts of each node
//! ```
//!
//! Nothing is read before somebody asks, and nothing any more some minutes after the last one did. Whoever asks first
//! waits for two texts, two seconds apart. A restart forgets what was read.
//!
//! What is deliberately absent: who may ask, which the API server decides, and any way to kubelets but through it.
//!
//! An APIService of this version that names a service, as metrics-server's manifest has it, takes the version away from
//! here; see [`MANIFEST`] for what is there otherwise.

mod answer;
mod history;
mod manifest;
mod scraper;
mod show;
mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use k3sd_client::api::Connect;
use k3sd_client::informer::Shared;
use k3sd_runtime::{Address, Spec, Strategy, worker};
use tokio::sync::watch;

pub use self::manifest::MANIFEST;
use self::scraper::{Scraper, ScraperArgs, ScraperMsg, View};

/// The group.
pub const GROUP: &str = "metrics.k8s.io";
/// The version.
pub const VERSION: &str = "v1beta1";
/// `groupPriorityMinimum` and `versionPriority`, as metrics-server has them.
pub const PRIORITIES: (i64, i64) = (100, 100);
/// How long somebody waits for the first two texts.
const READ_LIMIT: Duration = Duration::from_secs(30);

type Place = watch::Sender<Option<Address<ScraperMsg>>>;

/// Answers requests of this version. Cheap to clone; good before the subtree runs, when it answers 503.
#[derive(Clone)]
pub struct MetricsApi(watch::Receiver<Option<Address<ScraperMsg>>>);

impl fmt::Debug for MetricsApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsApi")
    }
}

impl MetricsApi {
    /// Answers a request for a path at or below `/apis/metrics.k8s.io/v1beta1`. Who asks may do so.
    pub fn answer(&self, request: Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> {
        let api = self.clone();
        Box::pin(async move {
            let (parts, _) = request.into_parts();
            answer::answer(&parts, || api.read()).await
        })
    }

    async fn read(self) -> Option<Arc<View>> {
        let address = self.0.borrow().clone()?;
        address.call(READ_LIMIT, |reply| ScraperMsg::Read { reply }).await.ok()
    }
}

/// Where the subtree has its place, before it can be put together.
pub struct Seat(Place);

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

/// The API, and the seat of whoever measures for it. The API server needs the first before there are informers, which
/// the second needs.
#[must_use]
pub fn prepare() -> (MetricsApi, Seat) {
    let (place, address) = watch::channel(None);
    (MetricsApi(address), Seat(place))
}

impl Seat {
    /// The subtree. `connect` is somebody who may `get` `nodes/proxy`; nodes and pods are read through `informers`.
    #[must_use]
    pub fn tree(self, connect: Connect, informers: &mut Shared) -> Spec {
        let (nodes, pods) = (informers.informer(), informers.informer());
        let args = ScraperArgs { connect, nodes, pods, place: Arc::new(self.0) };
        Spec::new(Strategy::OneForOne).child(worker::<Scraper>("scraper", args))
    }
}
