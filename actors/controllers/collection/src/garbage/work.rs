//! One look at an object: reads it and its owners from the API, judges, and acts.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k3sd_client::controller::Failure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::json;

use super::graph::{Look, Place, Uid};
use super::judge::{Act, FOREGROUND, ORPHAN, Tie, judge, tie};
use crate::resources::{Resource, Resources};

/// Dependents that are let go side by side.
const ORPHANS_AT_ONCE: usize = 10;

/// What was found out beside.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// Objects that aren't there, and where they would be.
    pub(super) absent: Vec<(Uid, Place)>,
}

/// What a worker works with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) client: kube::Client,
    pub(super) resources: Arc<Resources>,
}

impl Tools {
    fn resource(&self, place: &Place) -> Result<&Arc<Resource>, Failure> {
        self.resources.of_kind(&place.api_version, &place.kind).ok_or_else(|| {
            Failure::other(format!("no kind {:?} is served in version {:?}", &*place.kind, &*place.api_version))
        })
    }

    fn at(&self, place: &Place) -> Result<Api<DynamicObject>, Failure> {
        Ok(self.resource(place)?.at(&self.client, &place.namespace))
    }

    async fn live(&self, place: &Place) -> Result<Option<ObjectMeta>, Failure> {
        // Without its namespace an object would be a list.
        if self.resource(place)?.namespaced && place.namespace.is_empty() {
            return Ok(None);
        }
        let found = self.at(place)?.get_metadata_opt(&place.name).await?;
        Ok(found.map(|found| found.metadata))
    }

    /// Looks at an object. `absent` are owners of which it is known that they aren't there.
    pub(super) async fn object(
        &self,
        look: Look,
        absent: HashSet<(Uid, Place)>,
        learnt: &mut Learnt,
    ) -> Result<(), Failure> {
        if look.deleting && !look.foreground {
            return Ok(());
        }
        let found = self.live(&look.place).await?;
        let Some(live) = found.filter(|live| live.uid.as_deref() == Some(&*look.uid)) else {
            learnt.absent.push((look.uid, look.place));
            return Ok(());
        };
        if !look.seen {
            // The watch will show it.
            return Ok(());
        }
        let api = self.at(&look.place)?;
        if look.foreground {
            return if look.is_blocked { Ok(()) } else { drop_finalizer(&api, &look, live, FOREGROUND).await };
        }
        let mut ties = Vec::new();
        for owner in live.owner_references.iter().flatten() {
            match self.tie(owner, &look.place, &absent, learnt).await? {
                Some(tie) => ties.push(tie),
                // An object of the cluster whose owner would be in a namespace: that can't be, and is left alone.
                None => return Ok(()),
            }
        }
        let name = &look.place.name;
        match judge(&live, &ties, look.has_dependents, look.is_in_circle) {
            Act::Keep => Ok(()),
            Act::Cut(kept) => set_owners(&api, name, &live, &kept).await.map(drop),
            Act::Delete { policy, unblock: false } => delete(&api, name, live, policy).await,
            Act::Delete { policy, unblock: true } => {
                let free =
                    |owner: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() };
                let owners: Vec<OwnerReference> = live.owner_references.iter().flatten().map(free).collect();
                let live = set_owners(&api, name, &live, &owners).await?;
                delete(&api, name, live, policy).await
            }
        }
    }

    async fn tie(
        &self,
        owner: &OwnerReference,
        dependent: &Place,
        absent: &HashSet<(Uid, Place)>,
        learnt: &mut Learnt,
    ) -> Result<Option<Tie>, Failure> {
        let mut place = Place {
            api_version: owner.api_version.as_str().into(),
            kind: owner.kind.as_str().into(),
            namespace: dependent.namespace.clone(),
            name: owner.name.as_str().into(),
        };
        let resource = self.resource(&place)?;
        if resource.namespaced && place.namespace.is_empty() {
            return Ok(None);
        }
        if !resource.namespaced {
            place.namespace = "".into();
        }
        let key = (Uid::from(owner.uid.as_str()), place);
        if absent.contains(&key) {
            return Ok(Some(Tie::Dangling));
        }
        let tie = tie(self.live(&key.1).await?.as_ref(), &owner.uid);
        if tie == Tie::Dangling {
            learnt.absent.push(key);
        }
        Ok(Some(tie))
    }

    /// Lets the dependents of an object go, and then the object.
    pub(super) async fn orphan(&self, look: Look, dependents: Vec<(Uid, Place)>) -> Result<(), Failure> {
        let let_go = dependents.into_iter().map(|(uid, place)| self.let_go(uid, place, &look.uid));
        futures_util::stream::iter(let_go).buffer_unordered(ORPHANS_AT_ONCE).try_collect::<Vec<()>>().await?;
        match self.live(&look.place).await? {
            Some(live) => drop_finalizer(&self.at(&look.place)?, &look, live, ORPHAN).await,
            None => Ok(()),
        }
    }

    async fn let_go(&self, uid: Uid, place: Place, owner: &Uid) -> Result<(), Failure> {
        let Some(live) = self.live(&place).await?.filter(|live| live.uid.as_deref() == Some(&*uid)) else {
            return Ok(());
        };
        let references = live.owner_references.as_deref().unwrap_or_default();
        let kept: Vec<OwnerReference> = references.iter().filter(|kept| kept.uid != **owner).cloned().collect();
        if kept.len() == references.len() {
            return Ok(());
        }
        match set_owners(&self.at(&place)?, &place.name, &live, &kept).await {
            Err(failure) if failure.code() != Some(404) => Err(failure),
            _ => Ok(()),
        }
    }
}

