//! What is in use stays: a finalizer holds a claim as long as a pod uses it, a volume as long as it is bound, and a class of
//! attributes as long as one of them names it.

mod claim;
mod class;
mod volume;

pub(crate) use self::claim::claims;
pub(crate) use self::class::classes;
pub(crate) use self::volume::volumes;

use k3sd_client::controller::Failure;
use k3sd_client::informer::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use serde::Serialize;

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

/// Writes the finalizers as they should be, over the very object that was read. `None` when it is gone by now.
async fn write<K: Kind + Serialize>(
    api: &Api<K>,
    object: &K,
    finalizer: &str,
    keep: bool,
) -> Result<Option<K>, Failure> {
    let mut object = object.clone();
    let finalizers = object.meta_mut().finalizers.get_or_insert_default();
    finalizers.retain(|found| found != finalizer);
    if keep {
        finalizers.push(finalizer.to_owned());
    }
    let name = object.meta().name.clone().unwrap_or_default();
    match api.replace(&name, &PostParams::default(), &object).await.map_err(Failure::from) {
        Ok(written) => Ok(Some(written)),
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
