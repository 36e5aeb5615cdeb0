use serde_json::{Value, json};

use super::super::call::Environment;
use super::*;

fn call(command: &str, container: &str, arguments: &str) -> Call {
    Call::new(Environment {
        command: Some(command.to_owned()),
        container: Some(container.to_owned()),
        namespace: Some("/proc/1/ns/net".to_owned()),
        interface: Some("eth0".to_owned()),
        arguments: Some(arguments.to_owned()),
    })
    .unwrap()
}

fn config(dir: &Path, mut ipam: Value) -> Config {
    ipam["dataDir"] = dir.to_str().unwrap().into();
    Config::of(json!({"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": ipam})).unwrap()
}

fn add(config: &Config, container: &str) -> Result<Vec<String>, String> {
    add_with(config, container, "")
}

fn add_with(config: &Config, container: &str, arguments: &str) -> Result<Vec<String>, String> {
    let result = handle(&call("ADD", container, arguments), config).map_err(|error| error.msg)?.unwrap();
    Ok(result.ips.into_iter().map(|ip| ip.address).collect())
}

fn delete(config: &Config, container: &str) {
    assert_eq!(handle(&call("DEL", container, ""), config).unwrap(), None);
}

fn small() -> Value {
    json!({"subnet": "10.1.2.0/29"})
}

#[test]
fn addresses_go_round_and_come_back_late() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), small());
    for (number, expected) in [(2, "10.1.2.2/29"), (3, "10.1.2.3/29"), (4, "10.1.2.4/29")] {
        assert_eq!(add(&config, &format!("c{number}")).unwrap(), [expected]);
    }
    delete(&config, "c2");
    delete(&config, "c2");
    assert_eq!(add(&config, "c5").unwrap(), ["10.1.2.5/29"], "not the one that was freed just now");
    assert_eq!(add(&config, "c6").unwrap(), ["10.1.2.6/29"]);
    assert_eq!(add(&config, "c7").unwrap(), ["10.1.2.2/29"]);
    let error = add(&config, "c8").unwrap_err();
    assert!(error.ends_with("no IP addresses available in range set: 10.1.2.1-10.1.2.6"), "{error}");
    assert!(add(&config, "c3").unwrap_err().contains("duplicate allocation is not allowed"));
    let text = std::fs::read_to_string(dir.path().join("net/10.1.2.5")).unwrap();
    assert_eq!(text, "c5\r\neth0", "the form that others know");
    assert_eq!(std::fs::read_to_string(dir.path().join("net/last_reserved_ip.0")).unwrap(), "10.1.2.2");
}

#[test]
fn two_families_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let both =
        json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1::/126"}]], "routes": [{"dst": "::/0"}]});
    let config = config(dir.path(), both);
    let result = handle(&call("ADD", "c1", ""), &config).unwrap().unwrap();
    assert_eq!(result.ips[0].gateway.as_deref(), Some("10.1.2.1"));
    assert_eq!(result.ips[1].address, "fd00:1::2/126");
    assert_eq!(result.routes[0].dst, "::/0");
    assert_eq!(add(&config, "c2").unwrap(), ["10.1.2.3/24", "fd00:1::3/126"]);
    // The second family is exhausted, and the first has lost nothing.
    assert!(add(&config, "c3").is_err());
    let files: Vec<_> =
        std::fs::read_dir(dir.path().join("net")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name == "10.1.2.4"), "{files:?}");
    handle(&call("CHECK", "c2", ""), &config).unwrap();
    assert!(handle(&call("CHECK", "c3", ""), &config).is_err());
}

#[test]
fn wishes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), small());
    assert_eq!(add_with(&config, "c1", "IP=10.1.2.5").unwrap(), ["10.1.2.5/29"]);
    assert!(add_with(&config, "c2", "IP=10.1.2.5").unwrap_err().contains("is not available in range set"));
    assert!(add_with(&config, "c2", "IP=10.1.2.1").unwrap_err().contains("is subnet's gateway"));
    assert!(add_with(&config, "c2", "IP=10.9.9.9").unwrap_err().contains("failed to allocate all requested IPs"));
    let mut json = config.json.clone();
    json["runtimeConfig"] = json!({"ips": ["10.1.2.6/29"]});
    let config = Config::of(json).unwrap();
    assert_eq!(add(&config, "c2").unwrap(), ["10.1.2.6/29"]);
}

#[test]
fn what_a_crash_left_is_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), small());
    add(&config, "c1").unwrap();
    std::fs::write(dir.path().join("net/10.1.2.3"), "").unwrap();
    std::fs::write(dir.path().join("net/.unfinished"), "c9").unwrap();
    std::fs::write(dir.path().join("net/last_reserved_ip.0"), "rubbish").unwrap();
    assert_eq!(add(&config, "c2").unwrap(), ["10.1.2.3/29"]);
}

#[test]
fn collection_frees_what_nobody_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), small());
    for container in ["c1", "c2", "c3"] {
        add(&config, container).unwrap();
    }
    config.common.valid_attachments =
        Some(vec![super::super::call::Attachment { container: "c2".to_owned(), interface: "eth0".to_owned() }]);
    handle(&call("GC", "", ""), &config).unwrap();
    let store = Store::open(&dir.path().join("net")).unwrap();
    let left: Vec<String> = store.all().unwrap().iter().map(|(address, _)| address.to_string()).collect();
    assert_eq!(left, ["10.1.2.3"]);
}

#[test]
fn ranges_that_make_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    for (ipam, expected) in [
        (json!({}), "no IP ranges specified"),
        (json!({"subnet": "10.1.2.0/31"}), "Network 10.1.2.0/31 too small to allocate from"),
        (
            json!({"subnet": "10.1.2.5/24"}),
            "Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0",
        ),
        (json!({"subnet": "10.1.2.0/24", "rangeStart": "10.2.0.1"}), "RangeStart 10.2.0.1 not in network 10.1.2.0/24"),
        (json!({"subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.2", "rangeStart": "10.1.2.9"}), "behind RangeEnd"),
        (json!({"ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "fd00::/64"}]]}), "mixed address families"),
        (json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.0.0/16"}]]}), "range set 0 overlaps with 1"),
        (json!({"subnet": "10.1.2/24"}), "invalid CIDR address: 10.1.2/24"),
    ] {
        let error = add(&config(dir.path(), ipam.clone()), "c1").unwrap_err();
        assert!(error.contains(expected), "{ipam}: {error}");
    }
}

#[test]
fn several_ranges_in_a_set() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = json!({"ranges": [[
        {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.10"},
        {"subnet": "10.1.3.0/24", "rangeStart": "10.1.3.1", "rangeEnd": "10.1.3.2", "gateway": "10.1.3.1"},
    ]]});
    let config = config(dir.path(), ipam);
    let mut all = Vec::new();
    for number in 0..3 {
        all.extend(add(&config, &format!("c{number}")).unwrap());
    }
    assert_eq!(all, ["10.1.2.9/24", "10.1.2.10/24", "10.1.3.2/24"]);
    assert!(add(&config, "c9").is_err());
    delete(&config, "c0");
    assert_eq!(add(&config, "c9").unwrap(), ["10.1.2.9/24"]);
}
