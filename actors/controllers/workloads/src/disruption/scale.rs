//! How many pods somebody wants to have.

use k3sd_client::controller::Failure;
use k3sd_client::controller::indexes::{by_controller, orphans};
use k3sd_client::controller::owners::controller_of;
use k3sd_client::controller::setup::Setup;
use k3sd_client::informer::Informer;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::scaling;
use crate::support::{Access, uid};

/// `uid` of who wants them, and how many.
type Wanted = Option<(String, i32)>;

/// Copies of those who usually make pods; others are asked through their scale.
pub(super) struct Scales {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    stateful: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

impl Scales {
    pub(super) fn new(setup: &mut Setup<'_>) -> Self {
        Self {
            deployments: setup.informers.informer(),
            sets: setup.informers.indexed(vec![by_controller(), orphans()]),
            stateful: setup.informers.informer(),
            controllers: setup.informers.informer(),
        }
    }

    /// How many pods the controller of a pod wants, or the controller of that.
    pub(super) async fn wanted(
        &self,
        access: &Access,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Wanted, Failure> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => Ok(self.of_set(namespace, owner)),
            ("apps", "StatefulSet") => {
                let shown = self.stateful.snapshot();
                let found = shown.as_ref().and_then(|shown| shown.get(namespace, &owner.name));
                let found = found.filter(|found| uid(&***found) == owner.uid);
                Ok(found.map(|found| (owner.uid.clone(), replicas(found.spec.as_ref().map(|spec| spec.replicas)))))
            }
            ("", "ReplicationController") => {
                let shown = self.controllers.snapshot();
                let found = shown.as_ref().and_then(|shown| shown.get(namespace, &owner.name));
                let found = found.filter(|found| uid(&***found) == owner.uid);
                Ok(found.map(|found| (owner.uid.clone(), replicas(found.spec.as_ref().map(|spec| spec.replicas)))))
            }
            _ => others(access, namespace, owner).await,
        }
    }

    fn of_set(&self, namespace: &str, owner: &OwnerReference) -> Wanted {
        let shown = self.sets.snapshot()?;
        let set = shown.get(namespace, &owner.name).filter(|set| uid(&***set) == owner.uid)?;
        let deployment = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
        let Some(deployment) = deployment else {
            return Some((owner.uid.clone(), replicas(set.spec.as_ref().map(|spec| spec.replicas))));
        };
        let shown = self.deployments.snapshot()?;
        let found = shown.get(namespace, &deployment.name).filter(|found| uid(&***found) == deployment.uid)?;
        Some((deployment.uid.clone(), replicas(found.spec.as_ref().map(|spec| spec.replicas))))
    }
}

/// One, unless something is said.
fn replicas(said: Option<Option<i32>>) -> i32 {
    said.flatten().unwrap_or(1)
}

/// Asks the API how many pods something else wants.
async fn others(access: &Access, namespace: &str, owner: &OwnerReference) -> Result<Wanted, Failure> {
    let target = scaling::Target { api_version: &owner.api_version, kind: &owner.kind, name: &owner.name };
    let found = scaling::find(&access.client(), namespace, &target).await?;
    let Some((_, scale)) = found.filter(|(_, scale)| scale.metadata.uid.as_deref() == Some(&*owner.uid)) else {
        let what = format!("{}/{}", owner.api_version, owner.kind);
        return Err(Failure::other(format!("{what} does not implement the scale subresource")));
    };
    let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    Ok(Some((owner.uid.clone(), replicas)))
}
