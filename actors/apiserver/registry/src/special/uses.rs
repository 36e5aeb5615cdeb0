//! On which day the token of a Secret was last used, as its label says.

use k3sd_apiserver_access::authn::service_account::{LAST_USED, use_to_note};
use k3sd_objects::status::Status;

use super::local::{self, Kind};
use crate::api::Api;

const SECRETS: Kind = Kind::core("secrets");

/// Notes that the token of a Secret is used now, unless that is noted or the Secret is gone.
///
/// # Errors
/// The Secret can't be read or written now, or somebody else has just written it.
pub async fn note_use(api: &Api, namespace: &str, name: &str) -> Result<(), Status> {
    let Some(mut secret) = local::get(api, SECRETS, namespace, name).await? else { return Ok(()) };
    let Some(day) = use_to_note(&secret, local::now(api).as_second()) else { return Ok(()) };
    secret["metadata"]["labels"][LAST_USED] = day.into();
    local::update(api, SECRETS, &secret).await.map(drop)
}
