//! The namespaces that the server itself needs.

use std::time::Duration;

use k3sd_objects::status::Status;

use super::ensure;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::bootstrap::objects;
use crate::special::local;

/// How long a namespace may be missing that somebody deleted; upstream's.
const INTERVAL: Duration = Duration::from_secs(60);

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces;

impl Duty for Namespaces {
    const HOOK: &'static str = "start-system-namespaces-controller";

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        for name in objects::NAMESPACES {
            ensure(api, local::NAMESPACES, &objects::namespace(name)).await?;
        }
        Ok(None)
    }
}
