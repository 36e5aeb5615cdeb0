//! Why a pod is on no node, in the words that users know.

use std::collections::BTreeMap;

use crate::plugin::{PluginSet, Reason, Refusal};
use crate::snapshot::Slot;

/// What is said when there are no nodes at all.
pub const NO_NODES: &str = "no nodes available to schedule pods";

/// What every node said about a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// Why each of those that were looked at refuses the pod.
    pub refusals: Vec<(Slot, Refusal)>,
    /// What is said of those that weren't looked at.
    pub others: Vec<Reason>,
    /// Said once, instead of node by node: no node will do.
    pub no_node: Option<Reason>,
    /// Who refused.
    pub plugins: PluginSet,
    /// What was tried then, and came to nothing.
    pub afterwards: Option<String>,
}

impl Diagnosis {
    /// No node will do, for this reason.
    pub fn nowhere(nodes: usize, refusal: Refusal) -> Self {
        let plugins = PluginSet::from_iter([refusal.plugin]);
        let no_node = refusal.reasons.into_iter().next();
        Self { nodes, no_node, plugins, ..Self::default() }
    }

    /// Notes what a node said.
    pub fn refused(&mut self, slot: Slot, refusal: Refusal) {
        self.plugins.insert(refusal.plugin);
        self.refusals.push((slot, refusal));
    }

    /// The message of the event and of the pod's condition.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return NO_NODES.to_owned();
        }
        let mut message = format!("0/{} nodes are available", self.nodes);
        if let Some(reason) = &self.no_node {
            message.push_str(&format!(": {reason}."));
        } else {
            let listed = self.listed();
            if !listed.is_empty() {
                message.push_str(&format!(": {}.", listed.join(", ")));
            }
        }
        if let Some(afterwards) = &self.afterwards {
            message.push_str(&format!(" {afterwards}"));
        }
        message
    }

    /// Each reason with the number of nodes that gave it, sorted as text.
    fn listed(&self) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.refusals.iter().flat_map(|(_, refusal)| &refusal.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        let others = self.nodes.saturating_sub(self.refusals.len());
        for reason in self.others.iter().filter(|_| others > 0) {
            *counts.entry(reason).or_default() += others;
        }
        let mut listed: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        listed.sort_unstable();
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Plugin;

    #[test]
    fn reasons_are_counted_and_sorted_as_text() {
        let mut diagnosis = Diagnosis { nodes: 12, ..Diagnosis::default() };
        for slot in 0..10 {
            diagnosis.refused(slot, Refusal::for_now(Plugin::NodeResourcesFit, "Insufficient cpu"));
        }
        let taint = Refusal::for_good(Plugin::TaintToleration, "node(s) had untolerated taint {k: v}");
        diagnosis.refused(10, taint.clone());
        diagnosis.refused(11, taint);
        diagnosis.afterwards = Some("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
        assert_eq!(
            diagnosis.message(),
            "0/12 nodes are available: 10 Insufficient cpu, 2 node(s) had untolerated taint {k: v}. \
             preemption: not eligible due to preemptionPolicy=Never."
        );
    }

    #[test]
    fn a_refusal_for_all_nodes_is_said_once() {
        let refusal = Refusal::for_good(Plugin::VolumeBinding, "pod has unbound immediate PersistentVolumeClaims");
        let said = Diagnosis::nowhere(3, refusal).message();
        assert_eq!(said, "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
    }

    #[test]
    fn nodes_that_were_not_looked_at_are_counted_too() {
        let mut diagnosis = Diagnosis { nodes: 3, others: vec!["none".into()], ..Diagnosis::default() };
        diagnosis.refused(0, Refusal::for_now(Plugin::NodeResourcesFit, "Too many pods"));
        assert_eq!(diagnosis.message(), "0/3 nodes are available: 1 Too many pods, 2 none.");
        assert_eq!(Diagnosis::default().message(), NO_NODES);
    }
}
