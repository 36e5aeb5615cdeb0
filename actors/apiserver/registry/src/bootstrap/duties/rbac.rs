//! The roles and bindings that every cluster starts with.

use std::time::Duration;

use k3sd_apiserver_access::PolicyRule;
use k3sd_apiserver_access::bootstrap::{self, Action};
use k3sd_objects::status::{Reason, Status};
use serde_json::{Value, json};

use super::ensure;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::special::local::{self, Kind};
use crate::special::read::text;

const GROUP: &str = "rbac.authorization.k8s.io";
pub(super) const CLUSTER_ROLES: Kind = Kind::v1(GROUP, "clusterroles");
const CLUSTER_ROLE_BINDINGS: Kind = Kind::v1(GROUP, "clusterrolebindings");
const ROLES: Kind = Kind::v1(GROUP, "roles");
const ROLE_BINDINGS: Kind = Kind::v1(GROUP, "rolebindings");

/// See the module's page. Done once at each start, as upstream does.
#[derive(Clone, Debug)]
pub(crate) struct Roles;

impl Duty for Roles {
    const HOOK: &'static str = "rbac/bootstrap-roles";

    fn interval(&self) -> Option<Duration> {
        None
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        // All at once: an empty store makes one commit of many writes.
        let cluster_roles = with_aggregated(bootstrap::cluster_roles());
        let roles = cluster_roles.into_iter().map(|role| (CLUSTER_ROLES, role));
        let roles = roles.chain(bootstrap::namespaced_roles().into_iter().map(|role| (ROLES, role)));
        let bindings = bootstrap::cluster_role_bindings().into_iter().map(|one| (CLUSTER_ROLE_BINDINGS, one));
        let bindings =
            bindings.chain(bootstrap::namespaced_role_bindings().into_iter().map(|one| (ROLE_BINDINGS, one)));
        let work = roles.chain(bindings).map(|(kind, object)| keep(api, kind, object));
        futures_util::future::join_all(work).await.into_iter().collect::<Result<(), Status>>()?;
        Ok(None)
    }
}

/// Fills in the rules of roles that consist of others, so that they hold from the first moment.
fn with_aggregated(mut roles: Vec<Value>) -> Vec<Value> {
    // What they consist of may itself be such a role; there are no more than three layers.
    for _ in 0..3 {
        let all = roles.clone();
        for role in &mut roles {
            if let Some(rules) = bootstrap::aggregated_rules(role, &all) {
                role["rules"] = rules.iter().map(PolicyRule::to_value).collect();
            }
        }
    }
    roles
}

async fn keep(api: &Api, kind: Kind, expected: Value) -> Result<(), Status> {
    let Some(stored) = ensure(api, kind, &expected).await? else { return Ok(()) };
    let is_role = [CLUSTER_ROLES, ROLES].contains(&kind);
    let reconcile = if is_role { bootstrap::reconcile_role } else { bootstrap::reconcile_binding };
    match reconcile(&expected, &stored) {
        Action::Leave => Ok(()),
        Action::Update(wanted) => local::update(api, kind, &wanted).await.map(drop),
        Action::Recreate(wanted) => {
            let (namespace, name) = (text(&stored, "/metadata/namespace"), text(&stored, "/metadata/name"));
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
                "preconditions": {"uid": stored["metadata"]["uid"]}});
            local::delete(api, kind, namespace, name, Some(&options)).await?;
            match local::create(api, kind, &wanted).await {
                Err(status) if status.reason != Reason::AlreadyExists => Err(status),
                _ => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregated_roles_have_rules_from_the_start() {
        let roles = with_aggregated(bootstrap::cluster_roles());
        let rules = |name: &str| {
            let role = roles.iter().find(|role| text(role, "/metadata/name") == name).expect(name);
            PolicyRule::list_of(role)
        };
        let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
        assert!(!view.is_empty() && edit.len() > view.len() && admin.len() > edit.len());
        assert!(view.iter().all(|rule| admin.contains(rule)), "an admin may all that a viewer may");
        let again = with_aggregated(roles.clone());
        assert_eq!(again, roles);
    }
}
