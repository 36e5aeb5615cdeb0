//! The ConfigMap `kube-system/cluster-dns`: where names are answered, and which are the cluster's, for others to read.
//!
//! Restart: permanent; it writes again what is there. A death costs nobody anything.

use std::net::IpAddr;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_runtime::{ChildSpec, task};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";
/// K3s's name for it.
const NAME: &str = "cluster-dns";
/// Who owns its fields.
const MANAGER: &str = "k3s";
/// The pause before something that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Writes it once, and stays: a tree with somebody missing is one that heals. `connect` may patch ConfigMaps in
/// `kube-system`.
pub fn announcement(connect: Connect, addresses: &[IpAddr], domain: &str) -> ChildSpec {
    let map = config_map(addresses, domain);
    task("cluster-dns", move |handle| {
        let (connect, map) = (connect.clone(), map.clone());
        async move {
            let api: Api<ConfigMap> = Api::namespaced(connect.client(), NAMESPACE);
            let clock = handle.system().clock().clone();
            while let Err(error) = api.patch(NAME, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the cluster's DNS can't be written down yet"
                );
                clock.sleep_until(clock.now() + RETRY_DELAY).await;
            }
            std::future::pending().await
        }
    })
}

fn config_map(addresses: &[IpAddr], domain: &str) -> Value {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "data": { "clusterDNS": addresses.join(","), "clusterDomain": domain },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_are_told() {
        let map = config_map(&["10.43.0.10".parse().unwrap(), "fd00:43::a".parse().unwrap()], "cluster.local");
        assert_eq!(map["data"], json!({ "clusterDNS": "10.43.0.10,fd00:43::a", "clusterDomain": "cluster.local" }));
    }
}
