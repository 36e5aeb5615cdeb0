//! The Service `kubernetes` in `default`, by which pods reach the servers, and the addresses behind it.
//!
//! Each server keeps a key that ends unless it is renewed; the servers whose keys are there are the endpoints. So one that
//! dies is gone from them within [`LEASE`], and one that stops goes at once.

mod objects;

use std::net::IpAddr;
use std::time::Duration;

use k3sd_client::storage::{Change, List, Precondition, Write};
use k3sd_objects::status::{Reason, Status};
use serde_json::{Value, json};

use self::objects::Front;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::special::local::{self, Kind};

/// Below which each server has a key with its address; upstream's place.
const LEASES: &str = "/registry/masterleases/";
/// How long a server counts as there that doesn't renew its key; upstream's.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed; upstream's.
const INTERVAL: Duration = Duration::from_secs(10);

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Kubernetes {
    /// The address under which others reach this server.
    pub(crate) advertised: IpAddr,
    /// The port there.
    pub(crate) port: u16,
    /// The port of the Service.
    pub(crate) service_port: u16,
    /// The Service's address: the first of the default range.
    pub(crate) service_address: Option<IpAddr>,
}

impl Kubernetes {
    fn front(&self, addresses: Vec<IpAddr>) -> Front {
        Front { addresses, port: self.port, service_port: self.service_port, service_address: self.service_address }
    }

    fn key(&self) -> String {
        format!("{LEASES}{}", self.advertised)
    }

    /// Renews this server's key.
    async fn renew(&self, api: &Api) -> Result<(), Status> {
        let value = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"creationTimestamp": null},
            "subsets": [{"addresses": [{"ip": self.advertised.to_string()}]}]});
        let change = Change::Put { value: k3sd_objects::decode::to_bytes(&value).into(), ttl: Some(LEASE) };
        let write = Write { key: self.key().into(), change, precondition: Precondition::None };
        api.stores().storage().write(write).await.map(drop).map_err(unavailable)
    }

    /// The servers whose keys are there, sorted.
    async fn servers(&self, api: &Api) -> Result<Vec<IpAddr>, Status> {
        let list = List { prefix: LEASES.into(), keys_only: true, ..List::default() };
        let listed = api.stores().storage().list(list).await.map_err(unavailable)?;
        let address = |key: &[u8]| std::str::from_utf8(&key[LEASES.len()..]).ok()?.parse().ok();
        let mut found: Vec<IpAddr> = listed.found.iter().filter_map(|kv| address(&kv.key)).collect();
        found.sort_unstable();
        Ok(found)
    }

    async fn keep_service(&self, api: &Api) -> Result<(), Status> {
        let expected = self.front(Vec::new()).service();
        keep(api, local::SERVICES, &expected, |stored| objects::mended_service(&expected, stored)).await
    }

    async fn keep_endpoints(&self, api: &Api, servers: Vec<IpAddr>) -> Result<(), Status> {
        let front = self.front(servers);
        let endpoints = front.endpoints();
        keep(api, local::ENDPOINTS, &endpoints, |stored| objects::mended(&endpoints, stored, &["subsets"])).await?;
        let slice = front.slice(self.advertised.is_ipv4());
        let stored = local::get(api, local::ENDPOINT_SLICES, NAMESPACE, NAME).await?;
        if let Some(stored) = stored.filter(|stored| stored["addressType"] != slice["addressType"]) {
            // The kind of its addresses can't be changed.
            local::delete(api, local::ENDPOINT_SLICES, NAMESPACE, NAME, Some(&local::only(&stored))).await?;
        }
        keep(api, local::ENDPOINT_SLICES, &slice, |stored| objects::mended(&slice, stored, &["endpoints", "ports"]))
            .await
    }
}

fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::service_unavailable(error.to_string())
}

/// Creates an object, or writes what `mend` says.
async fn keep(api: &Api, kind: Kind, expected: &Value, mend: impl Fn(&Value) -> Option<Value>) -> Result<(), Status> {
    let outcome = match super::ensure(api, kind, expected).await? {
        Some(stored) => match mend(&stored) {
            Some(wanted) => local::update(api, kind, &wanted).await.map(drop),
            None => Ok(()),
        },
        None => Ok(()),
    };
    match outcome {
        // Another server, or a person; the next look sees what came of it.
        Err(status) if status.reason == Reason::Conflict => Ok(()),
        other => other,
    }
}

impl Duty for Kubernetes {
    const HOOK: &'static str = "bootstrap-controller";

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        self.renew(api).await?;
        self.keep_service(api).await?;
        let servers = self.servers(api).await?;
        self.keep_endpoints(api, servers).await?;
        Ok(None)
    }

    async fn leave(&self, api: &Api) {
        let write = Write { key: self.key().into(), change: Change::Delete, precondition: Precondition::None };
        let left = match api.stores().storage().write(write).await {
            Ok(_) => match self.servers(api).await {
                Ok(servers) => self.keep_endpoints(api, servers).await,
                Err(status) => Err(status),
            },
            Err(error) => Err(unavailable(error)),
        };
        if let Err(status) = left {
            tracing::warn!(error = %status, "cannot leave the endpoints of kubernetes; they forget this server soon");
        }
    }
}