/// Writes the owners of an object that hasn't changed since it was read; what it is then.
async fn set_owners(
    api: &Api<DynamicObject>,
    name: &str,
    live: &ObjectMeta,
    owners: &[OwnerReference],
) -> Result<ObjectMeta, Failure> {
    let owners = if owners.is_empty() { None } else { Some(owners) };
    let meta = json!({"uid": live.uid, "resourceVersion": live.resource_version, "ownerReferences": owners});
    patch(api, name, &meta).await
}

async fn drop_finalizer(
    api: &Api<DynamicObject>,
    look: &Look,
    live: ObjectMeta,
    finalizer: &str,
) -> Result<(), Failure> {
    let set = live.finalizers.as_deref().unwrap_or_default();
    let kept: Vec<&String> = set.iter().filter(|set| *set != finalizer).collect();
    if live.uid.as_deref() != Some(&*look.uid) || kept.len() == set.len() {
        return Ok(());
    }
    let kept = if kept.is_empty() { None } else { Some(kept) };
    let meta = json!({"uid": live.uid, "resourceVersion": live.resource_version, "finalizers": kept});
    match patch(api, &look.place.name, &meta).await {
        Err(failure) if failure.code() != Some(404) => Err(failure),
        _ => Ok(()),
    }
}

async fn patch(api: &Api<DynamicObject>, name: &str, meta: &serde_json::Value) -> Result<ObjectMeta, Failure> {
    let patch = Patch::Merge(json!({"metadata": meta}));
    Ok(api.patch_metadata(name, &PatchParams::default(), &patch).await?.metadata)
}

/// Deletes an object that was judged as it is now, or that has had the same owners since.
async fn delete(
    api: &Api<DynamicObject>,
    name: &str,
    live: ObjectMeta,
    policy: PropagationPolicy,
) -> Result<(), Failure> {
    let of = |version: Option<String>| DeleteParams {
        propagation_policy: Some(policy.clone()),
        preconditions: Some(Preconditions { resource_version: version, uid: live.uid.clone() }),
        ..DeleteParams::default()
    };
    let mut outcome = api.delete(name, &of(live.resource_version.clone())).await;
    if let Err(kube::Error::Api(status)) = &outcome
        && status.code == 409
    {
        // What changes all the time would never be deleted; its owners are what counts.
        let now = api.get_metadata_opt(name).await?.map(|now| now.metadata);
        if now.is_some_and(|now| now.uid == live.uid && now.owner_references == live.owner_references) {
            outcome = api.delete(name, &of(None)).await;
        }
    }
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
