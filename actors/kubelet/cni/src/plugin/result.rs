//! Results, in the form of the newest version; [`CniResult::print`] makes an older one of it.

use k3sd_netlink::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::VERSIONS;
use super::error::CniError;

/// What a plugin has made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CniResult {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ips: Vec<Ip>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) dns: Dns,
}

/// An interface, in the container or on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// The namespace that it is in; empty for the host's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
}

/// An address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ip {
    /// The interface that has it, as a place in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<usize>,
    /// With its network.
    pub(crate) address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
}

impl Ip {
    /// The address, read.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn cidr(&self) -> Result<Cidr, CniError> {
        self.address.parse().map_err(|error: k3sd_netlink::CidrError| CniError::config(error.to_string()))
    }
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RouteConfig {
    pub(crate) dst: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
}

/// Settings of the resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
}

impl CniResult {
    /// As JSON of a version, given as a place in [`VERSIONS`].
    pub(crate) fn print(&self, version: usize) -> Value {
        let mut result = self.clone();
        if version < 4 {
            // Only the newest version knows these.
            result.interfaces.iter_mut().for_each(|interface| interface.mtu = None);
            for route in &mut result.routes {
                (route.mtu, route.priority, route.table) = (None, None, None);
            }
        }
        let mut value = json!(result);
        value["cniVersion"] = VERSIONS.get(version).copied().unwrap_or_default().into();
        if version < 3 {
            let ips = value.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten();
            for ip in ips {
                let is_ipv6 = ip["address"].as_str().is_some_and(|address| address.contains(':'));
                ip["version"] = if is_ipv6 { "6" } else { "4" }.into();
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_versions_see_what_they_know() {
        let result = CniResult {
            interfaces: vec![Interface { name: "eth0".to_owned(), mtu: Some(1400), ..Interface::default() }],
            ips: vec![Ip { address: "fd00::2/64".to_owned(), ..Ip::default() }],
            ..CniResult::default()
        };
        let newest = json!({"cniVersion": "1.1.0", "dns": {},
            "interfaces": [{"name": "eth0", "mtu": 1400}], "ips": [{"address": "fd00::2/64"}]});
        assert_eq!(result.print(4), newest);
        let older = json!({"cniVersion": "1.0.0", "dns": {},
            "interfaces": [{"name": "eth0"}], "ips": [{"address": "fd00::2/64"}]});
        assert_eq!(result.print(3), older);
        let oldest = json!({"cniVersion": "0.3.1", "dns": {},
            "interfaces": [{"name": "eth0"}], "ips": [{"address": "fd00::2/64", "version": "6"}]});
        assert_eq!(result.print(1), oldest);
        assert_eq!(CniResult::deserialize(&oldest).unwrap().ips, result.ips);
    }
}
