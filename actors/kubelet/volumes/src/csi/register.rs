//! A driver that shows up is asked who it is, and written down for the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::grpc::call;
use super::messages::{Empty, NodeInfo, PluginInfo, RegistrationStatus};
use crate::error::VolumeError;

/// How long a plugin may take to say who it is.
const INFO_LIMIT: Duration = Duration::from_secs(10);
/// What storage drivers call themselves; other kinds of plugins are for others.
const STORAGE: &str = "CSIPlugin";
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";

/// A driver that is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Driver {
    pub(super) name: String,
    pub(super) socket: PathBuf,
}

/// Registers whoever listens at a socket of the registry. `None`: it is no storage driver.
pub(super) async fn register(client: kube::Client, node: &str, socket: &Path) -> Result<Option<Driver>, VolumeError> {
    let plugin: PluginInfo = call(socket, "/pluginregistration.Registration/GetInfo", &Empty {}, INFO_LIMIT).await?;
    if plugin.kind != STORAGE {
        return Ok(None);
    }
    let outcome = accept(client, node, socket, &plugin).await;
    let error = outcome.as_ref().err().map(VolumeError::event).unwrap_or_default();
    let status = RegistrationStatus { registered: outcome.is_ok(), error };
    let told =
        call::<_, Empty>(socket, "/pluginregistration.Registration/NotifyRegistrationStatus", &status, INFO_LIMIT);
    told.await?;
    outcome.map(Some)
}

async fn accept(client: kube::Client, node: &str, socket: &Path, plugin: &PluginInfo) -> Result<Driver, VolumeError> {
    let name = crate::paths::part(&plugin.name)?;
    if !plugin.versions.iter().any(|version| version.trim_start_matches('v').starts_with("1.")) {
        return Err(VolumeError::Refused(format!("driver {name} supports none of CSI 1.x: {:?}", plugin.versions)));
    }
    let endpoint = if plugin.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&plugin.endpoint) };
    let info: NodeInfo = call(&endpoint, "/csi.v1.Node/NodeGetInfo", &Empty {}, INFO_LIMIT).await?;
    write_down(client, node, &driver_entry(name, &info), &info).await?;
    Ok(Driver { name: name.to_owned(), socket: endpoint })
}

fn driver_entry(name: &str, info: &NodeInfo) -> CSINodeDriver {
    let keys: BTreeSet<String> = info.topology.iter().flat_map(|topology| topology.segments.keys().cloned()).collect();
    let count = i32::try_from(info.volumes_max).ok().filter(|count| *count > 0);
    CSINodeDriver {
        name: name.to_owned(),
        node_id: info.node_id.clone(),
        allocatable: count.map(|count| VolumeNodeResources { count: Some(count) }),
        topology_keys: Some(keys.into_iter().collect()),
    }
}

/// The node's labels of topology and its id come first: whoever schedules reads the driver's entry last.
async fn write_down(
    client: kube::Client,
    node: &str,
    entry: &CSINodeDriver,
    info: &NodeInfo,
) -> Result<(), VolumeError> {
    let failed = |what: &'static str| VolumeError::api(what);
    let nodes: Api<Node> = Api::all(client.clone());
    let known = nodes.get(node).await.map_err(failed("failed to get this node"))?;
    let labels: BTreeMap<&String, &String> = info.topology.iter().flat_map(|topology| &topology.segments).collect();
    let ids = node_ids(
        known.metadata.annotations.as_ref().and_then(|all| all.get(NODE_IDS)),
        &entry.name,
        Some(&entry.node_id),
    );
    let patch = json!({"metadata": {"labels": labels, "annotations": {NODE_IDS: ids}}});
    let patched = nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map_err(failed("failed to label this node"))?;
    let api: Api<CSINode> = Api::all(client);
    match api.get_opt(node).await.map_err(failed("failed to get this node's CSINode"))? {
        Some(mut found) => {
            if found.spec.drivers.contains(entry) {
                return Ok(());
            }
            found.spec.drivers.retain(|driver| driver.name != entry.name);
            found.spec.drivers.push(entry.clone());
            let replaced = api.replace(node, &PostParams::default(), &found).await;
            replaced.map(drop).map_err(failed("failed to update this node's CSINode"))
        }
        None => {
            let owner = OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.to_owned(),
                uid: known.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            };
            let metadata = ObjectMeta {
                name: Some(node.to_owned()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            };
            let made = CSINode { metadata, spec: CSINodeSpec { drivers: vec![entry.clone()] } };
            let made = api.create(&PostParams::default(), &made).await;
            made.map(drop).map_err(failed("failed to create this node's CSINode"))
        }
    }
}

/// The node's ids by driver, as JSON in an annotation, with one changed or taken out.
fn node_ids(known: Option<&String>, driver: &str, id: Option<&str>) -> String {
    let mut ids: BTreeMap<String, String> = known.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    match id {
        Some(id) => ids.insert(driver.to_owned(), id.to_owned()),
        None => ids.remove(driver),
    };
    serde_json::to_string(&ids).unwrap_or_default()
}

/// A driver is gone: nothing more is scheduled here for it.
pub(super) async fn forget(client: kube::Client, node: &str, driver: &str) -> Result<(), VolumeError> {
    let failed = |what: &'static str| VolumeError::api(what);
    let api: Api<CSINode> = Api::all(client);
    let Some(mut found) = api.get_opt(node).await.map_err(failed("failed to get this node's CSINode"))? else {
        return Ok(());
    };
    let before = found.spec.drivers.len();
    found.spec.drivers.retain(|known| known.name != driver);
    if found.spec.drivers.len() == before {
        return Ok(());
    }
    let replaced = api.replace(node, &PostParams::default(), &found).await;
    replaced.map(drop).map_err(failed("failed to update this node's CSINode"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_other_drivers_stay() {
        let known = r#"{"a":"1","b":"2"}"#.to_owned();
        assert_eq!(node_ids(Some(&known), "b", Some("3")), r#"{"a":"1","b":"3"}"#);
        assert_eq!(node_ids(Some(&known), "a", None), r#"{"b":"2"}"#);
        assert_eq!(node_ids(Some(&"broken".to_owned()), "c", Some("4")), r#"{"c":"4"}"#);
    }
}
