//! Levels of priority and flow schemas: made if they are missing, mended if they are ours to mend.

use std::time::Duration;

use k3sd_objects::status::Status;
use serde_json::Value;

use super::ensure;
use crate::api::Api;
use crate::bootstrap::flow_control::{levels, mended, schemas};
use crate::bootstrap::keeper::Duty;
use crate::special::local::{self, Kind};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: Kind = Kind::v1(GROUP, "prioritylevelconfigurations");
const SCHEMAS: Kind = Kind::v1(GROUP, "flowschemas");

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct FlowControl;

impl Duty for FlowControl {
    const HOOK: &'static str = "priority-and-fairness-config-producer";
    const WATCHES: &'static [Kind] = &[LEVELS, SCHEMAS];

    fn interval(&self) -> Option<Duration> {
        None
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        let levels = levels().into_iter().map(|(object, mandatory)| keep(api, LEVELS, object, mandatory));
        all(levels).await?;
        all(schemas().into_iter().map(|(object, mandatory)| keep(api, SCHEMAS, object, mandatory))).await?;
        Ok(None)
    }
}

async fn all(work: impl Iterator<Item = impl Future<Output = Result<(), Status>>>) -> Result<(), Status> {
    futures_util::future::join_all(work).await.into_iter().collect()
}

async fn keep(api: &Api, kind: Kind, object: Value, mandatory: bool) -> Result<(), Status> {
    let Some(stored) = ensure(api, kind, &object).await? else { return Ok(()) };
    match mended(&object, mandatory, &stored) {
        Some(wanted) => local::update(api, kind, &wanted).await.map(drop),
        None => Ok(()),
    }
}
