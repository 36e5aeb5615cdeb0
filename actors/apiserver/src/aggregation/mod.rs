//! Groups of the API that somebody else answers for: another server, or another part of this process.
//!
//! ```text
//! APIServices ─▶ follow ─▶ Table, published ─▶ pipeline ─┬─▶ proxy ─▶ the service's endpoint, over TLS
//!                  │  ▲                                   └─▶ a local API
//!                  ▼  │
//!            status: Available                discovery: what others answer for stands among our own
//!
//! what is served, definitions ─▶ register ─▶ APIServices of our own versions
//! ```
//!
//! An APIService with `spec.service` sends a version elsewhere; it does so as soon as its status says that it is
//! available, and until then clients hear 503. Without a service, or without the object, a version is answered by the
//! [`LocalApi`] of that name, if there is one, and by the registry otherwise.
//!
//! Nobody polls while no APIService names a service.

mod conditions;
mod follow;
mod local;
mod proxy;
mod register;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use k3sd_client::storage::BoxFuture;
use k3sd_runtime::Clock;
use tokio_rustls::rustls::client::ResolvesClientCert;

pub(crate) use self::follow::{FollowArgs, follow};
pub(crate) use self::local::Inside;
pub(crate) use self::proxy::{Passed, pass};
pub(crate) use self::register::{RegisterArgs, register};
pub(crate) use self::table::{Route, Table};
use crate::streams::Dial;

/// The group and the plural of what this is about.
const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
/// Where the objects are for clients.
const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// The pause before something that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How versions that others answer for are reached. The default reaches services without showing a certificate, and has
/// no local ones.
#[derive(Clone, Debug, Default)]
pub struct Aggregation {
    /// The certificate of the front proxy, by which other servers know that we vouch for whom we name.
    pub certificate: Option<Arc<dyn ResolvesClientCert>>,
    /// How services are connected to; `None` is over the network that this process has.
    pub dial: Option<Dial>,
    /// What other parts of this process answer.
    pub locals: Vec<LocalApi>,
}

/// Answers the requests of a version. Who asks was authenticated and is authorized; the path is the whole one.
type Answer = dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync;

/// A version of a group that another part of this process answers for, as long as no APIService names a service for it.
#[derive(Clone)]
pub struct LocalApi {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// `groupPriorityMinimum` and `versionPriority`, for discovery.
    pub priorities: (i64, i64),
    answer: Arc<Answer>,
}

impl fmt::Debug for LocalApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalApi({}/{})", self.group, self.version)
    }
}

impl LocalApi {
    /// Asks a function, which answers `GET /apis/GROUP/VERSION` with an `APIResourceList`, and everything below. It may
    /// wait; the time of a request limits it.
    pub fn new(
        group: &str,
        version: &str,
        priorities: (i64, i64),
        answer: impl Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self { group: group.to_owned(), version: version.to_owned(), priorities, answer: Arc::new(answer) }
    }

    /// Asks it.
    pub(crate) fn ask(&self, request: Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> {
        (self.answer)(request)
    }
}

/// The time in RFC 3339, to the second.
fn now(clock: &Clock) -> String {
    let seconds = i64::try_from(clock.wall().as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

async fn pause(clock: &Clock) {
    clock.sleep_until(clock.now() + RETRY_DELAY).await;
}
