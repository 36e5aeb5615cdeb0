//! Whose an object is: references to owners, and claims to what nobody has.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::json;

use super::fan_out::each;
use super::{Failure, Turn};
use crate::informer::{Informer, Kind};

/// The reference by which `owner` controls an object; it holds the owner's foreground deletion up.
pub fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference to who controls it, if somebody does.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object of this `uid` controls it.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// What to do with an object that a controller might have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It has it already, and shall.
    Keep,
    /// Nobody has it, and it matches.
    Adopt,
    /// It has it, but it doesn't match any more.
    Release,
    /// It is none of its business.
    Leave,
}

/// Decides by the owners of the object, whether it `matches` the selector, and who asks. `leaving`: the one who asks is
/// being deleted, and takes nothing new.
pub fn claim(meta: &ObjectMeta, matches: bool, uid: &str, leaving: bool) -> Claim {
    match controller_of(meta) {
        Some(owner) if owner.uid != uid => Claim::Leave,
        Some(_) if matches => Claim::Keep,
        Some(_) if leaving => Claim::Leave,
        Some(_) => Claim::Release,
        None if leaving || !matches || meta.deletion_timestamp.is_some() => Claim::Leave,
        None => Claim::Adopt,
    }
}

/// What a controller has of these, after it took what nobody has and gave back what doesn't match any more. The copies
/// don't show all of it yet; the turn waits for that.
///
/// # Errors
/// The API refused; or something was to be adopted, and the owner isn't there any more, is another or is being deleted.
pub async fn claim_all<O: Kind, K: Kind>(
    (owner, owners): (&O, &Api<O>),
    (api, informer): (&Api<K>, &Informer<K>),
    candidates: impl Iterator<Item = Arc<K>>,
    matches: impl Fn(&K) -> bool,
    turn: &mut Turn,
) -> Result<Vec<Arc<K>>, Failure> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let leaving = owner.meta().deletion_timestamp.is_some();
    let (mut claimed, mut adopted, mut released) = (Vec::new(), Vec::new(), Vec::new());
    for object in candidates {
        match claim(object.meta(), matches(&object), uid, leaving) {
            Claim::Keep => claimed.push(object),
            Claim::Adopt => adopted.push(object),
            Claim::Release => released.push(object),
            Claim::Leave => {}
        }
    }
    let mut failed = None;
    if !adopted.is_empty() {
        let reference = controller_ref(owner);
        check_owner(owners, &reference).await?;
        let (done, failure) = each(adopted, |object| adopt(api, object, &reference)).await;
        failed = failure;
        for object in done.into_iter().flatten() {
            turn.wrote(informer, &object);
            claimed.push(Arc::new(object));
        }
    }
    let (done, failure) = each(released, |object| release(api, object, uid)).await;
    done.iter().flatten().for_each(|object| turn.wrote(informer, object));
    failed.or(failure).map_or(Ok(claimed), Err)
}

/// Copies may be old: only an owner that is there, as it was, may take something.
async fn check_owner<O: Kind>(owners: &Api<O>, reference: &OwnerReference) -> Result<(), Failure> {
    let live = owners.get_metadata(&reference.name).await?;
    let (kind, name) = (&reference.kind, &reference.name);
    if live.metadata.uid.as_deref() != Some(&*reference.uid) {
        return Err(Failure::other(format!("{kind} {name} is another by now, and adopts nothing")));
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Err(Failure::other(format!("{kind} {name} is being deleted, and adopts nothing")));
    }
    Ok(())
}

/// `None` if the object is gone or somebody was faster.
async fn adopt<K: Kind>(api: &Api<K>, object: Arc<K>, owner: &OwnerReference) -> Result<Option<K>, Failure> {
    let patch = json!({"metadata": {"ownerReferences": [owner], "uid": object.meta().uid}});
    patched(api, &object, patch).await
}

/// `None` if the object is gone, or another.
async fn release<K: Kind>(api: &Api<K>, object: Arc<K>, owner_uid: &str) -> Result<Option<K>, Failure> {
    let gone = json!([{"$patch": "delete", "uid": owner_uid}]);
    let patch = json!({"metadata": {"ownerReferences": gone, "uid": object.meta().uid}});
    patched(api, &object, patch).await
}

async fn patched<K: Kind>(api: &Api<K>, object: &K, patch: serde_json::Value) -> Result<Option<K>, Failure> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map_err(Failure::from) {
        Ok(patched) => Ok(Some(patched)),
        // 409 and 422: the name belongs to another object by now, or it has an owner.
        Err(failure) if matches!(failure.code(), Some(404 | 409 | 422)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_claim_what() {
        let owner = |uid: &str, controller| OwnerReference {
            uid: uid.to_owned(),
            controller: Some(controller),
            ..OwnerReference::default()
        };
        let with = |owners: Vec<OwnerReference>| ObjectMeta { owner_references: Some(owners), ..ObjectMeta::default() };
        let mine = with(vec![owner("other", false), owner("me", true)]);
        let another = with(vec![owner("other", true)]);
        let nobodys = with(vec![owner("other", false)]);
        let mut going = nobodys.clone();
        going.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        for (meta, matches, leaving, expected) in [
            (&mine, true, false, Claim::Keep),
            (&mine, true, true, Claim::Keep),
            (&mine, false, false, Claim::Release),
            (&mine, false, true, Claim::Leave),
            (&another, true, false, Claim::Leave),
            (&another, false, false, Claim::Leave),
            (&nobodys, true, false, Claim::Adopt),
            (&nobodys, false, false, Claim::Leave),
            (&nobodys, true, true, Claim::Leave),
            (&going, true, false, Claim::Leave),
        ] {
            assert_eq!(claim(meta, matches, "me", leaving), expected);
        }
    }
}
