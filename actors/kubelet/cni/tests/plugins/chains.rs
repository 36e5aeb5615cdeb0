//! Pods come and go.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Host, Pod, Space, address};

const NOTHING: Value = Value::Null;

pub(crate) fn a_pod_of_two_families(host: &Host) {
    let one = host.add("one", &NOTHING);
    let two = host.add("two", &NOTHING);
    let expected = ["10.42.1.2/24", "fd42:0:0:1::2/64"];
    let ips =
        |pod: &Pod| pod.result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].clone()).collect::<Vec<_>>();
    assert_eq!(ips(&one), expected);
    assert_eq!(one.result["cniVersion"], "1.0.0");
    assert_eq!(one.result["interfaces"][0]["name"], "cni0");
    assert_eq!(one.result["interfaces"][2]["name"], "eth0");
    assert_eq!(one.result["interfaces"][2]["sandbox"], one.space.path());
    assert_eq!(one.result["ips"][0]["interface"], 2);
    assert_eq!(one.result["ips"][0]["gateway"], "10.42.1.1");

    for is_ipv6 in [false, true] {
        assert!(one.space.pings(&two.address(is_ipv6)), "pod to pod");
        assert!(two.space.pings(&one.address(is_ipv6)), "and back");
        assert!(host.space.pings(&one.address(is_ipv6)), "host to pod");
        assert!(one.space.pings(&one.address(is_ipv6)), "pod to itself");
    }
    assert!(one.space.pings("10.42.1.1") && one.space.pings("fd42:0:0:1::1"), "pod to host");
    assert!(one.space.pings("127.0.0.1"), "loopback is up");
    let shown = one.space.run(&["ip", "route"]) + &one.space.run(&["ip", "-6", "route"]);
    for line in ["default via 10.42.1.1", "10.42.0.0/16 via 10.42.1.1", "default via fd42:0:0:1::1"] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
    let link: Value = serde_json::from_str(&one.space.run(&["ip", "-j", "link", "show", "eth0"])).unwrap();
    assert_eq!(link[0]["mtu"], 1400);
    assert_eq!(link[0]["address"], "0a:58:0a:2a:01:02");
    let link: Value = serde_json::from_str(&host.space.run(&["ip", "-j", "link", "show", "cni0"])).unwrap();
    assert_eq!((&link[0]["mtu"], &link[0]["address"]), (&json!(1400), &json!("0a:58:0a:2a:01:01")));

    let switch = |space: &Space, key: &str| space.run(&["sysctl", "-n", key]).trim().to_owned();
    assert_eq!(switch(&host.space, "net.ipv6.conf.cni0.accept_ra"), "0", "no pod becomes the host's router");
    assert_eq!(switch(&one.space, "net.ipv6.conf.eth0.accept_dad"), "0");

    host.each("CHECK", &one, &NOTHING, &one.space.path()).unwrap();
    one.space.run(&["ip", "addr", "del", "10.42.1.2/24", "dev", "eth0"]);
    assert!(host.each("CHECK", &one, &NOTHING, &one.space.path()).is_err(), "a lost address is noticed");
    host.delete(&one, &NOTHING);
    host.delete(&one, &NOTHING);
    assert_eq!(host.pod_links().len(), 1);
    assert!(host.space.pings(&two.address(false)), "the other pod is still there");
    host.delete(&two, &NOTHING);
    host.assert_clean();
}

pub(crate) fn masquerading(host: &Host) {
    let outside = Space::new().unwrap();
    host.space.run(&["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", &outside.name]);
    for (space, link, last) in [(&host.space, "up0", 1), (&outside, "up1", 2)] {
        space.run(&["ip", "addr", "add", &format!("192.0.2.{last}/24"), "dev", link]);
        space.run(&["ip", "-6", "addr", "add", &format!("2001:db8::{last}/64"), "dev", link, "nodad"]);
        space.run(&["ip", "link", "set", link, "up"]);
    }
    let mut config = host.config("bridge", "1.1.0");
    config["ipam"] = json!({"type": "host-local", "dataDir": host.path("networks"),
        "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd07::/64"}]]});
    let pod = Space::new().unwrap();
    let result = host.call("bridge", "ADD", "plain", &pod.path(), &config).unwrap();
    assert!(!pod.pings("192.0.2.2"), "outside knows no way back to the pod");
    host.call("bridge", "DEL", "plain", &pod.path(), &config).unwrap();

    config["ipMasq"] = true.into();
    host.call("bridge", "ADD", "masked", &pod.path(), &config).unwrap();
    assert!(pod.pings("192.0.2.2"), "the host stands for it");
    assert!(pod.pings("2001:db8::2"), "in IPv6 too");
    let other = Space::new().unwrap();
    host.call("bridge", "ADD", "other", &other.path(), &config).unwrap();
    assert!(pod.pings(&address(&result, false).replace("0.2", "0.4")), "others of its network are reached");
    host.call("bridge", "DEL", "masked", &pod.path(), &config).unwrap();
    host.call("bridge", "DEL", "other", "", &config).unwrap();
    host.assert_clean();
}

