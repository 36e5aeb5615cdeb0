//! What is to be made for a claim, and what is to be removed of a volume. Pure.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use crate::CONFIG;
use crate::config::Config;
use crate::directories::Place;
use crate::pattern::{Names, render};

/// The name of the provisioner.
pub(crate) const PROVISIONER: &str = "rancher.io/local-path";
/// The label by which volumes know their node.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Volumes say by whom they were made.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Volumes say for which node they were made.
const VOLUME_NODE: &str = "local.path.provisioner/selected-node";
/// The scheduler says for which node a volume is to be made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Claims say who is to make a volume for them, under two names.
const WANTED_FROM: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

/// A volume that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct New {
    pub(crate) place: Place,
    pub(crate) volume: Value,
}

/// Where and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here<'a> {
    pub(crate) config: &'a Config,
    /// The name of this node, and the object if it is known.
    pub(crate) node: &'a str,
    pub(crate) object: Option<&'a Node>,
    /// Chooses one of several directories.
    pub(crate) random: u64,
}

/// The value of the label by which volumes know a node, of which the object may not be known.
pub(crate) fn hostname<'a>(node: &'a str, object: Option<&'a Node>) -> &'a str {
    let labels = object.and_then(|node| node.metadata.labels.as_ref());
    labels.and_then(|labels| labels.get(HOSTNAME)).map_or(node, String::as_str)
}

fn claim_annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// Whether a claim waits for a volume from this provisioner; then the name of its class.
pub(crate) fn waits(claim: &PersistentVolumeClaim) -> Option<&str> {
    let spec = claim.spec.as_ref()?;
    let is_bound = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
    let is_ours = WANTED_FROM.iter().any(|name| claim_annotation(claim, name) == Some(PROVISIONER));
    if is_bound || !is_ours || claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    spec.storage_class_name.as_deref()
}

/// The node that the scheduler selected for a claim.
pub(crate) fn selected(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim_annotation(claim, SELECTED_NODE)
}

/// Whether this node is to make a claim's volume. An error says why nobody can.
///
/// # Errors
/// A class that doesn't wait for the scheduler can't have volumes on nodes.
pub(crate) fn is_for(claim: &PersistentVolumeClaim, class: &StorageClass, here: &Here<'_>) -> Result<bool, String> {
    if let Some(node) = selected(claim) {
        return Ok(node == here.node);
    }
    if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") {
        return Ok(false);
    }
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let places = here.config.of_class(name).map_err(|error| error.to_string())?;
    if places.is_shared() { Ok(true) } else { Err("configuration error, no node was specified".to_owned()) }
}

/// The name of a claim's volume.
pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// What is to be made for a claim that is [for this node](is_for). An error is for people.
///
/// # Errors
/// The claim wants something that directories can't be, or there is no place for it.
pub(crate) fn provision(claim: &PersistentVolumeClaim, class: &StorageClass, here: &Here<'_>) -> Result<New, String> {
    let spec = claim.spec.as_ref().ok_or("the claim says nothing")?;
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported".to_owned());
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("{PROVISIONER} does not support block volume provisioning"));
    }
    let class_name = class.metadata.name.as_deref().unwrap_or_default();
    let places = here.config.of_class(class_name).map_err(|error| error.to_string())?;
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if !places.is_shared() && modes.iter().any(|mode| !["ReadWriteOnce", "ReadWriteOncePod"].contains(&mode.as_str())) {
        return Err("NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes".to_owned());
    }
    let parameter =
        |name: &str| class.parameters.as_ref().and_then(|all| all.get(name)).map(String::as_str).unwrap_or_default();
    let root = places.choose(here.node, parameter("nodePath"), here.random).map_err(|error| error.to_string())?;
    let name = volume_name(claim);
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let claim_name = claim.metadata.name.as_deref().unwrap_or_default();
    let below = match parameter("pathPattern") {
        "" => format!("{name}_{namespace}_{claim_name}"),
        pattern => {
            let names = Names {
                volume: &name,
                namespace,
                claim: claim_name,
                uid: claim.metadata.uid.as_deref().unwrap_or_default(),
                labels: claim.metadata.labels.as_ref(),
                annotations: claim.metadata.annotations.as_ref(),
            };
            let below = render(pattern, &names)?;
            let is_unsafe = ["true", "True", "TRUE", "t", "T", "1"].contains(&parameter("allowUnsafePathPattern"));
            if !is_unsafe && !below.starts_with(&format!("{namespace}/{claim_name}/")) {
                return Err(format!("pathPattern: \"{below}\" doesn't start with \"{namespace}/{claim_name}/\""));
            }
            below
        }
    };
    let place = Place::new(root, Path::new(below.trim_start_matches('/')));
    let place = place.ok_or_else(|| format!("pathPattern: \"{below}\" leads out of {}", root.display()))?;
    let path = place.path();
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": name, "annotations": { PROVISIONED_BY: PROVISIONER } },
        "spec": {
            "accessModes": modes,
            "capacity": { "storage": spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage")) },
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim_name,
                "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
            },
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class_name, "volumeMode": "Filesystem",
        },
    });
    if let Some(options) = &class.mount_options {
        volume["spec"]["mountOptions"] = json!(options);
    }
    let (field, source) = source(claim, class, &path)?;
    volume["spec"][field] = source;
    if !places.is_shared() {
        volume["metadata"]["annotations"][VOLUME_NODE] = json!(here.node);
        volume["spec"]["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": [{
            "matchExpressions": [{ "key": HOSTNAME, "operator": "In", "values": [hostname(here.node, here.object)] }],
        }] } });
    }
    Ok(New { place, volume })
}

