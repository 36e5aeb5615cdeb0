//! `flannel`: makes a `bridge` configuration of what the node's network wrote into `subnet.env`, and calls `bridge` with
//! it. What it was called with is kept, so that `DEL` undoes the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k3sd_netlink::Cidr;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bridge;
use super::call::{Call, Command, Config};
use super::error::{self, CniError};
use super::result::CniResult;

/// Where the node's network writes.
pub(crate) const SUBNET_FILE: &str = "/run/flannel/subnet.env";
/// Where delegates' configurations are kept.
pub(crate) const STATE_DIR: &str = "/var/lib/cni/flannel";
/// Beside what a delegate knows, so that it is nobody else's word.
const NAMESPACE_KEY: &str = "k3sd.io/netns";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FlannelConfig {
    subnet_file: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
    runtime_config: Option<Value>,
}

/// What `subnet.env` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Subnets {
    /// The cluster's networks.
    networks: Vec<Cidr>,
    /// The node's.
    subnets: Vec<Cidr>,
    mtu: Option<u32>,
    masquerade: Option<bool>,
}

/// Serves a call of any command; only `ADD` has a result.
///
/// # Errors
/// As CNI has them.
pub(crate) fn handle(call: &Call, config: &Config) -> Result<Option<CniResult>, CniError> {
    let settings: FlannelConfig = config.read()?;
    let subnet_file = settings.subnet_file.clone().unwrap_or_else(|| SUBNET_FILE.into());
    let kept = settings.data_dir.clone().unwrap_or_else(|| STATE_DIR.into()).join(&call.container);
    match call.command {
        Command::Add => {
            let delegate = Config::of(delegate(config, &settings, &read(&subnet_file)?)?)?;
            keep(&kept, &remembered(&delegate.json, call.namespace.as_deref()))?;
            check_kind(&delegate)?;
            bridge::handle(call, &delegate)
        }
        Command::Delete => {
            let text = match fs::read(&kept) {
                Ok(text) => text,
                // Nothing was called; at most an attempt to write it down was cut short.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return remove(&unfinished(&kept)).map(|()| None);
                }
                Err(source) => return Err(CniError::file("read", &kept, &source)),
            };
            // Cut short by a crash: the network of now is the best guess at that of then.
            let delegate = Config::parse(&text).or_else(|_| {
                read(&subnet_file).and_then(|subnets| Config::of(delegate(config, &settings, &subnets)?))
            })?;
            bridge::handle(call, &delegate)?;
            remove(&kept)?;
            Ok(None)
        }
        Command::Check => {
            let text = fs::read(&kept).map_err(|source| CniError::file("read", &kept, &source))?;
            let mut delegate = Config::parse(&text)?;
            delegate.common.prev_result.clone_from(&config.common.prev_result);
            bridge::handle(call, &delegate)
        }
        Command::Collect => {
            let mut delegate = Config::of(delegate(config, &settings, &read(&subnet_file)?)?)?;
            delegate.common.valid_attachments.clone_from(&config.common.valid_attachments);
            bridge::handle(call, &delegate)
        }
        Command::Status => match read(&subnet_file) {
            Ok(_) => Ok(None),
            Err(error) => Err(CniError { code: error::UNAVAILABLE, ..error }),
        },
        Command::Version => Ok(None),
    }
}

fn check_kind(delegate: &Config) -> Result<(), CniError> {
    if delegate.common.plugin == "bridge" {
        return Ok(());
    }
    let kind = &delegate.common.plugin;
    Err(CniError::new(error::UNSUPPORTED_FIELD, format!("flannel: delegate {kind:?} is not supported, use bridge")))
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().to_string_lossy()))
}

fn remove(path: &Path) -> Result<(), CniError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CniError::file("remove", path, &error)),
        _ => Ok(()),
    }
}

