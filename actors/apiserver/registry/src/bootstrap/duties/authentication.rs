//! Where extension servers learn whom this server believes: a `ConfigMap` in `kube-system`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_objects::status::Status;
use serde_json::json;

use super::ensure;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::bootstrap::objects::{RequestAuthentication, authentication, authentication_data};
use crate::special::local;

/// How often it is compared with the certificates, which may be renewed.
const INTERVAL: Duration = Duration::from_secs(60);

/// See the module's page.
#[derive(Clone)]
pub(crate) struct Authentication {
    /// Whom the server believes now.
    pub(crate) source: Arc<dyn Fn() -> RequestAuthentication + Send + Sync>,
}

impl fmt::Debug for Authentication {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Authentication")
    }
}

impl Duty for Authentication {
    const HOOK: &'static str = "start-cluster-authentication-info-controller";

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        let data = authentication_data(&(self.source)());
        let Some(stored) = ensure(api, local::CONFIG_MAPS, &authentication(&data)).await? else { return Ok(None) };
        let mut wanted = stored.clone();
        let place = crate::special::read::map_mut(&mut wanted, "data");
        for (key, value) in data.as_object().into_iter().flatten() {
            // Other servers may have other authorities: none is taken away.
            let text = value.as_str().unwrap_or_default();
            let there = place.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
            if key.ends_with("ca-file") && !there.contains(text.trim()) {
                place.insert(key.clone(), json!(joined(there, text)));
            } else if !key.ends_with("ca-file") {
                place.insert(key.clone(), value.clone());
            }
        }
        if wanted != stored {
            local::update(api, local::CONFIG_MAPS, &wanted).await?;
        }
        Ok(None)
    }
}

fn joined(there: &str, more: &str) -> String {
    if there.trim().is_empty() { more.to_owned() } else { format!("{}\n{more}", there.trim_end()) }
}