/// The source of a volume, as the claim or its class wants it.
fn source(claim: &PersistentVolumeClaim, class: &StorageClass, path: &Path) -> Result<(&'static str, Value), String> {
    let of_class = || class.metadata.annotations.as_ref()?.get("defaultVolumeType").map(String::as_str);
    let wanted = claim_annotation(claim, "volumeType").or_else(of_class).unwrap_or("hostPath");
    match wanted.to_lowercase().as_str() {
        "local" => Ok(("local", json!({ "path": path }))),
        "hostpath" => Ok(("hostPath", json!({ "path": path, "type": "DirectoryOrCreate" }))),
        _ => Err(format!("\"{wanted}\" is not a recognised volume type")),
    }
}

/// Whether a volume of ours waits to be removed, wherever it is.
pub(crate) fn is_released(volume: &PersistentVolume) -> bool {
    let Some(spec) = &volume.spec else { return false };
    let is_ours = annotation(volume, PROVISIONED_BY) == Some(PROVISIONER);
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    is_ours && phase == Some("Released") && policy == Some("Delete") && volume.metadata.deletion_timestamp.is_none()
}

fn annotation<'a>(volume: &'a PersistentVolume, name: &str) -> Option<&'a str> {
    volume.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The [`hostname`] of the node that a volume is on; `None` for one in a file system that every node has, and for one
/// whose affinity is none of ours.
fn host_of(volume: &PersistentVolume) -> Option<&str> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    let mut expressions = affinity.required.iter().flat_map(|required| &required.node_selector_terms);
    expressions.find_map(|term| {
        let mut ours =
            term.match_expressions.iter().flatten().filter(|one| one.key == HOSTNAME && one.operator == "In");
        ours.find_map(|expression| match expression.values.as_deref().unwrap_or_default() {
            [only] => Some(only.as_str()),
            _ => None,
        })
    })
}

/// Whether a volume is to be removed on the node of this [`hostname`].
pub(crate) fn is_to_go(volume: &PersistentVolume, hostname: &str) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let is_bound = affinity.is_some_and(|affinity| affinity.required.is_some());
    // One without an affinity is in a file system that every node has.
    is_released(volume) && (!is_bound || host_of(volume) == Some(hostname))
}

/// The name of the node of a volume that waits to be removed there, if no such node is left.
pub(crate) fn homeless<'a, 'n>(
    volume: &'a PersistentVolume,
    mut nodes: impl Iterator<Item = &'n Node>,
) -> Option<&'a str> {
    let host = host_of(volume).filter(|_| is_released(volume))?;
    let name = annotation(volume, VOLUME_NODE).unwrap_or(host);
    let is_there = nodes.any(|node| {
        let own = node.metadata.name.as_deref().unwrap_or_default();
        own == name || own == host || hostname(own, Some(node)) == host
    });
    (!is_there).then_some(name)
}

