//! Cluster roles whose rules are those of others.

use std::time::Duration;

use k3sd_apiserver_access::PolicyRule;
use k3sd_apiserver_access::bootstrap::aggregated_rules;
use k3sd_objects::status::{Reason, Status};
use serde_json::Value;

use super::rbac::CLUSTER_ROLES;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::special::local::{self, Kind};

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Aggregation;

impl Duty for Aggregation {
    const HOOK: &'static str = "start-cluster-role-aggregation";
    const WATCHES: &'static [Kind] = &[CLUSTER_ROLES];

    fn interval(&self) -> Option<Duration> {
        None
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        for wanted in outdated(&local::list(api, CLUSTER_ROLES).await?) {
            match local::update(api, CLUSTER_ROLES, &wanted).await {
                // Its change comes with the watch.
                Err(status) if ![Reason::Conflict, Reason::NotFound].contains(&status.reason) => return Err(status),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The roles as they should be that aren't.
fn outdated(all: &[Value]) -> Vec<Value> {
    let mut wanted = Vec::new();
    for role in all {
        let Some(rules) = aggregated_rules(role, all) else { continue };
        if rules != PolicyRule::list_of(role) {
            let mut role = role.clone();
            role["rules"] = rules.iter().map(PolicyRule::to_value).collect();
            wanted.push(role);
        }
    }
    wanted
}
