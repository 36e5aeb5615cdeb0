//! A volume of a storage driver: what is asked of the driver, and what is remembered. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, CSIVolumeSource, PersistentVolume, Pod, SecretReference};
use k8s_openapi::api::storage::v1::CSIDriverSpec;
use serde::{Deserialize, Serialize};

use super::growth::Growth;
use super::messages::{AccessMode, Empty, MountVolume, VolumeCapability};
use crate::error::VolumeError;

/// What is asked of a driver.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CsiVolume {
    pub(crate) driver: String,
    /// The driver's name for it.
    pub(crate) handle: String,
    /// The name under which it lies in the pod's directory.
    pub(crate) place: String,
    pub(crate) attributes: HashMap<String, String>,
    fs_type: String,
    pub(crate) read_only: bool,
    /// Namespaces and names.
    pub(crate) stage_secret: Option<(String, String)>,
    pub(crate) publish_secret: Option<(String, String)>,
    pub(crate) expand_secret: Option<(String, String)>,
    access_modes: Vec<String>,
    mount_options: Vec<String>,
    pub(crate) is_block: bool,
    /// It comes and goes with the pod.
    pub(crate) is_ephemeral: bool,
    /// It is larger than its claim knows.
    pub(crate) growth: Option<Growth>,
}

const READ_WRITE_ONCE: &str = "ReadWriteOnce";

impl CsiVolume {
    /// One that a pod describes itself.
    pub(crate) fn inline(pod: &Pod, name: &str, source: &CSIVolumeSource) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let namespace = text(&pod.metadata.namespace);
        Self {
            driver: source.driver.clone(),
            handle: format!("csi-{}", digest(&[&text(&pod.metadata.uid), name])),
            place: name.to_owned(),
            attributes: source.volume_attributes.clone().unwrap_or_default().into_iter().collect(),
            fs_type: text(&source.fs_type),
            read_only: source.read_only == Some(true),
            stage_secret: None,
            publish_secret: source.node_publish_secret_ref.as_ref().map(|secret| (namespace, secret.name.clone())),
            expand_secret: None,
            access_modes: vec![READ_WRITE_ONCE.to_owned()],
            mount_options: Vec::new(),
            is_block: false,
            is_ephemeral: true,
            growth: None,
        }
    }

    /// A persistent one.
    pub(crate) fn persistent(
        volume: &PersistentVolume,
        source: CSIPersistentVolumeSource,
        read_only: bool,
        is_block: bool,
    ) -> Self {
        let secret =
            |secret: Option<SecretReference>| secret.and_then(|secret| Some((secret.namespace?, secret.name?)));
        let spec = volume.spec.clone().unwrap_or_default();
        Self {
            driver: source.driver,
            handle: source.volume_handle,
            place: volume.metadata.name.clone().unwrap_or_default(),
            attributes: source.volume_attributes.unwrap_or_default().into_iter().collect(),
            fs_type: source.fs_type.unwrap_or_default(),
            read_only: read_only || source.read_only == Some(true),
            stage_secret: secret(source.node_stage_secret_ref),
            publish_secret: secret(source.node_publish_secret_ref),
            expand_secret: secret(source.node_expand_secret_ref),
            access_modes: spec.access_modes.unwrap_or_default(),
            mount_options: spec.mount_options.unwrap_or_default(),
            is_block,
            is_ephemeral: false,
            growth: None,
        }
    }

    /// Whether the driver takes volumes of this kind.
    pub(crate) fn check(&self, driver: &CSIDriverSpec) -> Result<(), VolumeError> {
        let modes = driver.volume_lifecycle_modes.clone().unwrap_or_default();
        let wanted = if self.is_ephemeral { "Ephemeral" } else { "Persistent" };
        // Who says nothing means persistent ones.
        if modes.iter().any(|mode| mode == wanted) || modes.is_empty() && !self.is_ephemeral {
            return Ok(());
        }
        let name = &self.driver;
        Err(VolumeError::Refused(format!(
            "volume mode {wanted:?} not supported by driver {name} (only supports {modes:?})"
        )))
    }

    /// Whether the node gives the files to the pod's group.
    pub(crate) fn may_be_given(&self, driver: &CSIDriverSpec) -> bool {
        match driver.fs_group_policy.as_deref() {
            Some("None") => false,
            Some("File") => true,
            _ => {
                let is_single = |mode: &String| mode == READ_WRITE_ONCE || mode == "ReadWriteOncePod";
                !self.fs_type.is_empty() && !self.access_modes.is_empty() && self.access_modes.iter().all(is_single)
            }
        }
    }

    /// How the pod uses it, in the driver's numbers.
    pub(crate) fn capability(&self, tells_single_apart: bool, group: Option<u32>) -> VolumeCapability {
        let mode = match (self.access_modes.first().map_or(READ_WRITE_ONCE, String::as_str), tells_single_apart) {
            ("ReadOnlyMany", _) => 3,
            ("ReadWriteMany", _) => 5,
            ("ReadWriteOncePod", true) => 6,
            (READ_WRITE_ONCE, true) => 7,
            _ => 1,
        };
        let mount = MountVolume {
            fs_type: self.fs_type.clone(),
            flags: self.mount_options.clone(),
            group: group.map(|group| group.to_string()).unwrap_or_default(),
        };
        let (block, mount) = if self.is_block { (Some(Empty {}), None) } else { (None, Some(mount)) };
        VolumeCapability { block, mount, access: Some(AccessMode { mode }) }
    }

    /// What drivers may want to know about the pod.
    pub(crate) fn pod_info(&self, pod: &Pod) -> Vec<(String, String)> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
        [
            ("pod.name", text(&pod.metadata.name)),
            ("pod.namespace", text(&pod.metadata.namespace)),
            ("pod.uid", text(&pod.metadata.uid)),
            ("serviceAccount.name", account),
            ("ephemeral", self.is_ephemeral.to_string()),
        ]
        .map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value))
        .into()
    }
}