/// The directory of a volume that [is to go](is_to_go). An error is for people.
///
/// # Errors
/// The volume isn't a directory below one of the configured roots.
pub(crate) fn place_of(volume: &PersistentVolume, config: &Config, node: &str) -> Result<Place, String> {
    let spec = volume.spec.as_ref();
    let host_path = spec.and_then(|spec| spec.host_path.as_ref()).map(|source| &source.path);
    let local = spec.and_then(|spec| spec.local.as_ref()).map(|source| &source.path);
    let path = PathBuf::from(host_path.or(local).ok_or("no path set")?);
    let mut roots = config.roots(node).into_iter().rev();
    let found = roots.find_map(|root| Place::new(root, path.strip_prefix(root).ok()?));
    found.ok_or_else(|| format!("{} is not below a directory that {CONFIG} has for volumes", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::parse(r#"{"nodePathMap":[{"node":"DEFAULT_PATH_FOR_NON_LISTED_NODES","paths":["/opt/s"]}]}"#)
            .expect("one")
    }

    fn shared() -> Config {
        Config::parse(r#"{"sharedFileSystemPath":"/nfs"}"#).expect("one")
    }

    fn class(change: Value) -> StorageClass {
        let mut class = json!({
            "metadata": { "name": "local-path", "annotations": { "defaultVolumeType": "local" } },
            "provisioner": PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
        });
        merge(&mut class, change);
        serde_json::from_value(class).expect("a class")
    }

    fn claim(change: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": {
                "name": "c", "namespace": "n", "uid": "1-2", "resourceVersion": "7",
                "annotations": {
                    "volume.kubernetes.io/storage-provisioner": PROVISIONER, "volume.kubernetes.io/selected-node": "a",
                },
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
                "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        merge(&mut claim, change);
        serde_json::from_value(claim).expect("a claim")
    }

    fn merge(into: &mut Value, change: Value) {
        match (into, change) {
            (Value::Object(into), Value::Object(change)) => {
                for (key, value) in change {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, change) => *into = change,
        }
    }

    fn here<'a>(config: &'a Config, object: Option<&'a Node>) -> Here<'a> {
        Here { config, node: "a", object, random: 0 }
    }

    #[test]
    fn a_claim_gets_a_directory_of_its_node() {
        let config = config();
        let node: Node =
            serde_json::from_value(json!({ "metadata": { "name": "a", "labels": { HOSTNAME: "host-a" } } }))
                .expect("one");
        let made = provision(&claim(json!({})), &class(json!({})), &here(&config, Some(&node))).expect("it fits");
        assert_eq!(made.place.path(), Path::new("/opt/s/pvc-1-2_n_c"));
        assert_eq!(
            made.volume,
            json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {
                    "name": "pvc-1-2",
                    "annotations": {
                        "pv.kubernetes.io/provisioned-by": "rancher.io/local-path",
                        "local.path.provisioner/selected-node": "a",
                    },
                },
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" },
                    "claimRef": {
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "n", "name": "c", "uid": "1-2",
                        "resourceVersion": "7",
                    },
                    "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "local-path",
                    "volumeMode": "Filesystem", "local": { "path": "/opt/s/pvc-1-2_n_c" },
                    "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                        { "key": "kubernetes.io/hostname", "operator": "In", "values": ["host-a"] },
                    ] }] } },
                },
            })
        );
        let typed = |claim_type: Value, class_type: Value| {
            let claim = claim(json!({ "metadata": { "annotations": { "volumeType": claim_type } } }));
            let class = class(json!({ "metadata": { "annotations": { "defaultVolumeType": class_type } } }));
            provision(&claim, &class, &here(&config, None)).map(|made| made.volume["spec"]["hostPath"]["type"].clone())
        };
        assert_eq!(typed(json!("hostPath"), json!("local")), Ok(json!("DirectoryOrCreate")));
        assert_eq!(typed(json!(""), json!("Local")), Ok(Value::Null));
        assert_eq!(typed(json!("disk"), json!("local")), Err("\"disk\" is not a recognised volume type".to_owned()));
    }

    #[test]
    fn what_directories_cannot_be_is_refused() {
        let config = config();
        let told = |change: Value, parameters: Value| {
            let class = class(json!({ "parameters": parameters }));
            provision(&claim(change), &class, &here(&config, None)).map(|made| made.place.path().display().to_string())
        };
        let nothing = || json!({});
        for (change, parameters, wanted) in [
            (json!({ "spec": { "selector": {} } }), nothing(), Err("claim.Spec.Selector is not supported")),
            (
                json!({ "spec": { "volumeMode": "Block" } }),
                nothing(),
                Err("rancher.io/local-path does not support block volume provisioning"),
            ),
            (
                json!({ "spec": { "accessModes": ["ReadWriteMany"] } }),
                nothing(),
                Err("NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes"),
            ),
            (nothing(), json!({ "nodePath": "/mnt" }), Err("config doesn't contain path /mnt on node a")),
            (nothing(), json!({ "nodePath": "/opt/s/" }), Ok("/opt/s/pvc-1-2_n_c")),
            (nothing(), json!({ "pathPattern": "{{ .PVC.Namespace }}/{{ .PVC.Name }}/x" }), Ok("/opt/s/n/c/x")),
            (
                nothing(),
                json!({ "pathPattern": "{{ .PVC.Name }}" }),
                Err("pathPattern: \"c\" doesn't start with \"n/c/\""),
            ),
            (nothing(), json!({ "pathPattern": "{{ .PVC.Name }}", "allowUnsafePathPattern": "true" }), Ok("/opt/s/c")),
            (
                nothing(),
                json!({ "pathPattern": "n/c/../../../etc" }),
                Err("pathPattern: \"n/c/../../../etc\" leads out of /opt/s"),
            ),
            (
                nothing(),
                json!({ "pathPattern": "../etc", "allowUnsafePathPattern": "true" }),
                Err("pathPattern: \"../etc\" leads out of /opt/s"),
            ),
        ] {
            let wanted = wanted.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(told(change.clone(), parameters.clone()), wanted, "{change} {parameters}");
        }
    }

    #[test]
    fn a_claim_is_for_the_node_that_was_selected() {
        let (config, shared) = (config(), shared());
        let none = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "" } } });
        let other = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "b" } } });
        let at_once = || class(json!({ "volumeBindingMode": "Immediate" }));
        assert_eq!(is_for(&claim(json!({})), &class(json!({})), &here(&config, None)), Ok(true));
        assert_eq!(is_for(&claim(other), &class(json!({})), &here(&config, None)), Ok(false));
        assert_eq!(is_for(&claim(none.clone()), &class(json!({})), &here(&config, None)), Ok(false));
        assert_eq!(is_for(&claim(none.clone()), &at_once(), &here(&shared, None)), Ok(true));
        let why = is_for(&claim(none), &at_once(), &here(&config, None)).expect_err("nobody can");
        assert_eq!(why, "configuration error, no node was specified");
        let made = provision(
            &claim(json!({ "spec": { "accessModes": ["ReadWriteMany"] } })),
            &at_once(),
            &here(&shared, None),
        );
        assert_eq!(made.expect("it fits").volume["spec"].get("nodeAffinity"), None);

        assert_eq!(waits(&claim(json!({}))), Some("local-path"));
        assert_eq!(waits(&claim(json!({ "spec": { "volumeName": "v" } }))), None);
        let foreign = json!({ "metadata": { "annotations": { "volume.kubernetes.io/storage-provisioner": "x" } } });
        assert_eq!(waits(&claim(foreign)), None);
    }

    fn volume(path: &str, change: Value) -> PersistentVolume {
        let mut volume = json!({
            "metadata": { "name": "v", "annotations": { PROVISIONED_BY: PROVISIONER } },
            "spec": {
                "persistentVolumeReclaimPolicy": "Delete", "local": { "path": path },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                    { "key": HOSTNAME, "operator": "In", "values": ["a"] },
                ] }] } },
            },
            "status": { "phase": "Released" },
        });
        merge(&mut volume, change);
        serde_json::from_value(volume).expect("a volume")
    }

    #[test]
    fn a_released_volume_goes_where_it_was() {
        let config = config();
        assert!(is_to_go(&volume("/opt/s/x", json!({})), "a"));
        assert!(is_to_go(&volume("/opt/s/x", json!({ "spec": { "nodeAffinity": null } })), "a"));
        for change in [
            json!({ "status": { "phase": "Bound" } }),
            json!({ "spec": { "persistentVolumeReclaimPolicy": "Retain" } }),
            json!({ "metadata": { "annotations": { PROVISIONED_BY: "x" } } }),
            json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
            json!({ "spec": { "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": HOSTNAME, "operator": "In", "values": ["b"] },
            ] }] } } } }),
        ] {
            assert!(!is_to_go(&volume("/opt/s/x", change.clone()), "a"), "{change}");
        }
        let node = |name: &str, host: &str| -> Node {
            let node = json!({ "metadata": { "name": name, "labels": { HOSTNAME: host } } });
            serde_json::from_value(node).expect("a node")
        };
        let others = [node("b", "b"), node("c", "host-c")];
        let lost =
            |change: Value, nodes: &[Node]| homeless(&volume("/opt/s/x", change), nodes.iter()).map(str::to_owned);
        assert_eq!(lost(json!({}), &others), Some("a".to_owned()));
        let named = json!({ "metadata": { "annotations": { VOLUME_NODE: "n" } } });
        assert_eq!(lost(named.clone(), &others), Some("n".to_owned()));
        for present in [node("a", "x"), node("x", "a"), node("n", "x")] {
            assert_eq!(lost(named.clone(), std::slice::from_ref(&present)), None, "{present:?}");
        }
        for change in [json!({ "status": { "phase": "Bound" } }), json!({ "spec": { "nodeAffinity": null } })] {
            assert_eq!(lost(change, &others), None);
        }
        let place = |path: &str| place_of(&volume(path, json!({})), &config, "a").map(|place| place.path()).ok();
        assert_eq!(place("/opt/s/n/c"), Some(PathBuf::from("/opt/s/n/c")));
        for outside in ["/opt/s", "/opt/s/", "/opt", "/etc/passwd", "/opt/s/../x", "/opt/storage", ""] {
            assert_eq!(place(outside), None, "{outside}");
        }
    }
}
