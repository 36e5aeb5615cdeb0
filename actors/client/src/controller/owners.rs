//! Whose an object is: references to owners, and claims to what nobody has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Failure;
use crate::informer::Kind;

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

/// Makes an object that nobody has one of `owner`'s, if both are still those that were read. `None` if the object is gone
/// or somebody was faster.
///
/// # Errors
/// The owner isn't there any more, is another or is being deleted; or the API refused.
pub async fn adopt<O, K>(owners: &Api<O>, owner: &O, api: &Api<K>, object: &K) -> Result<Option<K>, Failure>
where
    O: Kind,
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let reference = controller_ref(owner);
    let live = owners.get_metadata(&reference.name).await?;
    if live.metadata.uid.as_deref() != Some(&*reference.uid) {
        let kind = &reference.kind;
        return Err(Failure::other(format!("original {kind} {} is gone: it has another uid", reference.name)));
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Err(Failure::other(format!(
            "{} {} is being deleted, and adopts nothing",
            reference.kind, reference.name
        )));
    }
    let patch = json!({"metadata": {"ownerReferences": [reference], "uid": object.meta().uid}});
    patched(api, object, &Patch::Strategic(patch)).await
}

/// Takes `owner` off an object's owners. `None` if the object is gone, or another.
///
/// # Errors
/// The API refused.
pub async fn release<K>(api: &Api<K>, object: &K, owner_uid: &str) -> Result<Option<K>, Failure>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let gone = json!([{"$patch": "delete", "uid": owner_uid}]);
    let patch = json!({"metadata": {"ownerReferences": gone, "uid": object.meta().uid}});
    patched(api, object, &Patch::Strategic(patch)).await
}

async fn patched<K>(api: &Api<K>, object: &K, patch: &Patch<serde_json::Value>) -> Result<Option<K>, Failure>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), patch).await.map_err(Failure::from) {
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
