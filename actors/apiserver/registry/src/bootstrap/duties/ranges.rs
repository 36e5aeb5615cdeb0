//! `ServiceCIDR`s: the one from the configuration, and the conditions and finalizers of all.
//!
//! A range goes only when no address of it is in use that isn't in another range too.

use std::net::IpAddr;
use std::time::Duration;

use k3sd_apiserver_store::ListQuery;
use k3sd_objects::status::{Reason, Status};
use serde_json::{Value, json};

use super::ensure;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::bootstrap::objects;
use crate::special::local::{self, Kind};
use crate::special::pods::conditions::time;
use crate::special::read::{items, text, texts};
use crate::special::services::ranges_of;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How often a range is looked at that waits for its addresses.
const WAITING: Duration = Duration::from_secs(10);
const IN_USE: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

/// The range from the configuration.
#[derive(Clone, Debug)]
pub(crate) struct DefaultRange {
    /// As they are configured, the default family first.
    pub(crate) ranges: Vec<String>,
}

impl Duty for DefaultRange {
    const HOOK: &'static str = "start-kubernetes-service-cidr-controller";
    const WATCHES: &'static [Kind] = &[local::SERVICE_CIDRS];

    fn interval(&self) -> Option<Duration> {
        None
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        let cidr = objects::service_cidr(&self.ranges);
        let Some(stored) = ensure(api, local::SERVICE_CIDRS, &cidr).await? else { return Ok(None) };
        if let Some(grown) = objects::grown_service_cidr(&stored, &self.ranges) {
            local::update(api, local::SERVICE_CIDRS, &grown).await?;
        } else if texts(&stored, "/spec/cidrs") != self.ranges {
            tracing::warn!(
                stored = %stored["spec"]["cidrs"],
                configured = ?self.ranges,
                "the default ServiceCIDR keeps its ranges: addresses of it are in use"
            );
        }
        Ok(None)
    }
}

/// The conditions and finalizers of all ranges.
#[derive(Clone, Debug)]
pub(crate) struct Ranges;

impl Duty for Ranges {
    const HOOK: &'static str = "start-service-cidr-conditions";
    const WATCHES: &'static [Kind] = &[local::SERVICE_CIDRS];

    fn interval(&self) -> Option<Duration> {
        None
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        let all = local::list(api, local::SERVICE_CIDRS).await?;
        let now = time(local::now(api));
        let mut pause = None;
        for cidr in &all {
            let going = !cidr["metadata"]["deletionTimestamp"].is_null();
            let needed = going && is_needed(api, cidr, &all).await?;
            if needed {
                pause = Some(WAITING);
            }
            for (wanted, part) in wanted(cidr, going, needed, &now) {
                match local::update_part(api, local::SERVICE_CIDRS, &wanted, part).await {
                    // Somebody changed it; the watch tells.
                    Err(status) if ![Reason::Conflict, Reason::NotFound].contains(&status.reason) => {
                        return Err(status);
                    }
                    Err(_) => break,
                    Ok(_) => {}
                }
            }
        }
        Ok(pause)
    }
}

/// Whether some address in use is in this range and in no other that stays.
async fn is_needed(api: &Api, cidr: &Value, all: &[Value]) -> Result<bool, Status> {
    let stays = |other: &&Value| {
        other["metadata"]["name"] != cidr["metadata"]["name"] && other["metadata"]["deletionTimestamp"].is_null()
    };
    let others: Vec<_> = all.iter().filter(stays).flat_map(ranges_of).collect();
    let ours = ranges_of(cidr);
    let store = local::store(api, local::IP_ADDRESSES)?;
    let addresses = store.list(&ListQuery::default()).await?.objects;
    Ok(addresses.iter().any(|object| {
        let Ok(address) = object.name().parse::<IpAddr>() else { return false };
        ours.iter().any(|range| range.contains(address)) && !others.iter().any(|range| range.contains(address))
    }))
}

/// What is to be written of a range, and through which subresource.
fn wanted(cidr: &Value, going: bool, needed: bool, now: &str) -> Vec<(Value, &'static str)> {
    let protected = texts(cidr, "/metadata/finalizers").contains(&FINALIZER);
    if going && !needed {
        return if protected { vec![(with_finalizer(cidr, false), "")] } else { Vec::new() };
    }
    if !going && !protected {
        // The condition follows when the change comes back.
        return vec![(with_finalizer(cidr, true), "")];
    }
    let (status, reason, message) =
        if going { ("False", "Terminating", IN_USE) } else { ("True", "", "Kubernetes Service CIDR is ready") };
    let before = items(cidr, "/status/conditions").iter().find(|one| text(one, "/type") == "Ready");
    if before.is_some_and(|one| text(one, "/status") == status) {
        return Vec::new();
    }
    let mut wanted = cidr.clone();
    wanted["status"]["conditions"] = json!([{"type": "Ready", "status": status, "reason": reason,
        "message": message, "lastTransitionTime": now}]);
    vec![(wanted, "status")]
}

fn with_finalizer(cidr: &Value, has: bool) -> Value {
    let mut wanted = cidr.clone();
    let mut list: Vec<String> = texts(cidr, "/metadata/finalizers").into_iter().map(str::to_owned).collect();
    list.retain(|one| one != FINALIZER);
    if has {
        list.push(FINALIZER.to_owned());
    }
    wanted["metadata"]["finalizers"] = json!(list);
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_range() {
        let new = objects::service_cidr(&["10.43.0.0/16".to_owned()]);
        let (protected, part) = wanted(&new, false, false, "now").remove(0);
        assert_eq!((&protected["metadata"]["finalizers"], part), (&json!([FINALIZER]), ""));
        let (ready, part) = wanted(&protected, false, false, "now").remove(0);
        assert_eq!((text(&ready["status"]["conditions"][0], "/status"), part), ("True", "status"));
        assert_eq!(wanted(&ready, false, false, "later"), []);
        let (waiting, part) = wanted(&ready, true, true, "later").remove(0);
        assert_eq!((text(&waiting["status"]["conditions"][0], "/reason"), part), ("Terminating", "status"));
        assert_eq!(wanted(&waiting, true, true, "later"), []);
        let (free, part) = wanted(&waiting, true, false, "later").remove(0);
        assert_eq!((&free["metadata"]["finalizers"], part), (&json!([]), ""));
        assert_eq!(wanted(&free, true, false, "later"), []);
    }
}
