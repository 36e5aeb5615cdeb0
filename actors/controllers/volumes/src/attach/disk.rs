//! What is attached: a volume as its driver knows it, under the names that other parts of a cluster know it by.

use std::fmt;

use k8s_openapi::api::core::v1::{AttachedVolume, Node, PersistentVolume};
use k8s_openapi::api::storage::v1::CSIDriver;
use ring::digest::{SHA256, digest};

/// What the unique names of volumes of CSI drivers begin with.
const PREFIX: &str = "kubernetes.io/csi/";
/// Stands between driver and handle.
const SEPARATOR: char = '^';

/// See the module's page. Several PersistentVolumes may stand for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Disk {
    pub(super) driver: String,
    pub(super) handle: String,
}

/// The unique name, as nodes list it in their status.
impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}{SEPARATOR}{}", self.driver, self.handle)
    }
}

impl Disk {
    /// What a volume stands for; `None` if no CSI driver has it.
    pub(super) fn of(volume: &PersistentVolume) -> Option<Self> {
        let source = volume.spec.as_ref()?.csi.as_ref()?;
        Some(Self { driver: source.driver.clone(), handle: source.volume_handle.clone() })
    }

    /// Reads a unique name; `None` for volumes of other kinds, which are none of our business.
    pub(super) fn parse(unique: &str) -> Option<Self> {
        let (driver, handle) = unique.strip_prefix(PREFIX)?.split_once(SEPARATOR)?;
        (!handle.contains(SEPARATOR)).then(|| Self { driver: driver.to_owned(), handle: handle.to_owned() })
    }

    /// The name of the VolumeAttachment to a node.
    pub(super) fn attachment(&self, node: &str) -> String {
        let mut name = String::from("csi-");
        let text = format!("{}{}{node}", self.handle, self.driver);
        for byte in digest(&SHA256, text.as_bytes()).as_ref() {
            name += &format!("{byte:02x}");
        }
        name
    }
}

/// The disks that a node says are attached to it.
pub(super) fn listed(node: &Node) -> impl Iterator<Item = Disk> {
    list(node).iter().filter_map(|volume| Disk::parse(&volume.name))
}

/// All that a node says is attached to it.
pub(super) fn list(node: &Node) -> &[AttachedVolume] {
    node.status.as_ref().and_then(|status| status.volumes_attached.as_deref()).unwrap_or_default()
}

/// Whether volumes of a driver have to be attached; those of one that nobody describes have to.
pub(super) fn attaches(driver: Option<&CSIDriver>) -> bool {
    driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
}

/// Whether a volume may be attached to several nodes at once.
pub(super) fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    modes.is_empty() || modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_upstreams() {
        let disk = Disk { driver: "csi.example.com".to_owned(), handle: "vol-1".to_owned() };
        assert_eq!(disk.to_string(), "kubernetes.io/csi/csi.example.com^vol-1");
        assert_eq!(Disk::parse(&disk.to_string()), Some(disk.clone()));
        for strange in ["kubernetes.io/iscsi/a:b:0", "kubernetes.io/csi/x", "kubernetes.io/csi/x^y^z", ""] {
            assert_eq!(Disk::parse(strange), None, "{strange}");
        }
        // printf 'vol-1csi.example.comnode-1' | sha256sum
        let wanted = "csi-b74c7fc125891ffa0d0f2e0d645733e3fae7fba3066e76500a771ea08be9da28";
        assert_eq!(disk.attachment("node-1"), wanted);
    }

    #[test]
    fn modes_say_who_shares() {
        for (modes, wanted) in [
            (json!([]), true),
            (json!(["ReadWriteOnce"]), false),
            (json!(["ReadWriteOncePod"]), false),
            (json!(["ReadWriteMany"]), true),
            (json!(["ReadWriteOnce", "ReadOnlyMany"]), true),
        ] {
            let volume = json!({"metadata": {}, "spec": {"accessModes": modes}});
            assert_eq!(is_shared(&serde_json::from_value(volume).expect("a volume")), wanted, "{modes}");
        }
    }

    #[test]
    fn drivers_say_whether_volumes_are_attached() {
        let driver = |spec| serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a driver");
        assert!(attaches(None));
        assert!(attaches(Some(&driver(json!({})))));
        assert!(attaches(Some(&driver(json!({"attachRequired": true})))));
        assert!(!attaches(Some(&driver(json!({"attachRequired": false})))));
    }
}
