//! Renews this node's `Lease`, so that the control plane knows that the node is alive.
//!
//! Owns:    the `Lease` named after the node in `kube-node-lease`; nobody else writes it.
//! Needs:   the API, and the Node, whose uid the lease names as its owner.
//! Restart: permanent. It reads the lease again.
//! Fails:   never; what the API refuses is tried again.

use std::time::Duration;

use jiff::Timestamp;
use k3sd_client::api::Connect;
use k3sd_client::informer::Informer;
use k3sd_runtime::{Actor, ActorError, Context, message_kinds};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;

/// Where leases of nodes are.
const NAMESPACE: &str = "kube-node-lease";
/// A lease is renewed after this part of its time.
const RENEW_AFTER: f64 = 0.25;
/// The waits are so much longer, at most, so that nodes don't all renew at once.
const JITTER: f64 = 0.04;
/// How soon a renewal that failed is tried again: from the first wait doubling to the longest.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(7);

/// What the actor is started with.
#[derive(Clone)]
pub(crate) struct NodeLeaseArgs {
    /// Where leases are written.
    pub(crate) connect: Connect,
    /// The node whose lease this is.
    pub(crate) name: String,
    /// The Node.
    pub(crate) node: Informer<Node>,
    /// How long the lease lasts.
    pub(crate) seconds: i32,
}

/// See the variant.
pub(crate) enum NodeLeaseMsg {
    /// Renew now. A repeated one only renews early.
    RenewTick,
}

message_kinds!(NodeLeaseMsg { RenewTick });

/// The actor itself.
pub(crate) struct NodeLease {
    args: NodeLeaseArgs,
    api: Api<Lease>,
    last: Option<Lease>,
    retry: Duration,
}

impl Actor for NodeLease {
    type Args = NodeLeaseArgs;
    type Msg = NodeLeaseMsg;

    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<NodeLeaseMsg>, args: NodeLeaseArgs) -> Result<Self, ActorError> {
        ctx.send_self(NodeLeaseMsg::RenewTick);
        let api = Api::namespaced(args.connect.client(), NAMESPACE);
        Ok(Self { args, api, last: None, retry: RETRY_MIN })
    }

    async fn handle(&mut self, ctx: &mut Context<NodeLeaseMsg>, _: NodeLeaseMsg) -> Result<(), ActorError> {
        let wall = ctx.clock().wall();
        let micros = i64::try_from(wall.as_micros()).unwrap_or(0);
        let now = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
        let wait = match self.renew(now).await {
            Ok(true) => {
                self.retry = RETRY_MIN;
                let seconds = f64::from(self.args.seconds) * RENEW_AFTER * (1.0 + JITTER * ctx.rng().fraction());
                Duration::from_secs_f64(seconds)
            }
            // The Node isn't there yet.
            Ok(false) => self.next_retry(),
            Err(error) => {
                // Whatever was wrong with it, the next try reads it again.
                self.last = None;
                tracing::warn!(node = self.args.name, %error, "the node's lease can't be renewed");
                self.next_retry()
            }
        };
        ctx.send_after(wait, NodeLeaseMsg::RenewTick);
        Ok(())
    }
}

impl NodeLease {
    fn next_retry(&mut self) -> Duration {
        let next = (self.retry * 2).min(RETRY_MAX);
        std::mem::replace(&mut self.retry, next)
    }

    /// Renews the lease, or makes it; `false` while there is no Node to own it.
    async fn renew(&mut self, now: Timestamp) -> kube::Result<bool> {
        let known = match self.last.take() {
            Some(lease) => Some(lease),
            None => self.api.get_opt(&self.args.name).await?,
        };
        let owner = self.owner();
        if known.is_none() && owner.is_none() {
            return Ok(false);
        }
        let is_new = known.is_none();
        let lease = renewed(known, &self.args.name, self.args.seconds, owner, now);
        let params = PostParams::default();
        let written = if is_new {
            self.api.create(&params, &lease).await?
        } else {
            self.api.replace(&self.args.name, &params, &lease).await?
        };
        self.last = Some(written);
        Ok(true)
    }

    fn owner(&self) -> Option<OwnerReference> {
        let node = self.args.node.snapshot()?.get("", &self.args.name)?.clone();
        let uid = node.metadata.uid.clone()?;
        Some(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.args.name.clone(),
            uid,
            ..OwnerReference::default()
        })
    }
}

/// The lease as it is from now on. A lease that has owners keeps them.
fn renewed(known: Option<Lease>, name: &str, seconds: i32, owner: Option<OwnerReference>, now: Timestamp) -> Lease {
    let mut lease = known.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..Default::default()
        },
        spec: None,
    });
    if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
        lease.metadata.owner_references = owner.map(|owner| vec![owner]);
    }
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(name.to_owned());
    spec.lease_duration_seconds = Some(seconds);
    spec.renew_time = Some(MicroTime(now));
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() }
    }

    #[test]
    fn a_lease_is_made_once_and_renewed_after_that() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let made = renewed(None, "one", 40, Some(owner("a")), at(1));
        let spec = made.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("one"), Some(40)));
        assert_eq!(made.metadata.namespace.as_deref(), Some(NAMESPACE));
        let mut again = renewed(Some(made.clone()), "one", 40, Some(owner("b")), at(11));
        assert_eq!(again.spec.clone().unwrap().renew_time, Some(MicroTime(at(11))));
        assert_eq!(again.metadata.owner_references, Some(vec![owner("a")]));
        again.metadata.owner_references = None;
        assert_eq!(renewed(Some(again), "one", 40, None, at(12)).metadata.owner_references, None);
    }
}
