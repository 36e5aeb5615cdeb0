//! Brings one Event to the API.

use std::time::Duration;

use k3sd_runtime::{Clock, Rng};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::correlate::Write;

/// How often it is tried, and the time between two tries: client-go's.
const TRIES_MAX: u32 = 12;
const TRY_EVERY: Duration = Duration::from_secs(10);

/// Writes it, trying again while the API is away. What the API refuses is given up.
pub(super) async fn write<E>(client: Client, write: Write<E>, clock: Clock, mut rng: Rng) -> bool
where
    E: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug,
{
    let namespace = write.event.meta().namespace.clone().unwrap_or_default();
    let api: Api<E> = Api::namespaced(client, &namespace);
    for tried in 1..=TRIES_MAX {
        match once(&api, &write).await {
            Ok(()) => return true,
            Err(error) if is_final(&error) => {
                tracing::debug!(%namespace, %error, "an Event was refused");
                return false;
            }
            Err(error) => tracing::debug!(%namespace, %error, tried, "an Event can't be written now"),
        }
        if tried < TRIES_MAX {
            // The first wait is drawn, so that not all who wait come back in step.
            let wait = if tried == 1 { TRY_EVERY.mul_f64(rng.fraction()) } else { TRY_EVERY };
            clock.sleep_until(clock.now() + wait).await;
        }
    }
    tracing::warn!(%namespace, "an Event was given up after {TRIES_MAX} tries");
    false
}

async fn once<E>(api: &Api<E>, write: &Write<E>) -> kube::Result<()>
where
    E: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    if let Some(patch) = &write.patch {
        let name = write.event.meta().name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            // It was too old, and is gone.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(drop),
        }
    }
    api.create(&PostParams::default(), &write.event).await.map(drop)
}

/// Whether another try would end the same: the API looked at it and said no.
fn is_final(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code < 500 && status.code != 429,
        kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => true,
        _ => false,
    }
}
