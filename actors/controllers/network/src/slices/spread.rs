//! Hints for `trafficDistribution`: traffic stays near where it comes from.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone};

use super::hints::{Draft, is_ready};

/// How near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Near {
    /// The same zone.
    Zone,
    /// The same node, else the same zone.
    Node,
}

/// What the Service asks for; `None` also for what isn't known.
pub(super) fn near(service: &Service) -> Option<Near> {
    match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => Some(Near::Zone),
        "PreferSameNode" => Some(Near::Node),
        _ => None,
    }
}

/// Gives each endpoint that is ready the hints it should have.
pub(super) fn hint(draft: &mut Draft, near: Near) {
    let is_wrong = |slice: &Arc<EndpointSlice>| {
        let mut ready = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint));
        ready.any(|endpoint| hints(endpoint, near) != known(endpoint))
    };
    draft.change(is_wrong);
    for endpoint in draft.changing().flat_map(|slice| &mut slice.endpoints).filter(|endpoint| is_ready(endpoint)) {
        endpoint.hints = hints(endpoint, near);
    }
}

fn hints(endpoint: &Endpoint, near: Near) -> Option<EndpointHints> {
    let for_zones = endpoint.zone.as_ref().map(|name| vec![ForZone { name: name.clone() }]);
    let node = endpoint.node_name.as_ref().filter(|_| near == Near::Node);
    let for_nodes = node.map(|name| vec![ForNode { name: name.clone() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// The hints it has; empty lists are none.
fn known(endpoint: &Endpoint) -> Option<EndpointHints> {
    let hints = endpoint.hints.as_ref()?;
    let for_zones = hints.for_zones.clone().filter(|zones| !zones.is_empty());
    let for_nodes = hints.for_nodes.clone().filter(|nodes| !nodes.is_empty());
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}
