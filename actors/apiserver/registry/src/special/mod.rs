//! What isn't plain: resources that are only answered, subresources that do something, and fields that are given out.
//!
//! ```text
//! Api ─▶ answer ─┬─▶ reviews, tokens      nothing is stored
//!                ├─▶ pods::{binding, eviction}
//!                └─▶ components
//! verbs ─▶ services    addresses and ports, before a Service is validated and after it is written
//! repair               mends what allocation left behind, an actor
//! ```

mod answers;
mod components;
pub(crate) mod local;
pub(crate) mod pods;
pub(crate) mod read;
mod reviews;
pub(crate) mod services;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;
mod uses;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_access::authn::service_account::{Issuer, SigningKey};
use k3sd_apiserver_access::{Rbac, User};
use k3sd_apiserver_store::Resource;
use k3sd_client::storage::BoxFuture;
use k3sd_objects::status::Status;

pub use self::answers::answer;
pub use self::components::Component;
pub use self::services::{Family, PortRange, PortRangeError, Range, RangeError};
pub use self::uses::note_use;

/// Who comes with a token, and for whom it is meant among those who were asked about. The text says why it isn't believed;
/// `None` is a token that nobody knows.
pub type Authenticated = Result<Option<(User, Vec<String>)>, String>;

/// Looks at a token for a `TokenReview`, as it would be looked at in a request. The list is who it should be meant for;
/// empty stands for us.
pub type Authenticate = Arc<dyn Fn(String, Vec<String>) -> BoxFuture<'static, Authenticated> + Send + Sync>;

/// What tokens of service accounts are made with.
#[derive(Clone)]
pub struct TokenSource {
    /// By what rules.
    pub issuer: Issuer,
    /// The present key, asked for each token.
    pub key: Arc<dyn Fn() -> Option<Arc<SigningKey>> + Send + Sync>,
}

/// What special resources need beside the objects.
#[derive(Clone)]
pub struct Special {
    /// Ranges that addresses of Services are from, at most one of each family; Services get the first one's by default.
    /// At least one.
    pub service_ranges: Vec<Range>,
    /// Ports that Services may open on nodes.
    pub node_ports: PortRange,
    /// `None` where no tokens are made: then requests for them are 404, as upstream's are.
    pub tokens: Option<TokenSource>,
    /// Looks at tokens for reviews.
    pub authenticate: Authenticate,
    /// The present roles and bindings.
    pub rbac: Arc<dyn Fn() -> Arc<Rbac> + Send + Sync>,
    /// How the parts of the control plane are, other than the store.
    pub components: Arc<dyn Fn() -> Vec<Component> + Send + Sync>,
}

impl fmt::Debug for Special {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Special")
            .field("service_ranges", &self.service_ranges)
            .field("node_ports", &self.node_ports)
            .finish_non_exhaustive()
    }
}

/// How long objects of a resource live, if not for ever. `event_ttl` is in whole seconds, zero for ever.
pub(crate) fn time_to_live(resource: &Resource, event_ttl: Duration) -> Option<Duration> {
    let events = matches!((&*resource.group, &*resource.plural), ("" | "events.k8s.io", "events"));
    (events && !event_ttl.is_zero()).then_some(event_ttl)
}

/// A failure of the kind that upstream has no reason for.
fn unnamed(message: impl Into<String>) -> Status {
    Status::failure(500, k3sd_objects::status::Reason::Unknown, message)
}