pub(crate) fn older_versions_and_errors(host: &Host) {
    let pod = Space::new().unwrap();
    let versions = host.call("bridge", "VERSION", "", "", &json!({"cniVersion": "1.0.0"})).unwrap();
    assert_eq!(versions["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    let config = host.config("bridge", "0.3.1");
    let result = host.call("bridge", "ADD", "old", &pod.path(), &config).unwrap();
    assert_eq!((&result["cniVersion"], &result["ips"][0]["version"]), (&json!("0.3.1"), &json!("4")));
    host.call("cni", "DEL", "old", &pod.path(), &config).unwrap();

    let error = |kind: &str, command: &str, namespace: &str, config: &Value| {
        let error = host.call(kind, command, "bad", namespace, config).unwrap_err();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    };
    let mut config = host.config("bridge", "1.0.0");
    assert_eq!(error("bridge", "ADD", "/nowhere", &config).0, 3);
    assert_eq!(error("bridge", "ADD", "", &config).0, 4);
    assert_eq!(error("bridge", "FETCH", "", &config).0, 4);
    assert_eq!(error("bridge", "ADD", &pod.path(), &json!("text")).0, 6);
    assert_eq!(error("bridge", "ADD", &pod.path(), &json!({"cniVersion": "9.9.9", "name": "n"})).0, 1);
    assert_eq!(error("portmap", "ADD", &pod.path(), &host.config("portmap", "1.0.0")).0, 7);
    config["vlan"] = 5.into();
    assert_eq!(error("bridge", "ADD", &pod.path(), &config), (2, "bridge: vlan is not supported".to_owned()));
    config["vlan"] = 0.into();
    config["ipam"]["type"] = "dhcp".into();
    assert_eq!(error("bridge", "ADD", &pod.path(), &config).0, 2);
    std::fs::remove_file(host.path("subnet.env")).unwrap();
    let (code, text) = error("flannel", "ADD", &pod.path(), &host.config("flannel", "1.0.0"));
    assert_eq!(code, 5);
    assert!(text.starts_with("failed to load flannel 'subnet.env' file"), "{text}");
    assert_eq!(error("flannel", "STATUS", "", &host.config("flannel", "1.1.0")).0, 50);
    host.assert_clean();
}

pub(crate) fn parallel_adds_give_different_addresses(host: &Host) {
    let config = host.config("host-local", "1.0.0");
    let children: Vec<_> = (0..100)
        .map(|number| host.start("host-local", "ADD", &format!("c{number}"), "/proc/1/ns/net", &config))
        .collect();
    let answers = children.into_iter().map(|child| child.wait_with_output().unwrap());
    let mut addresses: Vec<String> =
        answers.map(|output| address(&serde_json::from_slice(&output.stdout).unwrap(), false)).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 100);
    for number in 0..100 {
        host.call("host-local", "DEL", &format!("c{number}"), "", &config).unwrap();
    }

    // And the whole of it, where they all want to make the same bridge.
    let config = host.config("flannel", "1.0.0");
    let pods: Vec<Space> = (0..20).map(|_| Space::new().unwrap()).collect();
    let start =
        |(number, pod): (usize, &Space)| host.start("flannel", "ADD", &format!("p{number}"), &pod.path(), &config);
    let children: Vec<_> = pods.iter().enumerate().map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(host.pod_links().len(), 20);
    assert!(pods.iter().all(|pod| pod.pings("10.42.1.1")));
    for (number, pod) in pods.iter().enumerate() {
        host.call("flannel", "DEL", &format!("p{number}"), &pod.path(), &config).unwrap();
    }
    host.assert_clean();
}

pub(crate) fn a_killed_add_leaks_nothing(host: &Host) {
    let config = host.config("flannel", "1.0.0");
    let mut cut_short = 0;
    for round in 0..40_u64 {
        let pod = Space::new().unwrap();
        let id = format!("killed-{round}");
        let mut child = host.start("flannel", "ADD", &id, &pod.path(), &config);
        // nsenter becomes the plugin, so this is the plugin's process.
        std::thread::park_timeout(Duration::from_micros(round * 400));
        child.kill().unwrap();
        cut_short += u32::from(!child.wait().unwrap().success());
        host.call("flannel", "DEL", &id, &pod.path(), &config).unwrap();
        host.assert_clean();
        assert!(!pod.run(&["ip", "link"]).contains("eth0"));
    }
    assert!(cut_short > 5, "only {cut_short} were killed before they were done");
    let pod = host.add("after", &NOTHING);
    assert!(host.space.pings(&pod.address(false)), "the network still works");
    host.delete(&pod, &NOTHING);
    host.assert_clean();
}

pub(crate) fn deleting_without_a_namespace(host: &Host) {
    let runtime = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 1_000_000, "egressBurst": 1_000_000}});
    let pod = host.add("gone", &runtime);
    let path = pod.space.path();
    assert_eq!(host.pod_links().len(), 2);
    let removed = Command::new("ip").args(["netns", "del", &pod.space.name]).status().unwrap();
    assert!(removed.success());
    host.each("DEL", &pod, &runtime, &path).unwrap();
    host.each("DEL", &pod, &runtime, "").unwrap();
    host.assert_clean();
    let mut config = host.config("flannel", "1.0.0");
    config["delegate"] = json!({"type": "macvlan"});
    host.call("flannel", "DEL", "never-there", "", &config).unwrap();
}

pub(crate) fn collection(host: &Host) {
    let runtime = json!({"portMappings": [{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"egressRate": 1_000_000, "egressBurst": 1_000_000}});
    let (lives, leaks) = (host.add("lives", &runtime), host.add("leaks", &NOTHING));
    for kind in ["flannel", "portmap", "bandwidth"] {
        let mut config = host.config(kind, "1.1.0");
        config["cni.dev/valid-attachments"] = json!([{"containerID": "lives", "ifname": "eth0"}]);
        host.call(kind, "GC", "", "", &config).unwrap();
    }
    assert_eq!(host.taken().len(), 2, "the addresses of the one that lives");
    host.each("CHECK", &lives, &runtime, &lives.space.path()).unwrap();
    host.delete(&lives, &runtime);
    host.delete(&leaks, &NOTHING);
    host.assert_clean();
}
