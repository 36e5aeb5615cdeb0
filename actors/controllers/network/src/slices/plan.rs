//! What is to be written so that a Service's slices are as they should be: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};

use super::desired::{PortsKey, Wanted, endpoint, families, is_owned, ports, ports_key, slice};
use super::hints::{self, DISABLED_TEXT, Draft, Said, is_auto};
use super::pack::pack;
use super::spread::{self, near};
use crate::members::{Trigger, belongs, protocol};

/// What is to be written, and said about the Service.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
    pub(super) events: Vec<Said>,
}

/// What there is.
pub(super) struct Observed<'a, N> {
    pub(super) service: &'a Service,
    /// The pods that it selects.
    pub(super) pods: Vec<&'a Pod>,
    /// Finds a node by its name.
    pub(super) node: N,
    /// The share of processors that each zone has, where that is asked for and known.
    pub(super) shares: Option<BTreeMap<String, f64>>,
    /// Its slices, without those that are being deleted.
    pub(super) slices: Vec<Arc<EndpointSlice>>,
}

impl<'a, N: Fn(&str) -> Option<&'a Node>> Observed<'a, N> {
    /// Decides.
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        let families = families(self.service);
        let is_new = !self.slices.iter().any(|slice| is_owned(slice, self.service));
        let had_hints = self.slices.iter().any(|slice| slice.endpoints.iter().any(|endpoint| endpoint.hints.is_some()));
        for family in &families {
            self.plan_family(family, is_new, had_hints, &mut plan);
        }
        let stray = self.slices.iter().filter(|slice| families.iter().all(|family| *family != slice.address_type));
        plan.delete.extend(stray.cloned());
        if self.service.metadata.deletion_timestamp.is_some() {
            // The garbage collector takes the slices; new ones would only keep it busy.
            plan.create.clear();
        }
        plan
    }

    fn plan_family(&self, family: &str, is_new: bool, had_hints: bool, plan: &mut Plan) {
        let of_family = self.slices.iter().filter(|slice| slice.address_type == family).cloned();
        let (owned, foreign): (Vec<_>, Vec<_>) = of_family.partition(|slice| is_owned(slice, self.service));
        let mut existing: BTreeMap<PortsKey, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in owned.iter().cloned() {
            existing.entry(ports_key(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
        }
        let (mut draft, mut delete, mut trigger) = (Draft::default(), foreign, Trigger::default());
        for (key, (ports, wanted)) in self.wanted(family) {
            let existing = existing.remove(&key).unwrap_or_default();
            let packed = pack(&existing, wanted, &slice(self.service, family, &ports));
            draft.create.extend(packed.create);
            draft.update.extend(packed.update);
            delete.extend(packed.delete);
            trigger.merge(packed.trigger);
        }
        delete.extend(existing.into_values().flatten());
        let gone = |slice: &Arc<EndpointSlice>| delete.iter().any(|gone| gone.metadata.name == slice.metadata.name);
        if draft.create.is_empty() && owned.iter().all(gone) {
            let blank = slice(self.service, family, &[]);
            match &delete[..] {
                [last] if is_blank(last, &blank) => delete.clear(),
                _ => draft.create.push(blank),
            }
        }
        let is_same = |slice: &&Arc<EndpointSlice>| {
            let changes = |other: &EndpointSlice| other.metadata.name == slice.metadata.name;
            !draft.update.iter().any(changes) && !delete.iter().any(|gone| changes(gone))
        };
        draft.same = owned.iter().filter(is_same).cloned().collect();
        plan.events.extend(self.hint(&mut draft, family, had_hints));
        recycle(&mut draft, &mut delete, self.service);
        if is_new {
            trigger = Trigger::created(self.service);
        }
        draft.changing().for_each(|slice| trigger.note(&mut slice.metadata.annotations));
        plan.create.extend(draft.create);
        plan.update.extend(draft.update);
        plan.delete.extend(delete);
    }

    /// The endpoints that should be, by the ports at which they are reached.
    fn wanted(&self, family: &str) -> BTreeMap<PortsKey, (Vec<EndpointPort>, Vec<Wanted>)> {
        let mut wanted: BTreeMap<PortsKey, (Vec<EndpointPort>, Vec<Wanted>)> = BTreeMap::new();
        // Numbered ports are the same at each pod: most Services need no look at any of them.
        let mut numbered = None;
        let is_numbered = has_numbered_ports(self.service);
        let always = self.service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
        for pod in self.pods.iter().filter(|pod| belongs(pod, true)) {
            let (key, ports) = match &numbered {
                Some(known) if is_numbered => known,
                _ => {
                    let mut ports = ports(self.service, pod);
                    ports.sort_by(|one, other| (&one.name, &one.protocol).cmp(&(&other.name, &other.protocol)));
                    &*numbered.insert((ports_key(&ports), ports))
                }
            };
            if !wanted.contains_key(key) {
                wanted.insert(key.clone(), (ports.clone(), Vec::new()));
            }
            let Some((_, group)) = wanted.get_mut(key) else { continue };
            let node = (self.node)(k3sd_client::controller::pods::node(pod));
            if node.is_some() || always {
                group.extend(endpoint(self.service, pod, node, family));
            }
        }
        wanted
    }

    fn hint(&self, draft: &mut Draft, family: &str, had_hints: bool) -> Option<Said> {
        if is_auto(self.service) {
            return hints::hint(draft, self.shares.as_ref(), family, had_hints);
        }
        if let Some(near) = near(self.service) {
            spread::hint(draft, near);
            return None;
        }
        draft.clear();
        had_hints.then(|| Said::disabled(DISABLED_TEXT, family))
    }
}

fn has_numbered_ports(service: &Service) -> bool {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.all(|port| !matches!(port.target_port, Some(IntOrString::String(_))))
}

/// Whether the slice is the empty one that a Service without endpoints has.
fn is_blank(slice: &EndpointSlice, blank: &EndpointSlice) -> bool {
    let ports = |slice: &EndpointSlice| -> Vec<_> {
        let ports = slice.ports.iter().flatten();
        ports.map(|port| (port.name.clone(), port.port, protocol(&port.protocol).to_owned())).collect()
    };
    slice.endpoints.is_empty()
        && slice.metadata.labels == blank.metadata.labels
        && slice.metadata.owner_references == blank.metadata.owner_references
        && ports(slice) == ports(blank)
}

/// Makes new slices of those that would be deleted: one write instead of two.
fn recycle(draft: &mut Draft, delete: &mut Vec<Arc<EndpointSlice>>, service: &Service) {
    let mut kept = Vec::new();
    for old in std::mem::take(delete) {
        let slice = if is_owned(&old, service) { draft.create.pop() } else { None };
        match slice {
            Some(mut slice) => {
                slice.metadata.name.clone_from(&old.metadata.name);
                slice.metadata.uid.clone_from(&old.metadata.uid);
                slice.metadata.resource_version.clone_from(&old.metadata.resource_version);
                draft.update.push(slice);
            }
            None => kept.push(old),
        }
    }
    *delete = kept;
}
