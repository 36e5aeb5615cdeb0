//! Layers become snapshots, so that the first pod doesn't wait for it.

use std::collections::{BTreeMap, HashMap};

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::types;
use k3sd_cri::Code;

use super::engine::{Store, refused};
use super::index::{ConfigBlob, Descriptor, Node, chain_id, parse};
use crate::error::ImportError;

/// Unpacks the layers of one manifest that are not unpacked yet. `nonce` makes the names of half-done snapshots unique.
pub(crate) async fn unpack(store: &Store, snapshotter: &str, node: &Node, nonce: &str) -> Result<(), ImportError> {
    let (Some(config), Some(layers)) = (&node.config, &node.layers) else { return Ok(()) };
    let Some(bytes) = store.document(&config.digest).await? else { return Ok(()) };
    let blob: ConfigBlob = parse("the configuration of an image", &bytes)?;
    if blob.rootfs.diff_ids.len() != layers.len() {
        return Err(ImportError::Content("an image of the archive has not as many layers as it says".to_owned()));
    }
    let mut parent = String::new();
    for (layer, diff_id) in layers.iter().zip(&blob.rootfs.diff_ids) {
        let name = chain_id(&parent, diff_id);
        if !exists(store, snapshotter, &name).await? {
            apply(store, snapshotter, layer, diff_id, &parent, &name, nonce).await?;
        }
        parent = name;
    }
    if parent.is_empty() {
        return Ok(());
    }
    let label = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
    store.label(&config.digest, BTreeMap::from([(label, parent)])).await
}

async fn exists(store: &Store, snapshotter: &str, key: &str) -> Result<bool, ImportError> {
    let message = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
    match store.snapshots().stat(store.request(message)).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(refused("look for a snapshot")(status)),
    }
}

async fn apply(
    store: &Store,
    snapshotter: &str,
    layer: &Descriptor,
    diff_id: &str,
    parent: &str,
    name: &str,
    nonce: &str,
) -> Result<(), ImportError> {
    let key = format!("extract-{nonce} {name}");
    let message = PrepareSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.clone(),
        parent: parent.to_owned(),
        labels: HashMap::from([("containerd.io/snapshot.ref".to_owned(), name.to_owned())]),
    };
    let prepared = match store.snapshots().prepare(store.request(message)).await {
        Ok(prepared) => prepared.into_inner(),
        // Another archive has the same layer, and was quicker.
        Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
        Err(status) => return Err(refused("prepare a snapshot")(status)),
    };
    let outcome = fill(store, snapshotter, layer, diff_id, name, &key, prepared.mounts).await;
    if outcome.is_err() {
        let message = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key };
        store.snapshots().remove(store.request(message)).await.map(drop).ok();
    }
    outcome
}

async fn fill(
    store: &Store,
    snapshotter: &str,
    layer: &Descriptor,
    diff_id: &str,
    name: &str,
    key: &str,
    mounts: Vec<types::Mount>,
) -> Result<(), ImportError> {
    let diff = types::Descriptor {
        media_type: layer.media_type.clone(),
        digest: layer.digest.clone(),
        size: layer.size,
        ..Default::default()
    };
    let message = ApplyRequest { diff: Some(diff), mounts, ..Default::default() };
    let applied = store.diff().apply(store.request(message)).await.map_err(refused("unpack a layer"))?;
    let digest = applied.into_inner().applied.map(|applied| applied.digest).unwrap_or_default();
    if digest != *diff_id {
        return Err(ImportError::Content(format!("a layer is {digest} when unpacked, not {diff_id}")));
    }
    let message = CommitSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        ..Default::default()
    };
    match store.snapshots().commit(store.request(message)).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        Err(status) => Err(refused("keep a snapshot")(status)),
    }
}
