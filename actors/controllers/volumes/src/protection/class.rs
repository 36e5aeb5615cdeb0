//! Classes of attributes stay as long as a volume or a claim names them.

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Index, Informer};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::{Api, Client};

use super::{Duty, duty, write};

const FINALIZER: &str = "kubernetes.io/vac-protection";
/// Finds volumes and claims by the classes that they name.
const BY_CLASS: &str = "attributes";

struct Classes {
    client: Client,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

fn named<'a>(names: impl IntoIterator<Item = Option<&'a String>>) -> Vec<String> {
    names.into_iter().flatten().filter(|name| !name.is_empty()).cloned().collect()
}

/// The classes that a claim wants, has, and is about to have.
fn of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    let target = status.and_then(|status| status.modify_volume_status.as_ref());
    named([
        claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_ref()),
        target.and_then(|target| target.target_volume_attributes_class_name.as_ref()),
    ])
}

fn of_volume(volume: &PersistentVolume) -> Vec<String> {
    named([volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref())])
}

/// The classes that somebody has let go of.
fn let_go<T>(old: Option<&T>, new: Option<&T>, of: impl Fn(&T) -> Vec<String>) -> Vec<String> {
    let kept = new.map(&of).unwrap_or_default();
    old.map(&of).unwrap_or_default().into_iter().filter(|name| !kept.contains(name)).collect()
}

/// The loop; its keys are names of classes.
pub(crate) fn classes(setup: &mut Setup<'_>) -> ChildSpec {
    let classes = setup.informers.informer::<VolumeAttributesClass>();
    let claims = setup.informers.indexed(vec![Index { name: BY_CLASS, texts: of_claim }]);
    let volumes = setup.informers.indexed(vec![Index { name: BY_CLASS, texts: of_volume }]);
    let client = setup.connect("volumeattributesclass-protection-controller").client();
    let controller = Classes { client, classes: classes.clone(), claims: claims.clone(), volumes: volumes.clone() };
    Loop::new(controller, setup.leading.clone())
        .watch(&classes, |_, new, keys| keys.extend(new.and_then(|new| new.metadata.name.clone())))
        .watch(&claims, |old, new, keys| keys.extend(let_go(old, new, of_claim)))
        .watch(&volumes, |old, new, keys| keys.extend(let_go(old, new, of_volume)))
        .child("volumeattributesclass-protection")
}

impl Controller for Classes {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let shown = (self.classes.snapshot(), self.claims.snapshot(), self.volumes.snapshot());
        let (Some(classes), Some(claims), Some(volumes)) = shown else { return Ok(()) };
        let Some(class) = classes.get("", key) else { return Ok(()) };
        let is_used = || claims.by(BY_CLASS, key).next().is_some() || volumes.by(BY_CLASS, key).next().is_some();
        let keep = match duty(&class.metadata, FINALIZER) {
            Duty::Nothing => return Ok(()),
            // Whoever lets go of it is told of.
            Duty::Release if is_used() => return Ok(()),
            Duty::Release => false,
            Duty::Add => true,
        };
        let api: Api<VolumeAttributesClass> = Api::all(self.client.clone());
        if let Some(written) = write(&api, class.as_ref(), FINALIZER, keep).await? {
            turn.wrote(&self.classes, &written);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_name_what_they_want_have_and_will_have() {
        let claim = |spec: &str, current: Option<&str>, target: Option<&str>| -> PersistentVolumeClaim {
            let modify = target.map(|name| json!({"targetVolumeAttributesClassName": name, "status": "Pending"}));
            let status = json!({"currentVolumeAttributesClassName": current, "modifyVolumeStatus": modify});
            let spec = json!({ "volumeAttributesClassName": spec });
            serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).expect("a claim")
        };
        let before = claim("a", Some("b"), Some("c"));
        assert_eq!(of_claim(&before), ["a", "b", "c"]);
        let after = claim("c", Some("a"), None);
        assert_eq!(let_go(Some(&before), Some(&after), of_claim), ["b"]);
        assert_eq!(let_go(Some(&before), None, of_claim), ["a", "b", "c"]);
        assert_eq!(let_go(None, Some(&after), of_claim), Vec::<String>::new());
        assert_eq!(of_claim(&claim("", None, None)), Vec::<String>::new());
    }
}
