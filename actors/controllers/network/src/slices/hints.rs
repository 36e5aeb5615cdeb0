//! Hints for the topology mode `Auto`: each zone gets as many endpoints as its share of the processors asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};

use super::desired::ZONE;

/// How much more than its share an endpoint may get.
const OVERLOAD: f64 = 0.2;
/// What asks for hints, and its older name, which counts more.
const MODE: &str = "service.kubernetes.io/topology-mode";
const MODE_BEFORE: &str = "service.kubernetes.io/topology-aware-hints";
/// Nodes with one of these get no share.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Reasons and messages of Events.
pub(super) const ENABLED: &str = "TopologyAwareHintsEnabled";
pub(super) const DISABLED: &str = "TopologyAwareHintsDisabled";
const ENABLED_TEXT: &str = "Topology Aware Hints has been enabled";
pub(super) const DISABLED_TEXT: &str = "Topology Aware Hints has been disabled";
const NO_ZONE: &str = "One or more endpoints do not have a zone specified";
const NONE_ALLOCATED: &str = "No hints allocated for zones";
const LITTLE_KNOWN: &str = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
const FEW_ENDPOINTS: &str = "Insufficient number of endpoints";
const OVERLOADED: &str =
    "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";

/// The slices of one family while their hints are decided.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    /// As they are in the API.
    pub(super) same: Vec<Arc<EndpointSlice>>,
}

impl Draft {
    /// All that will be written.
    pub(super) fn changing(&mut self) -> impl Iterator<Item = &mut EndpointSlice> {
        self.create.iter_mut().chain(&mut self.update)
    }

    /// Has those written that it holds for.
    pub(super) fn change(&mut self, mut is_wrong: impl FnMut(&Arc<EndpointSlice>) -> bool) {
        let (wrong, same) = std::mem::take(&mut self.same).into_iter().partition(|slice| is_wrong(slice));
        self.same = same;
        let wrong: Vec<Arc<EndpointSlice>> = wrong;
        self.update.extend(wrong.iter().map(|slice| (**slice).clone()));
    }

    /// Takes all hints out.
    pub(super) fn clear(&mut self) {
        self.change(|slice| slice.endpoints.iter().any(|endpoint| endpoint.hints.is_some()));
        self.changing().flat_map(|slice| &mut slice.endpoints).for_each(|endpoint| endpoint.hints = None);
    }

    fn ready(&self) -> usize {
        let slices = self.create.iter().chain(&self.update).chain(self.same.iter().map(|slice| &**slice));
        slices.flat_map(|slice| &slice.endpoints).filter(|endpoint| is_ready(endpoint)).count()
    }
}

/// Whether it takes traffic.
pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}

/// Whether the Service asks for the mode `Auto`.
pub(super) fn is_auto(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let mode = annotations.and_then(|annotations| annotations.get(MODE_BEFORE).or_else(|| annotations.get(MODE)));
    matches!(mode.map(String::as_str), Some("Auto" | "auto"))
}

/// The share that each zone has of all processors. `None` unless two zones at least are known, and each node's zone and
/// processors.
pub(super) fn shares<'a>(nodes: impl Iterator<Item = &'a Node>) -> Option<BTreeMap<String, f64>> {
    let mut of_zone: BTreeMap<String, f64> = BTreeMap::new();
    for node in nodes.filter(|node| counts(node)) {
        let (zone, milli) = zone_and_milli_cpu(node)?;
        *of_zone.entry(zone.to_owned()).or_default() += milli;
    }
    let total: f64 = of_zone.values().sum();
    if total <= 0.0 || of_zone.len() < 2 {
        return None;
    }
    of_zone.values_mut().for_each(|milli| *milli /= total);
    Some(of_zone)
}

/// What of a node the shares depend on.
pub(super) fn aspect(node: &Node) -> Option<(Option<&str>, Option<&Quantity_>)> {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    counts(node).then(|| (zone(node), allocatable.and_then(|all| all.get("cpu"))))
}

type Quantity_ = k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn counts(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let is_excluded = EXCLUDED.iter().any(|label| labels.is_some_and(|labels| labels.contains_key(*label)));
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    !is_excluded && ready.is_some_and(|ready| ready.status == "True")
}

fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE).map(String::as_str).filter(|zone| !zone.is_empty())
}

fn zone_and_milli_cpu(node: &Node) -> Option<(&str, f64)> {
    let cpu: Quantity = node.status.as_ref()?.allocatable.as_ref()?.get("cpu")?.0.parse().ok()?;
    let milli = cpu.milli_value();
    #[expect(clippy::cast_precision_loss, reason = "no machine has that many processors")]
    (milli > 0).then_some((zone(node)?, milli as f64))
}

struct Allocation {
    max: usize,
    desired: f64,
}

