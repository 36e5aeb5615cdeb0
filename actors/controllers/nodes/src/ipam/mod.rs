//! `nodeipam`: gives each node a network for its pods.
//!
//! Owns:    `spec.podCIDRs` of nodes that have none yet; it never changes again.
//! Needs:   nodes to look at, and to list: copies may not show yet what a former life of this loop handed out.
//! Restart: permanent. What is taken stands in the nodes.
//! Fails:   never as a whole. When no network is left it says so, and tries again.

mod ranges;

use std::fmt;

use k3sd_client::controller::fan_out::each;
use k3sd_client::controller::setup::{NodesConfig, Setup};
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::Informer;
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use self::ranges::{RangeError, Ranges, parse, text};
use crate::node::{name, record_status};

/// Who says what happened.
const COMPONENT: &str = "cidrAllocator";

struct Ipam {
    api: kube::Client,
    nodes: Informer<Node>,
    recorder: Recorder,
    config: NodesConfig,
}

/// All nodes: two of them may not be looked at side by side, lest both get the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct All;

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("networks of nodes")
    }
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let controller = Ipam {
        api: setup.connect("node-controller").client(),
        nodes: setup.informers.informer(),
        recorder: setup.recorder.component(COMPONENT),
        config: setup.config.nodes.clone(),
    };
    let nodes = controller.nodes.clone();
    Loop::new(controller, setup.leading.clone())
        .workers(1)
        .watch(&nodes, |_, new, keys| {
            if new.is_some_and(needs) {
                keys.push(All);
            }
        })
        .child("nodeipam")
}

/// Whether it has no network yet.
fn needs(node: &Node) -> bool {
    networks(node).is_empty() && node.metadata.deletion_timestamp.is_none()
}

/// The networks it has.
fn networks(node: &Node) -> Vec<&str> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
    let first = spec.and_then(|spec| spec.pod_cidr.as_ref());
    let all: Vec<_> = all.map(String::as_str).filter(|network| !network.is_empty()).collect();
    if all.is_empty() {
        first.map(String::as_str).filter(|network| !network.is_empty()).into_iter().collect()
    } else {
        all
    }
}

/// What is left of the cluster's networks.
fn free(config: &NodesConfig, nodes: &[Node]) -> Result<Vec<Ranges>, RangeError> {
    let (v4, v6) = config.cidr_mask_size;
    let of = |cluster: &_| {
        let cluster: k3sd_client::controller::setup::Network = *cluster;
        Ranges::new(cluster, if cluster.address.is_ipv6() { v6 } else { v4 })
    };
    let mut all = config.cluster_cidrs.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    for ranges in &mut all {
        for services in &config.service_cidrs {
            ranges.occupy(*services);
        }
    }
    for node in nodes {
        for network in networks(node) {
            let taken = parse(network).map_or(0, |network| {
                let occupied = all.iter_mut().map(|ranges| ranges.occupy(network));
                occupied.filter(|taken| *taken).count()
            });
            if taken == 0 {
                tracing::warn!(node = name(node), network, "the node's network is none of this cluster's");
            }
        }
    }
    Ok(all)
}

impl Controller for Ipam {
    type Key = All;

    async fn reconcile(&self, _: &All, turn: &mut Turn) -> Result<(), Failure> {
        let Some(known) = self.nodes.snapshot() else { return Ok(()) };
        if self.config.cluster_cidrs.is_empty() || !known.iter().any(|node| needs(node)) {
            return Ok(());
        }
        let api: Api<Node> = Api::all(self.api.clone());
        let mut nodes = api.list(&ListParams::default()).await?.items;
        nodes.sort_by_cached_key(|node| {
            let created = node.metadata.creation_timestamp.as_ref().map(|created| created.0);
            (created, name(node).to_owned())
        });
        let mut free = free(&self.config, &nodes).map_err(Failure::other)?;
        let (mut chosen, mut failed) = (Vec::new(), None);
        for node in nodes.iter().filter(|node| needs(node)) {
            let networks = free.iter_mut().enumerate().map(|(at, ranges)| (at, ranges.take()));
            let networks = networks
                .map(|(at, taken)| {
                    let why = |error| format!("failed to allocate cidr from cluster cidr at idx:{at}: {error}");
                    taken.map(|network| text(&network)).map_err(why)
                })
                .collect::<Result<Vec<_>, _>>();
            match networks {
                Ok(networks) => chosen.push((node, networks)),
                Err(why) => {
                    record_status(&self.recorder, node, "CIDRNotAvailable");
                    failed = Some(Failure::other(why));
                }
            }
        }
        let write = async |(node, networks): (&Node, Vec<String>)| {
            let spec = json!({"podCIDR": networks.first(), "podCIDRs": networks});
            let patch = json!({"metadata": {"uid": node.metadata.uid}, "spec": spec});
            match api.patch(name(node), &PatchParams::default(), &Patch::Merge(patch)).await.map_err(Failure::from) {
                Ok(written) => Ok(Some(written)),
                Err(failure) if failure.is_stale() => Ok(None),
                Err(failure) => {
                    record_status(&self.recorder, node, "CIDRAssignmentFailed");
                    Err(failure)
                }
            }
        };
        let (written, refused) = each(chosen, write).await;
        written.iter().flatten().for_each(|node| turn.wrote(&self.nodes, node));
        refused.or(failed).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_services_take_their_part() {
        let config = NodesConfig {
            cluster_cidrs: ["10.42.0.0/16", "fd42::/56"].iter().filter_map(|text| parse(text)).collect(),
            service_cidrs: ["10.42.0.0/23", "10.43.0.0/16"].iter().filter_map(|text| parse(text)).collect(),
            ..NodesConfig::default()
        };
        let node = |spec| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec})).expect("a node")
        };
        let nodes = [
            node(json!({"podCIDR": "10.42.2.0/24", "podCIDRs": ["10.42.2.0/24", "fd42::/64"]})),
            node(json!({"podCIDR": "10.42.3.0/24"})),
            node(json!({"podCIDRs": ["172.16.0.0/24"]})),
            node(json!({})),
        ];
        assert_eq!(nodes.iter().filter(|node| needs(node)).count(), 1);
        let next: Vec<_> =
            free(&config, &nodes).expect("it makes sense").iter_mut().map(|it| it.take().map(|it| text(&it))).collect();
        assert_eq!(next, [Ok("10.42.4.0/24".to_owned()), Ok("fd42:0:0:1::/64".to_owned())]);
    }
}
