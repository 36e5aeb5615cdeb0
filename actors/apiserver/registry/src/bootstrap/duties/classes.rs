//! The priority classes of the system.

use std::time::Duration;

use k3sd_objects::status::Status;

use super::ensure;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::bootstrap::objects;
use crate::special::local;

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct PriorityClasses;

impl Duty for PriorityClasses {
    const HOOK: &'static str = "scheduling/bootstrap-system-priority-classes";

    fn interval(&self) -> Option<Duration> {
        None
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        for class in objects::priority_classes() {
            ensure(api, local::PRIORITY_CLASSES, &class).await?;
        }
        Ok(None)
    }
}
