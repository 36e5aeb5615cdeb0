//! Volumes that have become larger while nobody told the node: what is to be done, and what the claim is told. Pure.

use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
};
use serde_json::{Value, json};

/// The resource that grows.
const STORAGE: &str = "storage";
/// Whoever makes volumes larger has to decide again before the node tries once more.
const INFEASIBLE: &str = "NodeResizeInfeasible";
/// Conditions of a claim that end with the growth.
const ENDING: [&str; 4] = ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];

/// A volume that is larger than its claim says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Growth {
    /// The claim.
    pub(crate) namespace: String,
    pub(crate) claim: String,
    uid: Option<String>,
    /// How large the volume is, as written in it, and in bytes.
    size: String,
    pub(crate) bytes: i64,
    version: Option<String>,
    conditions: Vec<PersistentVolumeClaimCondition>,
    /// What else the claim says about resources that change.
    others: Vec<(String, String)>,
    is_told: bool,
}

/// What there is to do for a volume and its claim.
pub(crate) fn growth(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Growth> {
    let bytes = |text: &str| text.parse::<Quantity>().ok().map(|size| size.value());
    let size = volume.spec.as_ref()?.capacity.as_ref()?.get(STORAGE)?.0.clone();
    let status = claim.status.clone().unwrap_or_default();
    let known = status.capacity.as_ref().and_then(|capacity| bytes(&capacity.get(STORAGE)?.0))?;
    let wanted = bytes(&size)?;
    let told = status.allocated_resource_statuses.unwrap_or_default();
    if wanted <= known || told.get(STORAGE).is_some_and(|state| state == INFEASIBLE) {
        return None;
    }
    Some(Growth {
        namespace: claim.metadata.namespace.clone().unwrap_or_default(),
        claim: claim.metadata.name.clone().unwrap_or_default(),
        uid: claim.metadata.uid.clone(),
        size,
        bytes: wanted,
        version: claim.metadata.resource_version.clone(),
        conditions: status.conditions.unwrap_or_default(),
        is_told: told.contains_key(STORAGE),
        others: told.into_iter().filter(|(resource, _)| resource != STORAGE).collect(),
    })
}

impl Growth {
    /// The claim, for events.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.claim.clone()),
            uid: self.uid.clone(),
            ..ObjectReference::default()
        }
    }

    /// What a claim's status becomes when the volume has grown, as a merge patch that only fits the claim that was read.
    pub(crate) fn done(&self) -> Value {
        let left: Vec<_> = self.conditions.iter().filter(|one| !ENDING.contains(&one.type_.as_str())).collect();
        let conditions = if left.is_empty() { Value::Null } else { json!(left) };
        let mut status = json!({"capacity": {STORAGE: self.size}, "conditions": conditions});
        if self.is_told {
            status["allocatedResourceStatuses"] =
                if self.others.is_empty() { Value::Null } else { json!({STORAGE: Value::Null}) };
        }
        json!({"metadata": {"resourceVersion": self.version}, "status": status})
    }

    /// What it becomes when the driver says that the volume can't grow here; nothing where nobody reads that.
    pub(crate) fn infeasible(&self) -> Option<Value> {
        let status = json!({"allocatedResourceStatuses": {STORAGE: INFEASIBLE}});
        self.is_told.then(|| json!({"metadata": {"resourceVersion": self.version}, "status": status}))
    }
}

/// Whether trying again with the same size is of no use.
pub(crate) fn is_infeasible(code: &str) -> bool {
    matches!(code, "InvalidArgument" | "OutOfRange" | "NotFound" | "Unimplemented")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(capacity: &str, status: Value) -> Option<Growth> {
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": capacity}}});
        let metadata = json!({"name": "c", "namespace": "n", "resourceVersion": "7"});
        let claim = json!({"metadata": metadata, "status": status});
        growth(&serde_json::from_value(volume).unwrap(), &serde_json::from_value(claim).unwrap())
    }

    #[test]
    fn only_a_volume_larger_than_its_claim_knows_grows() {
        for (capacity, known, expected) in [
            ("2Gi", "1Gi", true),
            ("2Gi", "2Gi", false),
            ("2048Mi", "2Gi", false),
            ("1Gi", "2Gi", false),
            ("x", "1Gi", false),
        ] {
            let found = of(capacity, json!({"capacity": {"storage": known}}));
            assert_eq!(found.is_some(), expected, "{capacity} {known}");
        }
        assert_eq!(of("2Gi", json!({})), None, "what the claim doesn't know can't be compared");
        let refused = json!({"capacity": {"storage": "1Gi"}, "allocatedResourceStatuses": {"storage": INFEASIBLE}});
        assert_eq!(of("2Gi", refused), None);
    }

    #[test]
    fn the_claim_is_told_and_what_was_pending_is_over() {
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        let status = json!({"capacity": {"storage": "1Gi"}, "allocatedResourceStatuses": {"storage": "NodeResizePending"},
            "conditions": [condition("FileSystemResizePending"), condition("Other")]});
        let grown = of("2Gi", status).unwrap();
        assert_eq!(
            grown.done(),
            json!({"metadata": {"resourceVersion": "7"}, "status": {"capacity": {"storage": "2Gi"},
                "conditions": [condition("Other")], "allocatedResourceStatuses": null}})
        );
        let told = grown.infeasible().unwrap();
        assert_eq!(told["status"]["allocatedResourceStatuses"]["storage"], INFEASIBLE);
        let plain = of("2Gi", json!({"capacity": {"storage": "1Gi"}})).unwrap();
        assert_eq!(plain.done()["status"], json!({"capacity": {"storage": "2Gi"}, "conditions": null}));
        assert_eq!(plain.infeasible(), None);
    }
}
