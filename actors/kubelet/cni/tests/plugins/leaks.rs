//! The node's network frees what containers left whose runtime forgot them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k3sd_kubelet_cni::{NetworkConfig, tree};
use k3sd_runtime::{Clock, System};
use serde_json::json;
use tokio::sync::watch;

use crate::support::Host;

pub(crate) fn what_nobody_knows_is_freed(host: &Host) {
    let runtime = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"egressRate": 1_000_000, "egressBurst": 1_000_000}});
    let (lives, leaks) = (
        host.add("lives", &runtime),
        host.add(
            "leaks",
            &json!({"portMappings": [
        {"hostPort": 8081, "containerPort": 80, "protocol": "udp"}], "bandwidth": runtime["bandwidth"]}),
        ),
    );
    assert_eq!((host.taken().len(), host.pod_links().len()), (4, 4));
    let mut config = NetworkConfig::new("/bin/false".into(), host.path("conf").clone(), host.path("other-bin").clone());
    config.subnet_env = host.path("other.env");
    config.networks_dir = host.path("networks");
    config.flannel_dir = host.path("flannel");
    config.namespace = Some(Path::new(&host.space.path()).to_owned());

    // The clock jumps over what the actor waits, and stands still while it works.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    executor.block_on(async {
        let clock = Clock::simulated(7);
        let known = ["lives", "leaks"].map(str::to_owned);
        let live = watch::Sender::new(Some(Arc::new(BTreeSet::from(known))));
        let cidrs = watch::Sender::new(vec!["10.42.1.0/24".parse().unwrap()]);
        let system = System::new(clock.clone());
        let network = system.start(tree(config, cidrs.subscribe(), live.subscribe()));
        network.ready().await.unwrap();
        let pass = |seconds| clock.sleep_until(clock.now() + Duration::from_secs(seconds));
        pass(3600).await;
        assert_eq!(host.taken().len(), 4, "nobody is missing");
        assert!(Path::new(&leaks.space.path()).exists());
        live.send_replace(Some(Arc::new(BTreeSet::from(["lives".to_owned()]))));
        pass(120).await;
        assert_eq!(host.taken().len(), 4, "it may be that the runtime learns of it yet");
        pass(600).await;
        assert_eq!((host.taken().len(), host.pod_links().len()), (2, 2), "what was left is freed");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        for (pod, stays) in [(&lives, true), (&leaks, false)] {
            assert_eq!(Path::new(&pod.space.path()).exists(), stays, "the namespace of {}", pod.id);
            assert_eq!(mounts.contains(&pod.space.name), stays, "the mount of {}", pod.id);
        }
        network.stop();
        network.ended().await;
    });
    assert_eq!(std::fs::read_dir(host.path("flannel")).unwrap().count(), 1);
    let rules = host.space.run(&["nft", "list", "table", "inet", "k3sd-cni"]);
    assert!(!rules.contains("leaks/eth0"), "{rules}");
    host.each("CHECK", &lives, &runtime, &lives.space.path()).unwrap();
    host.delete(&lives, &runtime);
    // The runtime comes to it after all, and nothing is wrong with that.
    host.delete(&leaks, &runtime);
    host.assert_clean();
}
