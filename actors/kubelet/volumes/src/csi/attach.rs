//! Waiting until a volume is attached to this node, which others see to.
//!
//! A node may not watch attachments, but its own Node it may, and that lists what is attached.

use std::collections::HashMap;
use std::time::Duration;

use k3sd_client::informer::{Change, Informer};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;

use super::Csi;
use super::volume::{CsiVolume, attachment};
use crate::error::VolumeError;

/// How long a volume is waited for before its pod is told that it isn't there yet, and tries again.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// Changes of the Node that may wait.
const CHANGES_MAX: usize = 16;

/// What an attachment says.
enum Attached {
    /// With what the driver has to be told.
    Yes(HashMap<String, String>),
    /// Not yet, or not at all for this reason.
    No(Option<String>),
}

/// The name of a driver's volume in a Node.
pub(super) fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

fn lists(node: &Node, unique: &str) -> bool {
    let status = node.status.as_ref();
    status.and_then(|status| status.volumes_attached.as_ref()).into_iter().flatten().any(|one| one.name == unique)
}

impl Csi {
    /// What whoever attached the volume to this node says about it. Waits for a while if it isn't attached and nothing
    /// speaks against it.
    pub(super) async fn attached(&self, volume: &CsiVolume) -> Result<HashMap<String, String>, VolumeError> {
        let mut found = self.attachment(volume).await?;
        let waits = matches!(found, Attached::No(None));
        if let Some(node) = self.own_node.as_ref().filter(|_| waits) {
            let unique = unique_name(&volume.driver, &volume.handle);
            // Whether it came or not, the attachment has the last word.
            tokio::time::timeout(WAIT_LIMIT, listed(node.clone(), &self.node, &unique)).await.ok();
            found = self.attachment(volume).await?;
        }
        match found {
            Attached::Yes(context) => Ok(context),
            Attached::No(Some(problem)) => {
                Err(VolumeError::Refused(format!("volume {} is not attached to this node: {problem}", volume.place)))
            }
            Attached::No(None) => {
                Err(VolumeError::Refused(format!("volume {} is not attached to this node yet", volume.place)))
            }
        }
    }

    async fn attachment(&self, volume: &CsiVolume) -> Result<Attached, VolumeError> {
        let name = attachment(&volume.handle, &volume.driver, &self.node);
        let api: Api<VolumeAttachment> = Api::all(self.connect.client());
        let failed = VolumeError::api(format!("failed to get VolumeAttachment {name}"));
        let status = api.get_opt(&name).await.map_err(failed)?.and_then(|attachment| attachment.status);
        let Some(status) = status else { return Ok(Attached::No(None)) };
        Ok(match status.attached {
            true => Attached::Yes(status.attachment_metadata.unwrap_or_default().into_iter().collect()),
            false => Attached::No(status.attach_error.and_then(|error| error.message)),
        })
    }
}

/// Comes back when the Node lists the volume, or when there is nobody who could tell.
async fn listed(mut node: Informer<Node>, name: &str, unique: &str) {
    let Ok(mut changes) = node.subscribe(CHANGES_MAX).await else { return };
    while let Some(change) = changes.next().await {
        let is_there = match change {
            Change::Applied { new, .. } => lists(&new, unique),
            Change::Replaced(all) => all.get("", name).is_some_and(|node| lists(node, unique)),
            Change::Deleted(_) => false,
        };
        if is_there {
            return;
        }
    }
}