/// What is remembered of a volume, in upstream's words, so that either can take back what the other gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(rename = "driverName")]
    pub(crate) driver: String,
    #[serde(rename = "volumeHandle")]
    pub(crate) handle: String,
    #[serde(rename = "specVolID", default)]
    place: String,
    #[serde(rename = "nodeName", default)]
    node: String,
    #[serde(rename = "attachmentID", default)]
    attachment: String,
    #[serde(rename = "volumeLifecycleMode", default)]
    lifecycle: String,
}

impl Record {
    pub(crate) fn of(volume: &CsiVolume, node: &str) -> Self {
        Self {
            driver: volume.driver.clone(),
            handle: volume.handle.clone(),
            place: volume.place.clone(),
            node: node.to_owned(),
            attachment: attachment(&volume.handle, &volume.driver, node),
            lifecycle: if volume.is_ephemeral { "Ephemeral" } else { "Persistent" }.to_owned(),
        }
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn parse(directory: &Path, text: &str) -> Result<Self, VolumeError> {
        let wrong = |error| VolumeError::Refused(format!("record in {} is unreadable: {error}", directory.display()));
        serde_json::from_str(text).map_err(wrong)
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.lifecycle == "Ephemeral"
    }
}

/// The name of the object that says whether a volume is attached to a node.
pub(crate) fn attachment(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", digest(&[handle, driver, node]))
}

/// SHA-256 of texts one after the other, in hexadecimal.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part.as_bytes()));
    let mut text = String::new();
    for byte in context.finish().as_ref() {
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn persistent(modes: &[&str], fs_type: &str) -> CsiVolume {
        let source = json!({"driver": "d", "volumeHandle": "h", "fsType": fs_type, "readOnly": true,
            "nodeStageSecretRef": {"namespace": "n", "name": "s"}});
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": modes, "mountOptions": ["sync"]}});
        let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
        CsiVolume::persistent(&volume, serde_json::from_value(source).unwrap(), false, false)
    }

    #[test]
    fn access_modes_have_the_drivers_numbers() {
        for (modes, apart, number) in [
            (&["ReadWriteOnce"][..], false, 1),
            (&["ReadWriteOnce"], true, 7),
            (&["ReadWriteOncePod"], false, 1),
            (&["ReadWriteOncePod"], true, 6),
            (&["ReadOnlyMany"], true, 3),
            (&["ReadWriteMany", "ReadWriteOnce"], false, 5),
            (&[], false, 1),
        ] {
            let capability = persistent(modes, "ext4").capability(apart, Some(7));
            assert_eq!(capability.access.unwrap().mode, number, "{modes:?}");
            let mount = capability.mount.unwrap();
            assert_eq!((mount.group.as_str(), &mount.flags[..]), ("7", &["sync".to_owned()][..]));
        }
    }

    #[test]
    fn files_are_given_by_the_drivers_policy() {
        for (policy, modes, fs_type, expected) in [
            (None, &["ReadWriteOnce"][..], "ext4", true),
            (Some("ReadWriteOnceWithFSType"), &["ReadWriteOnce"], "", false),
            (None, &["ReadWriteMany"], "ext4", false),
            (Some("File"), &["ReadWriteMany"], "", true),
            (Some("None"), &["ReadWriteOnce"], "ext4", false),
        ] {
            let driver = CSIDriverSpec { fs_group_policy: policy.map(str::to_owned), ..Default::default() };
            assert_eq!(persistent(modes, fs_type).may_be_given(&driver), expected, "{policy:?} {modes:?} {fs_type:?}");
        }
    }

    #[test]
    fn inline_volumes_need_a_driver_that_says_so() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"uid": "u", "namespace": "n", "name": "p"}})).unwrap();
        let source: CSIVolumeSource = serde_json::from_value(json!({"driver": "d"})).unwrap();
        let inline = CsiVolume::inline(&pod, "v", &source);
        let modes = |modes: &[&str]| CSIDriverSpec {
            volume_lifecycle_modes: Some(modes.iter().map(|mode| (*mode).to_owned()).collect()),
            ..Default::default()
        };
        assert!(inline.check(&CSIDriverSpec::default()).is_err());
        assert!(inline.check(&modes(&["Persistent"])).is_err());
        assert!(inline.check(&modes(&["Persistent", "Ephemeral"])).is_ok());
        assert!(persistent(&[], "").check(&CSIDriverSpec::default()).is_ok());
        assert!(persistent(&[], "").check(&modes(&["Ephemeral"])).is_err());
        assert!(inline.pod_info(&pod).contains(&("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned())));
    }

    #[test]
    fn records_come_back_and_names_are_digests() {
        let record = Record::of(&persistent(&[], ""), "node");
        assert_eq!(Record::parse(Path::new("x"), &record.text()).unwrap(), record);
        assert!(Record::parse(Path::new("x"), "{").is_err());
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(&[]), known);
        assert_eq!(attachment("a", "b", "c"), format!("csi-{}", digest(&["abc"])));
    }
}
