//! `NamespaceLifecycle`: nothing new in namespaces that are missing or going, and some namespaces never go.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_objects::object::Object;
use k3sd_objects::status::{Cause, CauseKind, Qualified, Status};
use k3sd_runtime::{Clock, Moment};
use serde_json::Value;
use tokio::sync::watch;

use crate::attributes::{Attributes, Operation};
use crate::lookup::{Lookup, NAMESPACES};

/// Namespaces that can't be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// How long the cache isn't trusted to know that a namespace is going: far longer than any cache lags behind.
const DOUBT: Duration = Duration::from_secs(30);

/// Most namespaces that are doubted at once. Beyond that, the oldest doubts are dropped.
const DOUBTS_MAX: usize = 4096;

/// Namespaces that were deleted a moment ago.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    clock: Clock,
    doubts: watch::Sender<BTreeMap<String, Moment>>,
}

impl Lifecycle {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, doubts: watch::Sender::new(BTreeMap::new()) }
    }

    pub(crate) async fn admit(&self, a: &Attributes<'_>, object: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
        let is_namespace = a.is("", "namespaces");
        if is_namespace {
            if a.operation == Operation::Delete {
                if IMMORTAL.contains(&a.name) {
                    let why = "this namespace may not be deleted";
                    return Err(Status::forbidden(a.resource.qualified(), a.name, why));
                }
                self.doubt(a.name);
            }
            return Ok(());
        }
        // Reviews of access must not tell whether the namespace is there.
        let is_review = a.is("authorization.k8s.io", "localsubjectaccessreviews");
        if a.namespace.is_empty() || a.operation == Operation::Delete || is_review {
            return Ok(());
        }
        let is_going = |namespace: &Object| lookup.selects(NAMESPACES, "status.phase", "Terminating", namespace);
        let mut found = lookup.cached(NAMESPACES, "", a.namespace);
        if found.as_ref().is_none_or(|namespace| !is_going(namespace) && self.is_doubted(a.namespace)) {
            found = lookup.fresh(NAMESPACES, "", a.namespace).await?;
        }
        let Some(namespace) = found else {
            return Err(Status::not_found(Qualified::new("", "namespaces"), a.namespace));
        };
        if a.operation == Operation::Create && is_going(&namespace) {
            return Err(terminating(a, object));
        }
        Ok(())
    }

    fn doubt(&self, namespace: &str) {
        let now = self.clock.now();
        self.doubts.send_modify(|doubts| {
            doubts.retain(|_, until| *until > now);
            if doubts.len() >= DOUBTS_MAX {
                let oldest = doubts.iter().min_by_key(|(_, until)| **until).map(|(name, _)| name.clone());
                oldest.and_then(|name| doubts.remove(&name));
            }
            doubts.insert(namespace.to_owned(), now + DOUBT);
        });
    }

    fn is_doubted(&self, namespace: &str) -> bool {
        let doubts = self.doubts.borrow();
        doubts.get(namespace).is_some_and(|until| *until > self.clock.now())
    }
}

fn terminating(a: &Attributes<'_>, object: &Value) -> Status {
    let namespace = a.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let message = format!("namespace {namespace} is being terminated");
    let kind = CauseKind::NamespaceTerminating;
    a.forbidden(object, why).with_cause(Cause::new(kind, message, "metadata.namespace"))
}
