//! Who may do what: from the line of a request to a yes or a no, and the words that go with a no.
//!
//! ```text
//! method, path, query ─▶ RequestInfo ─┬─▶ Attributes ─▶ Rbac::authorize ─▶ Decision
//!                            user ────┘                     ▲
//!           roles and bindings, as they are stored ─────────┘   an index, published whole
//! ```
//!
//! [`cover`] is the other question of RBAC: whether somebody may hand out rights, which nobody may do who doesn't hold
//! them. [`Authorizer`] puts all of them in a row. [`bootstrap`] holds the roles that every cluster starts with. [`node`] decides about kubelets.
//!
//! What is deliberately absent: input, output and time. A snapshot of roles goes in, a decision comes out.

pub mod authn;
mod authorizer;
pub mod bootstrap;
pub mod cover;
mod info;
pub mod node;
mod rbac;
mod review;
mod rule;
#[cfg(test)]
mod tests;
mod user;

use k3sd_objects::status::go::quote;
use k3sd_objects::status::{Qualified, Status};

pub use authorizer::Authorizer;
pub use info::{RequestError, RequestInfo};
pub use k3sd_objects::query::{Query, percent_decode};
pub use rbac::{Binding, Rbac, RbacObjects, Role, RoleRef, Subject};
pub use review::rules_review_status;
pub use rule::PolicyRule;
pub use user::{SYSTEM_MASTERS, User, service_account_name};

/// What an authorizer says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and by which grant.
    Allow {
        /// For the audit log.
        reason: String,
    },
    /// No, whatever another authorizer would say.
    Deny {
        /// Shown to the client.
        reason: String,
    },
    /// Another authorizer may know; if none does, it is a no.
    NoOpinion {
        /// Shown to the client; often empty.
        reason: String,
    },
}

/// A request together with who makes it: what an authorizer looks at.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// What for.
    pub request: &'a RequestInfo,
}

impl Attributes<'_> {
    /// What is asked for and not allowed, in upstream's words.
    #[must_use]
    pub fn forbidden_message(&self) -> String {
        let request = self.request;
        let (user, verb) = (quote(&self.user.name), &request.verb);
        if !request.is_resource {
            return format!("User {user} cannot {verb} path {}", quote(&request.path));
        }
        let (resource, group) = (quote(&request.combined_resource()), quote(&request.group));
        let place = match request.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {}", quote(namespace)),
        };
        format!("User {user} cannot {verb} resource {resource} in API group {group} {place}")
    }

    /// The 403 for this request. `reason` is what the authorizers had to say, empty if nothing.
    #[must_use]
    pub fn forbidden(&self, reason: &str) -> Status {
        let message = self.forbidden_message();
        let why = if reason.is_empty() { message } else { format!("{message}: {reason}") };
        Status::forbidden(Qualified::new(&self.request.group, &self.request.resource), &self.request.name, why)
    }
}

/// Whether this user may do anything: a member of `system:masters`, whom no authorizer is asked about.
#[must_use]
pub fn is_privileged(user: &User) -> bool {
    user.groups.iter().any(|group| group == SYSTEM_MASTERS)
}
