//! A host, its pods, and what the runtime does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use k3sd_netlink::Namespace;
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace that goes away with its owner.
pub(crate) struct Space {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
}

impl Space {
    pub(crate) fn new() -> Option<Self> {
        // As a runtime names those that it makes for sandboxes.
        let name = format!("cni-k3sd-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(output) if output.status.success() => {}
            other => {
                println!("ignored: no network namespace can be made: {other:?}");
                return None;
            }
        }
        let namespace = Namespace::open(&Path::new("/run/netns").join(&name)).unwrap();
        Some(Self { name, namespace })
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs a command inside and returns what it prints.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let output = Command::new("nsenter").arg(format!("--net={}", self.path())).args(command).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether a ping inside is answered.
    pub(crate) fn pings(&self, address: &str) -> bool {
        let net = format!("--net={}", self.path());
        let ping = ["busybox", "ping", "-c", "1", "-W", "2", address];
        Command::new("nsenter").arg(net).args(ping).output().unwrap().status.success()
    }

    /// Does something inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.enter(|| Ok::<_, k3sd_netlink::NetlinkError>(work())).unwrap()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.name]).output().ok();
    }
}

/// A host with the plugins installed, and a network of its own.
pub(crate) struct Host {
    pub(crate) space: Space,
    pub(crate) dir: tempfile::TempDir,
}

/// A pod, as the runtime sees it.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) space: Space,
    pub(crate) result: Value,
}

impl Pod {
    /// Its address of one family, without the length.
    pub(crate) fn address(&self, is_ipv6: bool) -> String {
        address(&self.result, is_ipv6)
    }
}

pub(crate) fn address(result: &Value, is_ipv6: bool) -> String {
    let ips = result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap());
    let mut its = ips.filter(|text| text.contains(':') == is_ipv6);
    its.next().unwrap().split('/').next().unwrap().to_owned()
}

const SUBNET_ENV: &str = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\n\
    FLANNEL_IPV6_NETWORK=fd42::/56\nFLANNEL_IPV6_SUBNET=fd42:0:0:1::1/64\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=true\n";

impl Host {
    pub(crate) fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        k3sd_kubelet_cni::install(&dir.path().join("bin"), &own).unwrap();
        std::fs::write(dir.path().join("subnet.env"), SUBNET_ENV).unwrap();
        Some(Self { space: Space::new()?, dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration of a plugin, complete but for the chain.
    pub(crate) fn config(&self, kind: &str, version: &str) -> Value {
        let mut config = json!({"cniVersion": version, "name": "cbr0", "type": kind});
        match kind {
            "flannel" => {
                config["delegate"] = json!({"hairpinMode": true, "forceAddress": true, "isDefaultGateway": true});
                config["subnetFile"] = self.path("subnet.env").to_str().into();
                config["dataDir"] = self.path("flannel").to_str().into();
                config["ipam"] = json!({"dataDir": self.path("networks")});
            }
            "bridge" => {
                config["isDefaultGateway"] = true.into();
                config["bridge"] = "br7".into();
                config["ipam"] =
                    json!({"type": "host-local", "subnet": "10.7.0.0/24", "dataDir": self.path("networks")});
            }
            "host-local" => config["ipam"] = json!({"subnet": "10.8.0.0/24", "dataDir": self.path("networks")}),
            _ => {}
        }
        config
    }

    /// Starts a plugin on the host.
    pub(crate) fn start(&self, kind: &str, command: &str, id: &str, namespace: &str, config: &Value) -> Child {
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", self.space.path()))
            .arg(self.path("bin").join(kind))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", namespace)
            .env("CNI_IFNAME", if kind == "loopback" { "lo" } else { "eth0" })
            .env("CNI_PATH", self.path("bin"))
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=test")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        child
    }

    /// Calls a plugin: its answer, or its error.
    pub(crate) fn call(
        &self,
        kind: &str,
        command: &str,
        id: &str,
        namespace: &str,
        config: &Value,
    ) -> Result<Value, Value> {
        let output = self.start(kind, command, id, namespace, config).wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answer = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        if output.status.success() { Ok(answer) } else { Err(answer) }
    }

    /// The chain that a node has, with what the runtime adds.
    pub(crate) fn chain(&self, runtime: &Value) -> Vec<Value> {
        let mut chain: Vec<Value> = ["flannel", "portmap", "bandwidth"].map(|kind| self.config(kind, "1.0.0")).into();
        for (place, key) in [(1, "portMappings"), (2, "bandwidth")] {
            if !runtime[key].is_null() {
                chain[place]["runtimeConfig"] = json!({key: runtime[key]});
            }
        }
        chain
    }

    pub(crate) fn add(&self, id: &str, runtime: &Value) -> Pod {
        let space = Space::new().unwrap();
        let lo = json!({"cniVersion": "1.0.0", "name": "cni-loopback", "type": "loopback"});
        self.call("loopback", "ADD", id, &space.path(), &lo).unwrap();
        let mut result = Value::Null;
        for mut config in self.chain(runtime) {
            if !result.is_null() {
                config["prevResult"] = result;
            }
            let kind = config["type"].as_str().unwrap().to_owned();
            result = self.call(&kind, "ADD", id, &space.path(), &config).unwrap();
        }
        Pod { id: id.to_owned(), space, result }
    }

    /// Calls the whole chain backwards or forwards, as the command wants it.
    pub(crate) fn each(&self, command: &str, pod: &Pod, runtime: &Value, namespace: &str) -> Result<(), Value> {
        let mut chain = self.chain(runtime);
        if command == "DEL" {
            chain.reverse();
        }
        for mut config in chain {
            config["prevResult"] = pod.result.clone();
            let kind = config["type"].as_str().unwrap().to_owned();
            self.call(&kind, command, &pod.id, namespace, &config)?;
        }
        Ok(())
    }

    pub(crate) fn delete(&self, pod: &Pod, runtime: &Value) {
        self.each("DEL", pod, runtime, &pod.space.path()).unwrap();
    }

    /// Links on the host beside its own and the bridges.
    pub(crate) fn pod_links(&self) -> Vec<String> {
        let shown: Value = serde_json::from_str(&self.space.run(&["ip", "-j", "link"])).unwrap();
        let names = shown.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("veth") || name.starts_with("bwp")).collect()
    }

    /// Addresses that are taken.
    pub(crate) fn taken(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.path("networks/cbr0")) else { return Vec::new() };
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }

    /// Panics unless nothing of any pod is left.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.pod_links(), [""; 0], "links are left");
        assert_eq!(self.taken(), [""; 0], "addresses are left");
        let kept = std::fs::read_dir(self.path("flannel")).map(Iterator::count).unwrap_or(0);
        assert_eq!(kept, 0, "delegates' configurations are left");
        let rules = self.space.run(&["nft", "list", "ruleset"]);
        assert!(!rules.contains("/eth0"), "elements are left:\n{rules}");
    }
}