/// What is kept of a call: the delegate's configuration, and the namespace. A runtime that dies before it knows its own
/// sandbox forgets the namespace that it made; [`namespace_of`] says then what is to be freed.
fn remembered(delegate: &Value, namespace: Option<&Path>) -> Value {
    let mut kept = delegate.clone();
    if let Some(namespace) = namespace.and_then(Path::to_str) {
        kept[NAMESPACE_KEY] = namespace.into();
    }
    kept
}

/// The network namespace of a call, from what was kept of it; nothing if that was cut short, or says no such thing.
pub(crate) fn namespace_of(kept: &[u8]) -> Option<PathBuf> {
    let kept: Value = serde_json::from_slice(kept).ok()?;
    kept.get(NAMESPACE_KEY)?.as_str().map(PathBuf::from)
}

/// Atomic, so that what is found is whole.
fn keep(path: &Path, delegate: &Value) -> Result<(), CniError> {
    let failed = |source: io::Error| CniError::file("write", path, &source);
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    let unfinished = unfinished(path);
    let written = fs::write(&unfinished, delegate.to_string());
    written.and_then(|()| fs::rename(&unfinished, path)).map_err(failed)
}

fn read(path: &Path) -> Result<Subnets, CniError> {
    let failed = |source: io::Error| CniError {
        msg: format!("failed to load flannel 'subnet.env' file: {}", path.display()),
        ..CniError::file("read", path, &source)
    };
    parse(&fs::read_to_string(path).map_err(failed)?)
}

/// Reads the variables. Pure.
fn parse(text: &str) -> Result<Subnets, CniError> {
    let variables: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.trim().split_once('=')).collect();
    let networks = |names: [&str; 2]| {
        let given = names.into_iter().filter_map(|name| variables.get(name));
        // Several are separated by commas.
        let each = given.flat_map(|value| value.split(',')).filter(|text| !text.is_empty());
        let read =
            |text: &str| text.parse().map_err(|error: k3sd_netlink::CidrError| CniError::config(error.to_string()));
        each.map(read).collect::<Result<Vec<Cidr>, CniError>>()
    };
    let number = variables.get("FLANNEL_MTU").map(|text| text.parse());
    let mtu = number.transpose().map_err(|_| CniError::config("FLANNEL_MTU is not a number"))?;
    let word = variables.get("FLANNEL_IPMASQ").map(|text| text.parse());
    let masquerade = word.transpose().map_err(|_| CniError::config("FLANNEL_IPMASQ is neither true nor false"))?;
    let subnets = networks(["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"])?;
    let missing: Vec<&str> = [
        ("FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET", subnets.is_empty()),
        ("FLANNEL_MTU", mtu.is_none()),
        ("FLANNEL_IPMASQ", masquerade.is_none()),
    ]
    .into_iter()
    .filter_map(|(name, missing)| missing.then_some(name))
    .collect();
    if !missing.is_empty() {
        return Err(CniError::config(format!("subnet.env is missing {}", missing.join(", "))));
    }
    Ok(Subnets { networks: networks(["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"])?, subnets, mtu, masquerade })
}

