//! Levels of priority and flow schemas: made if they are missing, mended if they are ours to mend.

use std::time::Duration;

use k3sd_objects::status::{Reason, Status};
use serde_json::Value;

use super::ensure;
use crate::api::Api;
use crate::bootstrap::flow_control::{dangling, levels, mended, schemas};
use crate::bootstrap::keeper::Duty;
use crate::special::local::{self, Kind};
use crate::special::pods::conditions::time;

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
        let (levels, schemas) = (local::list(api, LEVELS).await?, local::list(api, SCHEMAS).await?);
        let now = time(local::now(api));
        all(schemas.iter().filter_map(|schema| dangling(schema, &levels, &now)).map(|wanted| tell(api, wanted)))
            .await?;
        Ok(None)
    }
}

async fn tell(api: &Api, schema: Value) -> Result<(), Status> {
    match local::update_part(api, SCHEMAS, &schema, "status").await {
        // Its change comes with the watch.
        Err(status) if ![Reason::Conflict, Reason::NotFound].contains(&status.reason) => Err(status),
        _ => Ok(()),
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
