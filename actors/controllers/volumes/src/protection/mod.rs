//! What is in use stays: a finalizer holds a claim as long as a pod uses it, and a volume as long as it is bound.

mod claim;
mod volume;

pub(crate) use self::claim::claims;
pub(crate) use self::volume::volumes;

use k3sd_client::controller::Failure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// What is to be done about the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Nothing,
    /// It is missing.
    Add,
    /// It holds what should go, if nobody uses it.
    Release,
}

fn duty(meta: &ObjectMeta, finalizer: &str) -> Duty {
    let has = meta.finalizers.iter().flatten().any(|found| found == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (false, false) => Duty::Add,
        (true, true) => Duty::Release,
        (false, true) | (true, false) => Duty::Nothing,
    }
}

/// Writes the finalizers as they should be, for the very object that was read.
async fn write<K>(api: &Api<K>, meta: &ObjectMeta, finalizer: &str, keep: bool) -> Result<Option<K>, Failure>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut all: Vec<String> = meta.finalizers.iter().flatten().filter(|found| *found != finalizer).cloned().collect();
    if keep {
        all.push(finalizer.to_owned());
    }
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": all}});
    let name = meta.name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map_err(Failure::from) {
        Ok(written) => Ok(Some(written)),
        // It is gone, which is all that was wanted.
        Err(failure) if failure.code() == Some(404) => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn finalizers_are_added_to_what_stays_and_taken_from_what_goes() {
        for (deleted, finalizers, wanted) in [
            (false, &[][..], Duty::Add),
            (false, &["other"], Duty::Add),
            (false, &["x/y"], Duty::Nothing),
            (true, &["x/y", "other"], Duty::Release),
            (true, &["other"], Duty::Nothing),
        ] {
            let meta = ObjectMeta {
                finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
                deletion_timestamp: deleted.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
                ..ObjectMeta::default()
            };
            assert_eq!(duty(&meta, "x/y"), wanted, "{deleted} {finalizers:?}");
        }
    }
}