/// How many endpoints each zone gets, or why there can be no hints.
#[expect(clippy::cast_precision_loss, reason = "counts of endpoints are small")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is at most the count")]
fn allocate(shares: Option<&BTreeMap<String, f64>>, endpoints: usize) -> Result<BTreeMap<String, Allocation>, String> {
    let shares = shares.ok_or(LITTLE_KNOWN)?;
    let counts = format!("({endpoints} endpoints, {} zones)", shares.len());
    if shares.len() > endpoints {
        return Err(format!("{FEW_ENDPOINTS} {counts}"));
    }
    let least = |share: &f64| (share * endpoints as f64 / (1.0 + OVERLOAD)).ceil() as usize;
    let total: usize = shares.values().map(least).sum();
    let spare = endpoints.checked_sub(total).ok_or_else(|| format!("{OVERLOADED} {counts}"))?;
    let of = |(zone, share): (&String, &f64)| {
        let min = least(share);
        let desired = (share * endpoints as f64).max(min as f64);
        (zone.clone(), Allocation { max: min + spare, desired })
    };
    Ok(shares.iter().map(of).collect())
}

/// An Event about the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) is_warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Said {
    pub(super) fn disabled(why: &str, family: &str) -> Self {
        Self { is_warning: true, reason: DISABLED, message: format!("{why}, addressType: {family}") }
    }
}

/// Gives each endpoint that is ready the zone it should serve, or takes all hints out and says why. `had_hints`: some
/// slice of the Service has hints already.
pub(super) fn hint(
    draft: &mut Draft,
    shares: Option<&BTreeMap<String, f64>>,
    family: &str,
    had_hints: bool,
) -> Option<Said> {
    if let Err(why) = distribute(draft, shares) {
        draft.clear();
        return Some(Said::disabled(&why, family));
    }
    let message = format!("{ENABLED_TEXT}, addressType: {family}");
    (!had_hints).then_some(Said { is_warning: false, reason: ENABLED, message })
}

fn distribute(draft: &mut Draft, shares: Option<&BTreeMap<String, f64>>) -> Result<(), String> {
    let allocations = allocate(shares, draft.ready())?;
    let mut hinted: BTreeMap<String, usize> = BTreeMap::new();
    draft.change(|slice| match fitting(slice, &hinted, &allocations) {
        Some(more) => {
            more.into_iter().for_each(|(zone, count)| *hinted.entry(zone).or_default() += count);
            false
        }
        None => true,
    });
    for endpoint in draft.changing().flat_map(|slice| &mut slice.endpoints) {
        endpoint.hints = None;
        if is_ready(endpoint) {
            let zone = endpoint.zone.clone().filter(|zone| !zone.is_empty()).ok_or(NO_ZONE)?;
            *hinted.entry(zone.clone()).or_default() += 1;
            endpoint.hints = Some(for_zone(zone));
        }
    }
    if hinted.is_empty() {
        return Err(NONE_ALLOCATED.to_owned());
    }
    let (mut giving, mut receiving) = imbalance(&allocations, &hinted);
    for endpoint in draft.changing().flat_map(|slice| &mut slice.endpoints).filter(|endpoint| is_ready(endpoint)) {
        let Some(left) = endpoint.zone.as_ref().and_then(|zone| giving.get_mut(zone)).filter(|left| **left > 0) else {
            continue;
        };
        let Some((zone, room)) = receiving.iter_mut().find(|(_, room)| **room > 0) else { break };
        (*left, *room) = (*left - 1, *room - 1);
        endpoint.hints = Some(for_zone(zone.clone()));
    }
    Ok(())
}

fn for_zone(name: String) -> EndpointHints {
    EndpointHints { for_nodes: None, for_zones: Some(vec![ForZone { name }]) }
}

/// The hints of a slice by zone, if they can stay: each endpoint that is ready has one, for a zone that needs it, and no
/// zone gets too many.
fn fitting(
    slice: &EndpointSlice,
    hinted: &BTreeMap<String, usize>,
    allocations: &BTreeMap<String, Allocation>,
) -> Option<BTreeMap<String, usize>> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
        let zones = endpoint.hints.as_ref()?.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
        for zone in zones {
            *found.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let before = hinted.get(zone).copied().unwrap_or_default();
        allocations.get(zone).is_some_and(|allocation| before + count <= allocation.max)
    };
    found.iter().all(fits).then_some(found)
}

/// How many endpoints a zone should give away, and how many another should get.
#[expect(clippy::cast_precision_loss, reason = "counts of endpoints are small")]
fn imbalance(
    allocations: &BTreeMap<String, Allocation>,
    hinted: &BTreeMap<String, usize>,
) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut over, mut under) = (BTreeMap::new(), BTreeMap::new());
    for (zone, allocation) in allocations {
        let difference = hinted.get(zone).copied().unwrap_or_default() as f64 - allocation.desired;
        let side = if difference > 0.0 { &mut over } else { &mut under };
        side.insert(zone.clone(), difference.abs());
    }
    let most = |side: &BTreeMap<String, f64>| {
        let most = side.iter().filter(|(_, count)| **count >= 0.5).max_by(|one, other| one.1.total_cmp(other.1))?;
        Some((most.0.clone(), *most.1))
    };
    let (mut giving, mut receiving): (BTreeMap<String, usize>, BTreeMap<String, usize>) = Default::default();
    while let (Some((from, more)), Some((to, less))) = (most(&over), most(&under)) {
        if more < 1.0 && less < 1.0 {
            break;
        }
        *giving.entry(from.clone()).or_default() += 1;
        *receiving.entry(to.clone()).or_default() += 1;
        over.entry(from).and_modify(|count| *count -= 1.0);
        under.entry(to).and_modify(|count| *count -= 1.0);
    }
    (giving, receiving)
}
