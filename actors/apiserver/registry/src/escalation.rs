//! Nobody hands out rights that he doesn't hold: roles and bindings are asked about before they are written.

use k3sd_apiserver_access::cover::Grant;
use k3sd_apiserver_access::{Attributes, Binding, Decision, PolicyRule, is_privileged};
use k3sd_objects::apply::equal;
use k3sd_objects::status::{Qualified, Status};
use serde_json::Value;

use crate::meta;
use crate::verbs::Scope;

/// The group of roles and bindings.
const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or a binding that gives more than its author has. Both states are in the stored version.
pub(crate) fn check(scope: &Scope<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    if &*scope.resource.group != GROUP || is_privileged(&scope.call.user) {
        return Ok(());
    }
    if old.is_some_and(|old| is_upkeep(new, old)) {
        return Ok(());
    }
    let may = |attributes: Attributes<'_>| matches!(scope.api.authorize()(&attributes), Decision::Allow { .. });
    let grant = Grant { user: &scope.call.user, namespace: scope.namespace, may: &may };
    let rbac = (scope.api.special().rbac)();
    let name = meta::text(new, "name");
    let outcome = if scope.resource.plural.ends_with("bindings") {
        let role = Binding::from_value(new).role;
        if rbac.rules_of(&role, scope.namespace).is_err() {
            let plural = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
            return Err(Status::not_found(Qualified::new(GROUP, plural), &role.name));
        }
        grant.check_binding(&rbac, &role)
    } else {
        let aggregates = |role: &Value| role.get("aggregationRule").is_some_and(|rule| !rule.is_null());
        let aggregates = aggregates(new) || old.is_some_and(aggregates);
        grant.check_role(&rbac, name, &PolicyRule::list_of(new), aggregates)
    };
    outcome.map_err(|why| Status::forbidden(scope.resource.qualified(), name, why))
}

/// Whether a write changes only what the garbage collector changes, which must not depend on its rights.
fn is_upkeep(new: &Value, old: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        for name in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            meta::remove(&mut object, name);
        }
        object
    };
    equal(&stripped(new), &stripped(old))
}
