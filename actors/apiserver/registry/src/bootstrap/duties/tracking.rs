//! Since when the use of tokens that Secrets hold is noted: whoever cleans up old ones asks this.

use std::time::Duration;

use k3sd_objects::status::Status;
use serde_json::json;

use super::ensure;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::special::local;

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Tracking;

impl Duty for Tracking {
    const HOOK: &'static str = "start-legacy-token-tracking-controller";

    fn interval(&self) -> Option<Duration> {
        None
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        let since = local::now(api).strftime("%Y-%m-%d").to_string();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"since": since}, "metadata": {
            "name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"}});
        ensure(api, local::CONFIG_MAPS, &map).await.map(|_| None)
    }
}