/// The delegate's configuration. Pure.
fn delegate(config: &Config, settings: &FlannelConfig, subnets: &Subnets) -> Result<Value, CniError> {
    let mut delegate = settings.delegate.clone();
    for (key, what) in [("type", "string"), ("name", "the network's"), ("ipam", "made here")] {
        if delegate.get(key).is_some_and(|value| key != "type" || !value.is_string()) {
            return Err(CniError::config(format!("'delegate' dictionary must not have {key:?}: it is {what}")));
        }
    }
    delegate.insert("name".to_owned(), config.common.name.clone().into());
    delegate.insert("cniVersion".to_owned(), config.common.cni_version.clone().into());
    if !delegate.contains_key("type") {
        delegate.insert("type".to_owned(), "bridge".into());
    }
    if !delegate.contains_key("ipMasq") {
        // Who doesn't masquerade itself leaves it to the bridge.
        delegate.insert("ipMasq".to_owned(), (subnets.masquerade == Some(false)).into());
    }
    if !delegate.contains_key("mtu") {
        delegate.insert("mtu".to_owned(), subnets.mtu.into());
    }
    if delegate.get("type") == Some(&"bridge".into()) && !delegate.contains_key("isGateway") {
        delegate.insert("isGateway".to_owned(), true.into());
    }
    if let Some(runtime) = &settings.runtime_config {
        delegate.insert("runtimeConfig".to_owned(), runtime.clone());
    }
    let mut ipam = settings.ipam.clone();
    ipam.insert("type".to_owned(), "host-local".into());
    let range = |subnet: &Cidr| json!([{"subnet": subnet.network().to_string()}]);
    ipam.insert("ranges".to_owned(), subnets.subnets.iter().map(range).collect());
    let mut routes = ipam.get("routes").and_then(Value::as_array).cloned().unwrap_or_default();
    routes.extend(subnets.networks.iter().map(|network| json!({"dst": network.to_string()})));
    ipam.insert("routes".to_owned(), routes.into());
    delegate.insert("ipam".to_owned(), ipam.into());
    Ok(delegate.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\nFLANNEL_IPV6_NETWORK=fd42::/56\n\
        FLANNEL_IPV6_SUBNET=fd42:0:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    fn made(config: Value, text: &str) -> Result<Value, String> {
        let config = Config::of(config).unwrap();
        let made = parse(text).and_then(|subnets| delegate(&config, &config.read()?, &subnets));
        made.map_err(|error| error.msg)
    }

    #[test]
    fn a_bridge_for_both_families() {
        let config = json!({"cniVersion": "1.0.0", "name": "cbr0", "type": "flannel",
            "delegate": {"hairpinMode": true, "forceAddress": true, "isDefaultGateway": true}});
        let expected = json!({
            "cniVersion": "1.0.0", "name": "cbr0", "type": "bridge", "hairpinMode": true, "forceAddress": true,
            "isDefaultGateway": true, "isGateway": true, "ipMasq": false, "mtu": 1450,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.42.1.0/24"}], [{"subnet": "fd42:0:0:1::/64"}]],
                "routes": [{"dst": "10.42.0.0/16"}, {"dst": "fd42::/56"}],
            },
        });
        assert_eq!(made(config, BOTH), Ok(expected));
    }

    #[test]
    fn the_namespace_is_remembered() {
        let kept = |namespace| remembered(&json!({"type": "bridge"}), namespace).to_string();
        let path = Path::new("/run/netns/cni-1");
        assert_eq!(namespace_of(kept(Some(path)).as_bytes()).as_deref(), Some(path));
        assert_eq!(namespace_of(kept(None).as_bytes()), None);
        assert_eq!(namespace_of(&kept(Some(path)).as_bytes()[..20]), None, "cut short");
    }

    #[test]
    fn what_is_given_stays_and_what_is_ours_may_not_be_given() {
        let config =
            |delegate: Value| json!({"cniVersion": "1.0.0", "name": "n", "type": "flannel", "delegate": delegate});
        let made_of = |delegate| made(config(delegate), BOTH);
        assert_eq!(made_of(json!({"mtu": 9000, "ipMasq": true})).unwrap()["mtu"], 9000);
        assert!(made_of(json!({"name": "other"})).is_err());
        assert!(made_of(json!({"ipam": {}})).is_err());
        assert!(made_of(json!({"type": 1})).is_err());
        let alone = BOTH.replace("IPMASQ=true", "IPMASQ=false");
        assert_eq!(made(config(json!({})), &alone).unwrap()["ipMasq"], true);
        let error = made(config(json!({})), "FLANNEL_NETWORK=10.42.0.0/16\n").unwrap_err();
        assert_eq!(error, "subnet.env is missing FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ");
    }
}
