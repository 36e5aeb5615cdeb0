//! Everything that is generic over the kind, compiled here for the kinds that the parts of this process share.
//!
//! Generic code is compiled in the crate that names its types. A dozen crates read pods, none of which depends on another,
//! and each had decoders, informers and verbs of its own for them: a third of the binary. What a crate below them has
//! compiled already is taken from there, as long as all of them are built for size (rustc shares generics then only).

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;

use super::{Kind, Shared};

/// All that a controller may ask of a kind.
fn verbs<K: Kind + Serialize>(api: Api<K>, object: K) -> futures_util::future::BoxFuture<'static, kube::Result<()>> {
    Box::pin(async move {
        let patch = Patch::Merge(serde_json::Value::Null);
        api.get("").await?;
        api.list(&ListParams::default()).await?;
        api.create(&PostParams::default(), &object).await?;
        api.replace("", &PostParams::default(), &object).await?;
        api.replace_status("", &PostParams::default(), &object).await?;
        api.patch("", &PatchParams::default(), &patch).await?;
        api.patch_status("", &PatchParams::default(), &patch).await?;
        api.delete("", &DeleteParams::default()).await?;
        Ok(())
    })
}

macro_rules! compiled {
    ($($kind:ty),+ $(,)?) => {
        /// Where the code of each kind begins. Nobody calls it by these; naming it is what has it compiled.
        pub fn compiled() -> Vec<*const ()> {
            vec![$(Shared::indexed::<$kind> as *const (), verbs::<$kind> as *const ()),+]
        }
    };
}

compiled!(
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    CertificateSigningRequest,
    ConfigMap,
    ControllerRevision,
    CronJob,
    DaemonSet,
    Deployment,
    EndpointSlice,
    Endpoints,
    HorizontalPodAutoscaler,
    Job,
    Lease,
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    ResourceQuota,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
    StorageClass,
    VolumeAttachment,
);
